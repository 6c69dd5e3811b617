//! Tokens as the tiles read them.

use std::ops::Range;

use super::{amx, avx512, Disjoint, Rows, BLOCK, LANES, TILE};
use crate::kernels::aligned::Aligned;
use crate::kernels::threads::parallel;

/// About how many pairs of a panel are multiplied by all tiles before the next ones: 32 KiB of a panel, in a
/// first-level cache.
const CHUNK: usize = 256;

/// The same for matrix registers, whose tiles take as much as the panel.
const TILE_CHUNK: usize = 128;

/// Tokens, rounded: chunk by chunk, within it tile by tile, a pair of each token in turn; zeros up to a whole block
/// and up to one of the numbers of tokens that there are kernels for. For matrix registers a block of each token in turn.
pub(super) struct Laid<'a> {
    data: &'a [u32],
    tokens: usize,
    /// Whether they lie for matrix registers.
    registers: bool,
    pairs: usize,
    /// Pairs of a chunk, the last of which may be shorter.
    step: usize,
}

impl<'a> Laid<'a> {
    /// Lays tokens out, in one parallel region.
    pub(super) fn new(x: Rows<f32>, registers: bool, buffer: &'a mut Aligned<u32>) -> Self {
        let pairs = x.len.div_ceil(2).next_multiple_of(BLOCK);
        let chunk = if registers { TILE_CHUNK } else { CHUNK };
        let chunks = if x.count <= TILE { 1 } else { ((pairs + chunk / 2) / chunk).max(1) };
        let step = pairs.div_ceil(chunks).next_multiple_of(BLOCK);
        let mut laid = Self { data: &[], tokens: x.count, registers, pairs, step };
        let room = laid.padded() * pairs;
        buffer.resize(room);
        let data: &'a mut [u32] = buffer;
        let to = Disjoint::new(data);
        let most = laid.most();
        parallel(x.count.div_ceil(most), |tile| {
            let tokens = tile * most..x.count.min((tile + 1) * most);
            let width = laid.width(tokens.len());
            for pairs in laid.chunks() {
                // SAFETY: each task has a tile of its own.
                let to = unsafe { to.range(laid.at(&pairs, tokens.start), width * pairs.len()) };
                let k = 2 * pairs.start..x.len.min(2 * pairs.end);
                // SAFETY: this level exists only after its features were detected.
                unsafe {
                    if registers {
                        amx::lay(x, tokens.clone(), k, width, to);
                    } else {
                        avx512::lay(x, tokens.clone(), k, width, to);
                    }
                }
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
        let (tokens, most) = (self.tokens, self.most());
        (0..tokens).step_by(most).map(move |first| first..tokens.min(first + most))
    }

    /// The chunks of the pairs.
    pub(super) fn chunks(&self) -> impl Iterator<Item = Range<usize>> {
        let (pairs, step) = (self.pairs, self.step);
        (0..pairs).step_by(step).map(move |start| start..pairs.min(start + step))
    }

    /// A chunk of a tile.
    pub(super) fn tile(&self, pairs: &Range<usize>, tokens: &Range<usize>) -> &'a [u32] {
        &self.data[self.at(pairs, tokens.start)..][..self.width(tokens.len()) * pairs.len()]
    }

    /// Where a tile's pairs of a chunk begin.
    fn at(&self, pairs: &Range<usize>, first: usize) -> usize {
        self.padded() * pairs.start + first * pairs.len()
    }

    /// Tokens, and what the last tile is padded with.
    pub(super) fn padded(&self) -> usize {
        let whole = self.tokens / self.most() * self.most();
        whole + if self.tokens > whole { self.width(self.tokens - whole) } else { 0 }
    }

    /// Tokens of a tile at most.
    fn most(&self) -> usize {
        if self.registers {
            amx::TOKENS
        } else {
            TILE
        }
    }

    /// The tokens that a tile of so many is padded to.
    pub(super) fn width(&self, tokens: usize) -> usize {
        if self.registers {
            tokens.next_multiple_of(LANES)
        } else {
            width(tokens)
        }
    }
}

/// The tokens that a tile of so many, which lie in turn, is padded to.
pub(super) fn width(tokens: usize) -> usize {
    match tokens {
        1 => 1,
        2..=4 => 4,
        5..=8 => 8,
        _ => TILE,
    }
}
