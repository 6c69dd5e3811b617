//! `train`: a small network from a table.

mod plot;
pub mod report;

use std::ops::ControlFlow;
use std::time::Instant;

use candle_engine::kernels::threads::set_threads;
use candle_engine_models::mlp::{
    Act, Architecture, Data, Decay, End, Event, Fit, FitOptions, Hints, Input, Kind, Method, Mlp, Norm,
    Pointwise, Report, Schema, Table, Target, Task,
};
use candle_engine_models::quantize::Staged;
use serde::Serialize;

use crate::args::train::{self as args, Train};
use crate::exit::{Failure, Outcome};
use crate::interrupt::{Graceful, Temporary};
use crate::output::{self, Ui};
use crate::progress::{Progress, Unit};

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    output: String,
    network: String,
    parameters: usize,
    rows: usize,
    seconds: f64,
    #[serde(flatten)]
    fit: &'a Fit,
    report: &'a Report,
}

pub fn run(args: &Train, ui: &Ui) -> Outcome {
    if let Some(threads) = args.threads {
        set_threads(threads);
    }
    let plot = args.plot.as_ref().map(|file| file.as_deref());
    plot::check(plot.flatten())?;
    let data = read(args)?;
    let mut architecture = architecture(&args.network);
    if let Some(layers) = &args.layers {
        architecture.set_layers(layers, &data.schema)?;
    }
    let mut mlp = Mlp::new(data.schema.clone(), architecture.clone(), args.seed)?;
    let network = architecture.widths(&data.schema);
    describe(args, &data, &network, mlp.parameters(), ui);

    // Before the work: a destination that is taken is known at once.
    let staged = Staged::folder(&args.output)?;
    let _temporary = Temporary::of(staged.path());
    let start = Instant::now();
    let fit = learn(&mut mlp, &data, &options(args), ui)?;
    let seconds = start.elapsed().as_secs_f64();
    mlp.write(staged.path())?;
    staged.commit()?;

    if let Some(file) = plot {
        plot::draw(&fit.epochs, file, ui)?;
    }
    ui.note(format_args!(
        "{}: the network of epoch {} of {}",
        args.output.display(),
        fit.best,
        fit.epochs.len()
    ));
    let report = mlp.validate(&data)?;
    if args.json {
        let (output, parameters, rows) =
            (args.output.display().to_string(), mlp.parameters(), data.rows.rows);
        output::json(&Summary { output, network, parameters, rows, seconds, fit: &fit, report: &report })?;
    } else {
        report::print(&report)?;
    }
    match fit.end {
        End::Stopped => Err(Failure::interrupted()),
        End::Epochs | End::Patience => Ok(()),
    }
}

fn read(args: &Train) -> Outcome<Data> {
    let columns = &args.columns;
    let task = columns.task.map(|task| match task {
        args::Task::Classification => Task::Classification,
        args::Task::Regression => Task::Regression,
    });
    let hints = Hints {
        target: columns.target.clone(),
        ignore: columns.ignore.clone(),
        categorical: columns.categorical.clone(),
        task,
    };
    Ok(Data::new(&Table::open(&args.data)?, &hints, args.validation, args.seed)?)
}

fn architecture(network: &args::Network) -> Architecture {
    Architecture {
        hidden_act: match network.activation {
            args::Activation::Relu => Act::Relu,
            args::Activation::Gelu => Act::Gelu,
            args::Activation::Silu => Act::Silu,
            args::Activation::Tanh => Act::Tanh,
            args::Activation::Sigmoid => Act::Sigmoid,
        },
        norm: network.norm.map(|norm| match norm {
            args::Norm::Layer => Norm::LayerNorm,
            args::Norm::Batch => Norm::BatchNorm,
        }),
        dropout: network.dropout as f32,
        ..Architecture::default()
    }
}

