//! What the layers of both stacks share: how their parts are named and loaded.

use std::ops::Range;

use candle_core::Tensor;
use candle_engine::ops::AttentionSpec;
use candle_engine::Result;
use candle_engine_quantization::Loader;

use super::config::{StackDims, WhisperConfig, NORM_EPS};
use crate::blocks::{LayerNorm, Mlp, Projections};

/// A layer's place in a checkpoint.
pub(super) struct Place<'a> {
    pub loader: &'a Loader,
    pub config: &'a WhisperConfig,
    pub stack: &'a StackDims,
    /// `model.decoder.layers.3`
    pub name: String,
}

impl Place<'_> {
    /// The four matrices under `part`; keys have no bias.
    pub fn projections(&self, part: &str) -> Result<Projections> {
        let hidden = self.config.hidden;
        let linear = |end: &str, bias: bool| {
            self.loader.linear(&format!("{}.{part}.{end}_proj", self.name), hidden, hidden, bias)
        };
        Ok(Projections {
            q: linear("q", true)?,
            k: linear("k", false)?,
            v: linear("v", true)?,
            o: linear("out", true)?,
        })
    }

    pub fn norm(&self, part: &str) -> Result<LayerNorm> {
        LayerNorm::load(self.loader, &format!("{}.{part}", self.name), self.config.hidden, NORM_EPS)
    }

    pub fn spec(&self, causal: bool) -> AttentionSpec {
        let head_dim = self.config.hidden / self.stack.heads;
        AttentionSpec {
            heads: self.stack.heads,
            kv_heads: self.stack.heads,
            head_dim,
            scale: (head_dim as f32).powf(-0.5),
            window: None,
            softcap: None,
            causal,
        }
    }

    pub fn mlp(&self) -> Result<Mlp> {
        let (hidden, ffn) = (self.config.hidden, self.stack.ffn);
        let name = |part: &str| format!("{}.{part}", self.name);
        let upper = self.loader.activated(self.config.act, &name("fc1"), ffn, hidden, true)?;
        Ok(Mlp::new(upper, self.loader.linear(&name("fc2"), hidden, ffn, true)?))
    }
}

/// The feed-forward layer behind its norm.
#[derive(Debug)]
pub(super) struct FeedForward {
    norm: LayerNorm,
    mlp: Mlp,
}

impl FeedForward {
    pub fn load(place: &Place) -> Result<Self> {
        Ok(Self { norm: place.norm("final_layer_norm")?, mlp: place.mlp()? })
    }

    /// x + r, and what is to be added to it: mlp(norm(x + r)).
    pub fn forward(&self, x: Tensor, r: Tensor) -> Result<(Tensor, Tensor)> {
        let (x, normed) = self.norm.add_forward(x, r)?;
        let added =
            in_parts(normed.dim(0)?, |rows| self.mlp.forward(&normed.narrow(0, rows.start, rows.len())?))?;
        Ok((x, added))
    }
}

/// Rows that are computed together where what they pass through is wider than they are.
const PART: usize = 256;

/// Puts together what `f` makes of a number of rows, a part of them at a time: `[n, ..]`.
pub(super) fn in_parts(n: usize, f: impl Fn(Range<usize>) -> Result<Tensor>) -> Result<Tensor> {
    if n <= PART {
        return f(0..n);
    }
    let parts = (0..n).step_by(PART).map(|first| f(first..n.min(first + PART)));
    Ok(Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)?)
}
