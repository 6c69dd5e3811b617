//! The key/value cache: plain data that attention and sessions share.
//!
//! On the CPU a sequence's keys and values live in blocks of [`BLOCK`] positions with reference counts, so a
//! fork shares everything up to where the two part. On other devices they are one tensor per layer.

mod batch;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use half::f16;

use crate::{memory, Result};

pub use self::batch::{Batch, Sequence};

/// Positions in one block.
pub const BLOCK: usize = 32;

/// Number format of cached keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvType {
    /// 4 bytes a number: what exact comparison wants.
    F32,
    /// 2 bytes a number: what speed and memory want.
    F16,
    /// 1 byte a number, and a scale of 4 bytes for each head and position: what long contexts want.
    I8,
}

impl KvType {
    /// Bytes of a head's keys, or values, of one position.
    pub const fn bytes(self, head_dim: usize) -> usize {
        match self {
            Self::F32 => 4 * head_dim,
            Self::F16 => 2 * head_dim,
            Self::I8 => head_dim + size_of::<f32>(),
        }
    }
}

impl std::str::FromStr for KvType {
    type Err = crate::Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "int8" => Ok(Self::I8),
            _ => Err(crate::Error::Input(format!("KV type `{s}`: expected f32, f16 or int8"))),
        }
    }
}

/// What one model's cache looks like; the same for all of its sequences.
#[derive(Debug, Clone)]
pub struct KvLayout {
    /// Decoder layers.
    pub layers: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// Number format on the CPU path.
    pub kind: KvType,
}

impl KvLayout {
    /// Bytes that one position takes in all layers.
    pub fn bytes_per_position(&self) -> usize {
        self.layers * 2 * self.kv_heads * self.kind.bytes(self.head_dim)
    }

    fn plane(&self) -> usize {
        self.kv_heads * BLOCK * self.head_dim
    }
}

/// Keys and values of [`BLOCK`] positions: per layer keys `[g, d, BLOCK]`, then values `[g, BLOCK, d]`.
#[derive(Debug, Clone)]
pub enum Block {
    /// Numbers of [`KvType::F32`].
    F32(Vec<f32>),
    /// Numbers of [`KvType::F16`].
    F16(Vec<f16>),
    /// Numbers of [`KvType::I8`], rows of a head two by two, and what each head's numbers of a position are to be
    /// multiplied by: per layer those of keys `[g, BLOCK]`, then those of values `[g, BLOCK]`.
    I8(Vec<i8>, Vec<f32>),
}

/// The cache of one sequence.
#[derive(Debug)]
pub struct KvCache {
    layout: KvLayout,
    len: usize,
    store: Store,
}

#[derive(Debug)]
enum Store {
    Blocks(Vec<Arc<Block>>),
    /// Per layer keys and values `[g, capacity, d]`.
    Tensors {
        device: Device,
        dtype: DType,
        capacity: usize,
        layers: Vec<(Tensor, Tensor)>,
    },
}

impl KvCache {
    /// An empty cache of blocks, for the CPU kernels.
    pub fn blocks(layout: KvLayout) -> Self {
        Self { layout, len: 0, store: Store::Blocks(Vec::new()) }
    }

    /// An empty cache of tensors, for ops composed of candle's.
    pub fn tensors(layout: KvLayout, device: &Device, dtype: DType) -> Self {
        let store = Store::Tensors { device: device.clone(), dtype, capacity: 0, layers: Vec::new() };
        Self { layout, len: 0, store }
    }

    /// Positions that are filled.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no position is filled.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the cache looks like.
    pub fn layout(&self) -> &KvLayout {
        &self.layout
    }

    /// Bytes held, shared blocks counted in full.
    pub fn bytes(&self) -> usize {
        let positions = match &self.store {
            Store::Blocks(blocks) => blocks.len() * BLOCK,
            Store::Tensors { capacity, .. } => *capacity,
        };
        positions * self.layout.bytes_per_position()
    }

