//! The header of a safetensors file.

use candle_engine::weights::Format;
use candle_engine::{Error, Result};
use serde_json::{json, Map, Value};

use super::{Layout, Planned};

/// Lays tensors out, those with the widest numbers first: so each is aligned, and no hole is left, which the format
/// forbids.
///
/// Errors: `Tensor` for a format that safetensors has not.
pub fn safetensors(tensors: &[Planned]) -> Result<Layout> {
    let mut order: Vec<&Planned> = tensors.iter().collect();
    order.sort_by_key(|tensor| std::cmp::Reverse(tensor.format.block().1));
    let mut header = Map::new();
    // What transformers wants to see.
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let (mut at, mut places) = (0, Vec::new());
    for tensor in order {
        let err = |what: String| Error::Tensor { name: tensor.name.clone(), what };
        let dtype =
            dtype(tensor.format).ok_or_else(|| err(format!("safetensors has no {}", tensor.format)))?;
        let bytes = tensor.format.bytes(&tensor.shape).ok_or_else(|| err("is too large".into()))? as u64;
        let entry = json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": [at, at + bytes]});
        header.insert(tensor.name.clone(), entry);
        places.push((tensor.name.clone(), at, at + bytes));
        at += bytes;
    }
    let mut json = Value::Object(header).to_string();
    json.push_str(&" ".repeat(json.len().next_multiple_of(8) - json.len()));
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend(json.as_bytes());
    let start = header.len() as u64;
    places.iter_mut().for_each(|(_, from, to)| (*from, *to) = (*from + start, *to + start));
    Ok(Layout { header, places, len: start + at })
}

fn dtype(format: Format) -> Option<&'static str> {
    Some(match format {
        Format::F64 => "F64",
        Format::F32 => "F32",
        Format::F16 => "F16",
        Format::BF16 => "BF16",
        Format::F8E4M3 => "F8_E4M3",
        Format::F8E5M2 => "F8_E5M2",
        Format::I64 => "I64",
        Format::U64 => "U64",
        Format::I32 => "I32",
        Format::U32 => "U32",
        Format::I16 => "I16",
        Format::U16 => "U16",
        Format::I8 => "I8",
        Format::U8 => "U8",
        Format::Bool => "BOOL",
        _ => return None,
    })
}
