//! A tile of tokens or less: memory sets the pace.

use std::cell::RefCell;
use std::ops::Range;

use super::{amx, apply, avx512, Gate, Product, Term, LANES};
use crate::kernels::threads::{parallel_ranges, Stretch};

/// Bytes of rows that are worth a region: some three microseconds' worth when they come from memory.
const TASK_BYTES: usize = 64 << 10;

thread_local! {
    static SUMS: RefCell<[Vec<f32>; 2]> = RefCell::default();
}

impl Product<'_> {
    /// All outputs.
    pub(super) fn few(&self) {
        let (w, _) = self.w;
        let task = TASK_BYTES.div_ceil(2 * w.cols);
        parallel_ranges(Stretch { bytes: w.bytes, rows: w.rows, grain: LANES, task }, |rows| {
            SUMS.with_borrow_mut(|[sums, ups]| {
                match self.gate {
                    None => self.rows(self.w, &rows, sums),
                    Some(Gate { up, act }) => {
                        self.rows(self.w, &rows, sums);
                        self.rows(up, &rows, ups);
                        apply(self.isa, *act, sums, ups);
                    }
                }
                for (token, sums) in (self.first..).zip(sums.chunks_exact(rows.len())) {
                    // SAFETY: each task has rows, that is columns of y, of its own.
                    let y = unsafe { self.y.range(token * w.rows + rows.start, rows.len()) };
                    y.copy_from_slice(sums);
                }
            });
        });
    }

    /// sums\[t, r\] = x\[t\] · w\[r\] + b\[r\]
    fn rows(&self, (w, bias): &Term, rows: &Range<usize>, sums: &mut Vec<f32>) {
        sums.resize(self.x.tokens() * rows.len(), 0.0);
        let (pairs, tokens) = (self.x.chunks().next(), self.x.tiles().next());
        if let Some((pairs, tokens)) = pairs.zip(tokens) {
            let x = self.x.tile(&pairs, &tokens);
            let w = w.part(rows.clone());
            if self.registers {
                amx::few(w, x, self.x.width(tokens.len()), tokens.len(), sums);
            } else {
                // SAFETY: this level exists only after its features were detected.
                unsafe { avx512::few(w, x, tokens.len(), sums) };
            }
        }
        if let Some(bias) = bias {
            for sums in sums.chunks_exact_mut(rows.len()) {
                sums.iter_mut().zip(&bias[rows.clone()]).for_each(|(sum, bias)| *sum += bias);
            }
        }
    }
}
