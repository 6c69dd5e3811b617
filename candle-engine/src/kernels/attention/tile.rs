//! One tile: queries of one sequence and KV head, taken through the blocks that they see.

use std::ops::Range;

use half::f16;

use super::{AttentionSpec, Heads, KvSlice, SequenceKv};
use crate::kernels::lanes::{add_lanes, Arith, LANES};
use crate::kernels::math::{exp, tanh};
use crate::kv::BLOCK;

/// Rows that share a pass over a block: their partial results fill AVX2's registers.
const ROWS: usize = 4;

/// Rows from which a block of f16 is widened once for all, rather than in each pass.
const WIDEN_ROWS: usize = 2 * ROWS;

/// Queries `first..first + queries` of a sequence, whose rows begin at `row` of `q`.
pub(super) struct Tile<'a> {
    pub spec: &'a AttentionSpec,
    pub sequence: &'a SequenceKv<'a>,
    pub first: usize,
    pub queries: usize,
    pub row: usize,
}

impl Tile<'_> {
    /// The positions that a query sees.
    #[inline(always)]
    fn sees(&self, query: usize) -> Range<usize> {
        let position = self.sequence.start + self.first + query;
        let end = if self.spec.causal { position + 1 } else { self.sequence.start + self.sequence.len };
        let start = self.spec.window.map_or(0, |window| (position + 1).saturating_sub(window));
        start..end
    }
}

/// A number of the cache.
trait Number: Copy {
    const ZERO: Self;
    fn load<A: Arith>(arith: A, x: &[Self]) -> A::V;
}

impl Number for f32 {
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn load<A: Arith>(arith: A, x: &[Self]) -> A::V {
        arith.load(x)
    }
}

impl Number for f16 {
    const ZERO: Self = Self::ZERO;

    #[inline(always)]
    fn load<A: Arith>(arith: A, x: &[Self]) -> A::V {
        arith.load_f16(x)
    }
}

/// The state of a tile's rows, `[queries, group]` of them.
struct Rows {
    d: usize,
    /// Columns of `sums`: `d`, rounded up to whole panels.
    width: usize,
    /// `[rows, d]`, scaled.
    q: Vec<f32>,
    /// Weighted sums of values so far, `[rows, width]`.
    sums: Vec<f32>,
    /// Largest score so far.
    max: Vec<f32>,
    /// Sum of the weights so far.
    total: Vec<f32>,
    /// What the last block multiplied sums and total by.
    rescale: Vec<f32>,
    /// Scores in the current block, then weights.
    scores: Vec<[f32; BLOCK]>,
}

/// Computes a tile for one KV head; `out[query]` takes the group's rows of a query.
#[inline(always)]
pub(super) fn run(arith: impl Arith, tile: &Tile, head: usize, q: &[f32], out: &mut [&mut [f32]]) {
    let Heads { heads, kv_heads, head_dim: d } = tile.spec.heads;
    let group = heads / kv_heads;
    let count = tile.queries * group;
    let width = d.next_multiple_of(BLOCK);
    let mut rows = Rows {
        d,
        width,
        q: Vec::with_capacity(count * d),
        sums: vec![0.0; count * width],
        max: vec![f32::NEG_INFINITY; count],
        total: vec![0.0; count],
        rescale: vec![0.0; count],
        scores: vec![[0.0; BLOCK]; count],
    };
    for query in 0..tile.queries {
        let from = ((tile.row + query) * heads + head * group) * d;
        rows.q.extend(q[from..from + group * d].iter().map(|q| q * tile.spec.scale));
    }

    let mut wide = Vec::new();
    let plane = BLOCK * d;
    let blocks = tile.sees(0).start / BLOCK..tile.sees(tile.queries - 1).end.div_ceil(BLOCK);
    for block in blocks {
        let range = head * plane..(head + 1) * plane;
        match (tile.sequence.keys[block], tile.sequence.values[block]) {
            (KvSlice::F32(keys), KvSlice::F32(values)) => {
                rows.block(arith, tile, block, &keys[range.clone()], &values[range]);
            }
            (KvSlice::F16(keys), KvSlice::F16(values)) => {
                let (keys, values) = (&keys[range.clone()], &values[range]);
                if count < WIDEN_ROWS {
                    rows.block(arith, tile, block, keys, values);
                } else {
                    wide.resize(2 * plane, 0.0);
                    let (wide_keys, wide_values) = wide.split_at_mut(plane);
                    widen(arith, keys, wide_keys);
                    widen(arith, values, wide_values);
                    rows.block(arith, tile, block, wide_keys, wide_values);
                }
            }
            _ => panic!("attention: keys and values of two formats"),
        }
    }

    for (query, out) in out.iter_mut().enumerate() {
        for (out, row) in out.chunks_exact_mut(d).zip(query * group..) {
            let total = rows.total[row];
            for (out, sum) in out.iter_mut().zip(&rows.sums[row * width..]) {
                *out = sum / total;
            }
        }
    }
}

