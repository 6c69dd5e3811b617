//! Added tokens: texts that are one token wherever they stand, found before anything else is done.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use fancy_regex::Regex;

use super::normalize::{normalize, Normalizer};
use super::vocab::Vocab;

/// A token beside the model's own.
#[derive(Debug, Clone, Default, serde::Deserialize)]
pub(super) struct AddedToken {
    pub content: String,
    /// Only where no word character touches it.
    #[serde(default)]
    pub single_word: bool,
    /// Takes the white space on its left.
    #[serde(default)]
    pub lstrip: bool,
    /// Takes the white space on its right.
    #[serde(default)]
    pub rstrip: bool,
    /// Is looked for in the normalized text, itself normalized.
    #[serde(default)]
    pub normalized: bool,
    /// Controls the model: not part of what it says.
    #[serde(default)]
    pub special: bool,
}

/// All added tokens.
#[derive(Debug, Default)]
pub(super) struct Added {
    tokens: BTreeMap<u32, Entry>,
    ids: BTreeMap<String, u32>,
    raw: Finder,
    normalized: Finder,
}

#[derive(Debug)]
struct Entry {
    token: AddedToken,
    /// What the token decodes to: its content as normalized.
    text: String,
}

/// A stretch of text, or an added token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// From, to.
    Text(usize, usize),
    /// An id.
    Token(u32),
}

impl Added {
    /// Gives each token its id: the vocabulary's, or the next free one in the order of the list.
    pub(super) fn new(tokens: Vec<AddedToken>, vocab: &Vocab, normalizer: &[Normalizer]) -> Self {
        let mut added = Self::default();
        let mut next = vocab.len() as u32;
        for token in tokens.into_iter().filter(|token| !token.content.is_empty()) {
            let known = added.ids.get(&token.content).copied().or_else(|| vocab.id(&token.content));
            let id = known.unwrap_or(next);
            next += u32::from(known.is_none());
            let text = if token.normalized {
                normalize(normalizer, &token.content).into_owned()
            } else {
                token.content.clone()
            };
            added.ids.insert(token.content.clone(), id);
            added.tokens.insert(id, Entry { token, text });
        }
        let finder = |normalized| {
            let entries = added.tokens.iter().filter(|(_, entry)| entry.token.normalized == normalized);
            Finder::new(entries.map(|(id, entry)| (entry.text.clone(), *id)).collect())
        };
        (added.raw, added.normalized) = (finder(false), finder(true));
        added
    }

    pub(super) fn id(&self, content: &str) -> Option<u32> {
        self.ids.get(content).copied()
    }

    pub(super) fn content(&self, id: u32) -> Option<&str> {
        Some(&self.tokens.get(&id)?.token.content)
    }

    /// What an added token decodes to.
    pub(super) fn text(&self, id: u32) -> Option<&str> {
        Some(&self.tokens.get(&id)?.text)
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        self.tokens.get(&id).is_some_and(|entry| entry.token.special)
    }

    /// One more than the highest id, or 0.
    pub(super) fn ids(&self) -> usize {
        self.tokens.last_key_value().map_or(0, |(id, _)| *id as usize + 1)
    }

    /// Cuts a text around the tokens that are looked for before (or after) normalization. Without `specials`,
    /// special ones are text.
    pub(super) fn cut(
        &self,
        text: &str,
        after_normalization: bool,
        specials: bool,
        mut on: impl FnMut(Part),
    ) {
        let finder = if after_normalization { &self.normalized } else { &self.raw };
        let (mut done, mut at) = (0, 0);
        while let Some((mut start, mut end, id)) = finder.next(text, at) {
            at = end;
            let Some(Entry { token, .. }) = self.tokens.get(&id) else { continue };
            let touches = || {
                text[..start].chars().next_back().is_some_and(is_word)
                    || text[end..].chars().next().is_some_and(is_word)
            };
            if (token.special && !specials) || (token.single_word && touches()) {
                continue;
            }
            if token.lstrip {
                start = text[..start].trim_end().len().max(done);
            }
            if token.rstrip {
                end = text.len() - text[end..].trim_start().len();
            }
            if done < start {
                on(Part::Text(done, start));
            }
            on(Part::Token(id));
            done = end;
        }
        if done < text.len() {
            on(Part::Text(done, text.len()));
        }
    }
}

fn is_word(c: char) -> bool {
    static WORD: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\w").ok());
    match c {
        '\0'..='\x7f' => c.is_ascii_alphanumeric() || c == '_',
        _ => {
            let mut buffer = [0; 4];
            WORD.as_ref().is_some_and(|word| word.is_match(c.encode_utf8(&mut buffer)).unwrap_or(false))
        }
    }
}

/// Finds the leftmost, then the longest of many texts. A sorted list serves as a trie: the entries that start
/// with what was read so far are neighbours.
#[derive(Debug, Default)]
struct Finder {
    entries: Vec<(String, u32)>,
    /// First bytes of the entries.
    starts: Vec<u8>,
}

impl Finder {
    fn new(mut entries: Vec<(String, u32)>) -> Self {
        entries.retain(|(text, _)| !text.is_empty());
        entries.sort_unstable();
        entries.dedup_by(|second, first| second.0 == first.0);
        let mut starts: Vec<u8> = entries.iter().map(|(text, _)| text.as_bytes()[0]).collect();
        starts.dedup();
        Self { entries, starts }
    }

    /// The first match that starts at `from` or later: start, end, id.
    fn next(&self, text: &str, from: usize) -> Option<(usize, usize, u32)> {
        let bytes = text.as_bytes();
        (from..bytes.len()).find_map(|start| {
            self.starts.binary_search(&bytes[start]).ok()?;
            let (len, id) = self.longest(&bytes[start..])?;
            Some((start, start + len, id))
        })
    }

    /// The longest entry that `bytes` start with.
    fn longest(&self, bytes: &[u8]) -> Option<(usize, u32)> {
        let mut found = None;
        let mut fitting = &self.entries[..];
        for (depth, byte) in bytes.iter().enumerate() {
            let from = fitting.partition_point(|(text, _)| text.as_bytes()[depth] < *byte);
            fitting = &fitting[from..];
            fitting = &fitting[..fitting.partition_point(|(text, _)| text.as_bytes()[depth] == *byte)];
            // The shortest of them, if it ends here, comes first.
            match fitting.first() {
                None => break,
                Some((text, id)) if text.len() == depth + 1 => {
                    found = Some((depth + 1, *id));
                    fitting = &fitting[1..];
                }
                Some(_) => {}
            }
        }
        found
    }
}
