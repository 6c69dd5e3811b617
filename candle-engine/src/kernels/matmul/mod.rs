//! Dense matrix products: y = x · Wᵀ with W read in place, in the format and layout of its file.
//!
//! Every output element is one dot product, summed in an order that only its length and the ISA fix: along
//! k in chunks of `CHUNK`, within a chunk in the lanes of one vector. So it is the same, bit for bit,
//! whatever the number of tokens, the token's place among them, the thread count and what it is fused with.
//!
//! Where the CPU multiplies bf16, the products of matrices in bf16 are those of `pairs`, which holds to the same.

mod driver;
mod scalar;
mod tiles;
#[macro_use]
mod tile;
#[macro_use]
mod many;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod pairs;
#[cfg(test)]
mod tests;

use std::ops::Range;

use half::{bf16, f16};

use self::driver::{run, Gate};
use super::act::Act;
use super::isa::Isa;
use super::threads::Disjoint;

/// Elements of a dot product that are summed in vector lanes before they join the running sum.
///
/// Part of what a result is. Six tokens' chunks fit a first-level cache of 32 KiB.
const CHUNK: usize = 1024;

/// The number format of a matrix, little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DenseFormat {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of IEEE single precision.
    BF16,
}

impl DenseFormat {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }

    /// Tokens from which on both sides are laid out before they are multiplied, as measured on Zen 5; at
    /// least twenty, for the tiles. In place, loads of f32 always cross cache lines.
    fn many(self) -> usize {
        match self {
            Self::F32 => 24,
            Self::F16 | Self::BF16 => 64,
        }
    }
}

/// A row-major matrix `[rows, cols]` in its stored format; its bytes may lie at any address.
#[derive(Clone, Copy, Debug)]
pub struct Dense<'a> {
    bytes: &'a [u8],
    format: DenseFormat,
    rows: usize,
    cols: usize,
}

/// A matrix and the bias of its outputs.
pub type Term<'a> = (Dense<'a>, Option<&'a [f32]>);

impl<'a> Dense<'a> {
    /// A matrix over bytes.
    ///
    /// # Panics
    ///
    /// If there are not exactly `rows · cols` elements.
    pub fn new(bytes: &'a [u8], format: DenseFormat, rows: usize, cols: usize) -> Self {
        let size = rows.checked_mul(cols).and_then(|n| n.checked_mul(format.size()));
        assert_eq!(size, Some(bytes.len()), "bytes of a {rows} × {cols} matrix of {format:?}");
        Self { bytes, format, rows, cols }
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The elements, row by row.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The format of the elements.
    pub fn format(&self) -> DenseFormat {
        self.format
    }

    /// The address of a row, also of one that is not there.
    fn row_start(&self, row: usize) -> *const u8 {
        self.bytes.as_ptr().wrapping_add(row * self.cols * self.format.size())
    }

    /// Some rows, with elements of `N` bytes.
    fn part<const N: usize>(&self, rows: Range<usize>) -> Rows<'a, [u8; N]> {
        assert_eq!(N, self.format.size(), "bytes of an element");
        let (elements, _) = self.bytes.as_chunks();
        Rows::new(&elements[rows.start * self.cols..], self.cols, self.cols, rows.len())
    }
}

/// Multiplies by a matrix.
///
/// y = x · Wᵀ + b
///
/// Shapes: `x [t, k]`, `w [n, k]`, `bias [n]` → `y [t, n]`. Accumulates in f32. Rounds `x` to bf16 where `w` is in it and
/// the level is `avx512bf16` or `amx`.
///
/// # Panics
///
/// If the lengths do not agree.
pub fn matmul(x: &[f32], w: &Dense, bias: Option<&[f32]>, y: &mut [f32]) {
    run(Isa::best(), x, (*w, bias), None, y);
}

/// The two upper matrices of a gated MLP, in one parallel region.
///
/// y = act(x · Gᵀ + b) ⊙ (x · Uᵀ + c)
///
/// Shapes: `x [t, k]`, `gate` and `up [n, k]` → `y [t, n]`. Accumulates in f32.
///
/// # Panics
///
/// If the lengths do not agree.
pub fn matmul_gated(x: &[f32], gate: Term, up: Term, act: Act, y: &mut [f32]) {
    run(Isa::best(), x, gate, Some(Gate { up, act }), y);
}

/// A number format as a type, for kernels that are compiled once for each.
trait Stored: Copy {
    const FORMAT: DenseFormat;
    /// An element as it is stored.
    type Raw: Copy;
    const ZERO: Self::Raw;
    /// The element's value.
    fn widen(raw: Self::Raw) -> f32;
}

macro_rules! stored {
    ($name:ident, $format:ident, $raw:ty, $zero:expr, $widen:expr) => {
        #[derive(Clone, Copy)]
        struct $name;

        impl Stored for $name {
            const FORMAT: DenseFormat = DenseFormat::$format;
            type Raw = $raw;
            const ZERO: Self::Raw = $zero;

            #[inline(always)]
            fn widen(raw: Self::Raw) -> f32 {
                $widen(raw)
            }
        }
    };
}

stored!(F32, F32, [u8; 4], [0; 4], f32::from_le_bytes);
stored!(F16, F16, [u8; 2], [0; 2], |raw| f16::from_le_bytes(raw).to_f32());
stored!(BF16, BF16, [u8; 2], [0; 2], |raw| bf16::from_le_bytes(raw).to_f32());

/// Rows of equal length at equal distances.
#[derive(Clone, Copy)]
struct Rows<'a, T> {
    data: &'a [T],
    /// Elements from one row to the next.
    stride: usize,
    /// Elements of a row.
    len: usize,
    count: usize,
}

impl<'a, T> Rows<'a, T> {
    /// `count` rows of `len` elements, the first at the start of `data`.
    fn new(data: &'a [T], stride: usize, len: usize, count: usize) -> Self {
        assert!(count == 0 || (count - 1) * stride + len <= data.len(), "rows leave their data");
        Self { data, stride, len, count }
    }

    #[inline(always)]
    fn row(&self, i: usize) -> &'a [T] {
        &self.data[i * self.stride..][..self.len]
    }

    /// Columns of `N` rows from `first` on.
    #[inline(always)]
    fn pick<const N: usize>(&self, first: usize, k: Range<usize>) -> [&'a [T]; N] {
        std::array::from_fn(|i| &self.row(first + i)[k.clone()])
    }
}
