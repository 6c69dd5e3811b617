//! From the words of a window to the words of its segments.
//!
//! Source: `add_word_timestamps` of openai-whisper, its corrections of words that are too long among them.

use candle_engine::Result;

use super::super::segment::Segment;
use super::align::Timing;
use super::{strip, Punctuation, Window, Word};

/// Marks that end a sentence.
const ENDS: &str = ".。!！?？";
/// A longer median is not believed, in seconds.
const MOST_MEDIAN: f64 = 0.7;

/// How long words are in a window, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::whisper) struct Pauses {
    median: f64,
    most: f64,
}

impl Pauses {
    /// Measures words, and cuts those that are too long where a sentence ends or begins.
    pub(super) fn of(words: &mut [Timing]) -> Self {
        let mut lengths: Vec<f64> =
            words.iter().map(|w| w.end - w.start).filter(|&length| length != 0.0).collect();
        lengths.sort_by(f64::total_cmp);
        let middle = lengths.len() / 2;
        let median = match lengths.len() {
            0 => 0.0,
            n if n % 2 == 1 => lengths[middle],
            _ => (lengths[middle - 1] + lengths[middle]) / 2.0,
        };
        let median = median.min(MOST_MEDIAN);
        let pauses = Self { median, most: 2.0 * median };
        for i in 1..if lengths.is_empty() { 0 } else { words.len() } {
            if words[i].end - words[i].start > pauses.most {
                if ENDS.contains(&words[i].word) {
                    words[i].end = words[i].start + pauses.most;
                } else if ENDS.contains(&words[i - 1].word) {
                    words[i].start = words[i].end - pauses.most;
                }
            }
        }
        pauses
    }
}

/// Joins punctuation to the words it belongs to; what was joined is empty afterwards.
pub(super) fn join_punctuation(words: &mut [Timing], Punctuation { prepended, appended }: &Punctuation) {
    let Some(mut next) = words.len().checked_sub(1) else { return };
    for i in (0..next).rev() {
        let (before, after) = words.split_at_mut(next);
        let (mark, word) = (&mut before[i], &mut after[0]);
        if mark.word.starts_with(' ') && prepended.contains(strip(&mark.word)) {
            word.word.insert_str(0, &std::mem::take(&mut mark.word));
            word.tokens.splice(0..0, mark.tokens.drain(..));
        } else {
            next = i;
        }
    }
    let mut last = 0;
    for i in 1..words.len() {
        let (before, after) = words.split_at_mut(i);
        let (word, mark) = (&mut before[last], &mut after[0]);
        if !word.word.ends_with(' ') && appended.contains(&mark.word) {
            word.word.push_str(&std::mem::take(&mut mark.word));
            word.tokens.append(&mut mark.tokens);
        } else {
            last = i;
        }
    }
}

/// Gives each segment of a window its words, and corrects its times by them. `spoken` is when the last word before
/// ended.
///
/// Errors: the model's and the tokenizer's.
pub(in crate::whisper) fn place(
    window: &Window,
    segments: &mut [Segment],
    punctuation: &Punctuation,
    mut spoken: f64,
) -> Result<()> {
    let eot = window.model.tokens()?.eot;
    let texts: Vec<Vec<u32>> =
        segments.iter().map(|s| s.tokens.iter().copied().filter(|&id| id < eot).collect()).collect();
    let (words, pauses) = window.words(&texts.concat(), punctuation)?;
    let mut words = words.into_iter();
    for (segment, text) in segments.iter_mut().zip(&texts) {
        let (mut placed, mut taken) = (Vec::new(), 0);
        while taken < text.len() {
            let Some(timing) = words.next() else { break };
            taken += timing.tokens.len();
            if !timing.word.is_empty() {
                placed.push(Word {
                    word: timing.word,
                    start: hundredths(window.offset + timing.start),
                    end: hundredths(window.offset + timing.end),
                    probability: timing.probability,
                });
            }
        }
        if !placed.is_empty() {
            correct(segment, &mut placed, pauses, spoken);
            spoken = segment.end;
        }
        segment.words = Some(placed);
    }
    Ok(())
}

/// Cuts words that are too long after a pause, and makes segment and words agree on where they begin and end.
fn correct(segment: &mut Segment, words: &mut [Word], Pauses { median, most }: Pauses, spoken: f64) {
    let length = |word: &Word| word.end - word.start;
    let second = words.get(1).map(|word| (word.end, length(word)));
    let first_two_long = second.is_some_and(|(end, _)| end - words[0].start > 2.0 * most);
    if words[0].end - spoken > 4.0 * median && (length(&words[0]) > most || first_two_long) {
        if let Some((end, _)) = second.filter(|&(_, length)| length > most) {
            let border = (end / 2.0).max(end - most);
            words[0].end = border;
            words[1].start = border;
        }
        words[0].start = (words[0].end - most).max(0.0);
    }
    // The segment's own times count where a word is too long for them.
    let first = &mut words[0];
    if segment.start < first.end && segment.start - 0.5 > first.start {
        first.start = (first.end - median).min(segment.start).max(0.0);
    } else {
        segment.start = first.start;
    }
    let last = words.len() - 1;
    let last = &mut words[last];
    if segment.end > last.start && segment.end + 0.5 < last.end {
        last.end = (last.start + median).max(segment.end);
    } else {
        segment.end = last.end;
    }
}

fn hundredths(seconds: f64) -> f64 {
    (seconds * 100.0).round_ties_even() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(word: &str, start: f64, end: f64) -> Timing {
        Timing { word: word.into(), tokens: vec![1], start, end, probability: 0.5 }
    }

    #[test]
    fn punctuation_joins_its_word() {
        let texts = [" (", " Hello", ",", " \"", " you", "!", "\""];
        let mut words: Vec<Timing> = texts.iter().map(|t| timing(t, 0.0, 1.0)).collect();
        join_punctuation(&mut words, &Punctuation::default());
        let joined: Vec<&str> = words.iter().map(|w| w.word.as_str()).collect();
        assert_eq!(joined, ["", " ( Hello,", "", "", " \" you!\"", "", ""]);
        assert_eq!(words[1].tokens.len(), 3);
        join_punctuation(&mut [], &Punctuation::default());
    }

    #[test]
    fn words_at_the_ends_of_sentences_are_not_longer_than_twice_the_median() {
        let mut words = vec![
            timing(" a", 0.0, 0.2),
            timing(" b", 0.2, 0.4),
            timing(".", 0.4, 2.0),
            timing(" c", 2.0, 3.0),
            timing(" d", 3.0, 3.2),
        ];
        let pauses = Pauses::of(&mut words);
        assert!((pauses.median - 0.2).abs() < 1e-9);
        assert!((words[2].end - 0.8).abs() < 1e-9, "the mark ends early: {words:?}");
        assert!((words[3].start - 2.6).abs() < 1e-9, "what follows it begins late: {words:?}");
        assert_eq!(Pauses::of(&mut [timing("x", 1.0, 1.0)]).median, 0.0);
    }
}
