//! Stop strings over text that arrives in pieces.

/// What one piece of text led to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stop {
    /// Text that can be shown: no stop string can begin in it any more.
    pub emit: String,
    /// The stop string that was completed. Nothing is emitted after it.
    pub hit: Option<String>,
}

/// Finds stop strings however the text is cut into pieces, and never emits a part of one.
///
/// The stop that is completed first wins, wherever it began; of two completed by the same character, the longer one.
/// This is the only rule that neither depends on the pieces nor waits for text that may never come.
///
/// ```
/// use candle_engine::text::stop::StopMatcher;
/// let mut stops = StopMatcher::new(vec!["</s>".into()]);
/// assert_eq!(stops.push("done <").emit, "done ");
/// assert_eq!(stops.push("b> </").emit, "<b> ");
/// let end = stops.push("s> more");
/// assert_eq!((end.emit.as_str(), end.hit.as_deref()), ("", Some("</s>")));
/// ```
#[derive(Debug, Clone, Default)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// Text not yet emitted: the beginning of at least one stop string.
    held: String,
    hit: Option<String>,
}

impl StopMatcher {
    /// Watches for `stops`; empty strings are ignored.
    pub fn new(mut stops: Vec<String>) -> Self {
        stops.retain(|stop| !stop.is_empty());
        Self { stops, held: String::new(), hit: None }
    }

    /// Takes the next piece of text. After a hit the text is dropped and the hit reported again.
    pub fn push(&mut self, piece: &str) -> Stop {
        if self.hit.is_some() {
            return Stop { emit: String::new(), hit: self.hit.clone() };
        }
        self.held.push_str(piece);
        if let Some((start, stop)) = first_completed(&self.held, &self.stops) {
            self.hit = Some(stop.to_owned());
            self.held.truncate(start);
            return Stop { emit: std::mem::take(&mut self.held), hit: self.hit.clone() };
        }
        let keep = self.held.split_off(self.undecided());
        Stop { emit: std::mem::replace(&mut self.held, keep), hit: None }
    }

    /// Ends the text: returns what was held back, which is now known to be no stop string.
    pub fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the longest end of the held text begins that may still grow into a stop string.
    fn undecided(&self) -> usize {
        let held = self.held.as_str();
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = (held.len() + 1).saturating_sub(longest);
        (from..held.len())
            .filter(|&at| held.is_char_boundary(at))
            .find(|&at| self.stops.iter().any(|stop| stop.starts_with(&held[at..])))
            .unwrap_or(held.len())
    }
}

/// The stop that ends first in `text` (of those the longest), and where it begins.
fn first_completed<'s>(text: &str, stops: &'s [String]) -> Option<(usize, &'s str)> {
    let found = stops.iter().filter_map(|stop| Some((text.find(stop.as_str())?, stop.as_str())));
    found.min_by_key(|(start, stop)| (start + stop.len(), *start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::sampler::SplitMix64;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<String>) {
        let mut matcher = StopMatcher::new(stops.iter().map(|s| s.to_string()).collect());
        let mut text = String::new();
        for piece in pieces {
            let step = matcher.push(piece);
            text += &step.emit;
            if step.hit.is_some() {
                return (text, step.hit);
            }
        }
        text += &matcher.flush();
        (text, None)
    }

    #[test]
    fn holds_back_only_what_may_become_a_stop() {
        let mut matcher = StopMatcher::new(vec!["aab".into()]);
        assert_eq!(matcher.push("aa").emit, "");
        assert_eq!(matcher.push("a").emit, "a");
        assert_eq!(matcher.push("c").emit, "aac");
        assert_eq!(matcher.push("xa").emit, "x");
        assert_eq!(matcher.flush(), "a");
    }

    #[test]
    fn the_first_completed_stop_wins() {
        assert_eq!(run(&["abcd", "bc"], &["abcd"]), ("a".into(), Some("bc".into())));
        assert_eq!(run(&["bc", "abc"], &["xa", "bc"]), ("x".into(), Some("abc".into())));
        assert_eq!(run(&["", "ab"], &["", "a", "", "b"]), ("".into(), Some("ab".into())));
        assert_eq!(run(&[], &["a", "b"]), ("ab".into(), None));
    }

    #[test]
    fn nothing_follows_a_hit() {
        let mut matcher = StopMatcher::new(vec!["é".into()]);
        assert_eq!(matcher.push("aéb"), Stop { emit: "a".into(), hit: Some("é".into()) });
        assert_eq!(matcher.push("c"), Stop { emit: "".into(), hit: Some("é".into()) });
        assert_eq!(matcher.flush(), "");
    }

    #[test]
    fn random_pieces_give_what_the_whole_text_gives() {
        let mut rng = SplitMix64::new(7);
        let alphabet = ["a", "b", "é", "日", "👍🏽", "\n"];
        let mut hits = 0;
        for _ in 0..20_000 {
            let mut word = |longest: u64| -> String {
                let length = rng.next_u64() % (longest + 1);
                (0..length).map(|_| alphabet[(rng.next_u64() % 6) as usize]).collect()
            };
            let stops: Vec<String> = (0..3).map(|_| word(4)).collect();
            let pieces: Vec<String> = (0..10).map(|_| word(3)).collect();
            let text = pieces.concat();
            let expected = (1..=text.len())
                .filter(|&end| text.is_char_boundary(end))
                .find_map(|end| {
                    let ends = stops.iter().filter(|s| !s.is_empty() && text[..end].ends_with(s.as_str()));
                    let stop = ends.max_by_key(|s| s.len())?;
                    Some((text[..end - stop.len()].to_owned(), Some(stop.clone())))
                })
                .unwrap_or_else(|| (text.clone(), None));
            hits += u32::from(expected.1.is_some());
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            assert_eq!(run(&stops, &pieces), expected, "{stops:?} {pieces:?}");
        }
        assert!((2_000..18_000).contains(&hits), "{hits}: both outcomes must be common");
    }
}
