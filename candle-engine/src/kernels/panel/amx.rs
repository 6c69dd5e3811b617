//! Matrix registers: sixteen tokens by sixteen rows, 64 numbers of each at once.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::tile::Shape;
use super::{Panel, Quantization, Tile, OCTET, QUAD, SIXTEEN, UNIT};
use crate::kernels::amx::{self, Tiles};

/// Rows of a panel: two tiles.
pub const ROWS: usize = 2 * SIXTEEN;

/// Tokens that are multiplied at once: two tiles.
pub const TOKENS: usize = 2 * SIXTEEN;

/// Bytes from a token's numbers to the next one's, and from a quad of a panel to the next one.
const STRIDE: usize = 4 * ROWS;

/// Whether there are tiles for periods of this length.
pub fn takes(q: &Quantization) -> bool {
    q.period.is_multiple_of(UNIT)
}

/// Numbers that tiles hold of a row: they divide a period.
fn step(q: &Quantization) -> usize {
    if q.period.is_multiple_of(amx::ROW) {
        amx::ROW
    } else {
        UNIT
    }
}

/// How the tokens are to lie.
pub fn shape(q: &Quantization) -> Shape {
    Shape { width: TOKENS, run: step(q) / QUAD }
}

/// Shapes the tiles of this thread.
pub fn tiles(q: &Quantization) -> Tiles {
    let (sums, tokens) = (amx::Shape::WHOLE, amx::Shape { rows: SIXTEEN, row_bytes: step(q) });
    let rows = amx::Shape { rows: step(q) / QUAD, row_bytes: amx::ROW };
    // SAFETY: the level exists only after it was detected, and tasks do not nest.
    unsafe { Tiles::new([sums, sums, sums, sums, tokens, tokens, rows, rows]) }
}

/// A period's sums of each token, where they are stored.
#[repr(align(64))]
struct Sums(MaybeUninit<[[i32; ROWS]; TOKENS]>);

impl Sums {
    /// Stores tiles 0 to 3, or those of sixteen tokens.
    ///
    /// # Safety
    ///
    /// The [`tiles`] are in use.
    #[inline(always)]
    unsafe fn store(&mut self, tokens: usize) {
        let to: *mut u8 = self.0.as_mut_ptr().cast();
        // SAFETY: by the contract; there is room for four tiles, and those that are stored hold the tokens.
        unsafe {
            amx::store::<0>(to, STRIDE);
            amx::store::<1>(to.add(amx::ROW), STRIDE);
            if tokens > SIXTEEN {
                amx::store::<2>(to.add(SIXTEEN * STRIDE), STRIDE);
                amx::store::<3>(to.add(SIXTEEN * STRIDE + amx::ROW), STRIDE);
            }
        }
    }

    /// What was stored of so many tokens.
    ///
    /// # Safety
    ///
    /// It was.
    #[inline(always)]
    unsafe fn stored(&self, tokens: usize) -> &[[i32; ROWS]] {
        // SAFETY: by the contract.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), tokens.min(TOKENS)) }
    }
}

/// Adds the products of a panel's rows and a tile's tokens to `y`, whose numbers count from the second period on.
///
/// # Safety
///
/// The [`tiles`] for `q` are in use.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub unsafe fn multiply(
    panel: &Panel,
    q: &Quantization,
    tile: &Tile,
    periods: Range<usize>,
    y: &mut [[f32; ROWS]],
) {
    assert!(panel.octets == ROWS / OCTET && y.len() == tile.len && tile.len <= TOKENS, "a tile");
    let skipped = tile.outliers.partition_point(|o| o.input < periods.start * q.period);
    let mut outliers = tile.outliers[skipped..].iter().peekable();
    let mut add = |i: usize, sums: &[[i32; ROWS]], y: &mut [[f32; ROWS]]| {
        if q.has_min {
            scale::<true>(panel, tile, i, sums, y);
        } else {
            scale::<false>(panel, tile, i, sums, y);
        }
        while let Some(outlier) = outliers.next_if(|o| o.input < (i + 1) * q.period) {
            for (r, y) in y[outlier.token].iter_mut().enumerate() {
                *y = outlier.value.mul_add(panel.weight(r, outlier.input, q, false), *y);
            }
        }
    };
    // Of even and odd periods.
    let mut sums = [const { Sums(MaybeUninit::uninit()) }; 2];
    for i in periods.clone() {
        // SAFETY: by the contract.
        unsafe { products(panel, q, tile, i) };
        // While these go on the last period's sums are scaled.
        if i > periods.start {
            // SAFETY: stored in the last turn.
            add(i - 1, unsafe { sums[(i - 1) % 2].stored(tile.len) }, y);
        }
        // SAFETY: as above.
        unsafe { sums[i % 2].store(tile.len) };
    }
    if let Some(last) = periods.last() {
        // SAFETY: stored in the last turn.
        add(last, unsafe { sums[last % 2].stored(tile.len) }, y);
    }
}

