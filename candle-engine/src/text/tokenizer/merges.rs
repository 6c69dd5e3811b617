//! The list of merges, found by the texts of the two tokens.
//!
//! A table of pairs of ids would be the obvious one, but to look up 560 000 ids costs more than all the rest
//! of reading Llama 3's file. Here a merge is entered by the hash of its texts, which the file has in order, and
//! the tokens are looked at when a text needs them.

use super::hash;
use super::vocab::Vocab;
use crate::{Error, Result};

/// Merges by rank, and a hash table of them.
#[derive(Debug)]
pub(super) struct MergeTable {
    merges: Vec<Merge>,
    slots: Vec<Slot>,
    /// Stands before the right token of each merge, and goes when they become one.
    prefix: String,
    seed: u64,
}

/// What two tokens become, and how many of its bytes come from the left one; this tells which two they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Merge {
    id: u32,
    left: u32,
}

/// The upper half of a hash, and a rank plus one (0: free).
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    hash: u32,
    rank_plus_one: u32,
}

impl MergeTable {
    /// Enters merges, first ones first; of a merge that comes twice, the last one counts.
    ///
    /// Errors: `Tokenizer` if two tokens would become one that is not in the vocabulary. Whether they are in it
    /// themselves is not asked: if not, they never meet.
    pub(super) fn new<'a>(
        vocab: &Vocab,
        pairs: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
        prefix: String,
    ) -> Result<Self> {
        let count = pairs.len();
        if count >= u32::MAX as usize {
            return Err(Error::Tokenizer(format!("{count} merges, expected less than 2^32 - 1")));
        }
        let slots = vec![Slot::default(); (count + count / 2 + 1).next_power_of_two()];
        let mut table = Self { merges: Vec::with_capacity(count), slots, prefix, seed: hash::seed() };
        let mut whole = String::new();
        let mut next = None;
        for (left, right) in pairs {
            let error = |what: &str| {
                let rank = table.merges.len();
                Error::Tokenizer(format!("merge {rank} ({left:?} and {right:?}): {what}"))
            };
            let Some(rest) = right.strip_prefix(table.prefix.as_str()) else {
                return Err(error(&format!("expected the prefix {:?}", table.prefix)));
            };
            whole.clear();
            whole.push_str(left);
            whole.push_str(rest);
            // Trainers number tokens in the order of their merges, so the next id is worth a try.
            let guess = next.filter(|id| vocab.token(*id) == Some(&whole));
            let Some(id) = guess.or_else(|| vocab.id(&whole)) else {
                return Err(error(&format!("{whole:?} is not in the vocabulary")));
            };
            next = id.checked_add(1);
            // A token in the vocabulary has less than 2^32 bytes, so its left part has.
            table.enter(left, rest, Merge { id, left: left.len() as u32 });
        }
        Ok(table)
    }

    fn enter(&mut self, left: &str, rest: &str, merge: Merge) {
        let hash = self.hash(left, rest);
        let at = self.probe(hash, |other| other == merge);
        self.merges.push(merge);
        self.slots[at] = Slot { hash: (hash >> 32) as u32, rank_plus_one: self.merges.len() as u32 };
    }

    /// Rank and id of what two tokens become.
    pub(super) fn find(&self, vocab: &Vocab, left: u32, right: u32) -> Option<(u32, u32)> {
        let left = vocab.token(left)?;
        let rest = vocab.token(right)?.strip_prefix(self.prefix.as_str())?;
        let at = self.probe(self.hash(left, rest), |merge| {
            let parts = vocab.token(merge.id).and_then(|whole| whole.split_at_checked(merge.left as usize));
            parts == Some((left, rest))
        });
        let rank = self.slots[at].rank_plus_one.checked_sub(1)?;
        Some((rank, self.merges[rank as usize].id))
    }

    fn hash(&self, left: &str, rest: &str) -> u64 {
        hash::of_bytes(hash::of_bytes(self.seed, left.as_bytes()), rest.as_bytes())
    }

    /// The slot of the merge with this hash that `is` the one, or the free one where it would go.
    fn probe(&self, hash: u64, is: impl Fn(Merge) -> bool) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            let Some(rank) = slot.rank_plus_one.checked_sub(1) else { return at };
            if slot.hash == (hash >> 32) as u32 && is(self.merges[rank as usize]) {
                return at;
            }
            at = (at + 1) & mask;
        }
    }
}
