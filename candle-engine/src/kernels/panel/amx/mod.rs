//! Matrix registers: sixteen tokens by sixteen rows, 64 numbers of each at once.

mod groups;

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

pub use self::groups::finish;
use super::tile::{Outlier, Parts, Shape};
use super::x86::{field_of_sixteen, from_array};
use super::{Line, Panel, Quantization, Tile, OCTET, QUAD, SIXTEEN, UNIT};
use crate::kernels::amx::{self, Tiles};

/// Rows of a panel: two tiles.
pub const ROWS: usize = 2 * SIXTEEN;

/// Tokens that are multiplied at once: two tiles.
pub const TOKENS: usize = 2 * SIXTEEN;

/// Bytes from a token's numbers to the next one's, and from a quad of a panel to the next one.
const STRIDE: usize = 4 * ROWS;

/// Whether there are tiles for groups of this length.
pub fn takes(q: &Quantization) -> bool {
    q.group.is_multiple_of(if q.has_sub_scales() { amx::ROW } else { UNIT })
}

/// Numbers that tiles hold of a row: they divide a group.
fn step(q: &Quantization) -> usize {
    if q.group.is_multiple_of(amx::ROW) {
        amx::ROW
    } else {
        UNIT
    }
}

/// How the tokens are to lie.
pub fn shape(q: &Quantization) -> Shape {
    Shape { width: TOKENS, run: step(q) / QUAD, parts: Parts::Quads }
}

/// Shapes the tiles of this thread.
pub fn tiles(q: &Quantization) -> Tiles {
    let (sums, tokens) = (amx::Shape::WHOLE, amx::Shape { rows: SIXTEEN, row_bytes: step(q) });
    let rows = amx::Shape { rows: step(q) / QUAD, row_bytes: amx::ROW };
    // SAFETY: the level exists only after it was detected, and tasks do not nest.
    unsafe { Tiles::new([sums, sums, sums, sums, tokens, tokens, rows, rows]) }
}

/// Sums that are stored: `[tokens, rows]`, or of half of the rows those of low bytes and of high ones.
#[repr(align(64))]
struct Sums(MaybeUninit<[[i32; ROWS]; TOKENS]>);

impl Sums {
    const NONE: Self = Self(MaybeUninit::uninit());

    /// Stores tiles 0 to 3, or those of sixteen tokens.
    ///
    /// # Safety
    ///
    /// The [`tiles`] are in use.
    #[inline(always)]
    unsafe fn store(&mut self, tokens: usize) {
        let to: *mut u8 = self.0.as_mut_ptr().cast();
        // SAFETY: by the contract; there is room for four tiles.
        unsafe {
            amx::store::<0>(to, STRIDE);
            amx::store::<1>(to.add(amx::ROW), STRIDE);
            if tokens > SIXTEEN {
                amx::store::<2>(to.add(SIXTEEN * STRIDE), STRIDE);
                amx::store::<3>(to.add(SIXTEEN * STRIDE + amx::ROW), STRIDE);
            }
        }
    }

    /// Sixteen sums of a token that are stored: half `h`.
    ///
    /// # Safety
    ///
    /// They are.
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    #[inline]
    unsafe fn load(&self, token: usize, h: usize) -> __m512i {
        debug_assert!(token < TOKENS && h < 2);
        let from: *const i32 = self.0.as_ptr().cast();
        // SAFETY: by the contract.
        unsafe { _mm512_load_si512(from.add(token * ROWS + h * SIXTEEN).cast()) }
    }
}

/// Adds the products of a panel's rows and a tile's tokens to `y`, whose numbers count from the second period on. The
/// sums of a period are scaled while the registers work on the next one: a few tokens after each product.
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
    if q.has_sub_scales() {
        // SAFETY: by the contract.
        return unsafe { groups::multiply(panel, q, tile, periods, y) };
    }
    let mut outliers = tile.outliers_from(periods.start * q.period).peekable();
    // Of even and odd turns.
    let mut sums = [Sums::NONE; 2];
    let share = TOKENS / (q.period.div_ceil(amx::ROW) * PRODUCTS);
    let mut before: Option<usize> = None;
    for (turn, i) in periods.map(Some).chain([None]).enumerate() {
        let [even, odd] = &mut sums;
        let (to, from) = if turn % 2 == 0 { (even, odd) } else { (odd, even) };
        let mut rest = Scaling::new(panel, q, tile, before);
        // SAFETY: by the contract; the last period was stored.
        unsafe {
            if let Some(i) = i {
                let lines = [&panel.lines[..]; 2];
                Operands::new(lines, [0, 1], q, tile, i * q.period, q.period)
                    .multiply::<false>(|| rest.advance(share, from, y));
                to.store(tile.len);
            }
            rest.advance(TOKENS, from, y);
        }
        let done = before.map_or(0, |i| (i + 1) * q.period);
        while let Some(outlier) = outliers.next_if(|o| o.input < done) {
            add_outlier(panel, q, outlier, &mut y[outlier.token]);
        }
        before = i;
    }
}