fn options(args: &Train) -> FitOptions {
    use args::Optimizer::{Adam, Adamw, Rmsprop, Sgd};
    let learning = &args.learning;
    let momentum = |usual| learning.momentum.map_or(usual, |momentum| momentum as f32);
    let (betas, eps) = ([0.9, 0.999], 1e-8);
    let (method, lr, decay) = match learning.optimizer {
        Adamw => (Method::AdamW { betas, eps }, 1e-3, 0.01),
        Adam => (Method::Adam { betas, eps }, 1e-3, 0.0),
        Sgd => (Method::Sgd { momentum: momentum(0.9), dampening: 0.0, nesterov: false }, 1e-2, 0.0),
        Rmsprop => (Method::RmsProp { alpha: 0.99, eps, momentum: momentum(0.0) }, 1e-3, 0.0),
    };
    FitOptions {
        epochs: learning.epochs,
        batch_size: learning.batch_size,
        method,
        lr: learning.lr.unwrap_or(lr),
        weight_decay: learning.weight_decay.unwrap_or(decay) as f32,
        decay: match learning.schedule {
            args::Schedule::Constant => Decay::Constant,
            args::Schedule::Step => Decay::Step,
            args::Schedule::Cosine => Decay::Cosine,
            args::Schedule::Plateau => Decay::Plateau,
        },
        warmup: learning.warmup,
        label_smoothing: learning.label_smoothing as f32,
        balanced: learning.class_weights.is_some(),
        loss: match learning.loss {
            args::Loss::Mse => Pointwise::Mse,
            args::Loss::Mae => Pointwise::Mae,
            args::Loss::Huber => Pointwise::Huber { delta: 1.0 },
        },
        clip: learning.clip.map(|norm| norm as f32),
        accumulate: learning.accumulate,
        patience: Some(learning.patience).filter(|patience| *patience > 0),
        seed: args.seed,
    }
}

/// Says what was found in the data.
fn describe(args: &Train, data: &Data, network: &str, parameters: usize, ui: &Ui) {
    let Schema { inputs, target } = &data.schema;
    let named = |inputs: Vec<&Input>| {
        let names: Vec<&str> = inputs.iter().take(6).map(|input| input.name.as_str()).collect();
        let more = if inputs.len() > names.len() { ", …" } else { "" };
        format!("{} ({}{more})", inputs.len(), names.join(", "))
    };
    let (numbers, texts): (Vec<&Input>, Vec<&Input>) =
        inputs.iter().partition(|input| matches!(input.kind, Kind::Number { .. }));
    let mut parts = Vec::new();
    if !numbers.is_empty() {
        parts.push(format!("numbers: {}", named(numbers)));
    }
    if !texts.is_empty() {
        parts.push(format!("texts: {}", named(texts)));
    }
    let task = match target {
        Target::Classes { labels, .. } => format!("classification, {} labels", labels.len()),
        Target::Number { .. } => "regression".into(),
    };
    ui.note(format_args!(
        "{}: {}; target: {} ({task})",
        args.data.display(),
        parts.join("; "),
        target.name()
    ));
    ui.note(format_args!(
        "network {network}, {parameters} parameters; {} rows to learn from, {} to measure on",
        data.train.len(),
        data.validation.len()
    ));
}

fn learn(mlp: &mut Mlp, data: &Data, options: &FitOptions, ui: &Ui) -> Outcome<Fit> {
    let score = if data.schema.target.labels().is_empty() { "R2" } else { "accuracy" };
    let graceful = Graceful::new();
    let mut bar: Option<Progress> = None;
    let fit = mlp.fit(data, options, &mut |event| {
        match event {
            Event::Step { done, total, .. } => {
                bar.get_or_insert_with(|| Progress::new(ui, "train", Unit::Steps, total)).set(done);
            }
            Event::Epoch(epoch) => {
                let loss = epoch.validation_loss.unwrap_or(epoch.loss);
                if let Some(bar) = &mut bar {
                    bar.label(format!("loss {loss:.4} {score} {:.3}", epoch.score));
                }
                ui.detail(format_args!("epoch {}: loss {loss:.5}, {score} {:.4}", epoch.epoch, epoch.score));
            }
        }
        match graceful.pressed() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    Ok(fit)
}
