//! A recording as the model hears it: frames of a log-mel spectrogram, read as far as they are needed.

use std::ops::Range;

use candle_engine::{Error, Result};

pub use candle_engine::audio::FRAMES_PER_SECOND;

/// Frames of a log-mel spectrogram, known up to some point.
pub trait Recording {
    /// Bins of each frame.
    fn mels(&self) -> usize;

    /// How many frames there are, but at most `end`: a stream is read up to there.
    ///
    /// Errors: those of reading.
    fn frames_until(&mut self, end: usize) -> Result<usize>;

    /// Frames that are there: `[frames, mels]`.
    ///
    /// Errors: `Input` for frames that are not there, or no longer.
    fn frames(&mut self, range: Range<usize>) -> Result<Vec<f32>>;

    /// The next frames in `from..to` that are worth hearing, as far as they are known; `None` if no more are. All of
    /// them, unless the recording knows better; it may then forget those before.
    ///
    /// Errors: those of reading.
    fn speech(&mut self, from: usize, to: usize) -> Result<Option<Range<usize>>> {
        Ok(Some(from..to))
    }

    /// Says that no frame before this one is asked for again.
    fn forget(&mut self, before: usize) {
        let _ = before;
    }

    /// What a frame of silence is made of.
    fn silence(&self) -> f32;

    /// Seconds of the recording, if known: a hint.
    fn duration(&self) -> Option<f64> {
        None
    }
}

/// A whole spectrogram in memory.
#[derive(Debug, Clone)]
pub struct Spectrogram {
    mels: usize,
    frames: Vec<f32>,
    silence: f32,
}

impl Spectrogram {
    /// Of frames `[frames, mels]`; `silence` is what a frame without sound is made of.
    ///
    /// Errors: `Input` if these are no whole frames.
    pub fn new(mels: usize, frames: Vec<f32>, silence: f32) -> Result<Self> {
        if mels == 0 || !frames.len().is_multiple_of(mels) {
            return Err(Error::Input(format!("{} numbers are no whole frames of {mels}", frames.len())));
        }
        Ok(Self { mels, frames, silence })
    }

    fn len(&self) -> usize {
        self.frames.len() / self.mels
    }
}

impl Recording for Spectrogram {
    fn mels(&self) -> usize {
        self.mels
    }

    fn frames_until(&mut self, end: usize) -> Result<usize> {
        Ok(self.len().min(end))
    }

    fn frames(&mut self, range: Range<usize>) -> Result<Vec<f32>> {
        let found = self.frames.get(range.start * self.mels..range.end * self.mels);
        let missing = || Error::Input(format!("frames {range:?}: the recording has {}", self.len()));
        found.map(<[f32]>::to_vec).ok_or_else(missing)
    }

    fn silence(&self) -> f32 {
        self.silence
    }

    fn duration(&self) -> Option<f64> {
        Some(self.len() as f64 / FRAMES_PER_SECOND as f64)
    }
}
