//! What makes a convolution a product.

use std::ops::Range;

use candle_core::Tensor;

use super::{tensor, with_slice, Exec};
use crate::kernels::{unfold, unwritten};
use crate::{Error, Result};

/// Neighbours of a convolution, in all: the row itself, one before, one after.
pub const CONVOLUTION_WIDTH: usize = unfold::KERNEL;

/// Lays each row's neighbours side by side: a convolution of width 3, padded by one row of zeros at either end, is
/// then a product with its weights `[out, c · 3]` as they are stored.
///
/// y[i, c · 3 + k] = x[i · stride + k − 1, c], for i in `part`
///
/// Shapes: `x [n · t, c]`, `n` sequences of `t` rows, a multiple of `stride` → `[part, c · 3]`, of n · t / stride.
/// Errors: `Input`, if the rows are no whole sequences, the stride does not divide them, or there is no such part.
pub fn unfold(exec: &Exec, x: &Tensor, t: usize, stride: usize, part: Range<usize>) -> Result<Tensor> {
    let (rows, c) = x.dims2()?;
    if t == 0 || stride == 0 || !rows.is_multiple_of(t) || !t.is_multiple_of(stride) {
        return Err(Error::Input(format!("unfold: {rows} rows in sequences of {t}, stride {stride}")));
    }
    if part.is_empty() || part.end > rows / stride {
        return Err(Error::Input(format!("unfold: rows {part:?} of {}", rows / stride)));
    }
    let shape = (part.len(), c * CONVOLUTION_WIDTH);
    if exec.is_fused() {
        let mut y = unwritten(shape.0 * shape.1);
        with_slice(x, |x| unfold::unfold(x, c, t, stride, part, &mut y))?;
        return tensor(y, shape);
    }
    let padded = x.reshape((rows / t, t, c))?.pad_with_zeros(1, 1, 1)?;
    let taps = (0..CONVOLUTION_WIDTH).map(|k| -> Result<Tensor> {
        let places: Vec<u32> = (k..k + t).step_by(stride).map(|i| i as u32).collect();
        let places = Tensor::from_vec(places, t / stride, x.device())?;
        Ok(padded.index_select(&places, 1)?)
    });
    let all = Tensor::stack(&taps.collect::<Result<Vec<_>>>()?, 3)?;
    Ok(all.reshape((rows / stride, shape.1))?.narrow(0, part.start, part.len())?)
}
