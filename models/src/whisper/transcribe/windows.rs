//! Where windows begin and end.

use std::ops::Range;

use candle_engine::Result;

use super::super::recording::Recording;
use super::super::segment::{frame, Span};
use super::speech::{Speech, SpeechGate};

/// The parts of a recording that are transcribed, and how far that has come.
#[derive(Debug)]
pub(super) struct Windows {
    /// Frames of a full window.
    full: usize,
    clips: Vec<Range<usize>>,
    clip: usize,
    seek: usize,
    /// Where the last window ended.
    done: usize,
    speech: Option<Speech>,
}

impl Windows {
    /// `clips` are seconds: start, end, start, …
    pub fn new(full: usize, clips: &[f64], gate: Option<SpeechGate>) -> Self {
        let clip = |pair: &[f64]| frame(pair[0])..pair.get(1).map_or(usize::MAX, |&end| frame(end));
        let mut clips: Vec<Range<usize>> = clips.chunks(2).map(clip).collect();
        if clips.is_empty() {
            clips.push(0..usize::MAX);
        }
        let seek = clips[0].start;
        Self { full, seek, clips, clip: 0, done: 0, speech: gate.map(Speech::new) }
    }

    /// The frame up to which the recording is done.
    pub fn position(&self) -> usize {
        self.done
    }

    /// Where the next window begins, unless the clip ends before.
    pub fn go_to(&mut self, seek: usize) {
        self.seek = seek;
    }

    /// The next window. With `pass` the one after it follows it, wherever what it says may end: a window that is not
    /// the last is then cut where it is quietest.
    ///
    /// Errors: those of reading.
    pub fn next(&mut self, recording: &mut dyn Recording, pass: bool) -> Result<Option<Span>> {
        while let Some(clip) = self.clips.get(self.clip).cloned() {
            self.seek = self.seek.max(clip.start);
            let worth_hearing = match &mut self.speech {
                Some(speech) => speech.next(recording, self.seek, clip.end)?,
                None => recording.speech(self.seek, clip.end)?,
            };
            let mut limit = self.seek;
            if let Some(range) = worth_hearing {
                self.seek = range.start;
                limit = range.start.saturating_add(self.full).min(range.end);
            }
            let end = if limit > self.seek { recording.frames_until(limit)? } else { self.seek };
            if end <= self.seek {
                self.clip += 1;
                if let Some(next) = self.clips.get(self.clip) {
                    self.seek = next.start;
                }
                continue;
            }
            let mut span = Span { seek: self.seek, size: end - self.seek };
            if pass {
                if span.size == self.full && recording.frames_until(end + 1)? > end {
                    span.size = quietest(recording, span)?;
                }
                self.seek += span.size;
            }
            self.done = span.seek + span.size;
            return Ok(Some(span));
        }
        Ok(None)
    }
}

/// Where to cut a window so that no word is cut: the quietest place in its last sixth.
fn quietest(recording: &mut dyn Recording, span: Span) -> Result<usize> {
    /// Frames that have to be quiet together: 0.1 s.
    const WIDTH: usize = 10;
    let from = span.size - span.size / 6;
    let mels = recording.mels();
    let numbers = recording.frames(span.seek + from..span.seek + span.size)?;
    let levels: Vec<f32> = numbers.chunks_exact(mels).map(|frame| frame.iter().sum()).collect();
    let loudness = |i: usize| levels[i..i + WIDTH].iter().sum::<f32>();
    let places = 0..(levels.len() + 1).saturating_sub(WIDTH);
    let best = places.min_by(|&a, &b| loudness(a).total_cmp(&loudness(b)));
    Ok(best.map_or(span.size, |i| from + i + WIDTH / 2))
}

#[cfg(test)]
mod tests {
    use super::super::super::recording::Spectrogram;
    use super::*;

    fn spans(len: usize, clips: &[f64], pass: bool) -> Vec<(usize, usize)> {
        let frames = (0..len).map(|i| if i % 90 < 10 { -1.0 } else { 1.0 }).collect();
        let mut recording = Spectrogram::new(1, frames, -1.0).unwrap();
        let mut windows = Windows::new(200, clips, None);
        let mut spans = Vec::new();
        while let Some(span) = windows.next(&mut recording, pass).unwrap() {
            if !pass {
                windows.go_to(span.seek + span.size);
            }
            spans.push((span.seek, span.size));
        }
        spans
    }

    #[test]
    fn windows_follow_each_other_to_the_end() {
        assert_eq!(spans(450, &[], false), [(0, 200), (200, 200), (400, 50)]);
        assert_eq!(spans(200, &[], false), [(0, 200)]);
        assert_eq!(spans(0, &[], false), []);
    }

    #[test]
    fn clips_bound_them() {
        assert_eq!(spans(450, &[0.5, 1.0, 3.0], false), [(50, 50), (300, 150)]);
        assert_eq!(
            spans(450, &[1.0, 9.0, 10.0, 11.0], false),
            [(100, 200), (300, 150)],
            "beyond the end is nothing"
        );
    }

    #[test]
    fn windows_that_pass_are_cut_where_it_is_quiet() {
        assert_eq!(
            spans(450, &[], true),
            [(0, 185), (185, 180), (365, 85)],
            "in the middle of 180..190 and 360..370"
        );
        assert_eq!(spans(200, &[], true), [(0, 200)], "the last one is whole");
    }
}
