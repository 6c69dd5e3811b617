//! The product of a linear layer: its output, or the gradient of its input.

use std::ops::Range;

use super::matrix::{Matrix, View};
use super::tile::{multiply, rows, Operands};
use crate::kernels::lanes::{per_isa, Arith};
use crate::kernels::threads::{parallel, Disjoint};
use crate::kernels::Isa;

/// Multiplications below which a task is not worth a thread.
const TASK: usize = 1 << 20;

/// What is done to a product before it is kept.
#[derive(Clone, Copy)]
pub enum Epilogue<'a> {
    /// Nothing.
    None,
    /// A bias `[n]` is added, padded as the output is.
    Bias(&'a [f32]),
    /// A bias is added, then what is negative becomes zero.
    BiasRelu(&'a [f32]),
    /// Zero where this matrix, of the output's shape, is not positive: the gradient of a ReLU that gave it.
    Gate(&'a Matrix),
    /// Times this matrix, of the output's shape: the slopes of an activation.
    Scale(&'a Matrix),
    /// The product is added to what the output holds.
    Add,
}

/// out = x `[rows, k]` · w `[k, n]`
///
/// With a layer's weights `[in, out]` this is its output; with their transpose and the gradient of the output it is
/// the gradient of the input.
///
/// # Panics
///
/// If a shape does not fit.
pub fn product(x: View, w: &Matrix, epilogue: Epilogue, out: &mut Matrix) {
    product_on(Isa::best(), x, w, epilogue, out);
}

pub(super) fn product_on(isa: Isa, x: View, w: &Matrix, epilogue: Epilogue, out: &mut Matrix) {
    assert_eq!((x.cols, out.rows(), out.cols()), (w.rows(), x.rows, w.cols()), "product: x, w and out");
    let (width, count) = (w.width(), out.rows());
    match epilogue {
        Epilogue::Bias(bias) | Epilogue::BiasRelu(bias) => {
            assert_eq!(bias.len(), w.panels() * width, "product: bias");
        }
        Epilogue::Gate(by) | Epilogue::Scale(by) => {
            assert_eq!((by.rows(), by.cols()), (out.rows(), out.cols()), "product: its factor");
        }
        Epilogue::None | Epilogue::Add => {}
    }
    let blocks = blocks(count, 16, x.cols * width);
    let tasks = w.panels() * blocks.count;
    let data = Disjoint::new(out.data_mut());
    tasks_of(tasks, x.cols * width * count * w.panels(), |task| {
        let (panel, rows) = (task / blocks.count, blocks.range(task % blocks.count));
        // SAFETY: each task has rows of a panel of its own.
        let out = unsafe { data.range((panel * count + rows.start) * width, rows.len() * width) };
        let job = &Job { x, w, epilogue, panel, rows };
        per_isa!(isa, run, (job: &Job, out: &mut [f32]));
    });
}

/// Rows of one panel of a product.
struct Job<'a> {
    x: View<'a>,
    w: &'a Matrix,
    epilogue: Epilogue<'a>,
    panel: usize,
    rows: Range<usize>,
}

#[inline(always)]
fn run<A: Arith>(arith: A, job: &Job, out: &mut [f32]) {
    let width = job.w.width();
    let mut row = 0;
    while row < job.rows.len() {
        let out = &mut out[row * width..];
        row += match job.rows.len() - row {
            8.. if rows::<A>() == 8 => job.tile::<8, A>(arith, row, out),
            4.. => job.tile::<4, A>(arith, row, out),
            2.. => job.tile::<2, A>(arith, row, out),
            _ => job.tile::<1, A>(arith, row, out),
        };
    }
}

impl Job<'_> {
    /// `R` rows from `row` of the job's on.
    #[inline(always)]
    fn tile<const R: usize, A: Arith>(&self, arith: A, row: usize, out: &mut [f32]) -> usize {
        let width = self.w.width();
        let out = &mut out[..R * width];
        if width >= 2 * A::N {
            (0..width).step_by(2 * A::N).for_each(|col| self.columns::<R, 2, A>(arith, row, col, out));
        } else {
            self.columns::<R, 1, A>(arith, row, 0, out);
        }
        let first = (self.panel * self.x.rows + self.rows.start + row) * width;
        match self.epilogue {
            Epilogue::Gate(by) => {
                for (out, by) in out.iter_mut().zip(&by.data()[first..][..R * width]) {
                    *out = if *by > 0.0 { *out } else { 0.0 };
                }
            }
            Epilogue::Scale(by) => {
                for (out, by) in out.iter_mut().zip(&by.data()[first..][..R * width]) {
                    *out *= by;
                }
            }
            _ => {}
        }
        R
    }

    /// `P` registers of columns from `col` of the panel on.
    #[inline(always)]
    fn columns<const R: usize, const P: usize, A: Arith>(
        &self,
        arith: A,
        row: usize,
        col: usize,
        out: &mut [f32],
    ) {
        let (x, k, width) = (self.x, self.x.cols, self.w.width());
        let mut sums = [[arith.splat(0.0); P]; R];
        match self.epilogue {
            Epilogue::Bias(bias) | Epilogue::BiasRelu(bias) => {
                for p in 0..P {
                    let bias = arith.load(&bias[self.panel * width + col + p * A::N..]);
                    sums.iter_mut().for_each(|sums| sums[p] = bias);
                }
            }
            Epilogue::Add => {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for p in 0..P {
                        sums[p] = arith.load(&out[r * width + col + p * A::N..]);
                    }
                }
            }
            Epilogue::None | Epilogue::Gate(_) | Epilogue::Scale(_) => {}
        }
        let w = &self.w.data()[self.panel * k * width..][..k * width];
        for first in (0..k).step_by(x.width) {
            let operands = Operands {
                x: &x.data[x.at(self.rows.start + row, first)..],
                x_row: x.row,
                x_step: 1,
                y: &w[first * width + col..],
                y_step: width,
                steps: x.width.min(k - first),
            };
            multiply(arith, operands, &mut sums);
        }
        let relu = matches!(self.epilogue, Epilogue::BiasRelu(_));
        for (r, sums) in sums.iter().enumerate() {
            for p in 0..P {
                // What is not a number stays so.
                let sum = if relu { arith.max_v(arith.splat(0.0), sums[p]) } else { sums[p] };
                arith.store(sum, &mut out[r * width + col + p * A::N..]);
            }
        }
    }
}

/// Parts of whole `step`s that rows are cut into: many enough for the threads, and each worth a task.
pub(super) fn blocks(rows: usize, step: usize, work_per_row: usize) -> Blocks {
    let size = (TASK / work_per_row.max(1)).max(1).next_multiple_of(step);
    Blocks { rows, size, count: rows.div_ceil(size) }
}

/// See [`blocks`].
#[derive(Clone, Copy)]
pub(super) struct Blocks {
    rows: usize,
    size: usize,
    pub count: usize,
}

impl Blocks {
    /// The rows of a block.
    pub fn range(&self, block: usize) -> Range<usize> {
        block * self.size..self.rows.min((block + 1) * self.size)
    }
}

/// Runs tasks that make so many multiplications together, on the pool if that pays.
pub(super) fn tasks_of(tasks: usize, work: usize, f: impl Fn(usize) + Sync) {
    if work < 2 * TASK {
        (0..tasks).for_each(f);
    } else {
        parallel(tasks, f);
    }
}
