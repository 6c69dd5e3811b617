//! Converting a matrix, many rows at once.

use std::sync::Arc;

use candle_engine::kernels::matmul::DenseFormat;
use candle_engine::kernels::threads::parallel_chunks;
use candle_engine::weights::Format;
use candle_engine::{Error, Result};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::rows::Rows;
use crate::{gguf_encode, int4, int8, Target};

/// Numbers that one task converts.
const TASK: usize = 1 << 17;
/// Tasks between two calls of the sink: what bounds the memory.
const TASKS: usize = 32;
/// Sums side by side: what lets the compiler use vectors.
pub(crate) const LANES: usize = 16;

/// How far a converted matrix is from what it was.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Deviation {
    /// Σ (w − ŵ)²
    pub error: f64,
    /// Σ w²
    pub energy: f64,
}

impl Deviation {
    /// √(Σ (w − ŵ)² / Σ w²)
    pub fn relative(&self) -> f64 {
        if self.energy > 0.0 {
            (self.error / self.energy).sqrt()
        } else {
            0.0
        }
    }
}

impl std::ops::AddAssign for Deviation {
    fn add_assign(&mut self, other: Self) {
        self.error += other.error;
        self.energy += other.energy;
    }
}

/// Some converted rows.
#[derive(Debug, Default)]
pub struct Part {
    /// The numbers: floats, blocks, integers of 8 bits, or pairs of 4 bits with the first in the low half.
    pub quants: Vec<u8>,
    /// The scales, in the encoding's format.
    pub scales: Vec<u8>,
    /// The zero points of 4 bits, each in a byte.
    pub zeros: Vec<u8>,
    pub(crate) error: f64,
    energy: f64,
}

/// How a matrix is converted.
#[derive(Debug, Clone)]
pub struct Encoding {
    /// To what.
    pub target: Target,
    /// In what its scales are stored.
    pub scales: Format,
    /// How much the error of each input weighs, `[in]`; all the same if absent.
    pub importance: Option<Arc<[f32]>>,
}

impl Encoding {
    /// The scales exact where there is one to a row, else of 16 bits: those that the source prefers.
    pub fn new(target: Target, source: Format, importance: Option<Arc<[f32]>>) -> Self {
        let scales = match (target, source) {
            (Target::Int8 { group: None }, _) => Format::F32,
            (_, Format::BF16) => Format::BF16,
            _ => Format::F16,
        };
        Self { target, scales, importance }
    }
}

/// Converts a matrix and shows the parts to `sink` in order.
///
/// Errors: `Tensor` if a number is not finite; what the sink returns.
pub fn encode(
    rows: &Rows,
    encoding: &Encoding,
    sink: &mut dyn FnMut(Part) -> Result<()>,
) -> Result<Deviation> {
    let (out, inner) = rows.shape();
    let rows_per_task = (TASK / inner.max(1)).max(1);
    let scales = match encoding.scales {
        Format::F16 => DenseFormat::F16,
        Format::BF16 => DenseFormat::BF16,
        _ => DenseFormat::F32,
    };
    let ones = vec![1.0; inner];
    let importance = encoding.importance.as_deref().unwrap_or(&ones);
    let mut deviation = Deviation::default();
    for from in (0..out).step_by(rows_per_task * TASKS) {
        let to = (from + rows_per_task * TASKS).min(out);
        let mut parts: Vec<Part> = Vec::new();
        parts.resize_with((to - from).div_ceil(rows_per_task), Part::default);
        parallel_chunks(&mut parts, 1, |i, part| {
            let first = from + i * rows_per_task;
            let mut row = vec![0.0; inner];
            for i in first..(first + rows_per_task).min(to) {
                rows.read(i, &mut row);
                part[0].energy += energy(&row);
                encode_row(&row, encoding.target, scales, importance, &mut part[0]);
            }
        });
        rows.release(from, to - from);
        for part in parts {
            deviation += Deviation { error: part.error, energy: part.energy };
            if !(part.energy + part.error).is_finite() {
                let what = "holds NaN, infinity, or numbers beyond the new format".into();
                return Err(Error::Tensor { name: rows.name().into(), what });
            }
            sink(part)?;
        }
    }
    Ok(deviation)
}

