//! Choosing the next token: penalties, filters, temperature, draw.
//!
//! The order is that of llama.cpp: bias and penalties, top-k, typical, top-p, min-p, temperature, draw. So the filters
//! see the model's own distribution, and the temperature spreads what they left.

mod filters;
mod logprobs;
mod rng;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use self::filters::Candidate;
pub use self::logprobs::{log_softmax, logprob, top_logprobs};
pub use self::rng::SplitMix64;
use crate::{Error, Result};

/// How to choose tokens. The defaults are llama.cpp's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SamplerOptions {
    /// Divides the logits: below 1 is bolder, above 1 is more varied; 0 takes the best token always.
    pub temperature: f32,
    /// Keeps this many best tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the best tokens that together have this probability; 1 keeps all.
    pub top_p: f32,
    /// Keeps the tokens at least this many times as probable as the best; 0 keeps all.
    pub min_p: f32,
    /// Keeps the tokens of most typical surprise that together have more than this probability; 1 keeps all.
    pub typical_p: f32,
    /// Divides positive and multiplies negative logits of recent tokens; 1 does nothing.
    pub repeat_penalty: f32,
    /// How many tokens are recent.
    pub repeat_last_n: usize,
    /// Subtracted from the logit of every recent token.
    pub presence_penalty: f32,
    /// Subtracted from a recent token's logit as often as it occurred.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens; -inf forbids one.
    pub logit_bias: Vec<(u32, f32)>,
    /// Where the random numbers start: the same seed and the same logits give the same tokens.
    pub seed: u64,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl SamplerOptions {
    /// The best token always: temperature 0.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Checks every option against its range.
    ///
    /// Errors: `Input`, with the option's name and value.
    pub fn validate(&self) -> Result<()> {
        let check = |name: &str, value: f32, fits: bool, expected: &str| match fits {
            true => Ok(()),
            false => Err(Error::Input(format!("{name}: expected {expected}, got {value}"))),
        };
        let Self { temperature: t, repeat_penalty: r, .. } = *self;
        check("temperature", t, t.is_finite() && t >= 0.0, "a finite number, 0 or more")?;
        check("repeat_penalty", r, r.is_finite() && r > 0.0, "a finite number above 0")?;
        for (name, p) in [("top_p", self.top_p), ("min_p", self.min_p), ("typical_p", self.typical_p)] {
            check(name, p, (0.0..=1.0).contains(&p), "a number from 0 to 1")?;
        }
        let additive =
            [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)];
        for (name, penalty) in additive {
            check(name, penalty, penalty.is_finite(), "a finite number")?;
        }
        for (id, bias) in &self.logit_bias {
            check(&format!("logit_bias of token {id}"), *bias, !bias.is_nan(), "a number")?;
        }
        Ok(())
    }

    fn penalizes(&self) -> bool {
        self.repeat_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }
}

