//! The two products of attention over an int8 cache in matrix registers, for all rows of a tile at once.
//!
//! The 16 bits of queries and weights are two bytes, whose products are added up apart: x = 256 · high + low. The sums
//! are those of [`super::int8`], which are exact.

use std::arch::x86_64::*;
use std::ops::Range;

use super::int8;
use super::integers::Avx512Vnni;
use super::number::Plane;
use super::softmax::Softmax;
use super::tile::{self, Task};
use crate::kernels::amx::{self, Shape, Tiles, ROW, ROWS};
use crate::kernels::prefetch::LINE;
use crate::kv::BLOCK;

/// [`tile::run_int8`] on this level.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn run(tasks: [&Task; 2], q: &[f32]) -> Softmax {
    // SAFETY: this function runs only where its features are, and matrix registers.
    unsafe { tile::run_registers(Avx512Vnni::new(), tasks, q) }
}

/// Rows from which on this is faster.
pub(super) const MANY: usize = ROWS;

/// Bytes that are multiplied by four bytes of a row: of sixteen columns.
type Quad = [u8; ROW];

/// A tile's bytes.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bytes([Quad; ROWS]);

const NONE: Bytes = Bytes([[0; ROW]; ROWS]);

/// Four tiles of sums: of two sixteens of columns the high bytes', then the low ones'.
#[repr(C, align(64))]
struct Sums([[[[i32; ROWS]; ROWS]; 2]; 2]);

/// Shapes this thread's tiles: sums; of scores a sixteen of queries and of keys; of values a sixteen of weights and of
/// columns.
pub(super) fn tiles() -> Tiles {
    let whole = Shape::WHOLE;
    let (weights, values) =
        (Shape { rows: ROWS, row_bytes: BLOCK }, Shape { rows: BLOCK / 4, row_bytes: ROW });
    // SAFETY: the level exists only after it was detected, and tasks do not nest.
    unsafe { Tiles::new([whole, whole, whole, whole, whole, whole, weights, values]) }
}

/// Rows of queries in two bytes.
pub(super) struct Queries {
    /// `[⌈rows / ROWS⌉, ⌈d / ROW⌉]`, high and low.
    bytes: Vec<[Bytes; 2]>,
    queries: int8::Queries,
    steps: usize,
}

impl Queries {
    pub fn new(queries: int8::Queries, rows: usize, d: usize) -> Self {
        let steps = d.div_ceil(ROW);
        let mut bytes = vec![[NONE; 2]; rows.div_ceil(ROWS) * steps];
        for row in 0..rows {
            let to = &mut bytes[row / ROWS * steps..][..steps];
            for (q, [high, low]) in queries.row(row).as_flattened().chunks(ROW).zip(to) {
                let (high, low) = (&mut high.0[row % ROWS], &mut low.0[row % ROWS]);
                for ((q, high), low) in q.iter().zip(high).zip(low) {
                    (*high, *low) = ((q >> 8) as u8, *q as u8);
                }
            }
        }
        Self { bytes, queries, steps }
    }
}

/// What turns a plane's rows, two by two, into rows four by four.
#[derive(Default)]
pub(super) struct Quads(Vec<[Bytes; 2]>);

/// Interleaves pairs: of `a` and of `b` the first, and so on; those of the first sixteen columns and of the others.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn interleave(a: __m512i, b: __m512i) -> [__m512i; 2] {
    let (low, high) = (_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b));
    // Quarters of both in turn.
    let first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    let second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    [_mm512_permutex2var_epi64(low, first, high), _mm512_permutex2var_epi64(low, second, high)]
}

impl Quads {
    /// Keys `[d / 2, BLOCK, 2]`, and a last row `[BLOCK]` where `d` is odd.
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    fn keys(&mut self, keys: &Plane<i8>) -> &[[Bytes; 2]] {
        let (pairs, last) = keys.numbers.as_chunks::<{ 2 * BLOCK }>();
        let count = pairs.len() + usize::from(!last.is_empty());
        self.0.resize(count.div_ceil(2 * ROWS), [NONE; 2]);
        let row = |i: usize| {
            keys.fetch(i * 2 * BLOCK);
            if let Some(pair) = pairs.get(i) {
                // SAFETY: 64 bytes.
                unsafe { _mm512_loadu_si512(pair.as_ptr().cast()) }
            } else if i == pairs.len() && !last.is_empty() {
                // SAFETY: 32 bytes.
                _mm512_cvtepu8_epi16(unsafe { _mm256_loadu_si256(last.as_ptr().cast()) })
            } else {
                _mm512_setzero_si512()
            }
        };
        for (step, to) in self.0.iter_mut().enumerate() {
            for j in 0..ROWS {
                let i = 2 * (step * ROWS + j);
                let [first, second] = interleave(row(i), row(i + 1));
                // SAFETY: rows of 64 bytes.
                unsafe {
                    _mm512_store_si512(to[0].0[j].as_mut_ptr().cast(), first);
                    _mm512_store_si512(to[1].0[j].as_mut_ptr().cast(), second);
                }
            }
        }
        &self.0
    }

