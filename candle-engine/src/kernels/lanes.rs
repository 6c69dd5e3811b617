//! What the float kernels share: plain loops over lanes, compiled once per level of the instruction set.
//!
//! A kernel is written once, generic over [`Arith`], in a form that LLVM turns into vector code; [`per_isa`]
//! stamps it with each level's features. Every reduction has a fixed order over [`LANES`] partial results,
//! so a level's result depends on neither batch nor threads. Levels differ by rounding only: scalar code
//! rounds a product before it adds, the others fuse.

use half::f16;

use super::math::softmax_exp;
#[cfg(target_arch = "x86_64")]
use super::math::softmax_exp_512;

#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
use x86::*;

/// Partial results of a reduction: one AVX-512 register, two of AVX2, four of NEON.
pub(crate) const LANES: usize = 16;

/// A level's arithmetic. Holding a value proves that the CPU has the level's features.
pub(crate) trait Arith: Copy {
    /// A vector register, for what LLVM does not find by itself: sums that stay in registers.
    type V: Copy;
    /// Numbers in a register.
    const N: usize;
    /// Rows of which two registers each are summed at a time: their sums fill the level's registers. One where speed
    /// does not count.
    const ROWS: usize;
    /// All numbers `x`.
    fn splat(self, x: f32) -> Self::V;
    /// The first numbers of `x`.
    fn load(self, x: &[f32]) -> Self::V;
    /// The first numbers of `x`, widened.
    fn load_f16(self, x: &[f16]) -> Self::V;
    /// Writes to the first numbers of `to`.
    fn store(self, v: Self::V, to: &mut [f32]);
    /// `a · b`
    fn mul_v(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b + c`, fused where the level can.
    fn mul_add_v(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a + b`
    fn add_v(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`, within 2 ULP where `b` and its reciprocal are normal.
    fn div_v(self, a: Self::V, b: Self::V) -> Self::V;
    /// `√a` of a finite number that is not negative, within 2 ULP where it is normal, else within 2e-19.
    fn sqrt_v(self, a: Self::V) -> Self::V;
    /// The larger of each pair; `b` where one of them is NaN.
    fn max_v(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a` where `by` is positive, else 0.
    fn gate_v(self, a: Self::V, by: Self::V) -> Self::V;
    /// The sum of the lanes: halves are added to each other until one is left.
    fn sum_of(self, v: Self::V) -> f32;
    /// The largest of the lanes, none of which is NaN.
    fn max_of(self, v: Self::V) -> f32;
    /// [`Arith::sum_of`] of each.
    #[inline(always)]
    fn sum_of_each<const R: usize>(self, v: [Self::V; R]) -> [f32; R] {
        sum_of_each(self, v)
    }
    /// [`Arith::max_of`] of each.
    #[inline(always)]
    fn max_of_each<const R: usize>(self, v: [Self::V; R]) -> [f32; R] {
        max_of_each(self, v)
    }

    /// `a · b + c`, fused where the level can.
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32;
    /// [`softmax_exp`]
    #[inline(always)]
    fn softmax_exp(self, x: &mut [f32]) {
        softmax_exp(self, x);
    }
    /// f16 to f32, exact.
    fn widen<const N: usize>(self, x: &[f16; N]) -> [f32; N];
    /// f32 to f16, nearest even.
    fn narrow(self, x: &[f32; LANES]) -> [f16; LANES];

    /// `to[col · to_row + row] = x[row · x_row + col]` of eight rows of eight.
    #[inline(always)]
    fn transpose_8x8(self, x: &[f32], x_row: usize, to: &mut [f32], to_row: usize) {
        for col in 0..8 {
            for row in 0..8 {
                to[col * to_row + row] = x[row * x_row + col];
            }
        }
    }
}

/// Makes a function of some registers from a method of one.
macro_rules! each {
    ($name:ident, $of_one:ident) => {
        #[inline(always)]
        fn $name<A: Arith, const R: usize>(arith: A, v: [A::V; R]) -> [f32; R] {
            // No closure: it would be compiled without the level's features.
            let mut out = [0.0; R];
            for r in 0..R {
                out[r] = arith.$of_one(v[r]);
            }
            out
        }
    };
}

each!(sum_of_each, sum_of);
each!(max_of_each, max_of);

/// Plain Rust: the specification.
#[derive(Clone, Copy)]
pub(crate) struct Plain;

impl Arith for Plain {
    type V = [f32; 8];
    const N: usize = 8;
    const ROWS: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; 8]
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::V {
        x.as_chunks().0[0]
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16]) -> Self::V {
        self.widen(&x.as_chunks().0[0])
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32]) {
        to[..8].copy_from_slice(&v);
    }

    #[inline(always)]
    fn mul_v(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|l| a[l] * b[l])
    }

    #[inline(always)]
    fn mul_add_v(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|l| self.mul_add(a[l], b[l], c[l]))
    }

    #[inline(always)]
    fn add_v(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|l| a[l] + b[l])
    }

    #[inline(always)]
    fn div_v(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|l| a[l] / b[l])
    }

    #[inline(always)]
    fn sqrt_v(self, a: Self::V) -> Self::V {
        a.map(f32::sqrt)
    }

    #[inline(always)]
    fn max_v(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|l| if a[l] > b[l] { a[l] } else { b[l] })
    }

    #[inline(always)]
    fn gate_v(self, a: Self::V, by: Self::V) -> Self::V {
        std::array::from_fn(|l| if by[l] > 0.0 { a[l] } else { 0.0 })
    }

    #[inline(always)]
    fn sum_of(self, v: Self::V) -> f32 {
        fold_lanes(v, |a, b| a + b)
    }

    #[inline(always)]
    fn max_of(self, v: Self::V) -> f32 {
        fold_lanes(v, f32::max)
    }

    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }

    #[inline(always)]
    fn widen<const N: usize>(self, x: &[f16; N]) -> [f32; N] {
        x.map(widen)
    }

    #[inline(always)]
    fn narrow(self, x: &[f32; LANES]) -> [f16; LANES] {
        x.map(f16::from_f32_const)
    }
}

