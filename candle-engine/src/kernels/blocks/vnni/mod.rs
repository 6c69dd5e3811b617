//! `avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c`: sixteen rows at once, one a lane.

mod k_block;
mod token;
mod unpack;

use std::arch::x86_64::*;

pub use self::token::matmul;
use self::unpack::{groups, quads, scales, sub_scales};
use super::avx2;
use super::formats::{has_sub_scales, number, Block, GROUP};
use super::rows::Rows;
use crate::kernels::panel::{to_array, to_integers, Panel, OCTET, QUAD, SIXTEEN};
use crate::kernels::prefetch::Stream;

/// Sub-scales in a block of 256.
const MOST_SCALES: usize = 16;

/// Packs sixteen rows, `less` taken from each quant, into sixteen `s` of the panel; past the last row the last again.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn pack<B: Block>(w: &[u8], row_bytes: usize, from: usize, less: i8, s: usize, panel: &mut Panel) {
    if (from + SIXTEEN) * row_bytes > w.len() {
        for h in 0..2 {
            avx2::pack::<B>(w, row_bytes, from + h * OCTET, less, 2 * s + h, panel);
        }
        return;
    }
    let rows = Rows::new::<SIXTEEN>(w, row_bytes, from);
    let mut next = Stream::later(w.get((from + SIXTEEN) * row_bytes..).unwrap_or_default());
    let less = _mm512_set1_epi8(less);
    let mut high = [_mm512_setzero_si512(); GROUP / QUAD];
    for block in 0..row_bytes / B::BYTES {
        next.read(SIXTEEN * B::BYTES);
        let rows = rows.skip(block * B::BYTES, B::BYTES);
        let (scales, mins) = scales::<B>(rows);
        panel.set_sixteen_scales(s, block, to_array(scales), to_array(mins));
        if has_sub_scales::<B>() {
            let periods = B::LEN / B::PERIOD;
            let (scales, mins) = sub_scales::<B>(rows);
            for (i, scales) in scales.into_iter().enumerate().take(periods) {
                panel.set_sixteen_sub_scales(s, block * periods + i, to_integers(scales));
            }
            let pairs = if B::HAS_MIN { periods / 2 } else { 0 };
            for (i, mins) in mins.into_iter().enumerate().take(pairs) {
                panel.set_sixteen_sub_mins(s, block * (periods / 2) + i, to_integers(mins));
            }
        }
        for turn in 0..(B::LEN / GROUP).div_ceil(2) {
            let two = quads::<B>(rows, turn, &mut high);
            for (quads, g) in two.iter().zip(groups::<B>(turn)).take(B::LEN / GROUP) {
                let first = (block * B::LEN + g * GROUP) / QUAD;
                for (j, quad) in quads.iter().enumerate() {
                    // SAFETY: a line's 64 bytes, at any alignment.
                    unsafe {
                        let to = panel.sixteen_mut(s, first + j).as_mut_ptr();
                        _mm512_storeu_si512(to.cast(), _mm512_sub_epi8(*quad, less));
                    }
                }
            }
        }
    }
}
