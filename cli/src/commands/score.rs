//! `score`: log-probabilities of a text's tokens, and of what may come next.

use candle_engine::text::sampler::{logprob, top_logprobs};
use candle_engine_models::{Error, Model};
use serde::Serialize;

use super::{load, prompt};
use crate::args::Score;
use crate::exit::{Failure, Outcome};
use crate::output::{self, Ui};

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    tokens: Vec<u32>,
    /// Natural logarithms; the first token has none.
    logprobs: Vec<Option<f64>>,
    next: Vec<Next>,
}

/// A token that may come next.
#[derive(Debug, Serialize)]
struct Next {
    id: u32,
    logprob: f64,
    /// Its text; `null` for a model without a tokenizer.
    token: Option<String>,
}

pub fn run(args: &Score, ui: &Ui) -> Outcome {
    let model = load::open(&load::word(None, &args.model), &args.place, ui)?;
    let tokens = match (&args.tokens, args.text.as_deref()) {
        (Some(ids), _) => ids.clone(),
        (None, Some("-")) => model.encode(&prompt::prompt_of("-".as_ref())?)?,
        (None, text) => model.encode(text.unwrap_or_default())?,
    };
    if tokens.is_empty() {
        return Err(Failure::input("the text has no tokens"));
    }
    load::check_ids(&model, &tokens)?;
    let report = score(&model, tokens, args, ui)?;
    if args.json {
        return output::json(&report);
    }
    print(&model, &report)
}

fn score(model: &Model, tokens: Vec<u32>, args: &Score, ui: &Ui) -> Outcome<Report> {
    let mut session = load::session(model, &args.place, ui);
    let mut logprobs = vec![None];
    let mut failed: Option<Error> = None;
    session.feed_all(&tokens, |i, logits| {
        let Some(&next) = tokens.get(i + 1) else { return };
        match logprob(logits, next) {
            Ok(x) => logprobs.push(Some(x)),
            Err(e) => _ = failed.get_or_insert(e),
        }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    let next = top_logprobs(session.logits(), args.top)?;
    let next = next.into_iter().map(|(id, logprob)| Next { id, logprob, token: text(model, id) }).collect();
    Ok(Report { tokens, logprobs, next })
}

fn text(model: &Model, id: u32) -> Option<String> {
    model.tokenizer().ok()?.decode(&[id], false).ok()
}

fn print(model: &Model, report: &Report) -> Outcome {
    let shown = |token: Option<String>| token.map(|t| format!("{t:?}")).unwrap_or_default();
    let rows: Vec<_> = std::iter::zip(&report.tokens, &report.logprobs)
        .map(|(&id, logprob)| {
            let logprob = logprob.map_or_else(|| "-".to_owned(), |x| format!("{x:.4}"));
            [id.to_string(), logprob, shown(text(model, id))]
        })
        .collect();
    output::table(["id", "logprob", "token"], &rows)?;
    if report.next.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = report
        .next
        .iter()
        .map(|next| [next.id.to_string(), format!("{:.4}", next.logprob), shown(next.token.clone())])
        .collect();
    output::line("")?;
    output::table(["next", "logprob", "token"], &rows)
}
