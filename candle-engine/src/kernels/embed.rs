//! Rows of an embedding matrix, straight from the mapped file.

use half::{bf16, f16};

use super::lanes::{per_isa, Arith, LANES};
use super::matmul::{Dense, DenseFormat};
use super::rows::parallel_rows_mut;
use super::Isa;

/// Copies rows of a stored matrix into f32.
///
/// Shapes: `matrix [vocabulary, n]`, `tokens [t]` → `out [t, n]`. Exact.
///
/// # Panics
///
/// If a token lies beyond the matrix or a shape does not fit.
pub fn gather(matrix: &Dense, tokens: &[u32], out: &mut [f32]) {
    gather_on(Isa::best(), matrix, tokens, out);
}

fn gather_on(isa: Isa, matrix: &Dense, tokens: &[u32], out: &mut [f32]) {
    let (n, format) = (matrix.cols(), matrix.format());
    assert_eq!(out.len(), tokens.len() * n, "gather: tokens and out");
    let width = n * format.size();
    parallel_rows_mut(out, n, |first, out| {
        for (out, &token) in out.chunks_exact_mut(n).zip(&tokens[first..]) {
            let row = &matrix.bytes()[token as usize * width..][..width];
            per_isa!(isa, widen_row, (row: &[u8], format: DenseFormat, out: &mut [f32]));
        }
    });
}

#[inline(always)]
fn widen_row(arith: impl Arith, row: &[u8], format: DenseFormat, out: &mut [f32]) {
    match format {
        DenseFormat::F32 => {
            for (out, &bytes) in out.iter_mut().zip(row.as_chunks().0) {
                *out = f32::from_le_bytes(bytes);
            }
        }
        DenseFormat::BF16 => {
            for (out, &bytes) in out.iter_mut().zip(row.as_chunks().0) {
                *out = f32::from_bits(u32::from(bf16::from_le_bytes(bytes).to_bits()) << 16);
            }
        }
        DenseFormat::F16 => {
            let (row, _) = row.as_chunks::<2>();
            for (out, row) in out.chunks_mut(LANES).zip(row.chunks(LANES)) {
                let mut x = [f16::ZERO; LANES];
                for (x, &bytes) in x.iter_mut().zip(row) {
                    *x = f16::from_le_bytes(bytes);
                }
                out.copy_from_slice(&arith.widen(&x)[..out.len()]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{extremes, LENGTHS};

    #[test]
    fn rows_are_exact_at_any_alignment() {
        for isa in Isa::available() {
            for n in LENGTHS {
                for offset in 0..4 {
                    for format in [DenseFormat::F32, DenseFormat::F16, DenseFormat::BF16] {
                        let numbers = extremes(n as u64, 5 * n);
                        let mut bytes = vec![0xff; offset];
                        let mut exact = Vec::new();
                        for x in numbers {
                            match format {
                                DenseFormat::F32 => {
                                    bytes.extend(x.to_le_bytes());
                                    exact.push(x);
                                }
                                DenseFormat::F16 => {
                                    bytes.extend(f16::from_f32(x).to_le_bytes());
                                    exact.push(f16::from_f32(x).to_f32());
                                }
                                DenseFormat::BF16 => {
                                    bytes.extend(bf16::from_f32(x).to_le_bytes());
                                    exact.push(bf16::from_f32(x).to_f32());
                                }
                            }
                        }
                        let tokens = [4, 0, 4, 2];
                        let want: Vec<f32> =
                            tokens.iter().flat_map(|&t| exact[t as usize * n..][..n].to_vec()).collect();
                        let mut out = vec![f32::NAN; want.len()];
                        let matrix = Dense::new(&bytes[offset..], format, 5, n);
                        gather_on(isa, &matrix, &tokens, &mut out);
                        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                        assert_eq!(bits(&out), bits(&want), "{isa} {format:?} n {n} offset {offset}");
                    }
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "range")]
    fn a_token_beyond_the_matrix_panics() {
        gather(&Dense::new(&[0; 40], DenseFormat::F32, 2, 5), &[2], &mut [0.0; 5]);
    }
}