/// f16 to f32 without a branch: as bits shifted into place the number is too small by 2^112, exactly.
#[inline(always)]
pub(crate) fn widen(x: f16) -> f32 {
    let bits = u32::from(x.to_bits());
    let magnitude = (bits & 0x7fff) << 13;
    let finite = (f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23)).to_bits();
    // Infinity and NaN have all bits of the exponent set; a NaN keeps its payload.
    let magnitude = if magnitude >= 31 << 23 { magnitude | 0xff << 23 } else { finite };
    f32::from_bits(magnitude | (bits & 0x8000) << 16)
}

/// A level of x86-64 above scalar: its register, and the intrinsics on it.
#[cfg(target_arch = "x86_64")]
macro_rules! x86 {
    ($name:ident, $features:literal, $v:ident, $n:literal, $splat:ident, $load:ident, $load_f16:ident,
     $widen:ident, $store:ident, $mul:ident, $fma:ident,
     $add:ident, $div:ident, $sqrt:ident, $gate:ident, $max:ident, $sum_of:ident, $max_of:ident, $sums_of:ident, $maxima_of:ident,
     $softmax_exp:ident) => {
        #[doc = concat!("`", $features, "`")]
        #[derive(Clone, Copy)]
        pub(crate) struct $name(());

        impl $name {
            /// # Safety
            ///
            #[doc = concat!("The CPU has `", $features, "`.")]
            #[inline(always)]
            pub(crate) unsafe fn new() -> Self {
                Self(())
            }
        }

        impl Arith for $name {
            type V = std::arch::x86_64::$v;
            const N: usize = $n;
            const ROWS: usize = $n / 2;

            #[inline(always)]
            fn splat(self, x: f32) -> Self::V {
                // SAFETY: the value of `self` proves the features.
                unsafe { std::arch::x86_64::$splat(x) }
            }

            #[inline(always)]
            fn load(self, x: &[f32]) -> Self::V {
                // SAFETY: so many numbers are there; the value of `self` proves the features.
                unsafe { std::arch::x86_64::$load(x[..$n].as_ptr()) }
            }

            #[inline(always)]
            fn load_f16(self, x: &[f16]) -> Self::V {
                // SAFETY: so many numbers are there; the value of `self` proves the features.
                unsafe { std::arch::x86_64::$widen(std::arch::x86_64::$load_f16(x[..$n].as_ptr().cast())) }
            }

            #[inline(always)]
            fn store(self, v: Self::V, to: &mut [f32]) {
                // SAFETY: there is room for so many numbers; the value of `self` proves the features.
                unsafe { std::arch::x86_64::$store(to[..$n].as_mut_ptr(), v) }
            }

            #[inline(always)]
            fn mul_v(self, a: Self::V, b: Self::V) -> Self::V {
                // SAFETY: the value of `self` proves the features.
                unsafe { std::arch::x86_64::$mul(a, b) }
            }

            #[inline(always)]
            fn mul_add_v(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                // SAFETY: the value of `self` proves the features.
                unsafe { std::arch::x86_64::$fma(a, b, c) }
            }

            #[inline(always)]
            fn add_v(self, a: Self::V, b: Self::V) -> Self::V {
                // SAFETY: the value of `self` proves the features.
                unsafe { std::arch::x86_64::$add(a, b) }
            }

            #[inline(always)]
            fn div_v(self, a: Self::V, b: Self::V) -> Self::V {
                #[allow(
                    unused_imports,
                    reason = "a level may have an instruction of its own, or a function above"
                )]
                use std::arch::x86_64::*;
                // SAFETY: the value of `self` proves the features.
                unsafe { $div(a, b) }
            }

            #[inline(always)]
            fn sqrt_v(self, a: Self::V) -> Self::V {
                #[allow(unused_imports, reason = "as above")]
                use std::arch::x86_64::*;
                // SAFETY: the value of `self` proves the features.
                unsafe { $sqrt(a) }
            }

            #[inline(always)]
            fn gate_v(self, a: Self::V, by: Self::V) -> Self::V {
                // SAFETY: the value of `self` proves the features.
                unsafe { $gate(a, by) }
            }

            #[inline(always)]
            fn transpose_8x8(self, x: &[f32], x_row: usize, to: &mut [f32], to_row: usize) {
                // SAFETY: the value of `self` proves the features.
                unsafe { transpose_8x8(x, x_row, to, to_row) }
            }

            #[inline(always)]
            fn max_v(self, a: Self::V, b: Self::V) -> Self::V {
                // SAFETY: the value of `self` proves the features.
                unsafe { std::arch::x86_64::$max(a, b) }
            }

            #[inline(always)]
            fn sum_of(self, v: Self::V) -> f32 {
                // SAFETY: the value of `self` proves the features.
                unsafe { $sum_of(v) }
            }

            #[inline(always)]
            fn max_of(self, v: Self::V) -> f32 {
                // SAFETY: the value of `self` proves the features.
                unsafe { $max_of(v) }
            }

            #[inline(always)]
            fn sum_of_each<const R: usize>(self, v: [Self::V; R]) -> [f32; R] {
                $sums_of(self, v)
            }

            #[inline(always)]
            fn max_of_each<const R: usize>(self, v: [Self::V; R]) -> [f32; R] {
                $maxima_of(self, v)
            }

            #[inline(always)]
            fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
                a.mul_add(b, c)
            }

            #[inline(always)]
            fn softmax_exp(self, x: &mut [f32]) {
                $softmax_exp(self, x);
            }

            #[inline(always)]
            fn widen<const N: usize>(self, x: &[f16; N]) -> [f32; N] {
                const { assert!(N.is_multiple_of($n)) };
                let mut out = [0.0; N];
                for (x, out) in x.chunks_exact($n).zip(out.chunks_exact_mut($n)) {
                    self.store(self.load_f16(x), out);
                }
                out
            }

            #[inline(always)]
            fn narrow(self, x: &[f32; LANES]) -> [f16; LANES] {
                use std::arch::x86_64::*;
                let mut out = [f16::ZERO; LANES];
                for (x, out) in x.chunks_exact(8).zip(out.chunks_exact_mut(8)) {
                    // SAFETY: both chunks hold eight numbers; the value of `self` proves f16c and avx.
                    unsafe {
                        let v = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(x.as_ptr()));
                        _mm_storeu_si128(out.as_mut_ptr().cast(), v);
                    }
                }
                out
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
x86!(
    Avx2,
    "avx2,fma,f16c",
    __m256,
    8,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm_loadu_si128,
    _mm256_cvtph_ps,
    _mm256_storeu_ps,
    _mm256_mul_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps,
    _mm256_div_ps,
    _mm256_sqrt_ps,
    gate_256,
    _mm256_max_ps,
    sum_of_256,
    max_of_256,
    sum_of_each,
    max_of_each,
    softmax_exp
);
#[cfg(target_arch = "x86_64")]
x86!(
    Avx512,
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c",
    __m512,
    16,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm256_loadu_si256,
    _mm512_cvtph_ps,
    _mm512_storeu_ps,
    _mm512_mul_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps,
    div_512,
    sqrt_512,
    gate_512,
    _mm512_max_ps,
    sum_of_512,
    max_of_512,
    sums_of_512,
    maxima_of_512,
    softmax_exp_512
);

