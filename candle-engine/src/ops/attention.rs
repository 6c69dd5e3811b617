//! Attention over the KV cache, which it also fills.

use std::ops::Range;

use candle_core::{DType, Tensor, D};

use super::{tensor, with_slice, Exec};
use crate::kernels::attention::{self as kernel, Heads, KvSlice, KvSliceMut, SequenceKv};
use crate::kernels::unwritten;
use crate::kv::{Batch, Block, KvCache, BLOCK};
use crate::{Error, Result};

/// What one attention layer computes.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// Multiplies the scores.
    pub scale: f32,
    /// Sees only this many positions, itself included.
    pub window: Option<usize>,
    /// Bends scores into this range by tanh.
    pub softcap: Option<f32>,
    /// Whether a position sees only itself and those before it.
    pub causal: bool,
}

/// Attends over the sequences' caches, which [`remember`] has given the batch's keys and values.
///
/// out = softmax(scale · q · Kᵀ) · V, over the positions that each query sees
///
/// Shapes: `q [t, h · d]`, `t` the tokens of the batch → `[t, h · d]`.
/// Errors: `Input`, if the shapes disagree or for a cache that another way of running ops made.
pub fn attention(
    exec: &Exec,
    spec: &AttentionSpec,
    layer: usize,
    q: &Tensor,
    batch: &mut Batch,
) -> Result<Tensor> {
    expect(q, (batch.rows(), spec.heads * spec.head_dim))?;
    if !exec.is_fused() {
        return composed(spec, layer, q, batch);
    }
    let sequences: Vec<SequenceKv> =
        batch.sequences().iter().map(|s| view(s.kv, layer, s.start, s.len)).collect::<Result<_>>()?;
    fused(spec, q, &sequences)
}

/// Appends keys and values to the sequences' caches, which are attended over later.
///
/// Shapes: `k` and `v` `[t, g · d]`, `t` the rows of the batch.
/// Errors: as [`attention`].
pub fn remember(
    exec: &Exec,
    spec: &AttentionSpec,
    layer: usize,
    [k, v]: [&Tensor; 2],
    batch: &mut Batch,
) -> Result<()> {
    let (t, g, d) = (batch.rows(), spec.kv_heads, spec.head_dim);
    expect(k, (t, g * d))?;
    expect(v, (t, g * d))?;
    if exec.is_fused() {
        return with_slice(k, |k| with_slice(v, |v| append(layer, k, v, batch)))??;
    }
    let mut row = 0;
    for sequence in batch.sequences() {
        let (start, len) = (sequence.start, sequence.len);
        let (keys, values) = sequence.kv.layer_tensors(layer).ok_or_else(other_cache)?;
        keys.slice_set(&heads(k, row, len, g, d)?, 1, start)?;
        values.slice_set(&heads(v, row, len, g, d)?, 1, start)?;
        row += len;
    }
    Ok(())
}

pub(super) fn expect(x: &Tensor, expected: (usize, usize)) -> Result<()> {
    if x.dims2()? != expected {
        return Err(Error::Input(format!("attention: expected {expected:?}, got {:?}", x.dims())));
    }
    Ok(())
}

pub(super) fn fused(spec: &AttentionSpec, q: &Tensor, sequences: &[SequenceKv]) -> Result<Tensor> {
    let spec = kernel::AttentionSpec {
        heads: Heads { heads: spec.heads, kv_heads: spec.kv_heads, head_dim: spec.head_dim },
        scale: spec.scale,
        window: spec.window,
        softcap: spec.softcap,
        causal: spec.causal,
    };
    let mut out = unwritten(q.elem_count());
    with_slice(q, |q| kernel::attention(&spec, q, sequences, &mut out))?;
    tensor(out, q.shape())
}

/// Copies the rows `[t, g, d]` of keys and values to where each sequence's cache wants them.
fn append(layer: usize, k: &[f32], v: &[f32], batch: &mut Batch) -> Result<()> {
    let mut row = 0;
    for sequence in batch.sequences() {
        let (start, end) = (sequence.start, sequence.start + sequence.len);
        let (keys, values) = places(sequence.kv, layer);
        let (g, d) = (sequence.kv.layout().kv_heads, sequence.kv.layout().head_dim);
        for index in start / BLOCK..end.div_ceil(BLOCK) {
            let block = sequence.kv.block_mut(index).ok_or_else(other_cache)?;
            let from = start.max(index * BLOCK);
            let rows = end.min((index + 1) * BLOCK) - from;
            let numbers = row * g * d..(row + rows) * g * d;
            let at = from % BLOCK;
            kernel::append_keys(g, d, &k[numbers.clone()], at, slice_mut(block, &keys));
            kernel::append_values(g, d, &v[numbers], at, slice_mut(block, &values));
            row += rows;
        }
    }
    Ok(())
}

/// Where keys or values lie in a block, and where their scales.
type Place = [Range<usize>; 2];

fn places(kv: &KvCache, layer: usize) -> (Place, Place) {
    let ((keys, values), (key_scales, value_scales)) = (kv.ranges(layer), kv.scale_ranges(layer));
    ([keys, key_scales], [values, value_scales])
}

