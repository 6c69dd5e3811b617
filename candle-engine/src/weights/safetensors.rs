//! safetensors, single or sharded: a JSON header that is checked whole before any tensor is handed out.
//!
//! Source: the format's specification (8-byte little-endian header length, JSON header, data).

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::Deserialize;

use super::{Format, MappedBytes, Stored};
use crate::{Error, Result};

/// The index that names the shard of every tensor.
pub const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
const LENGTH_BYTES: usize = 8;

/// A safetensors checkpoint.
///
/// ```
/// use candle_engine::weights::{Format, SafeTensors, Weights};
///
/// let header = br#"{"w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}"#;
/// let mut file = (header.len() as u64).to_le_bytes().to_vec();
/// file.extend(header);
/// file.extend([0u8; 8]);
/// let weights = SafeTensors::from_bytes("example", file.into())?;
/// let w = weights.get("w")?.expect(&[1, 2])?;
/// assert_eq!((w.format, w.bytes.len()), (Format::F32, 8));
/// # Ok::<(), candle_engine::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct SafeTensors {
    tensors: BTreeMap<String, Stored>,
    metadata: BTreeMap<String, String>,
}

impl SafeTensors {
    /// Opens one `.safetensors` file, or a folder that holds `model.safetensors` or the shards that
    /// `model.safetensors.index.json` names.
    ///
    /// Errors: `NotFound` for a folder without weights; `Io` and `Malformed` naming the file.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            let mut all = Self::default();
            all.add(path, MappedBytes::open(path)?)?;
            return Ok(all);
        }
        let (single, index) = (path.join(SINGLE), path.join(INDEX));
        if single.is_file() {
            Self::open(&single)
        } else if index.is_file() {
            Self::open_sharded(path, &index)
        } else {
            Err(Error::NotFound { what: format!("{}: no {SINGLE} and no {INDEX}", path.display()) })
        }
    }

    /// Reads a checkpoint that is in memory already, such as one compiled into the program.
    ///
    /// Errors: `Malformed` with `name` for the file.
    pub fn from_bytes(name: &str, bytes: MappedBytes) -> Result<Self> {
        let mut all = Self::default();
        all.add(Path::new(name), bytes)?;
        Ok(all)
    }

    /// The strings under `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn open_sharded(dir: &Path, index: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let text = std::fs::read(index).map_err(|e| Error::io(index, e))?;
        let Index { weight_map } =
            serde_json::from_slice(&text).map_err(|e| Error::malformed(index, e.to_string()))?;
        let mut shards: Vec<&String> = weight_map.values().collect();
        shards.sort();
        shards.dedup();
        let mut all = Self::default();
        for shard in shards {
            if Path::new(shard).file_name().is_none_or(|name| name != shard.as_str()) {
                return Err(Error::malformed(index, format!("shard `{shard}` is not a plain file name")));
            }
            let path = dir.join(shard);
            if !path.is_file() {
                return Err(Error::malformed(index, format!("shard `{shard}` is missing from the folder")));
            }
            all.add(&path, MappedBytes::open(&path)?)?;
        }
        for (name, shard) in &weight_map {
            if !all.tensors.contains_key(name) {
                return Err(Error::malformed(
                    index,
                    format!("tensor `{name}` is not in its shard `{shard}`"),
                ));
            }
        }
        Ok(all)
    }

    fn add(&mut self, path: &Path, file: MappedBytes) -> Result<()> {
        let bad = |what: String| Error::malformed(path, what);
        let length: [u8; LENGTH_BYTES] = file
            .get(..LENGTH_BYTES)
            .and_then(|b| b.try_into().ok())
            .ok_or_else(|| bad(format!("{} bytes are too few for a safetensors file", file.len())))?;
        let claimed = u64::from_le_bytes(length);
        let left = file.len() - LENGTH_BYTES;
        let length = usize::try_from(claimed).ok().filter(|&n| n <= left).ok_or_else(|| {
            bad(format!("truncated or no safetensors file: the header claims {claimed} bytes, {left} follow"))
        })?;
        let start = LENGTH_BYTES + length;
        let header: Header = serde_json::from_slice(&file[LENGTH_BYTES..start])
            .map_err(|e| bad(format!("the header is not valid: {e}")))?;
        self.metadata.extend(header.metadata);

        let available = file.len() - start;
        let mut ends: Vec<(usize, usize, String)> = Vec::with_capacity(header.tensors.len());
        for (name, info) in header.tensors {
            let bad = |what: String| bad(format!("tensor `{name}`: {what}"));
            let format = format(&info.dtype).ok_or_else(|| bad(format!("unknown dtype `{}`", info.dtype)))?;
            let [from, to] = info.data_offsets;
            if from > to || to > available {
                return Err(bad(format!(
                    "truncated: its data lies at {from}..{to}, the file holds {available} bytes of data"
                )));
            }
            let needed =
                format.bytes(&info.shape).ok_or_else(|| bad(format!("shape {:?} overflows", info.shape)))?;
            if needed != to - from {
                return Err(bad(format!(
                    "{format} of shape {:?} needs {needed} bytes, its offsets span {}",
                    info.shape,
                    to - from
                )));
            }
            ends.push((from, to, name.clone()));
            let bytes = file.slice(start + from..start + to);
            let stored = Stored { name: name.clone(), bytes, shape: info.shape, format };
            if self.tensors.insert(name.clone(), stored).is_some() {
                return Err(bad("appears twice".into()));
            }
        }
        ends.sort();
        for pair in ends.windows(2) {
            if pair[1].0 < pair[0].1 {
                return Err(bad(format!("tensors `{}` and `{}` overlap", pair[0].2, pair[1].2)));
            }
        }
        Ok(())
    }
}

