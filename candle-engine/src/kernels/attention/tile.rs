//! One tile: queries of one sequence, for some KV heads, taken through the blocks that they see.

#[cfg(target_arch = "x86_64")]
use std::cell::RefCell;
use std::ops::Range;

use super::integers::Integers;
use super::number::{Number, Side};
use super::products::{self, weigh};
#[cfg(target_arch = "x86_64")]
use super::registers;
use super::softmax::Softmax;
use super::{int8, AttentionSpec, KvSlice, SequenceKv, SPAN};
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

    /// Rows of one KV head: queries and heads of a group.
    pub fn rows(&self) -> usize {
        self.queries * (self.spec.heads.heads / self.spec.heads.kv_heads)
    }

    /// The spans of those blocks.
    pub fn spans(&self) -> Range<usize> {
        let Range { start, end } = self.blocks();
        start / SPAN..end.div_ceil(SPAN)
    }
}

/// Some spans of a tile and some KV heads.
pub(super) struct Task<'a> {
    pub tile: &'a Tile<'a>,
    pub heads: Range<usize>,
    pub spans: Range<usize>,
}

impl Task<'_> {
    /// Whether its cache is of the same format as another's.
    pub fn is_like(&self, other: &Self) -> bool {
        let kind = |task: &Self| task.tile.sequence.keys.get(task.blocks().start).map(std::mem::discriminant);
        kind(self) == kind(other)
    }

    /// The blocks that the tile's queries see of them.
    #[inline(always)]
    fn blocks(&self) -> Range<usize> {
        let Range { start, end } = self.tile.blocks();
        start.max(self.spans.start * SPAN)..end.min(self.spans.end * SPAN)
    }
}

/// A block that is read soon, from some KV head on.
#[derive(Clone, Copy)]
struct Place<'a> {
    sequence: &'a SequenceKv<'a>,
    first_head: usize,
    block: usize,
}

/// KV heads of a task at most.
pub(super) const HEADS: usize = 8;

/// Blocks from what is multiplied to what is fetched: memory takes longer than one block does.
const AHEAD: usize = 6;

/// A level, and how it multiplies the numbers of a cache.
trait Multiply: Copy {
    /// Its arithmetic on floats.
    type A: Arith;
    /// Queries as it wants them.
    type Queries;
    /// What a row's scores become.
    type Weights: Clone + Default;
    /// Its arithmetic on floats.
    fn arith(self) -> Self::A;
    /// Queries `q [heads, rows, d]`, scaled.
    fn queries(self, q: Vec<f32>, rows: usize, d: usize) -> Self::Queries;
    /// Takes in one block and fetches what lies `ahead`.
    fn block<'a>(self, work: &mut Work<'a, Self>, block: usize, ahead: Place<'a>);
}

/// Keys and values of one block, and how a level multiplies them.
trait Planes<M: Multiply> {
    /// Scores of `R` rows from `row` on, which are a head's.
    fn score<const R: usize>(
        &self,
        head: usize,
        queries: &M::Queries,
        row: usize,
        scores: &mut [[f32; BLOCK]; R],
    );
    /// Turns their scores into weights, and brings their largest scores and totals up to date.
    #[allow(clippy::too_many_arguments)] // what an online softmax has
    fn weigh<const R: usize>(
        &self,
        head: usize,
        row: usize,
        parts: &[Range<usize>; R],
        scores: &mut [[f32; BLOCK]; R],
        weights: &mut [M::Weights; R],
        max: &mut [f32; R],
        total: &mut [f32; R],
    );
    /// Adds weighted values to their sums.
    fn add_values<const R: usize>(
        &self,
        head: usize,
        parts: &[Range<usize>; R],
        scores: &[[f32; BLOCK]; R],
        weights: &[M::Weights; R],
        sums: &mut [f32],
    );
}

/// A tile at work, for some KV heads.
struct Work<'a, M: Multiply> {
    tile: &'a Tile<'a>,
    /// The KV heads.
    heads: Range<usize>,
    /// Query heads that share one.
    group: usize,
    d: usize,
    /// Columns of the sums: `d`, rounded up to whole blocks.
    width: usize,
    /// What a head's rows see of the current block.
    parts: Vec<Range<usize>>,
    /// Queries `[heads, queries, group, d]`.
    queries: M::Queries,
    /// The rows' state within the current span.
    state: Softmax,
    /// Scores in the current block, then weights, of floats; beside them what else a level's weights are.
    scores: Vec<[f32; BLOCK]>,
    weights: Vec<M::Weights>,
    /// A block's keys and values as floats, if that is worth it.
    wide: Vec<f32>,
}