    /// Values `[BLOCK / 2, d, 2]`: of two sixteens of columns after another, the last perhaps of nothing.
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    fn values(&mut self, values: &Plane<i8>, d: usize) -> &[[Bytes; 2]] {
        self.0.resize(d.div_ceil(2 * ROWS), [NONE; 2]);
        for line in (0..values.numbers.len()).step_by(LINE) {
            values.fetch(line);
        }
        for (two, to) in self.0.iter_mut().enumerate() {
            let columns = 2 * ROWS * two..d.min(2 * ROWS * (two + 1));
            let mask = u32::MAX >> (2 * ROWS - columns.len());
            for j in 0..BLOCK / 4 {
                let row = |i: usize| {
                    let pairs = &values.numbers[2 * (i * d + columns.start)..2 * (i * d + columns.end)];
                    // SAFETY: so many pairs; those that the mask leaves out are not touched.
                    unsafe { _mm512_maskz_loadu_epi16(mask, pairs.as_ptr().cast()) }
                };
                let [first, second] = interleave(row(2 * j), row(2 * j + 1));
                // SAFETY: rows of 64 bytes.
                unsafe {
                    _mm512_store_si512(to[0].0[j].as_mut_ptr().cast(), first);
                    _mm512_store_si512(to[1].0[j].as_mut_ptr().cast(), second);
                }
            }
        }
        &self.0
    }
}

/// 256 · high + low of a row's sixteen columns.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn whole(sums: &Sums, half: usize, row: usize) -> __m512 {
    // SAFETY: sixteen sums each.
    let [high, low] = unsafe {
        [
            _mm512_load_si512(sums.0[0][half][row].as_ptr().cast()),
            _mm512_load_si512(sums.0[1][half][row].as_ptr().cast()),
        ]
    };
    _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32::<8>(high), low))
}

/// Writes tiles 0 to 3.
///
/// # Safety
///
/// The [`tiles`] are in use.
#[inline(always)]
unsafe fn store(sums: &mut Sums) {
    let [[a, b], [c, d]] = &mut sums.0;
    // SAFETY: by the contract.
    unsafe {
        amx::store::<0>(a.as_mut_ptr().cast(), ROW);
        amx::store::<1>(b.as_mut_ptr().cast(), ROW);
        amx::store::<2>(c.as_mut_ptr().cast(), ROW);
        amx::store::<3>(d.as_mut_ptr().cast(), ROW);
    }
}

/// # Safety
///
/// The [`tiles`] are in use.
#[inline(always)]
unsafe fn zero() {
    // SAFETY: by the contract.
    unsafe {
        amx::zero::<0>();
        amx::zero::<1>();
        amx::zero::<2>();
        amx::zero::<3>();
    }
}

/// Scores of all rows.
///
/// # Safety
///
/// The [`tiles`] are in use.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn score(
    queries: &Queries,
    keys: &Plane<i8>,
    quads: &mut Quads,
    scores: &mut [[f32; BLOCK]],
) {
    keys.fetch_scales();
    let scales = keys.scales.expect("scales of an int8 cache");
    let quads = quads.keys(keys);
    let mut sums = Sums([[[[0; ROWS]; ROWS]; 2]; 2]);
    for (i, (bytes, scores)) in queries.bytes.chunks(queries.steps).zip(scores.chunks_mut(ROWS)).enumerate() {
        // SAFETY: by the contract; whole tiles are read.
        unsafe {
            zero();
            for ([high, low], [first, second]) in bytes.iter().zip(quads) {
                amx::load::<4>(high.0.as_ptr().cast(), ROW);
                amx::load::<5>(first.0.as_ptr().cast(), ROW);
                amx::dot_bytes::<0, 4, 5>();
                amx::load::<5>(second.0.as_ptr().cast(), ROW);
                amx::dot_bytes::<1, 4, 5>();
                amx::load::<4>(low.0.as_ptr().cast(), ROW);
                amx::dot_low_bytes::<3, 4, 5>();
                amx::load::<5>(first.0.as_ptr().cast(), ROW);
                amx::dot_low_bytes::<2, 4, 5>();
            }
            store(&mut sums);
        }
        for (row, scores) in scores.iter_mut().enumerate() {
            let factor = _mm512_set1_ps(queries.queries.factor(ROWS * i + row));
            for half in 0..2 {
                let at = half * ROWS;
                // SAFETY: sixteen numbers each.
                unsafe {
                    let scale = _mm512_loadu_ps(scales[at..].as_ptr());
                    let score = _mm512_mul_ps(_mm512_mul_ps(whole(&sums, half, row), factor), scale);
                    _mm512_storeu_ps(scores[at..].as_mut_ptr(), score);
                }
            }
        }
    }
}

