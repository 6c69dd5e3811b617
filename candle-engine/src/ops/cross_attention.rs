//! Attention over keys and values that are there already: those that an encoder's output gave.

use candle_core::Tensor;

use super::attention::{composed_scores, composed_sums, expect, fused, other_cache, view};
use super::{with_slice, AttentionSpec, Exec};
use crate::kernels::attention::{self as kernel, Heads};
use crate::kv::{KvCache, BLOCK};
use crate::{Error, Result};

/// Attends over the positions of caches that other rows filled ([`remember`](super::remember)).
///
/// out = softmax(scale · q · Kᵀ) · V, over all positions of a memory
///
/// Shapes: `q [t, h · d]`; each of `memories` with the number of rows, one after another, that attend to it →
/// `[t, h · d]`. Rows of one memory share one pass over it.
/// Errors: `Input`, if the shapes disagree, for an empty memory, for a causal or windowed `spec`, or for a cache that
/// another way of running ops made.
pub fn cross_attention(
    exec: &Exec,
    spec: &AttentionSpec,
    layer: usize,
    q: &Tensor,
    memories: &[(&KvCache, usize)],
) -> Result<Tensor> {
    expect(q, (memories.iter().map(|(_, rows)| rows).sum(), spec.heads * spec.head_dim))?;
    if spec.causal || spec.window.is_some() {
        return Err(Error::Input("cross-attention sees all of its memory".into()));
    }
    if memories.iter().any(|(memory, _)| memory.is_empty()) {
        return Err(Error::Input("cross-attention over an empty memory".into()));
    }
    if exec.is_fused() {
        let mut sequences = Vec::new();
        for &(memory, rows) in memories {
            // For the kernel they are its last positions, so there may not be more of them.
            for first in (0..rows).step_by(memory.len()) {
                let rows = memory.len().min(rows - first);
                sequences.push(view(memory, layer, memory.len() - rows, rows)?);
            }
        }
        return fused(spec, q, &sequences);
    }
    let mut outs = Vec::new();
    let mut row = 0;
    for &(memory, rows) in memories {
        let scores = composed_scores(spec, layer, q, row..row + rows, memory, memory.len())?;
        outs.push(composed_sums(spec, layer, &scores, memory)?);
        row += rows;
    }
    Ok(Tensor::cat(&outs, 0)?)
}

/// The scores of one query head over a memory, before the softmax: what tells which position a row looks at.
///
/// Shapes: `q [t, h · d]` → `[t, s]`, row after row.
/// Errors: as [`cross_attention`]; `Input` if there is no such head.
pub fn attention_scores(
    exec: &Exec,
    spec: &AttentionSpec,
    layer: usize,
    head: usize,
    q: &Tensor,
    memory: &KvCache,
) -> Result<Vec<f32>> {
    let (t, s) = (q.dims2()?.0, memory.len());
    expect(q, (t, spec.heads * spec.head_dim))?;
    if head >= spec.heads {
        return Err(Error::Input(format!("attention head {head}: there are {}", spec.heads)));
    }
    if !exec.is_fused() {
        let scores = composed_scores(spec, layer, q, 0..t, memory, s)?;
        return Ok(scores.get(head)?.flatten_all()?.to_vec1()?);
    }
    if memory.as_blocks().is_none() {
        return Err(other_cache());
    }
    let heads = Heads { heads: spec.heads, kv_heads: spec.kv_heads, head_dim: spec.head_dim };
    let keys = view(memory, layer, s, 0)?.keys;
    let mut out = vec![0.0; t * s];
    with_slice(q, |q| kernel::scores(heads, spec.scale, head, q, &keys[..s.div_ceil(BLOCK)], &mut out))?;
    Ok(out)
}
