//! Elementary functions without branches, so that a loop over them becomes vector code.
//!
//! The polynomials were fitted for this project by Lawson-weighted least squares on relative error.

use super::lanes::Arith;
#[cfg(target_arch = "x86_64")]
use super::lanes::Avx512;

/// eˣ, within 2 ULP of the true value (half the smallest subnormal below the normal range); 1 at 0,
/// 0 at −∞ and below −104, ∞ above 88.73; NaN stays NaN.
///
/// x = n · ln 2 + r with |r| ≤ ln 2 / 2, eˣ = 2ⁿ · (1 + r + r² · p(r)).
#[inline(always)]
pub(crate) fn exp(arith: impl Arith, x: f32) -> f32 {
    // Comparisons that a NaN fails leave it in place.
    let x = if x < LOWEST { LOWEST } else { x };
    let x = if x > HIGHEST { HIGHEST } else { x };
    let (y, n) = exp_parts(arith, x);
    // 2ⁿ in two halves: n itself runs from −152 to 128, beyond what an exponent holds.
    let half = n >> 1;
    y * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// y and n, where eˣ = y · 2ⁿ.
#[inline(always)]
fn exp_parts(arith: impl Arith, x: f32) -> (f32, i32) {
    let rounded = arith.mul_add(x, std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = arith.mul_add(n, -LN2.1, arith.mul_add(n, -LN2.0, x));
    let mut p = EXP[0];
    for c in &EXP[1..] {
        p = arith.mul_add(r, p, *c);
    }
    let y = arith.mul_add(p, r * r, r) + 1.0;
    (y, (rounded.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32))
}

/// Beyond these eˣ is 0 or infinity.
const LOWEST: f32 = -105.0;
const HIGHEST: f32 = 89.0;
/// Adding it rounds to an integer, which then stands in the low bits: 1.5 · 2²³.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts (Cody and Waite): the first has 9 bits, so that n times it is exact.
const LN2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
/// p, from its highest power on: 5e-2 · 2⁻²⁴ from the true function.
const EXP: [f32; 5] = [0.001_381_446_5, 0.008_368_781, 0.041_668_393, 0.166_665_2, 0.499_999_94];

/// Where eˣ is still a normal number: Intel's CPUs take a hundred cycles for an instruction whose result isn't.
const LOWEST_NORMAL: f32 = -87.0;

/// x = eˣ of each, none of which is above 0: to the bit as [`exp`], but 0 below -87. NaN stays NaN.
#[inline(always)]
pub(crate) fn softmax_exp(arith: impl Arith, x: &mut [f32]) {
    for x in x {
        let (y, n) = exp_parts(arith, if *x < LOWEST_NORMAL { LOWEST_NORMAL } else { *x });
        *x = if *x < LOWEST_NORMAL { 0.0 } else { y * power_of_two(n) };
    }
}

/// [`softmax_exp`] with the instruction that multiplies by 2ⁿ: half of the instructions.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn softmax_exp_512(arith: Avx512, x: &mut [f32]) {
    use std::arch::x86_64::*;
    let (registers, rest) = x.as_chunks_mut::<16>();
    for x in registers {
        // SAFETY: sixteen numbers; `arith` proves the features.
        unsafe {
            let v = _mm512_loadu_ps(x.as_ptr());
            let normal = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(v, _mm512_set1_ps(LOWEST_NORMAL));
            let round = _mm512_set1_ps(ROUND);
            let n = _mm512_fmadd_ps(v, _mm512_set1_ps(std::f32::consts::LOG2_E), round);
            let n = _mm512_sub_ps(n, round);
            let r = _mm512_fmadd_ps(n, _mm512_set1_ps(-LN2.0), v);
            let r = _mm512_fmadd_ps(n, _mm512_set1_ps(-LN2.1), r);
            let mut p = _mm512_set1_ps(EXP[0]);
            for c in &EXP[1..] {
                p = _mm512_fmadd_ps(r, p, _mm512_set1_ps(*c));
            }
            let y = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r);
            let y = _mm512_add_ps(y, _mm512_set1_ps(1.0));
            _mm512_storeu_ps(x.as_mut_ptr(), _mm512_maskz_scalef_ps(normal, y, n));
        }
    }
    softmax_exp(arith, rest);
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// 1 / (1 + e⁻ˣ), within 4 ULP where it is not subnormal.
#[inline(always)]
pub(crate) fn sigmoid(arith: impl Arith, x: f32) -> f32 {
    1.0 / (1.0 + exp(arith, -x))
}

/// tanh x, within 2⁻²² (absolute).
#[inline(always)]
pub(crate) fn tanh(arith: impl Arith, x: f32) -> f32 {
    1.0 - 2.0 / (1.0 + exp(arith, 2.0 * x))
}

/// The normal distribution Φ(x) = erfc(−x / √2) / 2, within 2⁻²¹ (absolute).
///
/// erfc(z) = e^(−z²) · t · p(t) for z ≥ 0, with t = 1 / (1 + 0.4 z).
#[inline(always)]
pub(crate) fn normal_cdf(arith: impl Arith, x: f32) -> f32 {
    // 0.15 · 2⁻²⁴ from the true function, up to z = 10.5.
    const P: [f32; 10] = [
        0.225_703_67,
        0.225_015_25,
        0.214_390_9,
        0.132_155_64,
        0.264_876_25,
        -0.270_927_85,
        0.531_232_4,
        -0.486_632_88,
        0.192_823_74,
        -0.028_637_161,
    ];
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / arith.mul_add(z, 0.4, 1.0);
    let mut p = P[9];
    for i in (0..9).rev() {
        p = arith.mul_add(p, t, P[i]);
    }
    let tail = 0.5 * t * p * exp(arith, -z * z);
    if x < 0.0 {
        tail
    } else {
        1.0 - tail
    }
}

/// log₁₀ x of a positive normal number, within 2⁻²² of itself or of 1 where that is more; 38.53 at ∞.
#[inline(always)]
pub(crate) fn log10(arith: impl Arith, x: f32) -> f32 {
    let (n, ln_m) = log_parts(arith, x);
    arith.mul_add(n, std::f32::consts::LOG10_2, ln_m * std::f32::consts::LOG10_E)
}

/// ln x of a positive normal number, within 2⁻²² of itself or of 1 where that is more; 88.72 at ∞.
#[inline(always)]
pub(crate) fn ln(arith: impl Arith, x: f32) -> f32 {
    let (n, ln_m) = log_parts(arith, x);
    arith.mul_add(n, std::f32::consts::LN_2, ln_m)
}

/// n and ln m, where x = 2ⁿ · m with m from √½ to √2.
///
/// ln m = 2 artanh(s) with s = (m − 1) / (m + 1), by its series.
#[inline(always)]
fn log_parts(arith: impl Arith, x: f32) -> (f32, f32) {
    const SQRT_HALF: i32 = std::f32::consts::FRAC_1_SQRT_2.to_bits() as i32;
    let bits = (x.to_bits() as i32).wrapping_sub(SQRT_HALF);
    let n = bits >> 23;
    let m = f32::from_bits(((bits & 0x7f_ffff) + SQRT_HALF) as u32);
    let s = (m - 1.0) / (m + 1.0);
    // |s| ≤ 0.172: the next term is below 2⁻³⁰.
    let z = s * s;
    let p = arith.mul_add(z, 2.0 / 9.0, 2.0 / 7.0);
    let p = arith.mul_add(z, p, 2.0 / 5.0);
    let p = arith.mul_add(z, p, 2.0 / 3.0);
    (n as f32, s * arith.mul_add(z, p, 2.0))
}

#[cfg(test)]
mod tests {
    use super::super::lanes::{per_isa, Arith};
    use crate::kernels::Isa;

    macro_rules! over_slice {
        ($name:ident, $function:path) => {
            fn $name(isa: Isa, x: &[f32]) -> Vec<f32> {
                #[inline(always)]
                fn kernel(arith: impl Arith, x: &[f32], y: &mut [f32]) {
                    for (y, &x) in y.iter_mut().zip(x) {
                        *y = $function(arith, x);
                    }
                }
                let mut out = vec![0.0; x.len()];
                let y = &mut out[..];
                per_isa!(isa, kernel, (x: &[f32], y: &mut [f32]));
                out
            }
        };
    }
    over_slice!(exp, super::exp);
    over_slice!(sigmoid, super::sigmoid);
    over_slice!(tanh, super::tanh);
    over_slice!(normal_cdf, super::normal_cdf);
    over_slice!(log10, super::log10);
    over_slice!(ln, super::ln);

    /// Every 997th float of either sign.
    fn dense() -> impl Iterator<Item = Vec<f32>> {
        let bits: Vec<u32> = (0..=u32::MAX).step_by(997).collect();
        let chunks: Vec<_> =
            bits.chunks(1 << 12).map(|c| c.iter().map(|&b| f32::from_bits(b)).collect()).collect();
        chunks.into_iter()
    }

    /// Distance in units of the last place of the true value (of the smallest subnormal near zero).
    fn ulps(got: f32, want: f64) -> f64 {
        let nearest = want as f32;
        if got == nearest || got.is_nan() && want.is_nan() {
            return 0.0;
        }
        let exponent = want.abs().log2().floor().max(-126.0);
        (f64::from(got) - want).abs() / (exponent - 23.0).exp2()
    }

    #[test]
    fn exp_is_within_two_ulp() {
        for isa in Isa::available() {
            let mut worst: (f64, f32) = (0.0, 0.0);
            for x in dense() {
                for (x, y) in x.iter().zip(exp(isa, &x)) {
                    let error = ulps(y, f64::from(*x).exp());
                    if error.is_nan() || error > worst.0 {
                        worst = (error, *x);
                    }
                }
            }
            println!("{isa}: exp {:.3} ULP at {:e}", worst.0, worst.1);
            assert!(worst.0 <= 2.0, "{isa}: {worst:?}");
        }
    }

    #[test]
    fn exp_of_special_values() {
        for isa in Isa::available() {
            let y = exp(isa, &[0.0, -0.0, f32::NEG_INFINITY, f32::INFINITY, f32::MIN, f32::MAX, f32::NAN]);
            assert_eq!(y[..6], [1.0, 1.0, 0.0, f32::INFINITY, 0.0, f32::INFINITY], "{isa}");
            assert!(y[6].is_nan(), "{isa}");
        }
    }

    #[test]
    fn exp_of_a_softmax_is_exp_or_nothing() {
        #[inline(always)]
        fn kernel(arith: impl Arith, x: &mut [f32]) {
            arith.softmax_exp(x);
        }
        let below = dense().flatten().filter(|x| *x <= 0.0);
        let x: Vec<f32> =
            below.chain([0.0, -0.0, -87.0, -87.000_01, -200.0, f32::NEG_INFINITY, f32::MIN]).collect();
        for isa in Isa::available() {
            for len in [x.len(), 1, 15, 17] {
                let x = &x[x.len() - len..];
                let (mut y, want) = (x.to_vec(), exp(isa, x));
                let to = &mut y[..];
                per_isa!(isa, kernel, (to: &mut [f32]));
                for ((y, want), x) in y.iter().zip(want).zip(x) {
                    assert_eq!(*y, if *x < -87.0 { 0.0 } else { want }, "{isa}: {x:e}");
                }
            }
            let mut nan = [f32::NAN; 17];
            let to = &mut nan[..];
            per_isa!(isa, kernel, (to: &mut [f32]));
            assert!(nan.iter().all(|x| x.is_nan()), "{isa}");
        }
    }

    /// Φ(x) = 1/2 + φ(x) · Σ x^(2k+1) / (2k+1)!!, whose terms have one sign.
    fn true_normal_cdf(x: f64) -> f64 {
        if x.abs() > 9.0 {
            return f64::from(u8::from(x > 0.0));
        }
        let (mut term, mut sum) = (x, x);
        for k in 1..400 {
            term *= x * x / f64::from(2 * k + 1);
            sum += term;
        }
        0.5 + sum * (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt()
    }

    #[test]
    fn the_others_keep_their_bounds() {
        for isa in Isa::available() {
            for x in dense() {
                let results = sigmoid(isa, &x).into_iter().zip(tanh(isa, &x)).zip(normal_cdf(isa, &x));
                for (&x, ((s, t), n)) in x.iter().zip(results) {
                    let v = f64::from(x);
                    if x.is_nan() {
                        assert!(s.is_nan() && t.is_nan() && n.is_nan());
                        continue;
                    }
                    let want = 1.0 / (1.0 + (-v).exp());
                    assert!(want < 1e-37 && s < 1e-37 || ulps(s, want) <= 4.0, "{isa}: sigmoid({x}) = {s}");
                    assert!((f64::from(t) - v.tanh()).abs() <= 2f64.powi(-22), "{isa}: tanh({x}) = {t}");
                    let want = true_normal_cdf(v);
                    assert!((f64::from(n) - want).abs() <= 2f64.powi(-21), "{isa}: Φ({x}) = {n}, not {want}");
                }
            }
        }
    }

    fn assert_logarithm(f: fn(Isa, &[f32]) -> Vec<f32>, truth: fn(f64) -> f64, at_infinity: f32) {
        for isa in Isa::available() {
            for x in dense() {
                let x: Vec<f32> = x.into_iter().filter(|x| x.is_normal() && *x > 0.0).collect();
                for (&x, y) in x.iter().zip(f(isa, &x)) {
                    let want = truth(f64::from(x));
                    let bound = 2f64.powi(-22) * want.abs().max(1.0);
                    assert!((f64::from(y) - want).abs() <= bound, "{isa}: {y}, not {want}, at {x}");
                }
            }
            assert!((f(isa, &[f32::INFINITY])[0] - at_infinity).abs() < 0.01, "{isa}");
        }
    }

    #[test]
    fn logarithms_keep_their_bound() {
        assert_logarithm(log10, f64::log10, 38.53);
        assert_logarithm(ln, f64::ln, 88.72);
    }
}
