//! Self-attention over the KV cache, and attention over what another stack gave.

use candle_core::Tensor;
use candle_engine::kv::{Batch, KvCache};
use candle_engine::ops::{self, AttentionSpec, Exec, RopeTable};
use candle_engine::weights::Linear;
use candle_engine::Result;
use candle_engine_quantization::Loader;

use super::RmsNorm;
use crate::decoder::{DecoderConfig, TensorNames};

/// The matrices of attention.
#[derive(Debug)]
pub struct Projections {
    /// `[h · d, hidden]`
    pub q: Box<dyn Linear>,
    /// `[g · d, hidden]`
    pub k: Box<dyn Linear>,
    /// `[g · d, hidden]`
    pub v: Box<dyn Linear>,
    /// `[hidden, h · d]`
    pub o: Box<dyn Linear>,
}

/// o(attention(rope(norm(q(x))), rope(norm(k(x))), v(x)))
#[derive(Debug)]
pub struct Attention {
    proj: Projections,
    qk_norm: Option<(RmsNorm, RmsNorm)>,
    rope: bool,
    layer: usize,
    spec: AttentionSpec,
    exec: Exec,
}

impl Attention {
    /// Attention without norms and rotation.
    pub fn new(proj: Projections, layer: usize, spec: AttentionSpec, exec: Exec) -> Self {
        Self { proj, qk_norm: None, rope: false, layer, spec, exec }
    }

    /// Loads one layer's attention.
    pub fn load(loader: &Loader, config: &DecoderConfig, names: &TensorNames, layer: usize) -> Result<Self> {
        let d = &config.dims;
        let (q, kv) = (d.heads * d.head_dim, d.kv_heads * d.head_dim);
        let name = |part| names.part(layer, part);
        let parts = &names.parts;
        let norm = |part| RmsNorm::load(loader, &name(part), d.head_dim, config.norm_eps);
        Ok(Self {
            proj: Projections {
                q: loader.linear(&name(parts.q_proj), q, d.hidden, config.qkv_bias)?,
                k: loader.linear(&name(parts.k_proj), kv, d.hidden, config.qkv_bias)?,
                v: loader.linear(&name(parts.v_proj), kv, d.hidden, config.qkv_bias)?,
                o: loader.linear(&name(parts.o_proj), d.hidden, q, config.o_bias)?,
            },
            qk_norm: if config.qk_norm { Some((norm(parts.q_norm)?, norm(parts.k_norm)?)) } else { None },
            rope: config.layers[layer].rope,
            layer,
            spec: AttentionSpec {
                heads: d.heads,
                kv_heads: d.kv_heads,
                head_dim: d.head_dim,
                scale: (d.head_dim as f32).powf(-0.5),
                window: config.layers[layer].window,
                softcap: None,
                causal: true,
            },
            exec: loader.exec().clone(),
        })
    }

    /// `[t, hidden] → [t, hidden]`; appends the new positions to the sequences' caches. The table is for a layer
    /// that rotates.
    pub fn forward(&self, x: Tensor, rope: Option<&RopeTable>, batch: &mut Batch) -> Result<Tensor> {
        let rope = rope.filter(|_| self.rope);
        let (q_norm, k_norm) = self.qk_norm.as_ref().map(|(q, k)| (q, k)).unzip();
        let q = ops::sharing(&x, || {
            // Keys and values first: their memory is free for the queries. And values, whose format may be another's, before
            // keys.
            let v = self.proj.v.forward(&x)?;
            let k = self.heads(self.proj.k.forward(&x)?, k_norm, rope)?;
            ops::remember(&self.exec, &self.spec, self.layer, [&k, &v], batch)?;
            drop((k, v));
            self.heads(self.proj.q.forward(&x)?, q_norm, rope)
        })?;
        drop(x);
        let a = ops::attention(&self.exec, &self.spec, self.layer, &q, batch)?;
        drop(q);
        self.proj.o.forward(&a)
    }

    /// Norms each head and rotates it, where that is done.
    fn heads(&self, mut x: Tensor, norm: Option<&RmsNorm>, rope: Option<&RopeTable>) -> Result<Tensor> {
        let d = self.spec.head_dim;
        if let Some(norm) = norm {
            let (t, n) = x.dims2()?;
            x = norm.forward(&x.reshape((t * n / d, d))?)?.reshape((t, n))?;
        }
        match rope {
            Some(rope) => ops::rope(&self.exec, &x, d, rope),
            None => Ok(x),
        }
    }
}

/// o(attention(q(x), k(m), v(m))) over a memory m that is the same for all steps.
#[derive(Debug)]
pub struct CrossAttention {
    proj: Projections,
    layer: usize,
    spec: AttentionSpec,
    exec: Exec,
}

impl CrossAttention {
    /// `spec` is neither causal nor windowed.
    pub fn new(proj: Projections, layer: usize, spec: AttentionSpec, exec: Exec) -> Self {
        Self { proj, layer, spec, exec }
    }

    /// Computes keys and values of a memory's rows `m [t, hidden]` and keeps them in the batch's caches.
    pub fn remember(&self, m: &Tensor, batch: &mut Batch) -> Result<()> {
        ops::sharing(m, || {
            let (k, v) = (self.proj.k.forward(m)?, self.proj.v.forward(m)?);
            ops::remember(&self.exec, &self.spec, self.layer, [&k, &v], batch)
        })
    }

    /// `[t, hidden] → [t, hidden]`; `memories` says how many rows, one after another, attend to each. `see` is shown
    /// the queries `[t, h · d]`.
    pub fn forward(
        &self,
        x: &Tensor,
        memories: &[(&KvCache, usize)],
        see: impl FnOnce(&Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        let q = self.proj.q.forward(x)?;
        see(&q)?;
        self.proj.o.forward(&ops::cross_attention(&self.exec, &self.spec, self.layer, &q, memories)?)
    }

    /// What queries `q [t, h · d]` look at: scores of one head before the softmax, `[t, s]`.
    pub fn scores(&self, q: &Tensor, head: usize, memory: &KvCache) -> Result<Vec<f32>> {
        ops::attention_scores(&self.exec, &self.spec, self.layer, head, q, memory)
    }
}
