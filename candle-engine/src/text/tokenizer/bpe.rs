//! Byte-pair encoding of one piece of text, by a table of merges or by the scores of the vocabulary.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::merges::MergeTable;
use super::vocab::Vocab;
use crate::{Error, Result};

/// The id of a symbol that the vocabulary lacks.
const UNKNOWN: u32 = u32::MAX;
/// The position before the first symbol and after the last.
const NOWHERE: u32 = u32::MAX;

/// The model: which symbols there are, and which neighbours become one.
#[derive(Debug)]
pub(super) struct Bpe {
    pub vocab: Vocab,
    pub merges: Merges,
    pub options: Options,
    /// Ids of the tokens that are one of the first `CHARS` characters; most text needs no other look-up.
    chars: Box<[u32]>,
    /// Ids of `<0x00>` … `<0xFF>`, where a character that is no token falls back to bytes.
    bytes: Option<Box<[Option<u32>; 256]>>,
}

/// How the model treats what the merges do not say.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// A piece that is a token as a whole needs no merges.
    pub ignore_merges: bool,
    /// A character that is no token becomes `<0x…>` tokens.
    pub byte_fallback: bool,
    /// What a character becomes that has no other token.
    pub unk: Option<Unk>,
    /// Neighbouring unknown characters are one unknown token.
    pub fuse_unk: bool,
    /// Stands before every symbol but the first of a piece.
    pub continuing_prefix: String,
    /// Stands after the last symbol of a piece.
    pub end_suffix: String,
}

/// The unknown token.
#[derive(Debug)]
pub(super) enum Unk {
    /// Its id.
    Id(u32),
    /// It has a name that is not in the vocabulary: an error, but only of a text that needs it.
    Missing(String),
}

/// What decides that two neighbours become one.
#[derive(Debug)]
pub(super) enum Merges {
    /// A list of pairs, the first to be merged first.
    Ranked(MergeTable),
    /// SentencePiece's rule: any neighbours that together are a token, the best score first. `None` is a token
    /// that text never becomes (a control token, a byte).
    Scored(Vec<Option<f32>>),
}

/// Characters with an entry of their own: Latin and the alphabet that byte-level tokens are written in.
const CHARS: usize = 0x180;

impl Bpe {
    pub(super) fn new(vocab: Vocab, merges: Merges, options: Options) -> Self {
        let chars = (0..CHARS as u32)
            .map(|c| char::from_u32(c).and_then(|c| vocab.id(c.encode_utf8(&mut [0; 4]))).unwrap_or(UNKNOWN))
            .collect();
        let bytes = options
            .byte_fallback
            .then(|| Box::new(std::array::from_fn(|byte| vocab.id(&format!("<0x{byte:02X}>")))));
        Self { vocab, merges, options, chars, bytes }
    }

    /// Appends the ids of one piece.
    pub(super) fn encode(&self, piece: &str, scratch: &mut Scratch, ids: &mut Vec<u32>) -> Result<()> {
        if self.options.ignore_merges {
            if let Some(id) = self.vocab.id(piece) {
                ids.push(id);
                return Ok(());
            }
        }
        scratch.clear();
        match &self.merges {
            Merges::Ranked(pairs) => {
                // Fallback comes before merging here, so byte tokens may be merged further.
                self.symbols(piece, &mut scratch.symbols)?;
                scratch.merge(|left, right| pairs.find(&self.vocab, left.id, right.id));
                ids.extend(scratch.symbols.iter().filter(|s| s.len > 0).map(|s| s.id));
            }
            Merges::Scored(scores) => {
                let mut start = 0;
                for c in piece.chars() {
                    let len = c.len_utf8() as u32;
                    scratch.symbols.push(Symbol::new(self.char_id(c), start, len));
                    start += len;
                }
                scratch.merge(|left, right| {
                    let both = piece.get(left.start as usize..(right.start + right.len) as usize)?;
                    let id = self.vocab.id(both)?;
                    let score = (*scores.get(id as usize)?)?;
                    Some((descending(score), id))
                });
                self.fall_back(piece, &scratch.symbols, ids)?;
            }
        }
        Ok(())
    }

    fn char_id(&self, c: char) -> u32 {
        match self.chars.get(c as usize) {
            Some(id) => *id,
            None => self.vocab.id(c.encode_utf8(&mut [0; 4])).unwrap_or(UNKNOWN),
        }
    }

