//! Qwen2 and Qwen2.5: biases on query, key and value; the upper layers may slide.

use candle_engine::Result;

use super::{llama, sliding_layers};
use crate::decoder::DecoderConfig;
use crate::hf_config::HfConfig;

pub(super) fn config(c: &HfConfig) -> Result<DecoderConfig> {
    let base = llama::base(c)?;
    let window = c.size_or("sliding_window", Some(4096))?;
    let window = if c.flag("use_sliding_window", false)? { window } else { None };
    let first = c.size_or("max_window_layers", Some(28))?.unwrap_or(0);
    let layers = sliding_layers(c, base.dims.layers, window, first)?;
    Ok(DecoderConfig { family: "qwen2", qkv_bias: true, o_bias: false, layers, ..base })
}
