//! How tokens are cut into tiles.

use std::ops::Range;

/// Tokens in tiles of `most`, and of one less where that leaves no smaller one.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    tokens: usize,
    less: usize,
    count: usize,
    /// How many tiles have `most`.
    larger: usize,
}

impl Tiles {
    /// There must be enough tokens: at least two for tiles of three, twenty for tiles of six.
    pub(super) fn new(tokens: usize, most: usize) -> Self {
        let (less, count) = (most - 1, tokens.div_ceil(most));
        assert!(count * less <= tokens, "{tokens} tokens in tiles of {less} and {most}");
        Self { tokens, less, count, larger: tokens - count * less }
    }

    /// All tokens.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Tiles.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// A tile's tokens.
    #[inline(always)]
    pub(super) fn get(&self, tile: usize) -> Range<usize> {
        self.start(tile)..self.start(tile + 1)
    }

    #[inline(always)]
    fn start(&self, tile: usize) -> usize {
        tile * self.less + tile.min(self.larger)
    }
}
