//! The specification: one sum, from left to right, of each chunk; and one of the chunks.

use super::many::Laid;
use super::{Rows, Stored, CHUNK};

/// Floats of a vector, and tokens of a tile at most.
pub(super) const SHAPE: [usize; 2] = [1, 3];

/// sums\[t, r\] = x\[t\] · w\[r\]
pub(super) fn few<F: Stored>(x: Rows<f32>, w: Rows<F::Raw>, sums: &mut [f32]) {
    for t in 0..x.count {
        for r in 0..w.count {
            let chunks = x.row(t).chunks(CHUNK).zip(w.row(r).chunks(CHUNK));
            sums[t * w.count + r] = chunks.fold(0.0, |sum, (x, w)| sum + dot::<F>(x.iter(), w));
        }
    }
}

/// The same for tokens laid out.
pub(super) fn many<F: Stored>(x: Laid, w: Rows<F::Raw>, sums: &mut [f32]) {
    sums.fill(0.0);
    for k in x.chunks() {
        for tokens in (0..x.tiles().count()).map(|tile| x.tiles().get(tile)) {
            for t in tokens.clone() {
                let x = || x.tile(&k, &tokens)[t - tokens.start..].iter().step_by(tokens.len());
                for r in 0..w.count {
                    sums[t * w.count + r] += dot::<F>(x(), &w.row(r)[k.clone()]);
                }
            }
        }
    }
}

fn dot<'a, F: Stored>(x: impl Iterator<Item = &'a f32>, w: &[F::Raw]) -> f32 {
    x.zip(w).map(|(x, &w)| x * F::widen(w)).sum()
}
