//! One tile: queries of one sequence and KV head, taken through the blocks that they see.

#[cfg(target_arch = "x86_64")]
use std::cell::{Cell, RefCell};
use std::ops::Range;

use super::integers::Integers;
use super::number::{Number, Plane};
use super::products::{self, weigh};
#[cfg(target_arch = "x86_64")]
use super::registers;
use super::softmax::Softmax;
use super::{int8, AttentionSpec, Heads, KvSlice, SequenceKv, SPAN};
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

    /// Queries and heads of a group.
    #[cfg(target_arch = "x86_64")]
    pub fn rows(&self) -> usize {
        self.queries * (self.spec.heads.heads / self.spec.heads.kv_heads)
    }

    /// The spans of those blocks.
    pub fn spans(&self) -> Range<usize> {
        let Range { start, end } = self.blocks();
        start / SPAN..end.div_ceil(SPAN)
    }
}

/// Blocks from what is multiplied to what is fetched: memory takes longer than one block does.
const AHEAD: usize = 6;

/// A level, and how it multiplies the numbers of a cache.
trait Multiply: Copy {
    /// Its arithmetic on floats.
    type A: Arith;
    /// Queries as it wants them.
    type Queries;
    /// Its arithmetic on floats.
    fn arith(self) -> Self::A;
    /// Queries of rows `q [rows, d]`, scaled.
    fn queries(self, q: Vec<f32>, d: usize) -> Self::Queries;
    /// Takes in one block and fetches the `next`.
    fn block<'a>(self, work: &mut Work<'a, Self>, block: usize, next: usize);
}

/// Keys and values of one block and KV head, and how a level multiplies them.
trait Planes<M: Multiply> {
    /// Scores of `R` rows from `row` on.
    fn score<const R: usize>(&self, queries: &M::Queries, row: usize, scores: &mut [[f32; BLOCK]; R]);
    /// Adds values, weighted by what the scores say, to the sums. The scores are no longer needed.
    fn add_values<const R: usize>(
        &self,
        scores: &mut [[f32; BLOCK]; R],
        part: Range<usize>,
        max: &mut [f32; R],
        total: &mut [f32; R],
        sums: &mut [f32],
    );
}

/// A tile at work, for one KV head.
struct Work<'a, M: Multiply> {
    tile: &'a Tile<'a>,
    /// The KV head.
    head: usize,
    /// Query heads that share it.
    group: usize,
    d: usize,
    /// Columns of the sums: `d`, rounded up to whole blocks.
    width: usize,
    /// Queries `[queries, group, d]`.
    queries: M::Queries,
    /// The rows' state within the current span.
    state: Softmax,
    /// Scores in the current block, then weights.
    scores: Vec<[f32; BLOCK]>,
    /// A block's keys and values as floats, if that is worth it.
    wide: Vec<f32>,
}

/// Adds what a tile and KV head sees in some spans of a cache of floats to `state`, whose rows are `[queries, group]`.
#[inline(always)]
pub(super) fn run<A: Arith>(
    arith: A,
    tile: &Tile,
    head: usize,
    spans: Range<usize>,
    q: &[f32],
    state: &mut Softmax,
) {
    walk(Floats(arith), tile, head, spans, q, state);
}

/// As [`run`], of an int8 cache.
#[inline(always)]
pub(super) fn run_int8<L: Integers>(
    level: L,
    tile: &Tile,
    head: usize,
    spans: Range<usize>,
    q: &[f32],
    state: &mut Softmax,
) {
    walk(Int8(level), tile, head, spans, q, state);
}

