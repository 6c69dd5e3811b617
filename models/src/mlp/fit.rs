//! The training loop.

use std::ops::ControlFlow;

use candle_engine::text::sampler::SplitMix64;
use candle_engine::train::{CrossEntropy, Graph, Method, Optimizer, Pointwise, Schedule};
use candle_engine::{Error, Result};
use serde::Serialize;

use super::data::{shuffle, Data};
use super::model::Mlp;
use super::network::{Network, Norm};
use super::report::Report;
use super::run::fill;
use super::schema::Target;

/// How a network is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct FitOptions {
    /// Most passes over the rows.
    pub epochs: usize,
    /// Rows of a step; the last batch of an epoch is filled up with the first rows of it.
    pub batch_size: usize,
    /// The optimizer.
    pub method: Method,
    /// The learning rate.
    pub lr: f64,
    /// Of matrices; biases and norms have none.
    pub weight_decay: f32,
    /// How the learning rate falls.
    pub decay: Decay,
    /// Updates in which it rises before.
    pub warmup: u64,
    /// Share of a label's probability that all labels have equally.
    pub label_smoothing: f32,
    /// Whether rare labels count more: each label's rows together the same.
    pub balanced: bool,
    /// The loss of a regression.
    pub loss: Pointwise,
    /// The norm that gradients are scaled down to.
    pub clip: Option<f32>,
    /// Batches whose gradients make one update.
    pub accumulate: usize,
    /// Epochs without a lower loss after which training ends.
    pub patience: Option<usize>,
    /// Of the order of the rows.
    pub seed: u64,
}

/// How the learning rate falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decay {
    /// Not at all.
    Constant,
    /// To a tenth after each third of the epochs.
    Step,
    /// To zero along half a cosine.
    Cosine,
    /// To a half after three epochs without a lower loss.
    Plateau,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self {
            epochs: 100,
            batch_size: 64,
            method: Method::AdamW { betas: [0.9, 0.999], eps: 1e-8 },
            lr: 1e-3,
            weight_decay: 0.01,
            decay: Decay::Constant,
            warmup: 0,
            label_smoothing: 0.0,
            balanced: false,
            loss: Pointwise::Mse,
            clip: None,
            accumulate: 1,
            patience: Some(10),
            seed: 0,
        }
    }
}

/// What a callback is told.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A step is done.
    Step {
        /// Steps so far, and in all epochs.
        done: u64,
        /// See `done`.
        total: u64,
        /// Of this step's batch.
        loss: f32,
    },
    /// An epoch is done and measured.
    Epoch(&'a Epoch),
}

/// What an epoch came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Epoch {
    /// From 1.
    pub epoch: usize,
    /// Mean of the batches' losses.
    pub loss: f64,
    /// Of the rows kept for validation; `None` if there are none.
    pub validation_loss: Option<f64>,
    /// Accuracy, or R² of a regression: of the rows kept for validation, or of all if there are none.
    pub score: f64,
    /// The learning rate at its end.
    pub lr: f64,
}

/// What training came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fit {
    /// Every epoch.
    pub epochs: Vec<Epoch>,
    /// The one whose network was kept: that of the lowest loss.
    pub best: usize,
    /// Why it ended.
    pub end: End,
}

/// Why training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// All epochs are done.
    Epochs,
    /// The loss has not fallen for as long as patience lasts.
    Patience,
    /// The callback said so.
    Stopped,
}

impl Mlp {
    /// Trains it and keeps the network of the epoch with the lowest loss: of the rows for validation if there are any.
    ///
    /// The same data, options and seed give the same bits, with any number of threads.
    ///
    /// Errors: `Input` if the loss is not finite or a parameter gets no gradient, naming it; if the network was
    /// quantized.
    pub fn fit(
        &mut self,
        data: &Data,
        options: &FitOptions,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Fit> {
        let norm = self.architecture.norm;
        let (params, network) = self.float()?;
        let batch = options.batch_size.min(data.train.len()).max(1);
        if norm == Some(Norm::BatchNorm) && batch < 2 {
            return Err(Error::Input("batch norm needs batches of 2 rows or more".into()));
        }
        let mut run = Training::new(network, params, data, options, batch)?;
        let mut rng = SplitMix64::new(options.seed);
        let mut order = data.train.clone();
        let (mut fit, mut best) =
            (Fit { epochs: Vec::new(), best: 0, end: End::Epochs }, (f64::INFINITY, params.clone()));
        let steps = order.len().div_ceil(batch) as u64;
        let total = steps * options.epochs as u64;
        'training: for epoch in 1..=options.epochs {
            shuffle(&mut order, &mut rng);
            let (mut sum, mut done) = (0.0, 0u64);
            let mut stopped = false;
            for rows in order.chunks(batch) {
                let filler = order[..batch - rows.len()].iter();
                let loss = run.step(params, data, rows.iter().chain(filler).copied())?;
                (sum, done) = (sum + f64::from(loss), done + 1);
                let step = Event::Step { done: steps * (epoch as u64 - 1) + done, total, loss };
                if on_event(step).is_break() {
                    stopped = true;
                    break;
                }
            }
            let loss = sum / done as f64;
            let measured = if data.validation.is_empty() { &data.train } else { &data.validation };
            let report = Report::of(network, params, data, measured)?;
            let validation_loss = (!data.validation.is_empty()).then_some(report.loss);
            let measure = validation_loss.unwrap_or(loss);
            run.optimizer.report(measure);
            let row = Epoch { epoch, loss, validation_loss, score: report.score(), lr: run.optimizer.lr() };
            // A loss that is NaN is never the best; the first epoch stands until there is a better one.
            if measure < best.0 || epoch == 1 {
                best = (measure, params.clone());
                fit.best = epoch;
            }
            stopped |= on_event(Event::Epoch(&row)).is_break();
            fit.epochs.push(row);
            if stopped {
                fit.end = End::Stopped;
                break 'training;
            }
            if options.patience.is_some_and(|patience| epoch - fit.best >= patience.max(1)) {
                fit.end = End::Patience;
                break 'training;
            }
        }
        *params = best.1;
        Ok(fit)
    }
}

