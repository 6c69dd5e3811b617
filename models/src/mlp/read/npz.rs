//! NumPy's `.npz`: a zip file of arrays, stored or deflated.

use candle_engine::{Error, Result};

use super::array::Array;
use super::{checked, inflate, npy};
use crate::mlp::table::Table;

/// Names that arrays of inputs and of targets go by.
const INPUTS: &[&str] = &["x_train", "X_train", "x", "X", "data", "inputs", "features"];
const TARGETS: &[&str] = &["y_train", "y", "Y", "label", "labels", "target", "targets"];

/// The inputs, and the targets if there are any. A single array has them in its last column.
pub(super) fn table(bytes: &[u8], source: &str) -> Result<Table> {
    let wrong = |what: String| Error::Input(format!("{source}: {what}"));
    let entries = entries(bytes).map_err(wrong)?;
    let names: Vec<&str> = entries.iter().map(|entry| entry.name).collect();
    let find = |known: &[&str]| known.iter().find_map(|name| entries.iter().find(|e| e.name == *name));
    let array = |entry: &Entry| -> Result<Array> {
        let bytes = entry.content(bytes).map_err(|what| wrong(format!("`{}`: {what}", entry.name)))?;
        npy::array(&bytes).map_err(|what| wrong(format!("`{}`: {what}", entry.name)))
    };
    match (&entries[..], find(INPUTS), find(TARGETS)) {
        (_, Some(inputs), Some(targets)) => {
            array(inputs)?.table(source)?.with_target(targets.name, &array(targets)?.numbers)
        }
        (_, Some(only), None) | ([only], ..) => array(only)?.table(source),
        _ => Err(wrong(format!("expected arrays `x` and `y`, or one alone, got {}", names.join(", ")))),
    }
}

/// A file in the zip file.
struct Entry<'a> {
    name: &'a str,
    method: u16,
    crc: u32,
    packed: usize,
    size: usize,
    /// Where its local header begins.
    at: usize,
}

/// The central directory.
///
/// Source: PKWARE's APPNOTE, 4.3.12 and 4.3.16. NumPy uses the fields of 64 bits only beyond 4 GiB.
fn entries(bytes: &[u8]) -> Result<Vec<Entry<'_>>, String> {
    let short = || "the zip file is cut short".to_owned();
    let end = bytes.windows(4).rposition(|four| four == b"PK\x05\x06").ok_or_else(short)?;
    let comment = short_at(bytes, end + 20).ok_or_else(short)?;
    if bytes.len() != end + 22 + comment {
        return Err(short());
    }
    let count = short_at(bytes, end + 10).ok_or_else(short)?;
    let mut at = word_at(bytes, end + 16).ok_or_else(short)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        if bytes.get(at..at.saturating_add(4)) != Some(b"PK\x01\x02") {
            return Err(short());
        }
        let field = |offset| word_at(bytes, at + offset).ok_or_else(short);
        let len = |offset| short_at(bytes, at + offset).ok_or_else(short);
        let (name_len, extra, comment) = (len(28)?, len(30)?, len(32)?);
        let name = bytes.get(at + 46..at + 46 + name_len).ok_or_else(short)?;
        let name = std::str::from_utf8(name).map_err(|_| "the name of an array is no text")?;
        entries.push(Entry {
            name: name.strip_suffix(".npy").unwrap_or(name),
            method: len(10)? as u16,
            crc: field(16)? as u32,
            packed: field(20)?,
            size: field(24)?,
            at: field(42)?,
        });
        at += 46 + name_len + extra + comment;
    }
    Ok(entries)
}

impl Entry<'_> {
    fn content(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let short = || "the zip file is cut short".to_owned();
        let [name, extra] = [26, 28].map(|offset| short_at(bytes, self.at.saturating_add(offset)));
        let from = self.at + 30 + name.ok_or_else(short)? + extra.ok_or_else(short)?;
        let packed = bytes.get(from..from.saturating_add(self.packed)).ok_or_else(short)?;
        match self.method {
            0 => checked(packed, self.size, self.crc).map(|()| packed.to_vec()),
            8 => inflate(packed, self.size, self.crc),
            other => Err(format!("compression method {other} is not supported")),
        }
    }
}

fn short_at(bytes: &[u8], at: usize) -> Option<usize> {
    let two = bytes.get(at..)?.first_chunk()?;
    Some(usize::from(u16::from_le_bytes(*two)))
}

fn word_at(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*four) as usize)
}