/// What a task sees of a cache of floats, in rows `[heads, queries, group]`; what the next task begins with is fetched.
#[inline(always)]
pub(super) fn run<A: Arith>(arith: A, tasks: [&Task; 2], q: &[f32]) -> Softmax {
    walk(Floats(arith), tasks, q)
}

/// As [`run`], of an int8 cache.
#[inline(always)]
pub(super) fn run_int8<L: Integers>(level: L, tasks: [&Task; 2], q: &[f32]) -> Softmax {
    walk(Int8(level), tasks, q)
}

#[inline(always)]
fn walk<M: Multiply>(multiply: M, [task, next]: [&Task; 2], q: &[f32]) -> Softmax {
    let Task { tile, heads, .. } = task;
    let (group, d) = (tile.spec.heads.heads / tile.spec.heads.kv_heads, tile.spec.heads.head_dim);
    let count = heads.len() * tile.rows();
    let width = d.next_multiple_of(BLOCK);
    let mut scaled = Vec::with_capacity(count * d);
    for head in heads.clone() {
        for query in 0..tile.queries {
            let from = ((tile.row + query) * tile.spec.heads.heads + head * group) * d;
            scaled.extend(q[from..from + group * d].iter().map(|q| q * tile.spec.scale));
        }
    }
    let mut work = Work::<M> {
        tile,
        heads: heads.clone(),
        group,
        d,
        width,
        parts: vec![0..0; tile.rows()],
        queries: multiply.queries(scaled, tile.rows(), d),
        state: Softmax::new(count, width),
        scores: vec![[0.0; BLOCK]; count],
        weights: vec![M::Weights::default(); count],
        wide: Vec::new(),
    };
    let (blocks, then, mut sums) = (task.blocks(), next.blocks(), None::<Softmax>);
    for block in blocks.clone() {
        let ahead = match block + AHEAD {
            ahead if ahead < blocks.end => {
                Place { sequence: tile.sequence, first_head: heads.start, block: ahead }
            }
            ahead => Place {
                sequence: next.tile.sequence,
                first_head: next.heads.start,
                block: (then.start + ahead - blocks.end).min(then.end - 1),
            },
        };
        multiply.block(&mut work, block, ahead);
        let last = block + 1 == blocks.end;
        if last || (block + 1).is_multiple_of(SPAN) {
            let next = Softmax::new(if last { 0 } else { count }, width);
            let span = std::mem::replace(&mut work.state, next);
            match &mut sums {
                Some(sums) => sums.merge(multiply.arith(), &span),
                None => sums = Some(span),
            }
        }
    }
    sums.expect("a task has blocks")
}

/// Adds the spans of a tile and its heads to the first of them, in their order.
#[inline(always)]
pub(super) fn merge<A: Arith>(arith: A, sums: &mut Softmax, spans: &[Softmax]) {
    for span in spans {
        sums.merge(arith, span);
    }
}

impl<'a, M: Multiply> Work<'a, M> {
    /// The heads' parts of a block's keys and values, which are integers.
    #[inline(always)]
    fn int8_sides(&self, block: usize, ahead: Place<'a>) -> [Side<'a, i8>; 2] {
        self.slices(block, ahead).map(|x| match x {
            [KvSlice::I8(here, scales), KvSlice::I8(next, next_scales)] => {
                let (scales, next_scales) = (scales.as_chunks().0, next_scales.as_chunks().0);
                let mut side = self.side(ahead, [here, next]);
                side.scales = Some(&scales[self.heads.clone()]);
                side.ahead.1 = &raw const next_scales[ahead.first_head];
                side
            }
            _ => panic!("attention: keys and values of two formats"),
        })
    }

