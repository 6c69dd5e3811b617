//! `avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c`: one token, and rows one after another, as memory has them.

use std::arch::x86_64::*;

use super::few::Sums;
use super::results::Results;
use super::vnni::WIDE;
use super::Grouped;
use crate::kernels::panel::{quarter_sums, sums_of_rows, transpose_sixteen, Room, Tile, SIXTEEN};
use crate::kernels::prefetch::Ahead;

/// Sums of a row that are kept together.
const FOUR: usize = 4;

/// Fours of a row's sums that wait for the other rows: quarter `q` of a row has the quarters `q` of the four.
const KEPT: usize = size_of::<Room>() / size_of::<[__m512i; SIXTEEN]>();

/// Sixteen rows from `from` on by one token, whose lines are `lines`.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub(super) fn one<const BITS: u32>(
    w: &Grouped,
    from: usize,
    x: &Tile,
    lines: &[__m512i],
    kept: &mut Room,
) -> __m512 {
    let bytes = w.bits.bytes(w.cols);
    assert!(lines.len() >= bytes.div_ceil(WIDE) * 8 / BITS as usize, "lines of a row");
    let sums = Sums::of(w).expect("rows that can be cut");
    let piece = KEPT * FOUR * sums.bytes;
    let mut results = Results::<1>::new(w, from, std::slice::from_ref(x));
    let rows = &w.quants[from * bytes..(from + SIXTEEN) * bytes];
    let ahead = Ahead::new(piece.min(bytes), bytes);
    let (four, parts) = (FOUR * sums.bytes, 8 / BITS as usize);
    for first in (0..bytes).step_by(piece) {
        let end = bytes.min(first + piece);
        let (whole, all) = ((end - first) / four, (end - first).div_ceil(four));
        for (r, row) in rows.chunks_exact(bytes).enumerate() {
            // SAFETY: so many bytes of the row, and lines of all of it were asserted.
            unsafe {
                let (mut at, mut x) = (row.as_ptr().add(first), lines.as_ptr().add(first / WIDE * parts));
                for kept in &mut kept[..whole] {
                    kept[r] = quarter_sums(four_sums::<BITS, true>(at, x, sums.bytes, four, ahead));
                    (at, x) = (at.add(four), x.add(four / WIDE * parts));
                }
                if whole < all {
                    let left = end - first - whole * four;
                    kept[whole][r] = quarter_sums(four_sums::<BITS, false>(at, x, sums.bytes, left, ahead));
                }
            }
        }
        add(&mut results, &kept[..all], sums.quarters);
    }
    results.y[0]
}

/// Four sums of so many bytes each, or of those that are left, where they are not `WHOLE`.
///
/// # Safety
///
/// From `at` on the bytes that are left can be read, at most four times `bytes`; at `x` are their activations.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
unsafe fn four_sums<const BITS: u32, const WHOLE: bool>(
    mut at: *const u8,
    mut x: *const __m512i,
    bytes: usize,
    mut left: usize,
    ahead: Ahead,
) -> [__m512i; FOUR] {
    let mut sums = [_mm512_setzero_si512(); FOUR];
    for sum in &mut sums {
        let here = if WHOLE { bytes } else { bytes.min(left) };
        for _ in 0..here / WIDE {
            ahead.read(at, 1);
            // SAFETY: the caller's promise; any alignment will do.
            unsafe {
                *sum = add_line::<BITS>(*sum, _mm512_loadu_si512(at.cast()), x);
                (at, x) = (at.add(WIDE), x.add(8 / BITS as usize));
            }
        }
        if !WHOLE {
            if !here.is_multiple_of(WIDE) {
                ahead.read(at, 1);
                // SAFETY: as above: the last line of a row. Past its end activations are zero.
                unsafe {
                    let line = _mm512_maskz_loadu_epi8((1 << (here % WIDE)) - 1, at.cast());
                    *sum = add_line::<BITS>(*sum, line, x);
                }
            }
            left -= here;
        }
    }
    sums
}

/// Adds the products of a line.
///
/// # Safety
///
/// At `x` are its activations.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub(super) unsafe fn add_line<const BITS: u32>(sum: __m512i, line: __m512i, x: *const __m512i) -> __m512i {
    if BITS == 8 {
        // Unsigned: 128 is added.
        let line = _mm512_xor_si512(line, _mm512_set1_epi8(i8::MIN));
        // SAFETY: the caller's promise.
        return _mm512_dpbusd_epi32(sum, line, unsafe { *x });
    }
    let low = _mm512_and_si512(line, _mm512_set1_epi8(15));
    let high = _mm512_and_si512(_mm512_srli_epi16::<4>(line), _mm512_set1_epi8(15));
    // SAFETY: as above.
    unsafe { _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum, low, *x), high, *x.add(1)) }
}

/// Adds sums that were kept, of which so many quarters are a period.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn add(results: &mut Results<1>, kept: &[[__m512i; SIXTEEN]], quarters: usize) {
    let mut dots = [_mm512_setzero_si512(); SIXTEEN];
    let periods = FOUR * 4 / quarters;
    for kept in kept {
        if quarters == 4 {
            results.add_periods(&sums_of_rows(kept));
            continue;
        }
        let columns = transpose_sixteen(*kept);
        for i in 0..FOUR {
            let quarter = |q: usize| columns[FOUR * q + i];
            if quarters == 2 {
                dots[2 * i] = _mm512_add_epi32(quarter(0), quarter(1));
                dots[2 * i + 1] = _mm512_add_epi32(quarter(2), quarter(3));
            } else {
                for q in 0..4 {
                    dots[4 * i + q] = quarter(q);
                }
            }
        }
        results.add_periods(&dots[..periods]);
    }
}
