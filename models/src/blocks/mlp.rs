//! The gated feed-forward layer.

use candle_core::Tensor;
use candle_engine::weights::Linear;
use candle_engine::Result;
use candle_engine_quantization::Loader;

use crate::decoder::{DecoderConfig, TensorNames};

/// down(act(gate(x)) · up(x))
#[derive(Debug)]
pub struct Mlp {
    gate_up: Box<dyn Linear>,
    down: Box<dyn Linear>,
}

impl Mlp {
    /// Loads one layer's feed-forward part.
    pub fn load(loader: &Loader, config: &DecoderConfig, names: &TensorNames, layer: usize) -> Result<Self> {
        let (hidden, ffn, bias) = (config.dims.hidden, config.dims.ffn, config.mlp_bias);
        let name = |part| names.part(layer, part);
        let (gate, up) = (name(names.parts.gate_proj), name(names.parts.up_proj));
        Ok(Self {
            gate_up: loader.gated(config.act, &gate, &up, ffn, hidden, bias)?,
            down: loader.linear(&name(names.parts.down_proj), hidden, ffn, bias)?,
        })
    }

    /// `[t, hidden] → [t, hidden]`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down.forward(&self.gate_up.forward(x)?)
    }
}
