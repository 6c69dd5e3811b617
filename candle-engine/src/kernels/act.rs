//! Activations, softmax and sums, element by element.
//!
//! Activations are computed in `Plain` arithmetic, without branches: the compiler vectorizes them inside
//! any kernel, and a value is the same on every level and wherever it stands.

use super::lanes::{max, per_isa, sum, Arith, Plain};
use super::math::{exp, normal_cdf, sigmoid};
use super::rows::{parallel_rows_mut, TASK};
use super::threads::parallel_chunks;
use super::Isa;

/// An activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// x · σ(x), σ the logistic function
    Silu,
    /// x · Φ(x), Φ the normal distribution: `gelu` in checkpoints
    Gelu,
    /// x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))): `gelu_new`, `gelu_pytorch_tanh`
    GeluTanh,
    /// max(x, 0)
    Relu,
}

impl Act {
    /// The function at one point, within 5e-7 · max(1, |y|).
    #[inline(always)]
    pub fn apply(self, x: f32) -> f32 {
        match self {
            Self::Silu => silu(x),
            Self::Gelu => gelu(x),
            Self::GeluTanh => gelu_tanh(x),
            Self::Relu => relu(x),
        }
    }

    /// gate = act(gate) · up
    #[inline(always)]
    pub(crate) fn gate(self, gate: &mut [f32], up: &[f32]) {
        #[inline(always)]
        fn each(gate: &mut [f32], up: &[f32], f: impl Fn(f32) -> f32) {
            gate.iter_mut().zip(up).for_each(|(gate, up)| *gate = f(*gate) * up);
        }
        // One loop for each function: the choice is made once.
        match self {
            Self::Silu => each(gate, up, silu),
            Self::Gelu => each(gate, up, gelu),
            Self::GeluTanh => each(gate, up, gelu_tanh),
            Self::Relu => each(gate, up, relu),
        }
    }
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x * sigmoid(Plain, x)
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    x * normal_cdf(Plain, x)
}

/// (1 + tanh u) / 2 is the logistic function of 2u.
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    /// 2 · √(2/π)
    const SCALE: f32 = 1.595_769_2;
    x * sigmoid(Plain, SCALE * (x + 0.044_715 * (x * x * x)))
}

#[inline(always)]
fn relu(x: f32) -> f32 {
    // Not `max`, which would lose a NaN.
    if x < 0.0 {
        0.0
    } else {
        x
    }
}

/// Runs `f(first element, elements)` on tasks of [`TASK`] elements.
fn parallel_elements(out: &mut [f32], f: impl Fn(usize, &mut [f32]) + Sync) {
    parallel_chunks(out, TASK, |i, out| f(i * TASK, out));
}

/// Applies an activation in place.
pub fn activate(act: Act, x: &mut [f32]) {
    activate_on(Isa::best(), act, x);
}

fn activate_on(isa: Isa, act: Act, x: &mut [f32]) {
    #[inline(always)]
    fn each(x: &mut [f32], f: impl Fn(f32) -> f32) {
        x.iter_mut().for_each(|x| *x = f(*x));
    }
    #[inline(always)]
    fn kernel(_: impl Arith, act: Act, x: &mut [f32]) {
        match act {
            Act::Silu => each(x, silu),
            Act::Gelu => each(x, gelu),
            Act::GeluTanh => each(x, gelu_tanh),
            Act::Relu => each(x, relu),
        }
    }
    parallel_elements(x, |_, x| per_isa!(isa, kernel, (act: Act, x: &mut [f32])));
}

/// The gated activation of a Llama-style MLP, over its gates.
///
/// gate = act(gate) · up
///
/// Shapes: `gate`, `up [n]`.
pub fn act_mul(act: Act, gate: &mut [f32], up: &[f32]) {
    act_mul_on(Isa::best(), act, gate, up);
}

