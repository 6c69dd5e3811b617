//! How surprised a model is by a text, and how far one model is from another.

use candle_engine::session::Session;
use candle_engine::text::sampler::logprob;
use candle_engine::{Error, Result};

/// How a long text is cut: windows of `window` tokens begin `stride` tokens apart, and in each only those tokens are
/// scored that no earlier one has scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Tokens in a window, at least 2: its first is not predicted in it.
    pub window: usize,
    /// Tokens between the starts of two windows, less than a window.
    pub stride: usize,
}

impl Windows {
    /// Windows of 512 tokens, or of a context that is smaller; half a window apart.
    pub fn for_context(context: usize) -> Self {
        let window = context.min(512);
        Self { window, stride: (window / 2).max(1) }
    }

    /// Beginning, first token whose logits matter, and end of each window over a text.
    fn over(self, tokens: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        let mut scored = 1;
        let mut begins = (0..tokens).step_by(self.stride);
        std::iter::from_fn(move || {
            if scored >= tokens {
                return None;
            }
            let begin = begins.next()?;
            let (first, end) = (scored - 1, (begin + self.window).min(tokens));
            scored = end;
            Some((begin, first, end))
        })
    }
}

/// The log-probabilities of a text's tokens, summed up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Score {
    /// Tokens scored: all but the first of a text.
    pub tokens: usize,
    sum: f64,
    squares: f64,
}

impl Score {
    /// Mean negative log-probability of a token, in nats.
    pub fn nll(&self) -> f64 {
        self.sum / self.tokens as f64
    }

    /// exp of [`Self::nll`].
    pub fn perplexity(&self) -> f64 {
        self.nll().exp()
    }

    /// Of the perplexity, from the spread of the tokens' scores.
    pub fn standard_error(&self) -> f64 {
        let n = self.tokens as f64;
        let variance = (self.squares / n - self.nll().powi(2)).max(0.0) * n / (n - 1.0).max(1.0);
        self.perplexity() * (variance / n).sqrt()
    }

    fn add(&mut self, logprob: f64) {
        self.tokens += 1;
        self.sum -= logprob;
        self.squares += logprob * logprob;
    }
}

impl std::ops::AddAssign for Score {
    fn add_assign(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.sum += other.sum;
        self.squares += other.squares;
    }
}

/// Scores a text; `progress` is told how many tokens are done. What the session held is forgotten.
///
/// Errors: `Input` for logits that are not numbers; those of [`Session::feed`].
pub fn score(
    session: &mut Session,
    tokens: &[u32],
    windows: Windows,
    progress: &mut dyn FnMut(usize),
) -> Result<Score> {
    let mut score = Score::default();
    let mut failed: Option<Error> = None;
    for (begin, first, end) in windows.over(tokens.len()) {
        restart(session, &tokens[begin..first])?;
        session.feed_all(&tokens[first..end - 1], |i, logits| {
            match logprob(logits, tokens[first + i + 1]) {
                Ok(x) => score.add(x),
                Err(e) => _ = failed.get_or_insert(e),
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        progress(end);
    }
    Ok(score)
}

/// One model against another on the same text.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Comparison {
    /// The model that is compared with.
    pub reference: Score,
    /// The other.
    pub model: Score,
    kl: f64,
}

impl Comparison {
    /// Mean Kullback-Leibler divergence of the other model from the reference, in nats per token.
    pub fn kl(&self) -> f64 {
        self.kl / self.model.tokens as f64
    }

    /// By how much the perplexity differs, as a share of the reference's.
    pub fn change(&self) -> f64 {
        self.model.perplexity() / self.reference.perplexity() - 1.0
    }
}

impl std::ops::AddAssign for Comparison {
    fn add_assign(&mut self, other: Self) {
        self.reference += other.reference;
        self.model += other.model;
        self.kl += other.kl;
    }
}

/// Scores a text with two models that have the same vocabulary.
///
/// Errors: as [`score`].
pub fn compare(
    reference: &mut Session,
    model: &mut Session,
    tokens: &[u32],
    windows: Windows,
    progress: &mut dyn FnMut(usize),
) -> Result<Comparison> {
    // Positions whose logits are held at once.
    const PIECE: usize = 32;
    let mut all = Comparison::default();
    let mut failed: Option<Error> = None;
    for (begin, first, end) in windows.over(tokens.len()) {
        restart(reference, &tokens[begin..first])?;
        restart(model, &tokens[begin..first])?;
        for from in (first..end - 1).step_by(PIECE) {
            let piece = &tokens[from..(from + PIECE).min(end - 1)];
            let mut expected: Vec<Vec<f32>> = Vec::with_capacity(piece.len());
            reference.feed_all(piece, |_, logits| expected.push(logits.to_vec()))?;
            model.feed_all(piece, |i, logits| {
                let next = tokens[from + i + 1];
                match (logprob(&expected[i], next), logprob(logits, next)) {
                    (Ok(a), Ok(b)) => {
                        all.reference.add(a);
                        all.model.add(b);
                        all.kl += divergence(&expected[i], logits);
                    }
                    (Err(e), _) | (_, Err(e)) => _ = failed.get_or_insert(e),
                }
            })?;
        }
        if let Some(error) = failed {
            return Err(error);
        }
        progress(end);
    }
    Ok(all)
}

/// Σ p · (ln p − ln q) of two sets of logits.
fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let total = |logits: &[f32]| {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&x| f64::from(x - most).exp()).sum();
        f64::from(most) + sum.ln()
    };
    let (p_total, q_total) = (total(p), total(q));
    p.iter()
        .zip(q)
        .map(|(&p, &q)| {
            let p = f64::from(p) - p_total;
            p.exp() * (p - (f64::from(q) - q_total))
        })
        .sum()
}

fn restart(session: &mut Session, before: &[u32]) -> Result<()> {
    session.truncate(0);
    if !before.is_empty() {
        session.feed(before)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_but_the_first_is_scored_once() {
        for (tokens, window, stride) in [(10, 4, 2), (10, 4, 3), (4, 4, 1), (9, 2, 1), (2, 8, 4)] {
            let mut next = 1;
            for (begin, first, end) in (Windows { window, stride }).over(tokens) {
                assert!(begin <= first && end <= begin + window);
                assert_eq!(first + 1, next);
                next = end;
            }
            assert_eq!(next, tokens, "{tokens} {window} {stride}");
        }
    }

    #[test]
    fn divergence_of_known_distributions() {
        let p = [0.5f32.ln(), 0.5f32.ln()];
        let q = [0.25f32.ln(), 0.75f32.ln()];
        let expected = 0.5 * (2f64.ln() + (0.5f64 / 0.75).ln());
        assert!((divergence(&p, &q) - expected).abs() < 1e-7);
        assert_eq!(divergence(&q, &q), 0.0);
    }
}
