//! From probabilities to speech.
//!
//! Source: `get_speech_timestamps` of faster-whisper 1.2.1, which whisper.cpp follows as well.

use std::collections::VecDeque;
use std::ops::Range;

use candle_engine::audio::SAMPLE_RATE;
use candle_engine::{Error, Result};

use super::WINDOW;

/// What counts as speech. The defaults are those of faster-whisper's filter, but for sounds of less than a quarter of a
/// second, which it keeps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpeechOptions {
    /// Speech begins where it is as probable as this.
    pub threshold: f32,
    /// Speech ends where it is less probable than this; `None` is 0.15 less than the threshold, but at least 0.01.
    pub neg_threshold: Option<f32>,
    /// Shorter speech is none, in seconds.
    pub min_speech: f64,
    /// Longer speech is cut in its last silence of about a tenth of a second, or, without one, just there; in seconds.
    pub max_speech: f64,
    /// Shorter silences are part of speech, in seconds.
    pub min_silence: f64,
    /// Kept before and after speech, in seconds; two that are nearer than twice as much share what is between them.
    pub pad: f64,
}

impl Default for SpeechOptions {
    fn default() -> Self {
        Self {
            threshold: 0.5,
            neg_threshold: None,
            min_speech: 0.25,
            max_speech: f64::INFINITY,
            min_silence: 2.0,
            pad: 0.4,
        }
    }
}

impl SpeechOptions {
    /// Refuses what cannot be meant.
    ///
    /// Errors: `Input` naming the option.
    pub fn validate(&self) -> Result<()> {
        for (name, p) in [("vad_threshold", Some(self.threshold)), ("vad_neg_threshold", self.neg_threshold)]
        {
            if let Some(p) = p.filter(|p| !(0.0..=1.0).contains(p)) {
                return Err(Error::Input(format!("{name}: expected a probability, 0 to 1, got {p}")));
            }
        }
        for (name, seconds) in [
            ("vad_min_speech_duration", self.min_speech),
            ("vad_min_silence_duration", self.min_silence),
            ("vad_speech_pad", self.pad),
        ] {
            if !(0.0..=LONGEST).contains(&seconds) {
                return Err(Error::Input(format!("{name}: expected 0 to {LONGEST} seconds, got {seconds}")));
            }
        }
        if self.max_speech.is_nan() || self.max_speech <= 0.0 {
            let what =
                format!("vad_max_speech_duration: expected more than 0 seconds, got {}", self.max_speech);
            return Err(Error::Input(what));
        }
        Ok(())
    }
}

/// The longest silence, padding or least speech that can be meant, in seconds.
const LONGEST: f64 = 1e6;
/// Samples of a silence in which speech that is too long may be cut: 98 ms.
const CUT_SILENCE: usize = SAMPLE_RATE as usize * 98 / 1000;
/// Speech of at most so many samples, 10 minutes, is waited for to its end where it may yet be cut.
const WAITED_FOR: f64 = 600.0 * SAMPLE_RATE as f64;

/// Speech in a sequence of probabilities, one for each window of [`WINDOW`] samples: found as they come, in memory
/// that does not grow with their number.
#[derive(Debug, Clone)]
pub struct SpeechTimestamps {
    threshold: f32,
    neg_threshold: f32,
    // In samples.
    min_speech: f64,
    max_speech: f64,
    min_silence: f64,
    pad: f64,
    position: usize,
    /// Where speech began that goes on.
    start: Option<usize>,
    /// Where a silence began that goes on, in speech.
    silence: Option<usize>,
    cut: Option<Cut>,
    /// Where the speech before this one ended.
    before: Option<usize>,
    /// Speech whose end is not padded yet: how much depends on what follows.
    ended: Option<Range<usize>>,
    found: VecDeque<Range<usize>>,
}

/// A silence that speech may be cut in.
#[derive(Debug, Clone, Copy)]
struct Cut {
    from: usize,
    /// `None` while it goes on.
    to: Option<usize>,
}

