//! Leaving out what is quiet: an energy gate over the spectrogram.

use std::ops::Range;

use candle_engine::Result;

use super::super::recording::{Recording, FRAMES_PER_SECOND};

/// What counts as speech. The defaults are those of faster-whisper's filter, as far as an energy gate has them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpeechGate {
    /// How much louder than silence a frame has to be, 0 to 1 of the range that the spectrogram keeps: 80 dB.
    pub threshold: f32,
    /// Shorter sounds are none, in seconds.
    pub min_speech: f64,
    /// Shorter silences are part of speech, in seconds.
    pub min_silence: f64,
    /// Kept before and after speech, in seconds.
    pub pad: f64,
}

impl Default for SpeechGate {
    fn default() -> Self {
        Self { threshold: 0.5, min_speech: 0.25, min_silence: 2.0, pad: 0.4 }
    }
}

/// Numbers of a spectrogram that lie 80 dB apart.
const RANGE: f32 = 2.0;
/// Frames that are looked at together.
const PIECE: usize = 3000;
/// Of a frame's bins, the share that has to be loud: speech has a few harmonics, a hum has one.
const LOUD_BINS: usize = 10;

/// Frames that are speech, found as far as they are asked for.
#[derive(Debug)]
pub(super) struct Speech {
    gate: SpeechGate,
    /// Frames looked at so far.
    seen: usize,
    /// What was found and not yet handed out; the last may still grow.
    found: Vec<Range<usize>>,
    /// Where the sound that is being looked at began.
    loud_since: Option<usize>,
}

impl Speech {
    pub fn new(gate: SpeechGate) -> Self {
        Self { gate, seen: 0, found: Vec::new(), loud_since: None }
    }

    /// The next speech in `from..to`, with the silence around it that is kept.
    ///
    /// Errors: those of reading.
    pub fn next(
        &mut self,
        recording: &mut dyn Recording,
        from: usize,
        to: usize,
    ) -> Result<Option<Range<usize>>> {
        self.seen = self.seen.max(from);
        self.found.retain(|speech| speech.end > from);
        let pad = frames(self.gate.pad);
        // Speech is known when the silence after it is long enough, or the window that it fills.
        while self.found.len() < 2 && self.found.first().is_none_or(|first| first.len() < PIECE) {
            let end = recording.frames_until((self.seen + PIECE).min(to))?;
            if end <= self.seen {
                break;
            }
            self.look(recording, end)?;
            if self.found.is_empty() {
                // A silence of any length takes no memory.
                recording.forget(self.loud_since.unwrap_or(self.seen).saturating_sub(pad));
            }
        }
        let padded =
            |speech: &Range<usize>| speech.start.saturating_sub(pad).max(from)..(speech.end + pad).min(to);
        let Some(first) = self.found.first() else { return Ok(None) };
        let mut range = padded(first);
        range.end = recording.frames_until(range.end)?;
        Ok(Some(range))
    }

    fn look(&mut self, recording: &mut dyn Recording, end: usize) -> Result<()> {
        let mels = recording.mels();
        let level = recording.silence() + self.gate.threshold * RANGE;
        let numbers = recording.frames(self.seen..end)?;
        for (i, frame) in numbers.chunks_exact(mels).enumerate() {
            let at = self.seen + i;
            let loud = frame.iter().filter(|&&x| x > level).count() * LOUD_BINS >= mels;
            match (loud, self.loud_since) {
                (true, None) => self.loud_since = Some(at),
                (true, Some(since)) if at + 1 - since >= frames(self.gate.min_speech) => {
                    self.add(since..at + 1)
                }
                (false, Some(_)) => self.loud_since = None,
                _ => {}
            }
        }
        self.seen = end;
        Ok(())
    }

    fn add(&mut self, speech: Range<usize>) {
        let silence = frames(self.gate.min_silence);
        match self.found.last_mut().filter(|last| speech.start < last.end + silence) {
            Some(last) => last.end = last.end.max(speech.end),
            None => self.found.push(speech),
        }
    }
}

fn frames(seconds: f64) -> usize {
    (seconds * FRAMES_PER_SECOND as f64).round() as usize
}

#[cfg(test)]
mod tests {
    use super::super::super::recording::Spectrogram;
    use super::*;

    /// What is found among frames of two bins that are loud from the first of each pair to the second.
    fn speech(len: usize, loud: &[(usize, usize)]) -> Vec<(usize, usize)> {
        let level =
            |i: usize| if loud.iter().any(|&(from, to)| (from..to).contains(&i)) { 1.0 } else { -1.0 };
        let mut recording = Spectrogram::new(2, (0..2 * len).map(|i| level(i / 2)).collect(), -1.0).unwrap();
        let mut speech = Speech::new(SpeechGate::default());
        let (mut all, mut from) = (Vec::new(), 0);
        while let Some(range) = speech.next(&mut recording, from, usize::MAX).unwrap() {
            from = range.end;
            all.push((range.start, range.end));
        }
        all
    }

    /// Silence, and how much of it is remembered.
    struct Silence {
        known: usize,
        forgotten: usize,
    }

    impl Recording for Silence {
        fn mels(&self) -> usize {
            1
        }

        fn frames_until(&mut self, end: usize) -> Result<usize> {
            self.known = self.known.max(end.min(500_000));
            assert!(self.known - self.forgotten < 2 * PIECE, "{} to {}", self.forgotten, self.known);
            Ok(self.known.min(end))
        }

        fn frames(&mut self, range: Range<usize>) -> Result<Vec<f32>> {
            assert!(range.start >= self.forgotten);
            Ok(vec![-1.0; range.len()])
        }

        fn forget(&mut self, before: usize) {
            self.forgotten = self.forgotten.max(before);
        }

        fn silence(&self) -> f32 {
            -1.0
        }
    }

    #[test]
    fn a_long_silence_is_forgotten() {
        let mut recording = Silence { known: 0, forgotten: 0 };
        let mut speech = Speech::new(SpeechGate::default());
        assert_eq!(speech.next(&mut recording, 0, usize::MAX).unwrap(), None);
        assert_eq!(recording.known, 500_000);
    }

    #[test]
    fn speech_is_what_is_loud_for_long_enough() {
        assert!(speech(5000, &[]).is_empty());
        assert!(speech(0, &[]).is_empty());
        assert!(speech(5000, &[(100, 110)]).is_empty(), "a click");
        let short_silence = [(1000, 1100), (1250, 1300)];
        assert_eq!(speech(5000, &short_silence), [(960, 1340)], "a short silence is part of speech");
        let apart = [(10, 100), (4000, 4500), (8990, 9000)];
        assert_eq!(speech(9000, &apart), [(0, 140), (3960, 4540)]);
        assert_eq!(speech(1000, &[(900, 1000)]), [(860, 1000)]);
    }
}