    /// The characters of a piece as symbols, unknown ones replaced.
    fn symbols(&self, piece: &str, symbols: &mut Vec<Symbol>) -> Result<()> {
        let Options { continuing_prefix, end_suffix, fuse_unk, .. } = &self.options;
        let affixes = !(continuing_prefix.is_empty() && end_suffix.is_empty());
        let mut add = |id, len| symbols.push(Symbol::new(id, 0, len));
        let mut unknown: Option<(u32, u32)> = None;
        for (start, c) in piece.char_indices() {
            let len = c.len_utf8() as u32;
            let mut written = String::new();
            let id = if affixes {
                if start > 0 {
                    written.push_str(continuing_prefix);
                }
                written.push(c);
                if start + c.len_utf8() == piece.len() {
                    written.push_str(end_suffix);
                }
                self.vocab.id(&written).unwrap_or(UNKNOWN)
            } else {
                self.char_id(c)
            };
            if id != UNKNOWN {
                if let Some((id, len)) = unknown.take() {
                    add(id, len);
                }
                add(id, len);
                continue;
            }
            let mut buffer = [0; 4];
            let text = if affixes { written.as_bytes() } else { c.encode_utf8(&mut buffer).as_bytes() };
            if let Some(bytes) = self.bytes_of(text) {
                bytes.for_each(|id| add(id, 1));
                continue;
            }
            let Some(id) = self.unk()? else { continue };
            unknown = match unknown {
                Some((id, so_far)) if *fuse_unk => Some((id, so_far + len)),
                Some((before, so_far)) => {
                    add(before, so_far);
                    Some((id, len))
                }
                None => Some((id, len)),
            };
        }
        if let Some((id, len)) = unknown {
            add(id, len);
        }
        Ok(())
    }

    /// The ids of merged symbols, unknown ones replaced.
    fn fall_back(&self, piece: &str, symbols: &[Symbol], ids: &mut Vec<u32>) -> Result<()> {
        let mut after_unknown = false;
        for symbol in symbols.iter().filter(|s| s.len > 0) {
            let mut unknown = false;
            if symbol.id != UNKNOWN {
                ids.push(symbol.id);
            } else {
                let text = &piece.as_bytes()[symbol.start as usize..(symbol.start + symbol.len) as usize];
                match self.bytes_of(text) {
                    Some(bytes) => ids.extend(bytes),
                    None => {
                        unknown = true;
                        if !(after_unknown && self.options.fuse_unk) {
                            ids.extend(self.unk()?);
                        }
                    }
                }
            }
            after_unknown = unknown;
        }
        Ok(())
    }

    /// The byte tokens of a text, if all of them exist.
    fn bytes_of<'a>(&'a self, text: &'a [u8]) -> Option<impl Iterator<Item = u32> + 'a> {
        let bytes = self.bytes.as_ref()?;
        let ids = text.iter().map(|byte| bytes[usize::from(*byte)]);
        ids.clone().all(|id| id.is_some()).then(|| ids.flatten())
    }

    fn unk(&self) -> Result<Option<u32>> {
        match &self.options.unk {
            None => Ok(None),
            Some(Unk::Id(id)) => Ok(Some(*id)),
            Some(Unk::Missing(name)) => {
                Err(Error::Tokenizer(format!("the unknown token {name:?} is not in the vocabulary")))
            }
        }
    }
}

/// A rank that orders scores from the best to the worst.
fn descending(score: f32) -> u32 {
    let bits = score.to_bits();
    // The bits of floats order like integers once negative ones are turned around.
    !(if bits >> 31 == 1 { !bits } else { bits | 1 << 31 })
}

/// A part of a piece: a character at first, then what it was merged into. Merged into its left neighbour, it
/// stays in place with length 0.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    id: u32,
    start: u32,
    len: u32,
    prev: u32,
    next: u32,
}

impl Symbol {
    fn new(id: u32, start: u32, len: u32) -> Self {
        Self { id, start, len, prev: NOWHERE, next: NOWHERE }
    }
}

/// Buffers of `encode`, kept from piece to piece.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    symbols: Vec<Symbol>,
    /// Possible merges, lowest rank first, then leftmost: `(rank, position, id)`.
    queue: BinaryHeap<Reverse<(u32, u32, u32)>>,
}

impl Scratch {
    fn clear(&mut self) {
        self.symbols.clear();
        self.queue.clear();
    }

    /// Merges neighbours until `merged` knows none: n log n in the length, whatever the text.
    fn merge(&mut self, merged: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        let Self { symbols, queue } = self;
        let count = symbols.len() as u32;
        for at in 1..symbols.len() {
            symbols[at].prev = at as u32 - 1;
            symbols[at - 1].next = at as u32;
            if let Some((rank, id)) = merged(&symbols[at - 1], &symbols[at]) {
                queue.push(Reverse((rank, at as u32 - 1, id)));
            }
        }
        while let Some(Reverse((_, at, id))) = queue.pop() {
            let left = symbols[at as usize];
            if left.len == 0 || left.next >= count {
                continue;
            }
            let right = symbols[left.next as usize];
            // An entry is stale when one of its symbols has been merged since.
            if merged(&left, &right).is_none_or(|(_, now)| now != id) {
                continue;
            }
            symbols[left.next as usize].len = 0;
            let whole = Symbol { id, len: left.len + right.len, next: right.next, ..left };
            symbols[at as usize] = whole;
            if let Some(after) = symbols.get_mut(right.next as usize) {
                after.prev = at;
            }
            if let Some((rank, id)) = symbols.get(whole.prev as usize).and_then(|s| merged(s, &whole)) {
                queue.push(Reverse((rank, whole.prev, id)));
            }
            if let Some((rank, id)) = symbols.get(whole.next as usize).and_then(|s| merged(&whole, s)) {
                queue.push(Reverse((rank, at, id)));
            }
        }
    }
}
