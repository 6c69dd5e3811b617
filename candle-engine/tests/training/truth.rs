//! Networks in f64, op by op: what gradients are differences of.

use std::collections::HashMap;

/// Rows of numbers.
pub type Rows = Vec<Vec<f64>>;

/// Parameters by name, row by row as in a checkpoint.
pub type Numbers = HashMap<String, Vec<f64>>;

/// What a network reads.
pub struct Batch {
    pub x: Rows,
    pub ids: Vec<u32>,
    pub labels: Vec<u32>,
    pub targets: Rows,
    /// What dropout multiplies by.
    pub kept: Rows,
}

/// How a loss counts.
pub struct Loss<'a> {
    pub name: &'a str,
    pub label_smoothing: f64,
    pub class_weights: Vec<f64>,
}

/// The output of a network of layers such as `linear:8`, whose parameters are called `l0.weight` and so on.
pub fn forward(net: &[String], params: &Numbers, batch: &Batch) -> Rows {
    let mut outputs: Vec<Rows> = Vec::new();
    for (i, layer) in net.iter().enumerate() {
        let (kind, argument) = layer.split_once(':').unwrap_or((layer, "0"));
        let argument: usize = argument.parse().unwrap();
        let x = outputs.last().unwrap_or(&batch.x);
        let param = |end: &str| params.get(&format!("l{i}.{end}")).map(Vec::as_slice);
        let each = |f: fn(f64) -> f64| x.iter().map(|row| row.iter().map(|x| f(*x)).collect()).collect();
        outputs.push(match kind {
            "linear" | "linear_without_bias" => linear(x, param("weight").unwrap(), param("bias")),
            "layer_norm" => scaled(x.iter().map(|row| normal(row)).collect(), param("weight"), param("bias")),
            "batch_norm" => {
                let columns = turned(x).iter().map(|column| normal(column)).collect();
                scaled(turned(&columns), param("weight"), param("bias"))
            }
            "embedding" => {
                let table = param("weight").unwrap();
                batch.ids.iter().map(|id| table[*id as usize * argument..][..argument].to_vec()).collect()
            }
            "add" => pairs(x, &outputs[argument], |a, b| a + b),
            "dropout" => pairs(x, &batch.kept, |a, b| a * b),
            "softmax" => x.iter().map(|row| log_softmax(row).iter().map(|x| x.exp()).collect()).collect(),
            "relu" => each(|x| x.max(0.0)),
            "gelu" => each(|x| x * normal_cdf(x)),
            "silu" => each(|x| x * sigmoid(x)),
            "tanh" => each(f64::tanh),
            "sigmoid" => each(sigmoid),
            other => panic!("layer {other}"),
        });
    }
    outputs.pop().unwrap()
}

/// The loss of a network's output.
pub fn loss(how: &Loss, y: &Rows, batch: &Batch) -> f64 {
    if how.name == "cross_entropy" {
        return cross_entropy(how, y, &batch.labels);
    }
    let one = |x: f64, y: f64| match how.name {
        "mse" => (x - y).powi(2),
        "mae" => (x - y).abs(),
        "huber" if (x - y).abs() < 0.7 => 0.5 * (x - y).powi(2),
        "huber" => 0.7 * ((x - y).abs() - 0.35),
        "bce_with_logits" => -y * sigmoid(x).ln() - (1.0 - y) * sigmoid(-x).ln(),
        other => panic!("loss {other}"),
    };
    let losses = pairs(y, &batch.targets, one).concat();
    losses.iter().sum::<f64>() / losses.len() as f64
}

fn cross_entropy(how: &Loss, y: &Rows, labels: &[u32]) -> f64 {
    let weight = |class: usize| how.class_weights.get(class).copied().unwrap_or(1.0);
    let (mut sum, mut total) = (0.0, 0.0);
    for (row, label) in y.iter().zip(labels) {
        let (logs, label) = (log_softmax(row), *label as usize);
        let all: f64 = logs.iter().enumerate().map(|(class, log)| weight(class) * log).sum();
        let (sharp, smooth) = (1.0 - how.label_smoothing, how.label_smoothing / row.len() as f64);
        sum -= sharp * weight(label) * logs[label] + smooth * all;
        total += weight(label);
    }
    sum / total
}

fn linear(x: &Rows, weight: &[f64], bias: Option<&[f64]>) -> Rows {
    let inputs = x[0].len();
    let one = |row: &[f64], (o, w): (usize, &[f64])| {
        row.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() + bias.map_or(0.0, |bias| bias[o])
    };
    x.iter().map(|row| weight.chunks(inputs).enumerate().map(|w| one(row, w)).collect()).collect()
}

fn normal(x: &[f64]) -> Vec<f64> {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let var = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
    x.iter().map(|x| (x - mean) / (var + 1e-5).sqrt()).collect()
}

fn scaled(x: Rows, weight: Option<&[f64]>, bias: Option<&[f64]>) -> Rows {
    let (weight, bias) = (weight.unwrap(), bias.unwrap());
    x.iter().map(|row| (0..row.len()).map(|c| row[c] * weight[c] + bias[c]).collect()).collect()
}

fn log_softmax(x: &[f64]) -> Vec<f64> {
    let log = x.iter().map(|x| x.exp()).sum::<f64>().ln();
    x.iter().map(|x| x - log).collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Φ(x) = 1/2 + φ(x) · Σ x^(2k+1) / (2k+1)!!
fn normal_cdf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for k in 1..100 {
        term *= x * x / f64::from(2 * k + 1);
        sum += term;
    }
    0.5 + sum * (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt()
}

fn turned(x: &Rows) -> Rows {
    (0..x[0].len()).map(|c| x.iter().map(|row| row[c]).collect()).collect()
}

fn pairs(x: &Rows, y: &Rows, f: impl Fn(f64, f64) -> f64) -> Rows {
    x.iter().zip(y).map(|(x, y)| x.iter().zip(y).map(|(x, y)| f(*x, *y)).collect()).collect()
}
