//! Matrices of small integers with a scale for every group of inputs, used as they lie in their file.
//!
//! y[t, r] = Σ w[r, i] · x[t, i]
//!
//! Activations are quantized to 8 bits, one scale for each token and each period of at most 512
//! inputs. The products of a period are summed as integers, exactly; these sums are added up in f32 in the
//! order of the row. So every ISA, every batch and every number of threads gives the same bits.
//!
//! An activation far above the others of its period would take the 8 bits for itself. It is multiplied
//! apart, in f32, and the others keep their resolution.
//!
//! Of a precise matrix activations take 16 bits: what the 8 bits leave of a token is a second token, quantized
//! and multiplied like the first, and the two results are added.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod few;
#[cfg(target_arch = "x86_64")]
mod one;
#[cfg(target_arch = "x86_64")]
mod results;
mod scalar;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod tiles;
#[cfg(target_arch = "x86_64")]
mod vnni;

use std::ops::Range;

use half::{bf16, f16};

use super::isa::{Dot, Registers};
use super::lanes;
use super::matmul::DenseFormat;
use super::panel::{self, Few, Panel, Quantization, Source, Tile, OCTET, SIXTEEN};
use super::{Act, Isa};

/// Inputs under one scale of the activations, where the weights' groups are not smaller.
const PERIOD: usize = 512;

/// Bits of a weight, and how they lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bits {
    /// Two's complement.
    Int8,
    /// Two in a byte, the first in its low half; 8 or the group's zero point is to be subtracted.
    Int4,
}

impl Bits {
    /// Bits of a weight.
    pub fn per_weight(self) -> u64 {
        match self {
            Self::Int8 => 8,
            Self::Int4 => 4,
        }
    }

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
    precise: bool,
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
        Self { bits, quants, scales, scale_format, zeros, rows, cols, group, precise: false }
    }

    /// The same, for activations of 16 bits or of 8.
    pub fn precise(self, precise: bool) -> Self {
        Self { precise, ..self }
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

    /// The bytes of the rows' quants from a row on, if there is one.
    #[cfg(target_arch = "x86_64")]
    fn rows_from(&self, row: usize) -> &'a [u8] {
        self.quants.get(row * self.bits.bytes(self.cols)..).unwrap_or_default()
    }

    /// Scale and min of a row's group: a weight is `scale · (quant − offset) + min`.
    fn scale(&self, row: usize, group: usize) -> (f32, f32) {
        let ([scale], [min]) = self.scales([row], group);
        (scale, min)
    }

    /// [`Self::scale`] of some rows.
    #[inline(always)]
    fn scales<const N: usize>(&self, rows: [usize; N], group: usize) -> ([f32; N], [f32; N]) {
        let groups = self.cols / self.group;
        let at = rows.map(|row| row * groups + group);
        let mut scales = [0.0; N];
        // One loop for each format: the choice is made once.
        match self.scale_format {
            DenseFormat::F32 => at.iter().zip(&mut scales).for_each(|(&at, to)| {
                *to = f32::from_le_bytes(self.scales.as_chunks().0[at]);
            }),
            DenseFormat::F16 => at.iter().zip(&mut scales).for_each(|(&at, to)| {
                *to = lanes::widen(f16::from_le_bytes(self.scales.as_chunks().0[at]));
            }),
            DenseFormat::BF16 => at.iter().zip(&mut scales).for_each(|(&at, to)| {
                *to = bf16::from_le_bytes(self.scales.as_chunks().0[at]).to_f32();
            }),
        }
        let mut mins = [0.0; N];
        if let Some(zeros) = self.zeros {
            for ((min, scale), &at) in mins.iter_mut().zip(&scales).zip(&at) {
                *min = -(scale * f32::from(zeros[at]));
            }
        }
        (scales, mins)
    }

    /// The quant of a row and an input, an 8-bit one with its sign flipped.
    fn quant(&self, row: usize, input: usize) -> i32 {
        let row = self.row(row);
        i32::from(match self.bits {
            Bits::Int8 => row[input] ^ 0x80,
            Bits::Int4 => (row[input / 2] >> (4 * (input % 2))) & 15,
        })
    }

    /// The weight of a row and an input.
    fn weight(&self, row: usize, input: usize) -> f32 {
        let (scale, min) = self.scale(row, input / self.group);
        scale.mul_add((self.quant(row, input) - self.offset()) as f32, min)
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
    match w.bits {
        Bits::Int8 => panel::matmul(isa, &Octets::<8>(*w), x, y),
        Bits::Int4 => panel::matmul(isa, &Octets::<4>(*w), x, y),
    }
}

