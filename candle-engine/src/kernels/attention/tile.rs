//! One tile: queries of one sequence and KV head, taken through the blocks that they see.

use std::ops::Range;

use super::number::{Number, Plane};
use super::products::{add_values, score, weigh};
use super::softmax::Softmax;
use super::{AttentionSpec, Heads, KvSlice, SequenceKv, SPAN};
use crate::kernels::lanes::Arith;
use crate::kernels::math::tanh;
use crate::kv::BLOCK;

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

    /// The blocks that its queries see.
    #[inline(always)]
    pub fn blocks(&self) -> Range<usize> {
        self.sees(0).start / BLOCK..self.sees(self.queries - 1).end.div_ceil(BLOCK)
    }

    /// The spans of those blocks.
    pub fn spans(&self) -> Range<usize> {
        let Range { start, end } = self.blocks();
        start / SPAN..end.div_ceil(SPAN)
    }
}

/// A tile at work, for one KV head.
struct Work<'a> {
    tile: &'a Tile<'a>,
    /// The KV head.
    head: usize,
    /// Query heads that share it.
    group: usize,
    d: usize,
    /// Columns of the sums: `d`, rounded up to whole blocks.
    width: usize,
    /// Queries `[queries, group, d]`, scaled.
    q: Vec<f32>,
    /// The rows' state within the current span.
    state: Softmax,
    /// Scores in the current block, then weights.
    scores: Vec<[f32; BLOCK]>,
    /// A block's keys and values as floats, if that is worth it.
    wide: Vec<f32>,
}

/// Adds what a tile and KV head sees in some spans to `state`, whose rows are `[queries, group]`.
#[inline(always)]
pub(super) fn run<A: Arith>(
    arith: A,
    tile: &Tile,
    head: usize,
    spans: Range<usize>,
    q: &[f32],
    state: &mut Softmax,
) {
    let Heads { heads, kv_heads, head_dim: d } = tile.spec.heads;
    let group = heads / kv_heads;
    let count = tile.queries * group;
    let width = d.next_multiple_of(BLOCK);
    let mut scaled = Vec::with_capacity(count * d);
    for query in 0..tile.queries {
        let from = ((tile.row + query) * heads + head * group) * d;
        scaled.extend(q[from..from + group * d].iter().map(|q| q * tile.spec.scale));
    }
    let mut work = Work {
        tile,
        head,
        group,
        d,
        width,
        q: scaled,
        state: Softmax::new(count, width),
        scores: vec![[0.0; BLOCK]; count],
        wide: Vec::new(),
    };
    let seen = tile.blocks();
    for span in spans {
        for block in (span * SPAN).max(seen.start)..((span + 1) * SPAN).min(seen.end) {
            // What comes after the last is none of this tile's.
            work.block(arith, block, if block + 1 < seen.end { block + 1 } else { block });
        }
        state.merge(arith, &work.state);
        work.state.reset();
    }
}

/// Adds the spans of a tile and KV head to each other, in their order.
#[inline(always)]
pub(super) fn merge<A: Arith>(arith: A, spans: &[Softmax], state: &mut Softmax) {
    for span in spans {
        state.merge(arith, span);
    }
}

/// How many rows share a pass over a block: their sums fill the level's registers.
const fn rows<A: Arith>() -> usize {
    if A::N == 16 {
        8
    } else {
        4
    }
}

/// Keys and values as floats, kept in `wide`.
#[inline(always)]
fn widened<'a, N: Number, A: Arith>(
    arith: A,
    keys: Plane<'a, N>,
    values: Plane<'a, N>,
    wide: &'a mut Vec<f32>,
) -> (Plane<'a, f32>, Plane<'a, f32>) {
    let plane = keys.numbers.len();
    wide.resize(2 * plane, 0.0);
    let (wide_keys, wide_values) = wide.split_at_mut(plane);
    keys.widen(arith, wide_keys);
    values.widen(arith, wide_values);
    (Plane::near(wide_keys, keys.scales), Plane::near(wide_values, values.scales))
}

