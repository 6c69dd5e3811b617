//! The product with many tokens, in a form that each ISA's module stamps with its own vector functions.
//!
//! Both sides are laid out in the order in which the tiles read them: the tokens once for all, a task's
//! rows of W chunk by chunk, and widened. That keeps conversions, remainders and loads that cross cache lines
//! out of the inner loop, and rows a power of two apart, as most are, from competing for a few sets of a
//! cache. A tile's tokens stay in the first-level cache, W's chunk in the second. The order of a sum stays
//! what it is.

use std::ops::Range;

use super::tiles::Tiles;
use super::{Rows, CHUNK};
use crate::kernels::aligned::Aligned;
use crate::kernels::threads::{parallel, Disjoint};

/// Rows of a panel: they divide what models have, and leave most registers to the tokens.
pub(super) const PANEL: usize = 4;

/// Tokens laid out: chunk by chunk, within it tile by tile, a vector of each token in turn, padded with
/// zeros to a whole vector.
#[derive(Clone, Copy)]
pub(super) struct Laid<'a> {
    data: &'a [f32],
    tiles: Tiles,
    len: usize,
    lanes: usize,
}

impl<'a> Laid<'a> {
    /// Lays tokens out for vectors of `lanes` floats, in one parallel region.
    pub(super) fn new(x: Rows<f32>, tiles: Tiles, lanes: usize, buffer: &'a mut Aligned<f32>) -> Self {
        buffer.resize(x.count * x.len.next_multiple_of(lanes));
        let data: &'a mut [f32] = buffer;
        let to = Disjoint::new(data);
        parallel(tiles.count() * x.len.div_ceil(CHUNK), |task| {
            let (tokens, start) = (tiles.get(task % tiles.count()), task / tiles.count() * CHUNK);
            let k = start..x.len.min(start + CHUNK);
            let width = k.len().next_multiple_of(lanes);
            // SAFETY: each task has a chunk of a tile of its own.
            let to = unsafe { to.range(x.count * start + tokens.start * width, tokens.len() * width) };
            for (i, t) in tokens.clone().enumerate() {
                let to = to[i * lanes..].chunks_mut(lanes * tokens.len());
                for (from, to) in x.row(t)[k.clone()].chunks(lanes).zip(to) {
                    to[..from.len()].copy_from_slice(from);
                    to[from.len()..lanes].fill(0.0);
                }
            }
        });
        Self { data, tiles, len: x.len, lanes }
    }

    /// Inputs.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How the tokens are cut into tiles.
    pub(super) fn tiles(&self) -> Tiles {
        self.tiles
    }

    /// The chunks of the inputs.
    pub(super) fn chunks(&self) -> impl Iterator<Item = Range<usize>> {
        let len = self.len;
        (0..len).step_by(CHUNK).map(move |start| start..len.min(start + CHUNK))
    }

    /// A chunk of a tile.
    pub(super) fn tile(&self, k: &Range<usize>, tokens: &Range<usize>) -> &'a [f32] {
        let width = k.len().next_multiple_of(self.lanes);
        &self.data[self.tiles.tokens() * k.start + tokens.start * width..][..tokens.len() * width]
    }
}

