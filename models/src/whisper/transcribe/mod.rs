//! The transcription loop: window after window, or several at once.
//!
//! Source: `transcribe.py` of openai-whisper, revision 20250625.

mod options;
mod prompt;
mod speech;
mod together;
mod windows;

use std::collections::VecDeque;
use std::ops::Range;

use candle_core::{Device, Tensor};
use candle_engine::{Error, Result};

pub use self::options::TranscribeOptions;
pub use self::speech::SpeechGate;
pub use self::together::{Transcriptions, Turn};

use self::prompt::Previous;
use self::windows::Windows;
use super::decode::{
    detect, Attempt, Context, DecodeOptions, Decoded, Frame, LanguageProbability, ModelInference, Prompt,
};
use super::hallucination::{is_blank, last_end, suspect, Suspicion};
use super::recording::Recording;
use super::segment::{cut, frame, seconds, segments, Cut, Outcome, Segment, Span, WindowReport};
use super::words;
use super::{Memory, Whisper};

/// A temperature above which a text is not trusted to go before the next.
const TRUSTED: f32 = 0.5;

/// A transcription at work: an iterator over segments, each as soon as it is certain.
pub struct Transcription<'a> {
    model: &'a Whisper,
    recording: Box<dyn Recording + 'a>,
    options: TranscribeOptions,
    decode: DecodeOptions,
    language: &'static str,
    probabilities: Vec<LanguageProbability>,
    /// What begins the transcript of every window.
    start: Vec<u32>,
    prefix: Vec<u32>,
    previous: Previous,
    windows: Windows,
    /// When the last word ended.
    spoken: f64,
    ready: VecDeque<Segment>,
    handed_out: usize,
    reports: Vec<WindowReport>,
    /// Whether no window is left.
    ended: bool,
    error: Option<Error>,
}

impl Whisper {
    /// Transcribes a recording. The language is found out before this returns, if it is not given.
    ///
    /// Errors: `Input` naming an option, or a recording of another number of mel bins; those of reading and decoding.
    pub fn transcribe<'a>(
        &'a self,
        recording: impl Recording + 'a,
        options: &TranscribeOptions,
    ) -> Result<Transcription<'a>> {
        options.validate()?;
        self.begin(Box::new(recording), options)
    }

    /// Options are valid.
    fn begin<'a>(
        &'a self,
        mut recording: Box<dyn Recording + 'a>,
        options: &TranscribeOptions,
    ) -> Result<Transcription<'a>> {
        let (tokens, frames) = (self.tokens()?, self.config().frames());
        let mut probabilities = Vec::new();
        let language = match &options.language {
            Some(word) => tokens.language_code(word)?,
            None if !tokens.is_multilingual() => "en",
            None => {
                let speech = match options.speech_gate {
                    None => recording.speech(0, usize::MAX)?,
                    Some(_) => Some(0..usize::MAX),
                };
                let heard = match speech {
                    Some(Range { start, .. }) => {
                        let end = recording.frames_until(start + frames)?;
                        recording.frames(start..end)?
                    }
                    None => Vec::new(),
                };
                let memories = self.hear(&[window(self, heard, recording.silence())?])?;
                probabilities = detect(tokens, &mut ModelInference::new(self, memories.iter().collect()))?;
                probabilities[0].code
            }
        };
        let text = |text: &Option<String>| match text {
            Some(text) => tokens.encode(&format!(" {}", text.trim())),
            None => Ok(Vec::new()),
        };
        Ok(Transcription {
            decode: DecodeOptions { suppress: options.suppressed(tokens)?, ..options.decode.clone() },
            start: tokens.start(language, options.task)?,
            prefix: text(&options.prefix)?,
            previous: Previous::new(
                text(&options.initial_prompt)?,
                options.carry_initial_prompt,
                text(&options.hotwords)?,
                self.config().decoder.positions,
            ),
            windows: Windows::new(frames, &options.clips, options.speech_gate),
            spoken: 0.0,
            ready: VecDeque::new(),
            handed_out: 0,
            reports: Vec::new(),
            ended: false,
            error: None,
            model: self,
            recording,
            options: options.clone(),
            language,
            probabilities,
        })
    }
}

