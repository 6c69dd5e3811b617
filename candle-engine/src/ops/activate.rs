//! Activations without a gate.

use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor};

use super::{Act, Exec};
use crate::kernels::act;
use crate::Result;

/// act(x), element by element.
///
/// Takes a contiguous `x` that nobody else holds, such as the result of a product: on the CPU its numbers are replaced
/// in place, and whoever shares them would see that.
///
/// Errors: candle's.
pub fn activate(exec: &Exec, act: Act, x: Tensor) -> Result<Tensor> {
    if exec.is_fused() {
        x.inplace_op1(&InPlace(act))?;
        return Ok(x);
    }
    Ok(match act {
        Act::Silu => x.silu()?,
        Act::Gelu => x.gelu_erf()?,
        Act::GeluTanh => x.gelu()?,
        Act::Relu => x.relu()?,
    })
}

struct InPlace(Act);

impl InplaceOp1 for InPlace {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        match (storage, layout.contiguous_offsets()) {
            (CpuStorage::F32(numbers), Some((from, to))) => act::activate(self.0, &mut numbers[from..to]),
            _ => candle_core::bail!("activate wants contiguous f32"),
        }
        Ok(())
    }
}
