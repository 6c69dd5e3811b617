//! GGUF, one file or many: the header is checked whole before any tensor is handed out.
//!
//! Source: the GGUF specification in ggml's `docs/gguf.md`, versions 2 and 3, little-endian.

pub(super) mod cursor;
pub(super) mod kinds;
mod metadata;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use self::cursor::{Cursor, Fault};
pub use self::kinds::type_number;
pub use self::metadata::{Array, Metadata, Value};
use super::{Format, MappedBytes, Stored};
use crate::{Error, Result};

const MAGIC: &[u8; 4] = b"GGUF";
const ALIGNMENT_KEY: &str = "general.alignment";
const ALIGNMENT: usize = 32;
/// Dimensions that ggml, and so the format, knows.
const MAX_DIMS: u32 = 4;
const SPLIT_NO: &str = "split.no";
const SPLIT_COUNT: &str = "split.count";
const SPLIT_TENSORS: &str = "split.tensors.count";

/// A GGUF checkpoint: what it says about the model, and the tensors, in place.
///
/// Shapes are row-major, so a matrix is `[out, in]`; the file itself lists dimensions fastest first.
///
/// ```no_run
/// use candle_engine::weights::gguf::Gguf;
///
/// let file = Gguf::open("model.gguf".as_ref())?;
/// println!("{:?}", file.metadata().str("general.architecture"));
/// for tensor in file.tensors() {
///     println!("{} {:?} {}", tensor.name, tensor.shape, tensor.format);
/// }
/// # Ok::<(), candle_engine::Error>(())
/// ```
#[derive(Debug)]
pub struct Gguf {
    metadata: Metadata,
    tensors: BTreeMap<String, Stored>,
}

impl Gguf {
    /// Opens a `.gguf` file; given the first of several shards (`…-00001-of-0000N.gguf`), all of them.
    ///
    /// Errors: `Io` naming a file that cannot be opened; `Malformed` naming the file and the key or tensor.
    pub fn open(path: &Path) -> Result<Self> {
        let mut first = Self::read(path, MappedBytes::open(path)?)?;
        let count = first.metadata.u64(SPLIT_COUNT).unwrap_or(1);
        if count <= 1 {
            return Ok(first);
        }
        let prefix = shard_prefix(path, &first.metadata, count)?;
        for no in 1..count {
            let path = shard_path(path, &prefix, no, count);
            if !path.is_file() {
                return Err(Error::malformed(&path, format!("shard {} of {count} is missing", no + 1)));
            }
            let shard = Self::read(&path, MappedBytes::open(&path)?)?;
            let found = (shard.metadata.u64(SPLIT_NO), shard.metadata.u64(SPLIT_COUNT));
            if found != (Some(no), Some(count)) {
                return Err(Error::malformed(
                    &path,
                    format!(
                        "expected `{SPLIT_NO}` {no} and `{SPLIT_COUNT}` {count}, got {} and {}",
                        or_none(found.0),
                        or_none(found.1)
                    ),
                ));
            }
            for (name, stored) in shard.tensors {
                if first.tensors.contains_key(&name) {
                    return Err(Error::malformed(
                        &path,
                        format!("tensor `{name}` is in an earlier shard too"),
                    ));
                }
                first.tensors.insert(name, stored);
            }
        }
        match first.metadata.u64(SPLIT_TENSORS) {
            Some(claimed) if claimed != first.tensors.len() as u64 => Err(Error::malformed(
                path,
                format!("`{SPLIT_TENSORS}` is {claimed}, the shards hold {}", first.tensors.len()),
            )),
            _ => Ok(first),
        }
    }

    /// Reads a checkpoint that is in memory already, such as one compiled into the program.
    ///
    /// Errors: `Malformed` with `name` for the file, also for one shard of several.
    pub fn from_bytes(name: &str, bytes: MappedBytes) -> Result<Self> {
        let all = Self::read(Path::new(name), bytes)?;
        match all.metadata.u64(SPLIT_COUNT) {
            Some(count) if count > 1 => {
                Err(Error::malformed(name, format!("this is one of {count} shards, open them as files")))
            }
            _ => Ok(all),
        }
    }

    /// What the file says about the model.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors in order of their names.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &Stored> {
        self.tensors.values()
    }

    fn read(path: &Path, file: MappedBytes) -> Result<Self> {
        let bad = |what: String| Error::malformed(path, what);
        let mut at = Cursor::new(&file);
        let (tensor_count, entries) = preamble(&mut at).map_err(|e| bad(e.0))?;
        let metadata = Metadata::read(&mut at, entries, file.clone()).map_err(|e| bad(e.0))?;
        let alignment = alignment(&metadata).map_err(|e| bad(e.0))?;

        // Not `with_capacity`: the count is only a claim, each tensor read proves itself.
        let mut infos = Vec::new();
        for i in 0..tensor_count {
            infos.push(
                Info::read(&mut at)
                    .map_err(|e| bad(format!("tensor {} of {tensor_count}: {}", i + 1, e.0)))?,
            );
        }
        let data = at.position().checked_next_multiple_of(alignment).unwrap_or(usize::MAX);
        let available = file.len().saturating_sub(data);

        let mut ends = Vec::with_capacity(infos.len());
        let mut tensors = BTreeMap::new();
        for info in infos {
            let named = |what: String| bad(format!("tensor `{}`: {what}", info.name));
            let (format, shape, from, length) = info.resolve(alignment).map_err(|e| named(e.0))?;
            let to = from.checked_add(length).filter(|&to| to <= available).ok_or_else(|| {
                named(format!(
                    "truncated: its {length} bytes lie at {from} of the data, the file holds {available} bytes of data"
                ))
            })?;
            ends.push((from, to, info.name.clone()));
            let bytes = aligned(file.slice(data + from..data + to), format);
            let stored = Stored { name: info.name.clone(), bytes, shape, format };
            if tensors.insert(info.name.clone(), stored).is_some() {
                return Err(named("appears twice".into()));
            }
        }
        ends.sort();
        for pair in ends.windows(2) {
            if pair[1].0 < pair[0].1 {
                return Err(bad(format!("tensors `{}` and `{}` overlap", pair[0].2, pair[1].2)));
            }
        }
        Ok(Self { metadata, tensors })
    }
}

