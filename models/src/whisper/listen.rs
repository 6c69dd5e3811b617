//! From samples to a [`Recording`].

use std::ops::Range;

use candle_engine::audio::{Audio, Mel, FRAMES_PER_SECOND, SAMPLES_PER_FRAME};
use candle_engine::{Error, Result};

use super::{Recording, Whisper};

/// Frames that are read ahead: what is loud in the next ten minutes counts for how loud the recording is.
const AHEAD: usize = 600 * FRAMES_PER_SECOND;
/// Samples that become frames at once.
const PIECE: usize = 10 * FRAMES_PER_SECOND * SAMPLES_PER_FRAME;
/// Frames at the ends of a piece that would see the end of it.
const MARGIN: usize = 2;

/// A recording that is heard as it is read: memory does not grow with its length.
///
/// The reference measures quiet frames by the loudest of the whole recording. Here it is the loudest so far, up to ten
/// minutes ahead: the same for shorter recordings, and as good for longer ones.
pub struct Listener<'a> {
    samples: Box<dyn Iterator<Item = Result<Vec<f32>>> + 'a>,
    mels: usize,
    ahead: usize,
    duration: Option<f64>,
    /// Samples that are not frames yet, and those before them that the next frame sees.
    pending: Vec<f32>,
    /// Of the pending samples, the frames that were handed on already.
    done: usize,
    /// Logarithms `[frames, mels]`, those that were forgotten not counted.
    logarithms: Vec<f32>,
    forgotten: usize,
    loudest: f32,
    ended: bool,
}

impl Whisper {
    /// Hears a file or a stream.
    pub fn listen(&self, audio: Audio) -> Listener<'static> {
        let duration = audio.duration();
        Listener { duration, ..self.listen_to(audio) }
    }

    /// Hears pieces of samples: 16 kHz, one channel, in −1..1.
    pub fn listen_to<'a>(&self, samples: impl Iterator<Item = Result<Vec<f32>>> + 'a) -> Listener<'a> {
        Listener {
            samples: Box::new(samples),
            mels: self.config().mels,
            ahead: AHEAD,
            duration: None,
            pending: Vec::new(),
            done: 0,
            logarithms: Vec::new(),
            forgotten: 0,
            loudest: f32::NEG_INFINITY,
            ended: false,
        }
    }
}

impl Listener<'_> {
    /// Reads no further than it has to: for somebody who speaks while he is heard.
    pub fn live(self) -> Self {
        Self { ahead: 0, ..self }
    }

    fn known(&self) -> usize {
        self.forgotten + self.logarithms.len() / self.mels
    }

    fn read(&mut self) -> Result<()> {
        while !self.ended && self.pending.len() < PIECE {
            match self.samples.next() {
                Some(samples) => self.pending.extend(samples?),
                None => self.ended = true,
            }
        }
        let mut end = self.pending.len() / SAMPLES_PER_FRAME;
        if self.ended {
            // The reference goes on with silence.
            self.pending.resize((end + MARGIN) * SAMPLES_PER_FRAME, 0.0);
        } else {
            end -= MARGIN;
        }
        let mel = Mel::logarithms(&self.pending, self.mels);
        let new = &mel.data[self.done * self.mels..end * self.mels];
        self.loudest = new.iter().copied().fold(self.loudest, f32::max);
        self.logarithms.extend_from_slice(new);
        let keep = end.saturating_sub(MARGIN);
        self.pending.drain(..keep * SAMPLES_PER_FRAME);
        self.done = end - keep;
        Ok(())
    }

    /// As the model wants it: no more than 80 dB below the loudest, and around 0.
    fn normalized(&self, numbers: Vec<f32>) -> Vec<f32> {
        let mut mel = Mel { n_mels: self.mels, frames: numbers.len() / self.mels, data: numbers };
        mel.normalize(if self.loudest.is_finite() { self.loudest } else { SILENCE });
        mel.data
    }
}

/// The logarithm of no sound at all.
const SILENCE: f32 = -10.0;