impl Work<'_> {
    /// Takes in one block and fetches the `next`.
    #[inline(always)]
    fn block<A: Arith>(&mut self, arith: A, block: usize, next: usize) {
        let (keys, values) = (&self.tile.sequence.keys, &self.tile.sequence.values);
        // Many rows have narrow numbers widened once for all, rather than in each pass.
        let many = self.scores.len() >= 2 * rows::<A>();
        let mut wide = std::mem::take(&mut self.wide);
        let (keys, values) = match [keys[block], values[block], keys[next], values[next]] {
            [KvSlice::F32(k), KvSlice::F32(v), KvSlice::F32(next_k), KvSlice::F32(next_v)] => {
                (self.plane(k, None, next_k), self.plane(v, None, next_v))
            }
            [KvSlice::F16(k), KvSlice::F16(v), KvSlice::F16(next_k), KvSlice::F16(next_v)] => {
                let (keys, values) = (self.plane(k, None, next_k), self.plane(v, None, next_v));
                if !many {
                    return self.planes(arith, block, keys, values);
                }
                widened(arith, keys, values, &mut wide)
            }
            [KvSlice::I8(k, k_scales), KvSlice::I8(v, v_scales), KvSlice::I8(next_k, _), KvSlice::I8(next_v, _)] =>
            {
                let keys = self.plane(k, Some(k_scales), next_k);
                let values = self.plane(v, Some(v_scales), next_v);
                if !many {
                    return self.planes(arith, block, keys, values);
                }
                widened(arith, keys, values, &mut wide)
            }
            _ => panic!("attention: keys and values of two formats"),
        };
        // One place for all formats: the passes are large.
        self.planes(arith, block, keys, values);
        self.wide = wide;
    }

    /// This head's part of a block's keys or values.
    #[inline(always)]
    fn plane<'b, N: Number>(&self, x: &'b [N], scales: Option<&'b [f32]>, next: &'b [N]) -> Plane<'b, N> {
        let numbers = self.head * BLOCK * self.d..(self.head + 1) * BLOCK * self.d;
        let scales = scales.map(|scales| &scales.as_chunks().0[self.head]);
        Plane { numbers: &x[numbers.clone()], scales, ahead: &next[numbers] }
    }

    #[inline(always)]
    fn planes<N: Number, A: Arith>(&mut self, arith: A, block: usize, keys: Plane<N>, values: Plane<N>) {
        let tile = self.tile;
        let seen = |query: usize| {
            let Range { start, end } = tile.sees(query);
            let within = |position: usize| position.saturating_sub(block * BLOCK).min(BLOCK);
            within(start)..within(end)
        };
        // Queries that see the same part of the block go through it together.
        let mut query = 0;
        while query < tile.queries {
            let (first, part) = (query, seen(query));
            while query < tile.queries && seen(query) == part {
                query += 1;
            }
            let (mut row, end) = (first * self.group, query * self.group);
            while row < end && !part.is_empty() {
                let part = part.clone();
                row += match end - row {
                    8.. if A::N == 16 => self.pass::<8, 2, N, A>(arith, row, part, &keys, &values),
                    4.. => self.pass::<4, 2, N, A>(arith, row, part, &keys, &values),
                    3 => self.pass::<3, 2, N, A>(arith, row, part, &keys, &values),
                    2 => self.pass::<2, 2, N, A>(arith, row, part, &keys, &values),
                    _ => self.pass::<1, 2, N, A>(arith, row, part, &keys, &values),
                };
            }
        }
    }

    /// Takes `R` rows from `row` on through the part of a block that they see; `P` registers of columns at a time.
    #[inline(always)]
    fn pass<const R: usize, const P: usize, N: Number, A: Arith>(
        &mut self,
        arith: A,
        row: usize,
        part: Range<usize>,
        keys: &Plane<N>,
        values: &Plane<N>,
    ) -> usize {
        let q: [&[f32]; R] = std::array::from_fn(|r| &self.q[(row + r) * self.d..][..self.d]);
        let scores: &mut [[f32; BLOCK]; R] = (&mut self.scores[row..row + R]).try_into().expect("R rows");
        score::<R, P, N, A>(arith, q, keys, scores);
        if let Some(cap) = self.tile.spec.softcap {
            for score in scores.as_flattened_mut() {
                *score = cap * tanh(arith, *score / cap);
            }
        }
        let max = (&mut self.state.max[row..row + R]).try_into().expect("R rows");
        let total = (&mut self.state.total[row..row + R]).try_into().expect("R rows");
        let rescale = weigh(arith, scores, part.clone(), max, total);
        let sums = &mut self.state.sums[row * self.width..(row + R) * self.width];
        add_values::<R, P, N, A>(arith, scores, part, &rescale, values, self.d, sums);
        R
    }
}
