//! A Whisper model with everything that belongs to it.

use std::sync::Arc;
use std::time::Duration;

use candle_core::Tensor;
use candle_engine::kernels::recycle;
use candle_engine::weights::Weights;
use candle_engine::{Error, Result};

use super::{Encoder, Memory, TextDecoder, Tokens, WhisperConfig};

/// A Whisper model. Immutable: any number of transcriptions may share it.
pub struct Whisper {
    pub(super) name: String,
    pub(super) config: WhisperConfig,
    pub(super) encoder: Encoder,
    pub(super) decoder: TextDecoder,
    pub(super) tokens: Result<Tokens, Arc<Error>>,
    pub(super) alignment_heads: Vec<(usize, usize)>,
    pub(super) takes_previous_text: bool,
    pub(super) weights: Arc<dyn Weights>,
    pub(super) load_time: Duration,
}

impl Whisper {
    /// The path or name it was opened by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The configuration.
    pub fn config(&self) -> &WhisperConfig {
        &self.config
    }

    /// The stack that hears.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// The stack that writes.
    pub fn decoder(&self) -> &TextDecoder {
        &self.decoder
    }

    /// The vocabulary, with the tokens that have a meaning of their own.
    ///
    /// Errors: what reading the tokenizer met.
    pub fn tokens(&self) -> Result<&Tokens> {
        self.tokens.as_ref().map_err(|e| Error::Shared(e.clone()))
    }

    /// Layers and heads of the cross-attention that follow the words in time.
    pub fn alignment_heads(&self) -> &[(usize, usize)] {
        &self.alignment_heads
    }

    /// Whether earlier text helps it: what `condition_on_prev_tokens` in its `generation_config.json` says, else yes.
    pub fn takes_previous_text(&self) -> bool {
        self.takes_previous_text
    }

    /// The checkpoint.
    pub fn weights(&self) -> &Arc<dyn Weights> {
        &self.weights
    }

    /// How long opening took.
    pub fn load_time(&self) -> Duration {
        self.load_time
    }

    /// Hears windows together: what the decoder attends to, one memory per window.
    ///
    /// Shapes: `windows`, each `[frames, mels]`.
    /// Errors: `Input` for a window of another shape; `OutOfMemory`.
    pub fn hear(&self, windows: &[Tensor]) -> Result<Vec<Memory>> {
        // While one stack works nobody needs the other's weights: together they would be most of what is ever resident.
        self.let_go("model.decoder.");
        // One window fills the CPU; several at once only leave its caches.
        let together = if self.encoder.exec().is_fused() { 1 } else { windows.len().max(1) };
        let mut memories = Vec::with_capacity(windows.len());
        for (i, some) in windows.chunks(together).enumerate() {
            let heard = self.encoder.forward(some)?;
            // Blocks of an encoder's size are of no use to a decoder.
            recycle::release();
            if (i + 1) * together >= windows.len() {
                self.let_go("model.encoder.");
            }
            memories.extend(self.decoder.remember(&heard)?);
        }
        Ok(memories)
    }

    /// Tells the system that a stack's weights are not needed for now. Those of a mapped file stay in its cache, and are
    /// back in a millisecond or two.
    fn let_go(&self, stack: &str) {
        for name in self.weights.names() {
            if name.starts_with(stack) {
                if let Ok(stored) = self.weights.get(&name) {
                    stored.bytes.release();
                }
            }
        }
    }
}

impl std::fmt::Debug for Whisper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Whisper").field("name", &self.name).field("config", &self.config).finish()
    }
}
