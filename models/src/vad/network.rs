//! Silero's network for 16 kHz: a short-time spectrum, four convolutions, one LSTM cell.
//!
//! Source: `src/silero_vad/tinygrad_model.py` of silero-vad.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use candle_engine::ops::{self, Act, Exec};
use candle_engine::weights::Linear;
use candle_engine::Result;
use candle_engine_quantization::Loader;

use super::checkpoint::Tensors;
use super::WINDOW;

/// Samples before a window that it is judged by as well.
pub(super) const CONTEXT: usize = 64;
/// Samples that are mirrored behind a window.
const MIRRORED: usize = 64;
/// Samples of a frame of the spectrum, and from one to the next.
const FRAME: usize = 256;
const HOP: usize = 128;
/// Frames of a window.
const FRAMES: usize = (CONTEXT + WINDOW + MIRRORED - FRAME) / HOP + 1;
/// Steps of the convolutions: they leave one frame of the four.
const STRIDES: [usize; 4] = [1, 2, 2, 1];
/// Windows that go through the convolutions together.
const TOGETHER: usize = 256;

/// The network. Immutable: any number of recordings may share it. It runs on the CPU.
#[derive(Debug)]
pub struct SileroVad {
    /// Cosines, then sines.
    basis: Box<dyn Linear>,
    encoder: Vec<Box<dyn Linear>>,
    /// What the LSTM cell's gates take from the encoder and from the window before: input, forget, cell, output.
    input: Box<dyn Linear>,
    hidden: Box<dyn Linear>,
    head: Box<dyn Linear>,
    exec: Exec,
}

/// What the network remembers of the windows so far.
#[derive(Debug, Clone)]
pub struct VadState {
    context: [f32; CONTEXT],
    hidden: Vec<f32>,
    cell: Vec<f32>,
}

impl SileroVad {
    /// The sizes are those of the tensors, which have to fit each other.
    pub(super) fn build(mut tensors: Tensors) -> Result<Self> {
        const ENCODER: [[&str; 3]; STRIDES.len()] = [
            ["encoder.0", "encoder.0.weight", "encoder.0.bias"],
            ["encoder.1", "encoder.1.weight", "encoder.1.bias"],
            ["encoder.2", "encoder.2.weight", "encoder.2.bias"],
            ["encoder.3", "encoder.3.weight", "encoder.3.bias"],
        ];
        // At least one of each: an empty tensor fits nothing.
        let bins = (tensors.count("stft.weight") / FRAME / 2).max(1);
        tensors.reshape("stft.weight", &[2 * bins, FRAME])?;
        let mut sizes = vec![bins];
        for [_, weight, bias] in ENCODER {
            let (channels, out) = (sizes[sizes.len() - 1], tensors.count(bias).max(1));
            tensors.reshape(weight, &[out, channels, ops::CONVOLUTION_WIDTH])?;
            tensors.reshape(bias, &[out])?;
            sizes.push(out);
        }
        let (heard, hidden) = (sizes[STRIDES.len()], (tensors.count("hidden.bias") / 4).max(1));
        for (name, shape) in [
            ("input.weight", &[4 * hidden, heard][..]),
            ("input.bias", &[4 * hidden]),
            ("hidden.weight", &[4 * hidden, hidden]),
            ("hidden.bias", &[4 * hidden]),
            ("head.weight", &[1, hidden]),
            ("head.bias", &[1]),
        ] {
            tensors.reshape(name, shape)?;
        }
        let loader = Loader::new(Arc::new(tensors), Exec::cpu());
        let convolution = |([name, ..], pair): ([&str; 3], &[usize])| {
            loader.convolution(Act::Relu, name, pair[1], pair[0], ops::CONVOLUTION_WIDTH)
        };
        Ok(Self {
            basis: loader.linear("stft", 2 * bins, FRAME, false)?,
            encoder: ENCODER.into_iter().zip(sizes.windows(2)).map(convolution).collect::<Result<_>>()?,
            input: loader.linear("input", 4 * hidden, heard, true)?,
            hidden: loader.linear("hidden", 4 * hidden, hidden, true)?,
            head: loader.linear("head", 1, hidden, true)?,
            exec: loader.exec().clone(),
        })
    }

