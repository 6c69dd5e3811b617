//! The models that are compiled in: a small story-teller, and a small listener.

use std::sync::Arc;
use std::time::Instant;

use candle_engine::text::{ChatTemplate, Tokenizer};
use candle_engine::weights::{MappedBytes, SafeTensors};
use candle_engine::Result;
use candle_engine_quantization::compressed_tensors::Activations;

use crate::checkpoint::Checkpoint;
use crate::decoder::{family, HF};
use crate::hf_config::HfConfig;
use crate::model::{token_ids, LoadOptions, Model, Parts, TextParts};
use crate::source::BUILTIN;

const CONFIG: &[u8] = include_bytes!("../builtin/stories/config.json");
const TOKENIZER: &[u8] = include_bytes!("../builtin/stories/tokenizer.json");
const WEIGHTS: &[u8] = include_bytes!("../builtin/stories/model.safetensors");

/// The listener: it writes down spoken numbers and short commands.
pub(crate) mod listener {
    pub(crate) const CONFIG: &[u8] = include_bytes!("../builtin/speech/config.json");
    pub(crate) const GENERATION: &[u8] = include_bytes!("../builtin/speech/generation_config.json");
    pub(crate) const TOKENIZER: &[u8] = include_bytes!("../builtin/speech/tokenizer.json");
    pub(crate) const WEIGHTS: &[u8] = include_bytes!("../builtin/speech/model.safetensors");
}

/// What lies beside configuration and weights.
const FILES: &[(&str, &[u8])] = &[
    ("tokenizer.json", TOKENIZER),
    ("tokenizer_config.json", include_bytes!("../builtin/stories/tokenizer_config.json")),
    ("generation_config.json", include_bytes!("../builtin/stories/generation_config.json")),
];

/// Files beside the weights, by name.
pub(crate) type Files = &'static [(&'static str, &'static [u8])];

/// Configuration, weights, and the files beside them.
pub(crate) fn files() -> Result<(&'static [u8], SafeTensors, Files)> {
    Ok((CONFIG, SafeTensors::from_bytes(BUILTIN, MappedBytes::from(WEIGHTS))?, FILES))
}

pub(crate) fn open(options: &LoadOptions, start: Instant) -> Result<Model> {
    let text = || TextParts {
        tokenizer: Tokenizer::from_bytes(TOKENIZER),
        template: Ok::<Option<ChatTemplate>, _>(None),
    };
    Model::assemble(BUILTIN.into(), parts, text, options, start)
}

pub(crate) fn checkpoint() -> Result<Checkpoint> {
    let Parts { config, weights, stop_tokens, license, .. } = parts()?;
    let family = Some(config.family.to_owned());
    let (config, weights) = (Ok(config), Ok(weights));
    Ok(Checkpoint { family, config, weights, template: Ok(None), stop_tokens, license, files: Vec::new() })
}

fn parts() -> Result<Parts> {
    let hf = HfConfig::from_bytes(BUILTIN, CONFIG)?;
    let stop_tokens = hf.get("eos_token_id").and_then(token_ids).unwrap_or_default();
    Ok(Parts {
        config: family::from_hf(&hf)?,
        names: &HF,
        weights: Arc::new(SafeTensors::from_bytes(BUILTIN, MappedBytes::from(WEIGHTS))?),
        stop_tokens,
        license: Some("MIT OR Apache-2.0".into()),
        activations: Activations::default(),
    })
}