weights_in_map!(SafeTensors);

fn format(dtype: &str) -> Option<Format> {
    Some(match dtype {
        "F64" => Format::F64,
        "F32" => Format::F32,
        "F16" => Format::F16,
        "BF16" => Format::BF16,
        "F8_E4M3" => Format::F8E4M3,
        "F8_E5M2" => Format::F8E5M2,
        "I64" => Format::I64,
        "U64" => Format::U64,
        "I32" => Format::I32,
        "U32" => Format::U32,
        "I16" => Format::I16,
        "U16" => Format::U16,
        "I8" => Format::I8,
        "U8" => Format::U8,
        "BOOL" => Format::Bool,
        _ => return None,
    })
}

#[derive(Deserialize)]
struct Info {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// The header's entries in file order; a name that stands twice is seen twice.
struct Header {
    tensors: Vec<(String, Info)>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut header = Header { tensors: Vec::new(), metadata: BTreeMap::new() };
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        match map.next_value::<Metadata>()? {
                            Metadata::Strings(strings) => header.metadata = strings,
                            Metadata::Other(_) => {}
                        }
                    } else {
                        header.tensors.push((name, map.next_value()?));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Metadata {
    Strings(BTreeMap<String, String>),
    Other(IgnoredAny),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Weights;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 7);
        bytes
    }

    fn open(bytes: Vec<u8>) -> Result<SafeTensors> {
        SafeTensors::from_bytes("m.safetensors", bytes.into())
    }

    fn error(bytes: Vec<u8>) -> String {
        open(bytes).expect_err("must be refused").to_string()
    }

    #[test]
    fn tensors_lie_where_the_header_says() {
        let header = r#"{"__metadata__":{"format":"pt"},
            "b":{"dtype":"U8","shape":[2],"data_offsets":[8,10]},
            "a":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}"#;
        let all = open(file(header, 10)).unwrap();
        assert_eq!(all.names(), ["a", "b"]);
        assert_eq!(all.metadata()["format"], "pt");
        let a = all.get("a").unwrap();
        assert_eq!((a.shape.as_slice(), a.format, a.bytes.len()), (&[2, 2][..], Format::BF16, 8));
        assert_eq!(a.rows(1, 1).unwrap().bytes.len(), 4);
        assert!(a.rows(1, 2).is_err());
        assert!(matches!(all.get("c"), Err(Error::MissingTensor { .. })));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let one = |shape: &str, dtype: &str, offsets: &str| {
            format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        assert!(error(vec![1, 2, 3]).contains("m.safetensors: 3 bytes are too few"));
        let mut huge = (1u64 << 60).to_le_bytes().to_vec();
        huge.extend(b"{}");
        assert!(error(huge).contains("claims 1152921504606846976 bytes, 2 follow"));
        assert!(error(file("{", 0)).contains("header is not valid"));
        assert!(error(file(&one("[4]", "F32", "[0,16]"), 8)).contains("tensor `w`: truncated"));
        assert!(error(file(&one("[4]", "F32", "[8,0]"), 8)).contains("at 8..0"));
        assert!(error(file(&one("[4]", "F32", "[0,8]"), 8)).contains("needs 16 bytes, its offsets span 8"));
        assert!(error(file(&one("[4]", "Q9", "[0,8]"), 8)).contains("unknown dtype `Q9`"));
        assert!(error(file(&one("[-4]", "F32", "[0,8]"), 8)).contains("header is not valid"));
        let big = format!("[{0},{0},{0}]", u64::MAX / 2);
        assert!(error(file(&one(&big, "F32", "[0,8]"), 8)).contains("overflows"));
        let overlap = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
            "b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}}"#;
        assert!(error(file(overlap, 7)).contains("tensors `a` and `b` overlap"));
        let twice = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
            "a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
        assert!(error(file(twice, 2)).contains("tensor `a`: appears twice"));
    }
}
