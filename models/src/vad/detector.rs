//! Speech in a stream of samples.

use std::ops::Range;

use candle_engine::Result;

use super::{SileroVad, SpeechOptions, SpeechTimestamps, VadState, WINDOW};

/// Finds speech in samples as they come, in memory that does not grow with their number.
#[derive(Debug)]
pub struct SpeechDetector<'a> {
    vad: &'a SileroVad,
    state: VadState,
    timestamps: SpeechTimestamps,
    /// Samples that are no whole window yet.
    pending: Vec<f32>,
    samples: usize,
}

impl<'a> SpeechDetector<'a> {
    /// Before the first sample.
    ///
    /// Errors: those of [`SpeechOptions::validate`].
    pub fn new(vad: &'a SileroVad, options: &SpeechOptions) -> Result<Self> {
        let (state, timestamps) = (vad.state(), SpeechTimestamps::new(options)?);
        Ok(Self { vad, state, timestamps, pending: Vec::new(), samples: 0 })
    }

    /// Takes the next samples: 16 kHz, one channel, in −1..1.
    ///
    /// Errors: candle's.
    pub fn push(&mut self, samples: &[f32]) -> Result<()> {
        self.samples += samples.len();
        self.pending.extend_from_slice(samples);
        let whole = self.pending.len() / WINDOW * WINDOW;
        let found = self.vad.probabilities(&self.pending[..whole], &mut self.state)?;
        self.pending.drain(..whole);
        found.into_iter().for_each(|probability| self.timestamps.push(probability));
        Ok(())
    }

    /// Says that there are no more samples.
    ///
    /// Errors: candle's.
    pub fn finish(&mut self) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        let found = self.vad.probabilities(&pending, &mut self.state)?;
        found.into_iter().for_each(|probability| self.timestamps.push(probability));
        self.timestamps.finish(self.samples);
        Ok(())
    }

    /// The next speech of which beginning and end are certain: a range of samples.
    pub fn take(&mut self) -> Option<Range<usize>> {
        self.timestamps.take()
    }

    /// What is known of the speech so far.
    pub fn timestamps(&self) -> &SpeechTimestamps {
        &self.timestamps
    }
}
