//! Options of `train` and `predict`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use super::positive;

const TRAIN_HELP: &str = "\
DATA is CSV with a header (comma, semicolon or tab), JSON lines, .npy, .npz (arrays x and y, or one alone), or IDX, \
which finds its labels beside it as MNIST names them; each may be compressed by gzip.

What a column is shows in its cells: numbers, which are standardized; or texts, each of which gets an input of its own, \
or an embedding where there are more than 16. Empty cells, NA, null, None and ? are missing. A target of texts, or of \
few whole numbers, is a classification, any other a regression; --task says it outright. All of this is stored with \
the network, so `predict` takes the same columns.

--layers names the hidden layers, or all from the inputs to the outputs; a list that begins or ends otherwise than the \
data needs is an error that says what it needs.

The network of the epoch with the lowest loss is kept, on the rows of --validation if there are any. Ctrl-C saves it and \
ends with 130.

--json prints one object at the end: output, network, parameters, rows, seconds, epochs (loss, validation_loss, score: \
accuracy or R2, lr), best, end (epochs, patience, stopped), and report, with precision, recall and the confusion \
matrix, or R2, mae and rmse.";

/// Train a small network on a table
#[derive(Debug, Args)]
#[command(after_help = TRAIN_HELP)]
pub struct Train {
    /// Data: .csv, .jsonl, .npy, .npz or IDX
    #[arg(value_name = "DATA", value_hint = ValueHint::FilePath)]
    pub data: PathBuf,
    /// Where to: a folder; nothing may be there yet
    #[arg(short, long, alias = "out", value_name = "DIR", value_hint = ValueHint::AnyPath)]
    pub output: PathBuf,
    /// Widths of the layers: the hidden ones, or all [default: one of 64]
    #[arg(long, value_delimiter = ',', value_name = "N,N,…", value_parser = positive)]
    pub layers: Option<Vec<usize>>,
    #[command(flatten)]
    pub columns: Columns,
    #[command(flatten)]
    pub network: Network,
    #[command(flatten)]
    pub learning: Learning,
    /// Share of the rows that are kept to measure on; 0 is none
    #[arg(long, default_value_t = 0.2, value_name = "SHARE", value_parser = below_one)]
    pub validation: f64,
    /// Seed: the same one gives the same network
    #[arg(short, long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    /// Draw the losses on the terminal, and with =FILE as an SVG file too
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "FILE")]
    pub plot: Option<Option<PathBuf>>,
    /// Threads [default: as many as this process may use]
    #[arg(short, long, value_name = "N", value_parser = positive)]
    pub threads: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

// What the columns are.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Columns")]
pub struct Columns {
    /// Column to predict [default: the last]
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Columns to leave out
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub ignore: Vec<String>,
    /// Columns of texts, even if they look like numbers
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub categorical: Vec<String>,
    /// What the target is [default: found from it]
    #[arg(long, value_name = "TASK")]
    pub task: Option<Task>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Task {
    Classification,
    Regression,
}

// What lies between inputs and outputs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Network")]
pub struct Network {
    /// Behind each hidden layer
    #[arg(long, default_value = "relu", value_name = "NAME")]
    pub activation: Activation,
    /// Before each activation
    #[arg(long, value_name = "NAME")]
    pub norm: Option<Norm>,
    /// Share of the hidden outputs that training sets to zero
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", value_parser = below_one)]
    pub dropout: f64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Activation {
    Relu,
    Gelu,
    Silu,
    Tanh,
    Sigmoid,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Norm {
    Layer,
    Batch,
}

// How it learns.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Learning")]
pub struct Learning {
    /// Most passes over the data
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = positive)]
    pub epochs: usize,
    /// Epochs without a lower loss after which it ends; 0 is never
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub patience: usize,
    /// Rows of a step
    #[arg(short, long, default_value_t = 64, value_name = "N", value_parser = positive)]
    pub batch_size: usize,
    /// Method
    #[arg(long, default_value = "adamw", value_name = "NAME")]
    pub optimizer: Optimizer,
    /// Learning rate [default: 0.001, of sgd 0.01]
    #[arg(long, value_name = "X", value_parser = above_zero)]
    pub lr: Option<f64>,
    /// Share of the last step that is kept [default: of sgd 0.9, of rmsprop 0]
    #[arg(long, value_name = "SHARE", value_parser = below_one)]
    pub momentum: Option<f64>,
    /// Weight decay of the matrices [default: of adamw 0.01, else 0]
    #[arg(long, value_name = "X", value_parser = not_negative)]
    pub weight_decay: Option<f64>,
    /// How the learning rate falls: step to a tenth after each third of the epochs, plateau to a half after three without a lower loss
    #[arg(long, default_value = "constant", value_name = "NAME")]
    pub schedule: Schedule,
    /// Updates in which the learning rate rises before
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub warmup: u64,
    /// Loss of a regression
    #[arg(long, default_value = "mse", value_name = "NAME")]
    pub loss: Loss,
    /// Share of a label's probability that all labels have equally
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", value_parser = below_one)]
    pub label_smoothing: f64,
    /// balanced: each label's rows count the same together
    #[arg(long, value_name = "HOW")]
    pub class_weights: Option<ClassWeights>,
    /// Norm that gradients are scaled down to
    #[arg(long, value_name = "X", value_parser = above_zero)]
    pub clip: Option<f64>,
    /// Batches whose gradients make one update
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = positive)]
    pub accumulate: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
pub enum Optimizer {
    Adamw,
    Adam,
    Sgd,
    Rmsprop,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Schedule {
    Constant,
    Step,
    Cosine,
    Plateau,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Loss {
    Mse,
    Mae,
    Huber,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ClassWeights {
    Balanced,
}

const PREDICT_HELP: &str = "\
Prints a JSON object for each row: label, probability, and the probabilities of all labels; or value, of a regression. \
Columns are found by their names; what the network was not trained on is passed over.";

/// What a trained network says of the rows of a table
#[derive(Debug, Args)]
#[command(after_help = PREDICT_HELP)]
pub struct Predict {
    /// Folder that `train` or `quantize` wrote
    #[arg(value_name = "MODEL", value_hint = ValueHint::DirPath)]
    pub folder: PathBuf,
    /// Rows, in any of the formats of `train`; `-` is stdin
    #[arg(value_name = "FILE", default_value = "-", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Compare with the target in FILE instead, and print the report
    #[arg(long)]
    pub report: bool,
    /// Threads [default: as many as this process may use]
    #[arg(short, long, value_name = "N", value_parser = positive)]
    pub threads: Option<usize>,
    /// Print the report as one JSON object; predictions always are JSON
    #[arg(long)]
    pub json: bool,
}

fn number(text: &str, is_good: fn(f64) -> bool, expected: &str) -> Result<f64, String> {
    let wrong = || format!("expected {expected}, got {text}");
    text.parse().ok().filter(|x: &f64| x.is_finite() && is_good(*x)).ok_or_else(wrong)
}

fn below_one(text: &str) -> Result<f64, String> {
    number(text, |x| (0.0..1.0).contains(&x), "0 or more, below 1")
}

fn above_zero(text: &str) -> Result<f64, String> {
    number(text, |x| x > 0.0, "a number above 0")
}

fn not_negative(text: &str) -> Result<f64, String> {
    number(text, |x| x >= 0.0, "0 or more")
}
