//! Files of tensors, written piece by piece: memory does not grow with the model.

mod gguf;
mod output;
mod safetensors;
mod staged;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use candle_engine::weights::Format;
use candle_engine::{Error, Result};

use self::output::Output;

pub use self::gguf::{gguf, MetaValue};
pub use self::safetensors::safetensors;
pub use self::staged::Staged;

/// A tensor that will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its name in the file.
    pub name: String,
    /// The format of its numbers.
    pub format: Format,
    /// Dimensions, slowest first.
    pub shape: Vec<usize>,
}

/// A file's beginning, and where in the file its tensors lie.
#[derive(Debug)]
pub struct Layout {
    header: Vec<u8>,
    /// First byte and end of each.
    places: Vec<(String, u64, u64)>,
    len: u64,
}

impl Layout {
    /// Bytes of the whole file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no tensor is in it.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

/// A file that is being written. The tensors may come in any order and in pieces.
#[derive(Debug)]
pub struct Writer {
    output: Output,
    /// Where each tensor goes on, and its end.
    places: BTreeMap<String, (u64, u64)>,
    len: u64,
}

impl Writer {
    /// Begins a file.
    ///
    /// Errors: `Io` naming it.
    pub fn create(path: &Path, layout: Layout) -> Result<Self> {
        let mut output = Output::create(path)?;
        output.write(0, layout.header)?;
        let places = layout.places.into_iter().map(|(name, from, to)| (name, (from, to))).collect();
        Ok(Self { output, places, len: layout.len })
    }

    /// Appends to a tensor.
    ///
    /// Errors: `Io` naming the file; `Tensor` if the tensor was not planned, or not of that size.
    pub fn append(&mut self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let err = |what: String| Error::Tensor { name: name.into(), what };
        let (at, end) = self.places.get_mut(name).ok_or_else(|| err("was not planned".into()))?;
        let left = *end - *at;
        if bytes.len() as u64 > left {
            return Err(err(format!("{} bytes come where {left} are left", bytes.len())));
        }
        let from = *at;
        *at += bytes.len() as u64;
        self.output.write(from, bytes)
    }

    /// Ends the file; it is on the disk when this returns.
    ///
    /// Errors: `Io` naming it; `Tensor` for one that did not come whole.
    pub fn finish(self) -> Result<()> {
        if let Some((name, (at, end))) = self.places.iter().find(|(_, (at, end))| at != end) {
            return Err(Error::Tensor { name: name.clone(), what: format!("{} bytes never came", end - at) });
        }
        self.output.finish(self.len)
    }
}
