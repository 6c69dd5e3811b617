//! Smoothing: what a few inputs of a matrix have too much is moved from the activations into the weights.
//!
//! Input `i` of a matrix is divided by s and its column multiplied by s, so the product stays the same. The division
//! goes into what comes before: the norm's weight for q, k, v and for gate and up; the rows of up for down, since the
//! gate only multiplies them; the rows of v for o, since attention only mixes them.
//!
//! s = max|x|^α / max|w|^(1 − α), relative to the other inputs', as a power of two, so that nothing is rounded, and
//! only where it is 4 or more: where nothing stands out, nothing changes.
//!
//! Without a text the norms' weights tell which activations must be large.
//!
//! Source: SmoothQuant, <https://arxiv.org/abs/2211.10438>, section 4.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_engine::weights::Weights;
use candle_engine::{Error, Result};
use candle_engine_quantization::{Rows, Seen};

use crate::decoder::{DecoderConfig, TensorNames};

/// What a text showed of a model's activations, and what follows from it.
#[derive(Debug, Clone, Default)]
pub struct Calibration {
    /// Factors of the inputs of matrices, by their names without `.weight`.
    inputs: BTreeMap<String, Arc<[f32]>>,
    /// Factors of the outputs of matrices, so of their biases, and of norms.
    outputs: BTreeMap<String, Arc<[f32]>>,
    /// How much the error of each input weighs, after the factors.
    importance: BTreeMap<String, Arc<[f32]>>,
}

/// The share of the range that moves into the weights, by default.
pub const ALPHA: f32 = 0.5;
/// The least and the largest factor; so for their inverses.
const LEAST: f32 = 4.0;
const MOST: f32 = 1024.0;
/// A norm whose largest weight is less than this many times the median has no outliers.
const OUTLIER: f32 = 8.0;

impl Calibration {
    /// Computes factors from what was seen; `alpha` 0 is no smoothing.
    ///
    /// Errors: `MissingTensor`; `Input` if a matrix was not seen.
    pub fn new(
        seen: &BTreeMap<String, Seen>,
        alpha: f32,
        weights: &dyn Weights,
        names: &TensorNames,
        config: &DecoderConfig,
    ) -> Result<Self> {
        let mut all = Self::default();
        let d = &config.dims;
        for layer in 0..d.layers {
            let Layer { norms, q_k_v: [q, k, v], gate_up: [gate, up], o, down } = Layer::new(names, layer);
            if alpha > 0.0 {
                let same = |i: usize| i;
                let value_of =
                    |i: usize| i / d.head_dim / (d.heads / d.kv_heads) * d.head_dim + i % d.head_dim;
                let values = d.kv_heads * d.head_dim;
                let x = |name: &str| -> Result<Vec<f32>> { Ok(found(seen, name)?.most.clone()) };
                all.smooth(&x(&q)?, alpha, weights, &[&q, &k, &v], &norms[0], d.hidden, same)?;
                all.smooth(&x(&up)?, alpha, weights, &[&gate, &up], &norms[1], d.hidden, same)?;
                all.smooth(&x(&down)?, alpha, weights, &[&down], &up, d.ffn, same)?;
                all.smooth(&x(&o)?, alpha, weights, &[&o], &v, values, value_of)?;
            }
            for name in [q, k, v, gate, up, o, down] {
                let importance = all.weigh(found(seen, &name)?, &name);
                all.importance.insert(name, importance);
            }
        }
        Ok(all)
    }

    /// What can be known without a text: the activations after a norm are as large as its weights.
    ///
    /// Errors: `MissingTensor`.
    pub fn from_norms(weights: &dyn Weights, names: &TensorNames, config: &DecoderConfig) -> Result<Self> {
        let mut all = Self::default();
        for layer in 0..config.dims.layers {
            let Layer { norms, q_k_v: [q, k, v], gate_up: [gate, up], .. } = Layer::new(names, layer);
            let groups = [(&norms[0], &[&q, &k, &v][..]), (&norms[1], &[&gate, &up])];
            for (norm, matrices) in groups {
                let mut stored = weights.get(&format!("{norm}.weight"))?;
                stored.shape.insert(0, 1);
                let rows = Rows::new(&stored)?;
                let mut scales = vec![0.0; rows.shape().1];
                rows.read(0, &mut scales);
                scales.iter_mut().for_each(|x| *x = x.abs());
                let most = scales.iter().copied().fold(0.0, f32::max);
                if most > OUTLIER * median(scales.clone()) {
                    all.smooth(&scales, ALPHA, weights, matrices, norm, scales.len(), |i| i)?;
                }
            }
        }
        Ok(all)
    }

    /// Factors of a matrix's inputs.
    pub fn inputs(&self, name: &str) -> Option<Arc<[f32]>> {
        self.inputs.get(name).cloned()
    }