    /// Forgets the positions from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        if let Store::Blocks(blocks) = &mut self.store {
            blocks.truncate(self.len.div_ceil(BLOCK));
        }
    }

    /// A second sequence with the same past. Blocks are shared until one of the two writes to them.
    pub fn fork(&self) -> Result<Self> {
        let store = match &self.store {
            Store::Blocks(blocks) => Store::Blocks(blocks.clone()),
            Store::Tensors { device, dtype, capacity, layers } => {
                let copy = |(k, v): &(Tensor, Tensor)| Ok((k.copy()?, v.copy()?));
                let layers = layers.iter().map(copy).collect::<Result<_>>()?;
                Store::Tensors { device: device.clone(), dtype: *dtype, capacity: *capacity, layers }
            }
        };
        Ok(Self { layout: self.layout.clone(), len: self.len, store })
    }

    /// Makes room for `new` positions after the filled ones, in blocks or tensors that nobody else holds.
    ///
    /// Errors: `OutOfMemory` before the allocation, if the system has not that much left.
    pub fn reserve(&mut self, new: usize) -> Result<()> {
        let end = self.len + new;
        let (layout, len) = (&self.layout, self.len);
        match &mut self.store {
            Store::Blocks(blocks) => {
                let missing = end.div_ceil(BLOCK).saturating_sub(blocks.len());
                memory::check("the KV cache", (missing * BLOCK * layout.bytes_per_position()) as u64)?;
                let numbers = layout.layers * 2 * layout.plane();
                blocks.extend((0..missing).map(|_| {
                    Arc::new(match layout.kind {
                        KvType::F32 => Block::F32(vec![0.0; numbers]),
                        KvType::F16 => Block::F16(vec![f16::ZERO; numbers]),
                        KvType::I8 => Block::I8(vec![0; numbers], vec![0.0; numbers / layout.head_dim]),
                    })
                }));
                for block in &mut blocks[len / BLOCK..] {
                    Arc::make_mut(block);
                }
            }
            Store::Tensors { device, dtype, capacity, layers } => {
                if end <= *capacity {
                    return Ok(());
                }
                let grown = end.next_multiple_of(256).max(*capacity * 2);
                let shape = (layout.kv_heads, grown, layout.head_dim);
                let grow = |old: Option<&Tensor>| -> Result<Tensor> {
                    let new = Tensor::zeros(shape, *dtype, device)?;
                    if let Some(old) = old {
                        new.slice_set(&old.contiguous()?, 1, 0)?;
                    }
                    Ok(new)
                };
                *layers = (0..layout.layers)
                    .map(|i| Ok((grow(layers.get(i).map(|l| &l.0))?, grow(layers.get(i).map(|l| &l.1))?)))
                    .collect::<Result<_>>()?;
                *capacity = grown;
            }
        }
        Ok(())
    }

    /// Counts `new` positions as filled: the last act of a forward pass.
    pub fn advance(&mut self, new: usize) {
        self.len += new;
    }

    /// The blocks, if this is a cache of blocks.
    pub fn as_blocks(&self) -> Option<&[Arc<Block>]> {
        match &self.store {
            Store::Blocks(blocks) => Some(blocks),
            Store::Tensors { .. } => None,
        }
    }

    /// The block of a position for writing, with the ranges of `layer`'s keys and values in it.
    ///
    /// `None` before [`Self::reserve`], for a block that is shared, or for a cache of tensors.
    pub fn block_mut(&mut self, index: usize) -> Option<&mut Block> {
        match &mut self.store {
            Store::Blocks(blocks) => blocks.get_mut(index).and_then(Arc::get_mut),
            Store::Tensors { .. } => None,
        }
    }

    /// Where `layer`'s keys and values lie in a block.
    pub fn ranges(&self, layer: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let plane = self.layout.plane();
        let from = layer * 2 * plane;
        (from..from + plane, from + plane..from + 2 * plane)
    }

    /// Where the scales of `layer`'s keys and values lie in a block of [`KvType::I8`].
    pub fn scale_ranges(&self, layer: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let plane = self.layout.kv_heads * BLOCK;
        let from = layer * 2 * plane;
        (from..from + plane, from + plane..from + 2 * plane)
    }

    /// Keys and values of a layer `[g, capacity, d]`, if this is a cache of tensors with room reserved.
    pub fn layer_tensors(&self, layer: usize) -> Option<&(Tensor, Tensor)> {
        match &self.store {
            Store::Tensors { layers, .. } => layers.get(layer),
            Store::Blocks(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> KvCache {
        KvCache::blocks(KvLayout { layers: 2, kv_heads: 1, head_dim: 4, kind: KvType::F16 })
    }

    #[test]
    fn a_fork_shares_blocks_until_it_writes() {
        let mut a = cache();
        a.reserve(40).unwrap();
        a.advance(40);
        let mut b = a.fork().unwrap();
        b.reserve(1).unwrap();
        let (a, b) = (a.as_blocks().unwrap(), b.as_blocks().unwrap());
        assert!(Arc::ptr_eq(&a[0], &b[0]), "the full block stays shared");
        assert!(!Arc::ptr_eq(&a[1], &b[1]), "the block written to is not");
    }

    #[test]
    fn truncation_frees_blocks() {
        let mut a = cache();
        a.reserve(100).unwrap();
        a.advance(100);
        assert_eq!(a.bytes(), 128 * a.layout().bytes_per_position());
        a.truncate(33);
        assert_eq!((a.len(), a.as_blocks().unwrap().len()), (33, 2));
        a.truncate(50);
        assert_eq!(a.len(), 33, "truncation never grows");
    }

    #[test]
    fn what_cannot_fit_is_refused_before_it_is_allocated() {
        let mut a = cache();
        let error = a.reserve(1 << 45).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Memory, "{error}");
    }
}
