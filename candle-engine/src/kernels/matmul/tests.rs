use super::driver::{run, Gate};
use super::tiles::Tiles;
use super::*;
use crate::kernels::isa::Pairs;
use crate::kernels::testing::numbers;
use crate::kernels::threads::set_threads;

const FORMATS: [DenseFormat; 3] = [DenseFormat::F32, DenseFormat::F16, DenseFormat::BF16];

/// The stored bytes of values, after `offset` bytes of something else.
fn store(values: &[f32], format: DenseFormat, offset: usize) -> Vec<u8> {
    let mut bytes = vec![0xa5; offset];
    for &v in values {
        match format {
            DenseFormat::F32 => bytes.extend(v.to_le_bytes()),
            DenseFormat::F16 => bytes.extend(f16::from_f32(v).to_le_bytes()),
            DenseFormat::BF16 => bytes.extend(bf16::from_f32(v).to_le_bytes()),
        }
    }
    bytes
}

fn product(isa: Isa, x: &[f32], term: Term, t: usize) -> Vec<f32> {
    let mut y = vec![0.5; t * term.0.rows()];
    run(isa, x, term, None, &mut y);
    y
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Every ISA is within the rounding of a sum in any order: |error| ≤ k · ε · Σ|x·w|.
fn assert_close(x: &[f32], w: &[f32], k: usize, got: &[f32], expected: &[f32], what: &str) {
    let (t, n) = (x.len() / k.max(1), w.len() / k.max(1));
    for token in 0..t {
        for row in 0..n {
            let (x, w) = (&x[token * k..][..k], &w[row * k..][..k]);
            let magnitude: f32 = x.iter().zip(w).map(|(x, w)| (x * w).abs()).sum();
            let bound = (k + 1) as f32 * f32::EPSILON * magnitude;
            let (got, expected) = (got[token * n + row], expected[token * n + row]);
            assert!((got - expected).abs() <= bound, "{what}, [{token}, {row}]: {got} for {expected}");
        }
    }
}

/// Whether inputs are rounded to the format of the weights.
fn rounds(isa: Isa, format: DenseFormat) -> bool {
    isa.pairs() != Pairs::Widened && format == DenseFormat::BF16
}

fn compare(t: usize, n: usize, k: usize, format: DenseFormat, offset: usize) {
    let x = numbers(1, t * k);
    let w = numbers(2, n * k);
    let bytes = store(&w, format, offset);
    let dense = Dense::new(&bytes[offset..], format, n, k);
    let isas = Isa::available();
    let expected = product(isas[0], &x, (dense, None), t);
    for &isa in &isas[1..] {
        let got = product(isa, &x, (dense, None), t);
        // What is left is the order of the sum.
        let (x, expected) = if rounds(isa, format) {
            let x: Vec<_> = x.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
            let expected = product(isas[0], &x, (dense, None), t);
            (x, expected)
        } else {
            (x.clone(), expected.clone())
        };
        let what = format!("{isa} {format:?} t={t} n={n} k={k} offset={offset}");
        // The stored values differ from `w` by their rounding; the bound's magnitude hardly does.
        assert_close(&x, &w, k, &got, &expected, &what);
    }
}

#[test]
fn scalar_is_the_definition() {
    let (t, n, k) = (3, 4, 2500);
    let (x, w) = (numbers(3, t * k), numbers(4, n * k));
    let bytes = store(&w, DenseFormat::F32, 0);
    let got = product(Isa::available()[0], &x, (Dense::new(&bytes, DenseFormat::F32, n, k), None), t);
    let expected: Vec<f32> = (0..t * n)
        .map(|i| (0..k).map(|j| x[i / n * k + j] as f64 * w[i % n * k + j] as f64).sum::<f64>() as f32)
        .collect();
    assert_close(&x, &w, k, &got, &expected, "scalar");
}

#[test]
fn every_isa_matches_scalar_at_every_length_and_alignment() {
    for k in 0..=70 {
        for format in FORMATS {
            compare(k % 9 + 1, k % 20 + 1, k, format, k % 7);
        }
    }
}

#[test]
fn every_isa_matches_scalar_at_every_tile() {
    for t in 1..=9 {
        for n in 1..=20 {
            let format = FORMATS[(t + n) % 3];
            compare(t, n, 37, format, t % 4);
        }
    }
    for (t, n, k) in [
        (1, 300, 2060),
        (40, 100, 1030),
        (5, 97, 3000),
        (600, 3, 1025),
        (33, 1, 1),
        (64, 193, 64),
        (24, 9, 70),
        (65, 6, 1100),
        (77, 33, 31),
    ] {
        FORMATS.into_iter().for_each(|format| compare(t, n, k, format, 1));
    }
}

#[test]
fn an_element_does_not_depend_on_its_batch() {
    let (n, k, most) = (105, 1100, 131);
    let x = numbers(5, most * k);
    let w = numbers(6, n * k);
    for isa in Isa::available() {
        for format in FORMATS {
            let bytes = store(&w, format, 3);
            let term = (Dense::new(&bytes[3..], format, n, k), None);
            let whole = product(isa, &x, term, most);
            for (start, t) in [
                (0, 1),
                (66, 1),
                (5, 2),
                (9, 3),
                (11, 4),
                (1, 5),
                (20, 31),
                (3, 32),
                (2, 61),
                (67, 64),
                (2, 128),
            ] {
                let part = product(isa, &x[start * k..][..t * k], term, t);
                assert_eq!(bits(&part), bits(&whole[start * n..][..t * n]), "{isa} {format:?} {start}+{t}");
            }
            // Nor on the rows around it.
            for (start, rows) in [(0, 1), (104, 1), (3, 2), (50, 17)] {
                let size = k * format.size();
                let dense = Dense::new(&bytes[3 + start * size..][..rows * size], format, rows, k);
                for t in [1, 7, 67, 131] {
                    let part = product(isa, &x[..t * k], (dense, None), t);
                    for (i, row) in part.chunks(rows).enumerate() {
                        assert_eq!(
                            bits(row),
                            bits(&whole[i * n + start..][..rows]),
                            "{isa} rows {start}+{rows}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_thread_count_changes_nothing() {
    let (n, k) = (1000, 513);
    let w = numbers(7, n * k);
    let bytes = store(&w, DenseFormat::BF16, 0);
    let term = (Dense::new(&bytes, DenseFormat::BF16, n, k), None);
    for isa in Isa::available() {
        for t in [1, 6, 50, 70] {
            let x = numbers(8, t * k);
            set_threads(1);
            let alone = product(isa, &x, term, t);
            for threads in [2, 3, 8] {
                set_threads(threads);
                assert_eq!(bits(&product(isa, &x, term, t)), bits(&alone), "{isa} t={t} threads={threads}");
            }
        }
    }
    set_threads(2);
}

#[test]
fn fusion_changes_nothing() {
    let k = 1030;
    let bytes: Vec<_> =
        FORMATS.map(|format| store(&numbers(format.size() as u64, 130 * k), format, 0)).into();
    let biases: Vec<_> = (0..3).map(|i| numbers(10 + i, 130)).collect();
    let term = |i: usize, n: usize, bias: bool| -> Term {
        let dense = Dense::new(&bytes[i][..n * k * FORMATS[i].size()], FORMATS[i], n, k);
        (dense, bias.then_some(&biases[i][..n]))
    };
    for isa in Isa::available() {
        for t in [1, 2, 5, 40, 70] {
            let x = numbers(9, t * k);
            for term in [term(0, 130, true), term(2, 40, true)] {
                // The bias is added last.
                let bare = product(isa, &x, (term.0, None), t);
                let bias = term.1.into_iter().flatten().cycle();
                let sums: Vec<_> = bare.iter().zip(bias).map(|(a, b)| a + b).collect();
                assert_eq!(bits(&product(isa, &x, term, t)), bits(&sums), "{isa} t={t}");
            }
            let mut y = vec![0.5; t * 130];
            for act in [Act::Silu, Act::Gelu, Act::GeluTanh, Act::Relu] {
                let (gate, up) = (term(1, 130, true), term(2, 130, true));
                run(isa, &x, gate, Some(Gate { up, act }), &mut y);
                let (gate, up) = (product(isa, &x, gate, t), product(isa, &x, up, t));
                let expected: Vec<_> = gate.iter().zip(&up).map(|(g, u)| act.apply(*g) * u).collect();
                assert_eq!(bits(&y), bits(&expected), "{isa} t={t} {act:?}");
            }
        }
    }
}

#[test]
fn infinity_and_nan_go_through() {
    for isa in Isa::available() {
        for format in FORMATS {
            for k in [1, 5, 16, 23, 40, 1050] {
                for t in [1, 3, 4, 33, 65] {
                    for (value, check) in [
                        (f32::NAN, f32::is_nan as fn(f32) -> bool),
                        (f32::INFINITY, |y| y == f32::INFINITY),
                        (f32::NEG_INFINITY, |y| y == f32::NEG_INFINITY),
                    ] {
                        let n = 9;
                        let mut w = vec![1.0; n * k];
                        w[4 * k + k - 1] = value;
                        let bytes = store(&w, format, 0);
                        let y = product(isa, &vec![1.0; t * k], (Dense::new(&bytes, format, n, k), None), t);
                        for (i, &y) in y.iter().enumerate() {
                            let right = if i % n == 4 { check(y) } else { y == k as f32 };
                            assert!(right, "{isa} {format:?} k={k} t={t} [{i}]: {y} of {value}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn every_half_widens_to_its_value() {
    let halves: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for isa in Isa::available() {
        for format in [DenseFormat::F16, DenseFormat::BF16] {
            // One column: each output is one element.
            let y = product(isa, &[1.0], (Dense::new(&halves, format, 1 << 16, 1), None), 1);
            for (i, y) in y.into_iter().enumerate() {
                let expected = match format {
                    DenseFormat::F16 => f16::from_bits(i as u16).to_f32(),
                    _ => bf16::from_bits(i as u16).to_f32(),
                };
                let expected = if rounds(isa, format) && expected.is_subnormal() { 0.0 } else { expected };
                assert!(y == expected || y.is_nan() && expected.is_nan(), "{isa} {format:?} {i:#06x}: {y}");
            }
        }
    }
}

#[test]
fn the_public_functions_agree() {
    let (t, n, k) = (3, 10, 20);
    let (x, bias) = (numbers(11, t * k), numbers(12, n));
    let bytes = store(&numbers(13, n * k), DenseFormat::F16, 0);
    let w = Dense::new(&bytes, DenseFormat::F16, n, k);
    let mut y = vec![0.0; t * n];
    matmul(&x, &w, Some(&bias), &mut y);
    let mut gated = vec![0.0; t * n];
    matmul_gated(&x, (w, Some(&bias)), (w, Some(&bias)), Act::Relu, &mut gated);
    let expected: Vec<_> = y.iter().map(|&y| if y < 0.0 { 0.0 * y } else { y * y }).collect();
    assert_eq!(bits(&gated), bits(&expected));
}

#[test]
fn tiles_cover_the_tokens() {
    for (least, most) in [(2, 3), (20, 6)] {
        for count in least..200 {
            let tiles = Tiles::new(count, most);
            let mut end = 0;
            for tokens in (0..tiles.count()).map(|tile| tiles.get(tile)) {
                assert!(
                    tokens.start == end && (most - 1..=most).contains(&tokens.len()),
                    "{count} {tokens:?}"
                );
                end = tokens.end;
            }
            assert_eq!((end, tiles.tokens()), (count, count));
        }
    }
}

#[test]
fn empty_shapes_are_fine() {
    for (t, n, k) in [(0, 5, 7), (3, 0, 7), (3, 5, 0), (70, 5, 0), (0, 0, 0)] {
        let (x, bytes) = (vec![1.0; t * k], vec![0; n * k * 4]);
        let y = product(Isa::best(), &x, (Dense::new(&bytes, DenseFormat::F32, n, k), None), t);
        assert!(y.iter().all(|&y| y == 0.0), "{t} {n} {k}");
    }
}

#[test]
#[should_panic(expected = "x of 2 tokens")]
fn lengths_are_checked() {
    let bytes = [0; 4 * 3 * 5];
    matmul(&[0.0; 9], &Dense::new(&bytes, DenseFormat::F32, 3, 5), None, &mut [0.0; 6]);
}