    /// Factors of a matrix's outputs, or of a norm.
    pub fn outputs(&self, name: &str) -> Option<Arc<[f32]>> {
        self.outputs.get(name).cloned()
    }

    /// How much the error of each input weighs.
    pub fn importance(&self, name: &str) -> Option<Arc<[f32]>> {
        self.importance.get(name).cloned()
    }

    /// Smooths matrices that share their inputs `x`; `before` makes them, input `i` from its output `from(i)`.
    #[allow(clippy::too_many_arguments)] // one relation, said once
    fn smooth(
        &mut self,
        x: &[f32],
        alpha: f32,
        weights: &dyn Weights,
        matrices: &[&String],
        before: &str,
        outputs: usize,
        from: impl Fn(usize) -> usize,
    ) -> Result<()> {
        let (mut most_x, mut most_w) = (vec![0f32; outputs], vec![0f32; outputs]);
        let mut inner = 0;
        for name in matrices {
            let stored = weights.get(&format!("{name}.weight"))?;
            let columns = Rows::new(&stored)?.column_maxima();
            inner = columns.len();
            if inner != x.len() {
                let (name, got) = (stored.name, stored.shape);
                return Err(Error::ShapeMismatch { name, expected: vec![got[0], x.len()], got });
            }
            for (i, (&w, &x)) in columns.iter().zip(x).enumerate() {
                most_x[from(i)] = most_x[from(i)].max(x);
                most_w[from(i)] = most_w[from(i)].max(w);
            }
        }
        let factors = factors(&most_x, &most_w, alpha);
        if factors.iter().all(|&s| s == 1.0) {
            return Ok(());
        }
        for name in matrices {
            self.inputs.insert((*name).clone(), (0..inner).map(|i| factors[from(i)]).collect());
        }
        self.outputs.insert(before.into(), factors.iter().map(|s| 1.0 / s).collect());
        Ok(())
    }

    /// The mean square of each input, relative to that of all.
    fn weigh(&self, seen: &Seen, name: &str) -> Arc<[f32]> {
        let factor = |i: usize| self.inputs.get(name).map_or(1.0, |factors| f64::from(factors[i]));
        let energy: Vec<f64> = seen.energy.iter().enumerate().map(|(i, e)| e / factor(i).powi(2)).collect();
        let mean = energy.iter().sum::<f64>() / energy.len() as f64;
        // An input that was always 0 may still come with another text.
        energy.iter().map(|e| (e / mean.max(f64::MIN_POSITIVE)).max(1e-3) as f32).collect()
    }
}

fn found<'a>(seen: &'a BTreeMap<String, Seen>, name: &str) -> Result<&'a Seen> {
    seen.get(name).ok_or_else(|| Error::Input(format!("{name}: the calibration text did not reach it")))
}

/// The names of a layer's parts.
struct Layer {
    norms: [String; 2],
    q_k_v: [String; 3],
    gate_up: [String; 2],
    o: String,
    down: String,
}

impl Layer {
    fn new(names: &TensorNames, layer: usize) -> Self {
        let (p, name) = (&names.parts, |part: &str| names.part(layer, part));
        Self {
            norms: [p.attn_norm, p.mlp_norm].map(name),
            q_k_v: [p.q_proj, p.k_proj, p.v_proj].map(name),
            gate_up: [p.gate_proj, p.up_proj].map(name),
            o: name(p.o_proj),
            down: name(p.down_proj),
        }
    }
}

/// Powers of two for what stands out, 1 for the rest.
fn factors(most_x: &[f32], most_w: &[f32], alpha: f32) -> Vec<f32> {
    let logs = most_x.iter().zip(most_w).map(|(&x, &w)| match x > 0.0 && w > 0.0 {
        true => alpha * x.log2() - (1.0 - alpha) * w.log2(),
        false => f32::NAN,
    });
    let logs: Vec<f32> = logs.collect();
    let middle = median(logs.iter().copied().filter(|log| log.is_finite()).collect());
    let factor = |log: f32| match (log - middle).round() {
        s if s.abs() >= LEAST.log2() => s.exp2().clamp(1.0 / MOST, MOST),
        _ => 1.0,
    };
    logs.into_iter().map(|log| if log.is_finite() { factor(log) } else { 1.0 }).collect()
}

/// The middle of some numbers, and 0 of none.
fn median(mut numbers: Vec<f32>) -> f32 {
    numbers.sort_by(f32::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_powers_of_two_that_follow_the_outliers() {
        let s = factors(&[1.0, 1.5, 100.0, 1.0, 0.0], &[1.0; 5], 0.5);
        assert_eq!(s, [1.0, 1.0, 8.0, 1.0, 1.0]);
        assert_eq!(factors(&[1.0, 100.0, 1.0], &[1.0, 0.01, 1.0], 0.5), [1.0, 128.0, 1.0]);
        assert_eq!(factors(&[1.0, 1e9, 1.0], &[1.0; 3], 1.0)[1], MOST);
    }
}
