//! Fused multiply-adds of f32, and of bf16 to f32.

#[cfg(target_arch = "x86_64")]
use super::tiles;
use super::SUMS;
#[cfg(target_arch = "x86_64")]
use crate::kernels::isa::Registers;
use crate::kernels::isa::{Isa, Level, Pairs};

/// Fused multiply-adds on registers alone, on the calling thread; returns the floating-point operations done.
pub fn multiply_adds(isa: Isa, rounds: usize) -> usize {
    match isa.level() {
        Level::Scalar => scalar(rounds),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this level exists only after its features were detected.
        Level::Avx2 => unsafe { x86::avx2(rounds) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx512 => unsafe { x86::avx512(rounds) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Level::Neon => unsafe { arm::neon(rounds) },
    }
}

/// The same of bf16, where the level multiplies it, else of f32.
pub fn bf16_multiply_adds(isa: Isa, rounds: usize) -> usize {
    match isa.pairs() {
        Pairs::Widened => multiply_adds(isa, rounds),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this level exists only after its features were detected.
        Pairs::Avx512Bf16 if isa.registers() == Registers::Amx => unsafe { tiles::pairs(rounds) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Pairs::Avx512Bf16 => unsafe { x86::avx512bf16(rounds) },
    }
}

fn scalar(rounds: usize) -> usize {
    let mut sums = [1.0f32; SUMS];
    let (a, b) = (std::hint::black_box(0.5f32), std::hint::black_box(0.25f32));
    for _ in 0..rounds {
        sums.iter_mut().for_each(|sum| *sum = *sum * a + b);
    }
    std::hint::black_box(sums);
    2 * SUMS * rounds
}

/// The loop for vectors of `$lanes` factors.
macro_rules! vector {
    ($name:ident, $features:literal, $lanes:literal, $splat:expr, $fma:expr) => {
        #[target_feature(enable = $features)]
        pub(super) fn $name(rounds: usize) -> usize {
            let mut sums = [$splat(1.0); SUMS];
            let (a, b) = ($splat(std::hint::black_box(0.5)), $splat(std::hint::black_box(0.25)));
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum = $fma(*sum, a, b);
                }
            }
            std::hint::black_box(sums);
            2 * $lanes * SUMS * rounds
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use crate::kernels::roofline::SUMS;
    use std::arch::x86_64::*;

    vector!(avx2, "avx2,fma,f16c", 8, |v| _mm256_set1_ps(v), |s, a, b| _mm256_fmadd_ps(s, a, b));
    vector!(
        avx512,
        "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c",
        16,
        |v| _mm512_set1_ps(v),
        |s, a, b| _mm512_fmadd_ps(s, a, b)
    );
    vector!(
        avx512bf16,
        "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c",
        32,
        |v| _mm512_set1_ps(v),
        |s, a, b| _mm512_dpbf16_ps(s, pairs(a), pairs(b))
    );

    /// The same bits.
    #[inline(always)]
    fn pairs(v: __m512) -> __m512bh {
        // SAFETY: both types are 512 bits, of which any will do.
        unsafe { std::mem::transmute::<__m512, __m512bh>(v) }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use crate::kernels::roofline::SUMS;
    use std::arch::aarch64::*;

    vector!(neon, "neon", 4, |v| vdupq_n_f32(v), |s, a, b| vfmaq_f32(b, s, a));
}
