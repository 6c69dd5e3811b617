use std::borrow::Cow;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};

use super::*;
use crate::kernels::threads;

const FORMATS: [(Format, GgmlDType); 10] = [
    (Format::Q4_0, GgmlDType::Q4_0),
    (Format::Q4_1, GgmlDType::Q4_1),
    (Format::Q5_0, GgmlDType::Q5_0),
    (Format::Q5_1, GgmlDType::Q5_1),
    (Format::Q8_0, GgmlDType::Q8_0),
    (Format::Q2_K, GgmlDType::Q2K),
    (Format::Q3_K, GgmlDType::Q3K),
    (Format::Q4_K, GgmlDType::Q4K),
    (Format::Q5_K, GgmlDType::Q5K),
    (Format::Q6_K, GgmlDType::Q6K),
];

struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 32) as u32
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }

    /// About normal, of standard deviation 1.
    fn floats(&mut self, n: usize) -> Vec<f32> {
        let mut one = || (0..12).map(|_| self.next() as f32 / u32::MAX as f32).sum::<f32>() - 6.0;
        (0..n).map(|_| one()).collect()
    }
}

fn multiply(isa: Isa, format: Format, w: &[u8], k: usize, x: &[f32]) -> Vec<f32> {
    let n = w.len() / format.bytes(&[k]).unwrap();
    let mut y = vec![f32::NAN; x.len() / k * n];
    matmul(isa, format, w, k, x, &mut y);
    y
}

fn assert_same_bits(got: &[f32], expected: &[f32], what: &str) {
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!(g.to_bits() == e.to_bits() || g.is_nan() && e.is_nan(), "{what}, {i}: {g} for {e}");
    }
}

/// Random bytes are every scale a half float can be, every quant, and NaN and infinity among them.
#[test]
fn every_isa_computes_the_same_bits() {
    let mut random = Random(1);
    let scalar = Isa::available()[0];
    for (format, _) in FORMATS {
        let len = format.block().0;
        // The last is more than is multiplied before it is scaled, and than waits for other rows.
        for blocks in [1, 2, 3, 19, 8960 / len] {
            let k = blocks * len;
            let rows: &[usize] = if k < 1024 { &[1, 7, 8, 9, 16, 17, 35] } else { &[35] };
            for &n in rows {
                let w = random.bytes(format.bytes(&[n, k]).unwrap());
                for m in [1, 2, 3, 4, 5, 7, 8, 9, 13] {
                    let mut x = random.floats(m * k);
                    x[0] = [0.0, 1e-40, 1e30, f32::INFINITY, f32::NAN, -1.0, 127.0][n % 7];
                    if m == 9 {
                        x[..len].fill(-3.0); // quants of −127
                    }
                    if m == 8 {
                        // Outliers, of the last token and of two tokens at one input.
                        for at in [k - 1, 3, 8 * k - 1, 7 * k + 3] {
                            x[at] = -90.0;
                        }
                    }
                    let expected = multiply(scalar, format, &w, k, &x);
                    for isa in Isa::available() {
                        let got = multiply(isa, format, &w, k, &x);
                        assert_same_bits(&got, &expected, &format!("{format} {isa} {m}×{k}×{n}"));
                    }
                }
            }
        }
    }
}

/// The most that a sum of 16 bits can meet: all quants and all activations at their ends.
#[test]
fn extreme_values_do_not_saturate() {
    let scalar = Isa::available()[0];
    for (format, _) in FORMATS {
        let k = 256;
        for byte in [0x00, 0x7f, 0x80, 0x81, 0xff] {
            let mut w = vec![byte; format.bytes(&[16, k]).unwrap()];
            if format == Format::Q8_0 {
                w.chunks_exact_mut(34).for_each(|block| block[..2].copy_from_slice(&[0, 0x3c]));
            }
            for sign in [1.0, -1.0] {
                let x: Vec<f32> = (0..8 * k).map(|i| if i / k % 2 == 0 { sign } else { -sign }).collect();
                let expected = multiply(scalar, format, &w, k, &x);
                for isa in Isa::available() {
                    assert_same_bits(
                        &multiply(isa, format, &w, k, &x),
                        &expected,
                        &format!("{format} {byte:#x}"),
                    );
                }
                if format == Format::Q8_0 {
                    assert_eq!(expected[0], f32::from(byte as i8) * k as f32 * sign);
                }
            }
        }
    }
}

