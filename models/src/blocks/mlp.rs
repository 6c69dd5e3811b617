//! The feed-forward layer, gated or not.

use candle_core::Tensor;
use candle_engine::weights::Linear;
use candle_engine::Result;
use candle_engine_quantization::Loader;

use crate::decoder::{DecoderConfig, TensorNames};

/// down(upper(x)), where upper is act(gate(x)) · up(x), or act(up(x)).
#[derive(Debug)]
pub struct Mlp {
    upper: Box<dyn Linear>,
    down: Box<dyn Linear>,
}

impl Mlp {
    /// Of a layer that is made of `upper` and `down`.
    pub fn new(upper: Box<dyn Linear>, down: Box<dyn Linear>) -> Self {
        Self { upper, down }
    }

    /// Loads one layer's feed-forward part.
    pub fn load(loader: &Loader, config: &DecoderConfig, names: &TensorNames, layer: usize) -> Result<Self> {
        let (hidden, ffn, bias) = (config.dims.hidden, config.dims.ffn, config.mlp_bias);
        let name = |part| names.part(layer, part);
        let (gate, up) = (name(names.parts.gate_proj), name(names.parts.up_proj));
        let upper = loader.gated(config.act, &gate, &up, ffn, hidden, bias)?;
        Ok(Self::new(upper, loader.linear(&name(names.parts.down_proj), hidden, ffn, bias)?))
    }

    /// `[t, hidden] → [t, hidden]`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down.forward(&self.upper.forward(x)?)
    }
}
