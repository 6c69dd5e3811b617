//! `show`: what a model is, also one that cannot be run.

mod mlp;

use std::path::PathBuf;

use candle_engine::weights::{Stored, Weights};
use candle_engine_models::blocks::{RopeConfig, Scaling};
use candle_engine_models::decoder::DecoderConfig;
use candle_engine_models::mlp::Mlp;
use candle_engine_models::{totals, Checkpoint, FormatTotal, Source};
use candle_engine_quantization::{non_finite, tensors, Listed, NonFinite};
use serde::Serialize;
use serde_json::{json, Value};

use super::load;
use crate::args::Show;
use crate::exit::{Failure, Outcome, LOAD};
use crate::output::{self, Ui};
use crate::progress::{Progress, Unit};

/// The object that `--json` prints. What could not be read is `null`, and `problems` says why.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    architecture: Option<String>,
    problems: Vec<String>,
    parameters: u64,
    bytes: u64,
    formats: Vec<FormatRow>,
    config: Option<Value>,
    /// Whether there is a chat template.
    template: Option<bool>,
    stop_tokens: Vec<u32>,
    license: Option<String>,
    files: Vec<FileRow>,
    #[serde(flatten)]
    lists: Lists,
}

/// What `--tensors` and `--check` ask for.
#[derive(Debug, Default, Serialize)]
struct Lists {
    #[serde(skip_serializing_if = "Option::is_none")]
    tensors: Option<Vec<TensorRow>>,
    /// The tensors that are not all finite.
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<Vec<CheckRow>>,
}

