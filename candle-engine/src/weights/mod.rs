//! Weights: mapped files whose matrices are used in place, never copied on the CPU.
//!
//! [`Weights`] is what a checkpoint offers, whatever its container; [`Linear`] is what a matrix becomes.

/// [`Weights`] for a checkpoint that keeps its tensors in a map `tensors` by name.
macro_rules! weights_in_map {
    ($checkpoint:ty) => {
        impl $crate::weights::Weights for $checkpoint {
            fn get(&self, name: &str) -> $crate::Result<$crate::weights::Stored> {
                let missing = || $crate::Error::MissingTensor { name: name.into() };
                self.tensors.get(name).cloned().ok_or_else(missing)
            }

            fn contains(&self, name: &str) -> bool {
                self.tensors.contains_key(name)
            }

            fn names(&self) -> Vec<String> {
                self.tensors.keys().cloned().collect()
            }
        }
    };
}

pub mod ggml;
mod ggml_vad;
pub mod gguf;
mod mapped;
mod safetensors;

use candle_core::Tensor;

use crate::{Error, Result};

pub use self::ggml::Ggml;
pub use self::ggml_vad::GgmlVad;
pub use self::gguf::Gguf;
pub use self::mapped::MappedBytes;
pub use self::safetensors::SafeTensors;

/// How the numbers of a stored tensor are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // the names are the formats' own
#[allow(non_camel_case_types)]
pub enum Format {
    F32,
    F16,
    BF16,
    F64,
    F8E4M3,
    F8E5M2,
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    Bool,
    /// Integers of 8 bits with a scale for every `group` inputs; `None` is one for the whole row.
    Int8 {
        group: Option<u32>,
    },
    /// Integers of 4 bits with a scale for every `group` inputs; `None` is one for the whole row.
    Int4 {
        group: Option<u32>,
    },
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
}

impl Format {
    /// Numbers in one block, and bytes of one block; `(1, size)` for plain types. Grouped integers without their
    /// scales, which are tensors of their own.
    pub const fn block(self) -> (usize, usize) {
        match self {
            Self::F8E4M3 | Self::F8E5M2 | Self::I8 | Self::U8 | Self::Bool | Self::Int8 { .. } => (1, 1),
            Self::Int4 { .. } => (2, 1),
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => (1, 2),
            Self::F32 | Self::I32 | Self::U32 => (1, 4),
            Self::F64 | Self::I64 | Self::U64 => (1, 8),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q2_K => (256, 84),
            Self::Q3_K => (256, 110),
            Self::Q4_K => (256, 144),
            Self::Q5_K => (256, 176),
            Self::Q6_K => (256, 210),
        }
    }

    /// Bytes of a tensor of this format, or `None` where the last dimension is no multiple of the block
    /// or the product overflows.
    pub fn bytes(self, shape: &[usize]) -> Option<usize> {
        let (numbers, bytes) = self.block();
        if shape.last().copied().unwrap_or(1) % numbers != 0 {
            return None;
        }
        let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        (count / numbers).checked_mul(bytes)
    }

    /// Whether the numbers are plain floats that the dense kernels read.
    pub const fn is_dense(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int8 { group: None } => f.write_str("Int8"),
            Self::Int8 { group: Some(group) } => write!(f, "Int8-g{group}"),
            Self::Int4 { group: None } => f.write_str("Int4"),
            Self::Int4 { group: Some(group) } => write!(f, "Int4-g{group}"),
            other => std::fmt::Debug::fmt(other, f),
        }
    }
}

/// A tensor as it lies in its file: row-major bytes that nobody copied.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Name in the checkpoint.
    pub name: String,
    /// The bytes, as many as `format` and `shape` say.
    pub bytes: MappedBytes,
    /// Dimensions, slowest first: a matrix is `[out, in]`.
    pub shape: Vec<usize>,
    /// How the numbers are laid out.
    pub format: Format,
}

impl Stored {
    /// Checks the shape.
    ///
    /// Errors: `ShapeMismatch` with the tensor's name.
    pub fn expect(self, shape: &[usize]) -> Result<Self> {
        if self.shape == shape {
            return Ok(self);
        }
        Err(Error::ShapeMismatch { name: self.name, expected: shape.to_vec(), got: self.shape })
    }

    /// Rows `from..from + rows` of a matrix, still in place: how a fused projection is split.
    ///
    /// Errors: `Tensor` if this is no matrix or has fewer rows.
    pub fn rows(&self, from: usize, rows: usize) -> Result<Self> {
        let err = |what: String| Error::Tensor { name: self.name.clone(), what };
        let [out, inner] = self.shape[..] else {
            return Err(err(format!("expected a matrix, got shape {:?}", self.shape)));
        };
        if from.checked_add(rows).is_none_or(|end| end > out) {
            return Err(err(format!("expected at least {} rows, got {out}", from.saturating_add(rows))));
        }
        let row = self.format.bytes(&[inner]).ok_or_else(|| err("rows end inside a block".into()))?;
        let bytes = self.bytes.slice(from * row..(from + rows) * row);
        Ok(Self { name: self.name.clone(), bytes, shape: vec![rows, inner], format: self.format })
    }
}

/// A checkpoint: named tensors in mapped files.
pub trait Weights: Send + Sync {
    /// The tensor of that name.
    ///
    /// Errors: `MissingTensor`.
    fn get(&self, name: &str) -> Result<Stored>;

    /// Whether there is a tensor of that name.
    fn contains(&self, name: &str) -> bool;

    /// All names, sorted.
    fn names(&self) -> Vec<String>;
}

/// A matrix that multiplies activations, in whatever format it is stored.
pub trait Linear: Send + Sync + std::fmt::Debug {
    /// `[.., in] → [.., out]`, dtype preserved.
    fn forward(&self, x: &Tensor) -> Result<Tensor>;

    /// `(out, in)`
    fn shape(&self) -> (usize, usize);

    /// For reports only; never branch on it.
    fn format(&self) -> Format;
}
