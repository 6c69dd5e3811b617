//! The layout of compressed-tensors: a matrix `x.weight` of small integers lies in several tensors, and
//! `quantization_config` in `config.json` says how.
//!
//! | tensor | `int-quantized`, `naive-quantized` | `pack-quantized` |
//! |---|---|---|
//! | the integers | `x.weight [out, in]` I8 | `x.weight_packed [out, in / 8]` I32, the first in the lowest bits |
//! | `x.weight_shape` | | `[2]` I64: out, in |
//! | `x.weight_scale` | `[out, groups]`, or `[1]` for all | the same |
//! | `x.weight_zero_point` | | `[out / 8, groups]` I32, packed along the rows |
//!
//! Source: compressed-tensors 0.20, `compressors/pack_quantized` and `compressors/naive_quantized`.

mod activations;
mod config;
mod layout;
#[cfg(test)]
mod tests;

pub use self::activations::Activations;
pub use self::config::{check, describe, Converted};
pub(crate) use self::layout::pack_rows;
pub use self::layout::{matrix, Parts};

/// Endings of the names of a matrix's tensors.
pub mod suffix {
    /// Integers of 8 bits, or floats.
    pub const WEIGHT: &str = ".weight";
    /// Integers that are packed.
    pub const PACKED: &str = ".weight_packed";
    /// Shape of what is packed.
    pub const SHAPE: &str = ".weight_shape";
    /// Scales.
    pub const SCALE: &str = ".weight_scale";
    /// Zero points.
    pub const ZERO_POINT: &str = ".weight_zero_point";
    /// The order of the inputs, where it is not their own.
    pub const ORDER: &str = ".weight_g_idx";
}
