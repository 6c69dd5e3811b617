//! The gradients of a linear layer's weights and bias, and what becomes of them.

use std::ops::Range;

use super::matrix::{Matrix, View};
use super::product::{blocks, tasks_of};
use super::tile::{multiply, rows, Operands};
use super::update::{self, Rule};
use crate::kernels::lanes::{per_isa, Arith};
use crate::kernels::threads::Disjoint;
use crate::kernels::Isa;

/// Numbers of the largest tile.
const TILE: usize = 8 * 32;

/// Where a gradient goes.
pub enum Gradient<'a> {
    /// It replaces what is there.
    Store(&'a mut Matrix),
    /// It is added to what is there.
    Add(&'a mut Matrix),
    /// The parameter is updated at once, and the gradient is nowhere kept.
    Update {
        /// How.
        rule: Rule,
        /// The parameter.
        w: &'a mut Matrix,
        /// The optimizer's moments of it, each of its shape or, where the rule has no use for it, empty.
        moments: &'a mut [Matrix; 2],
    },
}

/// The gradient of a layer's weights: xᵀ `[in, rows]` · dy `[rows, out]`.
///
/// # Panics
///
/// If a shape does not fit.
pub fn weight_gradient(x: View, dy: &Matrix, to: Gradient) {
    weight_gradient_on(Isa::best(), x, dy, to);
}

pub(super) fn weight_gradient_on(isa: Isa, x: View, dy: &Matrix, to: Gradient) {
    assert_eq!(x.rows, dy.rows(), "weight_gradient: rows of x and dy");
    let (inputs, width, panels) = (x.cols, dy.width(), dy.panels());
    let to = Target::new(to, (inputs, dy.cols()));
    // Whole panels of x: no tile crosses one.
    let blocks = blocks(inputs, x.width, x.rows * width);
    tasks_of(panels * blocks.count, x.rows * inputs * panels * width, |task| {
        let (panel, rows) = (task / blocks.count, blocks.range(task % blocks.count));
        // SAFETY: each task has rows of a panel of its own.
        let mut part = unsafe { to.part((panel * inputs + rows.start) * width, rows.len() * width) };
        let job = &Job { x, dy: &dy.data()[panel * x.rows * width..][..x.rows * width], rows, width };
        let part = &mut part;
        per_isa!(isa, run, (job: &Job, part: &mut Part));
    });
}

/// The gradient of a bias `[1, out]`: the sum of the rows of dy `[rows, out]`.
///
/// # Panics
///
/// If a shape does not fit.
pub fn bias_gradient(dy: &Matrix, to: Gradient) {
    bias_gradient_on(Isa::best(), dy, to);
}

pub(super) fn bias_gradient_on(isa: Isa, dy: &Matrix, to: Gradient) {
    #[inline(always)]
    fn kernel<A: Arith>(arith: A, dy: &[f32], width: usize, part: &mut Part) {
        let mut sums = [0.0; TILE];
        let sums = &mut sums[..width];
        for row in dy.chunks_exact(width) {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
        part.take(arith, 0, sums);
    }
    let to = Target::new(to, (1, dy.cols()));
    let width = dy.width();
    for (panel, dy) in dy.data().chunks_exact(dy.rows() * width).enumerate() {
        // SAFETY: each panel is taken once.
        let mut part = unsafe { to.part(panel * width, width) };
        let part = &mut part;
        per_isa!(isa, kernel, (dy: &[f32], width: usize, part: &mut Part));
    }
}

/// A [`Gradient`] that tasks share.
struct Target<'a> {
    out: Disjoint<'a, f32>,
    moments: Option<[Disjoint<'a, f32>; 2]>,
    used: [bool; 2],
    rule: Option<Rule>,
    add: bool,
}

impl<'a> Target<'a> {
    fn new(to: Gradient<'a>, shape: (usize, usize)) -> Self {
        let (add, rule, out, moments) = match to {
            Gradient::Store(out) => (false, None, out, None),
            Gradient::Add(out) => (true, None, out, None),
            Gradient::Update { rule, w, moments } => (false, Some(rule), w, Some(moments)),
        };
        assert_eq!((out.rows(), out.cols()), shape, "a gradient and its parameter");
        let used = rule.as_ref().map_or([false; 2], Rule::moments);
        let moments = moments.map(|moments| {
            for (moment, used) in moments.iter().zip(used) {
                assert!(!used || (moment.rows(), moment.cols()) == shape, "a parameter and its moments");
            }
            moments.each_mut().map(|moment| Disjoint::new(moment.data_mut()))
        });
        Self { out: Disjoint::new(out.data_mut()), moments, used, rule, add }
    }

    /// A part of it.
    ///
    /// # Safety
    ///
    /// No two parts that are in use at a time overlap.
    unsafe fn part(&self, first: usize, len: usize) -> Part<'_> {
        // SAFETY: the caller's.
        let out = unsafe { self.out.range(first, len) };
        let rule = self.rule.as_ref().zip(self.moments.as_ref()).map(|(rule, moments)| {
            let moment = |i: usize| {
                let (first, len) = if self.used[i] { (first, len) } else { (0, 0) };
                // SAFETY: the caller's.
                unsafe { moments[i].range(first, len) }
            };
            (rule, moment(0), moment(1))
        });
        Part { out, rule, add: self.add }
    }
}

/// A part of a gradient's target, with the moments that the rule uses.
struct Part<'a> {
    out: &'a mut [f32],
    rule: Option<(&'a Rule, &'a mut [f32], &'a mut [f32])>,
    add: bool,
}

impl Part<'_> {
    /// Takes in a piece of the gradient, which begins at `first`.
    #[inline(always)]
    fn take<A: Arith>(&mut self, arith: A, first: usize, gradient: &[f32]) {
        let out = &mut self.out[first..][..gradient.len()];
        match &mut self.rule {
            Some((rule, m, v)) => {
                update::apply(
                    arith,
                    rule,
                    out,
                    gradient,
                    piece(m, first, out.len()),
                    piece(v, first, out.len()),
                );
            }
            None if self.add => out.iter_mut().zip(gradient).for_each(|(out, x)| *out += x),
            None => out.copy_from_slice(gradient),
        }
    }
}

