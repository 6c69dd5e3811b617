//! Products with matrices of small integers that lie in mapped files.

use std::sync::Arc;

use candle_core::Tensor;

use super::linear::{check_ids, product, with_bias};
use super::{tensor, Act};
use crate::kernels::grouped::{self, Bits, Grouped};
use crate::kernels::matmul::DenseFormat;
use crate::kernels::{act, Isa};
use crate::weights::{Format, MappedBytes, Stored};
use crate::{Error, Result};

/// A mapped matrix of small integers, `[out, in]`, with its scales and zero points.
#[derive(Debug, Clone)]
pub struct GroupedMatrix {
    bits: Bits,
    quants: MappedBytes,
    scales: MappedBytes,
    scale_format: DenseFormat,
    zeros: Option<Arc<[u8]>>,
    shape: (usize, usize),
    group: usize,
    precise: bool,
}

impl GroupedMatrix {
    /// Puts a matrix together: `quants` of `shape` as [`Bits`] says, `scales [out, groups]` in a float format, and
    /// for 4 bits `zeros [out, groups]`, 0 to 15, a byte each.
    ///
    /// Errors: `Tensor` naming `quants` or the scales, if sizes contradict one another or no kernel reads them.
    pub fn new(
        bits: Bits,
        quants: &Stored,
        scales: &Stored,
        zeros: Option<Vec<u8>>,
        (out, inner): (usize, usize),
    ) -> Result<Self> {
        let err = |stored: &Stored, what: String| Error::Tensor { name: stored.name.clone(), what };
        let scale_format = match scales.format {
            Format::F32 => DenseFormat::F32,
            Format::F16 => DenseFormat::F16,
            Format::BF16 => DenseFormat::BF16,
            other => return Err(err(scales, format!("expected F32, F16 or BF16, got {other}"))),
        };
        let groups = match scales.shape[..] {
            [rows, groups] if rows == out && groups > 0 && inner % groups == 0 => groups,
            _ => {
                let what = format!("expected [{out}, groups of {inner} inputs], got {:?}", scales.shape);
                return Err(err(scales, what));
            }
        };
        let group = inner / groups;
        if groups > 1 && !group.is_multiple_of(32) {
            return Err(err(scales, format!("groups of {group} inputs are no multiple of 32")));
        }
        if bits == Bits::Int4 && !inner.is_multiple_of(2) {
            return Err(err(quants, format!("rows of {inner} integers of 4 bits end within a byte")));
        }
        let needed = out.checked_mul(bits.bytes(inner));
        if needed != Some(quants.bytes.len()) {
            let what = format!("{} bytes do not hold {out} rows of {inner}", quants.bytes.len());
            return Err(err(quants, what));
        }
        if zeros.as_ref().is_some_and(|zeros| bits != Bits::Int4 || zeros.len() != out * groups) {
            return Err(err(quants, "its zero points do not fit its groups".into()));
        }
        let (quants, scales) = (quants.bytes.clone(), scales.bytes.clone());
        Ok(Self {
            bits,
            quants,
            scales,
            scale_format,
            zeros: zeros.map(Arc::from),
            shape: (out, inner),
            group,
            precise: false,
        })
    }

    /// The same, for activations of 16 bits or of 8.
    pub fn precise(self, precise: bool) -> Self {
        Self { precise, ..self }
    }

    /// `(out, in)`
    pub fn shape(&self) -> (usize, usize) {
        self.shape
    }

    /// Bits of an integer, and how they lie.
    pub fn bits(&self) -> Bits {
        self.bits
    }

    /// Bits and group.
    pub fn format(&self) -> Format {
        let group = (self.group != self.shape.1).then_some(self.group as u32);
        match self.bits {
            Bits::Int8 => Format::Int8 { group },
            Bits::Int4 => Format::Int4 { group },
        }
    }

    /// Whether the other has the same bits, groups and shape, zero points if this has, and as precise activations.
    pub fn is_like(&self, other: &Self) -> bool {
        let kind = |w: &Self| (w.shape, w.format(), w.zeros.is_some(), w.precise);
        kind(self) == kind(other)
    }

    /// All its bytes: integers, scales, zero points as stored in memory.
    pub fn bytes(&self) -> usize {
        self.quants.len() + self.scales.len() + self.zeros.as_ref().map_or(0, |zeros| zeros.len())
    }

    /// The numbers of row `row`, `[in]`.
    pub fn dequantize(&self, row: usize, out: &mut [f32]) {
        grouped::dequantize(&self.view(), row, out);
    }

    /// Tells the system that its pages are not needed for now.
    pub fn release(&self) {
        self.quants.release();
        self.scales.release();
    }

    fn view(&self) -> Grouped<'_> {
        let (rows, cols) = self.shape;
        let zeros = self.zeros.as_deref();
        Grouped::new(self.bits, &self.quants, &self.scales, self.scale_format, zeros, rows, cols, self.group)
            .precise(self.precise)
    }
}

/// Rows of a table of small integers by index.
///
/// Shapes: `table [n, k]`, `ids [t]` → `[t, k]`.
/// Errors: `Input` for an index that the table has not.
pub fn embed_grouped(table: &GroupedMatrix, ids: &[u32]) -> Result<Tensor> {
    let (rows, width) = table.shape;
    check_ids(ids, rows)?;
    let mut y = vec![0.0; ids.len() * width];
    for (&id, y) in ids.iter().zip(y.chunks_exact_mut(width)) {
        table.dequantize(id as usize, y);
    }
    tensor(y, (ids.len(), width))
}

/// Multiplies by a mapped matrix of small integers.
///
/// y = x · Wᵀ + b
///
/// Shapes: `x [.., k]`, `w [n, k]`, `bias [n]` → `[.., n]`. Quantizes `x` per token and group, to 8 bits, or 16 if the matrix is precise.
/// Errors: candle's, if the shapes disagree.
pub fn linear_grouped(x: &Tensor, w: &GroupedMatrix, bias: Option<&Tensor>) -> Result<Tensor> {
    product(x, w.shape, |x, y| {
        grouped::matmul(Isa::best(), &w.view(), x, y);
        with_bias(bias, |bias| {
            if let Some(bias) = bias {
                y.chunks_exact_mut(w.shape.0).for_each(|row| act::add(row, bias));
            }
        })
    })
}

/// The two upper matrices of a gated feed-forward layer, of the same bits, groups and shape.
///
/// y = act(x · Gᵀ) · (x · Uᵀ)
///
/// Shapes: `x [.., k]`, both matrices `[n, k]` → `[.., n]`. Quantizes `x` per token and group, to 8 bits, or 16 if the matrix is precise.
/// Errors: `Input` if the matrices differ; candle's, if the shapes disagree.
pub fn linear_grouped_gated(x: &Tensor, act: Act, [g, u]: [&GroupedMatrix; 2]) -> Result<Tensor> {
    if !g.is_like(u) {
        return Err(Error::Input(format!(
            "gate of {} {:?}, up of {} {:?}",
            g.format(),
            g.shape,
            u.format(),
            u.shape
        )));
    }
    product(x, g.shape, |x, y| {
        grouped::matmul_gated(Isa::best(), &g.view(), &u.view(), act, x, y);
        Ok(())
    })
}
