//! From the tensors of a matrix to the matrix.

use std::borrow::Cow;

use candle_engine::kernels::grouped::Bits;
use candle_engine::ops::GroupedMatrix;
use candle_engine::weights::{Format, MappedBytes, Stored, Weights};
use candle_engine::{Error, Result};

use super::suffix;

/// Integers of 4 bits in a word of 32.
const PER_WORD: usize = 8;
/// What is stored in 4 bits is the integer and this; so with 8 bits and 128 where they are packed.
const OFFSET: u8 = 8;

/// The tensors of a matrix that is stored as small integers.
#[derive(Debug, Clone)]
pub struct Parts {
    quants: Stored,
    packed: bool,
    scales: Stored,
    zeros: Option<Stored>,
    shape: (usize, usize),
}

/// The matrix `name`, if it is stored as small integers.
///
/// Errors: `MissingTensor` and `Tensor` naming the tensor; `ShapeMismatch`.
pub fn matrix(weights: &dyn Weights, name: &str) -> Result<Option<Parts>> {
    let get = |suffix: &str| weights.get(&format!("{name}{suffix}"));
    let packed = weights.contains(&format!("{name}{}", suffix::PACKED));
    let quants = if packed { get(suffix::PACKED)? } else { get(suffix::WEIGHT)? };
    if !packed && quants.format != Format::I8 {
        return Ok(None);
    }
    let order = format!("{name}{}", suffix::ORDER);
    if weights.contains(&order) {
        let what = "inputs in another order (`actorder`: `group`) are not supported".into();
        return Err(Error::Tensor { name: order, what });
    }
    let shape = if packed { shape_of(&get(suffix::SHAPE)?)? } else { dims(&quants)? };
    let zeros = format!("{name}{}", suffix::ZERO_POINT);
    let zeros = weights.contains(&zeros).then(|| weights.get(&zeros)).transpose()?;
    Ok(Some(Parts { quants, packed, scales: get(suffix::SCALE)?, zeros, shape }))
}

impl Parts {
    /// `(out, in)`
    pub fn shape(&self) -> (usize, usize) {
        self.shape
    }

    /// Puts them together. What the kernels cannot use in place is copied: packed integers of 8 bits, zero points,
    /// and a scale that all rows share.
    ///
    /// Errors: `Tensor` and `ShapeMismatch` naming the tensor.
    pub fn join(self) -> Result<GroupedMatrix> {
        let (out, inner) = self.shape;
        let err = |stored: &Stored, what: String| Error::Tensor { name: stored.name.clone(), what };
        let (bits, quants) = self.integers()?;
        let scales = per_row(&self.scales, out)?;
        let zeros = match &self.zeros {
            None => None,
            // Early versions store the zeros of symmetric ones too.
            Some(zeros) if bits == Bits::Int8 && zeros.bytes.iter().all(|&byte| byte == 0) => None,
            Some(zeros) if bits == Bits::Int8 => {
                return Err(err(zeros, "zero points of 8-bit integers are not supported".into()));
            }
            Some(zeros) => Some(unpack_rows(zeros, out, scales.shape.last().copied().unwrap_or(1))?),
        };
        GroupedMatrix::new(bits, &quants, &scales, zeros, (out, inner))
    }

    /// Bits and group, without putting anything together.
    ///
    /// Errors: `Tensor` if the packed integers are neither of 4 nor of 8 bits.
    pub fn format(&self) -> Result<Format> {
        let group = match self.scales.shape[..] {
            [_, groups] if groups > 1 => Some((self.shape.1 / groups) as u32),
            _ => None,
        };
        Ok(match self.bits()? {
            Bits::Int8 => Format::Int8 { group },
            Bits::Int4 => Format::Int4 { group },
        })
    }

    fn bits(&self) -> Result<Bits> {
        let ((out, inner), stored) = (self.shape, &self.quants);
        let (words4, words8) = (inner.div_ceil(PER_WORD), inner.div_ceil(PER_WORD / 2));
        match stored.shape[..] {
            _ if !self.packed => Ok(Bits::Int8),
            [rows, words] if stored.format == Format::I32 && (rows, words) == (out, words4) => Ok(Bits::Int4),
            [rows, words] if stored.format == Format::I32 && (rows, words) == (out, words8) => Ok(Bits::Int8),
            _ => {
                let what = format!(
                    "expected I32 [{out}, {words4}] for 4 bits or [{out}, {words8}] for 8, got {} {:?}",
                    stored.format, stored.shape
                );
                Err(Error::Tensor { name: stored.name.clone(), what })
            }
        }
    }

