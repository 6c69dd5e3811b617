//! A feed-forward network's matrices as small integers.

use std::path::Path;

use candle_engine::weights::{Format, SafeTensors, Weights};
use candle_engine::{Error, Result};
use candle_engine_quantization::compressed_tensors::{describe, Converted};
use candle_engine_quantization::write::safetensors;
use candle_engine_quantization::Encoding;

use super::folder::run;
use super::job::{Job, Kind};
use super::recipe::{means, Recipe};
use super::report::Report;
use crate::mlp::Config;

/// Writes the network of one folder into another that is there, its linear layers as integers; `progress` is told bytes
/// written and to write.
///
/// Errors: `Io`, `Malformed` and `Tensor` naming file or tensor; `Input` for a format that is no integers with scales,
/// and if the network is quantized already.
pub fn write_mlp(
    from: &Path,
    dir: &Path,
    recipe: &Recipe,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report> {
    let mut config = Config::open(from)?;
    if config.quantization_config.is_some() {
        return Err(Error::Input(format!("{}: is quantized already", from.display())));
    }
    if !recipe.target.is_grouped() {
        let what =
            format!("{} is no format for a feed-forward network: expected int8 or int4", recipe.target);
        return Err(Error::Input(what));
    }
    let weights = SafeTensors::open(from)?;
    let (mut jobs, mut converted, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for name in weights.names() {
        let source = weights.get(&name)?;
        let layer = name.strip_prefix("layers.").and_then(|rest| rest.split('.').next()?.parse().ok());
        let base = name.strip_suffix(".weight").filter(|_| source.shape.len() == 2);
        let mut job = Job {
            name: name.clone(),
            kind: Kind::Copy,
            layer,
            inputs: None,
            outputs: None,
            order: None,
            source: source.clone(),
        };
        match base {
            Some(base) if layer.is_some() && !recipe.keeps(&name) => {
                let precise = recipe.precise.iter().any(|pattern| means(pattern, base));
                let target = recipe.target.for_width(source.shape[1]);
                job.name = base.to_owned();
                job.kind = Kind::Matrix(Encoding::new(target, Format::F32, None));
                converted.push(Converted { name: base.to_owned(), target, precise, table: false });
            }
            Some(base) => kept.push(base.to_owned()),
            None => {}
        }
        jobs.push(job);
    }
    let report = run(&jobs, &dir.join("model.safetensors"), safetensors, progress)?;
    config.quantization_config = describe(&converted, &kept);
    config.write(dir)?;
    Ok(report)
}
