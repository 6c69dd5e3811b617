//! The patterns that texts are cut by: the published ones written out, any other as a regular expression.
//!
//! Compiling the usual pattern takes longer than reading a vocabulary, and running it is slower than the
//! scanner below, which says the same; the tests compare them on every kind of character.

use std::sync::LazyLock;

use fancy_regex::Regex;

use crate::{Error, Result};

/// GPT-2's pattern, which is also what `ByteLevel` means by its own.
pub(super) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Llama 3's pattern.
pub const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Qwen 2's pattern.
pub const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Qwen 3.5's pattern.
pub(super) const QWEN35: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// What a text is cut by.
#[derive(Debug)]
pub(super) enum Pattern {
    /// Every match of a plain text.
    Text(String),
    /// One of the patterns above, by hand.
    Known(Known),
    /// Any other regular expression.
    Regex(Box<Regex>),
}

/// A pattern of the family that all published ones above belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Words and numbers take the space before them.
    Gpt2,
    /// Words take any one character before them, lines end a piece, numbers come in groups of `digits`; with
    /// `marks`, combining marks are letters.
    Lines { digits: usize, marks: bool },
}

impl Pattern {
    /// A pattern from its regular expression.
    ///
    /// Errors: `Tokenizer` if the expression cannot be read.
    pub(super) fn regex(source: &str) -> Result<Self> {
        Ok(match source {
            GPT2 => Self::Known(Known::Gpt2),
            LLAMA3 => Self::Known(Known::Lines { digits: 3, marks: false }),
            QWEN2 => Self::Known(Known::Lines { digits: 1, marks: false }),
            QWEN35 => Self::Known(Known::Lines { digits: 1, marks: true }),
            _ => {
                let regex =
                    Regex::new(source).map_err(|e| Error::Tokenizer(format!("pattern {source:?}: {e}")))?;
                Self::Regex(Box::new(regex))
            }
        })
    }

    /// Calls `on` with each part of `text` in turn and whether it is a match; the parts make up the text.
    pub(super) fn cut(&self, text: &str, mut on: impl FnMut(usize, usize, bool)) {
        let mut end = 0;
        let mut matched = |start, stop| {
            if end < start {
                on(end, start, false);
            }
            on(start, stop, true);
            end = stop;
        };
        match self {
            Self::Text(wanted) if wanted.is_empty() => {}
            Self::Text(wanted) => {
                text.match_indices(wanted.as_str()).for_each(|(at, m)| matched(at, at + m.len()))
            }
            Self::Known(known) => {
                let mut at = 0;
                while at < text.len() {
                    let stop = at + known.first(&text[at..]);
                    matched(at, stop);
                    at = stop;
                }
            }
            // An expression that gives up (too much backtracking) leaves the rest in one part.
            Self::Regex(regex) => {
                regex.find_iter(text).map_while(|m| m.ok()).for_each(|m| matched(m.start(), m.end()));
            }
        }
        if end < text.len() {
            on(end, text.len(), false);
        }
    }
}

/// What the patterns tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Mark,
    Number,
    Space,
    Other,
}

impl Known {
    /// Length of the match at the start of a text that is not empty: these patterns match everywhere.
    fn first(self, text: &str) -> usize {
        match self {
            Self::Gpt2 => gpt2(text),
            Self::Lines { digits, marks } => lines(text, digits, marks),
        }
    }
}

fn gpt2(text: &str) -> usize {
    if let Some(len) = contraction(text, false) {
        return len;
    }
    let after_space = text.strip_prefix(' ').unwrap_or(text);
    let class = after_space.chars().next().map_or(Class::Space, Class::of);
    if class == Class::Space {
        return spaces(text, usize::MAX);
    }
    // Marks are neither letters nor numbers.
    let plain = |c| match Class::of(c) {
        Class::Mark => Class::Other,
        class => class,
    };
    let class = if class == Class::Mark { Class::Other } else { class };
    text.len() - after_space.len() + run(after_space, |c| plain(c) == class)
}

fn lines(text: &str, digits: usize, marks: bool) -> usize {
    if let Some(len) = contraction(text, true) {
        return len;
    }
    let is_word = |c| match Class::of(c) {
        Class::Letter => true,
        Class::Mark => marks,
        _ => false,
    };
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return 0 };
    let rest = chars.as_str();
    let class = Class::of(first);
    if is_word(first) {
        return run(text, is_word);
    }
    if class != Class::Number && !is_newline(first) && rest.starts_with(is_word) {
        return first.len_utf8() + run(rest, is_word);
    }
    if class == Class::Number {
        return text
            .chars()
            .take(digits)
            .take_while(|c| Class::of(*c) == Class::Number)
            .map(char::len_utf8)
            .sum();
    }
    let is_other = |c| !is_word(c) && matches!(Class::of(c), Class::Other | Class::Mark);
    let after_space = text.strip_prefix(' ').unwrap_or(text);
    if after_space.starts_with(is_other) {
        let end = text.len() - after_space.len() + run(after_space, is_other);
        return end + run(&text[end..], is_newline);
    }
    let blank = run(text, char::is_whitespace);
    match text[..blank].rfind(is_newline) {
        Some(last) => last + 1,
        None => spaces(text, blank),
    }
}

