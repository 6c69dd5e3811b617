//! Dot products of 8-bit integers, summed in 32 bits.

#[cfg(target_arch = "x86_64")]
use super::tiles;
use super::SUMS;
#[cfg(target_arch = "x86_64")]
use crate::kernels::isa::Registers;
use crate::kernels::isa::{Dot, Isa};

/// Products of 8-bit integers added to sums in registers, on the calling thread; returns the operations done, two for
/// each product.
pub fn dot_products(isa: Isa, rounds: usize) -> usize {
    match isa.dot() {
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the feature was detected.
        Dot::Scalar if std::arch::is_aarch64_feature_detected!("dotprod") => unsafe { arm::dotprod(rounds) },
        Dot::Scalar => scalar(rounds),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this level exists only after its features were detected.
        Dot::Avx2 => unsafe { x86::avx2(rounds) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Dot::AvxVnni => unsafe { x86::avxvnni(rounds) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Dot::Avx512Vnni if isa.registers() == Registers::Amx => unsafe { tiles::bytes(rounds) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Dot::Avx512Vnni => unsafe { x86::avx512vnni(rounds) },
    }
}

fn scalar(rounds: usize) -> usize {
    let mut sums = [1i32; SUMS];
    let b = std::hint::black_box(3i8);
    for _ in 0..rounds {
        // A factor that changes, or the loop would be one multiplication.
        sums.iter_mut().for_each(|sum| *sum = sum.wrapping_add(i32::from(*sum as u8) * i32::from(b)));
    }
    std::hint::black_box(sums);
    2 * SUMS * rounds
}

/// The loop for registers of `$bytes` 8-bit integers.
macro_rules! vector {
    ($name:ident, $features:literal, $bytes:literal, $splat:expr, $dot:expr) => {
        #[target_feature(enable = $features)]
        pub(super) fn $name(rounds: usize) -> usize {
            let mut sums = [$splat(1); SUMS];
            let (a, b) = ($splat(std::hint::black_box(2)), $splat(std::hint::black_box(3)));
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum = $dot(*sum, a, b);
                }
            }
            std::hint::black_box(sums);
            2 * $bytes * SUMS * rounds
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::SUMS;
    use std::arch::x86_64::*;

    vector!(
        avx2,
        "avx2,fma,f16c",
        32,
        |v| _mm256_set1_epi8(v),
        // The sum itself is a factor: a product that does not change would leave the loop.
        |sum, _, b| {
            let pairs = _mm256_maddubs_epi16(sum, b);
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    );
    vector!(avxvnni, "avxvnni,avx2,fma,f16c", 32, |v| _mm256_set1_epi8(v), |sum, a, b| {
        _mm256_dpbusd_avx_epi32(sum, a, b)
    });
    vector!(
        avx512vnni,
        "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c",
        64,
        |v| _mm512_set1_epi8(v),
        |sum, a, b| _mm512_dpbusd_epi32(sum, a, b)
    );
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::SUMS;
    use std::arch::aarch64::*;
    use std::arch::asm;

    vector!(
        dotprod,
        "neon,dotprod",
        16,
        |v| vreinterpretq_s32_s8(vdupq_n_s8(v)),
        |mut sum: int32x4_t, a: int32x4_t, b: int32x4_t| {
            // SAFETY: `sdot` touches registers alone; the features are enabled here.
            unsafe {
                asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) a, in(vreg) b,
                          options(pure, nomem, nostack))
            };
            sum
        }
    );
}
