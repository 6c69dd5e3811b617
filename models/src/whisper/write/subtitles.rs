//! Cues: what is shown at once, and when.

use super::super::{Segment, Word};
use super::milliseconds;

/// How subtitles are cut. All but the words' highlighting is as for the reference's program; without word times a cue
/// is a segment, whatever is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubtitleOptions {
    /// Characters in a line.
    pub max_line_width: Option<usize>,
    /// Lines in a cue; wants a width.
    pub max_line_count: Option<usize>,
    /// Words in a line; a width outranks it.
    pub max_words_per_line: Option<usize>,
    /// Underlines each word while it is said.
    pub highlight_words: bool,
}

/// A longer silence ends a cue, in seconds.
const PAUSE: f64 = 3.0;
/// A number of characters or words that no line reaches.
const ANY: usize = 1000;

/// How times are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    /// `mm:ss.mmm`, hours where there are any
    Vtt,
    /// `hh:mm:ss,mmm`
    Srt,
}

impl Clock {
    pub fn show(self, seconds: f64) -> String {
        let ms = milliseconds(seconds);
        let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
        let (seconds, ms) = (ms / 1000 % 60, ms % 1000);
        match self {
            Self::Vtt if hours == 0 => format!("{minutes:02}:{seconds:02}.{ms:03}"),
            Self::Vtt => format!("{hours:02}:{minutes:02}:{seconds:02}.{ms:03}"),
            Self::Srt => format!("{hours:02}:{minutes:02}:{seconds:02},{ms:03}"),
        }
    }
}

/// What is shown at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cue {
    pub start: String,
    pub end: String,
    pub text: String,
}

/// The cues of a transcript.
pub(super) fn subtitles(segments: &[Segment], options: &SubtitleOptions, clock: Clock) -> Vec<Cue> {
    let cue =
        |start: f64, end: f64, text: String| Cue { start: clock.show(start), end: clock.show(end), text };
    if segments.first().is_none_or(|segment| segment.words.is_none()) {
        let text = |segment: &Segment| segment.text.trim().replace("-->", "->");
        return segments.iter().map(|segment| cue(segment.start, segment.end, text(segment))).collect();
    }
    let mut cues = Vec::new();
    for words in lines(segments, options) {
        let [first, .., last] = &words[..] else {
            cues.extend(words.iter().map(|word| cue(word.start, word.end, show(&words, 0, options))));
            continue;
        };
        if !options.highlight_words {
            cues.push(cue(first.start, last.end, show(&words, words.len(), options)));
            continue;
        }
        let mut done = first.start;
        for (i, word) in words.iter().enumerate() {
            if clock.show(done) != clock.show(word.start) {
                cues.push(cue(done, word.start, show(&words, words.len(), options)));
            }
            cues.push(cue(word.start, word.end, show(&words, i, options)));
            done = word.end;
        }
    }
    cues
}

/// The text of words; that at `said` is underlined, if asked for.
fn show(words: &[Word], said: usize, options: &SubtitleOptions) -> String {
    let mut text = String::new();
    for (i, Word { word, .. }) in words.iter().enumerate() {
        if i == said && options.highlight_words {
            let bare = word.trim_start();
            text += &word[..word.len() - bare.len()];
            text += &format!("<u>{bare}</u>");
        } else {
            text += word;
        }
    }
    text
}

/// The words of each cue; a line break stands before a word that begins a line.
fn lines(segments: &[Segment], options: &SubtitleOptions) -> Vec<Vec<Word>> {
    let per_segment = options.max_line_count.is_none() || options.max_line_width.is_none();
    let width = options.max_line_width.unwrap_or(ANY);
    let per_line = options.max_words_per_line.unwrap_or(ANY).max(1);
    let words = |segment: &Segment| segment.words.clone().unwrap_or_default();
    let mut last = segments.iter().flat_map(words).next().map_or(0.0, |word| word.start);
    let (mut cues, mut cue): (Vec<Vec<Word>>, Vec<Word>) = (Vec::new(), Vec::new());
    let (mut length, mut count) = (0, 1);
    for segment in segments {
        for chunk in words(segment).chunks(per_line) {
            for (i, word) in chunk.iter().enumerate() {
                let mut word = word.clone();
                let pause = !per_segment && word.start - last > PAUSE;
                let has_room = length + word.word.chars().count() <= width;
                let begins = i == 0 && !cue.is_empty() && per_segment;
                last = word.start;
                if length > 0 && has_room && !pause && !begins {
                    length += word.word.chars().count();
                    cue.push(word);
                    continue;
                }
                word.word = word.word.trim().to_owned();
                let full = options.max_line_count.is_some_and(|most| pause || count >= most);
                let characters = word.word.chars().count();
                if !cue.is_empty() && full || begins {
                    cues.push(std::mem::take(&mut cue));
                    count = 1;
                } else if length > 0 {
                    count += 1;
                    word.word.insert(0, '\n');
                }
                length = characters;
                cue.push(word);
            }
        }
    }
    if !cue.is_empty() {
        cues.push(cue);
    }
    cues
}
