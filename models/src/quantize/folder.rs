//! A folder as the Hub's tools know it: safetensors, `config.json`, and the tokenizer's files.

use std::path::Path;

use candle_engine::weights::Weights;
use candle_engine::{Error, Result};
use candle_engine_quantization::compressed_tensors::describe;
use candle_engine_quantization::write::{safetensors, Layout, Planned, Writer};
use candle_engine_quantization::Target;
use serde_json::{json, Map, Value};

use super::job::Job;
use super::origin::{Beside, Origin};
use super::recipe::{Plan, Recipe};
use super::report::{Report, Written};
use super::smooth::Calibration;
use crate::decoder::{DecoderConfig, TensorNames};

/// Writes a quantized model into a folder that is there; `progress` is told bytes written and to write.
///
/// Memory does not grow with the model.
///
/// Errors: `Io` naming the file; `Tensor` for a matrix that cannot be converted; `Input` for a format of GGUF's, and if
/// the model is a GGUF file: what it says of configuration and tokenizer is not translated.
pub fn write_folder(
    origin: &Origin,
    dir: &Path,
    recipe: &Recipe,
    calibration: Option<&Calibration>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report> {
    if origin.gguf.is_some() {
        let what = "a GGUF file does not become a folder: name a file that ends in .gguf, or convert the folder that \
                    it was made of (while loading, --quantize takes any model)";
        return Err(Error::Input(what.into()));
    }
    if let Some(target) = recipe.targets().find(|target| target.is_blocks()) {
        return Err(Error::Input(format!("{target} is a format of GGUF: name a file that ends in .gguf")));
    }
    let plan = Plan::new(recipe, &*origin.weights, origin.names(), &origin.config)?;
    let norms = default_calibration(recipe, calibration, &*origin.weights, origin.names(), &origin.config)?;
    let calibration = calibration.or(norms.as_ref());
    let beside = (&origin.json, &origin.files[..]);
    write_plan(&plan, calibration, origin.names(), beside, dir, recipe, progress)
}

/// Writes what is planned, with the configuration and the files `beside` it.
pub(super) fn write_plan(
    plan: &Plan,
    calibration: Option<&Calibration>,
    names: &TensorNames,
    (json, files): (&Map<String, Value>, &[Beside]),
    dir: &Path,
    recipe: &Recipe,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report> {
    let jobs: Vec<Job> = plan.steps.iter().map(|step| Job::new(step, calibration)).collect();
    let report = run(&jobs, &dir.join("model.safetensors"), safetensors, progress)?;
    let config = config(json, plan, names, recipe);
    let path = dir.join("config.json");
    let text = serde_json::to_string_pretty(&config).map_err(|e| Error::malformed(&path, e.to_string()))?;
    std::fs::write(&path, text + "\n").map_err(|e| Error::io(&path, e))?;
    for file in files {
        match file {
            #[cfg(feature = "builtin")]
            Beside::Constant(name, bytes) => {
                let path = dir.join(name);
                std::fs::write(&path, bytes).map_err(|e| Error::io(&path, e))?;
            }
            Beside::File(from) => {
                let path = dir.join(from.file_name().unwrap_or_default());
                std::fs::copy(from, &path).map_err(|e| Error::io(&path, e))?;
            }
        }
    }
    Ok(report)
}

/// What the norms say, for integers where nothing else is known.
pub(super) fn default_calibration(
    recipe: &Recipe,
    calibration: Option<&Calibration>,
    weights: &dyn Weights,
    names: &TensorNames,
    config: &DecoderConfig,
) -> Result<Option<Calibration>> {
    match calibration.is_none() && recipe.target.is_grouped() {
        true => Calibration::from_norms(weights, names, config).map(Some),
        false => Ok(None),
    }
}

/// Writes tensors to a file whose beginning `layout` makes.
pub(super) fn run(
    jobs: &[Job],
    path: &Path,
    layout: impl FnOnce(&[Planned]) -> Result<Layout>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report> {
    let mut planned = Vec::new();
    for job in jobs {
        planned.extend(job.planned()?);
    }
    let layout = layout(&planned)?;
    let total = layout.len();
    let mut writer = Writer::create(path, layout)?;
    let mut report = Report { bytes_after: total, ..Report::default() };
    let mut done = 0;
    for job in jobs {
        let deviation = job.run(&mut |name, bytes| {
            done += bytes.len() as u64;
            progress(done, total);
            writer.append(name, bytes)
        })?;
        report.tensors.push(Written {
            name: job.source.name.clone(),
            layer: job.layer,
            from: job.source.format,
            to: job.format(),
            deviation,
        });
    }
    writer.finish()?;
    let mut sources: Vec<(&str, u64)> =
        jobs.iter().map(|job| (job.source.name.as_str(), job.source.bytes.len() as u64)).collect();
    sources.sort();
    sources.dedup();
    report.bytes_before = sources.iter().map(|(_, bytes)| bytes).sum();
    Ok(report)
}

fn config(
    json: &Map<String, Value>,
    plan: &Plan,
    names: &TensorNames,
    recipe: &Recipe,
) -> Map<String, Value> {
    let mut config = json.clone();
    let dtype = match recipe.target {
        Target::F32 => Some("float32"),
        Target::F16 => Some("float16"),
        Target::BF16 => Some("bfloat16"),
        _ => None,
    };
    if let Some(dtype) = dtype {
        let key = if config.contains_key("dtype") { "dtype" } else { "torch_dtype" };
        config.insert(key.into(), json!(dtype));
    }
    if plan.untied {
        config.insert("tie_word_embeddings".into(), json!(false));
    }
    if let Some(quantization) = describe(&plan.converted(names), &plan.kept(names)) {
        config.insert("quantization_config".into(), quantization);
    }
    config
}
