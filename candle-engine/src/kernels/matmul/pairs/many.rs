//! More tokens than a tile has: arithmetic sets the pace.

use std::cell::RefCell;
use std::ops::Range;

use super::{amx, apply, avx512, Gate, Line, Product, Sums, ROWS};
use crate::kernels::matmul::Dense;
use crate::kernels::prefetch::{prefetch_far, LINE};
use crate::kernels::threads::{parallel, threads};

/// Panels of a task at most, which share what is read of the tokens.
const PANELS: usize = 4;

/// Tasks of a thread at least, where there are enough rows: so many that the threads end together.
const TASKS: usize = 8;

#[derive(Default)]
struct Scratch {
    panel: Vec<Line>,
    sums: Vec<Sums>,
    ups: Vec<Sums>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Product<'_> {
    /// All outputs.
    pub(super) fn many(&self) {
        let n = self.w.0.rows;
        // What is in which task shows in no result.
        let step = (n / (ROWS * TASKS * threads())).clamp(1, PANELS) * ROWS;
        parallel(n.div_ceil(step), |task| {
            let _tiles = self.registers.then(amx::tiles);
            let rows = task * step..n.min((task + 1) * step);
            // Where this thread's next task begins if the others keep pace.
            let next = self.w.0.row_start(rows.start + step * threads());
            SCRATCH.with_borrow_mut(|Scratch { panel, sums, ups }| {
                if let Some(Gate { up, .. }) = self.gate {
                    self.panels(&self.w.0, &rows, up.0.row_start(rows.start), panel, sums);
                    self.panels(&up.0, &rows, next, panel, ups);
                } else {
                    self.panels(&self.w.0, &rows, next, panel, sums);
                }
                self.write(&rows, sums, ups);
            });
        });
    }

    /// Writes the outputs of some rows, of each token all at once: memory likes runs.
    fn write(&self, rows: &Range<usize>, sums: &mut [Sums], ups: &mut [Sums]) {
        let padded = self.x.padded();
        let add = |sums: &mut Sums, bias: &Option<&[f32]>, row: usize| {
            if let Some(bias) = bias {
                sums.0.iter_mut().zip(&bias[row..rows.end]).for_each(|(sum, bias)| *sum += bias);
            }
        };
        for t in 0..self.x.tokens() {
            // SAFETY: each task has rows, that is columns of y, of its own.
            let y = unsafe { self.y.range((self.first + t) * self.w.0.rows + rows.start, rows.len()) };
            for (p, y) in y.chunks_mut(ROWS).enumerate() {
                let (row, at) = (rows.start + p * ROWS, p * padded + t);
                let sums = &mut sums[at];
                add(sums, &self.w.1, row);
                if let Some(Gate { up, act }) = self.gate {
                    add(&mut ups[at], &up.1, row);
                    apply(self.isa, *act, &mut sums.0, &ups[at].0);
                }
                y.copy_from_slice(&sums.0[..y.len()]);
            }
        }
    }

    /// The sums of some rows and all tokens, while what is at `next` is asked for.
    fn panels(
        &self,
        w: &Dense,
        rows: &Range<usize>,
        next: *const u8,
        panel: &mut Vec<Line>,
        sums: &mut Vec<Sums>,
    ) {
        let tokens = self.x.padded();
        sums.resize(rows.len().div_ceil(ROWS) * tokens, Sums([0.0; ROWS]));
        for pairs in self.x.chunks() {
            panel.resize(pairs.len(), Line([0; ROWS]));
            let k = 2 * pairs.start..w.cols.min(2 * pairs.end);
            for (row, sums) in rows.clone().step_by(ROWS).zip(sums.chunks_exact_mut(tokens)) {
                let these = row..rows.end.min(row + ROWS);
                // SAFETY: this level exists only after its features were detected.
                unsafe { avx512::pack(w.part(these.clone()), k.clone(), panel) };
                // What is packed next: of the next panel, of the next chunk, or of other rows.
                let (next, pad) = if these.end < rows.end {
                    (w.row_start(these.end), k.start)
                } else if k.end < w.cols {
                    (w.row_start(rows.start), k.end)
                } else {
                    (next, 0)
                };
                let tiles = self.x.tiles().count();
                let mut ahead = Ahead::new(next.wrapping_add(2 * pad), w.cols, k.len(), tiles);
                for t in self.x.tiles() {
                    ahead.fetch();
                    let (x, sums) = (self.x.tile(&pairs, &t), &mut sums[t.start..][..self.x.width(t.len())]);
                    // SAFETY: as above; the tiles are in use.
                    unsafe {
                        if self.registers {
                            amx::multiply(panel, x, sums, pairs.start == 0);
                        } else {
                            avx512::multiply(panel, x, sums, pairs.start == 0);
                        }
                    }
                }
            }
        }
    }
}

/// Asks for a chunk of a panel's rows, a share with each tile.
struct Ahead {
    at: *const u8,
    /// Bytes from row to row.
    stride: usize,
    /// Cache lines of a row's chunk.
    lines: usize,
    share: usize,
    done: usize,
}

impl Ahead {
    /// For `len` numbers of each row, of `cols`, during so many tiles.
    fn new(at: *const u8, cols: usize, len: usize, tiles: usize) -> Self {
        let lines = (2 * len).div_ceil(LINE) + 1;
        Self { at, stride: 2 * cols, lines, share: (ROWS * lines).div_ceil(tiles), done: 0 }
    }

    fn fetch(&mut self) {
        for i in self.done..(ROWS * self.lines).min(self.done + self.share) {
            prefetch_far(self.at.wrapping_add(i / self.lines * self.stride + i % self.lines * LINE));
        }
        self.done += self.share;
    }
}