fn encode_row(row: &[f32], target: Target, scales: DenseFormat, importance: &[f32], part: &mut Part) {
    match target {
        Target::F32 => part.quants.extend(row.iter().flat_map(|w| w.to_le_bytes())),
        Target::F16 => {
            let mut narrow = vec![f16::ZERO; row.len()];
            narrow.convert_from_f32_slice(row);
            floats(row, &narrow, f16::to_le_bytes, f16::to_f32, part);
        }
        Target::BF16 => {
            let mut narrow = vec![bf16::ZERO; row.len()];
            narrow.convert_from_f32_slice(row);
            floats(row, &narrow, bf16::to_le_bytes, bf16::to_f32, part);
        }
        Target::Int8 { group } => int8::encode(row, group.unwrap_or(row.len()), scales, part),
        Target::Int4 { group, zero_point } => int4::encode(row, importance, group, zero_point, scales, part),
        Target::Q8_0 => gguf_encode::q8_0(row, part),
        Target::Q4_0 => gguf_encode::q4_0(row, importance, part),
    }
}

fn floats<T: Copy>(row: &[f32], narrow: &[T], bytes: fn(T) -> [u8; 2], widen: fn(T) -> f32, part: &mut Part) {
    part.quants.extend(narrow.iter().flat_map(|&x| bytes(x)));
    part.error += row.iter().zip(narrow).map(|(w, &x)| f64::from(w - widen(x)).powi(2)).sum::<f64>();
}

fn energy(row: &[f32]) -> f64 {
    let mut sums = [0f32; LANES];
    let (whole, rest) = row.as_chunks::<LANES>();
    for w in whole {
        for i in 0..LANES {
            sums[i] += w[i] * w[i];
        }
    }
    let rest: f32 = rest.iter().map(|w| w * w).sum();
    f64::from(rest) + sums.iter().map(|&x| f64::from(x)).sum::<f64>()
}

/// The largest magnitude.
pub(crate) fn max_abs(w: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let mut most = [0f32; LANES];
    let (whole, rest) = w.as_chunks::<LANES>();
    for w in whole {
        for i in 0..LANES {
            most[i] = larger(w[i].abs(), most[i]);
        }
    }
    rest.iter().map(|w| w.abs()).chain(most).fold(0.0, larger)
}

/// The nearest whole number within bounds, as a float and as an integer. Bounds are below 2²².
pub(crate) fn round(x: f32, low: f32, high: f32) -> (f32, i32) {
    // From 2²³ on floats are whole: adding 1.5 · 2²³ rounds, and leaves the integer in the low bits.
    const SHIFT: f32 = 12_582_912.0;
    let shifted = x.clamp(low, high) + SHIFT;
    (shifted - SHIFT, shifted.to_bits() as i32 - SHIFT.to_bits() as i32)
}

/// What a scale is once it is stored.
pub(crate) fn stored(scale: f32, format: DenseFormat) -> f32 {
    match format {
        DenseFormat::F32 => scale,
        DenseFormat::F16 => f16::from_f32(scale).to_f32(),
        DenseFormat::BF16 => bf16::from_f32(scale).to_f32(),
    }
}

/// Appends a scale that [`stored`] gave.
pub(crate) fn push_scale(scale: f32, format: DenseFormat, scales: &mut Vec<u8>) {
    match format {
        DenseFormat::F32 => scales.extend(scale.to_le_bytes()),
        DenseFormat::F16 => scales.extend(f16::from_f32(scale).to_le_bytes()),
        DenseFormat::BF16 => scales.extend(bf16::from_f32(scale).to_le_bytes()),
    }
}

/// One over a scale, and 0 for the scale of a group of zeros.
pub(crate) fn inverse(scale: f32) -> f32 {
    if scale > 0.0 {
        1.0 / scale
    } else {
        0.0
    }
}