/// Products of a step.
const PRODUCTS: usize = 4;

/// What is multiplied together: numbers `first..first + count`, of a panel and of a tile's tokens.
struct Operands<'a> {
    /// Where lines begin: those of tiles 0 and 2, and those of tiles 1 and 3.
    lines: [&'a [Line]; 2],
    quads: &'a [i32],
    step: usize,
    steps: usize,
    tokens: usize,
}

impl<'a> Operands<'a> {
    /// `lines`: those of a panel twice, or low and high bytes; of the halves `h` of its rows.
    #[inline(always)]
    fn new(
        lines: [&'a [Line]; 2],
        h: [usize; 2],
        q: &Quantization,
        tile: &'a Tile,
        first: usize,
        count: usize,
    ) -> Self {
        const LINES: usize = ROWS / SIXTEEN;
        let step = step(q);
        let steps = (q.k.next_multiple_of(step).min(first + count) - first) / step;
        let (start, quads) = (first / QUAD, steps * step / QUAD);
        let [a, b] = lines;
        let lines =
            [&a[start * LINES..][..quads * LINES][h[0]..], &b[start * LINES..][..quads * LINES][h[1]..]];
        let quads = &tile.quads[start * TOKENS..][..quads * TOKENS];
        Self { lines, quads, step, steps, tokens: tile.len }
    }

    /// Multiplies into tiles 0 to 3: the first sixteen tokens by the first lines, whose bytes have no sign if they are
    /// `LOW` ones, and by the second, then the other tokens. Calls `between` after each product.
    ///
    /// # Safety
    ///
    /// The [`tiles`] for the quantization are in use.
    #[inline(always)]
    unsafe fn multiply<const LOW: bool>(&self, mut between: impl FnMut()) {
        let step = self.step;
        let [first, second]: [*const u8; 2] = [self.lines[0].as_ptr().cast(), self.lines[1].as_ptr().cast()];
        let x: *const u8 = self.quads.as_ptr().cast();
        // SAFETY: by the contract; the slices hold what is read.
        unsafe {
            amx::zero::<0>();
            amx::zero::<1>();
            amx::zero::<2>();
            amx::zero::<3>();
            for i in 0..self.steps {
                let (at, x) = (i * step / QUAD * STRIDE, x.add(i * step * TOKENS));
                amx::load::<4>(x, step);
                amx::load::<6>(first.add(at), STRIDE);
                if LOW {
                    amx::dot_by_low_bytes::<0, 4, 6>();
                } else {
                    amx::dot_bytes::<0, 4, 6>();
                }
                between();
                amx::load::<7>(second.add(at), STRIDE);
                amx::dot_bytes::<1, 4, 7>();
                between();
                if self.tokens > SIXTEEN {
                    amx::load::<5>(x.add(SIXTEEN * step), step);
                    if LOW {
                        amx::dot_by_low_bytes::<2, 5, 6>();
                    } else {
                        amx::dot_bytes::<2, 5, 6>();
                    }
                    between();
                    amx::dot_bytes::<3, 5, 7>();
                    between();
                }
            }
        }
    }
}

/// What the sums of a period are scaled by on their way to `y`.
struct Scaling<'a> {
    is_first: bool,
    scales: [__m512; 2],
    x_scales: &'a [f32; TOKENS],
    /// Mins, and what they are multiplied by, if there are any.
    mins: Option<([__m512; 2], &'a [f32; TOKENS])>,
    /// The next token.
    token: usize,
    tokens: usize,
}

impl<'a> Scaling<'a> {
    /// Of a period of all tokens, or of nothing.
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    #[inline]
    fn new(panel: &'a Panel, q: &Quantization, tile: &'a Tile, period: Option<usize>) -> Self {
        let (tokens, period) = (period.map_or(0, |_| tile.len), period.unwrap_or(0));
        let mins = q.has_min.then(|| (halves(&panel.mins, period), &tile.sums.as_chunks().0[period]));
        let (scales, x_scales) = (halves(&panel.scales, period), &tile.scales.as_chunks().0[period]);
        Self { is_first: period == 0, scales, x_scales, mins, token: 0, tokens }
    }

