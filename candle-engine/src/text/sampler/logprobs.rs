//! Log-probabilities of logits, summed in f64.

use super::filters::{self, Candidate};
use crate::{Error, Result};

/// The largest of `logits`.
///
/// Errors: `Input` if there are none, if one is NaN, or if all are -inf: then there is nothing to choose from.
pub(super) fn maximum(logits: &[f32]) -> Result<f32> {
    // Independent lanes, so that the compiler may use vectors: a single running maximum must be taken in order.
    const LANES: usize = 16;
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut nan = false;
    let chunks = logits.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
        nan |= chunk.iter().fold(false, |nan, x| nan | x.is_nan());
    }
    nan |= rest.iter().any(|x| x.is_nan());
    let max = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    if nan {
        let id = logits.iter().position(|x| x.is_nan()).unwrap_or_default();
        return Err(Error::Input(format!("the logit of token {id} is NaN")));
    }
    if max == f32::NEG_INFINITY {
        return Err(Error::Input(match logits.len() {
            0 => "there are no logits".to_owned(),
            n => format!("all {n} logits are -inf"),
        }));
    }
    Ok(max)
}

/// Computes probabilities' logarithms relative to a set of logits.
///
/// A logit of +inf takes all probability; several share it evenly.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogSoftmax {
    max: f32,
    log_sum: f64,
}

impl LogSoftmax {
    pub(super) fn new(max: f32, logits: impl Iterator<Item = f32>) -> Self {
        let log_sum = logits.map(|x| weight(x, max)).sum::<f64>().ln();
        Self { max, log_sum }
    }

    pub(super) fn of(&self, logit: f32) -> f64 {
        log_weight(logit, self.max) - self.log_sum
    }
}

/// The logarithm of [`weight`].
pub(super) fn log_weight(logit: f32, max: f32) -> f64 {
    match max == f32::INFINITY {
        true if logit == max => 0.0,
        true => f64::NEG_INFINITY,
        false => f64::from(logit) - f64::from(max),
    }
}

/// The probability of a logit relative to that of the largest one.
pub(super) fn weight(logit: f32, max: f32) -> f64 {
    log_weight(logit, max).exp()
}

/// Computes the log-probability of every token.
///
/// yᵢ = xᵢ - ln Σ exp(x)
///
/// Errors: `Input` as for [`top_logprobs`].
pub fn log_softmax(logits: &[f32]) -> Result<Vec<f64>> {
    let softmax = LogSoftmax::new(maximum(logits)?, logits.iter().copied());
    Ok(logits.iter().map(|&x| softmax.of(x)).collect())
}

/// Computes the log-probability of token `id`.
///
/// Errors: `Input` as for [`top_logprobs`], or if `id` is outside the vocabulary.
pub fn logprob(logits: &[f32], id: u32) -> Result<f64> {
    let softmax = LogSoftmax::new(maximum(logits)?, logits.iter().copied());
    match logits.get(id as usize) {
        Some(&x) => Ok(softmax.of(x)),
        None => Err(Error::Input(format!("token {id} is outside the vocabulary of {}", logits.len()))),
    }
}

/// Finds the `k` most probable tokens and their log-probabilities, best first; the lower id first where equal.
///
/// Errors: `Input` if a logit is NaN, or none is above -inf.
pub fn top_logprobs(logits: &[f32], k: usize) -> Result<Vec<(u32, f64)>> {
    let softmax = LogSoftmax::new(maximum(logits)?, logits.iter().copied());
    let mut best: Vec<Candidate> = Vec::new();
    filters::top_k(logits, k, &mut best);
    Ok(best.iter().map(|c| (c.id, softmax.of(c.logit))).collect())
}
