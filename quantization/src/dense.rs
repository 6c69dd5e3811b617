//! Stored weights used in place: f32, f16, bf16 and block formats on the CPU; tensors elsewhere.

use candle_core::Tensor;
use candle_engine::ops::{self, Act, Exec};
use candle_engine::weights::{Format, Linear, Stored};
use candle_engine::Result;

/// y = x · Wᵀ + b over mapped weights.
#[derive(Debug)]
pub struct MappedLinear {
    weight: Stored,
    bias: Option<Tensor>,
}

impl MappedLinear {
    /// `weight` is a matrix `[out, in]`; `bias`, if any, is `[out]` in f32.
    pub fn new(weight: Stored, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }
}

impl Linear for MappedLinear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::linear(x, &self.weight, self.bias.as_ref())
    }

    fn shape(&self) -> (usize, usize) {
        (self.weight.shape[0], self.weight.shape[1])
    }

    fn format(&self) -> Format {
        self.weight.format
    }
}

/// y = act(x · Gᵀ + g) · (x · Uᵀ + u) over mapped weights, in one pass.
#[derive(Debug)]
pub struct MappedGated {
    act: Act,
    gate: MappedLinear,
    up: MappedLinear,
}

impl MappedGated {
    /// Both matrices are `[out, in]`.
    pub fn new(act: Act, gate: MappedLinear, up: MappedLinear) -> Self {
        Self { act, gate, up }
    }
}

impl Linear for MappedGated {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (gate, up) = (&self.gate, &self.up);
        ops::linear_gated(x, self.act, [&gate.weight, &up.weight], [gate.bias.as_ref(), up.bias.as_ref()])
    }

    fn shape(&self) -> (usize, usize) {
        self.gate.shape()
    }

    fn format(&self) -> Format {
        self.gate.format()
    }
}

/// y = x · Wᵀ + b over a tensor on any device.
#[derive(Debug)]
pub struct TensorLinear {
    weight: Tensor,
    bias: Option<Tensor>,
    format: Format,
}

impl TensorLinear {
    /// `weight [out, in]` and `bias [out]` of the activations' dtype; `format` is what was stored.
    pub fn new(weight: Tensor, bias: Option<Tensor>, format: Format) -> Self {
        Self { weight, bias, format }
    }
}

impl Linear for TensorLinear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.matmul(&self.weight.t()?)?;
        Ok(match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }

    fn shape(&self) -> (usize, usize) {
        (self.weight.dims()[0], self.weight.dims()[1])
    }

    fn format(&self) -> Format {
        self.format
    }
}

/// y = act(gate(x)) · up(x) of any two matrices.
#[derive(Debug)]
pub struct Gated {
    act: Act,
    gate: Box<dyn Linear>,
    up: Box<dyn Linear>,
    exec: Exec,
}

impl Gated {
    /// Both are `[.., in] → [.., out]`.
    pub fn new(act: Act, gate: Box<dyn Linear>, up: Box<dyn Linear>, exec: Exec) -> Self {
        Self { act, gate, up, exec }
    }
}

impl Linear for Gated {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::gate(&self.exec, self.act, &self.gate.forward(x)?, &self.up.forward(x)?)
    }

    fn shape(&self) -> (usize, usize) {
        self.gate.shape()
    }

    fn format(&self) -> Format {
        self.gate.format()
    }
}

/// y = act(f(x)) of any matrix.
#[derive(Debug)]
pub struct Activated {
    act: Act,
    linear: Box<dyn Linear>,
    exec: Exec,
}

impl Activated {
    /// `linear` is `[.., in] → [.., out]`.
    pub fn new(act: Act, linear: Box<dyn Linear>, exec: Exec) -> Self {
        Self { act, linear, exec }
    }
}

impl Linear for Activated {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::activate(&self.exec, self.act, self.linear.forward(x)?)
    }

    fn shape(&self) -> (usize, usize) {
        self.linear.shape()
    }

    fn format(&self) -> Format {
        self.linear.format()
    }
}