    /// Keys and values, of a block and of what lies ahead.
    #[inline(always)]
    fn slices(&self, block: usize, ahead: Place<'a>) -> [[KvSlice<'a>; 2]; 2] {
        let (here, there) = (self.tile.sequence, ahead.sequence);
        [[here.keys[block], there.keys[ahead.block]], [here.values[block], there.values[ahead.block]]]
    }

    /// The heads' parts of a block's keys or values, without scales.
    #[inline(always)]
    fn side<N>(&self, ahead: Place, [here, next]: [&'a [N]; 2]) -> Side<'a, N> {
        let size = BLOCK * self.d;
        Side {
            numbers: &here[self.heads.start * size..self.heads.end * size],
            size,
            scales: None,
            ahead: (&raw const next[ahead.first_head * size], std::ptr::null()),
        }
    }

    #[inline(always)]
    fn planes(&mut self, multiply: M, block: usize, planes: &impl Planes<M>) {
        let tile = self.tile;
        let part = |query: usize| {
            let Range { start, end } = tile.sees(query);
            let within = |position: usize| position.saturating_sub(block * BLOCK).min(BLOCK);
            within(start)..within(end)
        };
        // Later queries begin and end later: if the first and the last see the same, all do.
        let (first, last) = (part(0), part(tile.queries - 1));
        let mut rows = 0..self.parts.len();
        if first == last {
            // As in the block before, but for a few.
            if self.parts.first() != Some(&first) || self.parts.last() != Some(&last) {
                self.parts.fill(first);
            }
        } else {
            for (query, parts) in self.parts.chunks_exact_mut(self.group).enumerate() {
                parts.fill(part(query));
            }
            // And those that see something of the block follow each other.
            rows.start = self.parts.iter().take_while(|part| part.is_empty()).count();
            rows.end -= self.parts.iter().rev().take_while(|part| part.is_empty()).count();
        }
        let Range { start: mut row, end } = rows;
        while row < end {
            // Fewer rows than a level has only if they see the same.
            let alike = || self.parts[row..end].iter().take_while(|part| **part == self.parts[row]).count();
            row += match end - row {
                8.. if M::A::ROWS == 8 => self.pass::<8>(multiply, row, planes),
                4.. if M::A::ROWS == 4 => self.pass::<4>(multiply, row, planes),
                _ => match alike() {
                    4.. if M::A::ROWS == 8 => self.pass::<4>(multiply, row, planes),
                    3 if M::A::ROWS >= 4 => self.pass::<3>(multiply, row, planes),
                    2 if M::A::ROWS >= 4 => self.pass::<2>(multiply, row, planes),
                    _ => self.pass::<1>(multiply, row, planes),
                },
            };
        }
    }

    /// Takes `R` rows from `row` on, of each head, through the parts of a block that they see.
    #[inline(always)]
    fn pass<const R: usize>(&mut self, multiply: M, row: usize, planes: &impl Planes<M>) -> usize {
        let (arith, rows) = (multiply.arith(), self.tile.rows());
        let parts: &[Range<usize>; R] = (&self.parts[row..row + R]).try_into().expect("R rows");
        // The same for each head, and then what waits for it.
        for head in 0..self.heads.len() {
            let row = head * rows + row;
            let scores: &mut [[f32; BLOCK]; R] = (&mut self.scores[row..row + R]).try_into().expect("R rows");
            planes.score(head, &self.queries, row, scores);
            if let Some(cap) = self.tile.spec.softcap {
                for score in scores.as_flattened_mut() {
                    *score = cap * tanh(arith, *score / cap);
                }
            }
        }
        for head in 0..self.heads.len() {
            let row = head * rows + row;
            let rows = row..row + R;
            let scores = (&mut self.scores[rows.clone()]).try_into().expect("R rows");
            let weights = (&mut self.weights[rows.clone()]).try_into().expect("R rows");
            let max = (&mut self.state.max[rows.clone()]).try_into().expect("R rows");
            let total = (&mut self.state.total[rows]).try_into().expect("R rows");
            planes.weigh::<R>(head, row, parts, scores, weights, max, total);
        }
        for head in 0..self.heads.len() {
            let row = head * rows + row;
            let rows = row..row + R;
            let scores = (&self.scores[rows.clone()]).try_into().expect("R rows");
            let weights = (&self.weights[rows]).try_into().expect("R rows");
            let sums = &mut self.state.sums[row * self.width..(row + R) * self.width];
            planes.add_values::<R>(head, parts, scores, weights, sums);
        }
        R
    }
}

/// A level, for caches of floats.
#[derive(Clone, Copy)]
struct Floats<A>(A);

impl<A: Arith> Multiply for Floats<A> {
    type A = A;
    /// Queries `[heads, d, rows]`.
    type Queries = Vec<f32>;
    /// What brings earlier sums to the same scale.
    type Weights = f32;

    #[inline(always)]
    fn arith(self) -> A {
        self.0
    }

    #[inline(always)]
    fn queries(self, q: Vec<f32>, rows: usize, d: usize) -> Vec<f32> {
        let mut columns = vec![0.0; q.len()];
        let (whole_rows, whole_d) = (rows - rows % 8, d - d % 8);
        let heads = q.chunks_exact((rows * d).max(1));
        for (q, columns) in heads.zip(columns.chunks_exact_mut((rows * d).max(1))) {
            for row in (0..whole_rows).step_by(8) {
                for i in (0..whole_d).step_by(8) {
                    self.0.transpose_8x8(&q[row * d + i..], d, &mut columns[i * rows + row..], rows);
                }
            }
            for row in 0..rows {
                for i in if row < whole_rows { whole_d } else { 0 }..d {
                    columns[i * rows + row] = q[row * d + i];
                }
            }
        }
        columns
    }

    #[inline(always)]
    fn block<'a>(self, work: &mut Work<'a, Self>, block: usize, ahead: Place<'a>) {
        let (arith, rows, d) = (self.0, work.tile.rows(), work.d);
        let mut wide = std::mem::take(&mut work.wide);
        let (keys, values) = match *work.slices(block, ahead).as_flattened() {
            [KvSlice::F32(k), KvSlice::F32(next_k), KvSlice::F32(v), KvSlice::F32(next_v)] => {
                (work.side(ahead, [k, next_k]), work.side(ahead, [v, next_v]))
            }
            [KvSlice::F16(k), KvSlice::F16(next_k), KvSlice::F16(v), KvSlice::F16(next_v)] => {
                let (keys, values) = (work.side(ahead, [k, next_k]), work.side(ahead, [v, next_v]));
                // Many rows have narrow numbers widened once for all, rather than in each pass.
                if rows < 2 * A::ROWS {
                    return work.planes(self, block, &FloatPlanes { arith, keys, values, rows, d });
                }
                let (size, all) = (keys.size, keys.numbers.len());
                wide.resize(2 * all, 0.0);
                let sides = wide.split_at_mut(all);
                for (side, wide) in [(&keys, sides.0), (&values, sides.1)] {
                    for (head, wide) in wide.chunks_exact_mut(size).enumerate() {
                        side.plane(head).widen(arith, wide);
                    }
                }
                let near = |numbers| Side {
                    numbers,
                    size,
                    scales: None,
                    ahead: (numbers.as_ptr(), std::ptr::null()),
                };
                let (keys, values) = wide.split_at(all);
                (near(keys), near(values))
            }
            _ => panic!("attention: keys and values of two formats"),
        };
        // One place for both formats: the passes are large.
        work.planes(self, block, &FloatPlanes { arith, keys, values, rows, d });
        work.wide = wide;
    }
}

