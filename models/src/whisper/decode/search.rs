//! Finding the likeliest tokens of a window: greedily, by drawing, or among beams.

use candle_engine::kernels::threads::parallel_chunks;
use candle_engine::text::{Sampler, SamplerOptions};
use candle_engine::Result;

use super::super::probability::log_total;
use super::Rules;

/// Tokens that were chosen, and the sum of their log-probabilities under the rules.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hypothesis {
    pub said: Vec<u32>,
    pub sum: f64,
}

/// A row that goes on: which row of the step before it continues, and by which token.
pub(super) type Next = (usize, u32);

/// The search over one window, step by step.
#[derive(Debug)]
pub(super) enum Search {
    /// Each draws for itself; at temperature 0 there is one, and it takes the best.
    Draw(Vec<Draw>),
    Beams(Beams),
}

#[derive(Debug)]
pub(super) struct Draw {
    hypothesis: Hypothesis,
    sampler: Sampler,
    /// The row of the step that is its own; `None` when it has ended.
    row: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Beams {
    size: usize,
    /// How many have to end before the search does.
    wanted: usize,
    /// Best first.
    alive: Vec<Hypothesis>,
    ended: Vec<Hypothesis>,
}

impl Search {
    /// Draws `count` texts, each with random numbers of its own; at temperature 0 one suffices.
    ///
    /// Errors: `Input` for a temperature that is none.
    pub fn draw(temperature: f32, count: usize, seed: u64) -> Result<Self> {
        let nothing = Hypothesis { said: Vec::new(), sum: 0.0 };
        let draw = |i: usize| {
            let seed = seed.wrapping_add(i as u64);
            let options = SamplerOptions {
                temperature,
                top_k: 0,
                top_p: 1.0,
                min_p: 0.0,
                seed,
                ..SamplerOptions::default()
            };
            Ok(Draw { hypothesis: nothing.clone(), sampler: Sampler::new(options)?, row: Some(0) })
        };
        let count = if temperature == 0.0 { 1 } else { count.max(1) };
        Ok(Self::Draw((0..count).map(draw).collect::<Result<_>>()?))
    }

    /// Keeps `size` beams; the search ends when `size · patience` of them have.
    pub fn beams(size: usize, patience: f32) -> Self {
        let wanted = (size as f32 * patience).round_ties_even().max(1.0) as usize;
        let alive = vec![Hypothesis { said: Vec::new(), sum: 0.0 }];
        Self::Beams(Beams { size: size.max(1), wanted, alive, ended: Vec::new() })
    }

    /// Takes the logits of the rows it asked for, and says which go on; none when the search has ended.
    ///
    /// Errors: `Input` if a logit is NaN or the rules leave nothing.
    pub fn step(&mut self, rules: &Rules, mut logits: Vec<Vec<f32>>) -> Result<Vec<Next>> {
        match self {
            Self::Draw(draws) => {
                // At the beginning all draw from one row.
                let own = draws.iter().filter(|draw| draw.row.is_some()).count() == logits.len();
                let mut next = Vec::new();
                for draw in draws {
                    let Some(row) = draw.row.take() else { continue };
                    let logits = if own { std::mem::take(&mut logits[row]) } else { logits[row].clone() };
                    if let Some(token) = draw.step(rules, logits)? {
                        draw.row = Some(next.len());
                        next.push((row, token));
                    }
                }
                Ok(next)
            }
            Self::Beams(beams) => beams.step(rules, logits),
        }
    }

