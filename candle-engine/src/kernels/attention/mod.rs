//! Attention over a cache of key and value blocks.
//!
//! One task takes a tile of queries of one KV head, or few queries of some, through the blocks that they see, in the
//! order of absolute positions, with the online softmax of Milakov and Gimelshein (2018); no `[t, s]` matrix exists. A
//! block's keys and values are read, and widened, once for all queries of the tile and all query heads of the group,
//! while those that come later are fetched: at a task's end those that its thread most likely takes next.
//!
//! An int8 cache is multiplied by queries and weights of 16 bits: integers, exactly, twice as many at a time as floats.
//! What they are rounded by is a hundredth of what the cache is.
//!
//! Every `SPAN` blocks a row's sums begin anew and are added to those before: so the spans of a step, which has
//! few rows, can be tasks of their own.
//!
//! The operations of one row (a query and head) and their order follow from its position alone: a row has
//! the same bits whether it is computed in a whole prompt, a chunk or a step, in any batch, on any number of
//! threads. What a row does not see, it does not touch, be it NaN.

mod cache;
mod int8;
mod integers;
mod number;
mod products;
#[cfg(target_arch = "x86_64")]
mod registers;
mod scores;
mod softmax;
mod tile;

#[cfg(test)]
mod tests;

pub use self::cache::{append_keys, append_values, KvSlice, KvSliceMut};
pub use self::scores::scores;

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use super::isa::Registers;
use super::threads::{parallel, threads, Disjoint};
use super::{per_isa, Isa};
use crate::kv::BLOCK;
use integers::per_integers;
use softmax::Softmax;
use tile::{Task, Tile, HEADS};

/// Heads of the queries, and of the keys and values that groups of them share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads, `h`; a multiple of `g`.
    pub heads: usize,
    /// Heads of keys and values, `g`.
    pub kv_heads: usize,
    /// Numbers per head, `d`.
    pub head_dim: usize,
}

/// What attention computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionSpec {
    /// Heads.
    pub heads: Heads,
    /// Factor of the scores, usually 1 / sqrt(d).
    pub scale: f32,
    /// How many positions a query sees, its own the last of them; `None` for all.
    pub window: Option<usize>,
    /// Bound of the scores: c · tanh(score / c).
    pub softcap: Option<f32>,
    /// Whether a query sees no position after its own.
    pub causal: bool,
}

/// One sequence of a ragged batch: its cache, new tokens included, and its rows among the queries.
#[derive(Debug, Clone)]
pub struct SequenceKv<'a> {
    /// Keys `[g, d, BLOCK]` per block; the slice of a block that no query sees may be empty.
    pub keys: Vec<KvSlice<'a>>,
    /// Values `[g, BLOCK, d]` per block, likewise.
    pub values: Vec<KvSlice<'a>>,
    /// Position of the first new token.
    pub start: usize,
    /// New tokens: its rows in `q`.
    pub len: usize,
}

/// Rows (queries × heads of a group) of one tile: enough to hide the widening of a block, few enough for
/// the tile's queries, sums and scores to stay in a level-2 cache.
const TILE_ROWS: usize = 64;

/// Rows of KV heads that one task takes through a block together: of few rows what each waits for would be most of the
/// time, and of keys that follow each other in a block a CPU sees what is read next.
const TASK_ROWS: usize = 16;

/// Blocks of one span: some ten microseconds of one core where a step reads them.
const SPAN: usize = 32;

/// Multiplications below which no region is opened: some 10 µs of one core.
const PARALLEL_WORK: usize = 1 << 18;

/// Softmax-weighted sums of the values that each query sees.
///
/// out = softmax(mask(softcap(q · kᵀ · scale))) · v
///
/// Shapes: `q`, `out [t, h, d]`, the rows of `sequences` end to end.
///
/// # Panics
///
/// If a shape does not fit, or a block that a query sees is missing.
/// Source: Vaswani et al. 2017, eq. 1; Ainslie et al. 2023 for shared heads.
pub fn attention(spec: &AttentionSpec, q: &[f32], sequences: &[SequenceKv], out: &mut [f32]) {
    attention_on(Isa::best(), spec, q, sequences, out);
}

