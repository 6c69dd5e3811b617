//! Text that is invented over silence, told by its word times.
//!
//! Source: `transcribe` of openai-whisper, `hallucination_silence_threshold`.

use super::segment::{frame, seconds, Segment, Span};
use super::words::{strip, Punctuation, Word};

/// What word times say of a window's segments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Suspicion {
    /// Nothing.
    None,
    /// The first words look invented after a silence: begin again at this frame.
    Restart(usize),
    /// From this segment on the text looks invented: leave it out, and go on at this frame.
    Drop { first: usize, next: usize },
}

/// Words that say much about a segment.
const LOOKED_AT: usize = 8;

/// How odd a word is: improbable, very short, or very long.
fn oddity(word: &Word) -> f64 {
    let length = word.end - word.start;
    let improbable = if word.probability < 0.15 { 1.0 } else { 0.0 };
    improbable + (0.133 - length).max(0.0) * 15.0 + (length - 2.0).max(0.0)
}

fn words(segment: &Segment) -> &[Word] {
    segment.words.as_deref().unwrap_or_default()
}

fn is_odd(segment: &Segment, punctuation: &str) -> bool {
    if words(segment).is_empty() {
        return false;
    }
    let said = words(segment).iter().filter(|w| !punctuation.contains(&w.word)).take(LOOKED_AT);
    let (score, count) = said.fold((0.0, 0), |(score, count), word| (score + oddity(word), count + 1));
    score >= 3.0 || score + 0.01 >= f64::from(count)
}

/// Looks at a window's segments. `spoken` is when the last word before the window ended, `window` how many frames a
/// full one has, `threshold` how many seconds without words are a silence; `ends_before(t)` says whether the recording
/// ends before the time `t`.
pub(super) fn suspect(
    segments: &[Segment],
    span: Span,
    window: usize,
    spoken: f64,
    threshold: f64,
    ends_before: &mut dyn FnMut(f64) -> candle_engine::Result<bool>,
) -> candle_engine::Result<Suspicion> {
    let Punctuation { prepended, appended } = Punctuation::default();
    let punctuation = prepended + &appended;
    let odd = |segment: &Segment| is_odd(segment, &punctuation);
    let (offset, window_end) = (span.offset(), seconds(span.seek + window));
    let next_with_words = |from: usize| segments[from..].iter().find(|s| !words(s).is_empty());

    if let Some(first) = next_with_words(0).filter(|first| odd(first)) {
        let gap = first.start - offset;
        if gap > threshold {
            return Ok(Suspicion::Restart(span.seek + frame(gap)));
        }
    }
    let mut last_end = spoken;
    for (i, segment) in segments.iter().enumerate() {
        if words(segment).is_empty() {
            continue;
        }
        if odd(segment) {
            let next = next_with_words(i + 1);
            let next_start = next.map_or(offset + seconds(span.size), |next| words(next)[0].start);
            let silence_before = segment.start - last_end > threshold
                || segment.start < threshold
                || segment.start - offset < 2.0;
            let silence_after = next_start - segment.end > threshold
                || next.is_some_and(odd)
                || window_end - segment.end < 2.0;
            if silence_before && silence_after {
                let next = match ends_before(segment.end + threshold)? {
                    true => usize::MAX,
                    false => frame(segment.start.max(offset + 1.0)),
                };
                return Ok(Suspicion::Drop { first: i, next });
            }
        }
        last_end = segment.end;
    }
    Ok(Suspicion::None)
}

/// The end of the last word, or of the last segment.
pub(super) fn last_end(segments: &[Segment]) -> Option<f64> {
    let word = segments.iter().rev().find_map(|segment| words(segment).last());
    word.map(|word| word.end).or_else(|| segments.last().map(|segment| segment.end))
}

/// See [`strip`]: whether a text is nothing but white space.
pub(super) fn is_blank(text: &str) -> bool {
    strip(text).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Span = Span { seek: 0, size: 3000 };

    /// A segment of words of equal length and probability.
    fn segment(start: f64, end: f64, count: usize, probability: f64) -> Segment {
        let length = (end - start) / count as f64;
        let word = |i: usize| Word {
            word: format!(" w{i}"),
            start: start + i as f64 * length,
            end: start + (i + 1) as f64 * length,
            probability,
        };
        Segment {
            id: 0,
            seek: 0,
            start,
            end,
            text: " w".into(),
            tokens: vec![1],
            temperature: 0.0,
            avg_logprob: -0.5,
            compression_ratio: 1.0,
            no_speech_prob: 0.0,
            words: Some((0..count).map(word).collect()),
        }
    }

    fn suspect_in(segments: &[Segment], spoken: f64) -> Suspicion {
        suspect(segments, SPAN, 3000, spoken, 2.0, &mut |t| Ok(t > 30.0)).unwrap()
    }

    #[test]
    fn odd_words_after_a_leading_silence_are_heard_again() {
        assert_eq!(suspect_in(&[segment(5.0, 7.0, 4, 0.05)], 0.0), Suspicion::Restart(500));
        assert_eq!(
            suspect_in(&[segment(5.0, 7.0, 4, 0.9)], 0.0),
            Suspicion::None,
            "probable words are believed"
        );
    }

    #[test]
    fn odd_words_between_silences_are_left_out() {
        let good = segment(0.0, 4.0, 8, 0.9);
        let odd = segment(10.0, 12.0, 5, 0.05);
        let later = segment(20.0, 24.0, 8, 0.9);
        let found = suspect_in(&[good.clone(), odd.clone(), later.clone()], 0.0);
        assert_eq!(found, Suspicion::Drop { first: 1, next: 1000 });
        // Speech goes on right after them.
        let near = segment(12.5, 16.0, 8, 0.9);
        assert_eq!(suspect_in(&[good.clone(), odd, near], 0.0), Suspicion::None);
        // The recording ends soon after them.
        let last = segment(26.0, 29.0, 8, 0.01);
        assert_eq!(suspect_in(&[good, last], 0.0), Suspicion::Drop { first: 1, next: usize::MAX });
    }

    #[test]
    fn very_short_and_very_long_words_are_odd() {
        assert!(is_odd(&segment(0.0, 0.3, 10, 0.9), ""));
        assert!(is_odd(&segment(0.0, 10.0, 2, 0.9), ""));
        assert!(!is_odd(&segment(0.0, 1.0, 4, 0.9), ""));
        assert!(!is_odd(&segment(0.0, 1.0, 0, 0.9), ""));
    }
}
