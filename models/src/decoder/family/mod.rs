//! The families: each says what differs from Llama, in a few lines.

mod gguf;
mod llama;
mod mistral;
mod qwen2;
mod qwen3;
mod smollm3;

use candle_engine::{Error, Result};
use candle_engine_quantization::compressed_tensors;

use super::{DecoderConfig, LayerKind};
use crate::hf_config::HfConfig;

pub use self::gguf::config as from_gguf;

/// One family: the `model_type` of its `config.json`, and how to read it.
struct Family {
    model_type: &'static str,
    config: fn(&HfConfig) -> Result<DecoderConfig>,
}

const FAMILIES: &[Family] = &[
    Family { model_type: "llama", config: llama::config },
    Family { model_type: "mistral", config: mistral::config },
    Family { model_type: "qwen2", config: qwen2::config },
    Family { model_type: "qwen3", config: qwen3::config },
    Family { model_type: "smollm3", config: smollm3::config },
];

/// The families' names.
pub fn names() -> Vec<&'static str> {
    FAMILIES.iter().map(|f| f.model_type).collect()
}

/// Reads a `config.json` of any family.
///
/// Errors: `Config` naming the key that is missing, unknown or of the wrong kind.
pub fn from_hf(config: &HfConfig) -> Result<DecoderConfig> {
    let model_type = config.string("model_type")?.ok_or_else(|| Error::config("model_type", "is missing"))?;
    let family = FAMILIES.iter().find(|f| f.model_type == model_type).ok_or_else(|| {
        let known = names().join(", ");
        Error::config("model_type", format!("`{model_type}` has no definition here; known are {known}"))
    })?;
    if let Some(architectures) = config.strings("architectures")? {
        if !architectures.is_empty() && !architectures.iter().any(|a| a.ends_with("ForCausalLM")) {
            let what = format!("expected a …ForCausalLM, got {}", architectures.join(", "));
            return Err(Error::config("architectures", what));
        }
    }
    if let Some(quantization) = config.get("quantization_config") {
        compressed_tensors::check(quantization)?;
    }
    let decoder = (family.config)(config)?;
    config.finish("")?;
    decoder.validate()?;
    Ok(decoder)
}

/// Which layers slide: `layer_types` if the file has it, else the layers from `first` on.
fn sliding_layers(
    config: &HfConfig,
    layers: usize,
    window: Option<usize>,
    first: usize,
) -> Result<Vec<LayerKind>> {
    let kind = |slides: bool| LayerKind { window: window.filter(|_| slides), rope: true };
    let Some(types) = config.strings("layer_types")? else {
        return Ok((0..layers).map(|i| kind(i >= first)).collect());
    };
    if types.len() != layers {
        let what = format!("expected {layers} entries, got {}", types.len());
        return Err(Error::config("layer_types", what));
    }
    types
        .iter()
        .map(|&t| match t {
            "full_attention" => Ok(kind(false)),
            "sliding_attention" if window.is_some() => Ok(kind(true)),
            "sliding_attention" => {
                Err(Error::config("layer_types", "a layer slides, but there is no window"))
            }
            other => Err(Error::config("layer_types", format!("`{other}` is not known"))),
        })
        .collect()
}
