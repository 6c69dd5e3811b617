//! Norms: root mean square, and layer norm.

use candle_core::Tensor;
use candle_engine::ops::{self, Exec};
use candle_engine::Result;
use candle_engine_quantization::Loader;

/// y = x / sqrt(mean(x²) + eps) · w
#[derive(Debug)]
pub struct RmsNorm {
    weight: Tensor,
    eps: f32,
    exec: Exec,
}

impl RmsNorm {
    /// Loads `name.weight`, `[n]`.
    pub fn load(loader: &Loader, name: &str, n: usize, eps: f32) -> Result<Self> {
        let weight = loader.vector(&format!("{name}.weight"), n)?;
        Ok(Self { weight, eps, exec: loader.exec().clone() })
    }

    /// `[.., n] → [.., n]`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::rms_norm(&self.exec, x, &self.weight, self.eps)
    }

    /// x + r, or x if there is nothing to add, and its norm. The memory of both terms is free then.
    ///
    /// Shapes: both `[.., n]`, and so are the results.
    pub fn add_forward(&self, x: Tensor, r: Option<Tensor>) -> Result<(Tensor, Tensor)> {
        match r {
            Some(r) => ops::add_rms_norm(&self.exec, &x, &r, &self.weight, self.eps),
            None => {
                let normed = self.forward(&x)?;
                Ok((x, normed))
            }
        }
    }
}

/// y = (x − mean(x)) / sqrt(var(x) + eps) · w + b
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
    exec: Exec,
}

impl LayerNorm {
    /// Loads `name.weight` and `name.bias`, both `[n]`.
    pub fn load(loader: &Loader, name: &str, n: usize, eps: f32) -> Result<Self> {
        let vector = |end: &str| loader.vector(&format!("{name}.{end}"), n);
        Ok(Self { weight: vector("weight")?, bias: vector("bias")?, eps, exec: loader.exec().clone() })
    }

    /// `[.., n] → [.., n]`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::layer_norm(&self.exec, x, &self.weight, &self.bias, self.eps)
    }

    /// x + r, and its norm. The memory of both terms is free then.
    ///
    /// Shapes: both `[.., n]`, and so are the results.
    pub fn add_forward(&self, x: Tensor, r: Tensor) -> Result<(Tensor, Tensor)> {
        ops::add_layer_norm(&self.exec, &x, &r, [&self.weight, &self.bias], self.eps)
    }
}
