//! Generation: an iterator over pieces of text.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::Session;
use crate::text::{DecodeStream, Sampler, SamplerOptions, StopMatcher, Tokenizer};
use crate::Result;

/// How to continue a prompt.
#[derive(Debug, Clone, Default)]
pub struct GenerateOptions {
    /// The most tokens to generate; `None` goes on to the end of the context.
    pub max_tokens: Option<usize>,
    /// How tokens are drawn.
    pub sampler: SamplerOptions,
    /// Texts that end the generation; they are not part of it.
    pub stop: Vec<String>,
    /// Tokens that end the generation.
    pub stop_tokens: Vec<u32>,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// A stop token or a stop text.
    Stop,
    /// As many tokens as were asked for.
    Length,
    /// The context is full.
    ContextFull,
}

/// What one step of a generation yields.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// The token.
    pub id: u32,
    /// Text that became certain with it: whole characters, perhaps none. The last piece brings all that was left.
    pub text: String,
}

/// What a generation took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stats {
    /// Tokens of the prompt that were computed, those in the cache already not counted.
    pub prefilled: usize,
    /// Time they took.
    pub prefill: Duration,
    /// Tokens generated, the one that ended it included.
    pub generated: usize,
    /// Time they took, the first not counted: it comes with the prompt.
    pub decode: Duration,
}

impl Stats {
    /// Prompt tokens per second.
    pub fn prefill_rate(&self) -> f64 {
        rate(self.prefilled, self.prefill)
    }

    /// Generated tokens per second.
    pub fn decode_rate(&self) -> f64 {
        rate(self.generated.saturating_sub(1), self.decode)
    }
}

fn rate(tokens: usize, time: Duration) -> f64 {
    if time.is_zero() {
        0.0
    } else {
        tokens as f64 / time.as_secs_f64()
    }
}

/// A running generation: an iterator over [`Piece`]s. The session afterwards holds all tokens but the last.
pub struct Generation<'a> {
    session: &'a mut Session,
    sampler: Sampler,
    /// `None` for a model without a tokenizer: its pieces have no text.
    stream: Option<DecodeStream<'a>>,
    stops: StopMatcher,
    stop_tokens: Vec<u32>,
    left: usize,
    pending: Option<u32>,
    finish: Option<FinishReason>,
    stats: Stats,
}

impl Session {
    /// Feeds `prompt` and continues it. The prompt is prefilled before this returns. Without a tokenizer the pieces
    /// are tokens without text.
    ///
    /// Errors: `ContextFull` if the prompt leaves no room; `Input` naming an option that is out of range.
    pub fn generate<'a>(
        &'a mut self,
        tokenizer: impl Into<Option<&'a Tokenizer>>,
        prompt: &[u32],
        options: &GenerateOptions,
    ) -> Result<Generation<'a>> {
        let mut sampler = Sampler::new(options.sampler.clone())?;
        let start = Instant::now();
        self.feed(prompt)?;
        for &id in self.tokens() {
            sampler.accept(id);
        }
        let stats = Stats { prefilled: prompt.len(), prefill: start.elapsed(), ..Stats::default() };
        Ok(Generation {
            sampler,
            // The text goes on from the prompt: its first space counts.
            stream: tokenizer.into().map(|t| t.stream().continued()),
            stops: StopMatcher::new(options.stop.clone()),
            stop_tokens: options.stop_tokens.clone(),
            left: options.max_tokens.unwrap_or(usize::MAX),
            pending: None,
            finish: None,
            stats,
            session: self,
        })
    }
}

impl Generation<'_> {
    /// Why it ended; `None` while it runs.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }

    /// What it took so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    fn step(&mut self) -> Result<Option<Piece>> {
        if self.left == 0 {
            self.finish.get_or_insert(FinishReason::Length);
        }
        if self.finish.is_some() {
            return Ok(None);
        }
        let start = Instant::now();
        // The token drawn last is fed only now: the last of all need not be.
        if let Some(id) = self.pending.take() {
            self.session.feed(&[id])?;
        }
        let id = self.sampler.sample(self.session.logits())?;
        self.sampler.accept(id);
        self.left -= 1;
        if self.stats.generated > 0 {
            self.stats.decode += start.elapsed();
        }
        self.stats.generated += 1;

        let ends = self.stop_tokens.contains(&id);
        let text = match &mut self.stream {
            Some(stream) if !ends => stream.push(id)?.unwrap_or_default(),
            _ => String::new(),
        };
        let stop = self.stops.push(&text);
        let mut text = stop.emit;
        self.finish = if ends || stop.hit.is_some() {
            Some(FinishReason::Stop)
        } else if self.left == 0 {
            Some(FinishReason::Length)
        } else if self.session.room() == 0 {
            Some(FinishReason::ContextFull)
        } else {
            None
        };
        match self.finish {
            None => self.pending = Some(id),
            Some(_) if stop.hit.is_none() => text += &self.rest(),
            Some(_) => {}
        }
        Ok(Some(Piece { id, text }))
    }

    /// Text held back because it might have become a stop text or a longer character.
    fn rest(&mut self) -> String {
        let tail = self.stream.as_mut().map(DecodeStream::flush).unwrap_or_default();
        let stop = self.stops.push(&tail);
        let rest = if stop.hit.is_some() { String::new() } else { self.stops.flush() };
        stop.emit + &rest
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}
