//! The specification: one sum, from left to right.

use super::{Rows, Stored, CHUNK};

/// sums\[t, r\] += x\[t\] · w\[r\]
pub(super) fn accumulate<F: Stored>(x: Rows<f32>, w: Rows<F::Raw>, sums: &mut [f32]) {
    for t in 0..x.count {
        for r in 0..w.count {
            let chunks = x.row(t).chunks(CHUNK).zip(w.row(r).chunks(CHUNK));
            sums[t * w.count + r] += chunks.map(|(x, w)| dot::<F>(x, w)).sum::<f32>();
        }
    }
}

fn dot<F: Stored>(x: &[f32], w: &[F::Raw]) -> f32 {
    x.iter().zip(w).map(|(x, &w)| x * F::widen(w)).sum()
}