struct FloatPlanes<'a, N, A> {
    arith: A,
    keys: Side<'a, N>,
    values: Side<'a, N>,
    /// Rows of a head.
    rows: usize,
    d: usize,
}

impl<N: Number, A: Arith> Planes<Floats<A>> for FloatPlanes<'_, N, A> {
    #[inline(always)]
    fn score<const R: usize>(
        &self,
        head: usize,
        queries: &Vec<f32>,
        row: usize,
        scores: &mut [[f32; BLOCK]; R],
    ) {
        let (rows, size) = (self.rows, self.rows * self.d);
        let (q, row) = (&queries[head * size..][..size], row - head * rows);
        products::score::<R, 2, N, A>(self.arith, q, rows, row, &self.keys.plane(head), scores);
    }

    #[inline(always)]
    fn weigh<const R: usize>(
        &self,
        _: usize,
        _: usize,
        parts: &[Range<usize>; R],
        scores: &mut [[f32; BLOCK]; R],
        weights: &mut [f32; R],
        max: &mut [f32; R],
        total: &mut [f32; R],
    ) {
        *weights = weigh(self.arith, scores, parts, max, total);
    }

    #[inline(always)]
    fn add_values<const R: usize>(
        &self,
        head: usize,
        parts: &[Range<usize>; R],
        scores: &[[f32; BLOCK]; R],
        weights: &[f32; R],
        sums: &mut [f32],
    ) {
        let values = &self.values.plane(head);
        products::add_values::<R, 2, N, A>(self.arith, scores, parts, weights, values, self.d, sums);
    }
}

/// A level, for int8 caches.
#[derive(Clone, Copy)]
struct Int8<L>(L);

impl<L: Integers> Multiply for Int8<L> {
    type A = L::A;
    type Queries = int8::Queries;
    type Weights = int8::Weights;

    #[inline(always)]
    fn arith(self) -> L::A {
        self.0.arith()
    }

    #[inline(always)]
    fn queries(self, q: Vec<f32>, _: usize, d: usize) -> int8::Queries {
        int8::Queries::new(&q, d)
    }

    #[inline(always)]
    fn block<'a>(self, work: &mut Work<'a, Self>, block: usize, ahead: Place<'a>) {
        let [keys, values] = work.int8_sides(block, ahead);
        work.planes(self, block, &Int8Planes { level: self.0, keys, values, d: work.d });
    }
}