/// [`act_mul`] on a level.
pub(super) fn act_mul_on(isa: Isa, act: Act, gate: &mut [f32], up: &[f32]) {
    #[inline(always)]
    fn kernel(_: impl Arith, act: Act, gate: &mut [f32], up: &[f32]) {
        act.gate(gate, up);
    }
    assert_eq!(gate.len(), up.len(), "act_mul: gate and up");
    parallel_elements(gate, |first, gate| {
        let up = &up[first..][..gate.len()];
        per_isa!(isa, kernel, (act: Act, gate: &mut [f32], up: &[f32]));
    });
}

/// x += y
pub fn add(x: &mut [f32], y: &[f32]) {
    add_on(Isa::best(), x, y);
}

fn add_on(isa: Isa, x: &mut [f32], y: &[f32]) {
    #[inline(always)]
    fn kernel(_: impl Arith, x: &mut [f32], y: &[f32]) {
        for (x, &y) in x.iter_mut().zip(y) {
            *x += y;
        }
    }
    assert_eq!(x.len(), y.len(), "add: x and y");
    parallel_elements(x, |first, x| {
        let y = &y[first..][..x.len()];
        per_isa!(isa, kernel, (x: &mut [f32], y: &[f32]));
    });
}

/// Softmax of each row, in place.
///
/// y = e^(x − max x) / Σ e^(x − max x)
///
/// Shapes: `x [rows, n]`. The sum is f32 in the lane order of `lanes::sum`. A row without any number
/// above −∞ becomes NaN.
pub fn softmax(x: &mut [f32], n: usize) {
    softmax_on(Isa::best(), x, n);
}

fn softmax_on(isa: Isa, x: &mut [f32], n: usize) {
    #[inline(always)]
    fn kernel(arith: impl Arith, x: &mut [f32], n: usize) {
        for row in x.chunks_exact_mut(n) {
            let max = max(row);
            for x in &mut *row {
                *x = exp(arith, *x - max);
            }
            let scale = 1.0 / sum(row, |x, sum| sum + x);
            for x in row {
                *x *= scale;
            }
        }
    }
    parallel_rows_mut(x, n, |_, x| per_isa!(isa, kernel, (x: &mut [f32], n: usize)));
}

/// The largest number, −∞ of none; a NaN may be passed over.
pub fn largest(x: &[f32]) -> f32 {
    #[inline(always)]
    fn kernel(_: impl Arith, x: &[f32]) -> f32 {
        max(x)
    }
    per_isa!(Isa::best(), kernel, (x: &[f32]) -> f32)
}

/// ln Σ e^x within 1e-6, on the calling thread; −∞ of none. NaN if `x` holds one or a +∞, or nothing but −∞.
pub fn log_sum_exp(x: &[f32]) -> f64 {
    log_sum_exp_on(Isa::best(), x)
}

