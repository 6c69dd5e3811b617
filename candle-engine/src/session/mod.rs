//! One conversation's state over a model that many share.

mod generate;

use std::sync::Arc;

use candle_core::{DType, Tensor};

use crate::kv::{Batch, KvCache};
use crate::{Error, Result};

pub use self::generate::{FinishReason, GenerateOptions, Generation, Piece, Stats};

/// Tokens that one forward pass of a long prompt takes at once.
pub const PREFILL_CHUNK: usize = 512;

/// A causal language model: immutable, shared by any number of sessions.
pub trait LanguageModel: Send + Sync + std::fmt::Debug {
    /// Logits of the rows that the batch wants, `[rows, vocab]`; fills the sequences' caches.
    ///
    /// Errors: `Input` for a token id outside the vocabulary; an error leaves the caches' lengths as they were.
    fn forward(&self, batch: &mut Batch) -> Result<Tensor>;

    /// An empty cache for one sequence.
    fn new_cache(&self) -> KvCache;

    /// Rows of the embedding.
    fn vocab(&self) -> usize;

    /// Positions that the model was made for.
    fn context(&self) -> usize;
}

/// One sequence: its tokens, its cache, and the logits after its last token.
///
/// ```
/// use std::sync::Arc;
/// use candle_engine::session::{LanguageModel, Session};
///
/// /// The likeliest token after each of two endings; their common beginning is computed once.
/// fn likeliest(model: Arc<dyn LanguageModel>, beginning: &[u32], endings: [&[u32]; 2]) -> candle_engine::Result<Vec<usize>> {
///     let mut session = Session::new(model);
///     session.feed(beginning)?;
///     endings
///         .iter()
///         .map(|ending| {
///             let mut fork = session.fork()?;
///             let logits = fork.feed(ending)?;
///             Ok((0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0))
///         })
///         .collect()
/// }
/// ```
#[derive(Debug)]
pub struct Session {
    model: Arc<dyn LanguageModel>,
    kv: KvCache,
    tokens: Vec<u32>,
    context: usize,
    chunk: usize,
    logits: Vec<f32>,
}

impl Session {
    /// An empty session with the model's own context.
    pub fn new(model: Arc<dyn LanguageModel>) -> Self {
        let (kv, context) = (model.new_cache(), model.context());
        Self { model, kv, tokens: Vec::new(), context, chunk: PREFILL_CHUNK, logits: Vec::new() }
    }

    /// Limits the context to this many positions; the model's own is the most.
    pub fn with_context(mut self, positions: usize) -> Self {
        self.context = positions.min(self.model.context());
        self
    }

    /// Tokens that one forward pass of a long prompt takes at once; 1 feeds token by token.
    pub fn with_chunk(mut self, tokens: usize) -> Self {
        self.chunk = tokens.max(1);
        self
    }

    /// The tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Positions that the session may fill.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Positions that are left.
    pub fn room(&self) -> usize {
        self.context - self.tokens.len()
    }

    /// The model.
    pub fn model(&self) -> &Arc<dyn LanguageModel> {
        &self.model
    }

    /// Logits after the last token, `[vocab]`; empty before the first.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Bytes of the cache.
    pub fn kv_bytes(&self) -> usize {
        self.kv.bytes()
    }

    /// Appends tokens and computes the logits after the last of them.
    ///
    /// Errors: `ContextFull` before anything is computed, if they do not fit.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        self.make_sure_it_fits(tokens)?;
        let chunks = tokens.len().div_ceil(self.chunk);
        for (i, chunk) in tokens.chunks(self.chunk).enumerate() {
            let logits = self.model.forward(&mut Batch::single(chunk, &mut self.kv)?)?;
            self.tokens.extend_from_slice(chunk);
            if i + 1 == chunks {
                self.logits = logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            }
        }
        Ok(&self.logits)
    }

    /// Appends tokens and shows `see` the logits `[vocab]` after every one of them, with its index in `tokens`.
    ///
    /// Errors: as [`Self::feed`].
    pub fn feed_all(&mut self, tokens: &[u32], mut see: impl FnMut(usize, &[f32])) -> Result<()> {
        // Logits of many rows are large: `[64, 128256]` is 33 MB.
        const ROWS: usize = 64;
        self.make_sure_it_fits(tokens)?;
        for (i, chunk) in tokens.chunks(self.chunk.min(ROWS)).enumerate() {
            let mut batch = Batch::default();
            batch.push(chunk, &mut self.kv, true)?;
            let logits = self.model.forward(&mut batch)?.to_dtype(DType::F32)?;
            self.tokens.extend_from_slice(chunk);
            for row in 0..chunk.len() {
                self.logits = logits.get(row)?.to_vec1()?;
                see(i * self.chunk.min(ROWS) + row, &self.logits);
            }
        }
        Ok(())
    }

    /// Forgets the tokens from `len` on.
    pub fn truncate(&mut self, len: usize) {
        if len < self.tokens.len() {
            self.tokens.truncate(len);
            self.kv.truncate(len);
            self.logits.clear();
        }
    }

    /// Keeps what this session and `tokens` have in common from the start, and says how many tokens that is:
    /// what a chat need not compute again. At least the last of `tokens` is left to be fed.
    pub fn reuse(&mut self, tokens: &[u32]) -> usize {
        let common = self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let keep = common.min(tokens.len().saturating_sub(1));
        self.truncate(keep);
        keep
    }

    /// A second session with the same past; memory is shared up to where the two part.
    pub fn fork(&self) -> Result<Self> {
        Ok(Self {
            model: self.model.clone(),
            kv: self.kv.fork()?,
            tokens: self.tokens.clone(),
            context: self.context,
            chunk: self.chunk,
            logits: self.logits.clone(),
        })
    }

    fn make_sure_it_fits(&self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::Input("there are no tokens to feed".into()));
        }
        if tokens.len() > self.room() {
            return Err(Error::ContextFull {
                tokens: self.tokens.len() + tokens.len(),
                context: self.context,
            });
        }
        Ok(())
    }
}
