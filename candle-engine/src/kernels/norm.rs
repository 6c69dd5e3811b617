//! Normalization of rows: RMS norm, layer norm, and their fusion with the residual sum.
//!
//! Sums are f32 in the lane order of `lanes::sum`, so a row's result depends on nothing but the row.

use super::lanes::{per_isa, sum, Arith};
use super::rows::parallel_rows_mut;
use super::threads::Disjoint;
use super::Isa;

/// Scales each row to root mean square 1, then by the weight.
///
/// y = x / sqrt(mean(x²) + eps) · w
///
/// Shapes: `x [rows, n]`, `w [n]` → `out [rows, n]`. Accumulates in f32. With `n` the head size this is the
/// norm of queries and keys.
/// Source: Zhang and Sennrich 2019, eq. 4.
pub fn rms_norm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    rms_norm_on(Isa::best(), x, w, eps, out);
}

fn rms_norm_on(isa: Isa, x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "rms_norm: x and out");
    let n = w.len();
    parallel_rows_mut(out, n, |first, out| {
        let x = &x[first * n..][..out.len()];
        per_isa!(isa, rms_rows, (x: &[f32], w: &[f32], eps: f32, out: &mut [f32]));
    });
}

#[inline(always)]
fn rms_rows(arith: impl Arith, x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    for (x, out) in x.chunks_exact(w.len()).zip(out.chunks_exact_mut(w.len())) {
        rms_row(arith, x, w, eps, out);
    }
}

#[inline(always)]
fn rms_row(arith: impl Arith, x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    let squares = sum(x, |x, sum| arith.mul_add(x, x, sum));
    let scale = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    for ((out, &x), &w) in out.iter_mut().zip(x).zip(w) {
        *out = x * scale * w;
    }
}

/// Adds a residual and normalizes the sum as [`rms_norm`] does.
///
/// Shapes: `x`, `r [rows, n]`, `w [n]` → `sum`, `out [rows, n]`. The same bits as the two steps apart.
pub fn add_rms_norm(x: &[f32], r: &[f32], w: &[f32], eps: f32, sum: &mut [f32], out: &mut [f32]) {
    add_rms_norm_on(Isa::best(), x, r, w, eps, sum, out);
}

fn add_rms_norm_on(isa: Isa, x: &[f32], r: &[f32], w: &[f32], eps: f32, sum: &mut [f32], out: &mut [f32]) {
    assert!([r.len(), sum.len(), out.len()] == [x.len(); 3], "add_rms_norm: x, r, sum and out");
    let n = w.len();
    let sum = Disjoint::new(sum);
    parallel_rows_mut(out, n, |first, out| {
        let rows = first * n..first * n + out.len();
        // SAFETY: the tasks' rows do not overlap.
        let sum = unsafe { sum.range(rows.start, rows.len()) };
        for ((sum, &x), &r) in sum.iter_mut().zip(&x[rows.clone()]).zip(&r[rows]) {
            *sum = x + r;
        }
        per_isa!(isa, rms_rows, (sum: &[f32], w: &[f32], eps: f32, out: &mut [f32]));
    });
}

/// Shifts each row to mean 0 and scales it to variance 1, then applies weight and bias.
///
/// y = (x − mean(x)) / sqrt(var(x) + eps) · w + b
///
/// Shapes: `x [rows, n]`, `w [n]`, `b [n]` or none → `out [rows, n]`. Accumulates in f32, the variance from
/// the centred row.
/// Source: Ba, Kiros and Hinton 2016, eq. 3.
pub fn layer_norm(x: &[f32], w: &[f32], b: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    layer_norm_on(Isa::best(), x, w, b, eps, out);
}

fn layer_norm_on(isa: Isa, x: &[f32], w: &[f32], b: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "layer_norm: x and out");
    assert!(b.is_none_or(|b| b.len() == w.len()), "layer_norm: w and b");
    let n = w.len();
    parallel_rows_mut(out, n, |first, out| {
        let x = &x[first * n..][..out.len()];
        per_isa!(isa, layer_rows, (x: &[f32], w: &[f32], b: Option<&[f32]>, eps: f32, out: &mut [f32]));
    });
}

/// Adds a residual and normalizes the sum as [`layer_norm`] does.
///
/// Shapes: `x`, `r [rows, n]`, `w`, `b [n]` → `sum`, `out [rows, n]`. The same bits as the two steps apart.
pub fn add_layer_norm(x: &[f32], r: &[f32], [w, b]: [&[f32]; 2], eps: f32, sum: &mut [f32], out: &mut [f32]) {
    add_layer_norm_on(Isa::best(), x, r, [w, b], eps, sum, out);
}

