//! Mistral: Llama with a sliding window on every layer.

use candle_engine::Result;

use super::{llama, sliding_layers};
use crate::decoder::DecoderConfig;
use crate::hf_config::HfConfig;

pub(super) fn config(c: &HfConfig) -> Result<DecoderConfig> {
    let base = llama::base(c)?;
    // An absent key means the first release's window; null means none.
    let window = if c.has("sliding_window") { c.size_or("sliding_window", None)? } else { Some(4096) };
    let layers = sliding_layers(c, base.dims.layers, window, 0)?;
    Ok(DecoderConfig { family: "mistral", layers, ..base })
}