    /// The best of what was found.
    pub fn best(self, length_penalty: Option<f32>) -> Hypothesis {
        let found = match self {
            Self::Draw(draws) => draws.into_iter().map(|draw| draw.hypothesis).collect(),
            Self::Beams(beams) => beams.finish(),
        };
        rank(found, length_penalty)
    }
}

/// The best ways to go on: sum and token.
type Best = Result<Vec<(f64, u32)>>;

impl Draw {
    /// `None` at the end.
    fn step(&mut self, rules: &Rules, mut logits: Vec<f32>) -> Result<Option<u32>> {
        rules.apply(&self.hypothesis.said, &mut logits);
        let token = self.sampler.sample(&logits)?;
        self.hypothesis.sum += f64::from(logits[token as usize]) - log_total(&logits)?;
        if token == rules.eot {
            return Ok(None);
        }
        self.hypothesis.said.push(token);
        Ok(Some(token))
    }
}

impl Beams {
    fn step(&mut self, rules: &Rules, logits: Vec<Vec<f32>>) -> Result<Vec<Next>> {
        // Of each beam as many as there are places, and one that may end.
        let count = self.size + 1;
        let mut beams: Vec<(&Hypothesis, Vec<f32>, Best)> =
            self.alive.iter().zip(logits).map(|(beam, logits)| (beam, logits, Ok(Vec::new()))).collect();
        parallel_chunks(&mut beams, 1, |_, beam| {
            let (beam, logits, best) = &mut beam[0];
            rules.apply(&beam.said, logits);
            *best = log_total(logits).map(|total| {
                let top = top(logits, count).into_iter();
                top.map(|(id, logit)| (beam.sum + f64::from(logit) - total, id)).collect()
            });
        });
        let mut candidates: Vec<(f64, usize, u32)> = Vec::new();
        for (row, (_, _, best)) in beams.into_iter().enumerate() {
            candidates.extend(best?.into_iter().map(|(sum, id)| (sum, row, id)));
        }
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (mut alive, mut next) = (Vec::new(), Vec::new());
        for (sum, row, token) in candidates {
            let mut said = self.alive[row].said.clone();
            if token == rules.eot {
                if self.ended.len() < self.wanted {
                    self.ended.push(Hypothesis { said, sum });
                }
                continue;
            }
            said.push(token);
            alive.push(Hypothesis { said, sum });
            next.push((row, token));
            if alive.len() == self.size {
                break;
            }
        }
        if self.ended.len() >= self.wanted {
            next.clear();
        }
        self.alive = alive;
        Ok(next)
    }

    /// Those that have ended, and if they are too few the best of the others.
    fn finish(mut self) -> Vec<Hypothesis> {
        let missing = self.size.saturating_sub(self.ended.len());
        self.ended.extend(self.alive.into_iter().take(missing));
        self.ended
    }
}

/// The likeliest tokens that may come, best first; the lower id first where equal.
fn top(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    const CHUNK: usize = 64;
    let mut best: Vec<(u32, f32)> = Vec::with_capacity(count + 1);
    for (chunk, logits) in logits.chunks(CHUNK).enumerate() {
        let least = best.get(count - 1).map_or(f32::NEG_INFINITY, |(_, logit)| *logit);
        // Most chunks have nothing for it, which all their numbers at once can tell.
        if !logits.iter().fold(false, |any, &logit| any | (logit > least)) {
            continue;
        }
        for (i, &logit) in logits.iter().enumerate() {
            if logit == f32::NEG_INFINITY || best.len() == count && logit <= best[count - 1].1 {
                continue;
            }
            let at = best.partition_point(|(_, other)| *other >= logit);
            best.insert(at, ((chunk * CHUNK + i) as u32, logit));
            best.truncate(count);
        }
    }
    best
}

/// The likeliest per token; with a penalty α per ((5 + n) / 6)^α tokens instead.
///
/// Source: <https://arxiv.org/abs/1609.08144>, equation 14.
fn rank(found: Vec<Hypothesis>, length_penalty: Option<f32>) -> Hypothesis {
    let score = |h: &Hypothesis| {
        let n = h.said.len() as f64;
        h.sum / length_penalty.map_or(n.max(1.0), |alpha| ((5.0 + n) / 6.0).powf(alpha.into()))
    };
    let mut best: Option<(f64, Hypothesis)> = None;
    for hypothesis in found {
        let score = score(&hypothesis);
        if best.as_ref().is_none_or(|(most, _)| score > *most) {
            best = Some((score, hypothesis));
        }
    }
    best.map_or(Hypothesis { said: Vec::new(), sum: 0.0 }, |(_, hypothesis)| hypothesis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_come_first_and_the_impossible_never() {
        let x = [-3.0, -1.0, f32::NEG_INFINITY, -2.0, -1.0];
        assert_eq!(top(&x, 3), [(1, -1.0), (4, -1.0), (3, -2.0)]);
        assert_eq!(top(&x, 9).len(), 4);
    }

    #[test]
    fn length_counts() {
        let h = |n: usize, sum| Hypothesis { said: vec![1; n], sum };
        let found = || vec![h(2, -2.0), h(6, -4.0), h(1, -1.5)];
        assert_eq!(rank(found(), None).said.len(), 6, "per token");
        assert_eq!(rank(found(), Some(0.0)).said.len(), 1, "by the sum alone");
        // -2/1.167, -4/1.833, -1.5/1
        assert_eq!(rank(found(), Some(1.0)).said.len(), 1);
        assert!(rank(Vec::new(), None).said.is_empty());
    }
}