/// Multiplies rows of activations by the two upper matrices of a gated MLP.
///
/// y[t, r] = act(Σ gate[r, i] · x[t, i]) · Σ up[r, i] · x[t, i]
///
/// Shapes: `x [m, cols]`, `y [m, rows]`.
///
/// # Panics
///
/// If the lengths do not agree, or the matrices differ in bits or groups.
pub fn matmul_gated(isa: Isa, gate: &Grouped, up: &Grouped, act: Act, x: &[f32], y: &mut [f32]) {
    match (gate.bits, up.bits) {
        (Bits::Int8, Bits::Int8) => {
            panel::matmul_gated(isa, &Octets::<8>(*gate), &Octets::<8>(*up), act, x, y);
        }
        (Bits::Int4, Bits::Int4) => {
            panel::matmul_gated(isa, &Octets::<4>(*gate), &Octets::<4>(*up), act, x, y);
        }
        bits => panic!("gate and up of {bits:?}"),
    }
}

/// A matrix with quants of so many bits.
struct Octets<'a, const BITS: u32>(Grouped<'a>);

impl<const BITS: u32> Source for Octets<'_, BITS> {
    const BITS: u32 = BITS;

    fn rows(&self) -> usize {
        self.0.rows
    }

    fn bytes(&self, rows: Range<usize>) -> &[u8] {
        let bytes = self.0.bits.bytes(self.0.cols);
        &self.0.quants[rows.start * bytes..rows.end * bytes]
    }

    fn quantization(&self) -> Quantization {
        let w = &self.0;
        Quantization {
            k: w.cols,
            period: w.period(),
            group: w.period(),
            offset: if BITS == 8 { 0 } else { w.offset() },
            has_min: w.zeros.is_some(),
            outliers: true,
            precise: w.precise,
        }
    }

    fn level(&self, isa: Isa, tokens: usize) -> Isa {
        // Where a row has fewer than the four sums that are kept together.
        if BITS == 8 && tokens == 1 && self.0.cols < 4 * PERIOD {
            isa.for_one_of_bytes()
        } else {
            isa
        }
    }

    fn few(&self, isa: Isa, tokens: usize) -> Option<Few> {
        #[cfg(target_arch = "x86_64")]
        if isa.dot() == Dot::Avx512Vnni {
            if isa.registers() == Registers::Amx && BITS == 8 && tiles::takes(&self.0, tokens) {
                return Some(Few::InTurn);
            }
            return (tokens <= few::few(BITS)).then_some(Few::Alone);
        }
        #[cfg(target_arch = "x86_64")]
        if isa.dot() == Dot::Avx2 {
            return (tokens <= avx2::few(BITS)).then_some(Few::Alone);
        }
        (tokens == 1).then_some(Few::Alone)
    }

    fn direct(&self, isa: Isa, range: Range<usize>, x: &[Tile], mut out: impl FnMut(usize, usize, &[f32])) {
        match isa.dot() {
            Dot::Scalar => scalar::matmul(&self.0, range, x, |row, t, y| out(row, t, &[y])),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: these levels exist only after their features were detected.
            Dot::Avx2 | Dot::AvxVnni => unsafe { avx2::matmul::<BITS>(&self.0, range, x, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above; tokens are in turn, several in one tile, where `few` found matrix registers.
            Dot::Avx512Vnni => unsafe {
                match x {
                    [x] if x.len > 1 => tiles::matmul(&self.0, range, x, out),
                    _ => few::matmul::<BITS>(&self.0, range, x, out),
                }
            },
        }
    }

    fn pack(&self, isa: Isa, from: usize, less: i8, panel: &mut Panel) {
        let w = &self.0;
        // Past the last row the last again.
        let row = |r: usize| (from + r).min(w.rows - 1);
        match isa.dot() {
            Dot::Scalar => unreachable!("the specification has no panels"),
            #[cfg(target_arch = "x86_64")]
            Dot::Avx2 | Dot::AvxVnni => {
                for h in 0..panel.octets() {
                    let rows = std::array::from_fn(|r| w.row(row(h * OCTET + r)));
                    // SAFETY: these levels exist only after their features were detected.
                    unsafe { avx2::pack::<BITS>(rows, less, h, panel) };
                }
            }
            #[cfg(target_arch = "x86_64")]
            Dot::Avx512Vnni => {
                for s in 0..panel.octets() / 2 {
                    let rows = std::array::from_fn(|r| w.row(row(s * SIXTEEN + r)));
                    // SAFETY: as above.
                    unsafe {
                        vnni::pack::<BITS>(rows, w.rows_from(from + (s + 1) * SIXTEEN), less, s, panel)
                    };
                }
            }
        }
        for h in 0..panel.octets() {
            for (i, first) in (0..w.cols).step_by(w.period()).enumerate() {
                let rows: [_; OCTET] = std::array::from_fn(|r| row(h * OCTET + r));
                let (scales, mins) = w.scales(rows, first / w.group);
                panel.set_scales(h, i, scales, mins);
            }
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
    for (g, out) in out.chunks_exact_mut(w.group).enumerate() {
        let (scale, min) = w.scale(row, g);
        for (i, out) in out.iter_mut().enumerate() {
            *out = scale * (w.quant(row, g * w.group + i) - w.offset()) as f32 + min;
        }
    }
}