    /// The integers as the kernels read them.
    fn integers(&self) -> Result<(Bits, Cow<'_, Stored>)> {
        let ((out, inner), stored) = (self.shape, &self.quants);
        let bits = self.bits()?;
        if bits == Bits::Int4 && !inner.is_multiple_of(PER_WORD) {
            let what = format!("rows of {inner} integers of 4 bits end within a word");
            return Err(Error::Tensor { name: stored.name.clone(), what });
        }
        if bits == Bits::Int4 || !self.packed {
            return Ok((bits, Cow::Borrowed(stored)));
        }
        let mut bytes = Vec::with_capacity(out * inner);
        for row in stored.bytes.chunks_exact(4 * inner.div_ceil(PER_WORD / 2)) {
            bytes.extend(row[..inner].iter().map(|byte| byte ^ 0x80));
        }
        Ok((bits, Cow::Owned(Stored { bytes: MappedBytes::from(bytes), ..stored.clone() })))
    }
}

fn dims(stored: &Stored) -> Result<(usize, usize)> {
    match stored.shape[..] {
        [out, inner] if out > 0 && inner > 0 => Ok((out, inner)),
        _ => {
            let what = format!("expected a matrix, got shape {:?}", stored.shape);
            Err(Error::Tensor { name: stored.name.clone(), what })
        }
    }
}

/// What a `weight_shape` says.
fn shape_of(stored: &Stored) -> Result<(usize, usize)> {
    let wrong = |what: String| Error::Tensor { name: stored.name.clone(), what };
    if stored.format != Format::I64 || stored.shape != [2] {
        return Err(wrong(format!("expected I64 [2], got {} {:?}", stored.format, stored.shape)));
    }
    let size = |i: usize| {
        let number = i64::from_le_bytes(stored.bytes.as_chunks().0[i]);
        u32::try_from(number).ok().filter(|&n| n > 0).map(|n| n as usize).ok_or(number)
    };
    match (size(0), size(1)) {
        (Ok(out), Ok(inner)) => Ok((out, inner)),
        (Err(n), _) | (_, Err(n)) => Err(wrong(format!("expected two sizes, got {n}"))),
    }
}

/// Scales `[out, groups]`: a vector is one for each row, a single one is every row's.
fn per_row(scales: &Stored, out: usize) -> Result<Cow<'_, Stored>> {
    let shaped = |shape: Vec<usize>, bytes| Stored { shape, bytes, ..scales.clone() };
    Ok(match scales.shape[..] {
        [] | [1] | [1, 1] if out != 1 => {
            let bytes = MappedBytes::from(scales.bytes.repeat(out));
            Cow::Owned(shaped(vec![out, 1], bytes))
        }
        [] => Cow::Owned(shaped(vec![1, 1], scales.bytes.clone())),
        [rows] if rows == out => Cow::Owned(shaped(vec![out, 1], scales.bytes.clone())),
        _ => Cow::Borrowed(scales),
    })
}

/// Zero points that are packed along the rows, one to a byte.
fn unpack_rows(stored: &Stored, out: usize, groups: usize) -> Result<Vec<u8>> {
    let wrong = |expected: String| {
        let what = format!("expected {expected}, got {} {:?}", stored.format, stored.shape);
        Error::Tensor { name: stored.name.clone(), what }
    };
    let words = out.div_ceil(PER_WORD);
    match stored.format {
        Format::I8 if stored.shape == [out, groups] => {
            Ok(stored.bytes.iter().map(|byte| byte.wrapping_add(OFFSET) & 15).collect())
        }
        Format::I32 if stored.shape == [words, groups] => {
            let bytes = &stored.bytes;
            let at = |row: usize, group: usize| {
                let byte = bytes[4 * (row / PER_WORD * groups + group) + row % PER_WORD / 2];
                byte >> (4 * (row % 2)) & 15
            };
            Ok((0..out).flat_map(|row| (0..groups).map(move |group| at(row, group))).collect())
        }
        _ => Err(wrong(format!("I32 [{words}, {groups}]"))),
    }
}

/// Packs zero points `[out, groups]` along the rows: the bytes of an I32 `[out / 8, groups]`.
pub(crate) fn pack_rows(zeros: &[u8], groups: usize) -> Vec<u8> {
    let rows = zeros.len() / groups.max(1);
    let mut packed = vec![0; 4 * rows.div_ceil(PER_WORD) * groups];
    for (i, zero) in zeros.iter().enumerate() {
        let (row, group) = (i / groups, i % groups);
        packed[4 * (row / PER_WORD * groups + group) + row % PER_WORD / 2] |= zero << (4 * (row % 2));
    }
    packed
}
