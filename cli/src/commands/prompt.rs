//! Which of the words on the command line is the model, and where the prompt comes from.

use std::io::{self, IsTerminal, Read};
use std::path::{Path, MAIN_SEPARATOR};

use candle_engine_models::Source;

use super::load;
use crate::args::Run;
use crate::exit::{Failure, Outcome};

/// What `run` was asked to continue or to answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
    /// Nothing, and somebody sits at the terminal.
    Open,
}

/// The model's word and the prompt.
pub fn resolve(args: &Run) -> Outcome<(String, Prompt)> {
    let words: Vec<&str> = args.first.iter().chain(&args.second).map(String::as_str).collect();
    let (model, word) =
        split(&words, args.model.model.as_deref(), args.prompt.is_some() || args.tokens.is_some())?;
    let model = model.unwrap_or_else(load::default_word);
    if let Some(tokens) = &args.tokens {
        return Ok((model, Prompt::Tokens(tokens.clone())));
    }
    let text = args.prompt.clone().or(word);
    let file = args.file.as_deref().map(prompt_of).transpose()?;
    let prompt = match (text, file) {
        (Some(text), Some(file)) => Prompt::Text(format!("{text}\n\n{file}")),
        (Some(text), None) | (None, Some(text)) => Prompt::Text(text),
        (None, None) if io::stdin().is_terminal() => Prompt::Open,
        (None, None) => Prompt::Text(prompt_of(Path::new("-"))?),
    };
    Ok((model, prompt))
}

/// Model and prompt among the words, given what `-m` and `-p` say already.
fn split(words: &[&str], model: Option<&str>, has_prompt: bool) -> Outcome<(Option<String>, Option<String>)> {
    let owned = |word: &str| Some(word.to_owned());
    match (words, model) {
        ([], model) => Ok((model.map(str::to_owned), None)),
        ([word], Some(model)) if !has_prompt => Ok((owned(model), owned(word))),
        ([word], None) if has_prompt => Ok((owned(word), None)),
        ([word], None) if Source::is_model(word) || looks_like_a_path(word) => Ok((owned(word), None)),
        ([word], None) => Ok((None, owned(word))),
        ([first, second], None) if !has_prompt => Ok((owned(first), owned(second))),
        ([word, ..], _) => {
            Err(Failure::usage(format!("`{word}` is too much: -m is the model and -p the prompt")))
        }
    }
}

/// Whether somebody who wrote this meant a file, even if there is none.
fn looks_like_a_path(word: &str) -> bool {
    word.contains(['/', MAIN_SEPARATOR]) && !word.contains(char::is_whitespace)
}

/// A text in a file, whole; `-` is stdin.
pub fn text_of(path: &Path) -> Outcome<String> {
    let stdin = path == Path::new("-");
    let read = || {
        let mut bytes = Vec::new();
        match stdin {
            true => _ = io::stdin().lock().read_to_end(&mut bytes)?,
            false => bytes = std::fs::read(path)?,
        }
        String::from_utf8(bytes).map_err(|_| io::Error::other("is not UTF-8"))
    };
    let name = || if stdin { "stdin".into() } else { path.display().to_string() };
    read().map_err(|e| Failure::input(format!("{}: {e}", name())))
}

/// The same without the line end that a shell or an editor puts last.
pub fn prompt_of(path: &Path) -> Outcome<String> {
    let mut text = text_of(path)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splits(words: &[&str], model: Option<&str>, has_prompt: bool) -> (Option<String>, Option<String>) {
        split(words, model, has_prompt).unwrap()
    }

    #[test]
    fn words_are_told_apart() {
        let s = |text: &str| Some(text.to_owned());
        assert_eq!(splits(&["Once upon"], None, false), (None, s("Once upon")));
        assert_eq!(splits(&["Hello"], None, false), (None, s("Hello")));
        assert_eq!(splits(&["org/name"], None, false), (s("org/name"), None));
        assert_eq!(splits(&["/no/such"], None, false), (s("/no/such"), None));
        assert_eq!(splits(&["either / or"], None, false), (None, s("either / or")));
        assert_eq!(splits(&["org/name"], Some("m"), false), (s("m"), s("org/name")));
        assert_eq!(splits(&["word"], None, true), (s("word"), None));
        assert_eq!(splits(&["a", "b"], None, false), (s("a"), s("b")));
        let two = ["a", "b"];
        assert!(split(&two, Some("m"), false).is_err() && split(&two, None, true).is_err());
        assert!(split(&two[..1], Some("m"), true).is_err());
    }
}