impl Transcription<'_> {
    /// The code of the language that is transcribed.
    pub fn language(&self) -> &'static str {
        self.language
    }

    /// How probable each language is, the most probable first; empty if the language was given.
    pub fn language_probabilities(&self) -> &[LanguageProbability] {
        &self.probabilities
    }

    /// Seconds of the recording up to the end of the last window.
    pub fn heard(&self) -> f64 {
        seconds(self.windows.position())
    }

    /// Seconds of the recording, if known: a hint.
    pub fn duration(&self) -> Option<f64> {
        self.recording.duration()
    }

    /// What became of the windows since this was last asked.
    pub fn take_reports(&mut self) -> Vec<WindowReport> {
        std::mem::take(&mut self.reports)
    }

    /// Cuts out the next windows, at most so many, and one if the next is not known before it is decoded.
    fn cut_out(&mut self, room: usize) -> Vec<(Span, Tensor)> {
        let room = if self.options.batch > 1 { room } else { room.min(1) };
        let mut windows = Vec::new();
        while windows.len() < room && !self.ended {
            match self.next_window() {
                Ok(Some(window)) => windows.push(window),
                Ok(None) => self.ended = true,
                Err(error) => self.fail(error),
            }
        }
        windows
    }

    fn next_window(&mut self) -> Result<Option<(Span, Tensor)>> {
        let Some(span) = self.windows.next(&mut *self.recording, self.options.batch > 1)? else {
            return Ok(None);
        };
        self.recording.forget(span.seek);
        let frames = self.recording.frames(span.seek..span.seek + span.size)?;
        // What is missing of a window is 0 here, as the reference has it, and not silence.
        Ok(Some((span, window(self.model, frames, 0.0)?)))
    }

    /// Ends with an error, which is told behind what was found.
    fn fail(&mut self, error: Error) {
        self.ended = true;
        self.error.get_or_insert(error);
    }

    /// What stands before a window: the `index`th of those that are heard together.
    fn prompt(&self, frame: &Frame, span: &Span, index: usize) -> Result<Prompt> {
        let previous = self.previous.tokens();
        let context = Context {
            language: self.language,
            task: self.options.task,
            previous: &previous,
            prefix: &self.prefix,
        };
        let seed = self.options.seed.wrapping_add((span.seek as u64) << 8);
        Ok(Prompt { window: index, seed, ..Prompt::new(frame, &context, &self.decode)? })
    }

    /// What is ready to be handed out; `None` if there is nothing yet, or nothing more.
    fn take_ready(&mut self) -> Option<Result<Segment>> {
        if let Some(segment) = self.ready.pop_front() {
            self.handed_out += 1;
            return Some(Ok(Segment { id: self.handed_out - 1, ..segment }));
        }
        self.error.take().map(Err)
    }

    /// Takes what a window was decoded to.
    fn take(&mut self, span: Span, memory: &Memory, decoded: &Decoded, attempts: Vec<Attempt>) -> Result<()> {
        let mut report = WindowReport {
            start: span.offset(),
            duration: seconds(span.size),
            attempts,
            outcome: Outcome::Kept,
            segments: 0,
        };
        let together = self.options.batch > 1;
        if self.options.thresholds.skips(decoded) {
            report.outcome = Outcome::NoSpeech;
            self.reports.push(report);
            if !together {
                self.windows.go_to(span.seek + span.size);
            }
            return Ok(());
        }
        let tokens = self.model.tokens()?;
        let cut = cut(&decoded.tokens, tokens.timestamp_begin, span, together);
        let mut found = segments(&cut, span, decoded, |ids| tokens.decode(ids).unwrap_or_default());
        let mut next = cut.next;
        if self.options.word_timestamps {
            next = self.place_words(span, memory, &cut, &mut found)?;
            if let Some(threshold) = self.options.hallucination_silence_threshold {
                let (window, spoken) = (self.model.config().frames(), self.spoken);
                let recording = &mut *self.recording;
                let mut ends_before = |t: f64| Ok(recording.frames_until(frame(t))? < frame(t));
                match suspect(&found, span, window, spoken, threshold, &mut ends_before)? {
                    Suspicion::None => {}
                    Suspicion::Restart(at) if !together => {
                        report.outcome = Outcome::SkippedSilence;
                        self.reports.push(report);
                        self.windows.go_to(at);
                        return Ok(());
                    }
                    Suspicion::Restart(_) => {}
                    Suspicion::Drop { first, next: at } => {
                        report.outcome = Outcome::Hallucination;
                        found.truncate(first);
                        next = at;
                    }
                }
            }
            self.spoken = last_end(&found).unwrap_or(self.spoken);
        }
        found.retain(|segment| segment.start != segment.end && !is_blank(&segment.text));
        report.segments = found.len();
        self.reports.push(report);
        if !together {
            let said: Vec<u32> = found.iter().flat_map(|segment| segment.tokens.iter().copied()).collect();
            let wanted = self.options.condition_on_previous_text && self.model.takes_previous_text();
            let trusted = wanted && decoded.temperature <= TRUSTED;
            self.previous.add(&said, trusted);
            // Times that do not go on would be heard for ever.
            self.windows.go_to(if next > span.seek { next } else { span.seek + span.size });
        }
        self.ready.extend(found);
        Ok(())
    }

    /// Gives segments their words, and says where the next window begins.
    fn place_words(&self, span: Span, memory: &Memory, cut: &Cut, found: &mut [Segment]) -> Result<usize> {
        let window = words::Window {
            model: self.model,
            memory,
            language: self.language,
            start: &self.start,
            frames: span.size,
            offset: span.offset(),
        };
        words::place(&window, found, &self.options.punctuation, self.spoken)?;
        let end = last_end(found).filter(|&end| end > span.offset() && !cut.ends_alone);
        let Some(end) = end else { return Ok(cut.next) };
        let window_end = seconds(span.seek + self.model.config().frames());
        Ok(match self.options.hallucination_silence_threshold {
            // What is left is too short to hide anything.
            Some(threshold) if window_end - end <= threshold => span.seek + span.size,
            _ => frame(end),
        })
    }
}

impl Iterator for Transcription<'_> {
    type Item = Result<Segment>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_with(None)
    }
}

/// A window `[frames, mels]` of what there is, and `rest` after it.
fn window(model: &Whisper, mut heard: Vec<f32>, rest: f32) -> Result<Tensor> {
    let (frames, mels) = (model.config().frames(), model.config().mels);
    heard.resize(frames * mels, rest);
    Ok(Tensor::from_vec(heard, (frames, mels), &Device::Cpu)?)
}
