//! Tokens by id and ids by token, in three flat arrays.

use super::hash;
use crate::{Error, Result};

/// A token's place in the arena; `ABSENT` where an id names no token.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

const ABSENT: Span = Span { start: u32::MAX, end: u32::MAX };

/// A slot of the hash table: the upper half of the token's hash, and its id plus one (0: free).
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    hash: u32,
    id_plus_one: u32,
}

/// A vocabulary. Ids may have gaps, but not so many that a small file makes a large table.
#[derive(Debug)]
pub(super) struct Vocab {
    arena: String,
    spans: Vec<Span>,
    slots: Vec<Slot>,
    len: usize,
    seed: u64,
}

/// What a token means that has several ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeats {
    /// The file is damaged.
    Refused,
    /// All ids decode to the token, the last one encodes it; GGUF pads vocabularies so.
    Allowed,
}

/// Ids that may be missing, per id that is there, before the vocabulary counts as damaged.
const GAPS_PER_TOKEN: usize = 8;
/// Gaps that any vocabulary may have.
const FREE_GAPS: usize = 1 << 16;

impl Vocab {
    /// A vocabulary from `(token, id)` in any order.
    ///
    /// Errors: `Tokenizer` on an id far out of range, an id that comes twice, or, unless `repeats` allows it, a
    /// token that does.
    pub(super) fn new<'a>(
        entries: impl ExactSizeIterator<Item = (&'a str, u32)> + Clone,
        repeats: Repeats,
    ) -> Result<Self> {
        let mut vocab = Self::sized_for(entries.clone())?;
        for (token, id) in entries {
            vocab.place(token, id)?;
            match vocab.link(token, id) {
                Some(other) if repeats == Repeats::Refused => {
                    return Err(Error::Tokenizer(format!("token {token:?} has two ids, {other} and {id}")));
                }
                _ => {}
            }
        }
        Ok(vocab)
    }

    fn sized_for<'a>(entries: impl ExactSizeIterator<Item = (&'a str, u32)>) -> Result<Self> {
        let count = entries.len();
        let (mut bytes, mut highest) = (0usize, None);
        for (token, id) in entries {
            bytes = bytes.saturating_add(token.len());
            highest = highest.max(Some((id, token)));
        }
        let ids = highest.map_or(0, |(id, _)| id as usize + 1);
        if ids > count.saturating_mul(GAPS_PER_TOKEN).saturating_add(FREE_GAPS) {
            let (id, token) = highest.unwrap_or_default();
            return Err(Error::Tokenizer(format!(
                "token {token:?} has id {id} in a vocabulary of {count} tokens"
            )));
        }
        if u32::try_from(bytes).is_err() {
            return Err(Error::Tokenizer(format!("the tokens take {bytes} bytes, expected less than 2^32")));
        }
        Ok(Self {
            arena: String::with_capacity(bytes),
            spans: vec![ABSENT; ids],
            // At most half full: a probe that fails, the usual one, then ends at once.
            slots: vec![Slot::default(); (count * 2).next_power_of_two()],
            len: 0,
            seed: hash::seed(),
        })
    }

    fn place(&mut self, token: &str, id: u32) -> Result<()> {
        let span = &mut self.spans[id as usize];
        if span.start != ABSENT.start {
            let other = &self.arena[span.start as usize..span.end as usize];
            return Err(Error::Tokenizer(format!("id {id} is given to {other:?} and to {token:?}")));
        }
        let start = self.arena.len() as u32;
        self.arena.push_str(token);
        *span = Span { start, end: self.arena.len() as u32 };
        Ok(())
    }

    /// Makes `token` findable as `id`; gives the id that it had before.
    fn link(&mut self, token: &str, id: u32) -> Option<u32> {
        let hash = hash::of_bytes(self.seed, token.as_bytes());
        let at = self.find(token, hash);
        let before = self.slots[at].id_plus_one.checked_sub(1);
        self.slots[at] = Slot { hash: (hash >> 32) as u32, id_plus_one: id + 1 };
        self.len += usize::from(before.is_none());
        before
    }

    /// The slot that holds `token`, or the free one where it would go.
    fn find(&self, token: &str, hash: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            let Some(id) = slot.id_plus_one.checked_sub(1) else { return at };
            if slot.hash == (hash >> 32) as u32 && self.token(id) == Some(token) {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    /// The id of a token.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        let at = self.find(token, hash::of_bytes(self.seed, token.as_bytes()));
        self.slots[at].id_plus_one.checked_sub(1)
    }

    /// The token with an id.
    pub(super) fn token(&self, id: u32) -> Option<&str> {
        let span = self.spans.get(id as usize)?;
        self.arena.get(span.start as usize..span.end as usize)
    }

    /// Number of different tokens.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// One more than the highest id.
    pub(super) fn ids(&self) -> usize {
        self.spans.len()
    }
}
