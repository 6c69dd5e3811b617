//! The decoder itself: what every Llama-style model computes.

use candle_core::Tensor;
use candle_engine::kv::{Batch, KvCache, KvLayout, KvType};
use candle_engine::ops::{Exec, RopeTable};
use candle_engine::session::LanguageModel;
use candle_engine::weights::Linear;
use candle_engine::{Context, Error, Result};
use candle_engine_quantization::{Embedding, Loader};

use super::{DecoderConfig, TensorNames};
use crate::blocks::{wanted_rows, Attention, Mlp, RmsNorm};

/// A causal decoder. Immutable: all that changes lives in the caches of a batch.
#[derive(Debug)]
pub struct Decoder {
    config: DecoderConfig,
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Box<dyn Linear>,
    exec: Exec,
    kv: KvLayout,
}

#[derive(Debug)]
struct Layer {
    attn_norm: RmsNorm,
    attn: Attention,
    mlp_norm: RmsNorm,
    mlp: Mlp,
}

impl Decoder {
    /// Builds the decoder over a checkpoint whose tensors have these names.
    ///
    /// Errors: `MissingTensor`, `ShapeMismatch`, `Tensor`, each naming the tensor; `Config`.
    pub fn load(config: DecoderConfig, names: &TensorNames, loader: &Loader, kv: KvType) -> Result<Self> {
        config.validate()?;
        let d = &config.dims;
        let embedding = loader.embedding(names.embedding, d.vocab, d.hidden)?;
        let layers = (0..d.layers).map(|i| Layer::load(loader, &config, names, i)).collect::<Result<_>>()?;
        let head = if config.tied_head { names.embedding } else { names.head };
        Ok(Self {
            layers,
            norm: RmsNorm::load(loader, names.norm, d.hidden, config.norm_eps)?,
            head: loader.linear(head, d.vocab, d.hidden, false)?,
            exec: loader.exec().clone(),
            kv: KvLayout { layers: d.layers, kv_heads: d.kv_heads, head_dim: d.head_dim, kind: kv },
            embedding,
            config,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Logits of the rows that the batch wants, `[rows, vocab]`; `see` is shown the hidden state `[t, hidden]`
    /// before each layer and, under the number of layers, after the last.
    pub fn forward_with(&self, batch: &mut Batch, see: &mut dyn FnMut(usize, &Tensor)) -> Result<Tensor> {
        let vocab = self.config.dims.vocab;
        if let Some(id) = batch.tokens().iter().find(|&&id| id as usize >= vocab) {
            return Err(Error::Input(format!("token id {id}: the vocabulary has {vocab} tokens")));
        }
        let rope = self.config.rope.table(batch.positions());
        let mut x = self.embedding.forward(batch.tokens())?;
        // What a layer adds to it joins it in the next norm's pass over memory.
        let mut added = None;
        for (i, layer) in self.layers.iter().enumerate() {
            let (sum, normed) = layer.attn_norm.add_forward(x, added)?;
            see(i, &sum);
            let (sum, mlp) = layer.forward(sum, normed, &rope, batch).at(format_args!("layer {i}"))?;
            (x, added) = (sum, Some(mlp));
        }
        let (sum, normed) = self.norm.add_forward(x, added)?;
        see(self.layers.len(), &sum);
        let logits = self.head.forward(&wanted_rows(normed, batch)?)?;
        batch.finish();
        Ok(logits)
    }
}

impl LanguageModel for Decoder {
    fn forward(&self, batch: &mut Batch) -> Result<Tensor> {
        self.forward_with(batch, &mut |_, _| {})
    }

    fn new_cache(&self) -> KvCache {
        self.exec.new_cache(self.kv.clone())
    }

    fn vocab(&self) -> usize {
        self.config.dims.vocab
    }

    fn context(&self) -> usize {
        self.config.dims.context
    }
}

impl Layer {
    fn load(loader: &Loader, config: &DecoderConfig, names: &TensorNames, i: usize) -> Result<Self> {
        let norm = |part| RmsNorm::load(loader, &names.part(i, part), config.dims.hidden, config.norm_eps);
        Ok(Self {
            attn_norm: norm(names.parts.attn_norm)?,
            attn: Attention::load(loader, config, names, i)?,
            mlp_norm: norm(names.parts.mlp_norm)?,
            mlp: Mlp::load(loader, config, names, i)?,
        })
    }

    /// `x` and its norm → `x` after attention, and what is to be added to it; all `[t, hidden]`.
    fn forward(
        &self,
        x: Tensor,
        normed: Tensor,
        rope: &RopeTable,
        batch: &mut Batch,
    ) -> Result<(Tensor, Tensor)> {
        let attended = self.attn.forward(normed, Some(rope), batch)?;
        let (x, normed) = self.mlp_norm.add_forward(x, Some(attended))?;
        Ok((x, self.mlp.forward(&normed)?))
    }
}
