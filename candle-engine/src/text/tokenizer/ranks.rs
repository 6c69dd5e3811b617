//! Tokenizers from tokens in the order of their merges, as tiktoken and whisper.cpp keep them.

use std::collections::HashMap;

use super::added::{Added, AddedToken};
use super::bpe::{Bpe, Merges, Options};
use super::byte_level;
use super::decode::{Decoder, Rule};
use super::merges::MergeTable;
use super::parts::Frame;
use super::pattern::{Pattern, GPT2};
use super::split::Splitter;
use super::vocab::{Repeats, Vocab};
use super::{Kind, Pipeline, Tokenizer};
use crate::Result;

impl Tokenizer {
    /// A byte-level tokenizer with GPT-2's pattern: `tokens` by id, in the order in which they merge, then `special`
    /// ones.
    ///
    /// Errors: `Tokenizer` for a token that comes twice.
    pub fn from_ranks(tokens: &[Vec<u8>], special: &[String]) -> Result<Self> {
        let spelled: Vec<String> = tokens.iter().map(|token| byte_level::spell(token)).collect();
        let ids = spelled.iter().chain(special).enumerate();
        let entries: Vec<(&str, u32)> = ids.map(|(id, token)| (token.as_str(), id as u32)).collect();
        let vocab = Vocab::new(entries.iter().copied(), Repeats::Refused)?;
        let merges: Vec<(String, String)> = merges(tokens)
            .into_iter()
            .map(|(left, right)| (byte_level::spell(left), byte_level::spell(right)))
            .collect();
        let pairs = merges.iter().map(|(left, right)| (left.as_str(), right.as_str()));
        let merges = Merges::Ranked(MergeTable::new(&vocab, pairs, String::new())?);
        let added = special.iter().map(|token| AddedToken {
            content: token.clone(),
            special: true,
            ..AddedToken::default()
        });
        let added = Added::new(added.collect(), &vocab, &[]);
        let pattern = Some(Pattern::regex(GPT2)?);
        Ok(Self::new(Kind::Bpe(Box::new(Pipeline {
            added,
            normalizer: Vec::new(),
            splitters: vec![Splitter::ByteLevel { prefix_space: false, pattern }],
            model: Bpe::new(vocab, merges, Options::default()),
            frame: Frame::default(),
            decoder: Decoder { rule: Rule::ByteLevel, ..Decoder::default() },
        }))))
    }
}

/// Bytes of the longest token whose merge is looked for; published ones have at most 128.
const LONGEST: usize = 512;

/// The two tokens that each longer one was merged from: what its bytes become by the merges before it.
fn merges(tokens: &[Vec<u8>]) -> Vec<(&[u8], &[u8])> {
    let ranks: HashMap<&[u8], usize> = tokens.iter().enumerate().map(|(i, t)| (t.as_slice(), i)).collect();
    let mut merges = Vec::new();
    // Starts of the parts, and the end.
    let mut starts: Vec<usize> = Vec::new();
    for (rank, token) in tokens.iter().enumerate().filter(|(_, token)| token.len() <= LONGEST) {
        starts.clear();
        starts.extend(0..=token.len());
        while starts.len() > 3 {
            let pairs = starts.windows(3).enumerate();
            let ranked = pairs.filter_map(|(i, w)| Some((*ranks.get(&token[w[0]..w[2]])?, i)));
            match ranked.filter(|(found, _)| *found < rank).min() {
                Some((_, i)) => _ = starts.remove(i + 1),
                None => break,
            }
        }
        if let [from, middle, end] = starts[..] {
            merges.push((&token[from..middle], &token[middle..end]));
        }
    }
    merges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_are_found_again() {
        let tokens: Vec<Vec<u8>> =
            ["a", "b", "c", " ", "ab", "bc", "abc", " ab"].map(|t| t.as_bytes().to_vec()).to_vec();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let found: Vec<(String, String)> =
            merges(&tokens).into_iter().map(|(l, r)| (text(l), text(r))).collect();
        let expected = [("a", "b"), ("b", "c"), ("ab", "c"), (" ", "ab")];
        assert_eq!(found, expected.map(|(l, r)| (l.to_owned(), r.to_owned())));
        let tokenizer = Tokenizer::from_ranks(&tokens, &["<|end|>".into()]).unwrap();
        assert_eq!(tokenizer.encode("abcab ab<|end|>", false).unwrap(), [6, 4, 7, 8]);
        assert_eq!(tokenizer.encode_plain("abc").unwrap(), [6]);
        assert_eq!(tokenizer.decode(&[6, 7, 8], true).unwrap(), "abc ab");
    }
}
