//! Every level against plain sums in f64, over shapes that end inside tiles and panels.

use super::gradient::{bias_gradient_on, weight_gradient_on};
use super::loss::softmax_cross_entropy_on;
use super::product::{product_on, Weights};
use super::*;
use crate::kernels::testing::{assert_close, numbers};
use crate::kernels::Isa;

/// Rows, inputs, outputs.
const SHAPES: [(usize, usize, usize); 10] = [
    (1, 1, 1),
    (9, 70, 3),
    (3, 2, 16),
    (8, 33, 17),
    (13, 16, 32),
    (9, 70, 33),
    (64, 31, 10),
    (5, 96, 130),
    (17, 1, 64),
    (7, 300, 20),
];

fn naive(x: &[f32], w: &[f32], rows: usize, k: usize, n: usize) -> Vec<f32> {
    let one =
        |r: usize, c: usize| (0..k).map(|i| f64::from(x[r * k + i]) * f64::from(w[i * n + c])).sum::<f64>();
    (0..rows * n).map(|i| one(i / n, i % n) as f32).collect()
}

fn transposed(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..rows * cols).map(|i| x[i % rows * cols + i / rows]).collect()
}

#[test]
fn products_are_sums() {
    for isa in Isa::available() {
        for (seed, (rows, k, n)) in SHAPES.into_iter().enumerate() {
            let what = format!("{isa} {rows}x{k}x{n}");
            let (x, w) = (numbers(seed as u64, rows * k), numbers(seed as u64 + 90, k * n));
            let (bias, other) = (numbers(7, n), numbers(8, rows * n));
            let weights = Matrix::from_rows(k, n, &w);
            let across = Matrix::from_rows(n, k, &transposed(&w, k, n));
            let padded = Matrix::from_rows(1, n, &bias);
            let factor = Matrix::from_rows(rows, n, &other);
            let plain = naive(&x, &w, rows, k, n);
            let with = |f: &dyn Fn(usize, f32) -> f32| {
                plain.iter().enumerate().map(|(i, x)| f(i, *x)).collect::<Vec<_>>()
            };
            let cases = [
                (Epilogue::None, plain.clone()),
                (Epilogue::Bias(padded.data()), with(&|i, x| x + bias[i % n])),
                (Epilogue::BiasRelu(padded.data()), with(&|i, x| (x + bias[i % n]).max(0.0))),
                (Epilogue::Gate(&factor), with(&|i, x| if other[i] > 0.0 { x } else { 0.0 })),
                (Epilogue::Scale(&factor), with(&|i, x| x * other[i])),
                (Epilogue::Add, with(&|i, x| x + other[i])),
            ];
            for (epilogue, want) in cases {
                let matrix = Matrix::from_rows(rows, k, &x);
                let mut results = Vec::new();
                for view in [View::rows(rows, k, &x), matrix.view()] {
                    for (w, transposed) in [(&weights, false), (&across, true)] {
                        let mut out = factor.clone();
                        product_on(isa, view, Weights { w, transposed }, epilogue, &mut out);
                        assert_close(&out.to_rows(), &want, 1e-5, &what);
                        results.push(out.to_rows());
                    }
                }
                let same = results.iter().all(|result| *result == results[0]);
                assert!(same, "{what}: the operands' layout changes nothing");
            }
        }
    }
}

#[test]
fn gradients_are_sums_stored_added_or_used_up() {
    let rule = Rule::Sgd { lr: 0.5, weight_decay: 0.1, momentum: 0.9, dampening: 0.0, nesterov: true };
    for isa in Isa::available() {
        for (seed, (rows, k, n)) in SHAPES.into_iter().enumerate() {
            let what = format!("{isa} {rows}x{k}x{n}");
            let (x, dy) = (numbers(seed as u64, rows * k), numbers(seed as u64 + 40, rows * n));
            let (begin, moment) = (numbers(3, k * n), numbers(4, k * n));
            let view = View::rows(rows, k, &x);
            let dy = Matrix::from_rows(rows, n, &dy);
            let want = naive(&transposed(&x, rows, k), &dy.to_rows(), k, rows, n);

            let mut stored = Matrix::from_rows(k, n, &begin);
            weight_gradient_on(isa, view, &dy, Gradient::Store(&mut stored));
            assert_close(&stored.to_rows(), &want, 1e-5, &what);

            let mut added = Matrix::from_rows(k, n, &begin);
            weight_gradient_on(isa, view, &dy, Gradient::Add(&mut added));
            let sums: Vec<f32> = want.iter().zip(&begin).map(|(a, b)| a + b).collect();
            assert_close(&added.to_rows(), &sums, 1e-5, &what);

            let moments = || [Matrix::from_rows(k, n, &moment), Matrix::default()];
            let (mut fused, mut fused_moments) = (Matrix::from_rows(k, n, &begin), moments());
            let to = Gradient::Update { rule, w: &mut fused, moments: &mut fused_moments };
            weight_gradient_on(isa, view, &dy, to);
            let (mut apart, mut apart_moments) = (Matrix::from_rows(k, n, &begin), moments());
            update(&rule, 1.0, &mut stored, &mut apart, &mut apart_moments);
            assert_close(&fused.to_rows(), &apart.to_rows(), 1e-5, &what);
            assert_close(&fused_moments[0].to_rows(), &apart_moments[0].to_rows(), 1e-5, &what);

            let mut bias = Matrix::zeros(1, n);
            bias_gradient_on(isa, &dy, Gradient::Store(&mut bias));
            assert_close(&bias.to_rows(), &naive(&vec![1.0; rows], &dy.to_rows(), 1, rows, n), 1e-5, &what);
        }
    }
}

