//! How good a network is on rows whose targets are known.

use candle_engine::train::Params;
use candle_engine::Result;
use serde::Serialize;

use super::data::Data;
use super::encode::Encoded;
use super::network::Network;
use super::run;
use super::schema::{Schema, Target};

/// How good a network is on rows whose targets are known.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The number of rows.
    pub rows: usize,
    /// Mean cross-entropy, or the mean squared error in units of the target's deviation.
    pub loss: f64,
    /// What else there is to say.
    #[serde(flatten)]
    pub measures: Measures,
}

/// What is said of the two tasks.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Measures {
    /// Of a classification.
    Classes {
        /// Share of the rows whose label is the likeliest.
        accuracy: f64,
        /// One for each label, in the order of the outputs.
        classes: Vec<Class>,
        /// Rows by their label, and within by what was predicted.
        confusion: Vec<Vec<usize>>,
    },
    /// Of a regression, in the target's units.
    Numbers {
        /// 1 − Σ (y − ŷ)² / Σ (y − mean)²
        r2: f64,
        /// Mean |y − ŷ|
        mae: f64,
        /// √ mean (y − ŷ)²
        rmse: f64,
    },
}

/// How well one label is found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Class {
    /// The label.
    pub label: String,
    /// Share of what was taken for it that is; 0 if nothing was.
    pub precision: f64,
    /// Share of it that was found; 0 if there is none.
    pub recall: f64,
    /// Rows with it.
    pub rows: usize,
}

impl Report {
    pub(super) fn of(network: &Network, params: &Params, data: &Data, rows: &[usize]) -> Result<Self> {
        let outputs = run::outputs(network, params, &data.rows, rows)?;
        Ok(Self::new(&data.schema, &outputs, &data.rows, rows))
    }

    /// Compares `outputs [rows, n]` with the targets of these rows.
    pub(super) fn new(schema: &Schema, outputs: &[f32], data: &Encoded, rows: &[usize]) -> Self {
        let count = rows.len().max(1) as f64;
        match &schema.target {
            Target::Classes { labels, .. } => {
                let mut confusion = vec![vec![0; labels.len()]; labels.len()];
                let mut loss = 0.0;
                for (logits, row) in outputs.chunks_exact(labels.len()).zip(rows) {
                    let label = data.labels[*row] as usize;
                    loss -= log_softmax(logits)[label];
                    confusion[label][likeliest(logits)] += 1;
                }
                let right: usize = (0..labels.len()).map(|i| confusion[i][i]).sum();
                let classes = labels.iter().enumerate().map(|(i, label)| {
                    let taken: usize = confusion.iter().map(|row| row[i]).sum();
                    let rows = confusion[i].iter().sum();
                    let share = |of: usize| confusion[i][i] as f64 / of.max(1) as f64;
                    Class { label: label.clone(), precision: share(taken), recall: share(rows), rows }
                });
                let measures = Measures::Classes {
                    accuracy: right as f64 / count,
                    classes: classes.collect(),
                    confusion,
                };
                Self { rows: rows.len(), loss: loss / count, measures }
            }
            Target::Number { mean, std, .. } => {
                let (mean, std) = (f64::from(*mean), f64::from(*std));
                let target = |row: &usize| f64::from(data.targets[*row]);
                let centre = rows.iter().map(target).sum::<f64>() / count;
                let (mut squares, mut spread, mut distance) = (0.0, 0.0, 0.0);
                for (output, row) in outputs.iter().zip(rows) {
                    let error = f64::from(*output) * std + mean - target(row);
                    squares += error * error;
                    distance += error.abs();
                    spread += (target(row) - centre).powi(2);
                }
                let r2 = if spread > 0.0 { 1.0 - squares / spread } else { 0.0 };
                let measures =
                    Measures::Numbers { r2, mae: distance / count, rmse: (squares / count).sqrt() };
                Self { rows: rows.len(), loss: squares / count / (std * std), measures }
            }
        }
    }

    /// Accuracy, or R².
    pub fn score(&self) -> f64 {
        match self.measures {
            Measures::Classes { accuracy, .. } => accuracy,
            Measures::Numbers { r2, .. } => r2,
        }
    }
}

/// The index of the largest, the first of equals.
pub(super) fn likeliest(logits: &[f32]) -> usize {
    (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
}

/// log softmax, in f64.
pub(super) fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    let sum: f64 = logits.iter().map(|x| f64::from(x - most).exp()).sum();
    logits.iter().map(|x| f64::from(x - most) - sum.ln()).collect()
}
