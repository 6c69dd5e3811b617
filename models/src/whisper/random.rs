//! Known shapes with random weights: what a benchmark needs when nothing may be downloaded.

use std::path::Path;

use candle_engine::Result;
use serde_json::{json, Value};

use crate::random::write_checkpoint;

/// A published model's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WhisperShape {
    /// The word that names it on a command line.
    pub name: &'static str,
    hidden: usize,
    /// Of each stack.
    layers: usize,
    heads: usize,
}

/// The shapes that can be asked for.
pub const SHAPES: &[WhisperShape] = &[
    WhisperShape { name: "whisper-tiny", hidden: 384, layers: 4, heads: 6 },
    WhisperShape { name: "whisper-base", hidden: 512, layers: 6, heads: 8 },
    WhisperShape { name: "whisper-small", hidden: 768, layers: 12, heads: 12 },
];

const MELS: usize = 80;
const VOCAB: usize = 51_865;
const HEARD: usize = 1500;
const WRITTEN: usize = 448;

impl WhisperShape {
    /// The shape of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        SHAPES.iter().find(|shape| shape.name == name)
    }

    /// Writes a folder that opens as a model: bf16, normally distributed. The same bytes every time. There is no
    /// tokenizer.
    ///
    /// Errors: `Io` naming the file.
    pub fn write(&self, dir: &Path) -> Result<()> {
        write_checkpoint(dir, &self.config(), &self.tensors())
    }

    fn config(&self) -> Value {
        json!({
            "architectures": ["WhisperForConditionalGeneration"],
            "model_type": "whisper",
            "d_model": self.hidden,
            "encoder_layers": self.layers,
            "decoder_layers": self.layers,
            "encoder_attention_heads": self.heads,
            "decoder_attention_heads": self.heads,
            "encoder_ffn_dim": 4 * self.hidden,
            "decoder_ffn_dim": 4 * self.hidden,
            "num_mel_bins": MELS,
            "vocab_size": VOCAB,
            "max_source_positions": HEARD,
            "max_target_positions": WRITTEN,
            "activation_function": "gelu",
            "torch_dtype": "bfloat16",
        })
    }

    /// Names and shapes of all tensors.
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let h = self.hidden;
        let mut all: Vec<(String, Vec<usize>)> = Vec::new();
        let mut add = |name: String, shape: &[usize]| all.push((format!("model.{name}"), shape.to_vec()));
        for (part, channels) in [("conv1", MELS), ("conv2", h)] {
            add(format!("encoder.{part}.weight"), &[h, channels, 3]);
            add(format!("encoder.{part}.bias"), &[h]);
        }
        add("decoder.embed_tokens.weight".into(), &[VOCAB, h]);
        for (stack, positions) in [("encoder", HEARD), ("decoder", WRITTEN)] {
            add(format!("{stack}.embed_positions.weight"), &[positions, h]);
            let attention: &[&str] =
                if stack == "encoder" { &["self_attn"] } else { &["self_attn", "encoder_attn"] };
            for i in 0..self.layers {
                let mut add =
                    |part: String, shape: &[usize]| add(format!("{stack}.layers.{i}.{part}"), shape);
                for attention in attention {
                    for part in ["q", "k", "v", "out"] {
                        add(format!("{attention}.{part}_proj.weight"), &[h, h]);
                        if part != "k" {
                            add(format!("{attention}.{part}_proj.bias"), &[h]);
                        }
                    }
                    add(format!("{attention}_layer_norm.weight"), &[h]);
                    add(format!("{attention}_layer_norm.bias"), &[h]);
                }
                for (part, out, inner) in [("fc1", 4 * h, h), ("fc2", h, 4 * h)] {
                    add(format!("{part}.weight"), &[out, inner]);
                    add(format!("{part}.bias"), &[out]);
                }
                add("final_layer_norm.weight".into(), &[h]);
                add("final_layer_norm.bias".into(), &[h]);
            }
            add(format!("{stack}.layer_norm.weight"), &[h]);
            add(format!("{stack}.layer_norm.bias"), &[h]);
        }
        all
    }
}
