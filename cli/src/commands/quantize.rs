//! `quantize`: converts a model to smaller numbers.

mod mlp;

use std::path::Path;
use std::time::Instant;

use candle_engine::kernels::threads::set_threads;
use candle_engine_models::evaluate::{compare, Comparison, Windows};
use candle_engine_models::mlp::Mlp;
use candle_engine_models::quantize::{
    is_whisper, write_folder, write_gguf, write_whisper_folder, Calibration, Observer, Origin, Recipe,
    Report, Staged, Target,
};
use candle_engine_models::{Error, LoadOptions, Model, Source};
use serde::Serialize;

use super::{load, prompt};
use crate::args::Quantize;
use crate::exit::{Failure, Outcome};
use crate::interrupt::Temporary;
use crate::output::{self, Ui};
use crate::progress::{Progress, Unit};

/// The object that `--json` prints. Errors are root mean squares, relative to the weights'.
#[derive(Debug, Serialize)]
struct Summary {
    format: String,
    output: String,
    bytes_before: u64,
    bytes_after: u64,
    seconds: f64,
    layers: Vec<LayerRow>,
    tensors: Vec<TensorRow>,
    eval: Option<Eval>,
}

#[derive(Debug, Serialize)]
struct LayerRow {
    /// `null` for what is in no layer, such as the head.
    layer: Option<usize>,
    error: f64,
    worst: String,
    worst_error: f64,
}

#[derive(Debug, Serialize)]
struct TensorRow {
    name: String,
    from: String,
    to: String,
    error: f64,
}

#[derive(Debug, Serialize)]
struct Eval {
    perplexity_before: f64,
    perplexity_after: f64,
    /// Mean divergence of the predictions, in nats per token.
    kl: f64,
    tokens: usize,
}

pub fn run(args: &Quantize, ui: &Ui) -> Outcome {
    if let Some(threads) = args.threads {
        set_threads(threads);
    }
    let is_gguf = args.output.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"));
    if is_gguf && args.calibrate.is_some() {
        return Err(Failure::usage("--calibrate: only for a folder"));
    }
    let source = load::locate(&load::word(args.word.as_ref(), &args.model), ui)?;
    if let Source::Folder(dir) = &source {
        if Mlp::is_in(dir) {
            return mlp::run(args, dir, ui);
        }
    }
    let recipe = recipe(args, is_gguf);
    if let Source::Folder(dir) = &source {
        if is_whisper(dir) {
            return whisper(args, dir, &recipe, is_gguf, ui);
        }
    }
    if let Source::Ggml(file) = &source {
        let what =
            "a file of whisper.cpp's becomes no folder: name the folder that it was made of, or quantize it \
                    while loading (`transcribe --quantize`)";
        return Err(Failure::from(Error::malformed(file, what)));
    }
    let texts = [&args.calibrate, &args.eval].map(|file| file.as_deref().map(prompt::text_of).transpose());
    let [calibration_text, eval_text] = texts;
    let (calibration_text, eval_text) = (calibration_text?, eval_text?);
    let origin = Origin::open(&source)?;
    // Before the work: a destination that is taken is known at once.
    let staged = if is_gguf { Staged::file(&args.output)? } else { Staged::folder(&args.output)? };
    let _temporary = Temporary::of(staged.path());
    let calibration = match calibration_text {
        Some(text) => Some(calibrate(&source, &origin, &text, args.smooth, ui)?),
        None => None,
    };
    let start = Instant::now();
    let report = write(&origin, staged.path(), is_gguf, &recipe, calibration.as_ref(), ui)?;
    staged.commit()?;
    let seconds = start.elapsed().as_secs_f64();
    let eval = match eval_text {
        Some(text) => Some(evaluate(&source, &args.output, &text, ui)?),
        None => None,
    };
    let summary = summary(args, &recipe, &report, seconds, eval);
    if args.json {
        return output::json(&summary);
    }
    print(&summary)
}

/// Whisper models are quantized without a text to calibrate or measure by.
fn whisper(args: &Quantize, dir: &Path, recipe: &Recipe, is_gguf: bool, ui: &Ui) -> Outcome {
    if is_gguf || args.calibrate.is_some() || args.eval.is_some() {
        let what = "a Whisper model becomes a folder, without --calibrate and --eval";
        return Err(Failure::usage(what));
    }
    let staged = Staged::folder(&args.output)?;
    let _temporary = Temporary::of(staged.path());
    let start = Instant::now();
    let mut progress: Option<Progress> = None;
    let report = write_whisper_folder(dir, staged.path(), recipe, &mut |done, total| {
        let bar = || Progress::new(ui, args.output.display().to_string(), Unit::Bytes, total);
        progress.get_or_insert_with(bar).set(done);
    })?;
    drop(progress);
    staged.commit()?;
    let summary = summary(args, recipe, &report, start.elapsed().as_secs_f64(), None);
    if args.json {
        return output::json(&summary);
    }
    print(&summary)
}