fn add_layer_norm_on(
    isa: Isa,
    x: &[f32],
    r: &[f32],
    [w, b]: [&[f32]; 2],
    eps: f32,
    sum: &mut [f32],
    out: &mut [f32],
) {
    assert!([r.len(), sum.len(), out.len()] == [x.len(); 3], "add_layer_norm: x, r, sum and out");
    assert_eq!(w.len(), b.len(), "add_layer_norm: w and b");
    let (n, b) = (w.len(), Some(b));
    let sum = Disjoint::new(sum);
    parallel_rows_mut(out, n, |first, out| {
        let rows = first * n..first * n + out.len();
        // SAFETY: the tasks' rows do not overlap.
        let sum = unsafe { sum.range(rows.start, rows.len()) };
        for ((sum, &x), &r) in sum.iter_mut().zip(&x[rows.clone()]).zip(&r[rows]) {
            *sum = x + r;
        }
        per_isa!(isa, layer_rows, (sum: &[f32], w: &[f32], b: Option<&[f32]>, eps: f32, out: &mut [f32]));
    });
}

#[inline(always)]
fn layer_rows(arith: impl Arith, x: &[f32], w: &[f32], b: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    let n = w.len();
    for (x, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
        let mean = sum(x, |x, sum| sum + x) / n as f32;
        let squares = sum(x, |x, sum| arith.mul_add(x - mean, x - mean, sum));
        let scale = 1.0 / (squares / n as f32 + eps).sqrt();
        for ((out, &x), &w) in out.iter_mut().zip(x).zip(w) {
            *out = (x - mean) * scale * w;
        }
        if let Some(b) = b {
            for (out, &b) in out.iter_mut().zip(b) {
                *out += b;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{assert_close, numbers, LENGTHS, OFFSETS};
    use crate::kernels::threads::set_threads;

    /// Each norm of `x`, by its definition in f64: RMS, layer.
    fn naive(x: &[f32], w: &[f32], b: &[f32], eps: f32) -> [Vec<f32>; 2] {
        let n = w.len() as f64;
        let mut out = [Vec::new(), Vec::new()];
        for x in x.chunks_exact(w.len()) {
            let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
            let mean = x.iter().sum::<f64>() / n;
            let square =
                |shift: f64| (x.iter().map(|x| (x - shift).powi(2)).sum::<f64>() / n + f64::from(eps)).sqrt();
            for (i, x) in x.iter().enumerate() {
                out[0].push((x / square(0.0) * f64::from(w[i])) as f32);
                out[1].push(((x - mean) / square(mean) * f64::from(w[i]) + f64::from(b[i])) as f32);
            }
        }
        out
    }

    #[test]
    fn every_level_agrees_with_the_definition() {
        for isa in Isa::available() {
            for n in LENGTHS.skip(1).chain([576, 2048]) {
                for offset in OFFSETS {
                    for scale in [1.0, 1e-12, 1e12] {
                        let rows = 3;
                        let scaled = |seed| {
                            numbers(seed, rows * n + offset).iter().map(|x| x * scale).collect::<Vec<_>>()
                        };
                        let (x, r, w, b) = (scaled(1), scaled(2), numbers(3, n), numbers(4, n));
                        let (x, r) = (&x[offset..], &r[offset..]);
                        let mut out = vec![0.0; rows * n + offset];
                        let out = &mut out[offset..];
                        let at = format!("{isa} n {n} offset {offset} scale {scale}");

                        rms_norm_on(isa, x, &w, 1e-6, out);
                        assert_close(out, &naive(x, &w, &b, 1e-6)[0], 2e-6, format!("rms {at}"));
                        layer_norm_on(isa, x, &w, Some(&b), 1e-5, out);
                        assert_close(out, &naive(x, &w, &b, 1e-5)[1], 2e-5, format!("layer {at}"));
                        layer_norm_on(isa, x, &w, None, 1e-5, out);
                        assert_close(
                            out,
                            &naive(x, &w, &vec![0.0; n], 1e-5)[1],
                            2e-5,
                            format!("no bias {at}"),
                        );

                        let mut sum = vec![0.0; rows * n];
                        add_rms_norm_on(isa, x, r, &w, 1e-6, &mut sum, out);
                        let apart: Vec<f32> = x.iter().zip(r).map(|(x, r)| x + r).collect();
                        assert_eq!(sum, apart, "{at}");
                        let mut want = vec![0.0; rows * n];
                        rms_norm_on(isa, &apart, &w, 1e-6, &mut want);
                        assert_eq!(out, want, "{at}");
                        sum.fill(f32::NAN);
                        add_layer_norm_on(isa, x, r, [&w, &b], 1e-5, &mut sum, out);
                        assert_eq!(sum, apart, "layer {at}");
                        layer_norm_on(isa, &apart, &w, Some(&b), 1e-5, &mut want);
                        assert_eq!(out, want, "layer {at}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_in_any_batch() {
        let (n, rows) = (576, 200);
        let (x, w) = (numbers(1, rows * n), numbers(2, n));
        for threads in [1, 3] {
            set_threads(threads);
            let (mut all, mut one) = (vec![0.0; rows * n], vec![0.0; n]);
            rms_norm(&x, &w, 1e-5, &mut all);
            for (x, all) in x.chunks_exact(n).zip(all.chunks_exact(n)) {
                rms_norm(x, &w, 1e-5, &mut one);
                assert_eq!(all, one);
            }
        }
        set_threads(2);
    }
}
