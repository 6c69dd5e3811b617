//! Matrices in GGUF's block formats, used as they lie in the file.
//!
//! y[t, r] = Σ w[r, i] · x[t, i]
//!
//! Activations are quantized to 8 bits, one scale for a block: 32 numbers, or the 256 of a K-block, of which those far
//! above the others are multiplied apart. The products within a block, times the integers that a K-block has for its
//! parts, are summed as integers, exactly, and these sums are added up in the order of the row. So every ISA, every
//! batch and every number of threads gives the same bits.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod formats;
#[cfg(target_arch = "x86_64")]
mod rows;
mod scalar;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod vnni;

use std::marker::PhantomData;
use std::ops::Range;

use self::formats::{has_sub_scales, Block, Q2K, Q3K, Q4K, Q4_0, Q4_1, Q5K, Q5_0, Q5_1, Q6K, Q8_0};
use super::isa::Dot;
use super::panel::{self, Few, Panel, Quantization, Source, Tile};
use super::{Act, Isa};
use crate::weights::Format;

/// Runs an expression with `B` as the block type of a format.
macro_rules! with_block {
    ($format:expr, $B:ident => $run:expr) => {
        with_block!(@ $format, $B => $run;
            Q4_0: Q4_0, Q4_1: Q4_1, Q5_0: Q5_0, Q5_1: Q5_1, Q8_0: Q8_0,
            Q2_K: Q2K, Q3_K: Q3K, Q4_K: Q4K, Q5_K: Q5K, Q6_K: Q6K)
    };
    (@ $format:expr, $B:ident => $run:expr; $($name:ident: $block:ty),*) => {
        match $format {
            $(Format::$name => {
                type $B = $block;
                $run
            })*
            other => panic!("{other} is no block format"),
        }
    };
}

/// Whether a format is one of these.
pub const fn supports(format: Format) -> bool {
    format.block().0 > 1
}

/// Multiplies rows of activations by a matrix in a block format.
///
/// y[t, r] = Σ w[r, i] · x[t, i]
///
/// Shapes: `w` holds `[n, k]` numbers in whole blocks, `x [m, k]`, `y [m, n]`.
///
/// # Panics
///
/// If `format` is no block format, `k` no multiple of its block, or a length does not fit the others.
pub fn matmul(isa: Isa, format: Format, w: &[u8], k: usize, x: &[f32], y: &mut [f32]) {
    with_block!(format, B => panel::matmul(isa, &Matrix::<B>::new(w, k), x, y))
}

/// Multiplies rows of activations by the two upper matrices of a gated MLP, in one format.
///
/// y[t, r] = act(Σ gate[r, i] · x[t, i]) · Σ up[r, i] · x[t, i]
///
/// Shapes: `gate` and `up` hold `[n, k]` numbers in whole blocks, `x [m, k]`, `y [m, n]`.
///
/// # Panics
///
/// As [`matmul`].
pub fn matmul_gated(
    isa: Isa,
    format: Format,
    [gate, up]: [&[u8]; 2],
    act: Act,
    k: usize,
    x: &[f32],
    y: &mut [f32],
) {
    with_block!(format, B => {
        panel::matmul_gated(isa, &Matrix::<B>::new(gate, k), &Matrix::<B>::new(up, k), act, x, y);
    })
}

/// Writes the numbers of a row, or of several that follow each other.
///
/// # Panics
///
/// If `format` is no block format or the lengths do not agree.
pub fn dequantize(format: Format, w: &[u8], out: &mut [f32]) {
    assert!(supports(format), "{format} is no block format");
    assert_eq!(format.bytes(&[out.len()]), Some(w.len()), "bytes of {} numbers in {format}", out.len());
    with_block!(format, B => scalar::dequantize::<B>(w, out))
}

/// Rows of blocks.
struct Matrix<'a, B> {
    w: &'a [u8],
    k: usize,
    row_bytes: usize,
    block: PhantomData<B>,
}

impl<'a, B: Block> Matrix<'a, B> {
    fn new(w: &'a [u8], k: usize) -> Self {
        assert!(k > 0 && k.is_multiple_of(B::LEN), "k = {k} is no multiple of {}'s block", B::FORMAT);
        let row_bytes = k / B::LEN * B::BYTES;
        assert!(w.len().is_multiple_of(row_bytes), "{} bytes are no whole rows of {k}", w.len());
        Self { w, k, row_bytes, block: PhantomData }
    }
}

impl<B: Block> Source for Matrix<'_, B> {
    const BITS: u32 = B::BITS;

    fn rows(&self) -> usize {
        self.w.len() / self.row_bytes
    }

    fn bytes(&self, rows: Range<usize>) -> &[u8] {
        &self.w[rows.start * self.row_bytes..rows.end * self.row_bytes]
    }

    fn quantization(&self) -> Quantization {
        Quantization {
            k: self.k,
            period: B::PERIOD,
            group: B::LEN,
            offset: B::OFFSET,
            has_min: B::HAS_MIN,
            outliers: has_sub_scales::<B>(),
            precise: false,
        }
    }

    fn level(&self, isa: Isa, tokens: usize) -> Isa {
        if B::BITS == 8 && tokens == 1 {
            isa.for_one_of_bytes()
        } else {
            isa
        }
    }

    fn few(&self, isa: Isa, tokens: usize) -> Option<Few> {
        #[cfg(target_arch = "x86_64")]
        if isa.dot() == Dot::Avx2 {
            return (tokens <= avx2::few(B::BITS)).then_some(Few::Alone);
        }
        let _ = isa;
        (tokens == 1).then_some(Few::Alone)
    }

    fn direct(&self, isa: Isa, range: Range<usize>, x: &[Tile], mut out: impl FnMut(usize, usize, &[f32])) {
        let (w, row_bytes) = (self.w, self.row_bytes);
        match isa.dot() {
            Dot::Scalar => scalar::matmul::<B>(w, row_bytes, range, x, |row, t, y| out(row, t, &[y])),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: these levels exist only after their features were detected.
            Dot::Avx2 | Dot::AvxVnni => unsafe { avx2::matmul::<B>(w, row_bytes, range, x, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Dot::Avx512Vnni => unsafe { vnni::matmul::<B>(w, row_bytes, range, x, out) },
        }
    }

    fn pack(&self, isa: Isa, from: usize, less: i8, panel: &mut Panel) {
        let (w, row_bytes) = (self.w, self.row_bytes);
        match isa.dot() {
            Dot::Scalar => unreachable!("the specification has no panels"),
            #[cfg(target_arch = "x86_64")]
            Dot::Avx2 | Dot::AvxVnni => {
                for h in 0..panel.octets() {
                    let from = from + h * panel::OCTET;
                    // SAFETY: these levels exist only after their features were detected.
                    unsafe { avx2::pack::<B>(w, row_bytes, from, less, h, panel) };
                }
            }
            #[cfg(target_arch = "x86_64")]
            Dot::Avx512Vnni => {
                for s in 0..panel.octets() / 2 {
                    // SAFETY: as above.
                    unsafe { vnni::pack::<B>(w, row_bytes, from + s * panel::SIXTEEN, less, s, panel) };
                }
            }
        }
    }
}
