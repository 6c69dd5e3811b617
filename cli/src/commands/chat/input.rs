//! What the user says: edited lines at a terminal, plain lines from a pipe.

use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::Editor;

use crate::exit::{Failure, Outcome};
use crate::output;

const PROMPT: &str = "> ";
const CONTINUED: &str = "… ";
const BLOCK: &str = "\"\"\"";

/// One thing said.
#[derive(Debug, PartialEq)]
pub enum Entry {
    Message(String),
    /// A word after a slash, and what follows it.
    Command(String, String),
}

/// Where lines come from.
pub struct Input {
    /// `None` for a pipe.
    editor: Option<Editor<(), FileHistory>>,
    history: Option<PathBuf>,
}

impl Input {
    pub fn new() -> Outcome<Self> {
        // The editor draws on stdout, so both ends must be the terminal.
        let interactive = io::stdin().is_terminal() && io::stdout().is_terminal();
        if !interactive {
            return Ok(Self { editor: None, history: None });
        }
        let mut editor = Editor::new().map_err(|e| Failure::input(format!("terminal: {e}")))?;
        let history = history_file();
        if let Some(path) = &history {
            let _ = editor.load_history(path); // the first time there is none
        }
        Ok(Self { editor: Some(editor), history })
    }

    pub fn is_interactive(&self) -> bool {
        self.editor.is_some()
    }

    /// What the user says next; `None` if it was the last.
    pub fn next(&mut self) -> Outcome<Option<Entry>> {
        let mut asked = false;
        loop {
            match read_entry(|prompt| self.line(prompt))? {
                Line::Text(text) if text.trim().is_empty() => asked = false,
                Line::Text(text) => return Ok(Some(parse(text))),
                Line::Interrupted if asked => return Ok(None),
                Line::Interrupted => {
                    asked = true;
                    output::say(format_args!("Ctrl-C again or Ctrl-D leaves"));
                }
                Line::End => return Ok(None),
            }
        }
    }

    /// Writes the history; that it cannot be written is no reason to complain.
    pub fn save(&mut self) {
        if let (Some(editor), Some(path)) = (&mut self.editor, &self.history) {
            let _ = path.parent().map(std::fs::create_dir_all);
            let _ = editor.save_history(path);
        }
    }

    fn line(&mut self, prompt: &str) -> Outcome<Line> {
        let fail = |e: io::Error| Failure::input(format!("stdin: {e}"));
        let Some(editor) = &mut self.editor else {
            let mut line = String::new();
            let read = io::stdin().lock().read_line(&mut line).map_err(fail)?;
            return Ok(if read == 0 {
                Line::End
            } else {
                Line::Text(line.trim_end_matches(['\r', '\n']).into())
            });
        };
        match editor.readline(prompt) {
            Ok(line) => {
                let _ = editor.add_history_entry(&line);
                Ok(Line::Text(line))
            }
            Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
            Err(ReadlineError::Eof) => Ok(Line::End),
            Err(ReadlineError::Io(e)) => Err(fail(e)),
            Err(e) => Err(Failure::input(format!("terminal: {e}"))),
        }
    }
}

/// What came of asking for a line.
#[derive(Debug, PartialEq)]
enum Line {
    Text(String),
    Interrupted,
    End,
}

/// Lines that belong together: a backslash at the end continues, `"""` opens and closes.
fn read_entry(mut line: impl FnMut(&str) -> Outcome<Line>) -> Outcome<Line> {
    let first = match line(PROMPT)? {
        Line::Text(text) => text,
        other => return Ok(other),
    };
    let (mut text, block) = match first.trim_start().strip_prefix(BLOCK) {
        Some(rest) => (rest.to_owned(), true),
        None => (first, false),
    };
    loop {
        if block {
            if let Some(whole) = text.trim_end().strip_suffix(BLOCK) {
                return Ok(Line::Text(whole.trim_matches('\n').to_owned()));
            }
        } else if text.ends_with('\\') {
            text.pop();
        } else {
            return Ok(Line::Text(text));
        }
        match line(CONTINUED)? {
            Line::Text(next) => text = format!("{text}\n{next}"),
            Line::End => return Ok(Line::Text(text)),
            Line::Interrupted => return Ok(Line::Interrupted),
        }
    }
}

fn parse(text: String) -> Entry {
    let Some(command) = text.strip_prefix('/') else { return Entry::Message(text) };
    let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    // A path is something to talk about.
    if name.contains('/') {
        return Entry::Message(text);
    }
    Entry::Command(name.to_lowercase(), rest.trim().to_owned())
}

/// In the folder for such things; `None` if the system does not say where that is.
fn history_file() -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let state = var("XDG_STATE_HOME").or_else(|| Some(var("HOME")?.join(".local").join("state")));
    let folder = state.or_else(|| var("LOCALAPPDATA"))?;
    Some(folder.join("candle-engine").join("history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(lines: &[&str]) -> Line {
        let mut lines = lines.iter();
        read_entry(|_| Ok(lines.next().map_or(Line::End, |l| Line::Text(l.to_string())))).unwrap()
    }

    #[test]
    fn lines_that_belong_together() {
        let text = |t: &str| Line::Text(t.to_owned());
        assert_eq!(entry(&["one", "two"]), text("one"));
        assert_eq!(entry(&["one\\", "two\\", "three"]), text("one\ntwo\nthree"));
        assert_eq!(entry(&["\"\"\"one", "", "two\"\"\"", "three"]), text("one\n\ntwo"));
        assert_eq!(entry(&["\"\"\"", "one", "\"\"\""]), text("one"));
        assert_eq!(entry(&["\"\"\"one\"\"\""]), text("one"));
        assert_eq!(entry(&["\"\"\"cut off"]), text("cut off"));
        assert_eq!(entry(&[]), Line::End);
    }

    #[test]
    fn commands_and_messages() {
        let command = |n: &str, r: &str| Entry::Command(n.to_owned(), r.to_owned());
        assert_eq!(parse("/System  You are terse. ".into()), command("system", "You are terse."));
        assert_eq!(parse("/clear".into()), command("clear", ""));
        assert_eq!(parse("/usr/bin is what?".into()), Entry::Message("/usr/bin is what?".into()));
        assert_eq!(parse("hello /x".into()), Entry::Message("hello /x".into()));
    }
}
