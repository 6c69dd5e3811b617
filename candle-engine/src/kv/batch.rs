//! The tokens of one forward pass: any number of sequences laid end to end.

use super::KvCache;
use crate::{Error, Result};

/// A ragged batch: new tokens of several sequences, each with its own cache.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    tokens: Vec<u32>,
    positions: Vec<usize>,
    logits: Vec<usize>,
    sequences: Vec<Sequence<'a>>,
}

/// One sequence's part of a batch.
#[derive(Debug)]
pub struct Sequence<'a> {
    /// Its cache.
    pub kv: &'a mut KvCache,
    /// Position of its first new token.
    pub start: usize,
    /// Number of its new tokens.
    pub len: usize,
}

impl<'a> Batch<'a> {
    /// A batch of one sequence that wants the logits after its last token.
    pub fn single(tokens: &[u32], kv: &'a mut KvCache) -> Result<Self> {
        let mut batch = Self::default();
        batch.push(tokens, kv, false)?;
        Ok(batch)
    }

    /// Appends a sequence's new tokens; they follow what its cache holds. Logits are computed after every
    /// token, or only after the last.
    ///
    /// Errors: `Input` if there is no token; `OutOfMemory` if the cache cannot grow.
    pub fn push(&mut self, tokens: &[u32], kv: &'a mut KvCache, all_logits: bool) -> Result<()> {
        let wanted = if all_logits { 0 } else { tokens.len().saturating_sub(1) };
        self.push_wanting(tokens, kv, wanted..tokens.len())
    }

    /// As [`Self::push`]; logits are computed after those tokens whose indices are `wanted`.
    ///
    /// Errors: as [`Self::push`].
    pub fn push_wanting(
        &mut self,
        tokens: &[u32],
        kv: &'a mut KvCache,
        wanted: impl IntoIterator<Item = usize>,
    ) -> Result<()> {
        let first = self.rows();
        self.push_rows(tokens.len(), kv)?;
        self.tokens.extend_from_slice(tokens);
        self.logits.extend(wanted.into_iter().map(|i| first + i));
        Ok(())
    }

    /// Appends a sequence whose rows are no tokens, such as the frames that an encoder reads.
    ///
    /// Errors: as [`Self::push`].
    pub fn push_rows(&mut self, len: usize, kv: &'a mut KvCache) -> Result<()> {
        if len == 0 {
            return Err(Error::Input("a sequence without tokens".into()));
        }
        kv.reserve(len)?;
        let start = kv.len();
        self.positions.extend(start..start + len);
        self.sequences.push(Sequence { kv, start, len });
        Ok(())
    }

    /// New rows of all sequences, `t`.
    pub fn rows(&self) -> usize {
        self.positions.len()
    }

    /// All new tokens, `[t]`.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The position of each in its sequence, `[t]`.
    pub fn positions(&self) -> &[usize] {
        &self.positions
    }

    /// Rows whose logits are wanted.
    pub fn logit_rows(&self) -> &[usize] {
        &self.logits
    }

    /// The sequences, in order.
    pub fn sequences(&mut self) -> &mut [Sequence<'a>] {
        &mut self.sequences
    }

    /// Counts the new tokens as cached: the last act of a forward pass.
    pub fn finish(&mut self) {
        for sequence in &mut self.sequences {
            sequence.kv.advance(sequence.len);
        }
    }
}
