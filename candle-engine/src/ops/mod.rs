//! Fused ops on candle tensors: each has one public function, a CPU kernel, and a version composed of
//! candle's own ops that runs on any candle device. [`Exec`] says which of the two a model uses.
//!
//! They are functions and not candle `CustomOp`s: an op may return several tensors, write to the KV cache, or read
//! mapped bytes, and `Tensor::from_vec` takes a kernel's result without a copy.

mod activate;
mod attention;
mod cross_attention;
mod grouped;
mod linear;
mod norm;
mod rope;
mod unfold;

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};

use crate::kernels::threads::parallel_chunks;
use crate::kv::{KvCache, KvLayout};
use crate::{Error, Result};

pub use self::activate::activate;
pub use self::attention::{attention, remember, AttentionSpec};
pub use self::cross_attention::{attention_scores, cross_attention};
pub use self::grouped::{embed_grouped, linear_grouped, linear_grouped_gated, GroupedMatrix};
pub use self::linear::{embed, gate, linear, linear_gated, reads};
pub use self::norm::{add_layer_norm, add_rms_norm, layer_norm, rms_norm};
pub use self::rope::{rope, RopeTable};
pub use self::unfold::{unfold, CONVOLUTION_WIDTH};
pub use crate::kernels::act::Act;
pub use crate::kernels::rope::RopeStyle;

/// Where and how a model's ops run.
#[derive(Debug, Clone)]
pub struct Exec {
    device: Device,
    fused: bool,
    dtype: DType,
}

impl Exec {
    /// The best way on a device: the kernels on the CPU, candle's ops elsewhere, activations of `dtype` there.
    pub fn new(device: Device, dtype: DType) -> Self {
        if device.is_cpu() {
            Self { device, fused: true, dtype: DType::F32 }
        } else {
            Self { device, fused: false, dtype }
        }
    }

    /// The kernels of this crate, on the CPU.
    pub fn cpu() -> Self {
        Self::new(Device::Cpu, DType::F32)
    }

    /// Ops composed of candle's own on any device, in f32: what the kernels are checked against.
    pub fn composed(device: Device) -> Self {
        Self { device, fused: false, dtype: DType::F32 }
    }

    /// The device of activations and of weights that are not mapped.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether the ops are this crate's kernels.
    pub fn is_fused(&self) -> bool {
        self.fused
    }

    /// Number format of activations.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// An empty cache of the kind that [`attention`] wants here.
    pub fn new_cache(&self, layout: KvLayout) -> KvCache {
        if self.fused {
            KvCache::blocks(layout)
        } else {
            KvCache::tensors(layout, &self.device, self.dtype)
        }
    }
}

/// Shows `f` the numbers of a contiguous f32 tensor on the CPU.
pub(crate) fn with_slice<R>(x: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    if !x.is_contiguous() {
        return with_slice(&x.contiguous()?, f);
    }
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(numbers)) => {
            let from = layout.start_offset();
            Ok(f(&numbers[from..from + layout.shape().elem_count()]))
        }
        _ => Err(Error::Input(format!(
            "a CPU kernel wants f32 on the CPU, got {:?} on {:?}",
            x.dtype(),
            x.device()
        ))),
    }
}

/// Runs `f`, in which several matrices multiply `x`: those that quantize it alike and follow each other do so once.
pub fn sharing<R>(x: &Tensor, f: impl FnOnce() -> R) -> R {
    match x.is_contiguous().then(|| with_slice(x, <[f32]>::as_ptr_range)) {
        Some(Ok(place)) => crate::kernels::sharing(place, f),
        _ => f(),
    }
}

/// The rows of a matrix in vectors of their own.
///
/// Shapes: `x [n, width]` → `n` vectors of `width` numbers, in f32.
/// Errors: candle's, if `x` is no matrix.
pub fn to_rows(x: &Tensor) -> Result<Vec<Vec<f32>>> {
    let (n, width) = x.dims2()?;
    with_slice(&x.to_dtype(DType::F32)?.to_device(&Device::Cpu)?, |x| {
        // A step's logits are megabytes: each thread copies some, and has them in its cache for what comes next.
        let mut rows = vec![Vec::new(); n];
        parallel_chunks(&mut rows, 1, |i, row| row[0] = x[i * width..][..width].to_vec());
        rows
    })
}

/// A tensor of the numbers that a kernel wrote.
pub(crate) fn tensor(numbers: Vec<f32>, shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
    Ok(Tensor::from_vec(numbers, shape.into(), &Device::Cpu)?)
}
