//! The header of a GGUF file. Source: ggml's `docs/gguf.md`, version 3, little-endian.

use candle_engine::weights::gguf::type_number;
use candle_engine::{Error, Result};

use super::{Layout, Planned};

const VERSION: u32 = 3;
const ALIGNMENT: u64 = 32;

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // the names are the types' own
pub enum MetaValue {
    U32(u32),
    F32(f32),
    Bool(bool),
    Str(String),
    Strs(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    /// As [`Metadata::encoded`] gives it.
    ///
    /// [`Metadata::encoded`]: candle_engine::weights::gguf::Metadata::encoded
    Encoded(Vec<u8>),
}

/// Lays metadata and tensors out.
///
/// Errors: `Tensor` for a format that GGUF has not, or rows that end within a block.
pub fn gguf(metadata: &[(String, MetaValue)], tensors: &[Planned]) -> Result<Layout> {
    let mut header = b"GGUF".to_vec();
    header.extend(VERSION.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        text(&mut header, key);
        write_value(&mut header, value);
    }
    let (mut at, mut places) = (0u64, Vec::new());
    for tensor in tensors {
        let err = |what: String| Error::Tensor { name: tensor.name.clone(), what };
        let kind = type_number(tensor.format).ok_or_else(|| err(format!("GGUF has no {}", tensor.format)))?;
        let bytes = tensor
            .format
            .bytes(&tensor.shape)
            .ok_or_else(|| err(format!("shape {:?} does not fit {}", tensor.shape, tensor.format)))?;
        text(&mut header, &tensor.name);
        header.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|&n| header.extend((n as u64).to_le_bytes()));
        header.extend(kind.to_le_bytes());
        header.extend(at.to_le_bytes());
        places.push((tensor.name.clone(), at, at + bytes as u64));
        at = (at + bytes as u64).next_multiple_of(ALIGNMENT);
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT as usize), 0);
    let start = header.len() as u64;
    places.iter_mut().for_each(|(_, from, to)| (*from, *to) = (*from + start, *to + start));
    Ok(Layout { header, places, len: start + at })
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn write_value(out: &mut Vec<u8>, value: &MetaValue) {
    const LIST: u32 = 9;
    let (u32_kind, i32_kind, f32_kind, bool_kind, str_kind) = (4u32, 5u32, 6u32, 7u32, 8u32);
    let list = |out: &mut Vec<u8>, kind: u32, len: usize| {
        out.extend(LIST.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend((len as u64).to_le_bytes());
    };
    let scalar = |out: &mut Vec<u8>, kind: u32, bytes: &[u8]| {
        out.extend(kind.to_le_bytes());
        out.extend(bytes);
    };
    match value {
        MetaValue::Encoded(bytes) => out.extend(bytes),
        MetaValue::U32(n) => scalar(out, u32_kind, &n.to_le_bytes()),
        MetaValue::F32(x) => scalar(out, f32_kind, &x.to_le_bytes()),
        MetaValue::Bool(b) => scalar(out, bool_kind, &[u8::from(*b)]),
        MetaValue::Str(s) => {
            scalar(out, str_kind, &[]);
            text(out, s);
        }
        MetaValue::Strs(all) => {
            list(out, str_kind, all.len());
            all.iter().for_each(|s| text(out, s));
        }
        MetaValue::I32s(all) => {
            list(out, i32_kind, all.len());
            all.iter().for_each(|n| out.extend(n.to_le_bytes()));
        }
        MetaValue::F32s(all) => {
            list(out, f32_kind, all.len());
            all.iter().for_each(|x| out.extend(x.to_le_bytes()));
        }
    }
}
