//! Matrix registers: a few tokens, and sixteen rows of bytes as they lie.

use std::arch::x86_64::*;
use std::ops::Range;

use super::few::streams;
use super::vnni::{sixteen_scales, SCALES};
use super::Grouped;
use crate::kernels::amx::{self, Tiles};
use crate::kernels::panel::{to_array, transpose_sixteen, Outlier, Tile, QUAD, SIXTEEN};

/// Tokens that are multiplied at once at most.
pub const TOKENS: usize = 16;

/// Tokens from which this is faster than lines of them.
const LEAST: usize = 5;

/// Whether so many tokens are multiplied, by rows that are cut into whole registers.
pub fn takes(w: &Grouped, tokens: usize) -> bool {
    let whole = w.cols.is_multiple_of(amx::ROW) && w.period().is_multiple_of(amx::ROW);
    (LEAST..=TOKENS).contains(&tokens) && w.rows >= SIXTEEN && whole
}

/// `out(row, t, y)` for runs of the rows `range` of `w` and each of a tile's tokens in turn.
///
/// # Safety
///
/// [`amx::is_supported`], and no other [`Tiles`] of this thread are in use.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub unsafe fn matmul(w: &Grouped, range: Range<usize>, x: &Tile, mut out: impl FnMut(usize, usize, &[f32])) {
    assert!(takes(w, x.len) && x.quads.len() == w.cols / QUAD * x.len, "a tile");
    let by_token = amx::Shape { rows: SIXTEEN, row_bytes: QUAD * x.len };
    // SAFETY: by the contract.
    let _tiles = unsafe {
        Tiles::new([by_token, amx::Shape::WHOLE, by_token, by_token, by_token, by_token, by_token, by_token])
    };
    let [mut quants, mut scales, _] = streams(w, range.clone(), SIXTEEN);
    let mut sums = Sums([[0; SIXTEEN]; SIXTEEN]);
    let here = u16::MAX >> (TOKENS - x.len);
    for from in range.clone().step_by(SIXTEEN) {
        scales.read(SIXTEEN * w.scales.len() / w.rows);
        // The last rows begin among those before them.
        let first = from.min(w.rows - SIXTEEN);
        let (mut of_groups, mut none) = ([_mm512_setzero_ps(); SCALES], [_mm512_setzero_ps(); SCALES]);
        let mut of_rows = [0.0; SIXTEEN];
        let mut y = [_mm512_setzero_ps(); SIXTEEN];
        let mut outliers = x.outliers.iter().peekable();
        for (i, start) in (0..w.cols).step_by(w.period()).enumerate() {
            let end = w.cols.min(start + w.period());
            if start.is_multiple_of(w.group) {
                let group = start / w.group;
                if group.is_multiple_of(SCALES) {
                    sixteen_scales(w, first, group, &mut of_groups, &mut none);
                }
                of_rows = to_array(of_groups[group % SCALES]);
            }
            // SAFETY: the tiles are in use; their bytes are of sixteen rows of `w`, and of the tokens' quads.
            unsafe {
                let (w, stride) = (w.quants.as_ptr().add(first * w.cols), w.cols);
                let x: *const u8 = x.quads.as_ptr().cast();
                amx::zero::<0>();
                for at in (start..end).step_by(amx::ROW) {
                    quants.read(SIXTEEN * amx::ROW);
                    amx::load::<1>(w.add(at), stride);
                    amx::load::<2>(x.add(at * by_token.row_bytes / QUAD), by_token.row_bytes);
                    amx::dot_bytes::<0, 1, 2>();
                }
                amx::store::<0>(sums.0.as_mut_ptr().cast(), amx::ROW);
            }
            // SAFETY: as many scales as there are tokens.
            let x_scales = unsafe { _mm512_maskz_loadu_ps(here, x.scales[i * x.len..][..x.len].as_ptr()) };
            for ((y, sums), scale) in y.iter_mut().zip(&sums.0).zip(of_rows) {
                // SAFETY: sixteen sums.
                let sums = _mm512_cvtepi32_ps(unsafe { _mm512_load_si512(sums.as_ptr().cast()) });
                *y = _mm512_fmadd_ps(sums, _mm512_mul_ps(_mm512_set1_ps(scale), x_scales), *y);
            }
            while let Some(outlier) = outliers.next_if(|o| o.input < end) {
                add_outlier(w, first, &of_rows, outlier, &mut y);
            }
        }
        let mut by_row = [_mm512_setzero_si512(); SIXTEEN];
        for (to, y) in by_row.iter_mut().zip(y) {
            *to = _mm512_castps_si512(y);
        }
        for (t, column) in transpose_sixteen(by_row).into_iter().enumerate().take(x.len) {
            out(from, t, &to_array(_mm512_castsi512_ps(column))[from - first..]);
        }
    }
}

/// Sums of sixteen rows and each token.
#[repr(align(64))]
struct Sums([[i32; SIXTEEN]; SIXTEEN]);

/// Adds the products of an activation that was left out to its token's numbers.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn add_outlier(
    w: &Grouped,
    from: usize,
    scales: &[f32; SIXTEEN],
    outlier: &Outlier,
    y: &mut [__m512; SIXTEEN],
) {
    let (value, token) = (_mm512_set1_ps(outlier.value), 1 << outlier.token);
    for (r, (y, scale)) in y.iter_mut().zip(scales).enumerate() {
        let quant = w.quants[(from + r) * w.cols + outlier.input] as i8;
        let weight = _mm512_set1_ps(scale * f32::from(quant));
        *y = _mm512_mask3_fmadd_ps(value, weight, *y, token);
    }
}
