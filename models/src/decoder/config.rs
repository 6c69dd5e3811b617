//! What may differ between the decoders of the zoo, and nothing else.

use candle_engine::{Error, Result};

use crate::blocks::{Act, RopeConfig};

/// Sizes of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Dims {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Positions that the model was made for.
    pub context: usize,
}

/// What differs between one layer and the next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerKind {
    /// Sees only this many positions, itself included; `None` sees all.
    pub window: Option<usize>,
    /// Whether queries and keys are rotated.
    pub rope: bool,
}

/// A causal decoder in numbers: the input of [`super::Decoder::load`].
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// Name of the family, as `config.json` says it.
    pub family: &'static str,
    /// Sizes.
    pub dims: Dims,
    /// Added to the mean square before its root.
    pub norm_eps: f32,
    /// Activation of the gate.
    pub act: Act,
    /// Biases on query, key and value.
    pub qkv_bias: bool,
    /// Bias on the attention's output.
    pub o_bias: bool,
    /// Biases in the feed-forward layer.
    pub mlp_bias: bool,
    /// Norms on each head of queries and keys (Qwen3).
    pub qk_norm: bool,
    /// Rotary embedding.
    pub rope: RopeConfig,
    /// One entry per layer.
    pub layers: Vec<LayerKind>,
    /// The head is the embedding.
    pub tied_head: bool,
}

/// Bounds far above every published model: what lies beyond is a broken file, not a large model.
const MOST: usize = 1 << 24;

impl DecoderConfig {
    /// Refuses sizes that contradict one another.
    ///
    /// Errors: `Config` naming the key.
    pub fn validate(&self) -> Result<()> {
        let d = &self.dims;
        for (key, n) in [
            ("hidden_size", d.hidden),
            ("intermediate_size", d.ffn),
            ("num_hidden_layers", d.layers),
            ("num_attention_heads", d.heads),
            ("num_key_value_heads", d.kv_heads),
            ("head_dim", d.head_dim),
            ("vocab_size", d.vocab),
            ("max_position_embeddings", d.context),
        ] {
            if n == 0 || n > MOST && key != "max_position_embeddings" {
                return Err(Error::config(key, format!("expected 1 to {MOST}, got {n}")));
            }
        }
        if d.layers > 4096 {
            return Err(Error::config(
                "num_hidden_layers",
                format!("expected at most 4096, got {}", d.layers),
            ));
        }
        if self.layers.len() != d.layers {
            let what = format!("expected {} entries, got {}", d.layers, self.layers.len());
            return Err(Error::config("layer_types", what));
        }
        if !d.heads.is_multiple_of(d.kv_heads) {
            let what = format!("{} query heads are no multiple of {} KV heads", d.heads, d.kv_heads);
            return Err(Error::config("num_key_value_heads", what));
        }
        if !d.head_dim.is_multiple_of(2) {
            return Err(Error::config("head_dim", format!("expected an even number, got {}", d.head_dim)));
        }
        if self.norm_eps.is_nan() || self.norm_eps < 0.0 {
            return Err(Error::config("rms_norm_eps", format!("expected 0 or more, got {}", self.norm_eps)));
        }
        if let Some(0) = self.layers.iter().find_map(|l| l.window) {
            return Err(Error::config("sliding_window", "expected 1 or more, got 0"));
        }
        self.rope.validate()
    }
}
