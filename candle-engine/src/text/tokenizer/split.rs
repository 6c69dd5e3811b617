//! How a text is cut into the pieces that are encoded one by one.

use super::byte_level;
use super::pattern::Pattern;

/// A step of cutting.
#[derive(Debug)]
pub(super) enum Splitter {
    /// Cuts by a pattern.
    Pattern { pattern: Pattern, behavior: Behavior, invert: bool },
    /// Cuts around numeric characters, each or each run of them.
    Digits { individual: bool },
    /// Cuts at white space, which goes.
    Whitespace,
    /// Cuts by GPT-2's pattern if asked, then writes bytes in GPT-2's alphabet.
    ByteLevel { prefix_space: bool, pattern: Option<Pattern> },
    /// Spaces become `replacement`; each piece, or only the first, starts with one; cuts before each if asked.
    Metaspace { replacement: char, prepend: Prepend, split: bool },
}

/// What becomes of the matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub(super) enum Behavior {
    /// They go.
    Removed,
    /// Each is a piece.
    Isolated,
    /// They end the piece before them.
    MergedWithPrevious,
    /// They start the piece after them.
    MergedWithNext,
    /// Each run of them is a piece.
    Contiguous,
}

/// Which pieces are given a leading replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Prepend {
    /// The first of the whole input.
    First,
    /// None.
    Never,
    /// All.
    Always,
}

/// A text and where it is cut.
#[derive(Debug)]
pub(super) struct Pieces {
    text: String,
    /// Not empty, in order, and within the text.
    spans: Vec<(usize, usize)>,
    /// Whether the first piece starts where the whole input starts.
    at_start: bool,
}

impl Pieces {
    /// A text in one piece.
    pub(super) fn new(text: String, at_start: bool) -> Self {
        let spans = if text.is_empty() { Vec::new() } else { vec![(0, text.len())] };
        Self { text, spans, at_start }
    }

    /// The pieces in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.spans.iter().map(|(start, end)| &self.text[*start..*end])
    }

    /// Takes a step.
    pub(super) fn apply(&mut self, step: &Splitter) {
        match step {
            Splitter::Pattern { pattern, behavior, invert } => {
                self.cut(*behavior, |text, on| {
                    pattern.cut(text, |start, end, is| on(start, end, is != *invert))
                });
            }
            Splitter::Digits { individual } => {
                let behavior = if *individual { Behavior::Isolated } else { Behavior::Contiguous };
                self.cut_chars(behavior, char::is_numeric);
            }
            Splitter::Whitespace => self.cut_chars(Behavior::Removed, char::is_whitespace),
            Splitter::ByteLevel { prefix_space, pattern } => {
                if *prefix_space {
                    self.rewrite(|_, piece, out| {
                        if !piece.starts_with(' ') {
                            out.push(' ');
                        }
                        out.push_str(piece);
                    });
                }
                if let Some(pattern) = pattern {
                    self.cut(Behavior::Isolated, |text, on| pattern.cut(text, on));
                }
                self.rewrite(|_, piece, out| byte_level::write(piece, out));
            }
            Splitter::Metaspace { replacement, prepend, split } => {
                self.rewrite(|first, piece, out| {
                    let wanted = *prepend == Prepend::Always || (*prepend == Prepend::First && first);
                    if wanted && !piece.starts_with([' ', *replacement]) {
                        out.push(*replacement);
                    }
                    out.extend(piece.chars().map(|c| if c == ' ' { *replacement } else { c }));
                });
                if *split {
                    self.cut_chars(Behavior::MergedWithNext, |c| c == *replacement);
                }
            }
        }
    }

    /// Replaces each piece by what `write` makes of it; told whether it starts the whole input.
    fn rewrite(&mut self, mut write: impl FnMut(bool, &str, &mut String)) {
        let mut text = String::with_capacity(self.text.len() + self.text.len() / 2);
        for (i, span) in self.spans.iter_mut().enumerate() {
            let start = text.len();
            write(i == 0 && self.at_start, &self.text[span.0..span.1], &mut text);
            *span = (start, text.len());
        }
        self.text = text;
    }

    fn cut_chars(&mut self, behavior: Behavior, is_match: impl Fn(char) -> bool) {
        self.cut(behavior, |text, on| {
            let mut end = 0;
            for (at, c) in text.char_indices().filter(|(_, c)| is_match(*c)) {
                if end < at {
                    on(end, at, false);
                }
                end = at + c.len_utf8();
                on(at, end, true);
            }
            if end < text.len() {
                on(end, text.len(), false);
            }
        });
    }

    /// Cuts each piece into the parts that `parts` reports: start, end, whether it is a match.
    fn cut(&mut self, behavior: Behavior, parts: impl Fn(&str, &mut dyn FnMut(usize, usize, bool))) {
        let before = std::mem::take(&mut self.spans);
        for (from, to) in before {
            let first = self.spans.len();
            let mut last: Option<bool> = None;
            let spans = &mut self.spans;
            parts(&self.text[from..to], &mut |start, end, is_match| {
                let joins = match (behavior, last) {
                    (_, None) | (Behavior::Removed | Behavior::Isolated, _) => false,
                    (Behavior::Contiguous, Some(last)) => is_match == last,
                    (Behavior::MergedWithPrevious, Some(last)) => is_match && !last,
                    // A match joins what follows; of several matches in a row, the last one does.
                    (Behavior::MergedWithNext, Some(last)) => last && !is_match,
                };
                last = Some(is_match);
                if joins && spans.len() > first {
                    spans.last_mut().into_iter().for_each(|span| span.1 = from + end);
                } else if !(behavior == Behavior::Removed && is_match) {
                    spans.push((from + start, from + end));
                }
            });
        }
        // A match may be empty, and still keeps its neighbours apart.
        self.spans.retain(|(start, end)| start < end);
        // Unless something was removed at the very start.
        self.at_start &= self.spans.first().is_some_and(|span| span.0 == 0);
    }
}
