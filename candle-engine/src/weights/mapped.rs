//! Bytes of a mapped file, shared and sliced without a copy.

use std::fs::File;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use crate::{Error, Result};

/// A range of a mapped file, of a constant compiled into the program, or of a buffer.
///
/// Cloning and slicing cost a reference count. The file must not be truncated while it is mapped.
#[derive(Clone)]
pub struct MappedBytes {
    source: Source,
    range: Range<usize>,
}

#[derive(Clone)]
enum Source {
    File(Arc<Mmap>),
    Constant(&'static [u8]),
    Buffer(Arc<Vec<u8>>),
}

impl MappedBytes {
    /// Maps a whole file read-only.
    ///
    /// Errors: `Io` naming the file, if it cannot be opened or mapped; `Malformed` if it is empty.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |e| Error::io(path, e);
        let file = File::open(path).map_err(io)?;
        let meta = file.metadata().map_err(io)?;
        if !meta.is_file() {
            return Err(Error::malformed(path, "expected a file"));
        }
        if meta.len() == 0 {
            return Err(Error::malformed(path, "the file is empty"));
        }
        // SAFETY: the mapping is private and read-only. That nobody truncates a model file while it is in
        // use is the one promise that every program which maps files must ask for; it is in the type's docs.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let range = 0..map.len();
        Ok(Self { source: Source::File(Arc::new(map)), range })
    }

    /// The part `range` of these bytes.
    ///
    /// Panics if the range leaves them; readers check before they slice.
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} leaves 0..{}", self.len());
        let start = self.range.start + range.start;
        Self { source: self.source.clone(), range: start..start + range.len() }
    }

    /// Tells the system that these pages are not needed for now (after an upload to another device).
    pub fn release(&self) {
        #[cfg(unix)]
        if let Source::File(map) = &self.source {
            // SAFETY: the mapping is read-only and file-backed: dropped pages are read again when touched.
            #[allow(unsafe_code)]
            let _ = unsafe {
                map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    self.range.start,
                    self.range.len(),
                )
            };
        }
    }
}

impl From<&'static [u8]> for MappedBytes {
    fn from(bytes: &'static [u8]) -> Self {
        Self { source: Source::Constant(bytes), range: 0..bytes.len() }
    }
}

impl From<Vec<u8>> for MappedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { source: Source::Buffer(Arc::new(bytes)), range }
    }
}

impl Deref for MappedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &self.source {
            Source::File(map) => map,
            Source::Constant(bytes) => bytes,
            Source::Buffer(bytes) => bytes,
        };
        &all[self.range.clone()]
    }
}

impl std::fmt::Debug for MappedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.source {
            Source::File(_) => "file",
            Source::Constant(_) => "constant",
            Source::Buffer(_) => "buffer",
        };
        write!(f, "MappedBytes({kind} {:?})", self.range)
    }
}