/// Makes `many` for vectors of `$lanes` floats and tiles of a panel's rows by `$most` tokens or one less.
macro_rules! many {
    ($features:literal, lanes = $lanes:literal, tokens = [$less:literal, $most:literal]) => {
        /// Floats of a vector, and tokens of a tile at most.
        pub(super) const SHAPE: [usize; 2] = [$lanes, $most];

        /// sums\[t, r\] = x\[t\] · w\[r\] for many tokens.
        ///
        /// `next`: rows, as far apart as W's, that the calling thread will probably read next.
        #[target_feature(enable = $features)]
        pub(super) fn many<F: Stored>(
            x: Laid,
            w: Rows<F::Raw>,
            next: *const u8,
            sums: &mut [f32],
            scratch: &mut Aligned<f32>,
        ) {
            let (tiles, tokens) = (x.tiles(), x.tiles().tokens());
            assert_eq!(x.len(), w.len, "inputs");
            assert_eq!(sums.len(), tokens * w.count, "sums");
            let rows = w.count.next_multiple_of(PANEL);
            let room = rows * CHUNK.min(w.len).next_multiple_of($lanes);
            // The totals lie tile by tile, within it panel by panel.
            scratch.resize(room + rows * tokens);
            let (panels, totals) = scratch.split_at_mut(room);
            totals.fill(0.0);
            for k in x.chunks() {
                let size = PANEL * k.len().next_multiple_of($lanes);
                for (r, panel) in (0..w.count).step_by(PANEL).zip(panels.chunks_exact_mut(size)) {
                    pack::<F>(w, r, k.clone(), panel);
                }
                let next = if k.end < w.len { w.row(0)[k.end..].as_ptr().cast() } else { next };
                let lines = k.len() * size_of::<F::Raw>() / LINE + 1;
                let share = lines.div_ceil(tiles.count());
                for tile in 0..tiles.count() {
                    let lines = tile * share..lines.min((tile + 1) * share);
                    let tokens = tiles.get(tile);
                    let (x, totals) = (x.tile(&k, &tokens), &mut totals[tokens.start * rows..]);
                    let (totals, _) = totals.as_chunks_mut::<PANEL>();
                    let totals = totals.chunks_exact_mut(tokens.len());
                    // What comes next of the tokens lies behind these.
                    let share = size_of_val(x).div_ceil(rows / PANEL).next_multiple_of(LINE);
                    let mut after: *const u8 = x.as_ptr_range().end.cast();
                    for ((r, panel), totals) in
                        (0..rows).step_by(PANEL).zip(panels.chunks_exact(size)).zip(totals)
                    {
                        for row in r..r + PANEL {
                            let next = next.wrapping_add(row * w.stride * size_of::<F::Raw>());
                            lines.clone().for_each(|line| prefetch_far(next.wrapping_add(line * LINE)));
                        }
                        (0..share).step_by(LINE).for_each(|at| prefetch_far(after.wrapping_add(at)));
                        after = after.wrapping_add(share);
                        if let Some(totals) = totals.first_chunk_mut() {
                            add_all(panel_dots::<$most>(x, panel), totals);
                        } else if let Some(totals) = totals.first_chunk_mut() {
                            add_all(panel_dots::<$less>(x, panel), totals);
                        }
                    }
                }
            }
            for tokens in (0..tiles.count()).map(|tile| tiles.get(tile)) {
                let (totals, _) = totals[tokens.start * rows..tokens.end * rows].as_chunks::<PANEL>();
                for (r, totals) in (0..).step_by(PANEL).zip(totals.chunks_exact(tokens.len())) {
                    for (t, totals) in tokens.clone().zip(totals) {
                        let sums = &mut sums[t * w.count + r..(t + 1) * w.count];
                        match sums.first_chunk_mut() {
                            Some(sums) => *sums = *totals,
                            None => sums.copy_from_slice(&totals[..sums.len()]),
                        }
                    }
                }
            }
        }

        /// Lays a panel's rows from `first` on out: a vector of each in turn. Columns up to a whole vector
        /// are zeros; what stands for rows beyond the last does not matter.
        #[inline]
        #[target_feature(enable = $features)]
        fn pack<F: Stored>(from: Rows<F::Raw>, first: usize, k: Range<usize>, to: &mut [f32]) {
            let (to, _) = to.as_chunks_mut::<$lanes>();
            for g in 0..PANEL.min(from.count - first) {
                let mut to = to[g..].iter_mut().step_by(PANEL);
                let (vectors, rest) = from.row(first + g)[k.clone()].as_chunks::<$lanes>();
                // `to` is the longer one, and second: `zip` leaves its next one for the rest.
                for (from, to) in vectors.iter().zip(&mut to) {
                    store(load_stored::<F>(from), to);
                }
                if let Some(to) = to.next() {
                    let mut padded = [F::ZERO; $lanes];
                    padded[..rest.len()].copy_from_slice(rest);
                    store(load_stored::<F>(&padded), to);
                }
            }
        }

        /// The dot products of `T` tokens and a panel's rows, one in each vector's lanes.
        #[inline]
        #[target_feature(enable = $features)]
        fn panel_dots<const T: usize>(x: &[f32], panel: &[f32]) -> [[Vector; PANEL]; T] {
            let (x, w) = (x.as_chunks::<$lanes>().0, panel.as_chunks::<$lanes>().0);
            let mut acc = [[zero(); PANEL]; T];
            for (x, w) in x.as_chunks::<T>().0.iter().zip(w.as_chunks::<PANEL>().0) {
                // The fewer operands stay in registers, the others come one by one.
                if T < PANEL {
                    let mut xs = [zero(); T];
                    xs.iter_mut().zip(x).for_each(|(to, x)| *to = load(x));
                    for r in 0..PANEL {
                        let w = load(&w[r]);
                        for t in 0..T {
                            acc[t][r] = fma(xs[t], w, acc[t][r]);
                        }
                    }
                } else {
                    let mut ws = [zero(); PANEL];
                    ws.iter_mut().zip(w).for_each(|(to, w)| *to = load(w));
                    for t in 0..T {
                        let x = load(&x[t]);
                        for r in 0..PANEL {
                            acc[t][r] = fma(x, ws[r], acc[t][r]);
                        }
                    }
                }
            }
            acc
        }
    };
}
