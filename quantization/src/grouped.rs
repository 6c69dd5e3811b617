//! Small integers used in place on the CPU, tensors elsewhere.

use candle_core::{DType, Device, Tensor};
use candle_engine::ops::{self, Act, GroupedMatrix};
use candle_engine::weights::{Format, Linear};
use candle_engine::{Context, Result};

/// y = x · Wᵀ + b over mapped integers.
#[derive(Debug)]
pub struct GroupedLinear {
    weight: GroupedMatrix,
    bias: Option<Tensor>,
}

impl GroupedLinear {
    /// `bias`, if any, is `[out]` in f32.
    pub fn new(weight: GroupedMatrix, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }
}

impl Linear for GroupedLinear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::linear_grouped(x, &self.weight, self.bias.as_ref())
    }

    fn shape(&self) -> (usize, usize) {
        self.weight.shape()
    }

    fn format(&self) -> Format {
        self.weight.format()
    }
}

/// y = act(x · Gᵀ) · (x · Uᵀ) over mapped integers, in one pass.
#[derive(Debug)]
pub struct GroupedGated {
    act: Act,
    gate: GroupedMatrix,
    up: GroupedMatrix,
}

impl GroupedGated {
    /// Both are alike ([`GroupedMatrix::is_like`]).
    pub fn new(act: Act, gate: GroupedMatrix, up: GroupedMatrix) -> Self {
        Self { act, gate, up }
    }
}

impl Linear for GroupedGated {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::linear_grouped_gated(x, self.act, [&self.gate, &self.up])
    }

    fn shape(&self) -> (usize, usize) {
        self.gate.shape()
    }

    fn format(&self) -> Format {
        self.gate.format()
    }
}

/// The numbers of a matrix, `[out, in]` of `dtype` on a device; its pages are released where that is not the CPU.
pub(crate) fn upload(weight: &GroupedMatrix, name: &str, device: &Device, dtype: DType) -> Result<Tensor> {
    let (out, inner) = weight.shape();
    let mut numbers = vec![0.0; out * inner];
    numbers.chunks_exact_mut(inner).enumerate().for_each(|(i, row)| weight.dequantize(i, row));
    let place = || format!("tensor `{name}.weight`");
    let tensor = Tensor::from_vec(numbers, (out, inner), &Device::Cpu).at(place())?;
    let tensor = tensor.to_dtype(dtype).at(place())?;
    if device.is_cpu() {
        return Ok(tensor);
    }
    weight.release();
    tensor.to_device(device).at(place())
}
