//! whisper.cpp's files of Silero's voice activity detection (`ggml-silero-v5.1.2.bin` and its like).
//!
//! Source: `models/convert-silero-vad-to-ggml.py` of whisper.cpp.

use std::collections::BTreeMap;

use super::ggml::{begin, tensors};
use super::gguf::cursor::Fault;
use super::{MappedBytes, Stored};
use crate::{Error, Result};

/// What such a file calls itself, behind the magic that it shares with Whisper's.
pub(super) const KIND: &[u8] = b"silero-16k";
/// Numbers that follow the layers of the encoder: inputs and outputs of the LSTM and of the last convolution.
const LAST_SIZES: usize = 4;

/// A file of whisper.cpp's that finds speech. Its tensors have the names of the published model's state; shapes are
/// row-major, without dimensions of 1.
#[derive(Debug)]
pub struct GgmlVad {
    window: usize,
    context: usize,
    tensors: BTreeMap<String, Stored>,
}

impl GgmlVad {
    /// Reads a file, mapped or in memory.
    ///
    /// Errors: `Malformed` with `name` for the file, and the tensor.
    pub fn from_bytes(name: &str, bytes: MappedBytes) -> Result<Self> {
        Self::read(&bytes).map_err(|fault| Error::malformed(name, fault.0))
    }

    /// Samples of a window.
    pub fn window(&self) -> usize {
        self.window
    }

    /// Samples before a window that it is judged by as well.
    pub fn context(&self) -> usize {
        self.context
    }

    fn read(file: &MappedBytes) -> Result<Self, Fault> {
        let mut at = begin(file)?;
        let length = at.u32("the length of the model's kind")?;
        let kind = at.take(length.into(), "the model's kind").unwrap_or_default();
        if kind != KIND {
            let got = match kind.get(..KIND.len()).unwrap_or(kind) {
                [] => "none, as a Whisper model has".to_owned(),
                got => format!("`{}`", got.escape_ascii()),
            };
            return Err(Fault(format!("expected a model of the kind `{}`, got {got}", KIND.escape_ascii())));
        }
        at.array::<12>("the version")?;
        let (window, context) = (at.u32("the window")? as usize, at.u32("the context")? as usize);
        // Each tensor says its own sizes.
        let layers = at.u32("the number of layers")?;
        at.take(12 * u64::from(layers), "the layers' sizes")?;
        at.array::<{ 4 * LAST_SIZES }>("the sizes of LSTM and last convolution")?;
        Ok(Self { window, context, tensors: tensors(&mut at, file)? })
    }
}

weights_in_map!(GgmlVad);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::ggml::MAGIC;
    use crate::weights::{Ggml, Weights};

    fn file() -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(10u32.to_le_bytes());
        bytes.extend(KIND);
        for n in [5u32, 1, 2, 512, 64, 1, 9, 14, 3, 14, 11, 11, 1] {
            bytes.extend(n.to_le_bytes());
        }
        for (name, kind, dims, data) in [("w", 1u32, &[3u32, 2][..], 12), ("bias", 0, &[], 4)] {
            for n in [dims.len() as u32, name.len() as u32, kind].iter().chain(dims) {
                bytes.extend(n.to_le_bytes());
            }
            bytes.extend(name.as_bytes());
            bytes.extend(vec![1; data]);
        }
        bytes
    }

    #[test]
    fn reads_sizes_and_tensors_even_one_without_dimensions() {
        let vad = GgmlVad::from_bytes("x", file().into()).unwrap();
        assert_eq!((vad.window(), vad.context()), (512, 64));
        assert_eq!(vad.get("w").unwrap().shape, [2, 3]);
        let bias = vad.get("bias").unwrap();
        assert_eq!((bias.shape.len(), bias.bytes.len()), (0, 4));
    }

    #[test]
    fn every_truncation_and_every_changed_byte_is_harmless() {
        let whole = file();
        for end in 0..whole.len() {
            if let Ok(vad) = GgmlVad::from_bytes("x", whole[..end].to_vec().into()) {
                assert!(vad.names().len() < 2, "{end}");
            }
        }
        for i in 0..whole.len() {
            for byte in [0, 0x7f, 0xff] {
                let mut changed = whole.clone();
                changed[i] = byte;
                let _ = GgmlVad::from_bytes("x", changed.into());
            }
        }
    }

    #[test]
    fn each_kind_of_file_is_told_from_the_other() {
        let error = Ggml::from_bytes("a.bin", file().into()).unwrap_err().to_string();
        assert!(error.contains("a.bin: expected a Whisper model, got one that finds speech"), "{error}");
        let mut whisper = MAGIC.to_vec();
        whisper.extend(51_865u32.to_le_bytes());
        whisper.extend([0; 60]);
        let error = GgmlVad::from_bytes("b.bin", whisper.into()).unwrap_err().to_string();
        assert!(error.contains("b.bin: expected a model of the kind `silero-16k`, got none"), "{error}");
    }
}