#[test]
fn padding_stays_zero() {
    let (rows, k, n) = (9, 5, 19);
    let x = numbers(1, rows * k);
    let dy = Matrix::from_rows(rows, n, &numbers(2, rows * n));
    let mut w = Matrix::from_rows(k, n, &numbers(3, k * n));
    let mut moments = [Matrix::zeros(k, n), Matrix::zeros(k, n)];
    let rule = Rule::Adam {
        rate: 0.1,
        root: 1.0,
        beta2: 0.9,
        grow: [0.1, 0.1],
        eps: 1e-8,
        weight_decay: 0.1,
        keep: 0.9,
    };
    weight_gradient(
        View::rows(rows, k, &x),
        &dy,
        Gradient::Update { rule, w: &mut w, moments: &mut moments },
    );
    for matrix in [&w, &moments[0], &moments[1]] {
        let inside = matrix.to_rows().iter().filter(|x| **x != 0.0).count();
        assert_eq!(matrix.data().iter().filter(|x| **x != 0.0).count(), inside, "{matrix:?}");
    }
}

#[test]
fn cross_entropies_are_those_of_f64() {
    for isa in Isa::available() {
        for (seed, (rows, classes)) in
            [(1, 2), (8, 8), (19, 10), (16, 16), (5, 17), (24, 45)].into_iter().enumerate()
        {
            let what = format!("{isa} {rows}x{classes}");
            let x: Vec<f32> = numbers(seed as u64, rows * classes).iter().map(|x| x * 8.0).collect();
            let labels: Vec<u32> = (0..rows).map(|row| (row * 7 % classes) as u32).collect();
            let weights = numbers(9, classes).iter().map(|x| x + 1.5).collect();
            for how in [CrossEntropy::default(), CrossEntropy { label_smoothing: 0.2, weights }] {
                let weight = |class: usize| how.weights.get(class).map_or(1.0, |w| f64::from(*w));
                let smooth = f64::from(how.label_smoothing);
                let total: f64 = labels.iter().map(|label| weight(*label as usize)).sum();
                let (mut loss, mut slopes) = (0.0, Vec::new());
                for (x, label) in x.chunks(classes).zip(&labels) {
                    let log = x.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
                    // What each class's −log p counts.
                    let counts: Vec<f64> = (0..classes)
                        .map(|class| {
                            let sharp = if class == *label as usize { 1.0 - smooth } else { 0.0 };
                            weight(class) * (sharp + smooth / classes as f64) / total
                        })
                        .collect();
                    let all: f64 = counts.iter().sum();
                    for (x, count) in x.iter().zip(counts) {
                        loss += count * (log - f64::from(*x));
                        slopes.push(((f64::from(*x) - log).exp() * all - count) as f32);
                    }
                }
                let logits = Matrix::from_rows(rows, classes, &x);
                let mut gradient = Matrix::zeros(rows, classes);
                let got = softmax_cross_entropy_on(isa, &how, &logits, &labels, &mut gradient);
                assert_close(&[got], &[loss as f32], 1e-6, &what);
                assert_close(&gradient.to_rows(), &slopes, 2e-7, &what);
                let inside = gradient.to_rows().iter().filter(|x| **x != 0.0).count();
                assert_eq!(gradient.data().iter().filter(|x| **x != 0.0).count(), inside, "{what}: padding");
            }
        }
    }
}
