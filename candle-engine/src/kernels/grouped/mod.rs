//! Matrices of small integers with a scale for every group of inputs, used as they lie in their file.
//!
//! y[t, r] = Σ w[r, i] · x[t, i]
//!
//! Activations are quantized to 8 bits, one scale for each token and each period of at most [`PERIOD`]
//! inputs. The products of a period are summed as integers, exactly; these sums are added up in f32 in the
//! order of the row. So every ISA, every batch and every number of threads gives the same bits.
//!
//! An activation far above the others of its period would take the 8 bits for itself. It is multiplied
//! apart, in f32, and the others keep their resolution.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod scalar;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use super::isa::Dot;
use super::matmul::DenseFormat;
use super::panel::{self, Panel, Quantization, Source, Tokens, OCTET};
use super::Isa;

/// Inputs under one scale of the activations, where the weights' groups are not smaller.
const PERIOD: usize = 256;

/// Bits of a weight, and how they lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bits {
    /// Two's complement.
    Int8,
    /// Two in a byte, the first in its low half; 8 or the group's zero point is to be subtracted.
    Int4,
}

impl Bits {
    /// Bytes of so many weights of a row.
    pub fn bytes(self, weights: usize) -> usize {
        match self {
            Self::Int8 => weights,
            Self::Int4 => weights.div_ceil(2),
        }
    }
}

/// A row-major matrix `[rows, cols]`; its bytes may lie at any address.
#[derive(Clone, Copy, Debug)]
pub struct Grouped<'a> {
    bits: Bits,
    quants: &'a [u8],
    scales: &'a [u8],
    scale_format: DenseFormat,
    zeros: Option<&'a [u8]>,
    rows: usize,
    cols: usize,
    group: usize,
}

impl<'a> Grouped<'a> {
    /// A matrix over bytes: `quants [rows, cols]`, `scales [rows, cols / group]` in `scale_format`, and the zero
    /// points `zeros [rows, cols / group]`, a byte each, of `Int4`. A group of `cols` is one scale for a row.
    ///
    /// # Panics
    ///
    /// If a length does not fit the others, `group` divides `cols` not or is smaller than `cols` and no multiple
    /// of 32, 4-bit rows end within a byte, or 8-bit weights have zero points.
    #[allow(clippy::too_many_arguments)] // the parts that a file keeps apart
    pub fn new(
        bits: Bits,
        quants: &'a [u8],
        scales: &'a [u8],
        scale_format: DenseFormat,
        zeros: Option<&'a [u8]>,
        rows: usize,
        cols: usize,
        group: usize,
    ) -> Self {
        assert!(cols > 0 && group > 0 && cols.is_multiple_of(group), "groups of {group} in rows of {cols}");
        assert!(group == cols || group.is_multiple_of(panel::UNIT), "groups of {group}");
        assert!(bits == Bits::Int8 || cols.is_multiple_of(2), "rows of {cols} nibbles");
        assert!(bits == Bits::Int4 || zeros.is_none(), "zero points of 8-bit weights");
        let groups = rows.checked_mul(cols / group).expect("as many groups as memory holds");
        assert_eq!(Some(quants.len()), rows.checked_mul(bits.bytes(cols)), "quants of {rows} rows of {cols}");
        assert_eq!(scales.len(), groups * scale_format.size(), "scales of {groups} groups");
        assert!(zeros.is_none_or(|zeros| zeros.len() == groups), "zero points of {groups} groups");
        Self { bits, quants, scales, scale_format, zeros, rows, cols, group }
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The bytes of a row's quants.
    fn row(&self, row: usize) -> &'a [u8] {
        let bytes = self.bits.bytes(self.cols);
        &self.quants[row * bytes..][..bytes]
    }

    /// Scale and min of a row's group: a weight is `scale · (quant − offset) + min`.
    fn scale(&self, row: usize, group: usize) -> (f32, f32) {
        let at = row * (self.cols / self.group) + group;
        let scale = self.scale_format.read(self.scales, at);
        (scale, self.zeros.map_or(0.0, |zeros| -(scale * f32::from(zeros[at]))))
    }

