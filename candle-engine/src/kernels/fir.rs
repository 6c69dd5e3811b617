//! Filters of many phases, which change a signal's rate.

use super::lanes::{per_isa, Arith};
use super::Isa;

/// Numbers that a row of taps is a multiple of: the widest register.
const ALIGN: usize = super::lanes::LANES;

/// The taps of a filter at each phase.
#[derive(Debug)]
pub struct Bank {
    /// Positions between two samples of the input at which an output may lie.
    up: usize,
    /// Rows but for the last: phases from 0 to 1. As many as `up`, or a table between whose rows to interpolate.
    phases: usize,
    width: usize,
    /// `[phases + 1, width]`
    taps: Vec<f32>,
}

impl Bank {
    /// A bank for outputs at multiples of 1 / `up`, from `tap(phase, i)`: the weight at `phase / phases` of the
    /// `i`-th of `taps` samples.
    ///
    /// # Panics
    ///
    /// If `up` or `phases` is 0.
    pub fn new(up: usize, phases: usize, taps: usize, tap: impl Fn(usize, usize) -> f64) -> Self {
        assert!(up > 0 && phases > 0, "a bank has phases");
        let width = taps.next_multiple_of(ALIGN);
        let row = |phase| (0..width).map(move |i| (phase, i));
        let weight = |(phase, i)| if i < taps { tap(phase, i) as f32 } else { 0.0 };
        Self { up, phases, width, taps: (0..=phases).flat_map(row).map(weight).collect() }
    }

    /// Samples that one output needs, from that at its position on.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Appends the outputs at positions `at`, `at + step`, … of `x` while its samples last, and returns the next.
    ///
    /// Units: positions in samples / `up`. The output at `at` is Σ tap(at mod up, i) · x(⌊at / up⌋ + i).
    ///
    /// # Panics
    ///
    /// If `step` is 0.
    pub fn apply(&self, x: &[f32], at: usize, step: usize, out: &mut Vec<f32>) -> usize {
        self.apply_on(Isa::best(), x, at, step, out)
    }

    fn apply_on(&self, isa: Isa, x: &[f32], at: usize, step: usize, out: &mut Vec<f32>) -> usize {
        let positions = (x.len() + 1).saturating_sub(self.width) * self.up;
        let count = positions.saturating_sub(at).div_ceil(step);
        let first = out.len();
        out.resize(first + count, 0.0);
        let (bank, new) = (self, &mut out[first..]);
        per_isa!(isa, outputs, (bank: &Bank, x: &[f32], at: usize, step: usize, new: &mut [f32]));
        at + count * step
    }
}

#[inline(always)]
fn outputs(arith: impl Arith, bank: &Bank, x: &[f32], at: usize, step: usize, out: &mut [f32]) {
    for (i, out) in out.iter_mut().enumerate() {
        let at = at + i * step;
        let x = &x[at / bank.up..][..bank.width];
        let phase = at % bank.up * bank.phases;
        let [left, right] =
            [0, 1].map(|next| &bank.taps[(phase / bank.up + next) * bank.width..][..bank.width]);
        *out = dot(arith, x, left);
        let between = phase % bank.up;
        if between > 0 {
            let share = between as f32 / bank.up as f32;
            *out = arith.mul_add(share, dot(arith, x, right) - *out, *out);
        }
    }
}

/// Σ a · b over a multiple of [`ALIGN`] numbers.
#[inline(always)]
fn dot<A: Arith>(arith: A, a: &[f32], b: &[f32]) -> f32 {
    // Four sums, or each would wait for the last product.
    let mut sums = [arith.splat(0.0); 4];
    let (a, b) = (a.chunks(4 * A::N), b.chunks(4 * A::N));
    for (a, b) in a.zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a.chunks_exact(A::N)).zip(b.chunks_exact(A::N)) {
            *sum = arith.mul_add_v(arith.load(a), arith.load(b), *sum);
        }
    }
    let [s0, s1, s2, s3] = sums;
    arith.sum_of(arith.add_v(arith.add_v(s0, s1), arith.add_v(s2, s3)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{assert_close, numbers};

    #[test]
    fn every_level_agrees_with_the_definition() {
        for (up, phases, taps, step) in
            [(1, 1, 1, 1), (1, 1, 16, 3), (5, 5, 33, 7), (7, 7, 80, 2), (1000, 10, 40, 441)]
        {
            let weight = |phase: usize, i: usize| (i as f64 * 0.7).cos() + phase as f64 / phases as f64;
            let bank = Bank::new(up, phases, taps, weight);
            for n in [0, 1, bank.width() - 1, bank.width(), 300] {
                let x = numbers(n as u64, n);
                let at = up / 2;
                let mut want = Vec::new();
                let mut position = at;
                while position / up + bank.width() <= n {
                    let phase = (position % up) as f64 / up as f64;
                    let terms =
                        (0..taps).map(|i| ((i as f64 * 0.7).cos() + phase) * f64::from(x[position / up + i]));
                    want.push(terms.sum::<f64>() as f32);
                    position += step;
                }
                for isa in Isa::available() {
                    let mut got = vec![9.0];
                    let next = bank.apply_on(isa, &x, at, step, &mut got);
                    assert_eq!((got[0], next), (9.0, position), "{isa}: {up}/{step}, {n} samples");
                    assert_close(&got[1..], &want, 1e-4, format_args!("{isa}: {up}/{step}, {n} samples"));
                }
            }
        }
    }
}