#[inline(always)]
fn walk<M: Multiply>(
    multiply: M,
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
    let mut work = Work::<M> {
        tile,
        head,
        group,
        d,
        width,
        queries: multiply.queries(scaled, d),
        state: Softmax::new(count, width),
        scores: vec![[0.0; BLOCK]; count],
        wide: Vec::new(),
    };
    let seen = tile.blocks();
    for span in spans {
        for block in (span * SPAN).max(seen.start)..((span + 1) * SPAN).min(seen.end) {
            // What comes after the last is none of this tile's.
            multiply.block(&mut work, block, (block + AHEAD).min(seen.end - 1));
        }
        state.merge(multiply.arith(), &work.state);
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

impl<'a, M: Multiply> Work<'a, M> {
    /// This head's part of a block's keys and values, which are integers.
    #[inline(always)]
    fn int8_planes(&self, block: usize, next: usize) -> [Plane<'a, i8>; 2] {
        [&self.tile.sequence.keys, &self.tile.sequence.values].map(|x| match [x[block], x[next]] {
            [KvSlice::I8(here, scales), KvSlice::I8(next, next_scales)] => {
                self.plane([here, next], [Some(scales), Some(next_scales)])
            }
            _ => panic!("attention: keys and values of two formats"),
        })
    }

    /// This head's part of a block's keys or values, and of those ahead.
    #[inline(always)]
    fn plane<'b, N>(&self, x: [&'b [N]; 2], [here, ahead]: [Option<&'b [f32]>; 2]) -> Plane<'b, N> {
        let at = self.head * BLOCK * self.d..(self.head + 1) * BLOCK * self.d;
        let numbers = |x: &'b [N]| &x[at.clone()];
        let scales = |scales: Option<&'b [f32]>| scales.map(|scales| &scales.as_chunks().0[self.head]);
        Plane { numbers: numbers(x[0]), scales: scales(here), ahead: (numbers(x[1]), scales(ahead)) }
    }

    #[inline(always)]
    fn planes(&mut self, multiply: M, block: usize, planes: &impl Planes<M>) {
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
                    8.. if M::A::ROWS >= 8 => self.pass::<8>(multiply, row, part, planes),
                    4.. if M::A::ROWS >= 4 => self.pass::<4>(multiply, row, part, planes),
                    3 if M::A::ROWS >= 4 => self.pass::<3>(multiply, row, part, planes),
                    2 if M::A::ROWS >= 4 => self.pass::<2>(multiply, row, part, planes),
                    _ => self.pass::<1>(multiply, row, part, planes),
                };
            }
        }
    }

    /// Takes `R` rows from `row` on through the part of a block that they see.
    #[inline(always)]
    fn pass<const R: usize>(
        &mut self,
        multiply: M,
        row: usize,
        part: Range<usize>,
        planes: &impl Planes<M>,
    ) -> usize {
        let arith = multiply.arith();
        let scores: &mut [[f32; BLOCK]; R] = (&mut self.scores[row..row + R]).try_into().expect("R rows");
        planes.score(&self.queries, row, scores);
        if let Some(cap) = self.tile.spec.softcap {
            for score in scores.as_flattened_mut() {
                *score = cap * tanh(arith, *score / cap);
            }
        }
        let max = (&mut self.state.max[row..row + R]).try_into().expect("R rows");
        let total = (&mut self.state.total[row..row + R]).try_into().expect("R rows");
        let sums = &mut self.state.sums[row * self.width..(row + R) * self.width];
        planes.add_values(scores, part, max, total, sums);
        R
    }
}

/// A level, for caches of floats.
#[derive(Clone, Copy)]
struct Floats<A>(A);

impl<A: Arith> Multiply for Floats<A> {
    type A = A;
    type Queries = Vec<f32>;

    #[inline(always)]
    fn arith(self) -> A {
        self.0
    }

    #[inline(always)]
    fn queries(self, q: Vec<f32>, _: usize) -> Vec<f32> {
        q
    }

