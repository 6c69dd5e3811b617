//! How a recording is transcribed.

use candle_engine::{Error, Result};

use super::super::decode::{DecodeOptions, Thresholds};
use super::super::words::Punctuation;
use super::super::{Task, Tokens};
use super::speech::SpeechGate;

/// How a recording is transcribed. The defaults are the reference's, but for beams: its library has none, its program
/// five.
#[derive(Debug, Clone, PartialEq)]
pub struct TranscribeOptions {
    /// What is asked for.
    pub task: Task,
    /// Code or English name; `None` is found out.
    pub language: Option<String>,
    /// How windows are decoded; the temperature is of no account, and `suppress` is added to the tokens below.
    pub decode: DecodeOptions,
    /// Tried one after another until the thresholds are met.
    pub temperatures: Vec<f32>,
    /// What a text has to reach.
    pub thresholds: Thresholds,
    /// Tokens that never come; −1 stands for symbols that are not said.
    pub suppress_tokens: Vec<i64>,
    /// Lets each window know what was said before it: more consistent, but a loop may go on. Only where
    /// [`Whisper::takes_previous_text`](crate::whisper::Whisper::takes_previous_text).
    pub condition_on_previous_text: bool,
    /// Text that may have stood before the first window: names, spelling, style.
    pub initial_prompt: Option<String>,
    /// Puts the initial prompt before every window.
    pub carry_initial_prompt: bool,
    /// Words that are likely to be said; they stand before every window.
    pub hotwords: Option<String>,
    /// The first words of every window.
    pub prefix: Option<String>,
    /// Seconds at which parts begin and end: start, end, start, …; the last end may be missing. None is all.
    pub clips: Vec<f64>,
    /// Times of words.
    pub word_timestamps: bool,
    /// What goes with which word.
    pub punctuation: Punctuation,
    /// Skips silences longer than this, in seconds, where words look invented. Wants word times.
    pub hallucination_silence_threshold: Option<f64>,
    /// Leaves out what is quiet, whatever [`Recording::speech`](crate::whisper::Recording::speech) says.
    pub speech_gate: Option<SpeechGate>,
    /// Windows that are decoded together, none knowing what another says; 1 is one after another.
    pub batch: usize,
    /// Where the random numbers of higher temperatures start.
    pub seed: u64,
}

impl Default for TranscribeOptions {
    fn default() -> Self {
        Self {
            task: Task::Transcribe,
            language: None,
            decode: DecodeOptions { best_of: 5, ..DecodeOptions::default() },
            temperatures: vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
            thresholds: Thresholds::default(),
            suppress_tokens: vec![-1],
            condition_on_previous_text: true,
            initial_prompt: None,
            carry_initial_prompt: false,
            hotwords: None,
            prefix: None,
            clips: Vec::new(),
            word_timestamps: false,
            punctuation: Punctuation::default(),
            hallucination_silence_threshold: None,
            speech_gate: None,
            batch: 1,
            seed: 0,
        }
    }
}

impl TranscribeOptions {
    /// Refuses what cannot be meant.
    ///
    /// Errors: `Input` naming the option.
    pub fn validate(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::Input(what));
        let d = &self.decode;
        if let Some(t) = self.temperatures.iter().find(|t| !t.is_finite() || **t < 0.0) {
            return wrong(format!("temperature: expected 0 or more, got {t}"));
        }
        if self.temperatures.is_empty() {
            return wrong("temperature: expected at least one".into());
        }
        if !d.patience.is_finite() || d.patience <= 0.0 {
            return wrong(format!("patience: expected more than 0, got {}", d.patience));
        }
        if d.beam_size == Some(0) || d.best_of == 0 || d.sample_len == Some(0) || self.batch == 0 {
            return wrong("beam_size, best_of, sample_len and batch: expected 1 or more, got 0".into());
        }
        if let Some(alpha) = d.length_penalty.filter(|alpha| !(0.0..=1.0).contains(alpha)) {
            return wrong(format!("length_penalty: expected 0 to 1, got {alpha}"));
        }
        if let Some(t) = self.clips.iter().find(|t| !t.is_finite() || **t < 0.0) {
            return wrong(format!("clip_timestamps: expected seconds, 0 or more, got {t}"));
        }
        if self.hallucination_silence_threshold.is_some() && !self.word_timestamps {
            return wrong("hallucination_silence_threshold wants word_timestamps".into());
        }
        Ok(())
    }

    /// The tokens that never come.
    pub(super) fn suppressed(&self, tokens: &Tokens) -> Result<Vec<u32>> {
        let mut ids = self.decode.suppress.clone();
        for &id in &self.suppress_tokens {
            match u32::try_from(id) {
                Ok(id) => ids.push(id),
                Err(_) if id == -1 => ids.extend_from_slice(&tokens.non_speech),
                Err(_) => return Err(Error::Input(format!("suppress_tokens: {id} is no token"))),
            }
        }
        Ok(ids)
    }
}