#[inline(always)]
fn widen(arith: impl Arith, x: &[f16], out: &mut [f32]) {
    // A plane is a multiple of BLOCK numbers.
    for (x, out) in x.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        *out = arith.widen(x);
    }
}

impl Rows {
    /// Takes in one block: keys `[d, BLOCK]`, values `[BLOCK, d]`.
    #[inline(always)]
    fn block<N: Number>(&mut self, arith: impl Arith, tile: &Tile, block: usize, keys: &[N], values: &[N]) {
        let group = self.max.len() / tile.queries;
        let seen = |query: usize| {
            let Range { start, end } = tile.sees(query);
            let within = |position: usize| position.saturating_sub(block * BLOCK).min(BLOCK);
            within(start)..within(end)
        };
        // Queries that see the same part of the block go through it together.
        let mut query = 0;
        while query < tile.queries {
            let first = query;
            let part = seen(first);
            while query < tile.queries && seen(query) == part {
                query += 1;
            }
            if part.is_empty() {
                continue;
            }
            let mut row = first * group;
            let end = query * group;
            while row < end {
                row += match end - row {
                    1 => self.pass::<1, 4, N>(arith, tile, row, part.clone(), keys, values),
                    2 => self.pass::<2, 2, N>(arith, tile, row, part.clone(), keys, values),
                    3 => self.pass::<3, 2, N>(arith, tile, row, part.clone(), keys, values),
                    _ => self.pass::<ROWS, 2, N>(arith, tile, row, part.clone(), keys, values),
                };
            }
        }
    }

    /// Takes `R` rows from `row` on through the part of a block that they see; `P` registers of columns at
    /// a time.
    #[inline(always)]
    fn pass<const R: usize, const P: usize, N: Number>(
        &mut self,
        arith: impl Arith,
        tile: &Tile,
        row: usize,
        part: Range<usize>,
        keys: &[N],
        values: &[N],
    ) -> usize {
        let q: [&[f32]; R] = std::array::from_fn(|r| &self.q[(row + r) * self.d..][..self.d]);
        let scores: &mut [[f32; BLOCK]; R] = (&mut self.scores[row..row + R]).try_into().expect("R rows");
        score::<R, P, N, _>(arith, q, keys, scores);
        for (r, scores) in scores.iter_mut().enumerate() {
            if let Some(cap) = tile.spec.softcap {
                for score in &mut *scores {
                    *score = cap * tanh(arith, *score / cap);
                }
            }
            self.rescale[row + r] =
                weigh(arith, scores, part.clone(), &mut self.max[row + r], &mut self.total[row + r]);
        }
        let rescale: &[f32; R] = self.rescale[row..row + R].try_into().expect("R rows");
        let sums = &mut self.sums[row * self.width..(row + R) * self.width];
        add_values::<R, P, N, _>(arith, scores, part, rescale, values, self.d, sums);
        R
    }
}

/// `P` registers of a panel. A level whose registers are too wide for so many columns reads some twice.
#[inline(always)]
fn load_panel<const P: usize, N: Number, A: Arith>(arith: A, x: &[N]) -> [A::V; P] {
    // No closure: outside of this function it would be compiled without the level's features.
    let mut panel = [arith.splat(0.0); P];
    for (p, v) in panel.iter_mut().enumerate() {
        *v = N::load(arith, &x[p * A::N % x.len()..]);
    }
    panel
}

