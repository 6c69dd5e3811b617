//! Where words go: results to stdout, everything else to stderr.

use std::fmt::{Arguments, Display};
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::exit::Outcome;

/// How much the user wants to hear.
#[derive(Debug, Clone, Copy)]
pub struct Ui {
    quiet: bool,
    verbose: bool,
    /// Whether somebody watches stderr.
    watched: bool,
}

impl Ui {
    pub fn new(quiet: bool, verbose: bool) -> Self {
        Self { quiet: quiet && !verbose, verbose, watched: io::stderr().is_terminal() }
    }

    /// Whether progress is drawn.
    pub fn shows_progress(&self) -> bool {
        self.watched && !self.quiet
    }

    /// Whether somebody reads along: stdout and stderr are the same screen.
    pub fn is_interactive(&self) -> bool {
        self.shows_progress() && io::stdout().is_terminal()
    }

    /// A line on stderr, unless `-q`.
    pub fn note(&self, text: impl Display) {
        if !self.quiet {
            say(format_args!("{text}"));
        }
    }

    /// A line on stderr under `-v`.
    pub fn detail(&self, text: impl Display) {
        if self.verbose {
            say(format_args!("{text}"));
        }
    }

    /// Text on stderr as it stands, for somebody who reads along.
    pub fn aside(&self, text: &str) {
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// A line on stderr. That stderr is closed is no reason to stop.
pub fn say(text: Arguments) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A piece of the result, shown at once.
pub fn piece(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// A line of the result.
pub fn line(text: impl Display) -> Outcome {
    piece(&format!("{text}\n"))
}

/// A value as one line of JSON.
pub fn json(value: &impl Serialize) -> Outcome {
    line(serde_json::to_string(value).map_err(io::Error::from)?)
}

/// Rows under a heading, columns aligned: numbers to the right, texts to the left.
pub fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> Outcome {
    let width = |text: &str| text.chars().count();
    let columns: [(usize, bool); N] = std::array::from_fn(|i| {
        let longest = rows.iter().map(|row| width(&row[i])).max().unwrap_or(0);
        let numeric = !rows.is_empty()
            && rows.iter().all(|row| row[i].starts_with(|c: char| c.is_ascii_digit() || c == '-'));
        (longest.max(width(heading[i])), numeric)
    });
    let format = |cells: [&str; N]| {
        let mut text = String::new();
        for (i, (cell, (columns, numeric))) in cells.iter().zip(columns).enumerate() {
            let pad = " ".repeat(columns - width(cell));
            let gap = if i == 0 { "" } else { "  " };
            text += &if numeric { format!("{gap}{pad}{cell}") } else { format!("{gap}{cell}{pad}") };
        }
        format!("{}\n", text.trim_end())
    };
    let mut text = format(heading);
    for row in rows {
        text += &format(std::array::from_fn(|i| row[i].as_str()));
    }
    piece(&text)
}

/// Bytes in a unit that people read: `1.2 GB`, powers of ten.
pub fn bytes(n: u64) -> String {
    scaled(n as f64, &["B", "kB", "MB", "GB", "TB"])
}

/// A count in a unit that people read: `1.24 B`, as sizes of models are given.
pub fn count(n: u64) -> String {
    scaled(n as f64, &["", "K", "M", "B", "T"]).trim_end().to_owned()
}

fn scaled(mut x: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // 999.5 would be rounded to a fourth digit.
    while x >= 999.5 && unit + 1 < units.len() {
        x /= 1000.0;
        unit += 1;
    }
    let digits = match x {
        _ if unit == 0 => 0,
        x if x < 9.995 => 2,
        x if x < 99.95 => 1,
        _ => 0,
    };
    format!("{x:.digits$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(999_999), "1.00 MB");
        assert_eq!(bytes(2_471_645_608), "2.47 GB");
        assert_eq!(count(134_515_008), "135 M");
        assert_eq!(count(7), "7");
    }
}
