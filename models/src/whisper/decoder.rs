//! The stack that writes: tokens, over a memory of what was heard.

use candle_core::Tensor;
use candle_engine::kv::{Batch, KvCache, KvLayout, KvType};
use candle_engine::ops::Exec;
use candle_engine::weights::Linear;
use candle_engine::{Context, Error, Result};
use candle_engine_quantization::{Embedding, Loader};

use super::config::{WhisperConfig, NORM_EPS};
use super::layer::{FeedForward, Place};
use crate::blocks::{wanted_rows, Attention, CrossAttention, LayerNorm};

/// A causal decoder whose layers also attend to a [`Memory`].
#[derive(Debug)]
pub struct TextDecoder {
    config: WhisperConfig,
    embedding: Embedding,
    positions: Embedding,
    layers: Vec<Layer>,
    norm: LayerNorm,
    head: Box<dyn Linear>,
    exec: Exec,
    kv: KvLayout,
    /// Of a memory, which is read at every step and written once.
    memory: KvLayout,
}

#[derive(Debug)]
struct Layer {
    attn_norm: LayerNorm,
    attn: Attention,
    cross_norm: LayerNorm,
    cross: CrossAttention,
    feed_forward: FeedForward,
}

/// Keys and values of one window for the cross-attention of all layers: computed once, read by every step.
#[derive(Debug)]
pub struct Memory(KvCache);

