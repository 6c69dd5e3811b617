//! NEON: four lanes, thirty-two registers.

use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

use super::many::{Laid, PANEL};
use super::tiles::Tiles;
use super::{Act, DenseFormat, Rows, Stored, CHUNK};
use crate::kernels::aligned::Aligned;
use crate::kernels::prefetch::{prefetch_far, AHEAD, LINE};

type Vector = float32x4_t;

/// Vectors that `add_sums` takes.
const GROUP: usize = 4;

tiles!("neon", lanes = 4, rows = [8, 8]);
many!("neon", lanes = 4, tokens = [5, 6]);

#[inline]
#[target_feature(enable = "neon")]
fn zero() -> Vector {
    vdupq_n_f32(0.0)
}

#[inline]
#[target_feature(enable = "neon")]
fn load(from: &[f32; 4]) -> Vector {
    // SAFETY: four floats.
    unsafe { vld1q_f32(from.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn store(v: Vector, to: &mut [f32; 4]) {
    // SAFETY: four floats.
    unsafe { vst1q_f32(to.as_mut_ptr(), v) }
}

#[inline]
#[target_feature(enable = "neon")]
fn load_stored<F: Stored>(from: &[F::Raw; 4]) -> Vector {
    // Loads of bytes: they alone ask for no alignment.
    let from = from.as_ptr().cast::<u8>();
    match F::FORMAT {
        // SAFETY: an element of this format has four bytes, so there are 16.
        DenseFormat::F32 => vreinterpretq_f32_u8(unsafe { vld1q_u8(from) }),
        DenseFormat::F16 => {
            // SAFETY: an element of this format has two bytes, so there are 8.
            let halves = unsafe { vld1_u8(from) };
            let wide: float32x4_t;
            // SAFETY: converts registers, touches nothing else. The intrinsic needs a type that is not stable.
            unsafe {
                asm!("fcvtl {wide:v}.4s, {halves:v}.4h", wide = lateout(vreg) wide, halves = in(vreg) halves,
                     options(pure, nomem, nostack, preserves_flags));
            }
            wide
        }
        DenseFormat::BF16 => {
            // SAFETY: an element of this format has two bytes, so there are 8.
            let bits = vreinterpret_u16_u8(unsafe { vld1_u8(from) });
            vreinterpretq_f32_u32(vshll_n_u16(bits, 16))
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn fma(a: Vector, b: Vector, c: Vector) -> Vector {
    vfmaq_f32(c, a, b)
}

/// Adds each vector's sum to its total: neighbours, then pairs.
#[inline]
#[target_feature(enable = "neon")]
fn add_sums([a, b, c, d]: [Vector; GROUP], to: &mut [f32; GROUP]) {
    let sums = vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d));
    store(vaddq_f32(load(to), sums), to);
}
