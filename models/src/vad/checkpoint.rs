//! The files that Silero's network is kept in, under one set of names.

use std::collections::BTreeMap;
use std::path::Path;

use candle_engine::weights::{ggml, GgmlVad, MappedBytes, SafeTensors, Stored, Weights};
use candle_engine::{Context, Error, Result};

use super::network::CONTEXT;
use super::{SileroVad, WINDOW};

/// What a tensor is called here, in the state of the published model, and in its file for 16 kHz alone.
const NAMES: [(&str, &str, &str); 15] = [
    ("stft.weight", "stft.forward_basis_buffer", "stft_conv.weight"),
    ("encoder.0.weight", "encoder.0.reparam_conv.weight", "conv1.weight"),
    ("encoder.0.bias", "encoder.0.reparam_conv.bias", "conv1.bias"),
    ("encoder.1.weight", "encoder.1.reparam_conv.weight", "conv2.weight"),
    ("encoder.1.bias", "encoder.1.reparam_conv.bias", "conv2.bias"),
    ("encoder.2.weight", "encoder.2.reparam_conv.weight", "conv3.weight"),
    ("encoder.2.bias", "encoder.2.reparam_conv.bias", "conv3.bias"),
    ("encoder.3.weight", "encoder.3.reparam_conv.weight", "conv4.weight"),
    ("encoder.3.bias", "encoder.3.reparam_conv.bias", "conv4.bias"),
    ("input.weight", "decoder.rnn.weight_ih", "lstm_cell.weight_ih"),
    ("input.bias", "decoder.rnn.bias_ih", "lstm_cell.bias_ih"),
    ("hidden.weight", "decoder.rnn.weight_hh", "lstm_cell.weight_hh"),
    ("hidden.bias", "decoder.rnn.bias_hh", "lstm_cell.bias_hh"),
    ("head.weight", "decoder.decoder.2.weight", "final_conv.weight"),
    ("head.bias", "decoder.decoder.2.bias", "final_conv.bias"),
];

/// What the names of the published model begin with, where it holds a network for 8 kHz as well.
const PREFIX: &str = "_model.";

/// The tensors of the network, by the names that are used here.
pub(super) struct Tensors(BTreeMap<String, Stored>);

impl Tensors {
    /// Finds them among those of a file, whichever names it has.
    ///
    /// Errors: `MissingTensor`.
    pub fn find(file: &dyn Weights) -> Result<Self> {
        let (_, published, alone) = NAMES[0];
        let is_alone = file.contains(alone);
        let prefix = if file.contains(published) { "" } else { PREFIX };
        let mut found = BTreeMap::new();
        for (ours, published, alone) in NAMES {
            let name = if is_alone { alone.to_owned() } else { format!("{prefix}{published}") };
            found.insert(ours.to_owned(), file.get(&name)?);
        }
        Ok(Self(found))
    }

    /// How many numbers a tensor has.
    pub fn count(&self, name: &str) -> usize {
        self.0[name].shape.iter().product()
    }

    /// Gives a tensor the shape that it is used in: files differ in dimensions of 1.
    ///
    /// Errors: `ShapeMismatch`.
    pub fn reshape(&mut self, name: &str, shape: &[usize]) -> Result<()> {
        let beyond_one = |shape: &[usize]| shape.iter().copied().filter(|&d| d != 1).collect::<Vec<_>>();
        if let Some(stored) = self.0.get_mut(name) {
            if beyond_one(&stored.shape) == beyond_one(shape) {
                stored.shape = shape.to_vec();
            } else {
                stored.clone().expect(shape)?;
            }
        }
        Ok(())
    }
}

impl Weights for Tensors {
    fn get(&self, name: &str) -> Result<Stored> {
        self.0.get(name).cloned().ok_or_else(|| Error::MissingTensor { name: name.into() })
    }

    fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

impl SileroVad {
    /// Opens a file: safetensors with the tensors of the published model, or of its part for 16 kHz alone; or
    /// whisper.cpp's `ggml-silero-*.bin`.
    ///
    /// Errors: `Io`, `Malformed`, `MissingTensor`, `ShapeMismatch`, `Tensor`, each naming the file, and the tensor.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if let Some(kind @ ("onnx" | "jit" | "pt" | "pth")) = path.extension().and_then(|e| e.to_str()) {
            let what = format!("expected safetensors, or a ggml-silero-*.bin of whisper.cpp's, got .{kind}");
            return Err(Error::malformed(path, what));
        }
        let bytes = MappedBytes::open(path)?;
        let name = path.display().to_string();
        if bytes.starts_with(&ggml::MAGIC) {
            return Self::from_ggml(&GgmlVad::from_bytes(&name, bytes)?).at(&name);
        }
        Self::new(&SafeTensors::from_bytes(&name, bytes)?).at(&name)
    }

    /// The network in a file of whisper.cpp's.
    ///
    /// Errors: as [`Self::new`]; `Config` for windows of another size.
    pub fn from_ggml(file: &GgmlVad) -> Result<Self> {
        for (key, got, expected) in
            [("window_size", file.window(), WINDOW), ("context_size", file.context(), CONTEXT)]
        {
            if got != expected {
                return Err(Error::config(key, format!("expected {expected} samples, got {got}")));
            }
        }
        Self::new(file)
    }

    /// The network of a checkpoint with the names of the published model, with or without `_model.` before them, or
    /// those of its part for 16 kHz alone.
    ///
    /// Errors: `MissingTensor`, `ShapeMismatch`, `Tensor`, each naming the tensor.
    pub fn new(file: &dyn Weights) -> Result<Self> {
        Self::build(Tensors::find(file)?)
    }
}
