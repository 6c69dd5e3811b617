//! Which tokens may come next.

use candle_engine::kernels::act::{largest, log_sum_exp};

use super::super::Tokens;

/// Rules over the logits of a step: what may not come is −∞ afterwards.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Never come.
    pub suppressed: Vec<u32>,
    /// Do not come first: a space, and the end.
    pub not_first: Vec<u32>,
    /// The end; all tokens below are text.
    pub eot: u32,
    /// Times, unless the text is to have none.
    pub timestamps: Option<TimestampRules>,
}

/// Times come in pairs, do not go back, and end what they began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampRules {
    /// Asks for text without times: it does not come then.
    pub no_timestamps: u32,
    /// The time 0; later times are the tokens after it.
    pub begin: u32,
    /// The latest that the first may be, in steps of time.
    pub most_initial: Option<u32>,
}

impl Rules {
    /// The reference's rules. `suppress` are tokens that never come, beside those that control the model.
    pub fn new(
        tokens: &Tokens,
        suppress: &[u32],
        suppress_blank: bool,
        timestamps: Option<TimestampRules>,
    ) -> Self {
        let controls = [tokens.transcribe, tokens.translate, tokens.sot, tokens.sot_prev];
        let others = [tokens.sot_lm, tokens.no_speech].into_iter().flatten();
        let mut suppressed: Vec<u32> = suppress.iter().copied().chain(controls).chain(others).collect();
        suppressed.sort_unstable();
        suppressed.dedup();
        let mut not_first = Vec::new();
        if suppress_blank {
            not_first.extend_from_slice(&tokens.blank);
            not_first.push(tokens.eot);
        }
        Self { suppressed, not_first, eot: tokens.eot, timestamps }
    }

    /// Applies the rules to the logits `[vocab]` of what comes after `said`, the tokens since the prompt.
    pub fn apply(&self, said: &[u32], logits: &mut [f32]) {
        let mut forbid = |ids: &[u32]| {
            for &id in ids {
                if let Some(logit) = logits.get_mut(id as usize) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        };
        if said.is_empty() {
            forbid(&self.not_first);
        }
        forbid(&self.suppressed);
        if let Some(rules) = &self.timestamps {
            rules.apply(said, self.eot, logits);
        }
    }
}

impl TimestampRules {
    fn apply(&self, said: &[u32], eot: u32, logits: &mut [f32]) {
        let (begin, eot) = ((self.begin as usize).min(logits.len()), eot as usize);
        let is_time = |&id: &u32| id >= self.begin;
        let forbid = |logits: &mut [f32]| logits.fill(f32::NEG_INFINITY);
        if let Some(logit) = logits.get_mut(self.no_timestamps as usize) {
            *logit = f32::NEG_INFINITY;
        }
        let last = said.last().is_some_and(is_time);
        let before = said.len() < 2 || is_time(&said[said.len() - 2]);
        match (last, before) {
            // A pair is complete: text follows.
            (true, true) => forbid(&mut logits[begin..]),
            // Text has ended: what follows is the beginning of the next, or the end.
            (true, false) => forbid(&mut logits[..eot]),
            _ => {}
        }
        if let Some(&time) = said.iter().rfind(|id| is_time(id)) {
            // A segment that has begun lasts at least one step, or a loop could go on for ever.
            let least = if last && !before { time } else { time + 1 };
            let least = (least as usize).min(logits.len());
            forbid(&mut logits[begin..least]);
        }
        if said.is_empty() {
            forbid(&mut logits[..begin]);
            if let Some(most) = self.most_initial {
                let after = begin.saturating_add(most as usize + 1).min(logits.len());
                forbid(&mut logits[after..]);
            }
        }
        // Times count together: where they are likelier than any text, one of them comes.
        let (text, times) = logits.split_at_mut(begin);
        if log_sum_exp(times) > f64::from(largest(text)) {
            forbid(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text 0 to 9, end 10, no times 11, times from 12 to 19.
    fn rules() -> Rules {
        let timestamps = Some(TimestampRules { no_timestamps: 11, begin: 12, most_initial: Some(3) });
        Rules { suppressed: vec![4, 99], not_first: vec![0, 10], eot: 10, timestamps }
    }

    /// The tokens that may come, where all are as likely but that text is preferred to times by `text`.
    fn allowed(rules: &Rules, said: &[u32], text: f32) -> Vec<u32> {
        let mut logits: Vec<f32> = (0..20).map(|id| if id < 12 { text } else { 0.0 }).collect();
        rules.apply(said, &mut logits);
        (0..20).filter(|&id| logits[id as usize] > f32::NEG_INFINITY).collect()
    }

    #[test]
    fn the_first_token_is_an_early_time() {
        assert_eq!(allowed(&rules(), &[], 9.0), [12, 13, 14, 15]);
        let late = TimestampRules { most_initial: None, ..rules().timestamps.unwrap() };
        let rules = Rules { timestamps: Some(late), ..rules() };
        assert_eq!(allowed(&rules, &[], 9.0), (12..20).collect::<Vec<_>>());
    }

    #[test]
    fn text_follows_a_beginning() {
        assert_eq!(allowed(&rules(), &[13], 9.0), [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]);
        assert_eq!(allowed(&rules(), &[13, 2, 14, 14], 9.0), [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn a_time_or_the_end_follows_the_end_of_a_text() {
        assert_eq!(allowed(&rules(), &[13, 2, 15], 9.0), [10, 15, 16, 17, 18, 19]);
    }

    #[test]
    fn times_go_on_and_segments_last() {
        // After text any later time, but not that at which it began.
        assert_eq!(allowed(&rules(), &[14, 2], 1.0), [15, 16, 17, 18, 19]);
        assert_eq!(allowed(&rules(), &[14, 2], 9.0), [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 15, 16, 17, 18, 19]);
    }

    #[test]
    fn times_count_together() {
        // Five times of logit 0 weigh ln 5 = 1.609.
        assert_eq!(allowed(&rules(), &[14, 2], 1.6)[0], 15);
        assert_eq!(allowed(&rules(), &[14, 2], 1.62)[0], 0);
    }

    #[test]
    fn without_times_only_blanks_are_kept_from_the_beginning() {
        let rules = Rules { timestamps: None, ..rules() };
        let first = allowed(&rules, &[], 0.0);
        assert!(!first.contains(&0) && !first.contains(&10) && !first.contains(&4) && first.contains(&11));
        assert!(allowed(&rules, &[1], 0.0).contains(&10));
    }
}