    /// What there is to remember before the first window.
    pub fn state(&self) -> VadState {
        let (_, hidden) = self.hidden.shape();
        VadState { context: [0.0; CONTEXT], hidden: vec![0.0; hidden], cell: vec![0.0; hidden] }
    }

    /// How probable speech is in each window of [`WINDOW`] samples at 16 kHz; the last may be shorter.
    ///
    /// Errors: candle's.
    pub fn probabilities(&self, samples: &[f32], state: &mut VadState) -> Result<Vec<f32>> {
        let mut found = Vec::with_capacity(samples.len().div_ceil(WINDOW));
        for samples in samples.chunks(TOGETHER * WINDOW) {
            found.extend(self.few(samples, state)?);
        }
        Ok(found)
    }

    fn few(&self, samples: &[f32], state: &mut VadState) -> Result<Vec<f32>> {
        let windows = samples.len().div_ceil(WINDOW);
        let mut frames = Vec::with_capacity(windows * FRAMES * FRAME);
        for window in samples.chunks(WINDOW) {
            let mut seen = [0.0; CONTEXT + WINDOW + MIRRORED];
            let (last, end) = (CONTEXT + WINDOW - 1, CONTEXT + window.len());
            seen[..CONTEXT].copy_from_slice(&state.context);
            seen[CONTEXT..end].copy_from_slice(window);
            for i in 1..=MIRRORED {
                seen[last + i] = seen[last - i];
            }
            state.context.copy_from_slice(&seen[WINDOW..CONTEXT + WINDOW]);
            for frame in 0..FRAMES {
                frames.extend_from_slice(&seen[frame * HOP..frame * HOP + FRAME]);
            }
        }
        let frames = Tensor::from_vec(frames, (windows * FRAMES, FRAME), &Device::Cpu)?;
        let spectrum = self.basis.forward(&frames)?.flatten_all()?.to_vec1::<f32>()?;
        let bins = self.basis.shape().0 / 2;
        let mut magnitudes = Vec::with_capacity(windows * FRAMES * bins);
        for frame in spectrum.chunks_exact(2 * bins) {
            let (cosines, sines) = frame.split_at(bins);
            magnitudes.extend(cosines.iter().zip(sines).map(|(c, s)| (c * c + s * s).sqrt()));
        }
        let mut x = Tensor::from_vec(magnitudes, (windows * FRAMES, bins), &Device::Cpu)?;
        let mut t = FRAMES;
        for (convolution, stride) in self.encoder.iter().zip(STRIDES) {
            x = convolution.forward(&ops::unfold(&self.exec, &x, t, stride, 0..windows * t / stride)?)?;
            t /= stride;
        }
        self.decode(&x, state)
    }

    /// `x [windows, heard]`, what the encoder says of each → their probabilities.
    fn decode(&self, x: &Tensor, state: &mut VadState) -> Result<Vec<f32>> {
        let size = state.hidden.len();
        let mut gates = self.input.forward(x)?.flatten_all()?.to_vec1::<f32>()?;
        let mut said = Vec::with_capacity(gates.len() / 4);
        for gates in gates.chunks_exact_mut(4 * size) {
            let before = Tensor::from_slice(&state.hidden, (1, size), &Device::Cpu)?;
            let remembered = self.hidden.forward(&before)?.flatten_all()?.to_vec1::<f32>()?;
            gates.iter_mut().zip(remembered).for_each(|(gate, more)| *gate += more);
            for i in 0..size {
                let [input, forget, cell, output] = [0, 1, 2, 3].map(|gate| gates[gate * size + i]);
                state.cell[i] = logistic(forget) * state.cell[i] + logistic(input) * cell.tanh();
                state.hidden[i] = logistic(output) * state.cell[i].tanh();
            }
            said.extend(state.hidden.iter().map(|x| x.max(0.0)));
        }
        let said = Tensor::from_vec(said, (x.dim(0)?, size), &Device::Cpu)?;
        let scores = self.head.forward(&said)?.flatten_all()?.to_vec1::<f32>()?;
        Ok(scores.into_iter().map(logistic).collect())
    }
}

fn logistic(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