#[test]
fn numbers_are_those_that_candle_reads() {
    let mut random = Random(2);
    for (format, dtype) in FORMATS {
        let k = 512;
        let weights = Tensor::from_vec(random.floats(3 * k), (3, k), &Device::Cpu).unwrap();
        let quantized = QTensor::quantize(&weights, dtype).unwrap();
        let candle = quantized.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap();
        let bytes = quantized.data().unwrap();
        let mut ours = vec![0.0; 3 * k];
        dequantize(format, &bytes, &mut ours);
        assert_same_bits(&ours, &candle.to_vec1::<f32>().unwrap(), &format.to_string());

        // Every bit pattern of the packed parts, with finite scales.
        let mut bytes = random.bytes(format.bytes(&[k]).unwrap());
        for &at in halves(format) {
            bytes.chunks_exact_mut(format.block().1).for_each(|block| block[at + 1] &= 0xbb);
        }
        let storage = QStorage::from_data(Cow::Borrowed(&bytes), &Device::Cpu, dtype).unwrap();
        let candle = QTensor::new(storage, k).unwrap().dequantize(&Device::Cpu).unwrap();
        let mut ours = vec![0.0; k];
        dequantize(format, &bytes, &mut ours);
        assert_same_bits(&ours, &candle.to_vec1::<f32>().unwrap(), &format.to_string());
    }
}

/// Where a block keeps its half floats.
fn halves(format: Format) -> &'static [usize] {
    match format {
        Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => &[0, 2],
        Format::Q2_K => &[80, 82],
        Format::Q3_K => &[108],
        Format::Q6_K => &[208],
        _ => &[0],
    }
}

/// Against the product of the same numbers in f64: what is left is the 8 bits of the activations.
#[test]
fn the_error_is_that_of_eight_bits() {
    let mut random = Random(3);
    let (m, k, n) = (3, 1024, 40);
    for (format, dtype) in FORMATS {
        let weights = Tensor::from_vec(random.floats(n * k), (n, k), &Device::Cpu).unwrap();
        let bytes = QTensor::quantize(&weights, dtype).unwrap().data().unwrap().into_owned();
        let mut numbers = vec![0.0; n * k];
        dequantize(format, &bytes, &mut numbers);
        let x = random.floats(m * k);
        let y = multiply(Isa::best(), format, &bytes, k, &x);
        let mut worst = 0f64;
        for (t, x) in x.chunks_exact(k).enumerate() {
            for (r, w) in numbers.chunks_exact(k).enumerate() {
                let expected: f64 = w.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
                worst = worst.max((expected - f64::from(y[t * n + r])).abs());
            }
        }
        // Sums of 1024 products of deviation 1 have deviation 32; a rounding of 1/127 of some 2.5, spread
        // evenly, has deviation 0.006, and 1024 of them 0.18.
        assert!(worst < 1.0, "{format}: {worst}");
    }
}

#[test]
fn a_row_does_not_depend_on_its_batch_or_the_threads() {
    let mut random = Random(4);
    let (m, k, n) = (67, 512, 300);
    for (format, _) in FORMATS {
        let w = random.bytes(format.bytes(&[n, k]).unwrap());
        let x = random.floats(m * k);
        let all = multiply(Isa::best(), format, &w, k, &x);
        for threads in [1, 3, 2] {
            threads::set_threads(threads);
            assert_same_bits(&multiply(Isa::best(), format, &w, k, &x), &all, &format!("{threads} threads"));
        }
        for (t, x) in x.chunks_exact(k).enumerate().step_by(11) {
            let one = multiply(Isa::best(), format, &w, k, x);
            assert_same_bits(&all[t * n..][..n], &one, &format.to_string());
        }
    }
}

#[test]
fn an_empty_batch_is_no_work() {
    matmul(Isa::best(), Format::Q8_0, &[0; 34], 32, &[], &mut []);
}