/// A plan and its optimizer.
struct Training {
    plan: candle_engine::train::Plan,
    recorded: super::network::Recorded,
    answer: Answer,
    optimizer: Optimizer,
}

/// Where a batch's targets go.
enum Answer {
    Labels(candle_engine::train::Ids),
    Numbers(candle_engine::train::Var, f32, f32),
}

impl Training {
    fn new(
        network: &Network,
        params: &candle_engine::train::Params,
        data: &Data,
        options: &FitOptions,
        batch: usize,
    ) -> Result<Self> {
        let mut graph = Graph::new();
        let recorded = network.record(&mut graph, batch)?;
        let (answer, loss) = match &data.schema.target {
            Target::Classes { labels, .. } => {
                let ids = graph.ids("labels", batch);
                let weights = if options.balanced { balance(data, labels.len()) } else { Vec::new() };
                let how = CrossEntropy { label_smoothing: options.label_smoothing, weights };
                (Answer::Labels(ids), graph.cross_entropy(recorded.output, ids, how)?)
            }
            Target::Number { mean, std, .. } => {
                let targets = graph.input("targets", batch, 1);
                let loss = graph.pointwise(recorded.output, targets, options.loss)?;
                (Answer::Numbers(targets, *mean, *std), loss)
            }
        };
        let plan = graph.training(loss, params)?;
        let updates = (data.train.len().div_ceil(batch) * options.epochs).div_ceil(options.accumulate.max(1));
        Ok(Self { plan, recorded, answer, optimizer: optimizer(options, updates as u64) })
    }

    fn step(
        &mut self,
        params: &mut candle_engine::train::Params,
        data: &Data,
        rows: impl Iterator<Item = usize> + Clone,
    ) -> Result<f32> {
        fill(&mut self.plan, &self.recorded, &data.rows, rows.clone());
        match &self.answer {
            Answer::Labels(ids) => {
                let labels = self.plan.ids_mut(*ids).iter_mut();
                labels.zip(rows).for_each(|(label, row)| *label = data.rows.labels[row]);
            }
            Answer::Numbers(targets, mean, std) => {
                let targets = self.plan.input_mut(*targets).iter_mut();
                targets.zip(rows).for_each(|(y, row)| *y = (data.rows.targets[row] - mean) / std);
            }
        }
        self.plan.step(params, &mut self.optimizer)
    }
}

fn optimizer(options: &FitOptions, updates: u64) -> Optimizer {
    let falling = match options.decay {
        Decay::Constant => Schedule::Constant,
        Decay::Step => Schedule::Step { every: updates.div_ceil(3), gamma: 0.1 },
        Decay::Cosine => Schedule::Cosine { steps: updates.saturating_sub(options.warmup), floor: 0.0 },
        Decay::Plateau => Schedule::Plateau { factor: 0.5, patience: 3, threshold: 1e-4 },
    };
    let schedule = match options.warmup {
        0 => falling,
        steps => Schedule::WarmUp { steps, then: Box::new(falling) },
    };
    let optimizer = Optimizer::new(options.method, options.lr)
        .weight_decay(options.weight_decay)
        .group(|name| name.ends_with(".bias") || name.starts_with("norms."), 1.0, 0.0)
        .schedule(schedule)
        .accumulate(options.accumulate);
    match options.clip {
        Some(norm) => optimizer.clip_norm(norm),
        None => optimizer,
    }
}

/// What each label counts so that all count the same together: n / (labels · rows with it).
fn balance(data: &Data, labels: usize) -> Vec<f32> {
    let mut counts = vec![0usize; labels];
    data.train.iter().for_each(|row| counts[data.rows.labels[*row] as usize] += 1);
    let all = data.train.len() as f32;
    counts.into_iter().map(|count| all / (labels * count.max(1)) as f32).collect()
}
