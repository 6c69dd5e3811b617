use super::*;
use crate::kernels::testing::numbers;

/// A matrix's parts, random.
struct Parts {
    bits: Bits,
    quants: Vec<u8>,
    scales: Vec<u8>,
    format: DenseFormat,
    zeros: Option<Vec<u8>>,
    rows: usize,
    cols: usize,
    group: usize,
}

impl Parts {
    fn new(bits: Bits, rows: usize, cols: usize, group: usize, zeros: bool) -> Self {
        let byte = |x: f32| (x * 128.0) as i32 as u8;
        let seed = (rows * 31 + cols) as u64;
        let quants = numbers(seed, rows * bits.bytes(cols)).into_iter().map(byte).collect();
        let groups = rows * cols / group;
        let scales = numbers(seed + 1, groups).into_iter().flat_map(|x| half::f16::from_f32(x).to_le_bytes());
        let zeros = zeros.then(|| numbers(seed + 2, groups).into_iter().map(|x| byte(x) & 15).collect());
        Self { bits, quants, scales: scales.collect(), format: DenseFormat::F16, zeros, rows, cols, group }
    }

    fn matrix(&self) -> Grouped<'_> {
        let Self { bits, quants, scales, format, zeros, rows, cols, group } = self;
        Grouped::new(*bits, quants, scales, *format, zeros.as_deref(), *rows, *cols, *group)
    }
}

fn cases() -> Vec<Parts> {
    let mut cases = Vec::new();
    for rows in [1, 7, 8, 9, 16, 17, 33, 70] {
        for (cols, group) in
            [(32, 32), (100, 100), (576, 576), (576, 64), (640, 320), (1024, 512), (2, 2), (256, 128)]
        {
            cases.push(Parts::new(Bits::Int8, rows, cols, group, false));
            cases.push(Parts::new(Bits::Int4, rows, cols, group, false));
            cases.push(Parts::new(Bits::Int4, rows, cols, group, true));
        }
    }
    // More than waits for other rows.
    cases.push(Parts::new(Bits::Int8, 17, 33312, 32, false));
    cases.push(Parts::new(Bits::Int8, 16, 33792, 512, false));
    cases.push(Parts::new(Bits::Int4, 17, 8480, 32, true));
    cases.push(Parts::new(Bits::Int4, 16, 16960, 64, false));
    cases
}

fn multiply(isa: Isa, w: &Grouped, x: &[f32]) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len() / w.cols * w.rows];
    matmul(isa, w, x, &mut y);
    y
}

fn assert_same_bits(got: &[f32], expected: &[f32], what: &str) {
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!(g.to_bits() == e.to_bits() || g.is_nan() && e.is_nan(), "{what}, {i}: {g} for {e}");
    }
}

/// Scales of every format, of fewer and of more groups than are read at once, and more than are multiplied at once.
fn scaled_cases() -> Vec<Parts> {
    let mut cases = Vec::new();
    for format in [DenseFormat::F32, DenseFormat::F16, DenseFormat::BF16] {
        for (cols, group) in [(96, 32), (160, 32), (352, 32), (2208, 32), (640, 128), (128, 128)] {
            for zeros in [false, true] {
                let mut parts = Parts::new(Bits::Int4, 35, cols, group, zeros);
                let scales = numbers(5, 35 * cols / group).into_iter();
                parts.scales = match format {
                    DenseFormat::F32 => scales.flat_map(f32::to_le_bytes).collect(),
                    DenseFormat::F16 => scales.flat_map(|x| half::f16::from_f32(x).to_le_bytes()).collect(),
                    DenseFormat::BF16 => scales.flat_map(|x| half::bf16::from_f32(x).to_le_bytes()).collect(),
                };
                parts.format = format;
                cases.push(parts);
            }
        }
    }
    cases
}

