//! Tokens to words.
//!
//! Source: `split_to_word_tokens` of openai-whisper.

use candle_engine::Result;

use super::super::Tokens;

/// Languages that put no spaces between words: there every character is a word.
const WITHOUT_SPACES: [&str; 6] = ["zh", "ja", "th", "lo", "my", "yue"];
/// Python's `string.punctuation`.
const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
const REPLACEMENT: char = '\u{fffd}';

/// A word and its tokens.
pub(super) type WordTokens = (String, Vec<u32>);

/// Cuts text into words.
///
/// Errors: `Tokenizer` if the decoder fails.
pub(super) fn split(tokens: &Tokens, language: &str, ids: &[u32]) -> Result<Vec<WordTokens>> {
    let characters = by_characters(ids, &|ids| tokens.spell(ids))?;
    Ok(match WITHOUT_SPACES.contains(&language) {
        true => characters,
        false => by_spaces(characters, tokens.eot),
    })
}

/// The shortest runs of tokens that are whole characters.
fn by_characters(ids: &[u32], decode: &dyn Fn(&[u32]) -> Result<String>) -> Result<Vec<WordTokens>> {
    let whole: Vec<char> = decode(ids)?.chars().collect();
    let (mut words, mut run, mut at) = (Vec::new(), Vec::new(), 0);
    for &id in ids {
        run.push(id);
        let text = decode(&run)?;
        // A character that stays broken in the whole text is one.
        let broken = text.chars().position(|c| c == REPLACEMENT);
        if broken.is_none_or(|broken| whole.get(at + broken) == Some(&REPLACEMENT)) {
            at += text.chars().count();
            words.push((text, std::mem::take(&mut run)));
        }
    }
    Ok(words)
}

/// A word begins with a space, and so does punctuation that stands alone.
fn by_spaces(parts: Vec<WordTokens>, eot: u32) -> Vec<WordTokens> {
    let mut words: Vec<WordTokens> = Vec::new();
    for (text, ids) in parts {
        let special = ids.first().is_some_and(|&id| id >= eot);
        let begins = special || text.starts_with(' ') || PUNCTUATION.contains(strip(&text));
        match words.last_mut().filter(|_| !begins) {
            Some((word, all)) => {
                word.push_str(&text);
                all.extend(ids);
            }
            None => words.push((text, ids)),
        }
    }
    words
}

/// What Python's `strip` leaves: to it the separators of ASCII are white space too.
pub(in crate::whisper) fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(parts: &[(&str, u32)]) -> Vec<String> {
        let parts = parts.iter().map(|(text, id)| ((*text).to_owned(), vec![*id]));
        by_spaces(parts.collect(), 100).into_iter().map(|(word, _)| word).collect()
    }

    #[test]
    fn words_begin_with_spaces() {
        let parts = [(" Hel", 1), ("lo", 2), (",", 3), (" wor", 4), ("ld", 5), ("!", 6), ("<|end|>", 100)];
        assert_eq!(words(&parts), [" Hello", ",", " world", "!", "<|end|>"]);
        assert_eq!(words(&[("be", 1), ("gins", 2)]), ["begins"]);
    }

    #[test]
    fn characters_are_whole_unless_they_never_will_be() {
        let bytes: [&[u8]; 6] = [b" a", b"\xe4\xbd", b"\xa0", b"\xff", b"b", b"\xe4"];
        let decode = |ids: &[u32]| {
            let all: Vec<u8> = ids.iter().flat_map(|&id| bytes[id as usize]).copied().collect();
            Ok(String::from_utf8_lossy(&all).into_owned())
        };
        let words = by_characters(&[0, 1, 2, 3, 4, 5], &decode).unwrap();
        let texts: Vec<&str> = words.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(texts, [" a", "你", "\u{fffd}", "b", "\u{fffd}"]);
        assert_eq!(words[1].1, [1, 2]);
    }
}