/// NEON, part of the aarch64 baseline.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy)]
pub(crate) struct Neon;

#[cfg(target_arch = "aarch64")]
impl Arith for Neon {
    type V = std::arch::aarch64::float32x4_t;
    const N: usize = 4;
    const ROWS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: NEON is part of the baseline.
        unsafe { std::arch::aarch64::vdupq_n_f32(x) }
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::V {
        // SAFETY: four numbers are there; NEON is part of the baseline.
        unsafe { std::arch::aarch64::vld1q_f32(x[..4].as_ptr()) }
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16]) -> Self::V {
        self.load(&self.widen(&x.as_chunks::<4>().0[0]))
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32]) {
        // SAFETY: there is room for four numbers; NEON is part of the baseline.
        unsafe { std::arch::aarch64::vst1q_f32(to[..4].as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn mul_v(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: NEON is part of the baseline.
        unsafe { std::arch::aarch64::vmulq_f32(a, b) }
    }

    #[inline(always)]
    fn mul_add_v(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: NEON is part of the baseline.
        unsafe { std::arch::aarch64::vfmaq_f32(c, a, b) }
    }

    #[inline(always)]
    fn add_v(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: NEON is part of the baseline.
        unsafe { std::arch::aarch64::vaddq_f32(a, b) }
    }

    #[inline(always)]
    fn div_v(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: NEON is part of the baseline.
        unsafe { std::arch::aarch64::vdivq_f32(a, b) }
    }

    #[inline(always)]
    fn sqrt_v(self, a: Self::V) -> Self::V {
        // SAFETY: NEON is part of the baseline.
        unsafe { std::arch::aarch64::vsqrtq_f32(a) }
    }

    #[inline(always)]
    fn gate_v(self, a: Self::V, by: Self::V) -> Self::V {
        use std::arch::aarch64::*;
        // SAFETY: NEON is part of the baseline.
        unsafe { vbslq_f32(vcgtq_f32(by, vdupq_n_f32(0.0)), a, vdupq_n_f32(0.0)) }
    }

    #[inline(always)]
    fn max_v(self, a: Self::V, b: Self::V) -> Self::V {
        use std::arch::aarch64::*;
        // SAFETY: NEON is part of the baseline.
        unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
    }

    #[inline(always)]
    fn sum_of(self, v: Self::V) -> f32 {
        let mut lanes = [0.0; 4];
        self.store(v, &mut lanes);
        fold_lanes(lanes, |a, b| a + b)
    }

    #[inline(always)]
    fn max_of(self, v: Self::V) -> f32 {
        // SAFETY: NEON is part of the baseline.
        unsafe { std::arch::aarch64::vmaxvq_f32(v) }
    }

    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn widen<const N: usize>(self, x: &[f16; N]) -> [f32; N] {
        x.map(widen)
    }

    #[inline(always)]
    fn narrow(self, x: &[f32; LANES]) -> [f16; LANES] {
        x.map(f16::from_f32)
    }
}

/// Runs `$kernel(arith, args…)` compiled for the level of `$isa`.
///
/// The features are those of the level in `isa.rs`. The kernel and what it calls are `#[inline(always)]`,
/// or they would be compiled without them.
macro_rules! per_isa {
    ($isa:expr, $kernel:path, ($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)?) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        #[allow(clippy::too_many_arguments)]
        fn avx2($($arg: $type),*) $(-> $result)? {
            // SAFETY: this function runs only where its features are.
            $kernel(unsafe { $crate::kernels::lanes::Avx2::new() }, $($arg),*)
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        #[allow(clippy::too_many_arguments)]
        fn avx512($($arg: $type),*) $(-> $result)? {
            // SAFETY: this function runs only where its features are.
            $kernel(unsafe { $crate::kernels::lanes::Avx512::new() }, $($arg),*)
        }
        match $crate::kernels::Isa::level($isa) {
            $crate::kernels::isa::Level::Scalar => $kernel($crate::kernels::lanes::Plain, $($arg),*),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this level exists only after its features were detected.
            $crate::kernels::isa::Level::Avx2 => unsafe { avx2($($arg),*) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this level exists only after its features were detected.
            $crate::kernels::isa::Level::Avx512 => unsafe { avx512($($arg),*) },
            #[cfg(target_arch = "aarch64")]
            $crate::kernels::isa::Level::Neon => $kernel($crate::kernels::lanes::Neon, $($arg),*),
        }
    }};
}
pub(crate) use per_isa;

/// `Σ term(i)` in lanes: lane `l` sums `i ≡ l mod LANES` in order, then the lanes are halved together.
#[inline(always)]
pub(crate) fn sum(x: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        for l in 0..LANES {
            lanes[l] = term(chunk[l], lanes[l]);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = term(x, *lane);
    }
    add_lanes(lanes)
}

/// The sum of the lanes: halves are added to each other until one is left.
#[inline(always)]
pub(crate) fn add_lanes(lanes: [f32; LANES]) -> f32 {
    fold_lanes(lanes, |a, b| a + b)
}

#[inline(always)]
fn fold_lanes<const N: usize>(mut lanes: [f32; N], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = N / 2;
    while half > 0 {
        for l in 0..half {
            lanes[l] = f(lanes[l], lanes[l + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// The largest number; a NaN may be passed over.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    #[inline(always)]
    fn larger(a: f32, b: f32) -> f32 {
        if b > a {
            b
        } else {
            a
        }
    }
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for l in 0..LANES {
            lanes[l] = larger(lanes[l], chunk[l]);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, x);
    }
    fold_lanes(lanes, larger)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Isa;

    #[inline(always)]
    fn convert(arith: impl Arith, x: &[f16], wide: &mut [f32], back: &mut [f16]) {
        for ((x, wide), back) in
            x.as_chunks().0.iter().zip(wide.as_chunks_mut().0).zip(back.as_chunks_mut().0)
        {
            *wide = arith.widen::<LANES>(x);
            *back = arith.narrow(wide);
        }
    }

    #[inline(always)]
    fn quotients_and_roots<A: Arith>(arith: A, x: &[f32], y: &[f32], out: &mut [[f32; 16]; 2]) {
        for at in (0..16).step_by(A::N) {
            let (x, y) = (arith.load(&x[at..]), arith.load(&y[at..]));
            arith.store(arith.div_v(x, y), &mut out[0][at..]);
            arith.store(arith.sqrt_v(y), &mut out[1][at..]);
        }
    }

    #[test]
    fn quotients_and_roots_are_within_two_ulp() {
        use crate::kernels::testing::numbers;
        for isa in Isa::available() {
            for seed in 0..2000 {
                let scale = 10f32.powi(seed as i32 % 60 - 30);
                let (x, y) = (&numbers(seed, 16)[..], &numbers(seed + 5000, 16)[..]);
                let y = &y.iter().map(|y| y.abs() * scale).collect::<Vec<_>>()[..];
                let mut out = [[0.0; 16]; 2];
                let to = &mut out;
                per_isa!(isa, quotients_and_roots, (x: &[f32], y: &[f32], to: &mut [[f32; 16]; 2]));
                for ((x, y), (quotient, root)) in x.iter().zip(y).zip(out[0].iter().zip(out[1])) {
                    let near =
                        |got: f32, want: f64| (f64::from(got) - want).abs() <= want.abs() * 2f64.powi(-22);
                    assert!(near(*quotient, f64::from(*x) / f64::from(*y)), "{isa}: {x} / {y} = {quotient}");
                    assert!(near(root, f64::from(*y).sqrt()), "{isa}: root of {y} = {root}");
                }
            }
            // Nothing is nothing, and what is no normal number is next to it.
            let (x, y) = (&[0f32; 16][..], &[[0.0; 8], [1e-39; 8]].concat()[..]);
            let mut out = [[0.0; 16]; 2];
            let to = &mut out;
            per_isa!(isa, quotients_and_roots, (x: &[f32], y: &[f32], to: &mut [[f32; 16]; 2]));
            assert_eq!(out[1][..8], [0.0; 8], "{isa}");
            assert!(out[1][8..].iter().all(|root| (0.0..2e-19).contains(root)), "{isa}: {:?}", out[1]);
        }
    }

    #[inline(always)]
    fn turn(arith: impl Arith, x: &[f32], to: &mut [f32]) {
        arith.transpose_8x8(x, 11, to, 9);
    }

    #[test]
    fn eight_rows_of_eight_are_transposed() {
        let x: Vec<f32> = (0..88).map(|i| i as f32).collect();
        for isa in Isa::available() {
            let (x, to) = (&x[..], &mut [-1.0; 72][..]);
            per_isa!(isa, turn, (x: &[f32], to: &mut [f32]));
            for (at, to) in to.iter().enumerate() {
                let want = if at % 9 < 8 { x[at % 9 * 11 + at / 9] } else { -1.0 };
                assert_eq!(*to, want, "{isa}: {at}");
            }
        }
    }

    #[test]
    fn every_f16_widens_exactly_and_comes_back() {
        let x: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        for isa in Isa::available() {
            let (x, wide, back) = (&x[..], &mut vec![0f32; x.len()][..], &mut vec![f16::ZERO; x.len()][..]);
            per_isa!(isa, convert, (x: &[f16], wide: &mut [f32], back: &mut [f16]));
            for ((x, wide), back) in x.iter().zip(wide).zip(back) {
                if x.is_nan() {
                    assert!(wide.is_nan() && back.is_nan(), "{isa} {:x}", x.to_bits());
                } else {
                    assert_eq!(wide.to_bits(), x.to_f32_const().to_bits(), "{isa} {x}");
                    assert_eq!(back.to_bits(), x.to_bits(), "{isa} {x}");
                }
            }
        }
    }
}
