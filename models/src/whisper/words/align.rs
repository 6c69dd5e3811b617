//! When each word was said: where the cross-attention of some heads looks.
//!
//! Source: `find_alignment` of openai-whisper.

use candle_engine::kv::Batch;
use candle_engine::ops::to_rows;
use candle_engine::Result;

use super::super::config::FRAMES_PER_POSITION;
use super::super::probability::log_total;
use super::super::recording::FRAMES_PER_SECOND;
use super::super::{Memory, Seen, Whisper};
use super::dtw::{dtw, median_filter};
use super::split::split;

/// A word in its window, before punctuation is joined to it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Timing {
    pub word: String,
    pub tokens: Vec<u32>,
    /// Seconds since the window began.
    pub start: f64,
    pub end: f64,
    pub probability: f64,
}

/// Aligns text with a window of `frames` frames of sound. `start` is what begins the transcript.
///
/// Errors: the model's and the tokenizer's.
pub(super) fn align(
    model: &Whisper,
    memory: &Memory,
    language: &str,
    start: &[u32],
    text: &[u32],
    frames: usize,
) -> Result<Vec<Timing>> {
    let tokens = model.tokens()?;
    let positions = frames / FRAMES_PER_POSITION;
    if text.is_empty() || positions == 0 {
        return Ok(Vec::new());
    }
    let mut feed = start.to_vec();
    feed.push(tokens.no_timestamps);
    feed.extend_from_slice(text);
    feed.push(tokens.eot);
    // From the token before the text on: what the model thinks of each of its tokens.
    let first = start.len();
    let mut kv = model.decoder().new_cache();
    let mut batch = Batch::default();
    batch.push_wanting(&feed, &mut kv, first..first + text.len())?;
    let mut matrix = Matrix::new(feed.len(), model.config().encoder.positions, positions);
    let logits = model.decoder().forward_with(&mut batch, &[memory], &mut |seen| {
        if let Seen::Queries(layer, q) = seen {
            for &(_, head) in model.alignment_heads().iter().filter(|(l, _)| *l == layer) {
                matrix.add(model.decoder().scores(layer, head, q, memory)?);
            }
        }
        Ok(())
    })?;
    let logits = to_rows(&logits)?;
    let of_text = |row: &Vec<f32>, id: u32| -> Result<f64> {
        let total = log_total(&row[..tokens.eot as usize])?;
        Ok((f64::from(row[id as usize]) - total).exp())
    };
    let probabilities: Vec<f64> =
        logits.iter().zip(text).map(|(row, &id)| of_text(row, id)).collect::<Result<_>>()?;

    // When the path comes to each token of the text, and to the end.
    let mut times: Vec<f64> = Vec::with_capacity(text.len() + 1);
    for (row, position) in matrix.path(first..feed.len() - 1) {
        if row == times.len() {
            times.push((position * FRAMES_PER_POSITION) as f64 / FRAMES_PER_SECOND as f64);
        }
    }
    let mut with_end = text.to_vec();
    with_end.push(tokens.eot);
    let mut words = split(tokens, language, &with_end)?;
    // The end is none.
    words.pop();
    let mut timings = Vec::new();
    let mut at = 0;
    for (word, ids) in words {
        let (from, to) = (at, at + ids.len());
        at = to;
        let probability = probabilities[from..to].iter().sum::<f64>() / ids.len() as f64;
        timings.push(Timing { word, tokens: ids, start: times[from], end: times[to], probability });
    }
    Ok(timings)
}

/// What the heads look at, made comparable and added up.
struct Matrix {
    rows: usize,
    /// Positions in the window, and those of them that hold sound.
    width: usize,
    columns: usize,
    sums: Vec<f64>,
    heads: usize,
}

impl Matrix {
    fn new(rows: usize, width: usize, columns: usize) -> Self {
        let columns = columns.min(width);
        Self { rows, width, columns, sums: vec![0.0; rows * columns], heads: 0 }
    }

    /// Adds a head's scores `[rows, width]`: their softmax, each position relative to its mean over the rows and in
    /// units of its deviation, smoothed.
    fn add(&mut self, scores: Vec<f32>) {
        let (rows, columns) = (self.rows, self.columns);
        let mut weights = Vec::with_capacity(rows * columns);
        for row in scores.chunks_exact(self.width) {
            let row = &row[..columns];
            let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let first = weights.len();
            weights.extend(row.iter().map(|x| (x - most).exp()));
            let total: f32 = weights[first..].iter().sum();
            weights[first..].iter_mut().for_each(|w| *w /= total);
        }
        for column in 0..columns {
            let of = |row: usize| f64::from(weights[row * columns + column]);
            let mean = (0..rows).map(of).sum::<f64>() / rows as f64;
            let variance = (0..rows).map(|row| (of(row) - mean).powi(2)).sum::<f64>() / rows as f64;
            // A position at which no row looks more than another says nothing.
            let scale = if variance > 0.0 { variance.sqrt().recip() } else { 0.0 };
            for row in 0..rows {
                let weight = &mut weights[row * columns + column];
                *weight = ((f64::from(*weight) - mean) * scale) as f32;
            }
        }
        weights.chunks_exact_mut(columns).for_each(median_filter);
        for (sum, weight) in self.sums.iter_mut().zip(weights) {
            *sum += f64::from(weight);
        }
        self.heads += 1;
    }

    /// The way through some rows along what is looked at most; rows are counted from the first of them.
    fn path(&self, rows: std::ops::Range<usize>) -> Vec<(usize, usize)> {
        let scale = 1.0 / self.heads.max(1) as f64;
        let sums = &self.sums[rows.start * self.columns..rows.end * self.columns];
        let costs: Vec<f64> = sums.iter().map(|sum| -sum * scale).collect();
        dtw(&costs, self.columns)
    }
}
