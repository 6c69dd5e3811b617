//! Rows with their neighbours, for convolutions of width 3 as products.

use std::ops::Range;

use super::rows::parallel_rows_mut;

/// Width of the convolutions.
pub const KERNEL: usize = 3;

/// y[i, c · 3 + k] = x[i · stride + k − 1, c], and 0 beyond the ends of a sequence, for the rows i in `rows`.
///
/// Shapes: `x [n · t, c]` → `out [rows, c · 3]`, of n · t / stride that there are.
///
/// # Panics
///
/// If a shape does not fit.
pub fn unfold(x: &[f32], c: usize, t: usize, stride: usize, rows: Range<usize>, out: &mut [f32]) {
    assert!(stride > 0 && t > 0 && t.is_multiple_of(stride), "unfold: {t} rows, stride {stride}");
    assert!(x.len().is_multiple_of(t * c) && rows.end * c * stride <= x.len(), "unfold: x");
    assert_eq!(out.len(), rows.len() * c * KERNEL, "unfold: out");
    parallel_rows_mut(out, c * KERNEL, |first, out| {
        for (row, out) in out.chunks_exact_mut(c * KERNEL).enumerate() {
            let row = rows.start + first + row;
            let (sequence, at) = (row / (t / stride), row % (t / stride) * stride);
            for k in 0..KERNEL {
                let places = out[k..].iter_mut().step_by(KERNEL);
                match (at + k).checked_sub(1).filter(|&at| at < t) {
                    Some(at) => {
                        let x = &x[(sequence * t + at) * c..][..c];
                        places.zip(x).for_each(|(place, x)| *place = *x);
                    }
                    None => places.for_each(|place| *place = 0.0),
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::numbers;

    #[test]
    fn agrees_with_the_definition() {
        for (n, t, c, stride) in [(1, 1, 1, 1), (2, 4, 3, 2), (3, 6, 5, 1), (2, 600, 80, 2)] {
            let x = numbers(7, n * t * c);
            let rows = n * t / stride;
            let mut out = vec![f32::NAN; rows * c * KERNEL];
            let (upper, lower) = out.split_at_mut(rows / 3 * c * KERNEL);
            unfold(&x, c, t, stride, 0..rows / 3, upper);
            unfold(&x, c, t, stride, rows / 3..rows, lower);
            for (i, &got) in out.iter().enumerate() {
                let (row, c_and_k) = (i / (c * KERNEL), i % (c * KERNEL));
                let (sequence, at) = (row / (t / stride), row % (t / stride) * stride + c_and_k % KERNEL);
                let inside = (1..=t).contains(&at);
                let want = if inside { x[(sequence * t + at - 1) * c + c_and_k / KERNEL] } else { 0.0 };
                assert_eq!(got, want, "{n} {t} {c} {stride}: {i}");
            }
        }
    }
}