    /// Adds the sums of so many more tokens to `y`.
    ///
    /// # Safety
    ///
    /// Those of this period are stored.
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    #[inline]
    unsafe fn advance(&mut self, count: usize, sums: &Sums, y: &mut [[f32; ROWS]]) {
        let end = self.tokens.min(self.token + count);
        for (t, y) in (self.token..end).zip(&mut y[self.token..end]) {
            let x_scale = _mm512_set1_ps(self.x_scales[t]);
            for (h, y) in y.as_chunks_mut::<SIXTEEN>().0.iter_mut().enumerate() {
                // SAFETY: by the contract.
                let sum = _mm512_cvtepi32_ps(unsafe { sums.load(t, h) });
                let before = if self.is_first { _mm512_setzero_ps() } else { from_array(y) };
                let mut to = _mm512_fmadd_ps(sum, _mm512_mul_ps(self.scales[h], x_scale), before);
                if let Some((mins, sums)) = &self.mins {
                    to = _mm512_fmadd_ps(_mm512_set1_ps(sums[t]), mins[h], to);
                }
                // SAFETY: sixteen numbers.
                unsafe { _mm512_storeu_ps(y.as_mut_ptr(), to) };
            }
        }
        self.token = end;
    }
}

/// Adds the products of an activation that was left out to its token's numbers.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn add_outlier(panel: &Panel, q: &Quantization, outlier: &Outlier, y: &mut [f32; ROWS]) {
    let (input, period) = (outlier.input, outlier.input / q.period);
    let scales = halves(&panel.scales, input / q.group);
    let mut mins = if q.has_min { halves(&panel.mins, input / q.group) } else { [_mm512_setzero_ps(); 2] };
    if q.has_min && q.has_sub_scales() {
        for (h, pair) in integers(&panel.sub_mins.as_chunks().0[period / 2]).into_iter().enumerate() {
            let sub_mins = field_of_sixteen(pair, 16 * (period % 2), 0xffff);
            mins[h] = _mm512_mul_ps(mins[h], _mm512_cvtepi32_ps(sub_mins));
        }
    }
    let (value, shift) = (_mm512_set1_ps(outlier.value), _mm_cvtsi32_si128(24 - 8 * (input % QUAD) as i32));
    // The byte of each row's quad, with its sign.
    let byte = |lines: &[Line], h: usize| {
        // SAFETY: a line of quads.
        let quads = unsafe { _mm512_load_si512((&raw const lines[input / QUAD * 2 + h]).cast()) };
        _mm512_srai_epi32::<24>(_mm512_sll_epi32(quads, shift))
    };
    for (h, y) in y.as_chunks_mut::<SIXTEEN>().0.iter_mut().enumerate() {
        let mut quants = byte(&panel.lines, h);
        if q.has_sub_scales() {
            let high = _mm512_slli_epi32::<8>(byte(&panel.high, h));
            quants = _mm512_or_si512(_mm512_and_si512(quants, _mm512_set1_epi32(255)), high);
        }
        let weights = _mm512_fmadd_ps(scales[h], _mm512_cvtepi32_ps(quants), mins[h]);
        // SAFETY: sixteen numbers.
        unsafe { _mm512_storeu_ps(y.as_mut_ptr(), _mm512_fmadd_ps(value, weights, from_array(y))) };
    }
}

/// A group's numbers of a panel's rows.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn halves(v: &[[f32; OCTET]], group: usize) -> [__m512; 2] {
    let v: &[[f32; OCTET]; ROWS / OCTET] = &v.as_chunks().0[group];
    let at = v.as_flattened().as_ptr();
    // SAFETY: two registers of numbers.
    unsafe { [_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(SIXTEEN))] }
}

/// Integers of a panel's rows.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn integers(v: &[[i32; OCTET]; ROWS / OCTET]) -> [__m512i; 2] {
    let at = v.as_flattened().as_ptr();
    // SAFETY: two registers of integers.
    unsafe { [_mm512_loadu_si512(at.cast()), _mm512_loadu_si512(at.add(SIXTEEN).cast())] }
}
