//! From samples to a [`Recording`].

use std::collections::VecDeque;
use std::ops::Range;

use candle_engine::audio::{Audio, Mel, FRAMES_PER_SECOND, SAMPLES_PER_FRAME};
use candle_engine::{Error, Result};

use super::{Recording, Whisper};
use crate::vad::{SileroVad, SpeechDetector, SpeechOptions};

/// Frames that are read ahead: what is loud in the next ten minutes counts for how loud the recording is.
const AHEAD: usize = 600 * FRAMES_PER_SECOND;
/// Samples that become frames at once.
const PIECE: usize = 10 * FRAMES_PER_SECOND * SAMPLES_PER_FRAME;
/// Frames of the longest window.
const WINDOW: usize = 30 * FRAMES_PER_SECOND;
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
    vad: Option<SpeechDetector<'a>>,
    /// Frames that are speech, and that nobody has gone beyond.
    speech: VecDeque<Range<usize>>,
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
            vad: None,
            speech: VecDeque::new(),
        }
    }
}

impl<'a> Listener<'a> {
    /// Leaves out what is no speech, as Silero's network has it.
    ///
    /// Errors: those of [`SpeechOptions::validate`].
    pub fn only_speech(self, vad: &'a SileroVad, options: &SpeechOptions) -> Result<Self> {
        Ok(Self { vad: Some(SpeechDetector::new(vad, options)?), ..self })
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
                Some(samples) => {
                    let samples = samples?;
                    if let Some(vad) = &mut self.vad {
                        vad.push(&samples)?;
                    }
                    self.pending.extend(samples);
                }
                None => self.ended = true,
            }
        }
        if let Some(vad) = &mut self.vad {
            if self.ended {
                vad.finish()?;
            }
            self.speech.extend(std::iter::from_fn(|| vad.take()).map(frames));
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

/// Frames that have a part in samples.
fn frames(samples: Range<usize>) -> Range<usize> {
    samples.start / SAMPLES_PER_FRAME..samples.end.div_ceil(SAMPLES_PER_FRAME)
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

    fn speech(&mut self, from: usize, to: usize) -> Result<Option<Range<usize>>> {
        loop {
            let Some(vad) = &self.vad else { return Ok(Some(from..to)) };
            self.speech.retain(|speech| speech.end > from);
            let going_on = vad.timestamps().going_on().map(frames);
            // What goes on is told when it fills a window, or all that is asked for.
            let going_on = going_on.filter(|speech| speech.end >= to.min(speech.start.max(from) + WINDOW));
            if let Some(speech) = self.speech.front().cloned().or(going_on) {
                let range = speech.start.max(from)..speech.end.min(to);
                return Ok((!range.is_empty()).then_some(range));
            }
            let settled = vad.timestamps().settled() / SAMPLES_PER_FRAME;
            if self.ended || settled >= to {
                return Ok(None);
            }
            self.forget(settled);
            self.read()?;
        }
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
            vad: None,
            speech: VecDeque::new(),
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

    /// A network of the right shapes, with weights of no meaning.
    fn vad() -> SileroVad {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/vad/ggml-silero.bin");
        SileroVad::open(file).unwrap()
    }

    #[test]
    fn only_speech_is_worth_hearing() {
        let vad = vad();
        let samples: Vec<f32> = (0..16_000 * 65).map(|i| (i as f32 * 0.05).sin() * 0.3).collect();
        let heard = |threshold: f32| {
            let options = SpeechOptions { threshold, ..SpeechOptions::default() };
            listener(&samples, 1000, 0).only_speech(&vad, &options).unwrap()
        };
        assert_eq!(heard(1.0).speech(0, usize::MAX).unwrap(), None, "nothing is as probable as that");
        let mut all = heard(0.0);
        let first = all.speech(0, usize::MAX).unwrap().unwrap();
        assert!(first.start == 0 && (WINDOW..6500).contains(&first.end), "{first:?}: before all is read");
        assert_eq!(all.speech(6000, usize::MAX).unwrap(), Some(6000..6500));
        assert_eq!(all.speech(6500, usize::MAX).unwrap(), None);
        let mut clip = heard(0.0);
        assert_eq!(clip.speech(100, 300).unwrap(), Some(100..300));
        assert_eq!(
            listener(&samples, 1000, 0).speech(5, 9).unwrap(),
            Some(5..9),
            "all is, without a network"
        );
    }

    #[test]
    fn memory_does_not_grow_with_a_silence() {
        let vad = vad();
        let options = SpeechOptions { threshold: 1.0, ..SpeechOptions::default() };
        let pieces = (0..60).map(|_| Ok(vec![0.1; 160_000])); // ten minutes
        let heard = Listener { samples: Box::new(pieces), ..listener(&[], 1, 0) };
        let mut heard = heard.only_speech(&vad, &options).unwrap();
        assert_eq!(heard.speech(0, usize::MAX).unwrap(), None);
        assert_eq!(heard.known(), 60_000);
        assert!(heard.logarithms.capacity() <= 80 * 4000, "{}", heard.logarithms.capacity());
    }
}
