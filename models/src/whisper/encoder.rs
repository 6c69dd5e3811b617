//! The stack that hears: log-mel windows to hidden states.

use candle_core::Tensor;
use candle_engine::kernels::recycle;
use candle_engine::kv::{Batch, KvCache, KvLayout, KvType};
use candle_engine::ops::{self, Act, Exec};
use candle_engine::weights::Linear;
use candle_engine::{Context, Error, Result};
use candle_engine_quantization::{Embedding, Loader};

use super::config::{WhisperConfig, FRAMES_PER_POSITION, NORM_EPS};
use super::layer::{in_parts, FeedForward, Place};
use crate::blocks::{Attention, LayerNorm};

/// Width of both convolutions.
const WIDTH: usize = ops::CONVOLUTION_WIDTH;

/// Two convolutions and a stack of layers in which every position sees all others.
#[derive(Debug)]
pub struct Encoder {
    config: WhisperConfig,
    convolutions: [Box<dyn Linear>; 2],
    positions: Embedding,
    layers: Vec<Layer>,
    norm: LayerNorm,
    exec: Exec,
    kv: KvLayout,
}

#[derive(Debug)]
struct Layer {
    attn_norm: LayerNorm,
    attn: Attention,
    feed_forward: FeedForward,
}

impl Encoder {
    /// Builds the encoder whose tensors' names begin with `name`, and whose keys and values are numbers of a `kind`.
    ///
    /// Errors: `MissingTensor`, `ShapeMismatch`, `Tensor`, each naming the tensor.
    pub fn load(config: &WhisperConfig, loader: &Loader, name: &str, kind: KvType) -> Result<Self> {
        let (hidden, stack) = (config.hidden, &config.encoder);
        let convolution = |part: &str, channels| {
            loader.convolution(Act::Gelu, &format!("{name}.{part}"), hidden, channels, WIDTH)
        };
        let layer = |i| {
            let place = Place { loader, config, stack, name: format!("{name}.layers.{i}") };
            Ok(Layer {
                attn_norm: place.norm("self_attn_layer_norm")?,
                attn: Attention::new(
                    place.projections("self_attn")?,
                    0,
                    place.spec(false),
                    loader.exec().clone(),
                ),
                feed_forward: FeedForward::load(&place)?,
            })
        };
        Ok(Self {
            convolutions: [convolution("conv1", config.mels)?, convolution("conv2", hidden)?],
            positions: loader.embedding(&format!("{name}.embed_positions"), stack.positions, hidden)?,
            layers: (0..stack.layers).map(layer).collect::<Result<_>>()?,
            norm: LayerNorm::load(loader, &format!("{name}.layer_norm"), hidden, NORM_EPS)?,
            exec: loader.exec().clone(),
            kv: KvLayout { layers: 1, kv_heads: stack.heads, head_dim: hidden / stack.heads, kind },
            config: config.clone(),
        })
    }

    /// How its ops run.
    pub(super) fn exec(&self) -> &Exec {
        &self.exec
    }

    /// Encodes windows together.
    ///
    /// Shapes: `windows`, each `[frames, mels]` → `[windows · positions, hidden]`.
    /// Errors: `Input` for a window of another shape.
    pub fn forward(&self, windows: &[Tensor]) -> Result<Tensor> {
        self.forward_with(windows, &mut |_, _| {})
    }

    /// As [`Self::forward`]; `see` is shown the hidden state before each layer and, under the number of layers, after
    /// the last, before the final norm.
    pub fn forward_with(&self, windows: &[Tensor], see: &mut dyn FnMut(usize, &Tensor)) -> Result<Tensor> {
        let (frames, positions) = (self.config.frames(), self.config.encoder.positions);
        if windows.is_empty() {
            return Err(Error::Input("there are no windows to encode".into()));
        }
        let mut rows = Vec::with_capacity(windows.len());
        for window in windows {
            let expected = [frames, self.config.mels];
            if window.dims() != expected {
                let what = format!("log-mel window: expected {expected:?}, got {:?}", window.dims());
                return Err(Error::Input(what));
            }
            rows.push(window.to_device(self.exec.device())?.to_dtype(self.exec.dtype())?);
        }
        let convolve = |i: usize, x: Tensor, stride| {
            in_parts(x.dim(0)? / stride, |rows| {
                self.convolutions[i].forward(&ops::unfold(&self.exec, &x, frames, stride, rows)?)
            })
        };
        let x = convolve(0, Tensor::cat(&rows, 0)?, 1)?;
        let mut x = convolve(1, x, FRAMES_PER_POSITION)?;
        // The layers need blocks of other sizes.
        recycle::release();
        let places: Vec<u32> = windows.iter().flat_map(|_| 0..positions as u32).collect();
        // What is added to it joins it in the next norm's pass over memory.
        let mut added = self.positions.forward(&places)?;

        let mut caches: Vec<KvCache> = windows.iter().map(|_| self.exec.new_cache(self.kv.clone())).collect();
        let mut batch = Batch::default();
        for kv in &mut caches {
            batch.push_rows(positions, kv)?;
        }
        for (i, layer) in self.layers.iter().enumerate() {
            let (sum, normed) = layer.attn_norm.add_forward(x, added)?;
            see(i, &sum);
            (x, added) = layer.forward(sum, normed, &mut batch).at(format_args!("encoder layer {i}"))?;
        }
        let (sum, normed) = self.norm.add_forward(x, added)?;
        see(self.layers.len(), &sum);
        Ok(normed)
    }
}

impl Layer {
    /// `x` and its norm → `x` after attention, and what is to be added to it; all `[t, hidden]`.
    fn forward(&self, x: Tensor, normed: Tensor, batch: &mut Batch) -> Result<(Tensor, Tensor)> {
        // The keys and values of the layer before are written over: nobody reads them again.
        self.feed_forward.forward(x, self.attn.forward(normed, None, batch)?)
    }
}