impl Recording for Listener<'_> {
    fn mels(&self) -> usize {
        self.mels
    }

    fn frames_until(&mut self, end: usize) -> Result<usize> {
        while !self.ended && self.known() < end.saturating_add(self.ahead) {
            self.read()?;
        }
        Ok(self.known().min(end))
    }

    fn frames(&mut self, range: Range<usize>) -> Result<Vec<f32>> {
        let place = |frame: usize| Some(frame.checked_sub(self.forgotten)? * self.mels);
        let found = place(range.start).zip(place(range.end));
        let found = found.and_then(|(from, to)| self.logarithms.get(from..to));
        let missing =
            || Error::Input(format!("frames {range:?}: known are {}..{}", self.forgotten, self.known()));
        Ok(self.normalized(found.ok_or_else(missing)?.to_vec()))
    }

    fn forget(&mut self, before: usize) {
        let frames = before.min(self.known()).saturating_sub(self.forgotten);
        self.logarithms.drain(..frames * self.mels);
        self.forgotten += frames;
    }

    fn silence(&self) -> f32 {
        self.normalized(vec![SILENCE; self.mels])[0]
    }

    fn duration(&self) -> Option<f64> {
        self.duration
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(samples: &[f32], piece: usize, ahead: usize) -> Listener<'_> {
        Listener {
            samples: Box::new(samples.chunks(piece).map(|piece| Ok(piece.to_vec()))),
            mels: 80,
            ahead,
            duration: None,
            pending: Vec::new(),
            done: 0,
            logarithms: Vec::new(),
            forgotten: 0,
            loudest: f32::NEG_INFINITY,
            ended: false,
        }
    }

    #[test]
    fn pieces_give_the_spectrogram_of_the_whole() {
        let seconds = 37;
        let samples: Vec<f32> = (0..seconds * 16_000 + 77).map(|i| (i as f32 * 0.05).sin() * 0.3).collect();
        let mut padded = samples.clone();
        padded.resize(samples.len() + 16_000, 0.0);
        let mut whole = Mel::logarithms(&padded, 80);
        whole.data.truncate(samples.len() / SAMPLES_PER_FRAME * 80);
        let loudest = whole.loudest();
        whole.normalize(loudest);
        for piece in [100, 16_000, 999_999] {
            let mut heard = listener(&samples, piece, AHEAD);
            assert_eq!(heard.frames_until(50).unwrap(), 50);
            assert_eq!(heard.frames_until(usize::MAX).unwrap(), seconds * 100);
            let frames = heard.frames(0..seconds * 100).unwrap();
            let worst = frames.iter().zip(&whole.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-4, "{piece}: {worst}");
            heard.forget(3000);
            assert_eq!(heard.frames(3000..3001).unwrap(), frames[3000 * 80..3001 * 80]);
            assert!(heard.frames(2999..3001).is_err() && heard.frames(3600..3701).is_err());
        }
    }

    #[test]
    fn nothing_and_next_to_nothing_are_no_frames() {
        for samples in [&[][..], &[0.5], &[0.0; 159]] {
            let mut heard = listener(samples, 100, AHEAD);
            assert_eq!(heard.frames_until(3000).unwrap(), 0);
            assert_eq!(heard.silence(), -1.5);
        }
        let mut heard = listener(&[0.0; 160], 100, 0);
        assert_eq!(heard.frames_until(3000).unwrap(), 1);
        assert_eq!(heard.frames(0..1).unwrap(), [-1.5; 80]);
    }

    #[test]
    fn memory_does_not_grow_with_the_length() {
        let pieces = (0..360).map(|_| Ok(vec![0.1; 160_000])); // an hour
        let mut heard = Listener { samples: Box::new(pieces), ..listener(&[], 1, 0) };
        for start in (0..360_000).step_by(3000) {
            assert_eq!(heard.frames_until(start + 3000).unwrap(), start + 3000);
            heard.forget(start + 3000);
            assert!(heard.logarithms.len() <= 80 * 4000 && heard.pending.len() <= 2 * PIECE);
        }
    }
}
