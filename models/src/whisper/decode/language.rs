//! Which language is spoken.

use candle_core::Tensor;
use candle_engine::text::sampler::log_softmax;
use candle_engine::{Error, Result};

use super::super::{Tokens, Whisper};
use super::{Inference, ModelInference, Prompt};

/// A language and how probable it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LanguageProbability {
    /// `en`, `de`, …
    pub code: &'static str,
    /// 0 to 1; those of all languages add up to 1.
    pub probability: f64,
}

impl Whisper {
    /// The languages that a window may be in, most probable first.
    ///
    /// Shapes: `window [frames, mels]`.
    /// Errors: `Input` for a model that knows English alone.
    pub fn detect_language(&self, window: &Tensor) -> Result<Vec<LanguageProbability>> {
        let memories = self.hear(std::slice::from_ref(window))?;
        detect(self.tokens()?, &mut ModelInference::new(self, memories.iter().collect()))
    }
}

pub(in crate::whisper) fn detect(
    tokens: &Tokens,
    model: &mut dyn Inference,
) -> Result<Vec<LanguageProbability>> {
    if !tokens.is_multilingual() {
        return Err(Error::Input("the model knows English alone: there is no language to detect".into()));
    }
    let begun = model.begin(&[Prompt { tokens: vec![tokens.sot], ..Prompt::default() }])?.remove(0);
    let logits: Vec<f32> = tokens.languages.iter().map(|&(_, id)| begun.last[id as usize]).collect();
    let mut found: Vec<LanguageProbability> = tokens
        .languages
        .iter()
        .zip(log_softmax(&logits)?)
        .map(|(&(code, _), logprob)| LanguageProbability { code, probability: logprob.exp() })
        .collect();
    found.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    Ok(found)
}