struct Int8Planes<'a, L> {
    level: L,
    keys: Side<'a, i8>,
    values: Side<'a, i8>,
    d: usize,
}

impl<L: Integers> Planes<Int8<L>> for Int8Planes<'_, L> {
    #[inline(always)]
    fn score<const R: usize>(
        &self,
        head: usize,
        queries: &int8::Queries,
        row: usize,
        scores: &mut [[f32; BLOCK]; R],
    ) {
        let keys = &self.keys.plane(head);
        // Of few rows two sums of each score, which do not wait for each other.
        if R <= 2 {
            int8::score::<R, 2, L>(self.level, queries, row, keys, scores);
        } else {
            int8::score::<R, 1, L>(self.level, queries, row, keys, scores);
        }
    }

    #[inline(always)]
    fn weigh<const R: usize>(
        &self,
        head: usize,
        _: usize,
        parts: &[Range<usize>; R],
        scores: &mut [[f32; BLOCK]; R],
        weights: &mut [int8::Weights; R],
        max: &mut [f32; R],
        total: &mut [f32; R],
    ) {
        let values = self.values.plane(head);
        values.fetch_scales();
        let scales = values.scales.expect("scales of an int8 cache");
        int8::weigh(self.level, scores, parts, scales, weights, max, total);
    }

    #[inline(always)]
    fn add_values<const R: usize>(
        &self,
        head: usize,
        parts: &[Range<usize>; R],
        _: &[[f32; BLOCK]; R],
        weights: &[int8::Weights; R],
        sums: &mut [f32],
    ) {
        let (level, values, d) = (self.level, &self.values.plane(head), self.d);
        if 2 * R <= L::A::ROWS {
            int8::add_values::<R, 4, L>(level, weights, parts, values, d, sums);
        } else {
            int8::add_values::<R, 2, L>(level, weights, parts, values, d, sums);
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
pub(super) unsafe fn run_registers<L: Integers>(level: L, tasks: [&Task; 2], q: &[f32]) -> Softmax {
    let _tiles = registers::tiles();
    walk(Registers(level), tasks, q)
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
    /// They lie with the queries.
    type Weights = ();

    #[inline(always)]
    fn arith(self) -> L::A {
        self.0.arith()
    }

    #[inline(always)]
    fn queries(self, q: Vec<f32>, rows: usize, d: usize) -> RegisterQueries {
        let queries = registers::Queries::new(int8::Queries::new(&q, d), rows, d);
        RegisterQueries {
            queries,
            keys: Default::default(),
            values: Default::default(),
            weights: Default::default(),
        }
    }

    #[inline(always)]
    fn block<'a>(self, work: &mut Work<'a, Self>, block: usize, ahead: Place<'a>) {
        debug_assert_eq!(work.heads.len(), 1, "as many rows as make registers worth it");
        let [keys, values] = work.int8_sides(block, ahead).map(|side| side.plane(0));
        let rows = work.scores.len();
        let RegisterQueries { queries, keys: quads, .. } = &mut work.queries;
        // SAFETY: the level has matrix registers, and their tiles are in use.
        unsafe { registers::score(queries, &keys, quads, &mut work.scores) };
        let mut weights = std::mem::take(&mut work.queries.weights);
        weights.reset(rows);
        values.fetch_scales();
        let scales = values.scales.expect("scales of an int8 cache");
        let planes = RegisterPlanes { level: self.0, scales, weights: RefCell::new(weights) };
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
    weights: RefCell<registers::Weights>,
}

#[cfg(target_arch = "x86_64")]
impl<L: Integers> Planes<Registers<L>> for RegisterPlanes<'_, L> {
    #[inline(always)]
    fn score<const R: usize>(&self, _: usize, _: &RegisterQueries, _: usize, _: &mut [[f32; BLOCK]; R]) {}

    #[inline(always)]
    fn weigh<const R: usize>(
        &self,
        _: usize,
        row: usize,
        parts: &[Range<usize>; R],
        scores: &mut [[f32; BLOCK]; R],
        _: &mut [(); R],
        max: &mut [f32; R],
        total: &mut [f32; R],
    ) {
        let mut weights = [int8::Weights::default(); R];
        int8::weigh(self.level, scores, parts, self.scales, &mut weights, max, total);
        // SAFETY: the level has these features.
        unsafe { self.weights.borrow_mut().set(row, &weights) };
    }

    #[inline(always)]
    fn add_values<const R: usize>(
        &self,
        _: usize,
        _: &[Range<usize>; R],
        _: &[[f32; BLOCK]; R],
        _: &[(); R],
        _: &mut [f32],
    ) {
    }
}
