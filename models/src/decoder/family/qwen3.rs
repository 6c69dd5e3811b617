//! Qwen3: no biases, norms on the heads of queries and keys.

use candle_engine::Result;

use super::qwen2;
use crate::decoder::DecoderConfig;
use crate::hf_config::HfConfig;

pub(super) fn config(c: &HfConfig) -> Result<DecoderConfig> {
    let mut base = qwen2::config(c)?;
    if c.get("head_dim").is_none() {
        base.dims.head_dim = 128; // the family's default is no quotient
        base.rope.dim = 128;
    }
    let bias = c.flag("attention_bias", false)?;
    Ok(DecoderConfig { family: "qwen3", qkv_bias: bias, o_bias: bias, qk_norm: true, ..base })
}
