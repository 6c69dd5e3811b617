//! Transcripts as files: plain text, subtitles, tables, JSON.
//!
//! Source: `utils.py` of openai-whisper, revision 20250625.

mod subtitles;
#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::str::FromStr;

use serde::Serialize;

use self::subtitles::{subtitles, Clock};
use super::Segment;

pub use self::subtitles::SubtitleOptions;

/// A transcript, as the reference hands it out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Transcript {
    /// All text.
    pub text: String,
    /// What it is made of.
    pub segments: Vec<Segment>,
    /// Code of the language.
    pub language: String,
    /// Seconds of the recording, as far as it was heard.
    pub duration: f64,
}

impl Transcript {
    /// Of segments.
    pub fn new(segments: Vec<Segment>, language: &str, duration: f64) -> Self {
        let text = segments.iter().map(|segment| segment.text.as_str()).collect();
        Self { text, segments, language: language.into(), duration }
    }
}

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TranscriptFormat {
    /// A line per segment.
    Txt,
    /// WebVTT.
    Vtt,
    /// SubRip.
    Srt,
    /// Start and end in milliseconds, and text, between tabs.
    Tsv,
    /// Everything.
    Json,
}

impl TranscriptFormat {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Txt, Self::Vtt, Self::Srt, Self::Tsv, Self::Json];

    /// How the names of such files end.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Txt => "txt",
            Self::Vtt => "vtt",
            Self::Srt => "srt",
            Self::Tsv => "tsv",
            Self::Json => "json",
        }
    }

    /// Writes a transcript.
    pub fn write(self, transcript: &Transcript, options: &SubtitleOptions) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = match self {
            Self::Txt => txt(transcript, &mut out),
            Self::Vtt => vtt(transcript, options, &mut out),
            Self::Srt => srt(transcript, options, &mut out),
            Self::Tsv => tsv(transcript, &mut out),
            Self::Json => {
                out = serde_json::to_string(transcript).unwrap_or_default();
                Ok(())
            }
        };
        out
    }
}

impl FromStr for TranscriptFormat {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|format| format.extension() == word);
        found.ok_or_else(|| format!("no format `{word}`: expected txt, vtt, srt, tsv or json"))
    }
}

fn txt(transcript: &Transcript, out: &mut String) -> std::fmt::Result {
    transcript.segments.iter().try_for_each(|segment| writeln!(out, "{}", segment.text.trim()))
}

fn vtt(transcript: &Transcript, options: &SubtitleOptions, out: &mut String) -> std::fmt::Result {
    writeln!(out, "WEBVTT\n")?;
    let cues = subtitles(&transcript.segments, options, Clock::Vtt);
    cues.iter().try_for_each(|cue| writeln!(out, "{} --> {}\n{}\n", cue.start, cue.end, cue.text))
}

fn srt(transcript: &Transcript, options: &SubtitleOptions, out: &mut String) -> std::fmt::Result {
    let cues = subtitles(&transcript.segments, options, Clock::Srt);
    let mut numbered = cues.iter().enumerate();
    numbered
        .try_for_each(|(i, cue)| writeln!(out, "{}\n{} --> {}\n{}\n", i + 1, cue.start, cue.end, cue.text))
}

fn tsv(transcript: &Transcript, out: &mut String) -> std::fmt::Result {
    writeln!(out, "start\tend\ttext")?;
    transcript.segments.iter().try_for_each(|segment| {
        let text = segment.text.trim().replace('\t', " ");
        writeln!(out, "{}\t{}\t{text}", milliseconds(segment.start), milliseconds(segment.end))
    })
}

/// A time as the reference prints it: `[hh:]mm:ss.mmm`.
pub fn timestamp(seconds: f64) -> String {
    Clock::Vtt.show(seconds)
}

fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1000.0).round_ties_even().max(0.0) as u64
}
