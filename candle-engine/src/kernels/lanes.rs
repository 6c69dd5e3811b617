//! What the float kernels share: plain loops over lanes, compiled once per level of the instruction set.
//!
//! A kernel is written once, generic over [`Arith`], in a form that LLVM turns into vector code; [`per_isa`]
//! stamps it with each level's features. Every reduction has a fixed order over [`LANES`] partial results,
//! so a level's result depends on neither batch nor threads. Levels differ by rounding only: scalar code
//! rounds a product before it adds, the others fuse.

use half::f16;

/// Partial results of a reduction: one AVX-512 register, two of AVX2, four of NEON.
pub(crate) const LANES: usize = 16;

/// A level's arithmetic. Holding a value proves that the CPU has the level's features.
pub(crate) trait Arith: Copy {
    /// `a · b + c`, fused where the level can.
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32;
    /// f16 to f32, exact.
    fn widen<const N: usize>(self, x: &[f16; N]) -> [f32; N];
    /// f32 to f16, nearest even.
    fn narrow(self, x: &[f32; LANES]) -> [f16; LANES];
}

/// Plain Rust: the specification.
#[derive(Clone, Copy)]
pub(crate) struct Plain;

impl Arith for Plain {
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
fn widen(x: f16) -> f32 {
    let bits = u32::from(x.to_bits());
    let magnitude = (bits & 0x7fff) << 13;
    let finite = (f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23)).to_bits();
    // Infinity and NaN have all bits of the exponent set; a NaN keeps its payload.
    let magnitude = if magnitude >= 31 << 23 { magnitude | 0xff << 23 } else { finite };
    f32::from_bits(magnitude | (bits & 0x8000) << 16)
}

/// The x86-64 levels above scalar: fused multiply-add and f16c.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct X86(());

#[cfg(target_arch = "x86_64")]
impl X86 {
    /// # Safety
    ///
    /// The CPU has `avx2`, `fma` and `f16c`.
    #[inline(always)]
    pub(crate) unsafe fn new() -> Self {
        Self(())
    }
}

#[cfg(target_arch = "x86_64")]
impl Arith for X86 {
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn widen<const N: usize>(self, x: &[f16; N]) -> [f32; N] {
        use std::arch::x86_64::*;
        const { assert!(N.is_multiple_of(8)) };
        let mut out = [0.0; N];
        for (x, out) in x.chunks_exact(8).zip(out.chunks_exact_mut(8)) {
            // SAFETY: both chunks hold eight numbers; the value of `self` proves f16c and avx.
            unsafe {
                let v = _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast()));
                _mm256_storeu_ps(out.as_mut_ptr(), v);
            }
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

/// NEON, part of the aarch64 baseline.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy)]
pub(crate) struct Neon;

#[cfg(target_arch = "aarch64")]
impl Arith for Neon {
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
    ($isa:expr, $kernel:path, ($($arg:ident: $type:ty),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        #[allow(clippy::too_many_arguments)]
        fn avx2($($arg: $type),*) {
            // SAFETY: this function runs only where its features are.
            $kernel(unsafe { $crate::kernels::lanes::X86::new() }, $($arg),*)
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        #[allow(clippy::too_many_arguments)]
        fn avx512($($arg: $type),*) {
            // SAFETY: this function runs only where its features are.
            $kernel(unsafe { $crate::kernels::lanes::X86::new() }, $($arg),*)
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
pub(crate) fn add_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for l in 0..half {
            lanes[l] += lanes[l + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// The largest number; a NaN may be passed over.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for l in 0..LANES {
            lanes[l] = if chunk[l] > lanes[l] { chunk[l] } else { lanes[l] };
        }
    }
    let max = |a, b| if b > a { b } else { a };
    lanes.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, max)
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
