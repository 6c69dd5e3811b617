//! The product of a linear layer: its output, or the gradient of its input.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::matrix::{columns_of, zeros, Matrix, View, NARROW, WIDE};
use super::tile::{cover, multiply, Operands, Tiles};
use crate::kernels::lanes::{per_isa, Arith};
use crate::kernels::threads::{parallel, Disjoint};
use crate::kernels::Isa;

/// Multiplications below which a task is not worth a thread.
const TASK: usize = 1 << 20;

/// Steps whose weights are transposed at a time: 32 KiB of a panel.
const DEPTH: usize = 256;

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
/// # Panics
///
/// If a shape does not fit.
pub fn product(x: View, w: &Matrix, epilogue: Epilogue, out: &mut Matrix) {
    product_on(Isa::best(), x, Weights { w, transposed: false }, epilogue, out);
}

/// out = x `[rows, k]` · wᵀ, w `[n, k]`
///
/// # Panics
///
/// If a shape does not fit.
pub fn product_transposed(x: View, w: &Matrix, epilogue: Epilogue, out: &mut Matrix) {
    product_on(Isa::best(), x, Weights { w, transposed: true }, epilogue, out);
}

/// The second operand.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    pub w: &'a Matrix,
    /// Whether its columns are multiplied with, not its rows.
    pub transposed: bool,
}

pub(super) fn product_on(isa: Isa, x: View, weights: Weights, epilogue: Epilogue, out: &mut Matrix) {
    let (k, n) = match weights {
        Weights { w, transposed: false } => (w.rows(), w.cols()),
        Weights { w, transposed: true } => (w.cols(), w.rows()),
    };
    assert_eq!((x.cols, out.rows(), out.cols()), (k, x.rows, n), "product: x, w and out");
    let (width, panels, count) = (out.width(), out.panels(), out.rows());
    match epilogue {
        Epilogue::Bias(bias) | Epilogue::BiasRelu(bias) => {
            assert_eq!(bias.len(), panels * width, "product: bias");
        }
        Epilogue::Gate(by) | Epilogue::Scale(by) => {
            assert_eq!((by.rows(), by.cols()), (count, n), "product: its factor");
        }
        Epilogue::None | Epilogue::Add => {}
    }
    let blocks = blocks(count, 16, k * width);
    let data = Disjoint::new(out.data_mut());
    tasks_of(panels * blocks.count, k * width * count * panels, |task| {
        let (panel, rows) = (task / blocks.count, blocks.range(task % blocks.count));
        // SAFETY: each task has rows of a panel of its own.
        let out = unsafe { data.range((panel * count + rows.start) * width, rows.len() * width) };
        let job = &Job { x, weights, epilogue, panel, rows, width };
        per_isa!(isa, run, (job: &Job, out: &mut [f32]));
    });
}

/// Rows of one panel of a product.
struct Job<'a> {
    x: View<'a>,
    weights: Weights<'a>,
    epilogue: Epilogue<'a>,
    panel: usize,
    rows: Range<usize>,
    width: usize,
}

#[inline(always)]
fn run<A: Arith>(arith: A, job: &Job, out: &mut [f32]) {
    let (k, width) = (job.x.cols, job.width);
    let Weights { w, transposed } = job.weights;
    if !transposed {
        let w = &w.data()[job.panel * k * width..][..k * width];
        return cover(arith, job.rows.len(), &mut Steps { job, steps: 0..k, w, out });
    }
    let mut room = [const { MaybeUninit::uninit() }; DEPTH * WIDE / NARROW];
    for first in (0..k.max(1)).step_by(DEPTH) {
        let steps = first..k.min(first + DEPTH);
        let room = zeros(&mut room[..steps.len().next_multiple_of(8) * width / NARROW]);
        columns_of(arith, w, job.panel * width, steps.clone(), width, room);
        cover(arith, job.rows.len(), &mut Steps { job, steps, w: room, out });
    }
}

/// Some steps of a job's products.
struct Steps<'a> {
    job: &'a Job<'a>,
    steps: Range<usize>,
    /// The panel's weights of these steps.
    w: &'a [f32],
    /// The sums so far.
    out: &'a mut [f32],
}

impl<A: Arith> Tiles<A> for Steps<'_> {
    #[inline(always)]
    fn width(&self) -> usize {
        self.job.width
    }

    #[inline(always)]
    fn columns<const R: usize, const P: usize>(&mut self, arith: A, row: usize, col: usize) {
        let Job { x, ref rows, width, panel, epilogue, .. } = *self.job;
        let out = &mut self.out[row * width..][..R * width];
        let (begins, ends) = (self.steps.start == 0, self.steps.end == x.cols);
        let mut sums = [[arith.splat(0.0); P]; R];
        match epilogue {
            Epilogue::Bias(bias) | Epilogue::BiasRelu(bias) if begins => {
                let bias = &bias[panel * width + col..][..P * A::N];
                for (p, bias) in bias.chunks_exact(A::N).enumerate() {
                    let bias = arith.load(bias);
                    sums.iter_mut().for_each(|sums| sums[p] = bias);
                }
            }
            Epilogue::None | Epilogue::Gate(_) | Epilogue::Scale(_) if begins => {}
            _ => {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for p in 0..P {
                        sums[p] = arith.load(&out[r * width + col + p * A::N..]);
                    }
                }
            }
        }
        for first in self.steps.clone().step_by(x.width) {
            let operands = Operands {
                x: &x.data[x.at(rows.start + row, first)..],
                x_row: x.row,
                x_step: 1,
                y: &self.w[(first - self.steps.start) * width + col..],
                y_step: width,
                steps: x.width.min(self.steps.end - first),
            };
            multiply(arith, operands, &mut sums);
        }
        let relu = ends && matches!(epilogue, Epilogue::BiasRelu(_));
        let gate = match epilogue {
            Epilogue::Gate(by) if ends => {
                Some(&by.data()[(panel * x.rows + rows.start + row) * width..][..R * width])
            }
            _ => None,
        };
        for (r, sums) in sums.iter().enumerate() {
            for (p, sum) in sums.iter().enumerate() {
                let at = r * width + col + p * A::N;
                let mut sum = *sum;
                if relu {
                    // What is not a number stays so.
                    sum = arith.max_v(arith.splat(0.0), sum);
                }
                if let Some(by) = gate {
                    sum = arith.gate_v(sum, arith.load(&by[at..]));
                }
                arith.store(sum, &mut out[at..]);
            }
        }
    }

    #[inline(always)]
    fn complete<const R: usize>(&mut self, _: A, row: usize) {
        let Job { x, ref rows, width, panel, epilogue, .. } = *self.job;
        let Epilogue::Scale(by) = epilogue else { return };
        if self.steps.end < x.cols {
            return;
        }
        let out = &mut self.out[row * width..][..R * width];
        let by = &by.data()[(panel * x.rows + rows.start + row) * width..][..R * width];
        out.iter_mut().zip(by).for_each(|(out, by)| *out *= by);
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