impl SpeechTimestamps {
    /// Before the first window.
    ///
    /// Errors: those of [`SpeechOptions::validate`].
    pub fn new(options: &SpeechOptions) -> Result<Self> {
        options.validate()?;
        // As many milliseconds as are meant give whole samples.
        let samples = |seconds: f64| (seconds * 1e6).round() * f64::from(SAMPLE_RATE) / 1e6;
        let pad = samples(options.pad);
        Ok(Self {
            threshold: options.threshold,
            neg_threshold: options.neg_threshold.unwrap_or((options.threshold - 0.15).max(0.01)),
            min_speech: samples(options.min_speech),
            max_speech: samples(options.max_speech) - WINDOW as f64 - 2.0 * pad,
            min_silence: samples(options.min_silence),
            pad,
            position: 0,
            start: None,
            silence: None,
            cut: None,
            before: None,
            ended: None,
            found: VecDeque::new(),
        })
    }

    /// Takes the probability of the next window.
    pub fn push(&mut self, probability: f32) {
        self.step(probability);
        self.position += WINDOW;
        self.settle();
    }

    fn step(&mut self, probability: f32) {
        let at = self.position;
        let speaks = probability >= self.threshold;
        if speaks && self.silence.take().is_some() {
            if let Some(cut) = &mut self.cut {
                cut.to.get_or_insert(at);
            }
        }
        let Some(mut start) = self.start else {
            self.start = speaks.then_some(at);
            return;
        };
        if (at - start) as f64 > self.max_speech {
            let Some(cut) = self.cut else {
                self.end(start..at);
                return;
            };
            self.end(start..cut.from);
            self.start = cut.to;
            match cut.to {
                Some(to) => start = to,
                None => return,
            }
        }
        if probability < self.neg_threshold {
            let silence = *self.silence.get_or_insert(at);
            if at - silence > CUT_SILENCE {
                self.cut = Some(Cut { from: silence, to: None });
            }
            if (at - silence) as f64 >= self.min_silence {
                match (silence - start) as f64 > self.min_speech {
                    true => self.end(start..silence),
                    false => self.forget(),
                }
            }
        }
    }

    /// Says that the recording has ended, after so many samples.
    pub fn finish(&mut self, samples: usize) {
        self.position = samples;
        if let Some(start) =
            self.start.filter(|&start| samples.saturating_sub(start) as f64 > self.min_speech)
        {
            self.end(start..samples);
        }
        self.forget();
        if let Some(ended) = self.ended.take() {
            self.found.push_back(ended.start..ended.end + self.pad as usize);
        }
        self.found.iter_mut().for_each(|speech| speech.end = speech.end.min(samples));
    }

    /// The next speech of which beginning and end are certain: a range of samples.
    pub fn take(&mut self) -> Option<Range<usize>> {
        self.found.pop_front()
    }

    /// Speech that goes on, as far as it is certain; `None` while it may yet be none, or be cut.
    pub fn going_on(&self) -> Option<Range<usize>> {
        let certain = self.certain().filter(|_| self.max_speech > WAITED_FOR)?;
        Some(self.padded_start(certain.start)..certain.end)
    }

    /// Samples before which nothing is found any more than was.
    pub fn settled(&self) -> usize {
        let earliest = self.start.map_or(self.position, |start| self.padded_start(start));
        let next = earliest.min(self.position.saturating_sub(self.pad as usize));
        self.ended.as_ref().map_or(next, |ended| ended.start)
    }

    /// Speech that goes on and is long enough.
    fn certain(&self) -> Option<Range<usize>> {
        let certain = self.start?..self.silence.unwrap_or(self.position);
        (certain.len() as f64 > self.min_speech).then_some(certain)
    }

