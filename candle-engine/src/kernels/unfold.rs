//! Rows with their neighbours, for convolutions of width 3 as products.

use super::rows::parallel_rows_mut;

/// Width of the convolutions.
pub const KERNEL: usize = 3;

/// y[i, c · 3 + k] = x[i · stride + k − 1, c], and 0 beyond the ends of a sequence.
///
/// Shapes: `x [n · t, c]` → `out [n · t / stride, c · 3]`.
///
/// # Panics
///
/// If a shape does not fit.
pub fn unfold(x: &[f32], c: usize, t: usize, stride: usize, out: &mut [f32]) {
    assert!(stride > 0 && t > 0 && t.is_multiple_of(stride), "unfold: {t} rows, stride {stride}");
    assert!(x.len().is_multiple_of(t * c) && out.len() == x.len() / stride * KERNEL, "unfold: x and out");
    parallel_rows_mut(out, c * KERNEL, |first, out| {
        for (row, out) in out.chunks_exact_mut(c * KERNEL).enumerate() {
            let (sequence, at) = ((first + row) / (t / stride), (first + row) % (t / stride) * stride);
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
            let mut out = vec![f32::NAN; n * t / stride * c * KERNEL];
            unfold(&x, c, t, stride, &mut out);
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
