//! `chat`: a conversation whose past is computed once.

mod input;

use candle_engine_models::{GenerateOptions, Message, Model, Session};

use self::input::{Entry, Input};
use super::{generate, load, sampling};
use crate::args::{Chat, PlaceArgs, SampleArgs};
use crate::exit::{Failure, Outcome};
use crate::output::{self, Ui};

const HELP: &str = "\
/clear         forget the conversation
/system TEXT   what the model is told about its part; no TEXT takes it back
/save FILE     write the conversation as JSON
/exit          leave, as does Ctrl-D
Lines that end in \\ go on; \"\"\" begins and ends a text of several lines.
Ctrl-C stops an answer.";

/// Tokens that are kept free for an answer, at most; a quarter of a small context.
const RESERVE: usize = 512;

pub fn run(args: &Chat, ui: &Ui) -> Outcome {
    sampling::sampler(&args.sample)?;
    let mut model = load::open(&load::word(args.word.as_ref(), &args.model), &args.place, ui)?;
    load::set_template(&mut model, args.chat_template_file.as_deref())?;
    converse(&model, args.system.as_deref(), &args.sample, &args.place, ui)
}

/// Talks until the user leaves.
pub fn converse(
    model: &Model,
    system: Option<&str>,
    sample: &SampleArgs,
    place: &PlaceArgs,
    ui: &Ui,
) -> Outcome {
    if model.template()?.is_none() {
        let name = model.name();
        return Err(Failure::input(format!("{name} has no chat template: `run` lets it complete a text")));
    }
    let options = sampling::options(sample, sampling::sampler(sample)?, model, None);
    let session = load::session(model, place, ui);
    let mut input = Input::new()?;
    if input.is_interactive() {
        ui.note(format_args!("{}, context {}; /help lists commands", model.name(), session.context()));
    }
    ui.detail(format_args!("seed {}", options.sampler.seed));
    let mut chat = Conversation { model, session, options, messages: Vec::new(), ui };
    chat.set_system(system.unwrap_or_default());
    while let Some(entry) = input.next()? {
        let done = match entry {
            Entry::Message(text) => chat.turn(text),
            Entry::Command(name, rest) => match name.as_str() {
                "exit" | "quit" | "bye" => break,
                _ => chat.command(&name, &rest),
            },
        };
        match done {
            // What went wrong was this turn; somebody who sits there goes on.
            Err(failure) if input.is_interactive() && !failure.message().is_empty() => {
                _ = failure.report();
            }
            done => done?,
        }
    }
    input.save();
    Ok(())
}

struct Conversation<'a> {
    model: &'a Model,
    session: Session,
    options: GenerateOptions,
    messages: Vec<Message>,
    ui: &'a Ui,
}

impl Conversation<'_> {
    fn command(&mut self, name: &str, rest: &str) -> Outcome {
        match name {
            "help" | "?" => self.ui.note(HELP),
            "clear" => {
                let system = self.first_turn();
                self.messages.truncate(system);
            }
            "system" => self.set_system(rest),
            "save" if rest.is_empty() => return Err(Failure::input("/save: which file?")),
            "save" => self.save(rest)?,
            _ => return Err(Failure::input(format!("/{name}: no such command; /help lists them"))),
        }
        Ok(())
    }

    /// The message that the user sends, and the model's answer to it.
    fn turn(&mut self, text: String) -> Outcome {
        self.messages.push(Message::user(text));
        let answer = self.answer();
        match &answer {
            Ok(text) if !text.is_empty() => self.messages.push(Message::assistant(text)),
            // Templates want turns to alternate: a message without an answer is forgotten.
            _ => _ = self.messages.pop(),
        }
        answer.map(drop)
    }

    fn answer(&mut self) -> Outcome<String> {
        let tokens = self.fit()?;
        let known = self.session.reuse(&tokens);
        self.ui.detail(format_args!("{known} of {} tokens are in the cache", tokens.len()));
        let (model, options, ui) = (self.model, &self.options, self.ui);
        let answer = generate::generate(model, &mut self.session, &tokens[known..], options, ui, |piece| {
            output::piece(&piece.text)
        })?;
        output::piece("\n")?;
        generate::timings(&answer.stats, self.ui);
        // The same question asked twice may have two answers.
        self.options.sampler.seed = self.options.sampler.seed.wrapping_add(1);
        Ok(answer.text)
    }

    /// The conversation's tokens, after its oldest turns were dropped as far as the context needs it.
    fn fit(&mut self) -> Outcome<Vec<u32>> {
        let context = self.session.context();
        let room = context - RESERVE.min(context / 4);
        let mut dropped = 0;
        let tokens = loop {
            let tokens = self.model.encode_chat(&self.messages)?;
            if tokens.len() <= room {
                break tokens;
            }
            let first = self.first_turn();
            let is_user = |m: &Message| m.role == "user";
            match self.messages.iter().skip(first + 1).position(is_user) {
                Some(n) => _ = self.messages.drain(first..=first + n),
                // The last message alone may use what is kept free.
                None => break tokens,
            }
            dropped += 1;
        };
        if dropped > 0 {
            let turns =
                if dropped == 1 { "oldest turn was".into() } else { format!("{dropped} oldest turns were") };
            self.ui.note(format_args!("the context of {context} tokens is full: the {turns} dropped"));
        }
        Ok(tokens)
    }

    /// Index of the first message that is not the system's.
    fn first_turn(&self) -> usize {
        usize::from(self.messages.first().is_some_and(|m| m.role == "system"))
    }

    fn set_system(&mut self, text: &str) {
        let first = self.first_turn();
        let system = (!text.is_empty()).then(|| Message::system(text));
        self.messages.splice(..first, system);
    }

    fn save(&self, file: &str) -> Outcome {
        let fail = |e: std::io::Error| Failure::input(format!("{file}: {e}"));
        let text = serde_json::to_string_pretty(&self.messages).map_err(|e| fail(e.into()))?;
        std::fs::write(file, text + "\n").map_err(fail)?;
        self.ui.note(format_args!("{} messages written to {file}", self.messages.len()));
        Ok(())
    }
}
