//! Attention over a cache of key and value blocks.
//!
//! One task takes a tile of queries of one KV head through the blocks that they see, in the order of absolute
//! positions, with the online softmax of Milakov and Gimelshein (2018); no `[t, s]` matrix exists. A block's
//! keys and values are read, and widened, once for all queries of the tile and all query heads of the group.
//!
//! The operations of one row (a query and head) and their order follow from its position alone: a row has
//! the same bits whether it is computed in a whole prompt, a chunk or a step, in any batch, on any number of
//! threads. What a row does not see, it does not touch, be it NaN.

mod cache;
mod tile;

#[cfg(test)]
mod tests;

pub use self::cache::{append_keys, append_values, KvSlice, KvSliceMut};

use super::threads::{parallel, Disjoint};
use super::{per_isa, Isa};
use crate::kv::BLOCK;
use tile::Tile;

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

    let out = Disjoint::new(out);
    let task = |i: usize| {
        let (tile, head) = (&tiles[i / kv_heads], i % kv_heads);
        let rows = tile.row..tile.row + tile.queries;
        let mut out: Vec<_> = rows
            // SAFETY: a query's heads of one group belong to one tile and KV head, which is one task.
            .map(|row| unsafe { out.range((row * kv_heads + head) * group * head_dim, group * head_dim) })
            .collect();
        let out = &mut out[..];
        per_isa!(isa, tile::run, (tile: &Tile, head: usize, q: &[f32], out: &mut [&mut [f32]]));
    };
    let tasks = tiles.len() * kv_heads;
    if work < PARALLEL_WORK {
        (0..tasks).for_each(task);
    } else {
        parallel(tasks, task);
    }
}