#[derive(Debug, Serialize)]
struct FormatRow {
    format: String,
    tensors: usize,
    parameters: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct FileRow {
    path: PathBuf,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct TensorRow {
    name: String,
    format: String,
    shape: Vec<usize>,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct CheckRow {
    name: String,
    nan: u64,
    infinite: u64,
}

pub fn run(args: &Show, ui: &Ui) -> Outcome {
    let word = load::word(args.word.as_ref(), &args.model);
    let source = load::locate(&word, ui)?;
    if let Source::Folder(dir) = &source {
        if Mlp::is_in(dir) {
            let weights = Checkpoint::open(&source)?.weights?;
            let lists = Lists::new(args, &*weights, totals(&*weights).iter().map(|f| f.bytes).sum(), ui);
            mlp::run(dir, args.json, &lists)?;
            return lists.verdict();
        }
    }
    let checkpoint = Checkpoint::open(&source)?;
    let mut report = report(word, &checkpoint);
    if let Ok(weights) = &checkpoint.weights {
        report.lists = Lists::new(args, &**weights, report.bytes, ui);
    }
    if args.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    match report.problems.first() {
        Some(problem) => Err(Failure::input(problem).with_code(LOAD)),
        None => report.lists.verdict(),
    }
}

impl Lists {
    fn new(args: &Show, weights: &dyn Weights, bytes: u64, ui: &Ui) -> Self {
        Self {
            tensors: args.tensors.then(|| tensors(weights).into_iter().map(TensorRow::from).collect()),
            check: args.check.then(|| check(weights, bytes, ui)),
        }
    }

    /// An error if a tensor that was checked is not all finite.
    fn verdict(&self) -> Outcome {
        match &self.check {
            Some(bad) if !bad.is_empty() => {
                let what = format!("{} tensors hold NaN or infinity", bad.len());
                Err(Failure::input(what).with_code(LOAD))
            }
            _ => Ok(()),
        }
    }

    fn print(&self) -> Outcome {
        if let Some(tensors) = &self.tensors {
            let shape = |t: &TensorRow| t.shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" × ");
            let row = |t: &TensorRow| [t.name.clone(), t.format.clone(), shape(t), output::bytes(t.bytes)];
            output::line("")?;
            output::table(
                ["tensor", "format", "shape", "size"],
                &tensors.iter().map(row).collect::<Vec<_>>(),
            )?;
        }
        if let Some(bad) = &self.check {
            output::line("")?;
            if bad.is_empty() {
                return output::line("all numbers are finite");
            }
            let row = |c: &CheckRow| [c.name.clone(), c.nan.to_string(), c.infinite.to_string()];
            output::table(["tensor", "NaN", "infinite"], &bad.iter().map(row).collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

fn report(model: String, checkpoint: &Checkpoint) -> Report {
    let formats = checkpoint.weights.as_ref().map(|w| totals(&**w)).unwrap_or_default();
    let errors = [
        checkpoint.weights.as_ref().err(),
        checkpoint.config.as_ref().err(),
        checkpoint.template.as_ref().err(),
    ];
    let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |meta| meta.len());
    Report {
        model,
        architecture: checkpoint.family.clone(),
        problems: errors.into_iter().flatten().map(ToString::to_string).collect(),
        parameters: formats.iter().map(|f| f.parameters).sum(),
        bytes: formats.iter().map(|f| f.bytes).sum(),
        formats: formats.into_iter().map(FormatRow::from).collect(),
        config: checkpoint.config.as_ref().ok().map(config),
        template: checkpoint.template.as_ref().ok().map(Option::is_some),
        stop_tokens: checkpoint.stop_tokens.clone(),
        license: checkpoint.license.clone(),
        files: checkpoint
            .files
            .iter()
            .map(|path| FileRow { bytes: size(path), path: path.clone() })
            .collect(),
        lists: Lists::default(),
    }
}

fn config(config: &DecoderConfig) -> Value {
    let d = &config.dims;
    let windows: Vec<Option<usize>> = config.layers.iter().map(|layer| layer.window).collect();
    json!({
        "context": d.context,
        "vocab": d.vocab,
        "hidden": d.hidden,
        "ffn": d.ffn,
        "layers": d.layers,
        "heads": d.heads,
        "kv_heads": d.kv_heads,
        "head_dim": d.head_dim,
        "tied_head": config.tied_head,
        "window": windows.iter().flatten().max(),
        "window_layers": windows.iter().flatten().count(),
        "rope": rope(&config.rope),
    })
}

fn rope(rope: &RopeConfig) -> Value {
    let (kind, factor) = match &rope.scaling {
        Scaling::None => ("default", None),
        Scaling::Linear { factor } => ("linear", Some(*factor)),
        Scaling::Llama3 { factor, .. } => ("llama3", Some(*factor)),
        Scaling::Yarn(yarn) => ("yarn", Some(yarn.factor)),
        Scaling::Divisors(_) => ("divisors", None),
    };
    json!({"type": kind, "theta": rope.theta, "dim": rope.dim, "factor": factor})
}

fn stored(weights: &dyn Weights) -> impl Iterator<Item = Stored> + '_ {
    weights.names().into_iter().filter_map(|name| weights.get(&name).ok())
}

fn check(weights: &dyn Weights, total: u64, ui: &Ui) -> Vec<CheckRow> {
    let mut progress = Progress::new(ui, "check", Unit::Bytes, total);
    let mut done = 0;
    let mut bad = Vec::new();
    for tensor in stored(weights) {
        let found = non_finite(&tensor);
        done += tensor.bytes.len() as u64;
        progress.set(done);
        if !found.is_none() {
            let NonFinite { nan, infinite } = found;
            bad.push(CheckRow { name: tensor.name, nan, infinite });
        }
    }
    bad
}

fn print(report: &Report) -> Outcome {
    let mut lines: Vec<(&str, String)> = vec![("model", report.model.clone())];
    let architecture = report.architecture.clone().unwrap_or_else(|| "unknown".into());
    lines.push(("architecture", architecture));
    if !report.formats.is_empty() {
        lines.push(("parameters", output::count(report.parameters)));
        lines.push(("size", output::bytes(report.bytes)));
    }
    for (i, f) in report.formats.iter().enumerate() {
        let text = format!("{} {} tensors, {}", f.format, f.tensors, output::bytes(f.bytes));
        lines.push((if i == 0 { "formats" } else { "" }, text));
    }
    if let Some(c) = &report.config {
        lines.push(("context", c["context"].to_string()));
        lines.push(("vocabulary", c["vocab"].to_string()));
        let shape = format!("{} layers, {} wide, {} in between", c["layers"], c["hidden"], c["ffn"]);
        lines.push(("shape", shape));
        let heads = format!("{} of {}, {} for keys and values", c["heads"], c["head_dim"], c["kv_heads"]);
        lines.push(("heads", heads));
        if !c["window"].is_null() {
            let window = format!("{} in {} of {} layers", c["window"], c["window_layers"], c["layers"]);
            lines.push(("window", window));
        }
        let rope = &c["rope"];
        let factor = if rope["factor"].is_null() {
            String::new()
        } else {
            format!(" by {}", rope["factor"].as_f64().unwrap_or_default())
        };
        let kind = rope["type"].as_str().filter(|&k| k != "default");
        let kind = kind.map_or_else(String::new, |k| format!(", {k}{factor}"));
        lines.push(("rope", format!("theta {}{kind}", rope["theta"].as_f64().unwrap_or_default())));
        let head = if c["tied_head"] == true { "the embedding" } else { "its own" };
        lines.push(("head", head.into()));
    }
    let template = report.template.map_or("unreadable", |t| if t { "yes" } else { "no" });
    lines.push(("template", template.into()));
    let ids: Vec<_> = report.stop_tokens.iter().map(u32::to_string).collect();
    lines.push(("stop tokens", if ids.is_empty() { "none named".into() } else { ids.join(", ") }));
    lines.push(("licence", report.license.clone().unwrap_or_else(|| "not stated".into())));
    for (i, file) in report.files.iter().enumerate() {
        let text = format!("{} {}", file.path.display(), output::bytes(file.bytes));
        lines.push((if i == 0 { "files" } else { "" }, text));
    }
    for problem in &report.problems {
        lines.push(("problem", problem.clone()));
    }
    let text: String = lines.iter().map(|(key, value)| format!("{key:<14}{value}\n")).collect();
    output::piece(&text)?;
    report.lists.print()
}

impl From<FormatTotal> for FormatRow {
    fn from(total: FormatTotal) -> Self {
        let FormatTotal { format, tensors, parameters, bytes } = total;
        Self { format: format.to_string().to_lowercase(), tensors, parameters, bytes }
    }
}

impl From<Listed> for TensorRow {
    fn from(Listed { name, format, shape, bytes }: Listed) -> Self {
        Self { name, format: format.to_string().to_lowercase(), shape, bytes }
    }
}
