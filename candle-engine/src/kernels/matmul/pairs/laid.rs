//! Tokens as the tiles read them.

use std::ops::Range;

use super::{avx512, Disjoint, Rows, BLOCK, TILE};
use crate::kernels::threads::parallel;

/// About how many pairs of a panel are multiplied by all tiles before the next ones: 32 KiB of a panel, in a
/// first-level cache.
const CHUNK: usize = 256;

/// Tokens, rounded: chunk by chunk, within it tile by tile, a pair of each token in turn; zeros up to a whole block
/// and up to one of the numbers of tokens that there are kernels for.
pub(super) struct Laid<'a> {
    data: &'a [u32],
    tokens: usize,
    pairs: usize,
    /// Pairs of a chunk, the last of which may be shorter.
    step: usize,
}

impl<'a> Laid<'a> {
    /// Lays tokens out, in one parallel region.
    pub(super) fn new(x: Rows<f32>, buffer: &'a mut Vec<u32>) -> Self {
        let pairs = x.len.div_ceil(2).next_multiple_of(BLOCK);
        let chunks = if x.count <= TILE { 1 } else { ((pairs + CHUNK / 2) / CHUNK).max(1) };
        let step = pairs.div_ceil(chunks).next_multiple_of(BLOCK);
        let mut laid = Self { data: &[], tokens: x.count, pairs, step };
        let room = laid.padded() * pairs;
        if buffer.len() < room {
            buffer.resize(room, 0);
        }
        let data = &mut buffer[..room];
        let to = Disjoint::new(data);
        parallel(x.count.div_ceil(TILE), |tile| {
            let tokens = tile * TILE..x.count.min((tile + 1) * TILE);
            let width = width(tokens.len());
            for pairs in laid.chunks() {
                // SAFETY: each task has a tile of its own.
                let to = unsafe { to.range(laid.at(&pairs, tokens.start), width * pairs.len()) };
                let k = 2 * pairs.start..x.len.min(2 * pairs.end);
                // SAFETY: this level exists only after its features were detected.
                unsafe { avx512::lay(x, tokens.clone(), k, width, to) };
            }
        });
        laid.data = data;
        laid
    }

    /// Tokens.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Tiles, by their tokens.
    pub(super) fn tiles(&self) -> impl Iterator<Item = Range<usize>> {
        let tokens = self.tokens;
        (0..tokens).step_by(TILE).map(move |first| first..tokens.min(first + TILE))
    }

    /// The chunks of the pairs.
    pub(super) fn chunks(&self) -> impl Iterator<Item = Range<usize>> {
        let (pairs, step) = (self.pairs, self.step);
        (0..pairs).step_by(step).map(move |start| start..pairs.min(start + step))
    }

    /// A chunk of a tile.
    pub(super) fn tile(&self, pairs: &Range<usize>, tokens: &Range<usize>) -> &'a [u32] {
        &self.data[self.at(pairs, tokens.start)..][..width(tokens.len()) * pairs.len()]
    }

    /// Where a tile's pairs of a chunk begin.
    fn at(&self, pairs: &Range<usize>, first: usize) -> usize {
        self.padded() * pairs.start + first * pairs.len()
    }

    /// Tokens, and what the last tile is padded with.
    pub(super) fn padded(&self) -> usize {
        let whole = self.tokens / TILE * TILE;
        whole + if self.tokens > whole { width(self.tokens - whole) } else { 0 }
    }
}

/// The tokens that a tile of so many is padded to.
pub(super) fn width(tokens: usize) -> usize {
    match tokens {
        1 => 1,
        2..=4 => 4,
        5..=8 => 8,
        _ => TILE,
    }
}