    #[inline(always)]
    fn block<'a>(self, work: &mut Work<'a, Self>, block: usize, next: usize) {
        let (keys, values) = (&work.tile.sequence.keys, &work.tile.sequence.values);
        let mut wide = std::mem::take(&mut work.wide);
        let (keys, values) = match [keys[block], values[block], keys[next], values[next]] {
            [KvSlice::F32(k), KvSlice::F32(v), KvSlice::F32(next_k), KvSlice::F32(next_v)] => {
                (work.plane([k, next_k], [None; 2]), work.plane([v, next_v], [None; 2]))
            }
            [KvSlice::F16(k), KvSlice::F16(v), KvSlice::F16(next_k), KvSlice::F16(next_v)] => {
                let (keys, values) = (work.plane([k, next_k], [None; 2]), work.plane([v, next_v], [None; 2]));
                // Many rows have narrow numbers widened once for all, rather than in each pass.
                if work.scores.len() < 2 * A::ROWS {
                    return work.planes(self, block, &FloatPlanes { arith: self.0, keys, values, d: work.d });
                }
                let plane = keys.numbers.len();
                wide.resize(2 * plane, 0.0);
                let (wide_keys, wide_values) = wide.split_at_mut(plane);
                keys.widen(self.0, wide_keys);
                values.widen(self.0, wide_values);
                (Plane::near(wide_keys, None), Plane::near(wide_values, None))
            }
            _ => panic!("attention: keys and values of two formats"),
        };
        // One place for both formats: the passes are large.
        work.planes(self, block, &FloatPlanes { arith: self.0, keys, values, d: work.d });
        work.wide = wide;
    }
}

struct FloatPlanes<'a, N, A> {
    arith: A,
    keys: Plane<'a, N>,
    values: Plane<'a, N>,
    d: usize,
}

impl<N: Number, A: Arith> Planes<Floats<A>> for FloatPlanes<'_, N, A> {
    #[inline(always)]
    fn score<const R: usize>(&self, queries: &Vec<f32>, row: usize, scores: &mut [[f32; BLOCK]; R]) {
        let q: [&[f32]; R] = std::array::from_fn(|r| &queries[(row + r) * self.d..][..self.d]);
        products::score::<R, 2, N, A>(self.arith, q, &self.keys, scores);
    }

    #[inline(always)]
    fn add_values<const R: usize>(
        &self,
        scores: &mut [[f32; BLOCK]; R],
        part: Range<usize>,
        max: &mut [f32; R],
        total: &mut [f32; R],
        sums: &mut [f32],
    ) {
        let rescale = weigh(self.arith, scores, part.clone(), max, total);
        products::add_values::<R, 2, N, A>(self.arith, scores, part, &rescale, &self.values, self.d, sums);
    }
}

/// A level, for int8 caches.
#[derive(Clone, Copy)]
struct Int8<L>(L);

impl<L: Integers> Multiply for Int8<L> {
    type A = L::A;
    type Queries = int8::Queries;

    #[inline(always)]
    fn arith(self) -> L::A {
        self.0.arith()
    }

    #[inline(always)]
    fn queries(self, q: Vec<f32>, d: usize) -> int8::Queries {
        int8::Queries::new(&q, d)
    }

    #[inline(always)]
    fn block<'a>(self, work: &mut Work<'a, Self>, block: usize, next: usize) {
        let [keys, values] = work.int8_planes(block, next);
        work.planes(self, block, &Int8Planes { level: self.0, keys, values, d: work.d });
    }
}

struct Int8Planes<'a, L> {
    level: L,
    keys: Plane<'a, i8>,
    values: Plane<'a, i8>,
    d: usize,
}

impl<L: Integers> Planes<Int8<L>> for Int8Planes<'_, L> {
    #[inline(always)]
    fn score<const R: usize>(&self, queries: &int8::Queries, row: usize, scores: &mut [[f32; BLOCK]; R]) {
        // Of few rows two sums of each score, which do not wait for each other.
        if R <= 2 {
            int8::score::<R, 2, L>(self.level, queries, row, &self.keys, scores);
        } else {
            int8::score::<R, 1, L>(self.level, queries, row, &self.keys, scores);
        }
    }

    #[inline(always)]
    fn add_values<const R: usize>(
        &self,
        scores: &mut [[f32; BLOCK]; R],
        part: Range<usize>,
        max: &mut [f32; R],
        total: &mut [f32; R],
        sums: &mut [f32],
    ) {
        let (level, values, d) = (self.level, &self.values, self.d);
        if 2 * R <= L::A::ROWS {
            int8::add_values::<R, 4, L>(level, scores, part, values, d, max, total, sums);
        } else {
            int8::add_values::<R, 2, L>(level, scores, part, values, d, max, total, sums);
        }
    }
}