/// Scores of `R` rows: q `[R, d]` · keys `[d, BLOCK]`, each one sum over d in order.
#[inline(always)]
fn score<const R: usize, const P: usize, N: Number, A: Arith>(
    arith: A,
    q: [&[f32]; R],
    keys: &[N],
    scores: &mut [[f32; BLOCK]; R],
) {
    let (keys, _) = keys.as_chunks::<BLOCK>();
    let q = q.map(|q| &q[..keys.len()]);
    let step = (P * A::N).min(BLOCK);
    for panel in (0..BLOCK).step_by(step) {
        let mut sums = [[arith.splat(0.0); P]; R];
        for (i, keys) in keys.iter().enumerate() {
            let keys = load_panel::<P, N, A>(arith, &keys[panel..panel + step]);
            for r in 0..R {
                let q = arith.splat(q[r][i]);
                for p in 0..P {
                    sums[r][p] = arith.mul_add_v(q, keys[p], sums[r][p]);
                }
            }
        }
        for r in 0..R {
            for p in 0..P {
                arith.store(sums[r][p], &mut scores[r][panel + p * A::N % step..]);
            }
        }
    }
}

/// Turns a row's scores into weights relative to the largest score so far, and brings its total up to date.
/// Returns the factor that brings earlier sums to the same scale.
#[inline(always)]
fn weigh(
    arith: impl Arith,
    scores: &mut [f32; BLOCK],
    part: Range<usize>,
    max: &mut f32,
    total: &mut f32,
) -> f32 {
    if part.len() < BLOCK {
        for (j, score) in scores.iter_mut().enumerate() {
            *score = if part.contains(&j) { *score } else { f32::NEG_INFINITY };
        }
    }
    let largest = crate::kernels::lanes::max(scores);
    let largest = if largest > *max { largest } else { *max };
    let rescale = exp(arith, *max - largest);
    for score in &mut *scores {
        *score = exp(arith, *score - largest);
    }
    let mut lanes = [0.0; LANES];
    for l in 0..LANES {
        lanes[l] = scores[l] + scores[l + LANES];
    }
    *total = arith.mul_add(*total, rescale, add_lanes(lanes));
    *max = largest;
    rescale
}

/// sums = sums · rescale + weights `[R, part]` · values `[part, d]`, in the order of positions.
#[inline(always)]
fn add_values<const R: usize, const P: usize, N: Number, A: Arith>(
    arith: A,
    weights: &[[f32; BLOCK]; R],
    part: Range<usize>,
    rescale: &[f32; R],
    values: &[N],
    d: usize,
    sums: &mut [f32],
) {
    assert!(part.end <= BLOCK && values.len() == BLOCK * d);
    let (width, step) = (sums.len() / R, (P * A::N).min(BLOCK));
    let mut rest = [N::ZERO; BLOCK];
    for panel in (0..d).step_by(step) {
        let mut acc = [[arith.splat(0.0); P]; R];
        for r in 0..R {
            let (sums, rescale) = (&sums[r * width + panel..][..step], arith.splat(rescale[r]));
            for p in 0..P {
                acc[r][p] = arith.mul_v(arith.load(&sums[p * A::N % step..]), rescale);
            }
        }
        for j in part.clone() {
            let columns = &values[j * d + panel..];
            let columns = match columns.get(..step) {
                Some(columns) if panel + step <= d => columns,
                _ => {
                    rest[..d - panel].copy_from_slice(&columns[..d - panel]);
                    &rest[..step]
                }
            };
            let columns = load_panel::<P, N, A>(arith, columns);
            for r in 0..R {
                let weight = arith.splat(weights[r][j]);
                for p in 0..P {
                    acc[r][p] = arith.mul_add_v(weight, columns[p], acc[r][p]);
                }
            }
        }
        for r in 0..R {
            let sums = &mut sums[r * width + panel..][..step];
            for p in 0..P {
                arith.store(acc[r][p], &mut sums[p * A::N % step..]);
            }
        }
    }
}
