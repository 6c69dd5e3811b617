//! Matrix registers: sixteen tokens by sixteen rows, 64 numbers of each at once.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::tile::{Outlier, Shape};
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

/// The sums of some periods, where they are stored: `[N, tokens, rows]`
#[repr(align(64))]
struct Sums<const N: usize>(MaybeUninit<[[[i32; ROWS]; TOKENS]; N]>);

impl<const N: usize> Sums<N> {
    const NONE: Self = Self(MaybeUninit::uninit());

    /// Stores tiles 0 to 3, or those of sixteen tokens, as period `n`.
    ///
    /// # Safety
    ///
    /// The [`tiles`] are in use.
    #[inline(always)]
    unsafe fn store(&mut self, n: usize, tokens: usize) {
        assert!(n < N, "a period");
        let to: *mut u8 = self.0.as_mut_ptr().cast();
        // SAFETY: by the contract; there is room for four tiles of each period.
        unsafe {
            let to = to.add(n * TOKENS * STRIDE);
            amx::store::<0>(to, STRIDE);
            amx::store::<1>(to.add(amx::ROW), STRIDE);
            if tokens > SIXTEEN {
                amx::store::<2>(to.add(SIXTEEN * STRIDE), STRIDE);
                amx::store::<3>(to.add(SIXTEEN * STRIDE + amx::ROW), STRIDE);
            }
        }
    }

    /// Sixteen sums of a token that are stored: of half `h` of the rows.
    ///
    /// # Safety
    ///
    /// They are.
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    #[inline]
    unsafe fn load(&self, n: usize, token: usize, h: usize) -> __m512i {
        debug_assert!(n < N && token < TOKENS && h < 2);
        let from: *const i32 = self.0.as_ptr().cast();
        // SAFETY: by the contract.
        unsafe { _mm512_load_si512(from.add((n * TOKENS + token) * ROWS + h * SIXTEEN).cast()) }
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
    let inputs = periods.start * q.period..periods.end * q.period;
    let outliers = tile.outliers.iter().any(|outlier| inputs.contains(&outlier.input));
    // Outliers join between periods; long periods leave time enough for what is done after each.
    let one = outliers || q.period > 2 * amx::ROW;
    // SAFETY: by the contract.
    unsafe {
        match (one, q.has_min) {
            (true, false) => batches::<1, false>(panel, q, tile, periods, y),
            (true, true) => batches::<1, true>(panel, q, tile, periods, y),
            (false, false) => batches::<BATCH, false>(panel, q, tile, periods, y),
            (false, true) => batches::<BATCH, true>(panel, q, tile, periods, y),
        }
    }
}

/// Short periods that are scaled together, so that `y` is read and written less often.
const BATCH: usize = 2;

/// Takes `N` periods at once. What they are scaled by is multiplied while the registers work on the next ones: a few
/// tokens after each product.
///
/// # Safety
///
/// As [`multiply`].
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn batches<const N: usize, const MIN: bool>(
    panel: &Panel,
    q: &Quantization,
    tile: &Tile,
    periods: Range<usize>,
    y: &mut [[f32; ROWS]],
) {
    let skipped = tile.outliers.partition_point(|o| o.input < periods.start * q.period);
    let mut outliers = tile.outliers[skipped..].iter().peekable();
    // Of even and odd batches.
    let mut sums = [Sums::<N>::NONE; 2];
    let mut before = periods.start..periods.start;
    let share = TOKENS / (q.period.div_ceil(amx::ROW) * PRODUCTS * N);
    for turn in 0..=periods.len().div_ceil(N) {
        let these = before.end..periods.end.min(before.end + N);
        let [even, odd] = &mut sums;
        let (to, from) = if turn % 2 == 0 { (even, odd) } else { (odd, even) };
        let mut rest = Scaling::<N, MIN>::new(panel, tile, &before);
        for (n, i) in these.clone().enumerate() {
            // SAFETY: by the contract; the last batch was stored.
            unsafe {
                products(panel, q, tile, i, || rest.advance(share, from, y));
                to.store(n, tile.len);
            }
        }
        // SAFETY: as above.
        unsafe { rest.advance(TOKENS, from, y) };
        while let Some(outlier) = outliers.next_if(|o| o.input < before.end * q.period) {
            add_outlier(panel, q, outlier, &mut y[outlier.token]);
        }
        before = these;
    }
}

/// Products of a step.
const PRODUCTS: usize = 4;

/// The products of a period, in tiles 0 to 3: of the first sixteen tokens those with the first rows and the others, then
/// of the other tokens. Calls `between` after each.
///
/// # Safety
///
/// The [`tiles`] for `q` are in use.
#[inline(always)]
unsafe fn products(panel: &Panel, q: &Quantization, tile: &Tile, period: usize, mut between: impl FnMut()) {
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
            between();
            amx::load::<7>(w.add(amx::ROW), STRIDE);
            amx::dot_bytes::<1, 4, 7>();
            between();
            if tile.len > SIXTEEN {
                amx::load::<5>(x.add(SIXTEEN * step), step);
                amx::dot_bytes::<2, 5, 6>();
                between();
                amx::dot_bytes::<3, 5, 7>();
                between();
            }
            (w, x) = (w.add(step / QUAD * STRIDE), x.add(TOKENS * step));
        }
    }
}

