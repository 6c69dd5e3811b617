//! A feed-forward network that `train` made.

use std::path::Path;
use std::time::Instant;

use candle_engine_models::mlp::{Mlp, Report};
use candle_engine_models::quantize::{write_mlp, Recipe, Staged, Target};
use serde::Serialize;

use crate::args::Quantize;
use crate::commands::train::report;
use crate::exit::{Failure, Outcome};
use crate::interrupt::Temporary;
use crate::output::{self, Ui};
use crate::progress::{Progress, Unit};

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Summary {
    format: String,
    output: String,
    bytes_before: u64,
    bytes_after: u64,
    seconds: f64,
    /// Root mean square of what was changed, relative to what was there.
    error: f64,
    eval: Option<Eval>,
}

#[derive(Debug, Serialize)]
struct Eval {
    before: Report,
    after: Report,
}

pub fn run(args: &Quantize, from: &Path, ui: &Ui) -> Outcome {
    if args.calibrate.is_some() || args.head.is_some() || args.embed.is_some() {
        return Err(Failure::usage("--calibrate, --head and --embed are for language models"));
    }
    let mut recipe = args.format.clone().unwrap_or_else(|| Recipe::new(Target::INT8));
    recipe.keep.clone_from(&args.keep);
    recipe.precise.extend(args.precise.iter().cloned());
    let table = args.eval.as_deref().map(crate::commands::predict::table).transpose()?;
    let before = table.as_ref().map(|table| Mlp::load(from)?.evaluate(table)).transpose()?;

    let staged = Staged::folder(&args.output)?;
    let _temporary = Temporary::of(staged.path());
    let start = Instant::now();
    let mut bar: Option<Progress> = None;
    let written = write_mlp(from, staged.path(), &recipe, &mut |done, total| {
        bar.get_or_insert_with(|| Progress::new(ui, "quantize", Unit::Bytes, total)).set(done);
    })?;
    staged.commit()?;
    let after = table.as_ref().map(|table| Mlp::load(&args.output)?.evaluate(table)).transpose()?;

    let mut all = candle_engine_models::quantize::Deviation::default();
    written.tensors.iter().for_each(|tensor| all += tensor.deviation);
    let summary = Summary {
        format: recipe.to_string(),
        output: args.output.display().to_string(),
        bytes_before: written.bytes_before,
        bytes_after: written.bytes_after,
        seconds: start.elapsed().as_secs_f64(),
        error: all.relative(),
        eval: before.zip(after).map(|(before, after)| Eval { before, after }),
    };
    if args.json {
        return output::json(&summary);
    }
    let sizes = [summary.bytes_before, summary.bytes_after].map(output::bytes);
    output::line(format_args!("size    {} -> {}", sizes[0], sizes[1]))?;
    output::line(format_args!("error   {:.3} %", 100.0 * summary.error))?;
    if let Some(Eval { before, after }) = &summary.eval {
        output::line(format_args!("before  {}", report::summary(before)))?;
        output::line(format_args!("after   {}", report::summary(after)))?;
    }
    Ok(())
}
