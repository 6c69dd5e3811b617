//! `perplexity`: how surprised a model is by a text.

use std::time::Instant;

use candle_engine_models::evaluate::{score, Windows};
use candle_engine_models::Model;
use serde::Serialize;

use super::{load, prompt};
use crate::args::Perplexity;
use crate::exit::{Failure, Outcome};
use crate::output::{self, Ui};
use crate::progress::{Progress, Unit};

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
    let window = args.window.unwrap_or(Windows::for_context(context).window);
    let stride = args.stride.unwrap_or((window / 2).max(1));
    if window > context {
        return Err(Failure::input(format!("--window {window}: the context holds {context} tokens")));
    }
    // A window's first token is not predicted in it.
    if window < 2 || stride >= window {
        return Err(Failure::usage(format!("--stride {stride}: expected less than the window of {window}")));
    }
    let report = measure(&model, &tokens, Windows { window, stride }, args, ui)?;
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

fn measure(model: &Model, tokens: &[u32], windows: Windows, args: &Perplexity, ui: &Ui) -> Outcome<Report> {
    let start = Instant::now();
    let mut progress = Progress::new(ui, "perplexity", Unit::Tokens, tokens.len() as u64);
    let mut session = load::session(model, &args.place, &Ui::new(true, false));
    let score = score(&mut session, tokens, windows, &mut |done| progress.set(done as u64))?;
    Ok(Report {
        perplexity: score.perplexity(),
        standard_error: score.standard_error(),
        nll: score.nll(),
        tokens: score.tokens,
        window: windows.window,
        stride: windows.stride,
        tokens_per_s: score.tokens as f64 / start.elapsed().as_secs_f64(),
    })
}
