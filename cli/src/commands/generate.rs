//! One answer: the prompt prefilled, the pieces handed out as they come, Ctrl-C obeyed.

use std::time::{Duration, Instant};

use candle_engine::session::PREFILL_CHUNK;
use candle_engine_models::{Error, FinishReason, GenerateOptions, Model, Piece, Session, Stats};
use serde::Serialize;

use crate::exit::Outcome;
use crate::interrupt::Graceful;
use crate::output::Ui;
use crate::progress::{Progress, Unit};

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum End {
    Model(FinishReason),
    Interrupted(Interrupted),
}

/// Serializes as its name.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Interrupted {
    Interrupted,
}

/// An answer, and what it took.
#[derive(Debug)]
pub struct Answer {
    /// Empty for a model without a tokenizer.
    pub text: String,
    /// The tokens, with the one that ended the answer.
    pub ids: Vec<u32>,
    pub end: End,
    /// When the first token was there.
    pub first: Option<Instant>,
    pub stats: Stats,
}

impl Answer {
    pub fn was_interrupted(&self) -> bool {
        matches!(self.end, End::Interrupted(_))
    }
}

/// Feeds `prompt` to the session and continues it; `emit` sees every piece.
pub fn generate(
    model: &Model,
    session: &mut Session,
    prompt: &[u32],
    options: &GenerateOptions,
    ui: &Ui,
    mut emit: impl FnMut(&Piece) -> Outcome,
) -> Outcome<Answer> {
    let ctrl_c = Graceful::new();
    let mut answer = Answer {
        text: String::new(),
        ids: Vec::new(),
        end: End::Interrupted(Interrupted::Interrupted),
        first: None,
        stats: Stats::default(),
    };
    if prompt.len() > session.room() {
        let tokens = session.tokens().len() + prompt.len();
        return Err(Error::ContextFull { tokens, context: session.context() }.into());
    }
    let start = Instant::now();
    let Some(rest) = feed_all_but_last_chunk(session, prompt, ui, &ctrl_c)? else { return Ok(answer) };
    let before = Stats { prefilled: prompt.len() - rest.len(), prefill: start.elapsed(), ..Stats::default() };

    let mut generation = session.generate(model.tokenizer().ok(), rest, options)?;
    while !ctrl_c.pressed() {
        let Some(piece) = generation.next() else { break };
        let piece = piece?;
        answer.first.get_or_insert_with(Instant::now);
        answer.ids.push(piece.id);
        answer.text += &piece.text;
        emit(&piece)?;
    }
    if let Some(reason) = generation.finish_reason() {
        answer.end = End::Model(reason);
    }
    answer.stats = generation.stats();
    answer.stats.prefilled += before.prefilled;
    answer.stats.prefill += before.prefill;
    Ok(answer)
}

/// A long prompt in steps between which Ctrl-C is looked at; what is left is fed by the generation. `None` if Ctrl-C
/// was pressed.
fn feed_all_but_last_chunk<'p>(
    session: &mut Session,
    prompt: &'p [u32],
    ui: &Ui,
    ctrl_c: &Graceful,
) -> Outcome<Option<&'p [u32]>> {
    let mut progress = Progress::new(ui, "prompt", Unit::Tokens, prompt.len() as u64);
    let mut rest = prompt;
    while rest.len() > PREFILL_CHUNK {
        progress.set((prompt.len() - rest.len()) as u64);
        let (chunk, tail) = rest.split_at(PREFILL_CHUNK);
        session.feed(chunk)?;
        if ctrl_c.pressed() {
            return Ok(None);
        }
        rest = tail;
    }
    Ok(Some(rest))
}

/// The block of tokens per second.
pub fn timings(stats: &Stats, ui: &Ui) {
    let line = |what: &str, tokens: usize, time: Duration, rate: f64| {
        let ms = time.as_secs_f64() * 1e3;
        ui.detail(format_args!("{what:<8} {tokens:>6} tokens {ms:>10.1} ms {rate:>10.1} tokens/s"));
    };
    line("prefill", stats.prefilled, stats.prefill, stats.prefill_rate());
    // The first token comes with the prompt.
    line("decode", stats.generated.saturating_sub(1), stats.decode, stats.decode_rate());
}
