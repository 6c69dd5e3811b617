//! Norms over the last dimension.

use candle_core::Tensor;

use super::{tensor, with_slice, Exec};
use crate::kernels::{norm, unwritten};
use crate::Result;

/// Divides each row by its root mean square and scales it.
///
/// y = x / sqrt(mean(x²) + eps) · w
///
/// Shapes: `x [.., n]`, `w [n]` → `[.., n]`. Accumulates in f32.
/// Errors: candle's, if the shapes disagree.
pub fn rms_norm(exec: &Exec, x: &Tensor, w: &Tensor, eps: f32) -> Result<Tensor> {
    if !exec.is_fused() {
        return Ok(candle_nn::ops::rms_norm(&x.contiguous()?, &w.to_dtype(x.dtype())?, eps)?);
    }
    let mut y = unwritten(x.elem_count());
    with_slice(x, |x| with_slice(w, |w| norm::rms_norm(x, w, eps, &mut y)))??;
    tensor(y, x.shape())
}

/// Adds a residual and norms the sum, in one pass over memory.
///
/// s = x + r, y = [`rms_norm`]`(s)`
///
/// Shapes: `x`, `r [.., n]`, `w [n]` → `(s, y)`, both `[.., n]`. The same bits as the two steps apart.
/// Errors: candle's, if the shapes disagree.
pub fn add_rms_norm(exec: &Exec, x: &Tensor, r: &Tensor, w: &Tensor, eps: f32) -> Result<(Tensor, Tensor)> {
    if !exec.is_fused() {
        let sum = (x + r)?;
        let y = rms_norm(exec, &sum, w, eps)?;
        return Ok((sum, y));
    }
    if x.shape() != r.shape() {
        let (lhs, rhs) = (x.shape().clone(), r.shape().clone());
        return Err(candle_core::Error::ShapeMismatchBinaryOp { lhs, rhs, op: "add_rms_norm" }.into());
    }
    let (mut sum, mut y) = (unwritten(x.elem_count()), unwritten(x.elem_count()));
    with_slice(x, |x| {
        with_slice(r, |r| with_slice(w, |w| norm::add_rms_norm(x, r, w, eps, &mut sum, &mut y)))
    })???;
    Ok((tensor(sum, x.shape())?, tensor(y, x.shape())?))
}

/// Shifts each row to mean 0, scales it to variance 1, then applies weight and bias.
///
/// y = (x − mean(x)) / sqrt(var(x) + eps) · w + b
///
/// Shapes: `x [.., n]`, `w`, `b [n]` → `[.., n]`. Accumulates in f32.
/// Errors: candle's, if the shapes disagree.
pub fn layer_norm(exec: &Exec, x: &Tensor, w: &Tensor, b: &Tensor, eps: f32) -> Result<Tensor> {
    if !exec.is_fused() {
        let (w, b) = (w.to_dtype(x.dtype())?, b.to_dtype(x.dtype())?);
        return Ok(candle_nn::ops::layer_norm(&x.contiguous()?, &w, &b, eps)?);
    }
    let mut y = unwritten(x.elem_count());
    with_slice(x, |x| with_slice(w, |w| with_slice(b, |b| norm::layer_norm(x, w, Some(b), eps, &mut y))))???;
    tensor(y, x.shape())
}

/// Adds a residual and norms the sum, in one pass over memory.
///
/// s = x + r, y = [`layer_norm`]`(s)`
///
/// Shapes: `x`, `r [.., n]`, `w`, `b [n]` → `(s, y)`, both `[.., n]`. The same bits as the two steps apart.
/// Errors: candle's, if the shapes disagree.
pub fn add_layer_norm(
    exec: &Exec,
    x: &Tensor,
    r: &Tensor,
    [w, b]: [&Tensor; 2],
    eps: f32,
) -> Result<(Tensor, Tensor)> {
    if !exec.is_fused() {
        let sum = (x + r)?;
        let y = layer_norm(exec, &sum, w, b, eps)?;
        return Ok((sum, y));
    }
    if x.shape() != r.shape() {
        let (lhs, rhs) = (x.shape().clone(), r.shape().clone());
        return Err(candle_core::Error::ShapeMismatchBinaryOp { lhs, rhs, op: "add_layer_norm" }.into());
    }
    let (mut sum, mut y) = (unwritten(x.elem_count()), unwritten(x.elem_count()));
    with_slice(x, |x| {
        with_slice(r, |r| {
            with_slice(w, |w| with_slice(b, |b| norm::add_layer_norm(x, r, [w, b], eps, &mut sum, &mut y)))
        })
    })????;
    Ok((tensor(sum, x.shape())?, tensor(y, x.shape())?))
}
