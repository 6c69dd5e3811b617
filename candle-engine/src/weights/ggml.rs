//! whisper.cpp's files (`ggml-tiny.bin` and its like): numbers, mel filters, vocabulary and tensors one after another.
//!
//! Source: `models/convert-pt-to-ggml.py` and `whisper_model_load` of whisper.cpp.

use std::collections::BTreeMap;
use std::path::Path;

use super::ggml_vad::KIND as VAD_KIND;
use super::gguf::cursor::{Cursor, Fault};
use super::gguf::kinds;
use super::{MappedBytes, Stored};
use crate::{Error, Result};

/// The first bytes of such a file.
pub const MAGIC: [u8; 4] = 0x6767_6d6c_u32.to_le_bytes();
/// Dimensions that ggml knows.
const MAX_DIMS: u32 = 4;

/// Sizes of the model, as the file says them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names are whisper.cpp's own
pub struct Sizes {
    pub n_vocab: usize,
    pub n_audio_ctx: usize,
    pub n_audio_state: usize,
    pub n_audio_head: usize,
    pub n_audio_layer: usize,
    pub n_text_ctx: usize,
    pub n_text_state: usize,
    pub n_text_head: usize,
    pub n_text_layer: usize,
    pub n_mels: usize,
}

/// A whisper.cpp checkpoint. Its tensors have openai-whisper's names; shapes are row-major, so a matrix is `[out, in]`.
#[derive(Debug)]
pub struct Ggml {
    sizes: Sizes,
    vocabulary: Vec<Vec<u8>>,
    tensors: BTreeMap<String, Stored>,
}

impl Ggml {
    /// Opens a file.
    ///
    /// Errors: `Io` and `Malformed` naming the file, and the tensor.
    pub fn open(path: &Path) -> Result<Self> {
        let file = MappedBytes::open(path)?;
        Self::read(&file).map_err(|fault| Error::malformed(path, fault.0))
    }

    /// Reads a checkpoint that is in memory already.
    ///
    /// Errors: `Malformed` with `name` for the file.
    pub fn from_bytes(name: &str, bytes: MappedBytes) -> Result<Self> {
        Self::read(&bytes).map_err(|fault| Error::malformed(name, fault.0))
    }

    /// Sizes of the model.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// The bytes of the tokens that are text, by id: the order in which they merge. All others follow from the sizes.
    pub fn vocabulary(&self) -> &[Vec<u8>] {
        &self.vocabulary
    }

    fn read(file: &MappedBytes) -> Result<Self, Fault> {
        let mut at = begin(file)?;
        let rest = &file[at.position()..];
        if rest.starts_with(&(VAD_KIND.len() as u32).to_le_bytes()) && rest[4..].starts_with(VAD_KIND) {
            return Err(Fault("expected a Whisper model, got one that finds speech".into()));
        }
        let mut size = |what: &str| Ok(at.u32(what)? as usize);
        let sizes = Sizes {
            n_vocab: size("n_vocab")?,
            n_audio_ctx: size("n_audio_ctx")?,
            n_audio_state: size("n_audio_state")?,
            n_audio_head: size("n_audio_head")?,
            n_audio_layer: size("n_audio_layer")?,
            n_text_ctx: size("n_text_ctx")?,
            n_text_state: size("n_text_state")?,
            n_text_head: size("n_text_head")?,
            n_text_layer: size("n_text_layer")?,
            n_mels: size("n_mels")?,
        };
        size("ftype")?; // each tensor says its own
        let (bins, frequencies) = (size("the number of filters")? as u64, size("their length")? as u64);
        at.take(bins.saturating_mul(frequencies).saturating_mul(4), "the mel filters")?;
        let tokens = at.u32("the number of tokens")?;
        // Not `with_capacity`: the count is only a claim, each token read proves itself.
        let mut vocabulary = Vec::new();
        for i in 0..tokens {
            let what = format!("token {i} of {tokens}");
            let length = at.u32(&what)?;
            vocabulary.push(at.take(length.into(), &what)?.to_vec());
        }
        Ok(Self { sizes, vocabulary, tensors: tensors(&mut at, file)? })
    }
}

weights_in_map!(Ggml);

/// Behind the magic, with which files of either kind begin.
pub(super) fn begin(file: &[u8]) -> Result<Cursor<'_>, Fault> {
    let mut at = Cursor::new(file);
    let magic = at.array::<4>("the magic")?;
    if magic != MAGIC {
        return Err(Fault(format!("expected the magic `lmgg`, got `{}`", magic.escape_ascii())));
    }
    Ok(at)
}