/// White space at the start of a text, less its last character if something follows: that belongs to the next
/// piece. `run` is its length, where known.
fn spaces(text: &str, known: usize) -> usize {
    let blank = if known == usize::MAX { run(text, char::is_whitespace) } else { known };
    let last = text[..blank].chars().next_back().map_or(0, char::len_utf8);
    if blank == text.len() || blank == last {
        blank
    } else {
        blank - last
    }
}

/// Length of an English contraction at the start of a text.
fn contraction(text: &str, any_case: bool) -> Option<usize> {
    let mut chars = text.strip_prefix('\'')?.chars();
    let fold = |c: char| match c {
        // In expressions that ignore the case, the long s is an s.
        'ſ' if any_case => 's',
        c if any_case => c.to_ascii_lowercase(),
        c => c,
    };
    let first = chars.next()?;
    match fold(first) {
        's' | 't' | 'm' | 'd' => Some(1 + first.len_utf8()),
        c @ ('r' | 'v' | 'l') => {
            let second = fold(chars.next()?);
            (second == if c == 'l' { 'l' } else { 'e' }).then_some(3)
        }
        _ => None,
    }
}

fn is_newline(c: char) -> bool {
    matches!(c, '\r' | '\n')
}

/// Length of the characters at the start of a text that satisfy `belongs`.
fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

impl Class {
    fn of(c: char) -> Self {
        match c {
            'a'..='z' | 'A'..='Z' => Self::Letter,
            '0'..='9' => Self::Number,
            ' ' | '\t'..='\r' => Self::Space,
            '\0'..='\x7f' => Self::Other,
            _ => Self::of_unicode(c),
        }
    }

    fn of_unicode(c: char) -> Self {
        static CLASSES: LazyLock<[(Class, Ranges); 3]> = LazyLock::new(|| {
            [(Class::Letter, r"\p{L}"), (Class::Number, r"\p{N}"), (Class::Mark, r"\p{M}")]
                .map(|(class, name)| (class, ranges(name)))
        });
        if c.is_whitespace() {
            return Self::Space;
        }
        let holds = |ranges: &Ranges| {
            let after = ranges.partition_point(|(start, _)| *start <= c);
            after > 0 && c <= ranges[after - 1].1
        };
        CLASSES.iter().find(|(_, ranges)| holds(ranges)).map_or(Self::Other, |(class, _)| *class)
    }
}

/// First and last characters, in order.
type Ranges = Vec<(char, char)>;

/// The characters of a Unicode class, from the tables of the expressions that these scanners stand for: another
/// source might be another version of Unicode.
fn ranges(class: &str) -> Ranges {
    match regex_syntax::parse(class).map(|hir| hir.into_kind()) {
        Ok(regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(class))) => {
            class.ranges().iter().map(|r| (r.start(), r.end())).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 4] = [GPT2, LLAMA3, QWEN2, QWEN35];

    fn parts(pattern: &Pattern, text: &str) -> Vec<(usize, usize, bool)> {
        let mut parts = Vec::new();
        pattern.cut(text, |start, end, is_match| parts.push((start, end, is_match)));
        parts
    }

    fn agree(text: &str) {
        for source in ALL {
            let known = Pattern::regex(source).unwrap();
            assert!(matches!(known, Pattern::Known(_)));
            let regex = Pattern::Regex(Box::new(Regex::new(source).unwrap()));
            assert_eq!(parts(&known, text), parts(&regex, text), "{source} on {text:?}");
        }
    }

    #[test]
    fn scanners_cut_as_their_expressions_do() {
        // Every combination of four characters of which each stands for a way that the patterns branch.
        let kinds =
            ['a', 'S', 'l', 'é', 'ſ', '1', '½', ' ', '\t', '\n', '\r', '\u{a0}', '\'', '!', '\u{301}', '漢'];
        let patterns = ALL.map(|source| {
            (Pattern::regex(source).unwrap(), Pattern::Regex(Box::new(Regex::new(source).unwrap())))
        });
        for i in 0..kinds.len().pow(4) {
            let text: String = (0..4).map(|place| kinds[i / kinds.len().pow(place) % kinds.len()]).collect();
            for (known, regex) in &patterns {
                assert_eq!(parts(known, &text), parts(regex, &text), "{text:?}");
            }
        }
    }

    #[test]
    fn scanners_know_every_character() {
        let mut text = String::new();
        for c in '\0'..=char::MAX {
            text.extend(['b', c, '!', c, ' ', c, '7', c, c]);
            if text.len() > 1 << 16 {
                agree(&text);
                text.clear();
            }
        }
        agree(&text);
    }

    #[test]
    fn contractions_and_long_runs() {
        agree("I'll we're THEY'VE don't he'd 'S 'ſ 'sé 'llama 'l 'r 'v' 're");
        agree(&" ".repeat(5000));
        agree(&format!("{}x{}\n{}", " ".repeat(999), "\t ".repeat(500), " ".repeat(3)));
        agree(&"12345678901234567890".repeat(50));
        agree("a\r\n\r\n  b \n \n  c\u{2028}\u{2029} d\u{3000}\u{3000}e");
    }
}