fn attention_on(isa: Isa, spec: &AttentionSpec, q: &[f32], sequences: &[SequenceKv], out: &mut [f32]) {
    let Heads { heads, kv_heads, head_dim } = spec.heads;
    assert!(kv_heads > 0 && heads % kv_heads == 0, "attention: {heads} heads on {kv_heads} KV heads");
    assert!(spec.window != Some(0), "attention: a window of 0");
    let group = heads / kv_heads;
    let t: usize = sequences.iter().map(|sequence| sequence.len).sum();
    assert_eq!(q.len(), t * heads * head_dim, "attention: q and sequences");
    assert_eq!(out.len(), q.len(), "attention: out and q");

    let mut tiles = Vec::new();
    let (mut row, mut work) = (0, 0);
    for sequence in sequences {
        let blocks = (sequence.start + sequence.len).div_ceil(BLOCK);
        assert!(
            sequence.keys.len() >= blocks && sequence.values.len() >= blocks,
            "attention: {blocks} blocks expected"
        );
        let queries = (TILE_ROWS / group).max(1);
        // The last tile sees most: tasks are taken from the longest on.
        for first in (0..sequence.len).step_by(queries).rev() {
            let queries = queries.min(sequence.len - first);
            tiles.push(Tile { spec, sequence, first, queries, row: row + first });
        }
        row += sequence.len;
        work += sequence.len * (sequence.start + sequence.len) * heads * head_dim;
    }

    let mut tasks = Vec::new();
    for tile in &tiles {
        // A row's bits do not depend on what is in its task: so these may follow from the number of threads. A single
        // span is over before it pays.
        let most = (TASK_ROWS / tile.rows()).clamp(1, HEADS);
        let chunks = match tiles.len() * tile.spans().len() {
            1 => kv_heads,
            parts => kv_heads.div_ceil(most).max((2 * threads()).div_ceil(parts)),
        };
        let together = kv_heads.div_ceil(chunks);
        for head in (0..kv_heads).step_by(together) {
            let (heads, spans) = (head..kv_heads.min(head + together), tile.spans());
            if tile.rows() < TILE_ROWS / 2 {
                let span = |span| Task { tile, heads: heads.clone(), spans: span..span + 1 };
                tasks.extend(spans.map(span));
            } else {
                tasks.push(Task { tile, heads, spans });
            }
        }
    }
    let done: Vec<OnceLock<Softmax>> = tasks.iter().map(|_| OnceLock::new()).collect();
    let out = Disjoint::new(out);
    let write = |Task { tile, heads: of, .. }: &Task, sums: &Softmax| {
        for i in 0..of.len() * tile.rows() {
            let (head, query) = (of.start + i / tile.rows(), i % tile.rows() / group);
            let row = (tile.row + query) * heads + head * group + i % group;
            // SAFETY: a row belongs to one tile and KV head, which one caller writes, once.
            let out = unsafe { out.range(row * head_dim, head_dim) };
            sums.write(i, out);
        }
    };
    let task = |i: usize| {
        // What this thread takes next if the others keep pace.
        let next = tasks.get(i + threads()).filter(|next| next.is_like(&tasks[i]));
        let sums = run(isa, [&tasks[i], next.unwrap_or(&tasks[i])], q);
        if tasks[i].spans == tasks[i].tile.spans() {
            write(&tasks[i], &sums);
        } else {
            // Each task is run once.
            let _ = done[i].set(sums);
        }
    };
    if work < PARALLEL_WORK {
        (0..tasks.len()).for_each(task);
    } else {
        parallel(tasks.len(), task);
    }

    let mut done = done.into_iter().map(OnceLock::into_inner);
    for spans in tasks.chunk_by(|a, b| std::ptr::eq(a.tile, b.tile) && a.heads == b.heads) {
        let mut parts: Vec<Softmax> = done.by_ref().take(spans.len()).flatten().collect();
        if let Some((sums, parts)) = parts.split_first_mut() {
            let (sums, parts) = (&mut *sums, &*parts);
            per_isa!(isa, tile::merge, (sums: &mut Softmax, parts: &[Softmax]));
            write(&spans[0], sums);
        }
    }
}

/// [`tile::run`] on a level. Not inlined: the two places that run tasks would each get all levels.
#[inline(never)]
fn run(isa: Isa, tasks: [&Task; 2], q: &[f32]) -> Softmax {
    let tile = tasks[0].tile;
    if let Some(KvSlice::I8(..)) = tile.sequence.keys.get(tile.blocks().start) {
        #[cfg(target_arch = "x86_64")]
        if isa.registers() == Registers::Amx && tile.rows() >= registers::MANY {
            // SAFETY: the level exists only after its features were detected.
            return unsafe { registers::run(tasks, q) };
        }
        per_integers!(isa, tile::run_int8, (tasks: [&Task; 2], q: &[f32]) -> Softmax)
    } else {
        per_isa!(isa, tile::run, (tasks: [&Task; 2], q: &[f32]) -> Softmax)
    }
}