/// All tensors up to the end of the file.
pub(super) fn tensors(at: &mut Cursor, file: &MappedBytes) -> Result<BTreeMap<String, Stored>, Fault> {
    let mut tensors = BTreeMap::new();
    while at.position() < file.len() {
        let stored = tensor(at, file)?;
        if let Some(twice) = tensors.insert(stored.name.clone(), stored) {
            return Err(Fault(format!("tensor `{}` appears twice", twice.name)));
        }
    }
    Ok(tensors)
}

/// The next tensor: dimensions fastest first, name, then its bytes wherever they come to lie.
fn tensor(at: &mut Cursor, file: &MappedBytes) -> Result<Stored, Fault> {
    let count = at.u32("a tensor's number of dimensions")?;
    // None is a single number.
    if count > MAX_DIMS {
        return Err(Fault(format!("a tensor has {count} dimensions, expected at most {MAX_DIMS}")));
    }
    let (length, kind) = (at.u32("a name's length")?, at.u32("a tensor's type")?);
    let dims: Vec<u32> = (0..count).map(|_| at.u32("a dimension")).collect::<Result<_, _>>()?;
    let name = at.take(length.into(), "a tensor's name")?;
    let name = std::str::from_utf8(name).map_err(|_| Fault("a tensor's name is not UTF-8".into()))?;
    let named = |what: String| Fault(format!("tensor `{name}`: {what}"));
    let format = kinds::format(kind).map_err(|fault| named(fault.0))?;
    let shape: Vec<usize> = dims.iter().rev().map(|&d| d as usize).collect();
    let bytes = format.bytes(&shape).filter(|&bytes| bytes > 0).ok_or_else(|| {
        named(format!("{format} of shape {shape:?} overflows, is empty or ends within a block"))
    })?;
    at.take(bytes as u64, "the numbers").map_err(|fault| named(fault.0))?;
    let bytes = file.slice(at.position() - bytes..at.position());
    Ok(Stored { name: name.to_owned(), bytes, shape, format })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{Format, Weights};

    fn file() -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for n in [7u32, 4, 2, 1, 1, 5, 2, 1, 1, 80, 1, 1, 2] {
            bytes.extend(n.to_le_bytes());
        }
        bytes.extend([0; 8]); // one filter of two numbers
        bytes.extend([2, 0, 0, 0, 1, 0, 0, 0, b'a', 2, 0, 0, 0, 0xc3, 0xa4]);
        for (name, kind, dims, data) in [("w", 1u32, &[3u32, 2][..], 12), ("bias", 0, &[2], 8)] {
            for n in [dims.len() as u32, name.len() as u32, kind].iter().chain(dims) {
                bytes.extend(n.to_le_bytes());
            }
            bytes.extend(name.as_bytes());
            bytes.extend(vec![1; data]);
        }
        bytes
    }

    #[test]
    fn reads_sizes_vocabulary_and_tensors() {
        let ggml = Ggml::from_bytes("x", file().into()).unwrap();
        assert_eq!((ggml.sizes().n_vocab, ggml.sizes().n_mels), (7, 80));
        assert_eq!(ggml.vocabulary(), [b"a".to_vec(), "ä".as_bytes().to_vec()]);
        let w = ggml.get("w").unwrap();
        assert_eq!((w.shape, w.format, w.bytes.len()), (vec![2, 3], Format::F16, 12));
        assert_eq!(ggml.names(), ["bias", "w"]);
    }

    #[test]
    fn every_truncation_and_every_changed_byte_is_harmless() {
        let whole = file();
        for end in 0..whole.len() {
            // But for an end between two tensors.
            if let Ok(ggml) = Ggml::from_bytes("x", whole[..end].to_vec().into()) {
                assert!(ggml.names().len() < 2, "{end}");
            }
        }
        for i in 0..whole.len() {
            for byte in [0, 0x7f, 0xff] {
                let mut changed = whole.clone();
                changed[i] = byte;
                let _ = Ggml::from_bytes("x", changed.into());
            }
        }
        let error = Ggml::from_bytes("file.bin", whole[..whole.len() - 1].to_vec().into()).unwrap_err();
        assert!(error.to_string().contains("file.bin: tensor `bias`: truncated"), "{error}");
    }
}
