//! Log-mel spectrograms, equal to those that Whisper was trained on.

use std::sync::{Mutex, PoisonError};

use super::SAMPLE_RATE;
use crate::kernels::log_mel::{self, MelBank, BINS, FRAME, HOP};

/// Frames per second of a spectrogram.
pub const FRAMES_PER_SECOND: usize = SAMPLE_RATE as usize / HOP;

/// Samples from one frame to the next.
pub const SAMPLES_PER_FRAME: usize = HOP;

/// Decades below the loudest that a spectrogram keeps.
const RANGE: f32 = 8.0;

/// A spectrogram on the mel scale.
#[derive(Debug, Clone, PartialEq)]
pub struct Mel {
    /// Bands.
    pub n_mels: usize,
    /// Frames, [`FRAMES_PER_SECOND`] of them a second.
    pub frames: usize,
    /// `[frames, n_mels]`: a frame's bands side by side. (The reference has a band's frames side by side.)
    pub data: Vec<f32>,
}

/// Computes the spectrogram that Whisper hears.
///
/// y = (max(log₁₀ mel, max(log₁₀ mel) − 8) + 4) / 4, each frame centred on its sample, the signal mirrored at its ends.
///
/// Shapes: `samples`, 16 kHz, in −1..1 → `samples.len() / 160` frames of `n_mels` (80; 128 from large-v3 on).
/// For a window of 30 seconds pad the samples with zeros to 480 000, as the reference does.
/// Source: openai-whisper, `log_mel_spectrogram`; transformers, `WhisperFeatureExtractor`.
///
/// ```
/// use candle_engine::audio::log_mel;
///
/// let tone: Vec<f32> = (0..16_000).map(|i| (i as f32 * 0.2).sin()).collect();
/// let mel = log_mel(&tone, 80);
/// assert_eq!((mel.frames, mel.n_mels, mel.data.len()), (100, 80, 8000));
/// ```
///
/// # Panics
///
/// If `n_mels` is 0.
pub fn log_mel(samples: &[f32], n_mels: usize) -> Mel {
    let mut mel = Mel::logarithms(samples, n_mels);
    mel.normalize(mel.loudest());
    mel
}

impl Mel {
    /// The decimal logarithms alone, at least −10: [`log_mel()`] before [`Mel::normalize`].
    ///
    /// # Panics
    ///
    /// If `n_mels` is 0.
    pub fn logarithms(samples: &[f32], n_mels: usize) -> Self {
        let frames = samples.len() / HOP;
        let mut data = vec![0.0; frames * n_mels];
        if frames > 0 {
            let bank = bank(n_mels);
            log_mel::log_mel(&bank, &mirrored(samples), &mut data);
        }
        Self { n_mels, frames, data }
    }

    /// The largest number, −∞ if there is none.
    pub fn loudest(&self) -> f32 {
        self.data.iter().copied().fold(f32::NEG_INFINITY, f32::max)
    }

    /// Raises logarithms to no less than eight below `loudest`, and brings them to about −1..1.
    pub fn normalize(&mut self, loudest: f32) {
        let least = loudest - RANGE;
        for y in &mut self.data {
            *y = (y.max(least) + 4.0) / 4.0;
        }
    }
}

/// The samples between half a frame of their mirror images; where these end too soon, zeros.
fn mirrored(samples: &[f32]) -> Vec<f32> {
    const HALF: usize = FRAME / 2;
    let mirror = |i: usize| samples.get(i).copied().unwrap_or(0.0);
    let mut x = Vec::with_capacity(samples.len() + FRAME);
    x.extend((1..=HALF).rev().map(mirror));
    x.extend_from_slice(samples);
    x.extend((0..HALF).map(|i| samples.len().checked_sub(i + 2).map_or(0.0, mirror)));
    x
}

/// The filters of so many bands; those used before are kept.
fn bank(n_mels: usize) -> std::sync::Arc<MelBank> {
    static BANKS: Mutex<Vec<std::sync::Arc<MelBank>>> = Mutex::new(Vec::new());
    let mut banks = BANKS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(bank) = banks.iter().find(|bank| bank.n_mels() == n_mels) {
        return bank.clone();
    }
    let rows = filters(n_mels);
    let bank = std::sync::Arc::new(MelBank::new(rows.iter().map(|row| row.as_slice())));
    banks.push(bank.clone());
    bank
}

/// Triangles that overlap by half on Slaney's mel scale from 0 to 8 kHz, each of unit area.
///
/// Shapes: `n_mels` rows of [`BINS`] weights.
/// Source: librosa, `filters.mel(htk=False, norm="slaney")`.
fn filters(n_mels: usize) -> Vec<Vec<f32>> {
    assert!(n_mels > 0, "a spectrogram has bands");
    let top = f64::from(SAMPLE_RATE) / 2.0;
    let edge = |i: usize| mel_to_hertz(hertz_to_mel(top) * i as f64 / (n_mels + 1) as f64);
    let bin = |i: usize| top * i as f64 / (BINS - 1) as f64;
    let row = |m: usize| {
        let [low, mid, high] = [edge(m), edge(m + 1), edge(m + 2)];
        let weight = |f: f64| ((f - low) / (mid - low)).min((high - f) / (high - mid)).max(0.0);
        (0..BINS).map(|i| (weight(bin(i)) * 2.0 / (high - low)) as f32).collect()
    };
    (0..n_mels).map(row).collect()
}

/// Where Slaney's scale turns from linear to logarithmic, in hertz and in mels, and its mels per unit of logarithm:
/// 27 of them for a factor of 6.4.
const TURN: (f64, f64) = (1000.0, 15.0);
const LINEAR: f64 = TURN.0 / TURN.1;

fn mels_per_log() -> f64 {
    27.0 / 6.4f64.ln()
}

fn hertz_to_mel(hertz: f64) -> f64 {
    if hertz < TURN.0 {
        hertz / LINEAR
    } else {
        TURN.1 + (hertz / TURN.0).ln() * mels_per_log()
    }
}

fn mel_to_hertz(mel: f64) -> f64 {
    if mel < TURN.1 {
        mel * LINEAR
    } else {
        TURN.0 * ((mel - TURN.1) / mels_per_log()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_empty_signals_have_short_and_empty_spectrograms() {
        for n in [0, 1, 159] {
            assert_eq!(log_mel(&vec![0.5; n], 80), Mel { n_mels: 80, frames: 0, data: vec![] });
        }
        for n in [160, 200, 201, 319] {
            let mel = log_mel(&vec![0.5; n], 128);
            assert_eq!((mel.frames, mel.data.len()), (1, 128), "{n}");
            assert!(mel.data.iter().all(|y| y.is_finite()), "{n}");
        }
    }

    #[test]
    fn silence_is_the_floor() {
        let mel = log_mel(&[0.0; 16_000], 80);
        assert!(mel.data.iter().all(|&y| (y + 1.5).abs() < 1e-6));
    }
}
