//! Whisper models: both stacks become smaller numbers; convolutions and positions stay as they are.

use std::path::Path;
use std::sync::Arc;

use candle_engine::weights::{SafeTensors, Weights};
use candle_engine::{Context, Error, Result};
use serde_json::{Map, Value};

use super::folder::write_plan;
use super::memory::{convert, InMemory};
use super::origin::beside;
use super::recipe::{Plan, Recipe};
use super::report::Report;
use crate::decoder::{TensorNames, HF};
use crate::hf_config::HfConfig;
use crate::whisper::{prefixed, WhisperConfig};

/// What a recipe tells apart: embedding, head, layers. The other names are those of no tensor here.
const NAMES: TensorNames = TensorNames {
    embedding: "model.decoder.embed_tokens",
    head: "proj_out",
    layers: "model.decoder.layers.",
    ..HF
};
const LAYERS: [&str; 2] = ["model.encoder.layers.", NAMES.layers];

fn plan(recipe: &Recipe, weights: &dyn Weights) -> Result<Plan> {
    if !weights.contains("model.encoder.conv1.weight") {
        return Err(Error::MissingTensor { name: "model.encoder.conv1.weight".into() });
    }
    Plan::of(recipe, weights, &NAMES, &LAYERS, !weights.contains("proj_out.weight"))
}

/// Quantizes a Whisper model in memory.
///
/// Errors: `OutOfMemory`; `Tensor` for a matrix that cannot be converted.
pub(crate) fn whisper_in_memory(recipe: &Recipe, source: Arc<dyn Weights>) -> Result<InMemory> {
    convert(&plan(recipe, &*source)?, None, source, &NAMES)
}

/// Whether a folder holds a Whisper model.
pub fn is_whisper(dir: &Path) -> bool {
    let config = HfConfig::open(&dir.join("config.json"));
    config.is_ok_and(|config| config.string("model_type").is_ok_and(|kind| kind == Some("whisper")))
}

/// Writes a quantized copy of a folder with a Whisper model into another folder, which is there; `progress` is told
/// bytes written and to write.
///
/// Errors: `Io` naming the file; `Config` naming the key; `Tensor` for a matrix that cannot be converted; `Input` for a
/// format of GGUF's.
pub fn write_whisper_folder(
    from: &Path,
    dir: &Path,
    recipe: &Recipe,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report> {
    if let Some(target) = recipe.targets().find(|target| target.is_blocks()) {
        return Err(Error::Input(format!(
            "{target} is a format of GGUF: Whisper takes int8, int4 and floats"
        )));
    }
    let path = from.join("config.json");
    let text = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
    let json: Map<String, Value> =
        serde_json::from_slice(&text).map_err(|e| Error::malformed(&path, e.to_string()))?;
    WhisperConfig::from_hf(&HfConfig::from_map(json.clone())).at(path.display())?;
    let weights = prefixed(SafeTensors::open(from)?);
    let plan = plan(recipe, &*weights)?;
    write_plan(&plan, None, &NAMES, (&json, &beside(from)), dir, recipe, progress)
}
