//! Segments: what a window's tokens say, and when.

use serde::Serialize;

use super::config::FRAMES_PER_POSITION;
use super::decode::{Attempt, Decoded};
use super::recording::FRAMES_PER_SECOND;
use super::words::Word;

/// A piece of the transcript.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Segment {
    /// Its number in the transcript.
    pub id: usize,
    /// The frame at which its window begins.
    pub seek: usize,
    /// Seconds.
    pub start: f64,
    /// Seconds.
    pub end: f64,
    /// What is said, with the space before it.
    pub text: String,
    /// Text and times as the model gave them.
    pub tokens: Vec<u32>,
    /// What its window was decoded at.
    pub temperature: f32,
    /// Mean log-probability of its window's tokens.
    pub avg_logprob: f64,
    /// How much its window's text repeats itself.
    pub compression_ratio: f64,
    /// Probability that nobody speaks in its window.
    pub no_speech_prob: f64,
    /// Its words, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<Vec<Word>>,
}

/// A part of the recording that is decoded at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// The first frame.
    pub seek: usize,
    /// Frames of sound.
    pub size: usize,
}

impl Span {
    /// Seconds at which it begins.
    pub fn offset(&self) -> f64 {
        seconds(self.seek)
    }
}

pub(super) fn seconds(frames: usize) -> f64 {
    frames as f64 / FRAMES_PER_SECOND as f64
}

/// The frame nearest to a time.
pub(super) fn frame(seconds: f64) -> usize {
    (seconds * FRAMES_PER_SECOND as f64).round_ties_even() as usize
}

/// What a window's tokens came to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cut {
    /// Tokens of each segment with its times, in seconds of the recording.
    pub parts: Vec<(f64, f64, Vec<u32>)>,
    /// Where the next window begins.
    pub next: usize,
    /// The last time stands alone: nothing is said after it.
    pub ends_alone: bool,
}

/// Cuts a window's tokens where two times meet.
///
/// Text after the last pair of times is left to the next window, which begins there; with `whole` nothing is left.
///
/// Source: `transcribe` of openai-whisper.
pub(super) fn cut(tokens: &[u32], begin: u32, span: Span, whole: bool) -> Cut {
    let is_time = |id: u32| id >= begin;
    let position = |id: u32| (id - begin) as usize;
    let time = |id: u32| span.offset() + seconds(position(id) * FRAMES_PER_POSITION);
    let after = span.seek + span.size;
    let ends_alone = matches!(tokens, [.., a, b] if !is_time(*a) && is_time(*b));
    let mut ends: Vec<usize> =
        (1..tokens.len()).filter(|&i| is_time(tokens[i - 1]) && is_time(tokens[i])).collect();
    if ends.is_empty() {
        let last = tokens.iter().rfind(|&&id| is_time(id)).filter(|&&id| position(id) > 0);
        let end = last.map_or(seconds(after), |&id| time(id));
        return Cut { parts: vec![(span.offset(), end, tokens.to_vec())], next: after, ends_alone };
    }
    if ends_alone {
        ends.push(tokens.len());
    }
    let (mut parts, mut from) = (Vec::new(), 0);
    for end in ends {
        let part = &tokens[from..end];
        // A first part without a beginning begins with the window, one without an end ends where it begins.
        let start = if is_time(part[0]) { time(part[0]) } else { span.offset() };
        let stop = if is_time(part[part.len() - 1]) { time(part[part.len() - 1]) } else { start };
        parts.push((start, stop, part.to_vec()));
        from = end;
    }
    let rest = &tokens[from..];
    let next = match () {
        () if ends_alone => after,
        () if whole => {
            if rest.iter().any(|&id| !is_time(id)) {
                let start = if is_time(rest[0]) { time(rest[0]) } else { span.offset() };
                parts.push((start, seconds(after).max(start), rest.to_vec()));
            }
            after
        }
        () => span.seek + position(tokens[from - 1]) * FRAMES_PER_POSITION,
    };
    Cut { parts, next, ends_alone }
}

/// The segments of a cut; numbers are given when they are handed out.
pub(super) fn segments(
    cut: &Cut,
    span: Span,
    decoded: &Decoded,
    text: impl Fn(&[u32]) -> String,
) -> Vec<Segment> {
    let segment = |(start, end, tokens): &(f64, f64, Vec<u32>)| Segment {
        id: 0,
        seek: span.seek,
        start: *start,
        end: *end,
        text: text(tokens),
        tokens: tokens.clone(),
        temperature: decoded.temperature,
        avg_logprob: decoded.avg_logprob,
        compression_ratio: decoded.compression_ratio,
        no_speech_prob: decoded.no_speech_prob,
        words: None,
    };
    cut.parts.iter().map(segment).collect()
}

/// What became of a window, for those who want to know why the transcript is as it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WindowReport {
    /// Seconds at which it begins.
    pub start: f64,
    /// Seconds of sound in it.
    pub duration: f64,
    /// How often it was decoded, and what was wrong each time; the last one counts.
    pub attempts: Vec<Attempt>,
    /// What came of it.
    pub outcome: Outcome,
    /// Segments that were taken from it.
    pub segments: usize,
}

/// What came of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its segments are in the transcript.
    Kept,
    /// Nobody speaks in it.
    NoSpeech,
    /// Its first words look invented after a silence: it is decoded again from where they are.
    SkippedSilence,
    /// Words between silences look invented, and were left out.
    Hallucination,
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: u32 = 100;
    const SPAN: Span = Span { seek: 1000, size: 3000 };

    fn parts(tokens: &[u32], whole: bool) -> (Vec<(f64, f64, usize)>, usize) {
        let cut = cut(tokens, BEGIN, SPAN, whole);
        (cut.parts.iter().map(|(start, end, t)| (*start, *end, t.len())).collect(), cut.next)
    }

    #[test]
    fn pairs_of_times_part_segments() {
        // 0.2 to 1 s, 1 to 2 s, then text that has no end.
        let tokens = [110, 1, 2, 150, 150, 3, 200, 200, 4, 5];
        let (found, next) = parts(&tokens, false);
        assert_eq!(found, [(10.2, 11.0, 4), (11.0, 12.0, 3)]);
        assert_eq!(next, 1200, "the next window begins with what was not finished");
        let (found, next) = parts(&tokens, true);
        assert_eq!((found[2], next), ((12.0, 40.0, 3), 4000));
    }

    #[test]
    fn a_time_that_stands_alone_ends_the_window() {
        let (found, next) = parts(&[110, 1, 150, 150, 2, 200], false);
        assert_eq!((found, next), (vec![(10.2, 11.0, 3), (11.0, 12.0, 3)], 4000));
        let (found, next) = parts(&[110, 1, 150], false);
        assert_eq!((found, next), (vec![(10.0, 11.0, 3)], 4000), "without a pair it begins with the window");
    }

    #[test]
    fn without_times_a_segment_is_the_window() {
        assert_eq!(parts(&[1, 2], false), (vec![(10.0, 40.0, 2)], 4000));
        assert_eq!(parts(&[BEGIN, 1, 2], false), (vec![(10.0, 40.0, 3)], 4000));
        assert_eq!(parts(&[], false), (vec![(10.0, 40.0, 0)], 4000));
    }
}