/// The products of a period, in tiles 0 to 3: of the first sixteen tokens those with the first rows and the others, then
/// of the other tokens.
///
/// # Safety
///
/// The [`tiles`] for `q` are in use.
#[inline(always)]
unsafe fn products(panel: &Panel, q: &Quantization, tile: &Tile, period: usize) {
    let (step, first) = (step(q), period * q.period);
    let steps = (q.k.next_multiple_of(step).min(first + q.period) - first) / step;
    let lines = &panel.lines[first / QUAD * (ROWS / SIXTEEN)..][..steps * step / QUAD * (ROWS / SIXTEEN)];
    let quads = &tile.quads[first / QUAD * TOKENS..][..steps * step / QUAD * TOKENS];
    let (mut w, mut x): (*const u8, *const u8) = (lines.as_ptr().cast(), quads.as_ptr().cast());
    // SAFETY: by the contract; the slices hold what is read.
    unsafe {
        amx::zero::<0>();
        amx::zero::<1>();
        amx::zero::<2>();
        amx::zero::<3>();
        for _ in 0..steps {
            amx::load::<4>(x, step);
            amx::load::<6>(w, STRIDE);
            amx::dot_bytes::<0, 4, 6>();
            amx::load::<7>(w.add(amx::ROW), STRIDE);
            amx::dot_bytes::<1, 4, 7>();
            if tile.len > SIXTEEN {
                amx::load::<5>(x.add(SIXTEEN * step), step);
                amx::dot_bytes::<2, 5, 6>();
                amx::dot_bytes::<3, 5, 7>();
            }
            (w, x) = (w.add(step / QUAD * STRIDE), x.add(TOKENS * step));
        }
    }
}

/// Adds a period's sums to `y`, scaled.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn scale<const MIN: bool>(
    panel: &Panel,
    tile: &Tile,
    period: usize,
    sums: &[[i32; ROWS]],
    y: &mut [[f32; ROWS]],
) {
    let halves = |v: &[[f32; OCTET]]| {
        let v: &[[f32; OCTET]; ROWS / OCTET] = v.as_chunks().0.get(period).expect("a period");
        let at = v.as_flattened().as_ptr();
        // SAFETY: two registers of numbers.
        unsafe { [_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(SIXTEEN))] }
    };
    let (scales, mins) = (halves(&panel.scales), halves(if MIN { &panel.mins } else { &panel.scales }));
    let of = period * TOKENS..(period + 1) * TOKENS;
    let (x_scales, starts) = (&tile.scales[of.clone()], &tile.starts[of.clone()]);
    let x_sums = if MIN { &tile.sums[of] } else { x_scales };
    for ((((y, sums), &x_scale), &start), &x_sum) in
        y.iter_mut().zip(sums).zip(x_scales).zip(starts).zip(x_sums)
    {
        let (x_scale, start) = (_mm512_set1_ps(x_scale), _mm512_set1_epi32(start));
        for h in 0..2 {
            let (y, sums) = (&mut y[h * SIXTEEN..][..SIXTEEN], &sums[h * SIXTEEN..][..SIXTEEN]);
            // SAFETY: a register of numbers each.
            unsafe {
                let before = if period == 0 { _mm512_setzero_ps() } else { _mm512_loadu_ps(y.as_ptr()) };
                let sum = _mm512_add_epi32(_mm512_loadu_si512(sums.as_ptr().cast()), start);
                let mut sum =
                    _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(scales[h], x_scale), before);
                if MIN {
                    sum = _mm512_fmadd_ps(_mm512_set1_ps(x_sum), mins[h], sum);
                }
                _mm512_storeu_ps(y.as_mut_ptr(), sum);
            }
        }
    }
}
