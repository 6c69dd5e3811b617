//! What a search asks of a model.

use candle_engine::kv::{Batch, KvCache};
use candle_engine::ops::to_rows;
use candle_engine::Result;

use super::super::{Memory, Whisper};
use super::Prompt;

/// The logits after a prompt.
#[derive(Debug, Clone, Default)]
pub(in crate::whisper) struct Begun {
    /// After the token that begins the transcript: where silence is told.
    pub at_start: Vec<f32>,
    /// After the last token.
    pub last: Vec<f32>,
}

/// A model in the middle of several windows: rows that are continued, shared and dropped step by step.
pub(in crate::whisper) trait Inference {
    /// Feeds prompts, each to its window. They are the rows then.
    fn begin(&mut self, prompts: &[Prompt]) -> Result<Vec<Begun>>;

    /// Continues rows of the step before, each by a token: `(row, token)`. Those that nobody continues are dropped.
    /// Gives the logits of the new rows.
    fn step(&mut self, rows: &[(usize, u32)]) -> Result<Vec<Vec<f32>>>;
}

/// The model itself.
pub(in crate::whisper) struct ModelInference<'a> {
    model: &'a Whisper,
    memories: Vec<&'a Memory>,
    /// Cache and window of each row.
    rows: Vec<(KvCache, usize)>,
}

impl<'a> ModelInference<'a> {
    /// Over windows that were heard.
    pub fn new(model: &'a Whisper, memories: Vec<&'a Memory>) -> Self {
        Self { model, memories, rows: Vec::new() }
    }
}

impl Inference for ModelInference<'_> {
    fn begin(&mut self, prompts: &[Prompt]) -> Result<Vec<Begun>> {
        self.rows = prompts.iter().map(|p| (self.model.decoder().new_cache(), p.window)).collect();
        let memories: Vec<&Memory> = prompts.iter().map(|p| self.memories[p.window]).collect();
        let mut batch = Batch::default();
        for ((kv, _), Prompt { tokens, start, .. }) in self.rows.iter_mut().zip(prompts) {
            let last = tokens.len().saturating_sub(1);
            let wanted = if *start < last { vec![*start, last] } else { vec![last] };
            batch.push_wanting(tokens, kv, wanted)?;
        }
        let logits = self.model.decoder().forward(&mut batch, &memories)?;
        let mut logits = to_rows(&logits)?.into_iter();
        let mut next = || logits.next().unwrap_or_default();
        let begun = prompts.iter().map(|prompt| {
            let at_start = next();
            let last = if prompt.start + 1 < prompt.tokens.len() { next() } else { at_start.clone() };
            Begun { at_start, last }
        });
        Ok(begun.collect())
    }

    fn step(&mut self, rows: &[(usize, u32)]) -> Result<Vec<Vec<f32>>> {
        let mut heirs = vec![0; self.rows.len()];
        rows.iter().for_each(|&(row, _)| heirs[row] += 1);
        let mut old: Vec<Option<(KvCache, usize)>> = self.rows.drain(..).map(Some).collect();
        for &(row, _) in rows {
            heirs[row] -= 1;
            // The last of them takes it over, the others share what it holds so far.
            let heir = match &mut old[row] {
                Some((kv, window)) if heirs[row] > 0 => Some((kv.fork()?, *window)),
                last => last.take(),
            };
            self.rows.extend(heir);
        }
        let memories: Vec<&Memory> = self.rows.iter().map(|(_, window)| self.memories[*window]).collect();
        let mut batch = Batch::default();
        for ((kv, _), (_, token)) in self.rows.iter_mut().zip(rows) {
            batch.push(std::slice::from_ref(token), kv, false)?;
        }
        let logits = self.model.decoder().forward(&mut batch, &memories)?;
        to_rows(&logits)
    }
}
