use half::bf16;

use crate::kernels::isa::{Pairs, Registers};
use crate::kernels::matmul::driver;
use crate::kernels::matmul::{Dense, DenseFormat};
use crate::kernels::testing::{extremes, numbers, OFFSETS};
use crate::kernels::Isa;

/// The specification of matrix registers: of 32 numbers the first and the second of each pair apart.
fn dot_by_32(x: &[f32], w: &[f32]) -> f32 {
    x.chunks(32).zip(w.chunks(32)).fold(0.0, |sum, (x, w)| {
        let of = |i: usize| {
            let numbers = x.iter().zip(w).skip(i).step_by(2);
            numbers.fold(0.0, |sum: f32, (x, w)| {
                flush(flush(bf16::from_f32(flush(*x)).to_f32()).mul_add(flush(*w), sum))
            })
        };
        flush(sum + flush(of(0) + of(1)))
    })
}

/// The specification: pair by pair, the second of each first; what is not a normal number is zero.
fn dot(x: &[f32], w: &[f32]) -> f32 {
    let add =
        |sum: f32, x: f32, w: f32| flush(flush(bf16::from_f32(flush(x)).to_f32()).mul_add(flush(w), sum));
    x.chunks(2).zip(w.chunks(2)).fold(0.0, |sum, (x, w)| {
        let (second, first) = ((x.get(1), w.get(1)), (x[0], w[0]));
        let sum = second.0.zip(second.1).map_or(sum, |(x, w)| add(sum, *x, *w));
        add(sum, first.0, first.1)
    })
}

fn flush(v: f32) -> f32 {
    if v.is_subnormal() {
        0.0
    } else {
        v
    }
}

/// Levels with these kernels, if this CPU has any.
fn isas() -> impl Iterator<Item = Isa> {
    Isa::available().into_iter().filter(|isa| isa.pairs() != Pairs::Widened)
}

fn check(x: &[f32], w: &[f32], t: usize, n: usize, k: usize, offset: usize) {
    let w: Vec<bf16> = w.iter().map(|w| bf16::from_f32(*w)).collect();
    let mut bytes = vec![0xa5; offset];
    bytes.extend(w.iter().flat_map(|w| w.to_le_bytes()));
    let dense = Dense::new(&bytes[offset..], DenseFormat::BF16, n, k);
    let w: Vec<f32> = w.iter().map(|w| w.to_f32()).collect();
    for isa in isas() {
        let mut y = vec![0.5; t * n];
        driver::run(isa, x, (dense, None), None, &mut y);
        for (i, y) in y.into_iter().enumerate() {
            let dot = if isa.registers() == Registers::Amx { dot_by_32 } else { dot };
            let expected = dot(&x[i / n * k..][..k], &w[i % n * k..][..k]);
            let same = y == expected || y.is_nan() && expected.is_nan();
            assert!(same, "{isa} t={t} n={n} k={k} offset={offset} [{i}]: {y}, not {expected}");
        }
    }
}

#[test]
fn every_length_alignment_and_tile_is_as_specified() {
    for k in 1..=70 {
        for t in [k % 13 + 1, 13 + k % 13] {
            let n = k % 35 + 1;
            check(&numbers(1, t * k), &numbers(2, n * k), t, n, k, OFFSETS[k % 3]);
        }
    }
    for (t, n, k) in
        [(1, 100, 2060), (9, 33, 1030), (25, 130, 1025), (12, 5, 3000), (600, 3, 33), (1030, 1, 2)]
    {
        check(&numbers(3, t * k), &numbers(4, n * k), t, n, k, 1);
    }
}

#[test]
fn extremes_are_as_specified() {
    for seed in 0..24 {
        for (t, k) in [(1, 65), (5, 34), (14, 33), (40, 600)] {
            let n = 19;
            check(&extremes(seed, t * k), &extremes(seed + 1, n * k), t, n, k, 2);
        }
    }
    for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1.003_906_3, 1.011_718_8]
    {
        for (t, k) in [(2, 37), (15, 37)] {
            let (mut x, n) = (numbers(5, t * k), 18);
            x[(t - 1) * k + 36] = special;
            check(&x, &numbers(6, n * k), t, n, k, 0);
            check(&numbers(7, t * k), &x[..n.min(t) * k], t, n.min(t), k, 0);
        }
    }
}
