//! `perplexity`: how surprised a model is by a text.

use std::time::Instant;

use candle_engine::text::sampler::logprob;
use candle_engine_models::{Error, Model};
use serde::Serialize;

use super::{load, prompt};
use crate::args::Perplexity;
use crate::exit::{Failure, Outcome};
use crate::output::{self, Ui};
use crate::progress::{Progress, Unit};

const WINDOW: usize = 512;

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    perplexity: f64,
    /// Of the perplexity, from the spread of the tokens' scores.
    standard_error: f64,
    /// Mean negative log-probability of a token, in nats.
    nll: f64,
    /// Tokens scored.
    tokens: usize,
    window: usize,
    stride: usize,
    tokens_per_s: f64,
}

pub fn run(args: &Perplexity, ui: &Ui) -> Outcome {
    let text = prompt::text_of(&args.file)?;
    let model = load::open(&load::word(None, &args.model), &args.place, ui)?;
    let tokens = model.encode(&text)?;
    if tokens.len() < 2 {
        return Err(Failure::input(format!("{}: there is nothing to score", args.file.display())));
    }
    load::check_ids(&model, &tokens)?;
    let context = load::session(&model, &args.place, ui).context();
    let window = args.window.unwrap_or(WINDOW.min(context));
    let stride = args.stride.unwrap_or((window / 2).max(1));
    if window > context {
        return Err(Failure::input(format!("--window {window}: the context holds {context} tokens")));
    }
    // A window's first token is not predicted in it.
    if window < 2 || stride >= window {
        return Err(Failure::usage(format!("--stride {stride}: expected less than the window of {window}")));
    }
    let report = measure(&model, &tokens, window, stride, args, ui)?;
    if args.json {
        return output::json(&report);
    }
    let Report { perplexity, standard_error, nll, tokens, tokens_per_s, .. } = report;
    output::line(format_args!("perplexity {perplexity:.4} ± {standard_error:.4}"))?;
    ui.note(format_args!(
        "{nll:.4} nats per token over {tokens} tokens, window {window}, stride {stride}, {tokens_per_s:.1} tokens/s"
    ));
    Ok(())
}

fn measure(
    model: &Model,
    tokens: &[u32],
    window: usize,
    stride: usize,
    args: &Perplexity,
    ui: &Ui,
) -> Outcome<Report> {
    let start = Instant::now();
    let mut progress = Progress::new(ui, "perplexity", Unit::Tokens, tokens.len() as u64);
    let mut session = load::session(model, &args.place, &Ui::new(true, false));
    let (mut scored, mut sum, mut squares) = (1, 0.0, 0.0);
    let mut failed: Option<Error> = None;
    for begin in (0..tokens.len()).step_by(stride) {
        let end = (begin + window).min(tokens.len());
        session.truncate(0);
        // The token before the first unscored one is the first whose logits matter; the last needs none.
        let first = scored - 1;
        if begin < first {
            session.feed(&tokens[begin..first])?;
        }
        session.feed_all(&tokens[first..end - 1], |i, logits| {
            match logprob(logits, tokens[first + i + 1]) {
                Ok(x) => (sum, squares) = (sum - x, squares + x * x),
                Err(e) => _ = failed.get_or_insert(e),
            }
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        scored = end;
        progress.set(scored as u64);
        if end == tokens.len() {
            break;
        }
    }
    let n = (scored - 1) as f64;
    let nll = sum / n;
    let variance = (squares / n - nll * nll).max(0.0) * n / (n - 1.0).max(1.0);
    let perplexity = nll.exp();
    Ok(Report {
        perplexity,
        standard_error: perplexity * (variance / n).sqrt(),
        nll,
        tokens: scored - 1,
        window,
        stride,
        tokens_per_s: n / start.elapsed().as_secs_f64(),
    })
}
