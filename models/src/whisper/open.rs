//! From a path or name to a model that is ready to use.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use candle_core::DType;
use candle_engine::kv::KvType;
use candle_engine::ops::Exec;
use candle_engine::text::Tokenizer;
#[cfg(feature = "builtin")]
use candle_engine::weights::MappedBytes;
use candle_engine::weights::{Format, SafeTensors, Weights};
use candle_engine::{Context, Error, Result};
use candle_engine_quantization::compressed_tensors::Activations;
use candle_engine_quantization::Loader;

use super::alignment_heads::known_heads;
use super::prefixed::{prefixed, PREFIX};
use super::{ggml, Encoder, TextDecoder, Tokens, Whisper, WhisperConfig};
#[cfg(feature = "builtin")]
use crate::builtin::listener;
use crate::hf_config::HfConfig;
use crate::model::hub;
use crate::quantize::whisper_in_memory;
use crate::source::BUILTIN;
use crate::{LoadOptions, Source};

/// What a container holds, before the stacks are built on it. Tensors have the names of the Hub's checkpoints.
pub(super) struct Parts {
    pub config: WhisperConfig,
    pub weights: Arc<dyn Weights>,
    pub tokenizer: Result<Tokenizer>,
    pub multilingual: Option<bool>,
    pub alignment_heads: Option<Vec<(usize, usize)>>,
    pub takes_previous_text: bool,
    pub activations: Activations,
}

impl Whisper {
    /// Opens a model by path or name; `tiny` … `large-v3`, `turbo` and their `.en` and `distil-` kin are short for the
    /// names on the Hub.
    ///
    /// Errors: `NotFound`, `Io`, `Malformed`, `Config`, `MissingTensor`, `ShapeMismatch`, each naming the file, key
    /// or tensor; `Network` for the Hub. A model without a tokenizer opens; only its text is an error.
    pub fn open(word: &str, options: &LoadOptions) -> Result<Self> {
        match Path::new(word).exists() {
            true => Self::from_source(&Source::parse(word)?, options),
            false => Self::from_source(&Source::parse(&Self::full_name(word))?, options),
        }
    }

    /// The name on the Hub behind a short name; any other word as it is.
    pub fn full_name(word: &str) -> String {
        match word {
            "large" => "openai/whisper-large-v3".into(),
            "turbo" | "large-v3-turbo" => "openai/whisper-large-v3-turbo".into(),
            "tiny" | "base" | "small" | "medium" | "tiny.en" | "base.en" | "small.en" | "medium.en"
            | "large-v1" | "large-v2" | "large-v3" => format!("openai/whisper-{word}"),
            _ => match word.strip_prefix("distil-") {
                Some("large-v2" | "large-v3" | "large-v3.5" | "medium.en" | "small.en") => {
                    format!("distil-whisper/{word}")
                }
                _ => word.into(),
            },
        }
    }

    /// Opens a model whose place is known.
    ///
    /// Errors: as [`Self::open`].
    pub fn from_source(source: &Source, options: &LoadOptions) -> Result<Self> {
        let start = Instant::now();
        let (name, parts) = match source {
            Source::Folder(dir) => (dir.display().to_string(), folder(dir, SafeTensors::open(dir)?)?),
            Source::Safetensors(file) => {
                let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
                (file.display().to_string(), folder(dir, SafeTensors::open(file)?)?)
            }
            Source::Ggml(file) => (file.display().to_string(), ggml::open(file)?),
            Source::Hub(name) => return Self::from_source(&hub(name)?, options),
            Source::Gguf(file) => {
                return Err(Error::malformed(file, "expected a Whisper model, got a GGUF file"));
            }
            Source::Builtin => (BUILTIN.into(), builtin()?),
        };
        let mut model = assemble(name.clone(), parts, options).at(&name)?;
        model.load_time = start.elapsed();
        Ok(model)
    }
}

fn folder(dir: &Path, weights: SafeTensors) -> Result<Parts> {
    let generation = dir.join("generation_config.json");
    let generation = if generation.is_file() { Some(HfConfig::open(&generation)?) } else { None };
    let tokenizer = Tokenizer::from_file(&dir.join("tokenizer.json"));
    parts(dir, &HfConfig::open(&dir.join("config.json"))?, generation.as_ref(), weights, tokenizer)
}

#[cfg(feature = "builtin")]
fn builtin() -> Result<Parts> {
    let generation = HfConfig::from_bytes(BUILTIN, listener::GENERATION)?;
    let weights = SafeTensors::from_bytes(BUILTIN, MappedBytes::from(listener::WEIGHTS))?;
    let tokenizer = Tokenizer::from_bytes(listener::TOKENIZER);
    let config = HfConfig::from_bytes(BUILTIN, listener::CONFIG)?;
    parts(BUILTIN.as_ref(), &config, Some(&generation), weights, tokenizer)
}

#[cfg(not(feature = "builtin"))]
fn builtin() -> Result<Parts> {
    Err(crate::model::no_builtin())
}