/// What a forward pass shows on its way.
#[derive(Debug)]
pub enum Seen<'a> {
    /// The hidden state `[t, hidden]` before a layer and, under the number of layers, after the last.
    Hidden(usize, &'a Tensor),
    /// The queries `[t, hidden]` of a layer's cross-attention.
    Queries(usize, &'a Tensor),
}

impl TextDecoder {
    /// Builds the decoder whose tensors' names begin with `name`; `head` is the matrix that gives the logits. Caches
    /// hold numbers of the first kind, memories of the second.
    ///
    /// Errors: `MissingTensor`, `ShapeMismatch`, `Tensor`, each naming the tensor.
    pub fn load(
        config: &WhisperConfig,
        loader: &Loader,
        name: &str,
        head: &str,
        [kv, memory]: [KvType; 2],
    ) -> Result<Self> {
        let (hidden, vocab, stack) = (config.hidden, config.vocab, &config.decoder);
        let layout = |kind| KvLayout {
            layers: stack.layers,
            kv_heads: stack.heads,
            head_dim: hidden / stack.heads,
            kind,
        };
        let layer = |i| {
            let place = Place { loader, config, stack, name: format!("{name}.layers.{i}") };
            let exec = || loader.exec().clone();
            Ok(Layer {
                attn_norm: place.norm("self_attn_layer_norm")?,
                attn: Attention::new(place.projections("self_attn")?, i, place.spec(true), exec()),
                cross_norm: place.norm("encoder_attn_layer_norm")?,
                cross: CrossAttention::new(place.projections("encoder_attn")?, i, place.spec(false), exec()),
                feed_forward: FeedForward::load(&place)?,
            })
        };
        Ok(Self {
            embedding: loader.embedding(&format!("{name}.embed_tokens"), vocab, hidden)?,
            positions: loader.embedding(&format!("{name}.embed_positions"), stack.positions, hidden)?,
            layers: (0..stack.layers).map(layer).collect::<Result<_>>()?,
            norm: LayerNorm::load(loader, &format!("{name}.layer_norm"), hidden, NORM_EPS)?,
            head: loader.linear(head, vocab, hidden, false)?,
            exec: loader.exec().clone(),
            kv: layout(kv),
            memory: layout(memory),
            config: config.clone(),
        })
    }

    /// An empty cache for one sequence.
    pub fn new_cache(&self) -> KvCache {
        self.exec.new_cache(self.kv.clone())
    }

    /// Memories of windows.
    ///
    /// Shapes: `heard [windows · positions, hidden]`, as the encoder gives it → one memory per window.
    /// Errors: candle's, if the shapes disagree; `OutOfMemory`.
    pub fn remember(&self, heard: &Tensor) -> Result<Vec<Memory>> {
        let positions = self.config.encoder.positions;
        let new = |_| self.exec.new_cache(self.memory.clone());
        let mut memories: Vec<KvCache> = (0..heard.dims2()?.0 / positions).map(new).collect();
        let mut batch = Batch::default();
        for kv in &mut memories {
            batch.push_rows(positions, kv)?;
        }
        for (i, layer) in self.layers.iter().enumerate() {
            layer.cross.remember(heard, &mut batch).at(format_args!("decoder layer {i}"))?;
        }
        batch.finish();
        Ok(memories.into_iter().map(Memory).collect())
    }

    /// Logits of the rows that the batch wants, `[rows, vocab]`; each sequence of the batch has its memory.
    ///
    /// Errors: `Input` for a token id outside the vocabulary, or another number of memories than of sequences;
    /// `ContextFull` for a position that the model has not.
    pub fn forward(&self, batch: &mut Batch, memories: &[&Memory]) -> Result<Tensor> {
        self.forward_with(batch, memories, &mut |_| Ok(()))
    }

    /// As [`Self::forward`], and `see` is shown what the layers do.
    pub fn forward_with(
        &self,
        batch: &mut Batch,
        memories: &[&Memory],
        see: &mut dyn FnMut(Seen) -> Result<()>,
    ) -> Result<Tensor> {
        let (vocab, context) = (self.config.vocab, self.config.decoder.positions);
        if let Some(id) = batch.tokens().iter().find(|&&id| id as usize >= vocab) {
            return Err(Error::Input(format!("token id {id}: the vocabulary has {vocab} tokens")));
        }
        if let Some(last) = batch.positions().iter().max().filter(|&&last| last >= context) {
            return Err(Error::ContextFull { tokens: last + 1, context });
        }
        let memories = runs(batch, memories)?;
        let places: Vec<u32> = batch.positions().iter().map(|&p| p as u32).collect();
        // What is added to it joins it in the next norm's pass over memory.
        let (mut x, mut added) = (self.embedding.forward(batch.tokens())?, self.positions.forward(&places)?);
        for (i, layer) in self.layers.iter().enumerate() {
            let (sum, normed) = layer.attn_norm.add_forward(x, added)?;
            see(Seen::Hidden(i, &sum))?;
            (x, added) = layer
                .forward(sum, normed, batch, &memories, |q| see(Seen::Queries(i, q)))
                .at(format_args!("decoder layer {i}"))?;
        }
        let (sum, normed) = self.norm.add_forward(x, added)?;
        see(Seen::Hidden(self.layers.len(), &sum))?;
        let logits = self.head.forward(&wanted_rows(normed, batch)?)?;
        batch.finish();
        Ok(logits)
    }

    /// What the queries of a layer's cross-attention look at: scores of one head before the softmax, `[t, positions]`.
    ///
    /// Errors: `Input` if there is no such layer or head.
    pub fn scores(&self, layer: usize, head: usize, q: &Tensor, memory: &Memory) -> Result<Vec<f32>> {
        match self.layers.get(layer) {
            Some(layer) => layer.cross.scores(q, head, &memory.0),
            None => Err(Error::Input(format!("decoder layer {layer}: there are {}", self.layers.len()))),
        }
    }
}

/// The memories with the rows that attend to each: neighbours that share one are taken together.
fn runs<'m>(batch: &mut Batch, memories: &[&'m Memory]) -> Result<Vec<(&'m KvCache, usize)>> {
    let sequences = batch.sequences();
    if sequences.len() != memories.len() {
        let (n, m) = (sequences.len(), memories.len());
        return Err(Error::Input(format!("{n} sequences with {m} memories")));
    }
    let mut runs: Vec<(&KvCache, usize)> = Vec::new();
    for (sequence, Memory(memory)) in sequences.iter().zip(memories) {
        match runs.last_mut().filter(|(last, _)| std::ptr::eq(*last, memory)) {
            Some((_, rows)) => *rows += sequence.len,
            None => runs.push((memory, sequence.len)),
        }
    }
    Ok(runs)
}

impl Layer {
    /// `x` and its norm → `x` after both attentions, and what is to be added to it; all `[t, hidden]`.
    fn forward(
        &self,
        x: Tensor,
        normed: Tensor,
        batch: &mut Batch,
        memories: &[(&KvCache, usize)],
        see: impl FnOnce(&Tensor) -> Result<()>,
    ) -> Result<(Tensor, Tensor)> {
        let attended = self.attn.forward(normed, None, batch)?;
        let (x, normed) = self.cross_norm.add_forward(x, attended)?;
        self.feed_forward.forward(x, self.cross.forward(&normed, memories, see)?)
    }
}
