//! Exit codes, and the one line that explains them.

use std::process::ExitCode;

use candle_engine::ErrorKind;

/// The codes, as `--help` and the README state them.
pub const GENERAL: u8 = 1;
pub const USAGE: u8 = 2;
pub const LOAD: u8 = 3;
pub const INPUT: u8 = 4;
pub const NETWORK: u8 = 5;
pub const MEMORY: u8 = 6;
pub const INTERRUPTED: u8 = 130;

/// Why the program ends before it is done.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: Option<String>,
}

/// What a command returns.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// Wrong usage that the argument parser cannot see.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, message: Some(message.into()) }
    }

    /// Unusable input.
    pub fn input(message: impl Into<String>) -> Self {
        Self { code: INPUT, message: Some(message.into()) }
    }

    /// Ctrl-C.
    pub fn interrupted() -> Self {
        Self { code: INTERRUPTED, message: None }
    }

    /// Something is wrong, and the details are on the screen already.
    pub fn silent(code: u8) -> Self {
        Self { code, message: None }
    }

    /// The same under another code.
    pub fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// The message, if there is one.
    pub fn message(&self) -> &str {
        self.message.as_deref().unwrap_or_default()
    }

    /// Says why on stderr, in one line.
    pub fn report(self) -> ExitCode {
        if let Some(message) = self.message {
            crate::output::say(format_args!("error: {}", one_line(&message)));
        }
        ExitCode::from(self.code)
    }
}

/// A message may quote a file or a server, so it may hold line breaks and codes that a terminal would obey.
fn one_line(message: &str) -> String {
    let mut line = String::new();
    for part in message.lines().map(str::trim).filter(|part| !part.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        for c in part.chars() {
            if c.is_control() {
                line.extend(c.escape_default());
            } else {
                line.push(c);
            }
        }
    }
    line
}

impl From<candle_engine::Error> for Failure {
    fn from(error: candle_engine::Error) -> Self {
        let code = match error.kind() {
            ErrorKind::General => GENERAL,
            ErrorKind::Load => LOAD,
            ErrorKind::Input => INPUT,
            ErrorKind::Network => NETWORK,
            ErrorKind::Memory => MEMORY,
        };
        Self { code, message: Some(error.to_string()) }
    }
}

/// An error of writing the result.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            // The reader of a pipe went away: it has what it wanted.
            std::io::ErrorKind::BrokenPipe => Self::silent(0),
            _ => Self { code: GENERAL, message: Some(format!("stdout: {error}")) },
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn messages_are_one_harmless_line() {
        assert_eq!(super::one_line("a\n\n  b\r\nc \u{1b}[2J\u{7}d é"), "a b c \\u{1b}[2J\\u{7}d é");
    }
}