fn slice_mut<'a>(block: &'a mut Block, [numbers, scales]: &Place) -> KvSliceMut<'a> {
    match block {
        Block::F32(x) => KvSliceMut::F32(&mut x[numbers.clone()]),
        Block::F16(x) => KvSliceMut::F16(&mut x[numbers.clone()]),
        Block::I8(x, s) => KvSliceMut::I8(&mut x[numbers.clone()], &mut s[scales.clone()]),
    }
}

fn slice<'a>(block: &'a Block, [numbers, scales]: &Place) -> KvSlice<'a> {
    match block {
        Block::F32(x) => KvSlice::F32(&x[numbers.clone()]),
        Block::F16(x) => KvSlice::F16(&x[numbers.clone()]),
        Block::I8(x, s) => KvSlice::I8(&x[numbers.clone()], &s[scales.clone()]),
    }
}

/// A cache as the kernel sees it, for `len` queries from the position `start` on.
pub(super) fn view(kv: &KvCache, layer: usize, start: usize, len: usize) -> Result<SequenceKv<'_>> {
    let blocks = kv.as_blocks().ok_or_else(other_cache)?;
    let (keys, values) = places(kv, layer);
    Ok(SequenceKv {
        keys: blocks.iter().map(|b| slice(b, &keys)).collect(),
        values: blocks.iter().map(|b| slice(b, &values)).collect(),
        start,
        len,
    })
}

fn composed(spec: &AttentionSpec, layer: usize, q: &Tensor, batch: &mut Batch) -> Result<Tensor> {
    let mut outs = Vec::new();
    let mut row = 0;
    for sequence in batch.sequences() {
        let (start, len) = (sequence.start, sequence.len);
        let scores = composed_scores(spec, layer, q, row..row + len, sequence.kv, start + len)?;
        let mask = Tensor::from_vec(mask(spec, start, len, start + len), (1, len, start + len), q.device())?;
        outs.push(composed_sums(spec, layer, &scores.broadcast_add(&mask)?, sequence.kv)?);
        row += len;
    }
    Ok(Tensor::cat(&outs, 0)?)
}

/// Scores of some rows of `q` against the first `end` positions of a cache: `[h, rows, end]` in f32.
pub(super) fn composed_scores(
    spec: &AttentionSpec,
    layer: usize,
    q: &Tensor,
    rows: Range<usize>,
    kv: &KvCache,
    end: usize,
) -> Result<Tensor> {
    let (keys, _) = kv.layer_tensors(layer).ok_or_else(other_cache)?;
    let q = heads(q, rows.start, rows.len(), spec.heads, spec.head_dim)?;
    let keys = repeated(spec, keys, end)?.t()?.contiguous()?;
    let scores = (q.matmul(&keys)? * f64::from(spec.scale))?.to_dtype(DType::F32)?;
    Ok(match spec.softcap {
        Some(cap) => ((scores / f64::from(cap))?.tanh()? * f64::from(cap))?,
        None => scores,
    })
}

/// The values' sums under the softmax of scores `[h, rows, end]`: `[rows, h · d]`.
pub(super) fn composed_sums(
    spec: &AttentionSpec,
    layer: usize,
    scores: &Tensor,
    kv: &KvCache,
) -> Result<Tensor> {
    let (h, rows, end) = scores.dims3()?;
    let (_, values) = kv.layer_tensors(layer).ok_or_else(other_cache)?;
    let weights = candle_nn::ops::softmax(scores, D::Minus1)?;
    let out = weights.to_dtype(values.dtype())?.matmul(&repeated(spec, values, end)?)?;
    Ok(out.transpose(0, 1)?.reshape((rows, h * spec.head_dim))?)
}

/// Rows of `x [t, heads · d]` as `[heads, rows, d]`.
fn heads(x: &Tensor, row: usize, rows: usize, heads: usize, d: usize) -> Result<Tensor> {
    Ok(x.narrow(0, row, rows)?.reshape((rows, heads, d))?.transpose(0, 1)?.contiguous()?)
}

/// The first positions of keys or values, once for each query head: `[h, end, d]`.
fn repeated(spec: &AttentionSpec, x: &Tensor, end: usize) -> Result<Tensor> {
    let (h, g, d) = (spec.heads, spec.kv_heads, spec.head_dim);
    let x = x.narrow(1, 0, end)?.unsqueeze(1)?.expand((g, h / g, end, d))?;
    Ok(x.reshape((h, end, d))?.contiguous()?)
}

/// 0 where a query sees a position, -inf where it does not: `[len, end]`.
fn mask(spec: &AttentionSpec, start: usize, len: usize, end: usize) -> Vec<f32> {
    let sees = |p: usize, s: usize| (!spec.causal || s <= p) && spec.window.is_none_or(|w| s + w > p);
    (start..start + len)
        .flat_map(|p| (0..end).map(move |s| if sees(p, s) { 0.0 } else { f32::NEG_INFINITY }))
        .collect()
}

pub(super) fn other_cache() -> Error {
    Error::Input("the KV cache was made for another way of running ops".into())
}
