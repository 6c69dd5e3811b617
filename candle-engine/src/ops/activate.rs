//! Activations without a gate.

use candle_core::Tensor;

use super::{tensor, with_slice, Act, Exec};
use crate::kernels::act;
use crate::Result;

/// act(x), element by element.
///
/// Errors: candle's.
pub fn activate(exec: &Exec, act: Act, x: &Tensor) -> Result<Tensor> {
    if !exec.is_fused() {
        return Ok(match act {
            Act::Silu => x.silu()?,
            Act::Gelu => x.gelu_erf()?,
            Act::GeluTanh => x.gelu()?,
            Act::Relu => x.relu()?,
        });
    }
    let mut y = with_slice(x, <[f32]>::to_vec)?;
    act::activate(act, &mut y);
    tensor(y, x.shape())
}