fn log_sum_exp_on(isa: Isa, x: &[f32]) -> f64 {
    #[inline(always)]
    fn kernel(arith: impl Arith, x: &[f32]) -> f64 {
        let max = max(x);
        f64::from(max) + f64::from(sum(x, |x, sum| sum + exp(arith, x - max))).ln()
    }
    per_isa!(isa, kernel, (x: &[f32]) -> f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{assert_close, extremes, numbers, LENGTHS, OFFSETS};

    const ACTS: [Act; 4] = [Act::Silu, Act::Gelu, Act::GeluTanh, Act::Relu];

    /// Φ by the trapezoidal rule.
    fn normal_cdf(x: f64) -> f64 {
        const STEPS: i32 = 2000;
        if x.abs() > 9.0 {
            return f64::from(u8::from(x > 0.0));
        }
        let step = x / f64::from(STEPS);
        let density = |i: i32| (-(f64::from(i) * step).powi(2) / 2.0).exp();
        let inner: f64 = (1..STEPS).map(density).sum();
        0.5 + step * (inner + (density(0) + density(STEPS)) / 2.0) / std::f64::consts::TAU.sqrt()
    }

    fn naive(act: Act, x: f32) -> f32 {
        let x = f64::from(x);
        let y = match act {
            Act::Silu => x / (1.0 + (-x).exp()),
            Act::Gelu => x * normal_cdf(x),
            Act::GeluTanh => {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                // (1 + tanh u) / 2, without the cancellation.
                x / (1.0 + (-2.0 * u).exp())
            }
            Act::Relu => x.max(0.0),
        };
        y as f32
    }

    #[test]
    fn every_level_agrees_with_the_definition() {
        for isa in Isa::available() {
            for n in LENGTHS.chain([1000]) {
                for offset in OFFSETS {
                    let mut x = extremes(n as u64, n + offset);
                    let up = numbers(9, n + offset);
                    let (x, up) = (&mut x[offset..], &up[offset..]);
                    for act in ACTS {
                        let want: Vec<f32> = x.iter().map(|&x| naive(act, x)).collect();
                        let at = format!("{isa} {act:?} n {n} offset {offset}");
                        let mut y = x.to_vec();
                        activate_on(isa, act, &mut y);
                        assert_close(&y, &want, 5e-7, &at);
                        let points: Vec<f32> = x.iter().map(|&x| act.apply(x)).collect();
                        assert_close(&y, &points, 0.0, &at);
                        let mut out = x.to_vec();
                        act_mul_on(isa, act, &mut out, up);
                        let want: Vec<f32> = y.iter().zip(up).map(|(y, up)| y * up).collect();
                        assert_close(&out, &want, 0.0, &at);
                    }
                    let want: Vec<f32> = x.iter().zip(up).map(|(x, y)| x + y).collect();
                    add_on(isa, x, up);
                    assert_close(x, &want, 0.0, isa);
                }
            }
        }
    }

    #[test]
    fn a_nan_stays() {
        for isa in Isa::available() {
            for act in ACTS {
                let mut x = [1.0, f32::NAN, -1.0];
                activate_on(isa, act, &mut x);
                assert_eq!(x.map(f32::is_nan), [false, true, false], "{isa} {act:?}");
            }
        }
    }

    #[test]
    fn softmax_agrees_with_the_definition() {
        for isa in Isa::available() {
            for n in LENGTHS.skip(1).chain([1000]) {
                let mut x: Vec<f32> = numbers(n as u64, 3 * n).iter().map(|x| x * 30.0).collect();
                x[n - 1] = 80.0;
                if n > 1 {
                    x[n] = f32::NEG_INFINITY;
                }
                let naive = |row: &[f32]| {
                    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let weights: Vec<f64> = row.iter().map(|x| f64::from(x - max).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    weights.into_iter().map(move |w| (w / total) as f32).collect::<Vec<_>>()
                };
                let want: Vec<f32> = x.chunks_exact(n).flat_map(naive).collect();
                softmax_on(isa, &mut x, n);
                assert_close(&x, &want, 5e-7, format!("{isa} n {n}"));
            }
        }
    }

    #[test]
    fn log_sum_exp_agrees_with_the_definition() {
        for isa in Isa::available() {
            for n in [1, 7, 64, 1000] {
                let x: Vec<f32> = numbers(n as u64, n).iter().map(|x| 20.0 * x).collect();
                let want = x.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
                assert!((log_sum_exp_on(isa, &x) - want).abs() < 1e-5, "{isa} {n}");
            }
            assert_eq!(log_sum_exp_on(isa, &[f32::NEG_INFINITY, 3.0]), 3.0);
            assert_eq!(log_sum_exp_on(isa, &[]), f64::NEG_INFINITY);
            for wrong in [&[f32::NAN, 1.0][..], &[f32::NEG_INFINITY; 3], &[f32::INFINITY, 0.0]] {
                assert!(log_sum_exp_on(isa, wrong).is_nan(), "{isa} {wrong:?}");
            }
        }
    }
}
