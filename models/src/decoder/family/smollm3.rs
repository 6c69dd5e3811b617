//! SmolLM3: Llama in which some layers have no rotary embedding.

use candle_engine::{Error, Result};

use super::{llama, sliding_layers};
use crate::blocks::RopeConfig;
use crate::decoder::DecoderConfig;
use crate::hf_config::HfConfig;

pub(super) fn config(c: &HfConfig) -> Result<DecoderConfig> {
    let base = llama::base(c)?;
    let n = base.dims.layers;
    let interval = c.size_or("no_rope_layer_interval", None)?.unwrap_or(4).max(1);
    // Despite its name the list says 1 where a layer is rotated.
    let rotated = match c.sizes("no_rope_layers")? {
        Some(list) if list.len() == n => list,
        Some(list) => {
            return Err(Error::config("no_rope_layers", format!("expected {n} entries, got {}", list.len())))
        }
        None => (1..=n).map(|i| usize::from(i % interval != 0)).collect(),
    };
    let window = c.size_or("sliding_window", None)?;
    let window = if c.flag("use_sliding_window", false)? { window } else { None };
    let mut layers = sliding_layers(c, n, window, n)?;
    for (layer, &rotated) in layers.iter_mut().zip(&rotated) {
        layer.rope = rotated != 0;
        if !c.has("layer_types") && !layer.rope {
            layer.window = window;
        }
    }
    let rope = RopeConfig::from_hf(c, base.dims.head_dim, 2_000_000.0)?;
    let tied_head = c.flag("tie_word_embeddings", true)?;
    Ok(DecoderConfig { family: "smollm3", layers, rope, tied_head, ..base })
}