/// What a folder of the Hub's layout holds.
fn parts(
    dir: &Path,
    hf: &HfConfig,
    generation: Option<&HfConfig>,
    weights: SafeTensors,
    tokenizer: Result<Tokenizer>,
) -> Result<Parts> {
    let config = WhisperConfig::from_hf(hf).at(dir.join("config.json").display())?;
    let place = dir.join("generation_config.json");
    let heads = generation.map_or(Ok(None), alignment_heads).at(place.display())?;
    let previous = |g: &HfConfig| g.flag("condition_on_prev_tokens", true);
    let takes_previous_text = generation.map_or(Ok(true), previous).at(place.display())?;
    let multilingual = generation.filter(|g| g.get("is_multilingual").is_some());
    let multilingual =
        multilingual.map(|g| g.flag("is_multilingual", true)).transpose().at(place.display())?;
    Ok(Parts {
        config,
        activations: hf.get("quantization_config").map(Activations::read).unwrap_or_default(),
        weights: prefixed(weights),
        tokenizer,
        multilingual,
        alignment_heads: heads,
        takes_previous_text,
    })
}

/// The list of `[layer, head]`.
fn alignment_heads(generation: &HfConfig) -> Result<Option<Vec<(usize, usize)>>> {
    const KEY: &str = "alignment_heads";
    let Some(value) = generation.get(KEY) else { return Ok(None) };
    let pairs = serde_json::from_value::<Vec<(usize, usize)>>(value.clone());
    pairs.map(Some).map_err(|e| Error::config(KEY, format!("expected a list of [layer, head]: {e}")))
}

fn assemble(name: String, parts: Parts, options: &LoadOptions) -> Result<Whisper> {
    let Parts { config, mut weights, tokenizer, multilingual, mut activations, .. } = parts;
    let takes_previous_text = parts.takes_previous_text;
    if let Some(recipe) = &options.quantize {
        let quantized = whisper_in_memory(recipe, weights)?;
        (weights, activations) = (quantized.weights, quantized.activations);
    }
    let embedding = format!("{PREFIX}decoder.embed_tokens");
    let own_head = ["weight", "weight_packed"].iter().any(|end| weights.contains(&format!("proj_out.{end}")));
    let head = if own_head { "proj_out" } else { &embedding };

    let query = format!("{PREFIX}encoder.layers.0.self_attn.q_proj.weight");
    let format = weights.get(&query).map_or(Format::F16, |stored| stored.format);
    let dtype = match format {
        Format::F32 => DType::F32,
        Format::BF16 => DType::BF16,
        _ => DType::F16,
    };
    let exec = match options.composed {
        true => Exec::composed(options.device.clone()),
        false => Exec::new(options.device.clone(), dtype),
    };
    // An encoder reads its keys and values once, at once: what floats of 16 bits would save is lost again in widening
    // them, but integers are multiplied faster. What a window gave a decoder reads at every step: beside weights of 8
    // bits it would be a third of all that is.
    let (heard, kinds) = match (options.kv, format) {
        (Some(kv), _) => (KvType::F32, [kv; 2]),
        (None, Format::F32) => (KvType::F32, [KvType::F32; 2]),
        (None, Format::I8) => (KvType::I8, [KvType::F16, KvType::I8]),
        (None, _) => (KvType::F32, [KvType::F16; 2]),
    };
    let loader =
        Loader::new(weights.clone(), exec).activations(activations).observed(options.observer.clone());
    let encoder = Encoder::load(&config, &loader, &format!("{PREFIX}encoder"), heard)?;
    let decoder = TextDecoder::load(&config, &loader, &format!("{PREFIX}decoder"), head, kinds)?;

    let tokens = tokenizer.and_then(|tokenizer| Tokens::new(tokenizer, config.vocab, multilingual));
    let alignment_heads = parts.alignment_heads.unwrap_or_else(|| known_heads(&config));
    let (layers, heads) = (config.decoder.layers, config.decoder.heads);
    if let Some((layer, head)) = alignment_heads.iter().find(|(l, h)| *l >= layers || *h >= heads) {
        let what = format!("[{layer}, {head}]: the decoder has {layers} layers of {heads} heads");
        return Err(Error::config("alignment_heads", what));
    }
    let tokens = tokens.map_err(Arc::new);
    let load_time = Default::default();
    Ok(Whisper {
        name,
        config,
        encoder,
        decoder,
        tokens,
        alignment_heads,
        takes_previous_text,
        weights,
        load_time,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names() {
        assert_eq!(Whisper::full_name("tiny.en"), "openai/whisper-tiny.en");
        assert_eq!(Whisper::full_name("turbo"), "openai/whisper-large-v3-turbo");
        assert_eq!(Whisper::full_name("distil-large-v3"), "distil-whisper/distil-large-v3");
        assert_eq!(Whisper::full_name("org/name"), "org/name");
    }
}