    /// Inputs that are summed as integers, and under one scale of the activations.
    fn period(&self) -> usize {
        if self.group == self.cols || self.group.is_multiple_of(PERIOD) {
            PERIOD.min(self.cols.next_multiple_of(panel::UNIT))
        } else if self.group < PERIOD {
            self.group
        } else {
            panel::UNIT
        }
    }

    /// What is taken from a quant, an 8-bit one with its sign flipped.
    fn offset(&self) -> i32 {
        match (self.bits, self.zeros) {
            (Bits::Int8, _) => 128,
            (Bits::Int4, None) => 8,
            (Bits::Int4, Some(_)) => 0,
        }
    }

    fn quantization(&self, isa: Isa) -> Quantization {
        Quantization {
            k: self.cols,
            period: self.period(),
            group: self.period(),
            offset: if self.bits == Bits::Int8 && panel::has_sign(isa) { 0 } else { self.offset() },
            has_min: self.zeros.is_some(),
            outliers: true,
        }
    }
}

/// Multiplies rows of activations by a matrix.
///
/// y[t, r] = Σ w[r, i] · x[t, i]
///
/// Shapes: `x [m, cols]`, `y [m, rows]`.
///
/// # Panics
///
/// If the lengths do not agree.
pub fn matmul(isa: Isa, w: &Grouped, x: &[f32], y: &mut [f32]) {
    let m = x.len() / w.cols;
    assert_eq!((x.len(), y.len()), (m * w.cols, m * w.rows), "{m} tokens");
    if isa.dot() == Dot::Scalar {
        return scalar::matmul(w, x, y);
    }
    let q = w.quantization(isa);
    TOKENS.with_borrow_mut(|tokens| {
        tokens.quantize(isa, x, &q);
        match w.bits {
            Bits::Int8 => panel::matmul(isa, &Octets::<8>(*w), &q, tokens, y),
            Bits::Int4 => panel::matmul(isa, &Octets::<4>(*w), &q, tokens, y),
        }
    });
}

thread_local! {
    /// Kept from call to call: fresh pages cost more than small products.
    static TOKENS: RefCell<Tokens> = RefCell::default();
}

/// A matrix with quants of so many bits, for the panels.
struct Octets<'a, const BITS: u32>(Grouped<'a>);

impl<const BITS: u32> Source for Octets<'_, BITS> {
    const BITS: u32 = BITS;

    fn rows(&self) -> usize {
        self.0.rows
    }

    fn pack(&self, isa: Isa, rows: [usize; OCTET], h: usize, panel: &mut Panel) {
        let w = &self.0;
        let quants = rows.map(|row| w.row(row));
        match isa.dot() {
            Dot::Scalar => unreachable!("the specification has no panels"),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: all these levels have its features, and exist only after they were detected.
            Dot::Avx2 | Dot::AvxVnni | Dot::Avx512Vnni => unsafe {
                avx2::pack::<BITS>(quants, panel::has_sign(isa), h, panel);
            },
        }
        let period = w.period();
        for (i, first) in (0..w.cols).step_by(period).enumerate() {
            let mut scales = [(0.0, 0.0); OCTET];
            for (scale, &row) in scales.iter_mut().zip(&rows) {
                *scale = w.scale(row, first / w.group);
            }
            panel.set_scales(h, i, scales.map(|(scale, _)| scale), scales.map(|(_, min)| min));
        }
    }
}

/// Writes the numbers of a row.
///
/// # Panics
///
/// If the lengths do not agree.
pub fn dequantize(w: &Grouped, row: usize, out: &mut [f32]) {
    assert_eq!(out.len(), w.cols, "a row of {}", w.cols);
    for (i, out) in out.iter_mut().enumerate() {
        let (scale, min) = w.scale(row, i / w.group);
        *out = scale.mul_add((scalar::quant(w, row, i) - w.offset()) as f32, min);
    }
}