/// A block's weights of all rows.
#[derive(Default)]
pub(super) struct Weights {
    /// `[⌈rows / ROWS⌉]` of high bytes, then of low ones: `[ROWS, BLOCK]`
    bytes: Vec<[[[u8; BLOCK]; ROWS]; 2]>,
    before: Vec<f32>,
    here: Vec<f32>,
    /// Rows that see something of the block.
    seen: Range<usize>,
}

impl Weights {
    /// Of no row.
    pub fn reset(&mut self, rows: usize) {
        self.bytes.resize(rows.div_ceil(ROWS), [[[0; BLOCK]; ROWS]; 2]);
        self.before.resize(rows, 0.0);
        self.here.resize(rows, 0.0);
        self.seen = 0..0;
    }

    /// Those of `R` rows that follow the others.
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    #[inline]
    pub fn set<const R: usize>(&mut self, row: usize, weights: &[int8::Weights; R]) {
        if self.seen.is_empty() {
            self.seen.start = row;
        }
        self.seen.end = row + R;
        for (row, int8::Weights { pairs, before, here }) in (row..).zip(weights) {
            (self.before[row], self.here[row]) = (*before, *here);
            let [high, low] = &mut self.bytes[row / ROWS];
            let (high, low) = (high[row % ROWS].as_mut_ptr(), low[row % ROWS].as_mut_ptr());
            // SAFETY: a row of weights, and room for its bytes.
            unsafe {
                let weights = _mm512_loadu_si512(pairs.as_ptr().cast());
                _mm256_storeu_si256(high.cast(), _mm512_cvtepi16_epi8(_mm512_srli_epi16::<8>(weights)));
                _mm256_storeu_si256(low.cast(), _mm512_cvtepi16_epi8(weights));
            }
        }
    }
}

/// Adds the values of a block to the sums `[rows, width]` of the rows that see something of it.
///
/// # Safety
///
/// The [`tiles`] are in use.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn add_values(
    weights: &Weights,
    values: &Plane<i8>,
    quads: &mut Quads,
    d: usize,
    width: usize,
    sums: &mut [f32],
) {
    let quads = quads.values(values, d);
    let mut here = Sums([[[[0; ROWS]; ROWS]; 2]; 2]);
    let seen = &weights.seen;
    for sixteen in seen.start / ROWS..seen.end.div_ceil(ROWS) {
        let [high, low] = &weights.bytes[sixteen];
        let rows = seen.start.max(sixteen * ROWS)..seen.end.min((sixteen + 1) * ROWS);
        for (two, [first, second]) in quads.iter().enumerate() {
            // SAFETY: by the contract; whole tiles are read.
            unsafe {
                zero();
                amx::load::<6>(high.as_ptr().cast(), BLOCK);
                amx::load::<7>(first.0.as_ptr().cast(), ROW);
                amx::dot_low_bytes::<0, 6, 7>();
                amx::load::<7>(second.0.as_ptr().cast(), ROW);
                amx::dot_low_bytes::<1, 6, 7>();
                amx::load::<6>(low.as_ptr().cast(), BLOCK);
                amx::dot_low_bytes::<3, 6, 7>();
                amx::load::<7>(first.0.as_ptr().cast(), ROW);
                amx::dot_low_bytes::<2, 6, 7>();
                store(&mut here);
            }
            for row in rows.clone() {
                let sums = &mut sums[row * width + 2 * ROWS * two..][..2 * ROWS];
                let [before, factor] = [weights.before[row], weights.here[row]].map(|x| _mm512_set1_ps(x));
                for (half, sums) in sums.chunks_exact_mut(ROWS).enumerate() {
                    // SAFETY: sixteen numbers.
                    unsafe {
                        let before = _mm512_mul_ps(_mm512_loadu_ps(sums.as_ptr()), before);
                        let sum = _mm512_fmadd_ps(whole(&here, half, row % ROWS), factor, before);
                        _mm512_storeu_ps(sums.as_mut_ptr(), sum);
                    }
                }
            }
        }
    }
}
