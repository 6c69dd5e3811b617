//! Causal self-attention with grouped queries over the KV cache.

use candle_core::Tensor;
use candle_engine::kv::Batch;
use candle_engine::ops::{self, AttentionSpec, Exec, RopeTable};
use candle_engine::weights::Linear;
use candle_engine::Result;
use candle_engine_quantization::Loader;

use super::RmsNorm;
use crate::decoder::{DecoderConfig, TensorNames};

/// o(attention(rope(norm(q(x))), rope(norm(k(x))), v(x)))
#[derive(Debug)]
pub struct Attention {
    q_proj: Box<dyn Linear>,
    k_proj: Box<dyn Linear>,
    v_proj: Box<dyn Linear>,
    o_proj: Box<dyn Linear>,
    qk_norm: Option<(RmsNorm, RmsNorm)>,
    rope: bool,
    layer: usize,
    spec: AttentionSpec,
    exec: Exec,
}

impl Attention {
    /// Loads one layer's attention.
    pub fn load(loader: &Loader, config: &DecoderConfig, names: &TensorNames, layer: usize) -> Result<Self> {
        let d = &config.dims;
        let (q, kv) = (d.heads * d.head_dim, d.kv_heads * d.head_dim);
        let name = |part| names.part(layer, part);
        let parts = &names.parts;
        let norm = |part| RmsNorm::load(loader, &name(part), d.head_dim, config.norm_eps);
        Ok(Self {
            q_proj: loader.linear(&name(parts.q_proj), q, d.hidden, config.qkv_bias)?,
            k_proj: loader.linear(&name(parts.k_proj), kv, d.hidden, config.qkv_bias)?,
            v_proj: loader.linear(&name(parts.v_proj), kv, d.hidden, config.qkv_bias)?,
            o_proj: loader.linear(&name(parts.o_proj), d.hidden, q, config.o_bias)?,
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

    /// `[t, hidden] → [t, hidden]`; appends the new positions to the sequences' caches.
    pub fn forward(&self, x: &Tensor, rope: &RopeTable, batch: &mut Batch) -> Result<Tensor> {
        let mut q = self.q_proj.forward(x)?;
        let mut k = self.k_proj.forward(x)?;
        let v = self.v_proj.forward(x)?;
        if let Some((q_norm, k_norm)) = &self.qk_norm {
            q = self.per_head(&q, q_norm)?;
            k = self.per_head(&k, k_norm)?;
        }
        if self.rope {
            q = ops::rope(&self.exec, &q, self.spec.head_dim, rope)?;
            k = ops::rope(&self.exec, &k, self.spec.head_dim, rope)?;
        }
        let a = ops::attention(&self.exec, &self.spec, self.layer, [&q, &k, &v], batch)?;
        self.o_proj.forward(&a)
    }

    fn per_head(&self, x: &Tensor, norm: &RmsNorm) -> Result<Tensor> {
        let (t, n) = x.dims2()?;
        let d = self.spec.head_dim;
        Ok(norm.forward(&x.reshape((t * n / d, d))?)?.reshape((t, n))?)
    }
}
