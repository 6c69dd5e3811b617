//! The gradients of a linear layer's weights and bias, and what becomes of them.

use std::ops::Range;

use super::matrix::{Matrix, View, NARROW, WIDE};
use super::product::{blocks, tasks_of};
use super::tile::{cover, multiply, Operands, Tiles};
use super::update::{self, Rule};
use crate::kernels::lanes::{per_isa, Arith};
use crate::kernels::prefetch::prefetch;
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
        let mut tile = [0.0; WIDE];
        for col in (0..width).step_by(A::N) {
            // Four chains, so that no sum waits for the last.
            let mut sums = [arith.splat(0.0); 4];
            for rows in dy.chunks(4 * width) {
                for (sum, row) in sums.iter_mut().zip(rows.chunks_exact(width)) {
                    *sum = arith.add_v(*sum, arith.load(&row[col..]));
                }
            }
            let [a, b, c, d] = sums;
            arith.store(arith.add_v(arith.add_v(a, b), arith.add_v(c, d)), &mut tile[col..]);
        }
        part.take(arith, 0, &tile[..width]);
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
    /// Asks for the memory that [`Self::take`] will need.
    #[inline(always)]
    fn fetch(&self, first: usize, len: usize) {
        let Some((_, m, v)) = &self.rule else { return };
        for at in (first..first + len).step_by(NARROW) {
            prefetch(self.out.as_ptr().wrapping_add(at).cast());
            if !m.is_empty() {
                prefetch(m.as_ptr().wrapping_add(at).cast());
            }
            if !v.is_empty() {
                prefetch(v.as_ptr().wrapping_add(at).cast());
            }
        }
    }

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
    cover(arith, job.rows.len(), &mut Rows { job, part, tile: [0.0; TILE] });
}

/// A job under way.
struct Rows<'a, 'b> {
    job: &'a Job<'a>,
    part: &'a mut Part<'b>,
    tile: [f32; TILE],
}

impl<A: Arith> Tiles<A> for Rows<'_, '_> {
    #[inline(always)]
    fn width(&self) -> usize {
        self.job.width
    }

    #[inline(always)]
    fn columns<const R: usize, const P: usize>(&mut self, arith: A, row: usize, col: usize) {
        let Job { x, dy, ref rows, width } = *self.job;
        if col == 0 {
            self.part.fetch(row * width, R * width);
        }
        let mut sums = [[arith.splat(0.0); P]; R];
        let operands = Operands {
            x: &x.data[x.at(0, rows.start + row)..],
            x_row: 1,
            x_step: x.row,
            y: &dy[col..],
            y_step: width,
            steps: x.rows,
        };
        multiply(arith, operands, &mut sums);
        for (r, sums) in sums.iter().enumerate() {
            for (p, sum) in sums.iter().enumerate() {
                arith.store(*sum, &mut self.tile[r * width + col + p * A::N..]);
            }
        }
    }

    #[inline(always)]
    fn complete<const R: usize>(&mut self, arith: A, row: usize) {
        let width = self.job.width;
        self.part.take(arith, row * width, &self.tile[..R * width]);
    }
}