#[test]
fn every_isa_computes_the_same_bits() {
    let scalar = Isa::available()[0];
    for parts in cases().into_iter().chain(scaled_cases()) {
        let w = parts.matrix();
        for m in [1, 2, 3, 5, 8, 12, 13, 31] {
            let mut x = numbers(m as u64, m * w.cols);
            // Outliers, and all that a float can be.
            x[w.cols / 2] = 1000.0;
            x[m * w.cols - 1] = [0.0, 1e-40, -1e30, f32::INFINITY, f32::NAN, -1.0, 1e5][w.rows % 7];
            for w in [w, w.precise(true)] {
                let expected = multiply(scalar, &w, &x);
                for isa in Isa::available() {
                    let Grouped { bits, rows, cols, group, precise, .. } = w;
                    let what = format!("{isa} {bits:?} {m}×{cols}×{rows} by {group}, precise: {precise}");
                    assert_same_bits(&multiply(isa, &w, &x), &expected, &what);
                }
            }
        }
    }
}

/// All quants and all activations at their ends.
#[test]
fn extreme_values_do_not_saturate() {
    for bits in [Bits::Int8, Bits::Int4] {
        for byte in [0x00, 0x7f, 0x80, 0x81, 0xff] {
            let mut parts = Parts::new(bits, 40, 512, 512, false);
            parts.quants.fill(byte);
            parts.scales.chunks_exact_mut(2).for_each(|scale| scale.copy_from_slice(&[0, 0x3c]));
            let w = parts.matrix();
            for sign in [1.0, -1.0] {
                for isa in Isa::available() {
                    let y = multiply(isa, &w, &vec![sign * 127.0; 13 * 512]);
                    let mut row = vec![0.0; 512];
                    dequantize(&w, 0, &mut row);
                    assert_eq!(y[0], sign * 127.0 * row.iter().sum::<f32>(), "{isa} {bits:?} {byte:#x}");
                    assert!(y.iter().all(|v| v == &y[0]));
                }
            }
        }
    }
}

/// Against the product of the same numbers in f64: what is left is the 8 or 16 bits of the activations, and an
/// activation far above the others does not change that.
#[test]
fn the_error_is_that_of_eight_or_sixteen_bits() {
    // Half a step of 1/127, or of what is left in 127 parts; and what f32's sums may be off.
    for (precise, steps, rest) in [(false, 250.0, 1e-3), (true, 64_000.0, 1e-5)] {
        check_error(precise, steps, rest);
    }
}

fn check_error(precise: bool, steps: f64, rest: f64) {
    for outliers in [false, true] {
        for parts in cases() {
            let w = parts.matrix().precise(precise);
            let mut x = numbers(7, 3 * w.cols);
            // One of fewer than sixteen cannot stand out that far.
            if outliers && w.cols >= 32 {
                x.iter_mut().skip(5).step_by(97).for_each(|x| *x = 1e4);
            }
            let y = multiply(Isa::best(), &w, &x);
            let mut row = vec![0.0; w.cols];
            for r in 0..w.rows {
                dequantize(&w, r, &mut row);
                for (t, x) in x.chunks_exact(w.cols).enumerate() {
                    let expected: f64 = row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
                    // All in one direction; and f32's rounding of what is large.
                    let bound: f64 = row.iter().map(|w| f64::from(w.abs()) / steps).sum();
                    let size: f64 = row.iter().zip(x).map(|(&w, &x)| f64::from((w * x).abs())).sum();
                    let bound = bound + size * 1e-6 + rest;
                    let got = f64::from(y[t * w.rows + r]);
                    assert!((got - expected).abs() <= bound, "{:?} {}: {got} for {expected}", w.bits, w.cols);
                }
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_batch_or_the_threads() {
    let parts = Parts::new(Bits::Int8, 300, 512, 512, false);
    let w = parts.matrix();
    let x = numbers(3, 67 * 512);
    let all = multiply(Isa::best(), &w, &x);
    for threads in [1, 3, 2] {
        crate::kernels::threads::set_threads(threads);
        assert_same_bits(&multiply(Isa::best(), &w, &x), &all, &format!("{threads} threads"));
    }
    for (x, y) in x.chunks_exact(512).zip(all.chunks_exact(300)).step_by(11) {
        assert_same_bits(&multiply(Isa::best(), &w, x), y, "alone");
    }
}

#[test]
fn an_empty_batch_is_no_work() {
    let parts = Parts::new(Bits::Int4, 3, 64, 32, true);
    matmul(Isa::best(), &parts.matrix(), &[], &mut []);
}
