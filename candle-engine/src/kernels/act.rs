//! Activation functions of gated and plain MLPs.
//!
//! Written in operations that round the same in every instruction set, and without branches, so that the
//! compiler vectorizes them inside any kernel and an element's value does not depend on its place.

/// An activation function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// x · σ(x)
    Silu,
    /// x · Φ(x), Φ the normal distribution
    Gelu,
    /// Gelu with `tanh` for Φ
    GeluTanh,
    /// max(x, 0)
    Relu,
}

impl Act {
    /// The function at one point.
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
            gate.iter_mut().zip(up).for_each(|(g, u)| *g = f(*g) * u);
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
fn relu(x: f32) -> f32 {
    // Not `max`, which would lose NaN.
    if x < 0.0 {
        0.0
    } else {
        x
    }
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// 0.5 · x · (1 + tanh(√(2/π) · (x + 0.044715 · x³))), where 0.5 · (1 + tanh(z)) = σ(2z).
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    /// 2 · √(2/π)
    const SCALE: f32 = 1.595_769_2;
    let z = SCALE * (x + 0.044_715 * (x * x * x));
    x / (1.0 + exp(-z))
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    // Φ(x) = 1 - erfc(|x|/√2)/2 for x ≥ 0 and erfc(|x|/√2)/2 below: no cancellation in the tail.
    let half = 0.5 * erfc(x.abs() * std::f32::consts::FRAC_1_SQRT_2);
    let phi = if x < 0.0 { half } else { 1.0 - half };
    x * phi
}

/// erfc(z) for z ≥ 0, absolute error below 3e-7.
///
/// Source: Abramowitz and Stegun, formula 7.1.26.
#[inline(always)]
fn erfc(z: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let p = t * (0.254_829_6 + t * (-0.284_496_74 + t * (1.421_413_7 + t * (-1.453_152 + t * 1.061_405_4))));
    p * exp(-z * z)
}

/// e^x, relative error below 3e-7 where the result is normal; 0 below, ∞ above, NaN for NaN.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2; e^r by its Taylor polynomial of degree 7 (remainder < 6e-9).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// Adding 1.5 · 2^23 leaves the rounded integer in the low bits of the significand.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts, the first with few enough bits that n times it is exact (Cody and Waite).
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Outside, the result is 0 or ∞; NaN passes both comparisons by.
    let clamped = if x < -104.0 { -104.0 } else { x };
    let clamped = if clamped > 89.0 { 89.0 } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    let p = 1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0));
    let p = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * p))));
    // 2^n in two factors, since n reaches -150 and 128.
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let low = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    p * power(low) * power(n.wrapping_sub(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_everywhere() {
        for i in -110_000..100_000 {
            let x = i as f32 * 1e-3;
            let (got, expected) = (exp(x) as f64, (x as f64).exp());
            if expected > f32::MAX as f64 {
                assert_eq!(got, f64::INFINITY, "{x}");
            } else {
                let bound = 3e-7 * expected + 1.5e-45;
                assert!((got - expected).abs() <= bound, "{x}: {got} for {expected}");
            }
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn activations_match_their_definitions() {
        for i in -12_000..=12_000 {
            let x = i as f32 * 1e-3;
            let d = x as f64;
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (d + 0.044715 * d * d * d);
            let cases = [
                (Act::Silu, d / (1.0 + (-d).exp())),
                (Act::GeluTanh, 0.5 * d * (1.0 + inner.tanh())),
                (Act::Gelu, 0.5 * d * candle_core::cpu::erf::erf_f64(d / 2f64.sqrt()) + 0.5 * d),
                (Act::Relu, d.max(0.0)),
            ];
            for (act, expected) in cases {
                let got = act.apply(x) as f64;
                assert!(
                    (got - expected).abs() <= 5e-7 * (1.0 + d.abs()),
                    "{act:?}({x}): {got} for {expected}"
                );
            }
        }
    }

    #[test]
    fn extreme_values_stay_what_they_are() {
        for act in [Act::Silu, Act::Gelu, Act::GeluTanh, Act::Relu] {
            assert!(act.apply(f32::NAN).is_nan(), "{act:?}");
            assert_eq!(act.apply(f32::INFINITY), f32::INFINITY, "{act:?}");
            assert_eq!(act.apply(1e30), 1e30, "{act:?}");
            assert_eq!(act.apply(-1e30), 0.0, "{act:?}");
        }
    }
}