/// Chooses tokens one after the other; keeps the recent ones, the random state and its buffers.
///
/// [`sample`](Self::sample) only chooses. The caller says with [`accept`](Self::accept) what became part of the text,
/// prompt included if it should count: a choice may be discarded, and a forced token may come from elsewhere.
///
/// ```
/// use candle_engine::text::sampler::{Sampler, SamplerOptions};
/// let mut sampler = Sampler::new(SamplerOptions { seed: 42, ..Default::default() })?;
/// let id = sampler.sample(&[0.1, 9.0, 0.3])?;
/// sampler.accept(id);
/// assert_eq!(id, 1);
/// # Ok::<(), candle_engine::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Sampler {
    options: SamplerOptions,
    rng: SplitMix64,
    recent: VecDeque<u32>,
    /// How often each recent token occurs.
    counts: HashMap<u32, u32>,
    /// Logits after bias and penalties, where there are any.
    adjusted: Vec<f32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// Starts with no history.
    ///
    /// Errors: `Input` if an option is out of range.
    pub fn new(options: SamplerOptions) -> Result<Self> {
        options.validate()?;
        Ok(Self {
            rng: SplitMix64::new(options.seed),
            options,
            recent: VecDeque::new(),
            counts: HashMap::new(),
            adjusted: Vec::new(),
            candidates: Vec::new(),
        })
    }

    /// What it was made with.
    pub fn options(&self) -> &SamplerOptions {
        &self.options
    }

    /// Chooses a token. Takes one random number, or none if the temperature is 0.
    ///
    /// Shapes: `logits [vocabulary]`; the answer is an index into it.
    /// Errors: `Input` if a logit is NaN, none is above -inf, or a bias is for a token outside the vocabulary.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        let mut adjusted = std::mem::take(&mut self.adjusted);
        let chosen = match self.options.logit_bias.is_empty()
            && (self.counts.is_empty() || !self.options.penalizes())
        {
            true => self.choose(logits),
            false => {
                adjusted.clear();
                adjusted.extend_from_slice(logits);
                self.adjust(&mut adjusted).and_then(|()| self.choose(&adjusted))
            }
        };
        self.adjusted = adjusted;
        chosen
    }

    /// Makes a token part of the history that the penalties see.
    pub fn accept(&mut self, id: u32) {
        if !self.options.penalizes() || self.options.repeat_last_n == 0 {
            return;
        }
        if self.recent.len() == self.options.repeat_last_n {
            if let Some(oldest) = self.recent.pop_front() {
                if let Some(count) = self.counts.get_mut(&oldest) {
                    *count -= 1;
                    if *count == 0 {
                        self.counts.remove(&oldest);
                    }
                }
            }
        }
        self.recent.push_back(id);
        *self.counts.entry(id).or_default() += 1;
    }

    /// Forgets the history and starts the random numbers anew.
    pub fn reset(&mut self) {
        self.rng = SplitMix64::new(self.options.seed);
        self.recent.clear();
        self.counts.clear();
    }

    /// Adds the biases, then applies the penalties.
    fn adjust(&self, logits: &mut [f32]) -> Result<()> {
        let vocabulary = logits.len();
        for &(id, bias) in &self.options.logit_bias {
            match logits.get_mut(id as usize) {
                Some(logit) => *logit += bias,
                None => {
                    let what = format!("logit_bias: token {id} is outside the vocabulary of {vocabulary}");
                    return Err(Error::Input(what));
                }
            }
        }
        if !self.options.penalizes() {
            return Ok(());
        }
        let SamplerOptions { repeat_penalty, presence_penalty, frequency_penalty, .. } = self.options;
        for (&id, &count) in &self.counts {
            if let Some(logit) = logits.get_mut(id as usize) {
                match *logit > 0.0 {
                    true => *logit /= repeat_penalty,
                    false => *logit *= repeat_penalty,
                }
                *logit -= count as f32 * frequency_penalty + presence_penalty;
            }
        }
        Ok(())
    }

    fn choose(&mut self, logits: &[f32]) -> Result<u32> {
        let max = logprobs::maximum(logits)?;
        let options = &self.options;
        if options.temperature == 0.0 {
            return Ok(logits.iter().position(|&x| x == max).unwrap_or_default() as u32);
        }
        let list = &mut self.candidates;
        match options.top_k {
            0 => filters::all(logits, list),
            k => filters::top_k(logits, k, list),
        }
        if options.typical_p < 1.0 {
            filters::typical(list, max, options.typical_p.into());
        }
        // The typical ones need not include the best.
        let max = list.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
        // Both of these keep the best, so their order does not matter as long as the total is that before min-p. This
        // way top-p need not sort what min-p drops.
        let total = (options.top_p < 1.0).then(|| filters::total(list, max));
        if options.min_p > 0.0 {
            filters::min_p(list, max, options.min_p.into());
        }
        if let Some(total) = total {
            filters::top_p(list, max, total, options.top_p.into());
        }
        Ok(draw(list, max, options.temperature.into(), self.rng.next_f64()))
    }
}

/// Picks the candidate in whose share of the total probability the point `at`, from 0 to 1, falls.
fn draw(list: &[Candidate], max: f32, temperature: f64, at: f64) -> u32 {
    let weight = |c: &Candidate| (logprobs::log_weight(c.logit, max) / temperature).exp();
    let mut left = at * list.iter().map(weight).sum::<f64>();
    let mut last = 0;
    for candidate in list {
        let weight = weight(candidate);
        if weight > 0.0 {
            // Rounding may leave a little over after the last one that is possible.
            last = candidate.id;
            if left < weight {
                break;
            }
            left -= weight;
        }
    }
    last
}
