//! `run`: completes a text; instruct models answer it.

use std::time::{Duration, Instant};

use candle_engine::memory;
use candle_engine_models::{Message, Model, Piece};
use serde::Serialize;

use super::generate::{self, Answer, End};
use super::prompt::{self, Prompt};
use super::{chat, load, sampling};
use crate::args::Run;
use crate::exit::{Failure, Outcome};
use crate::output::{self, Ui};

/// Tokens that continue a text, where the command line does not say.
const COMPLETION: usize = 256;

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    /// `null` for a model without a tokenizer.
    text: Option<&'a str>,
    tokens: &'a [u32],
    prompt_tokens: usize,
    load_ms: f64,
    first_token_ms: Option<f64>,
    prefill_tokens_per_s: f64,
    decode_tokens_per_s: f64,
    peak_rss_bytes: Option<u64>,
    finish_reason: End,
}

pub fn run(args: &Run, ui: &Ui, start: Instant) -> Outcome {
    let sampler = sampling::sampler(&args.sample)?;
    let (word, prompt) = prompt::resolve(args)?;
    let mut model = load::open(&word, &args.place, ui)?;
    load::set_template(&mut model, args.chat_template_file.as_deref())?;
    let answers = !args.raw && !matches!(prompt, Prompt::Tokens(_)) && model.template()?.is_some();
    if answers && prompt == Prompt::Open && !args.json {
        return chat::converse(&model, args.system.as_deref(), &args.sample, &args.place, ui);
    }
    if args.system.is_some() && !answers {
        return Err(Failure::input("--system: only a model with a chat template takes a system message"));
    }
    let tokens = tokens(&model, &prompt, answers, args.system.as_deref())?;
    let default = if answers { None } else { Some(COMPLETION) };
    let options = sampling::options(&args.sample, sampler, &model, default);

    let shows_prompt = !answers && !args.json && ui.is_interactive();
    if let (true, Prompt::Text(text)) = (shows_prompt, &prompt) {
        ui.aside(text);
    }
    let mut session = load::session(&model, &args.place, ui);
    let mut printer = Printer::new(&model, args.json);
    let answer =
        generate::generate(&model, &mut session, &tokens, &options, ui, |piece| printer.piece(piece))?;
    if args.json {
        output::json(&report(&model, &answer, tokens.len(), start))?;
    } else {
        printer.end()?;
    }
    ui.detail(format_args!("load     {:>24.1} ms", ms(model.load_time())));
    generate::timings(&answer.stats, ui);
    if let Some(first) = answer.first {
        ui.detail(format_args!(
            "first token after {:.1} ms, seed {}",
            ms(first - start),
            options.sampler.seed
        ));
    }
    if answer.was_interrupted() {
        return Err(Failure::interrupted());
    }
    Ok(())
}

fn tokens(model: &Model, prompt: &Prompt, answers: bool, system: Option<&str>) -> Outcome<Vec<u32>> {
    let text = match prompt {
        Prompt::Tokens(ids) => {
            load::check_ids(model, ids)?;
            return Ok(ids.clone());
        }
        Prompt::Text(text) => text,
        Prompt::Open => "",
    };
    if answers {
        let messages: Vec<_> = system.map(Message::system).into_iter().chain([Message::user(text)]).collect();
        return Ok(model.encode_chat(&messages)?);
    }
    let tokens = model.encode(text)?;
    if tokens.is_empty() {
        return Err(Failure::input("the prompt is empty, and the model has no token that begins a text"));
    }
    Ok(tokens)
}

fn report<'a>(model: &Model, answer: &'a Answer, prompt_tokens: usize, start: Instant) -> Report<'a> {
    Report {
        text: model.tokenizer().is_ok().then_some(&answer.text),
        tokens: &answer.ids,
        prompt_tokens,
        load_ms: ms(model.load_time()),
        first_token_ms: answer.first.map(|at| ms(at - start)),
        prefill_tokens_per_s: answer.stats.prefill_rate(),
        decode_tokens_per_s: answer.stats.decode_rate(),
        peak_rss_bytes: memory::peak_resident(),
        finish_reason: answer.end,
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Shows pieces as they come: text, or ids for a model without a tokenizer.
struct Printer {
    silent: bool,
    ids: bool,
    /// What was shown last; the shell's prompt wants a line of its own.
    last: Option<char>,
}

impl Printer {
    fn new(model: &Model, silent: bool) -> Self {
        Self { silent, ids: model.tokenizer().is_err(), last: None }
    }

    fn piece(&mut self, piece: &Piece) -> Outcome {
        if self.silent {
            return Ok(());
        }
        if !self.ids {
            return self.show(&piece.text);
        }
        let comma = if self.last.is_some() { "," } else { "" };
        self.show(&format!("{comma}{}", piece.id))
    }

    fn show(&mut self, text: &str) -> Outcome {
        if let Some(last) = text.chars().next_back() {
            self.last = Some(last);
            output::piece(text)?;
        }
        Ok(())
    }

    fn end(&self) -> Outcome {
        match self.last {
            Some('\n') => Ok(()),
            _ => output::piece("\n"),
        }
    }
}