/// What a rule does not use is empty.
#[inline(always)]
fn piece(x: &mut [f32], first: usize, len: usize) -> &mut [f32] {
    if x.is_empty() {
        x
    } else {
        &mut x[first..][..len]
    }
}

/// The gradient of the weights between some inputs and one panel of outputs.
struct Job<'a> {
    x: View<'a>,
    dy: &'a [f32],
    rows: Range<usize>,
    width: usize,
}

#[inline(always)]
fn run<A: Arith>(arith: A, job: &Job, part: &mut Part) {
    let mut row = 0;
    while row < job.rows.len() {
        row += match job.rows.len() - row {
            8.. if rows::<A>() == 8 => job.tile::<8, A>(arith, row, part),
            4.. => job.tile::<4, A>(arith, row, part),
            2.. => job.tile::<2, A>(arith, row, part),
            _ => job.tile::<1, A>(arith, row, part),
        };
    }
}

impl Job<'_> {
    /// `R` inputs from `row` of the job's on.
    #[inline(always)]
    fn tile<const R: usize, A: Arith>(&self, arith: A, row: usize, part: &mut Part) -> usize {
        let mut tile = [0.0; TILE];
        let tile = &mut tile[..R * self.width];
        if self.width >= 2 * A::N {
            (0..self.width).step_by(2 * A::N).for_each(|col| self.columns::<R, 2, A>(arith, row, col, tile));
        } else {
            self.columns::<R, 1, A>(arith, row, 0, tile);
        }
        part.take(arith, row * self.width, tile);
        R
    }

    /// `P` registers of columns from `col` of the panel on.
    #[inline(always)]
    fn columns<const R: usize, const P: usize, A: Arith>(
        &self,
        arith: A,
        row: usize,
        col: usize,
        tile: &mut [f32],
    ) {
        let x = self.x;
        let mut sums = [[arith.splat(0.0); P]; R];
        let operands = Operands {
            x: &x.data[x.at(0, self.rows.start + row)..],
            x_row: 1,
            x_step: x.row,
            y: &self.dy[col..],
            y_step: self.width,
            steps: x.rows,
        };
        multiply(arith, operands, &mut sums);
        for (r, sums) in sums.iter().enumerate() {
            for (p, sum) in sums.iter().enumerate() {
                arith.store(*sum, &mut tile[r * self.width + col + p * A::N..]);
            }
        }
    }
}