/// Matrix registers, for int8 caches and many rows.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Registers<L>(L);

/// As [`run_int8`], in matrix registers.
///
/// # Safety
///
/// The level has them.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) unsafe fn run_registers<L: Integers>(
    level: L,
    tile: &Tile,
    head: usize,
    spans: Range<usize>,
    q: &[f32],
    state: &mut Softmax,
) {
    let _tiles = registers::tiles();
    walk(Registers(level), tile, head, spans, q, state);
}

/// Rows of queries, and what lies between the products.
#[cfg(target_arch = "x86_64")]
struct RegisterQueries {
    queries: registers::Queries,
    keys: registers::Quads,
    values: registers::Quads,
    weights: registers::Weights,
}

#[cfg(target_arch = "x86_64")]
impl<L: Integers> Multiply for Registers<L> {
    type A = L::A;
    type Queries = RegisterQueries;

    #[inline(always)]
    fn arith(self) -> L::A {
        self.0.arith()
    }

    #[inline(always)]
    fn queries(self, q: Vec<f32>, d: usize) -> RegisterQueries {
        let queries = registers::Queries::new(int8::Queries::new(&q, d), q.len() / d.max(1), d);
        RegisterQueries {
            queries,
            keys: Default::default(),
            values: Default::default(),
            weights: Default::default(),
        }
    }

    #[inline(always)]
    fn block<'a>(self, work: &mut Work<'a, Self>, block: usize, next: usize) {
        let [keys, values] = work.int8_planes(block, next);
        let rows = work.scores.len();
        let RegisterQueries { queries, keys: quads, .. } = &mut work.queries;
        // SAFETY: the level has matrix registers, and their tiles are in use.
        unsafe { registers::score(queries, &keys, quads, &mut work.scores) };
        let mut weights = std::mem::take(&mut work.queries.weights);
        weights.reset(rows);
        values.fetch_scales();
        let scales = values.scales.expect("scales of an int8 cache");
        let planes =
            RegisterPlanes { level: self.0, scales, row: Cell::new(0), weights: RefCell::new(weights) };
        work.planes(self, block, &planes);
        let (weights, d, width) = (planes.weights.into_inner(), work.d, work.width);
        // SAFETY: as above.
        unsafe {
            registers::add_values(
                &weights,
                &values,
                &mut work.queries.values,
                d,
                width,
                &mut work.state.sums,
            );
        }
        work.queries.weights = weights;
    }
}

/// A block whose products are those of all rows: of some rows it turns scores to weights alone.
#[cfg(target_arch = "x86_64")]
struct RegisterPlanes<'a, L> {
    level: L,
    scales: &'a [f32; BLOCK],
    row: Cell<usize>,
    weights: RefCell<registers::Weights>,
}

#[cfg(target_arch = "x86_64")]
impl<L: Integers> Planes<Registers<L>> for RegisterPlanes<'_, L> {
    #[inline(always)]
    fn score<const R: usize>(&self, _: &RegisterQueries, row: usize, _: &mut [[f32; BLOCK]; R]) {
        self.row.set(row);
    }

    #[inline(always)]
    fn add_values<const R: usize>(
        &self,
        scores: &mut [[f32; BLOCK]; R],
        part: Range<usize>,
        max: &mut [f32; R],
        total: &mut [f32; R],
        _: &mut [f32],
    ) {
        let weights = int8::weigh(self.level, scores, part, self.scales, max, total);
        // SAFETY: the level has these features.
        unsafe { self.weights.borrow_mut().set(self.row.get(), &weights) };
    }
}