weights_in_map!(Gguf);

/// Magic and version; returns the claimed numbers of tensors and of metadata entries.
fn preamble(at: &mut Cursor) -> Result<(u64, u64), Fault> {
    let magic = at.take(MAGIC.len() as u64, "the magic")?;
    if magic != MAGIC {
        return Err(Fault(format!("expected the magic `GGUF`, got `{}`", magic.escape_ascii())));
    }
    let version = at.u32("the version")?;
    match version {
        2 | 3 => {}
        _ if version & 0xffff == 0 && version != 0 => {
            return Err(Fault(format!(
                "a big-endian file (version {}), only little-endian is supported",
                version.swap_bytes()
            )));
        }
        _ => return Err(Fault(format!("expected GGUF version 2 or 3, got {version}"))),
    }
    Ok((at.u64("the tensor count")?, at.u64("the metadata count")?))
}

fn alignment(metadata: &Metadata) -> Result<usize, Fault> {
    let Some(value) = metadata.get(ALIGNMENT_KEY) else {
        return Ok(ALIGNMENT);
    };
    metadata
        .u64(ALIGNMENT_KEY)
        .and_then(|n| usize::try_from(n).ok())
        .filter(|n| n.is_power_of_two())
        .ok_or_else(|| Fault(format!("key `{ALIGNMENT_KEY}`: expected a power of two, got {value}")))
}

/// A tensor as the header describes it, not yet believed.
struct Info {
    name: String,
    dims: Vec<u64>,
    kind: u32,
    offset: u64,
}

impl Info {
    fn read(at: &mut Cursor) -> Result<Self, Fault> {
        let name = at.str("the name")?.to_owned();
        let named = |e: Fault| Fault(format!("`{name}`: {}", e.0));
        let count = at.u32("the number of dimensions").map_err(named)?;
        if count > MAX_DIMS {
            return Err(named(Fault(format!("expected at most {MAX_DIMS} dimensions, got {count}"))));
        }
        let dims = (0..count).map(|_| at.u64("a dimension")).collect::<Result<_, _>>().map_err(named)?;
        let kind = at.u32("the type").map_err(named)?;
        let offset = at.u64("the offset").map_err(named)?;
        Ok(Self { name, dims, kind, offset })
    }

    /// Format, row-major shape, offset in the data, and bytes.
    fn resolve(&self, alignment: usize) -> Result<(Format, Vec<usize>, usize, usize), Fault> {
        let format = kinds::format(self.kind)?;
        let overflow = || Fault(format!("dimensions {:?} overflow", self.dims));
        let mut shape = Vec::with_capacity(self.dims.len());
        for &d in self.dims.iter().rev() {
            if d == 0 {
                return Err(Fault(format!("dimensions {:?} hold nothing", self.dims)));
            }
            shape.push(usize::try_from(d).map_err(|_| overflow())?);
        }
        let (block, _) = format.block();
        let row = shape.last().copied().unwrap_or(1);
        if row % block != 0 {
            return Err(Fault(format!(
                "rows of {row} numbers are no multiple of {format}'s block of {block}"
            )));
        }
        let length = format.bytes(&shape).ok_or_else(overflow)?;
        let offset = usize::try_from(self.offset)
            .map_err(|_| Fault(format!("offset {} leaves the address space", self.offset)))?;
        if offset % alignment != 0 {
            return Err(Fault(format!("offset {offset} is no multiple of the alignment {alignment}")));
        }
        Ok((format, shape, offset, length))
    }
}

/// Bytes that kernels may read as numbers of `format`: the file's own, or a copy where the file was
/// written with an alignment smaller than its numbers.
fn aligned(bytes: MappedBytes, format: Format) -> MappedBytes {
    let (numbers, size) = format.block();
    let needed = if numbers == 1 { size } else { align_of::<half::f16>() };
    if bytes.as_ptr().addr().is_multiple_of(needed) {
        bytes
    } else {
        MappedBytes::from(bytes.to_vec())
    }
}

/// What stands before `-00001-of-0000N.gguf` in the first shard's name.
fn shard_prefix(path: &Path, metadata: &Metadata, count: u64) -> Result<String> {
    let no = metadata.u64(SPLIT_NO).unwrap_or(0);
    if no != 0 {
        return Err(Error::malformed(path, format!("this is shard {} of {count}, open the first", no + 1)));
    }
    let suffix = shard_suffix(0, count);
    path.file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_suffix(&suffix))
        .map(str::to_owned)
        .ok_or_else(|| {
            Error::malformed(
                path,
                format!("the first of {count} shards, so its name should end in `{suffix}`"),
            )
        })
}

fn shard_path(first: &Path, prefix: &str, no: u64, count: u64) -> PathBuf {
    first.with_file_name(format!("{prefix}{}", shard_suffix(no, count)))
}

fn shard_suffix(no: u64, count: u64) -> String {
    format!("-{:05}-of-{count:05}.gguf", no + 1)
}

fn or_none(value: Option<u64>) -> String {
    value.map_or("none".into(), |v| v.to_string())
}
