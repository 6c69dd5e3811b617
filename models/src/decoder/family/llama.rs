//! Llama 2, 3, 3.1, 3.2, SmolLM2, TinyLlama: the decoder that the others differ from.

use candle_engine::{Error, Result};

use super::sliding_layers;
use crate::blocks::{Act, RopeConfig};
use crate::decoder::{DecoderConfig, Dims};
use crate::hf_config::HfConfig;

pub(super) fn config(c: &HfConfig) -> Result<DecoderConfig> {
    let base = base(c)?;
    let layers = sliding_layers(c, base.dims.layers, None, 0)?;
    Ok(DecoderConfig { layers, ..base })
}

/// All but which layers slide.
pub(super) fn base(c: &HfConfig) -> Result<DecoderConfig> {
    let (hidden, heads) = (c.size("hidden_size")?, c.size("num_attention_heads")?);
    let layers = c.size("num_hidden_layers")?;
    let head_dim = match c.size_or("head_dim", None)? {
        Some(given) => given,
        None if heads > 0 && hidden % heads == 0 => hidden / heads,
        None => {
            let what = format!("is missing, and hidden_size {hidden} is no multiple of {heads} heads");
            return Err(Error::config("head_dim", what));
        }
    };
    let attention_bias = c.flag("attention_bias", false)?;
    Ok(DecoderConfig {
        family: "llama",
        dims: Dims {
            hidden,
            ffn: c.size("intermediate_size")?,
            layers,
            heads,
            kv_heads: c.size_or("num_key_value_heads", None)?.unwrap_or(heads),
            head_dim,
            vocab: c.size("vocab_size")?,
            context: c.size_or("max_position_embeddings", None)?.unwrap_or(2048),
        },
        norm_eps: c.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        act: activation(c)?,
        qkv_bias: attention_bias,
        o_bias: attention_bias,
        mlp_bias: c.flag("mlp_bias", false)?,
        qk_norm: false,
        rope: RopeConfig::from_hf(c, head_dim, 10_000.0)?,
        layers: Vec::new(),
        tied_head: c.flag("tie_word_embeddings", false)?,
    })
}

fn activation(c: &HfConfig) -> Result<Act> {
    match c.string("hidden_act")?.unwrap_or("silu") {
        "silu" | "swish" => Ok(Act::Silu),
        "gelu" => Ok(Act::Gelu),
        "gelu_pytorch_tanh" | "gelu_new" => Ok(Act::GeluTanh),
        "relu" => Ok(Act::Relu),
        other => Err(Error::config("hidden_act", format!("`{other}` is not known"))),
    }
}
