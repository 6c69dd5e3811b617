//! Word times.
//!
//! Source: `timing.py` of openai-whisper, revision 20250625.

mod align;
mod dtw;
mod place;
mod split;

use candle_engine::Result;
use serde::Serialize;

use super::{Memory, Whisper};

pub(super) use self::place::{place, Pauses};
pub(super) use self::split::strip;

/// A word of a segment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Word {
    /// The word with the space before it and punctuation around it.
    pub word: String,
    /// Seconds since the recording began.
    pub start: f64,
    /// Seconds since the recording began.
    pub end: f64,
    /// Mean probability of its tokens.
    pub probability: f64,
}

/// Which punctuation belongs to the word after it, and which to the word before. The defaults are the reference's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Punctuation {
    /// Goes with the next word.
    pub prepended: String,
    /// Goes with the word before.
    pub appended: String,
}

impl Default for Punctuation {
    fn default() -> Self {
        Self { prepended: "\"'“¿([{-".into(), appended: "\"'.。,，!！?？:：”)]}、".into() }
    }
}

/// What word times are found in: one window.
pub(super) struct Window<'a> {
    pub model: &'a Whisper,
    pub memory: &'a Memory,
    pub language: &'a str,
    /// What begins its transcript.
    pub start: &'a [u32],
    /// Frames of sound in it.
    pub frames: usize,
    /// Seconds at which it begins.
    pub offset: f64,
}

impl Window<'_> {
    /// The words of a text, punctuation joined to them.
    fn words(&self, text: &[u32], punctuation: &Punctuation) -> Result<(Vec<align::Timing>, Pauses)> {
        let mut words = align::align(self.model, self.memory, self.language, self.start, text, self.frames)?;
        let pauses = Pauses::of(&mut words);
        place::join_punctuation(&mut words, punctuation);
        Ok((words, pauses))
    }
}