    /// Speech ends: what was before it gets its end, it its beginning.
    fn end(&mut self, speech: Range<usize>) {
        self.pad_end(speech.start);
        self.ended = Some(self.padded_start(speech.start)..speech.end);
        self.before = Some(speech.end);
        self.forget();
    }

    fn forget(&mut self) {
        (self.start, self.silence, self.cut) = (None, None, None);
    }

    /// Pads what ended as soon as what follows can change nothing.
    fn settle(&mut self) {
        let Some(ended) = &self.ended else { return };
        let next = self.start.unwrap_or(self.position);
        if self.certain().is_some() || (next - ended.end) as f64 >= 2.0 * self.pad {
            self.pad_end(next);
        }
    }

    fn pad_end(&mut self, next: usize) {
        if let Some(ended) = self.ended.take() {
            let silence = next - ended.end;
            let pad = if (silence as f64) < 2.0 * self.pad { silence / 2 } else { self.pad as usize };
            self.found.push_back(ended.start..ended.end + pad);
        }
    }

    fn padded_start(&self, start: usize) -> usize {
        match self.before.map(|end| start - end) {
            Some(silence) if (silence as f64) < 2.0 * self.pad => start - silence / 2,
            _ => (start as f64 - self.pad).max(0.0) as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speech_is_told_before_it_ends_unless_it_may_be_none() {
        let mut speech = SpeechTimestamps::new(&SpeechOptions::default()).unwrap();
        (0..10).for_each(|_| speech.push(0.0));
        (0..7).for_each(|_| speech.push(0.9));
        assert_eq!(
            (speech.going_on(), speech.settled()),
            (None, 0),
            "too short yet, and padded to the beginning"
        );
        (0..100).for_each(|_| speech.push(0.9));
        (0..10).for_each(|_| speech.push(0.1));
        assert_eq!(speech.going_on(), Some(0..117 * WINDOW), "silence may be the end of it");
        assert_eq!(speech.take(), None);
        (0..60).for_each(|_| speech.push(0.0));
        assert_eq!((speech.going_on(), speech.take()), (None, Some(0..117 * WINDOW + 6400)));
        assert_eq!(speech.settled(), 187 * WINDOW - 6400);
    }

    #[test]
    fn speech_that_may_be_cut_is_waited_for() {
        let options = SpeechOptions { max_speech: 3.0, ..SpeechOptions::default() };
        let mut speech = SpeechTimestamps::new(&options).unwrap();
        (0..60).for_each(|_| speech.push(0.9));
        assert_eq!((speech.going_on(), speech.take()), (None, None));
        (0..40).for_each(|_| speech.push(0.9));
        assert_eq!(speech.take().map(|first| first.start), Some(0));
    }

    #[test]
    fn probabilities_that_are_none_begin_and_end_nothing() {
        let mut speech = SpeechTimestamps::new(&SpeechOptions::default()).unwrap();
        for p in [f32::NAN, 0.9, f32::NAN, f32::NAN].into_iter().cycle().take(400) {
            speech.push(p);
        }
        speech.finish(400 * WINDOW);
        assert_eq!((speech.take(), speech.take()), (Some(0..400 * WINDOW), None));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let refused = |options: SpeechOptions, name: &str| {
            assert!(options.validate().unwrap_err().to_string().starts_with(name), "{options:?}");
        };
        let d = SpeechOptions::default();
        refused(SpeechOptions { threshold: 1.5, ..d }, "vad_threshold");
        refused(SpeechOptions { neg_threshold: Some(f32::NAN), ..d }, "vad_neg_threshold");
        refused(SpeechOptions { min_speech: f64::INFINITY, ..d }, "vad_min_speech");
        refused(SpeechOptions { max_speech: 0.0, ..d }, "vad_max_speech");
        refused(SpeechOptions { min_silence: -1.0, ..d }, "vad_min_silence");
        refused(SpeechOptions { pad: f64::NAN, ..d }, "vad_speech_pad");
    }
}
