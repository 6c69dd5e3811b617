//! Norms over the last dimension.

use candle_core::Tensor;

use super::{tensor, with_slice, Exec};
use crate::kernels::norm;
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
    let mut y = vec![0.0; x.elem_count()];
    with_slice(x, |x| with_slice(w, |w| norm::rms_norm(x, w, eps, &mut y)))??;
    tensor(y, x.shape())
}