fn recipe(args: &Quantize, is_gguf: bool) -> Recipe {
    let usual = || Recipe::new(if is_gguf { Target::Q8_0 } else { Target::INT8 });
    let mut recipe = args.format.clone().unwrap_or_else(usual);
    if let Some(head) = args.head {
        recipe.head = head.0;
    }
    if let Some(embedding) = args.embed {
        recipe.embedding = embedding.0;
    }
    recipe.keep.clone_from(&args.keep);
    recipe.precise.extend(args.precise.iter().cloned());
    recipe
}

fn write(
    origin: &Origin,
    path: &Path,
    is_gguf: bool,
    recipe: &Recipe,
    calibration: Option<&Calibration>,
    ui: &Ui,
) -> Outcome<Report> {
    let mut bar: Option<Progress> = None;
    let mut progress = |done, total| {
        bar.get_or_insert_with(|| Progress::new(ui, "quantize", Unit::Bytes, total)).set(done);
    };
    Ok(if is_gguf {
        write_gguf(origin, path, recipe, &mut progress)?
    } else {
        write_folder(origin, path, recipe, calibration, &mut progress)?
    })
}

/// Runs a text through the model and takes down what goes into its matrices.
fn calibrate(source: &Source, origin: &Origin, text: &str, alpha: f32, ui: &Ui) -> Outcome<Calibration> {
    let observer = Observer::default();
    let options = LoadOptions { observer: Some(observer.clone()), ..LoadOptions::default() };
    let model = Model::from_source(source, &options)?;
    let tokens = model.encode(text)?;
    let mut session = model.session();
    let windows = Windows::for_context(session.context());
    let mut progress = Progress::new(ui, "calibrate", Unit::Tokens, tokens.len() as u64);
    for (i, window) in tokens.chunks(windows.window).enumerate() {
        session.truncate(0);
        session.feed(window)?;
        progress.set(((i + 1) * windows.window) as u64);
    }
    let seen = observer.seen();
    Ok(Calibration::new(&seen, alpha, &*origin.weights, origin.names(), &origin.config)?)
}

fn evaluate(source: &Source, result: &Path, text: &str, ui: &Ui) -> Outcome<Eval> {
    let before = Model::from_source(source, &LoadOptions::default())?;
    let after = Model::open(&result.to_string_lossy(), &LoadOptions::default())?;
    let tokens = before.encode(text)?;
    if tokens.len() < 2 {
        return Err(Failure::input("--eval: there is nothing to score"));
    }
    let (mut reference, mut model) = (before.session(), after.session());
    let windows = Windows::for_context(reference.context());
    let mut bar = Progress::new(ui, "eval", Unit::Tokens, tokens.len() as u64);
    let comparison: Comparison =
        compare(&mut reference, &mut model, &tokens, windows, &mut |done| bar.set(done as u64))?;
    Ok(Eval {
        perplexity_before: comparison.reference.perplexity(),
        perplexity_after: comparison.model.perplexity(),
        kl: comparison.kl(),
        tokens: comparison.model.tokens,
    })
}

fn summary(args: &Quantize, recipe: &Recipe, report: &Report, seconds: f64, eval: Option<Eval>) -> Summary {
    let layers = report.layers().into_iter().map(|(layer, deviation, worst)| LayerRow {
        layer,
        error: deviation.relative(),
        worst: worst.name.clone(),
        worst_error: worst.deviation.relative(),
    });
    let tensors = report.tensors.iter().map(|tensor| TensorRow {
        name: tensor.name.clone(),
        from: tensor.from.to_string().to_lowercase(),
        to: tensor.to.to_string().to_lowercase(),
        error: tensor.deviation.relative(),
    });
    Summary {
        format: recipe.to_string(),
        output: args.output.display().to_string(),
        bytes_before: report.bytes_before,
        bytes_after: report.bytes_after,
        seconds,
        layers: layers.collect(),
        tensors: tensors.collect(),
        eval,
    }
}

fn print(summary: &Summary) -> Outcome {
    let percent = |x: f64| format!("{:.3} %", 100.0 * x);
    let row = |row: &LayerRow| {
        let layer = row.layer.map_or_else(|| "others".into(), |layer| layer.to_string());
        [layer, percent(row.error), percent(row.worst_error), row.worst.clone()]
    };
    let rows: Vec<[String; 4]> = summary.layers.iter().map(row).collect();
    output::table(["layer", "error", "worst", "tensor"], &rows)?;
    let (before, after) = (summary.bytes_before, summary.bytes_after);
    output::line(format_args!(
        "\nsize        {} -> {} ({:.1} %), {:.1} s",
        output::bytes(before),
        output::bytes(after),
        100.0 * after as f64 / before as f64,
        summary.seconds
    ))?;
    if let Some(eval) = &summary.eval {
        output::line(format_args!(
            "perplexity  {:.4} -> {:.4} ({:+.2} %), divergence {:.5} nats per token over {} tokens",
            eval.perplexity_before,
            eval.perplexity_after,
            100.0 * (eval.perplexity_after / eval.perplexity_before - 1.0),
            eval.kl,
            eval.tokens
        ))?;
    }
    Ok(())
}
