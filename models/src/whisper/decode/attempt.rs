//! Retries: what was decoded badly is decoded again at a higher temperature.

use candle_engine::Result;
use serde::Serialize;

use super::window::decode;
use super::{DecodeOptions, Decoded, Frame, Inference, Prompt};

/// What a text has to reach to be accepted; `None` asks nothing. The defaults are the reference's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// A text that zlib makes smaller than by this factor repeats itself.
    pub compression_ratio: Option<f64>,
    /// A mean log-probability below this is too low.
    pub logprob: Option<f64>,
    /// A window whose probability of silence is above this is silent, unless the text is likely.
    pub no_speech: Option<f64>,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { compression_ratio: Some(2.4), logprob: Some(-1.0), no_speech: Some(0.6) }
    }
}

/// What became of one attempt, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing was wrong with it.
    Accepted,
    /// The compression ratio is above its threshold.
    Repetitive,
    /// The mean log-probability is below its threshold.
    Unlikely,
    /// The mean log-probability is below its threshold because nobody speaks: a retry would invent something.
    Silent,
}

/// One decoding of a window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Attempt {
    /// What it was decoded at.
    pub temperature: f32,
    /// See [`Decoded::avg_logprob`].
    pub avg_logprob: f64,
    /// See [`Decoded::compression_ratio`].
    pub compression_ratio: f64,
    /// See [`Decoded::no_speech_prob`].
    pub no_speech_prob: f64,
    /// What became of it. The last attempt counts whatever this is.
    pub verdict: Verdict,
}

impl Thresholds {
    /// Judges a text.
    pub fn judge(&self, decoded: &Decoded) -> Verdict {
        let repetitive = self.compression_ratio.is_some_and(|most| decoded.compression_ratio > most);
        let unlikely = self.logprob.is_some_and(|least| decoded.avg_logprob < least);
        let silent = self.no_speech.is_some_and(|most| decoded.no_speech_prob > most);
        match (unlikely && silent, repetitive, unlikely) {
            (true, ..) => Verdict::Silent,
            (_, true, _) => Verdict::Repetitive,
            (.., true) => Verdict::Unlikely,
            _ => Verdict::Accepted,
        }
    }

    /// Whether a window is skipped: it is silent, and what was decoded is not likely enough to doubt that.
    pub fn skips(&self, decoded: &Decoded) -> bool {
        let silent = self.no_speech.is_some_and(|most| decoded.no_speech_prob > most);
        silent && !self.logprob.is_some_and(|least| decoded.avg_logprob > least)
    }
}

/// Decodes windows at the first temperature, and again at the next those that the thresholds do not accept.
///
/// Errors: those of `decode`.
pub(in crate::whisper) fn decode_with_fallback(
    model: &mut dyn Inference,
    frame: &Frame,
    prompts: &[Prompt],
    options: &DecodeOptions,
    temperatures: &[f32],
    thresholds: &Thresholds,
) -> Result<Vec<(Decoded, Vec<Attempt>)>> {
    let mut results: Vec<Option<(Decoded, Vec<Attempt>)>> = vec![None; prompts.len()];
    let mut left: Vec<usize> = (0..prompts.len()).collect();
    for (round, &temperature) in temperatures.iter().enumerate() {
        let again: Vec<Prompt> = left
            .iter()
            .map(|&i| Prompt {
                seed: prompts[i].seed.wrapping_add((round as u64) << 48),
                ..prompts[i].clone()
            })
            .collect();
        let options = DecodeOptions { temperature, ..options.clone() };
        let mut unhappy = Vec::new();
        for (i, decoded) in left.into_iter().zip(decode(model, frame, &again, &options)?) {
            let verdict = thresholds.judge(&decoded);
            if matches!(verdict, Verdict::Repetitive | Verdict::Unlikely) {
                unhappy.push(i);
            }
            let attempt = Attempt {
                temperature,
                avg_logprob: decoded.avg_logprob,
                compression_ratio: decoded.compression_ratio,
                no_speech_prob: decoded.no_speech_prob,
                verdict,
            };
            let mut attempts = results[i].take().map_or_else(Vec::new, |(_, attempts)| attempts);
            attempts.push(attempt);
            results[i] = Some((decoded, attempts));
        }
        left = unhappy;
        if left.is_empty() {
            break;
        }
    }
    Ok(results.into_iter().flatten().collect())
}
