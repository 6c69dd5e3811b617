//! Rotary position embedding.

use candle_core::{Device, Tensor};

use super::{tensor, with_slice, Exec};
use crate::kernels::rope::{self, RopeStyle};
use crate::{Error, Result};

/// Cosines and sines for the rows of one batch: made once per forward pass, used by every layer.
#[derive(Debug, Clone)]
pub struct RopeTable {
    cos: Vec<f32>,
    sin: Vec<f32>,
    rows: usize,
    style: RopeStyle,
}

impl RopeTable {
    /// The table of `positions [t]` for `frequencies [d / 2]` (radians per position); cosine and sine are
    /// multiplied by `factor`. The angle is rounded to f32 first, as the reference does.
    pub fn new(frequencies: &[f32], factor: f32, positions: &[usize], style: RopeStyle) -> Self {
        let angles = || positions.iter().flat_map(|&p| frequencies.iter().map(move |f| p as f32 * f));
        Self {
            cos: angles().map(|a| a.cos() * factor).collect(),
            sin: angles().map(|a| a.sin() * factor).collect(),
            rows: positions.len(),
            style,
        }
    }
}

/// Rotates each head by the angles of its row's position.
///
/// Shapes: `x [t, heads · d]` → the same.
/// Errors: `Input`, if the table has another number of rows.
pub fn rope(exec: &Exec, x: &Tensor, head_dim: usize, table: &RopeTable) -> Result<Tensor> {
    let (t, n) = x.dims2()?;
    if t != table.rows {
        return Err(Error::Input(format!("rope: {t} rows, a table of {}", table.rows)));
    }
    let heads = n / head_dim;
    if !exec.is_fused() {
        return composed(x, t, heads, head_dim, table);
    }
    let mut y = with_slice(x, <[f32]>::to_vec)?;
    let rot_dim = 2 * (table.cos.len() / t);
    let rows: Vec<usize> = (0..t).collect();
    let kernel = rope::RopeTable { style: table.style, rot_dim, cos: &table.cos, sin: &table.sin };
    rope::rotate(&mut y, heads, head_dim, &kernel, &rows);
    tensor(y, (t, n))
}

fn composed(x: &Tensor, t: usize, heads: usize, d: usize, table: &RopeTable) -> Result<Tensor> {
    let half = table.cos.len() / table.rows;
    let rows = |numbers: &[f32]| -> Result<Tensor> {
        let rows = Tensor::from_slice(numbers, (t, half), &Device::Cpu)?;
        Ok(rows.to_device(x.device())?.to_dtype(x.dtype())?)
    };
    let (cos, sin) = (rows(&table.cos)?, rows(&table.sin)?);
    let x = x.reshape((1, t, heads, d))?.transpose(1, 2)?.contiguous()?;
    let y = match table.style {
        RopeStyle::Half => candle_nn::rotary_emb::rope(&x, &cos, &sin)?,
        RopeStyle::Interleaved => candle_nn::rotary_emb::rope_i(&x, &cos, &sin)?,
    };
    Ok(y.transpose(1, 2)?.reshape((t, heads * d))?)
}
