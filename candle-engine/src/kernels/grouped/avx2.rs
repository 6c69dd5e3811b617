//! `avx2,fma,f16c`: unpacking eight rows.

use std::arch::x86_64::*;

use crate::kernels::panel::{transpose, Panel, OCTET, UNIT};

/// Packs the quants of eight rows into octet `h`, those of 8 bits with their sign, or with it flipped.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn pack<const BITS: u32>(rows: [&[u8]; OCTET], signed: bool, h: usize, panel: &mut Panel) {
    let bytes = BITS as usize * UNIT / 8;
    let flip = _mm256_set1_epi8(if BITS == 8 && !signed { i8::MIN } else { 0 });
    let whole = rows[0].len() / bytes;
    for unit in 0..rows[0].len().div_ceil(bytes) {
        let mut v = [_mm256_setzero_si256(); OCTET];
        for r in 0..OCTET {
            v[r] = if unit < whole {
                quants::<BITS>(&rows[r][unit * bytes..])
            } else {
                let mut padded = [0; UNIT];
                let rest = &rows[r][unit * bytes..];
                padded[..rest.len()].copy_from_slice(rest);
                quants::<BITS>(&padded)
            };
            v[r] = _mm256_xor_si256(v[r], flip);
        }
        let columns = transpose(v);
        let mut quads = [[0; 32]; 8];
        for j in 0..8 {
            // SAFETY: 32 bytes, and any alignment will do.
            unsafe { _mm256_storeu_si256(quads[j].as_mut_ptr().cast(), columns[j]) };
        }
        panel.set_quants(h, unit, &quads);
    }
}

/// 32 quants, a byte each.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn quants<const BITS: u32>(bytes: &[u8]) -> __m256i {
    if BITS == 8 {
        let bytes = &bytes[..32];
        // SAFETY: 32 bytes, and any alignment will do.
        return unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
    }
    let bytes = &bytes[..16];
    // SAFETY: 16 bytes, and any alignment will do.
    let pairs = _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) });
    _mm256_and_si256(_mm256_or_si256(pairs, _mm256_slli_epi16::<4>(pairs)), _mm256_set1_epi8(15))
}