/// What the sums of `N` periods, or fewer, are scaled by on their way to `y`.
struct Scaling<'a, const N: usize, const MIN: bool> {
    periods: Range<usize>,
    scales: [[__m512; 2]; N],
    mins: [[__m512; 2]; N],
    x_scales: [&'a [f32; TOKENS]; N],
    x_sums: [&'a [f32; TOKENS]; N],
    /// The next token.
    token: usize,
    tokens: usize,
}

impl<'a, const N: usize, const MIN: bool> Scaling<'a, N, MIN> {
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    #[inline]
    fn new(panel: &Panel, tile: &'a Tile, periods: &Range<usize>) -> Self {
        let (zeros, nothing) = ([[_mm512_setzero_ps(); 2]; N], [&[0.0; TOKENS]; N]);
        let tokens = if periods.is_empty() { 0 } else { tile.len };
        let mut scaling = Self {
            periods: periods.clone(),
            scales: zeros,
            mins: zeros,
            x_scales: nothing,
            x_sums: nothing,
            token: 0,
            tokens,
        };
        for (n, i) in periods.clone().enumerate().take(N) {
            scaling.scales[n] = halves(&panel.scales, i);
            scaling.x_scales[n] = &tile.scales.as_chunks().0[i];
            if MIN {
                scaling.mins[n] = halves(&panel.mins, i);
                scaling.x_sums[n] = &tile.sums.as_chunks().0[i];
            }
        }
        scaling
    }

    /// Adds the sums of so many more tokens to `y`.
    ///
    /// # Safety
    ///
    /// Those of these periods are stored.
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    #[inline]
    unsafe fn advance(&mut self, count: usize, sums: &Sums<N>, y: &mut [[f32; ROWS]]) {
        let end = self.tokens.min(self.token + count);
        let y = &mut y[self.token..end];
        for (t, y) in (self.token..end).zip(y) {
            let [mut low, mut high] = [_mm512_setzero_ps(); 2];
            if self.periods.start > 0 {
                // SAFETY: two registers of numbers.
                [low, high] =
                    unsafe { [_mm512_loadu_ps(y.as_ptr()), _mm512_loadu_ps(y.as_ptr().add(SIXTEEN))] };
            }
            for n in 0..N {
                if n > 0 && n >= self.periods.len() {
                    break;
                }
                let (scales, x_scale) = (self.scales[n], _mm512_set1_ps(self.x_scales[n][t]));
                // SAFETY: by the contract.
                let [a, b] = unsafe { [sums.load(n, t, 0), sums.load(n, t, 1)] };
                low = _mm512_fmadd_ps(_mm512_cvtepi32_ps(a), _mm512_mul_ps(scales[0], x_scale), low);
                high = _mm512_fmadd_ps(_mm512_cvtepi32_ps(b), _mm512_mul_ps(scales[1], x_scale), high);
                if MIN {
                    let (mins, x_sum) = (self.mins[n], _mm512_set1_ps(self.x_sums[n][t]));
                    low = _mm512_fmadd_ps(x_sum, mins[0], low);
                    high = _mm512_fmadd_ps(x_sum, mins[1], high);
                }
            }
            // SAFETY: two registers of numbers.
            unsafe {
                _mm512_storeu_ps(y.as_mut_ptr(), low);
                _mm512_storeu_ps(y.as_mut_ptr().add(SIXTEEN), high);
            }
        }
        self.token = end;
    }
}

/// Adds the products of an activation that was left out to its token's numbers.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn add_outlier(panel: &Panel, q: &Quantization, outlier: &Outlier, y: &mut [f32; ROWS]) {
    let (input, period) = (outlier.input, outlier.input / q.period);
    let scales = halves(&panel.scales, period);
    let mins = if q.has_min { halves(&panel.mins, period) } else { [_mm512_setzero_ps(); 2] };
    let lines: &[_; 2] = &panel.lines.as_chunks().0[input / QUAD];
    let (value, shift) = (_mm512_set1_ps(outlier.value), _mm_cvtsi32_si128(24 - 8 * (input % QUAD) as i32));
    for (h, y) in y.as_chunks_mut::<SIXTEEN>().0.iter_mut().enumerate() {
        // SAFETY: a line of quants and sixteen numbers.
        unsafe {
            let quads = _mm512_load_si512((&raw const lines[h]).cast());
            let quants = _mm512_srai_epi32::<24>(_mm512_sll_epi32(quads, shift));
            let weights = _mm512_fmadd_ps(scales[h], _mm512_cvtepi32_ps(quants), mins[h]);
            _mm512_storeu_ps(y.as_mut_ptr(), _mm512_fmadd_ps(value, weights, _mm512_loadu_ps(y.as_ptr())));
        }
    }
}

/// A period's numbers of a panel's rows.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn halves(v: &[[f32; OCTET]], period: usize) -> [__m512; 2] {
    let v: &[[f32; OCTET]; ROWS / OCTET] = &v.as_chunks().0[period];
    let at = v.as_flattened().as_ptr();
    // SAFETY: two registers of numbers.
    unsafe { [_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(SIXTEEN))] }
}
