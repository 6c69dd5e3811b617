//! A progress bar on stderr, drawn only when somebody watches.

use std::time::{Duration, Instant};

use crate::output::Ui;

const WIDTH: usize = 24;
const EVERY: Duration = Duration::from_millis(100);
/// Work that is done this soon needs no bar.
const PATIENCE: Duration = Duration::from_millis(300);

/// What the numbers count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unit {
    Tokens,
    Bytes,
    Steps,
    /// Of sound.
    Seconds,
}

/// One bar. It goes when it is dropped.
#[derive(Debug)]
pub struct Progress {
    ui: Ui,
    label: String,
    unit: Unit,
    total: u64,
    start: Instant,
    /// Where it stood when the first numbers came: what was done before does not count as speed.
    first: Option<u64>,
    drawn: Option<Instant>,
}

impl Progress {
    pub fn new(ui: &Ui, label: impl Into<String>, unit: Unit, total: u64) -> Self {
        Self { ui: *ui, label: label.into(), unit, total, start: Instant::now(), first: None, drawn: None }
    }

    /// Changes what stands before the bar.
    pub fn label(&mut self, label: String) {
        self.label = label;
    }

    /// Says how much of the total is done.
    pub fn set(&mut self, done: u64) {
        let first = *self.first.get_or_insert(done);
        if !self.ui.shows_progress() || self.start.elapsed() < PATIENCE {
            return;
        }
        if self.drawn.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        self.drawn = Some(Instant::now());
        let text = self.text(done, first, self.start.elapsed());
        self.ui.aside(&format!("\r{text}\u{1b}[K"));
    }

    /// Takes the bar away until it is drawn again: something is about to be printed.
    pub fn clear(&mut self) {
        if self.drawn.take().is_some() {
            self.ui.aside("\r\u{1b}[K");
        }
    }

    fn text(&self, done: u64, first: u64, elapsed: Duration) -> String {
        let share = if self.total == 0 { 0.0 } else { (done as f64 / self.total as f64).min(1.0) };
        let full = (share * WIDTH as f64) as usize;
        let bar = format!("{}{}", "=".repeat(full), " ".repeat(WIDTH - full));
        let rate = done.saturating_sub(first) as f64 / elapsed.as_secs_f64().max(1e-3);
        let speed = match self.unit {
            Unit::Bytes => {
                format!("{} of {}, {}/s", bytes(done), bytes(self.total), bytes(rate as u64))
            }
            Unit::Tokens => format!("{done} of {} tokens, {rate:.0}/s", self.total),
            Unit::Steps => format!("{done} of {}", self.total),
            Unit::Seconds => format!("{} of {}", clock(done as f64), clock(self.total as f64)),
        };
        let left = self.total.saturating_sub(done) as f64 / rate;
        let left =
            if left.is_finite() && left >= 1.0 { format!(", {} left", clock(left)) } else { String::new() };
        let label: String = self.label.chars().take(28).collect();
        format!("{label} [{bar}] {:3.0}% {speed}{left}", share * 100.0)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn bytes(n: u64) -> String {
    crate::output::bytes(n)
}

fn clock(seconds: f64) -> String {
    let s = seconds.min(359_999.0) as u64;
    match s / 3600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        h => format!("{h}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_says_how_far_how_fast_and_how_long() {
        let ui = Ui::new(true, false);
        let bar = Progress::new(&ui, "model.safetensors", Unit::Bytes, 4_000_000);
        let text = bar.text(2_000_000, 1_000_000, Duration::from_secs(1));
        assert!(text.starts_with("model.safetensors [============ "), "{text}");
        assert!(text.ends_with(" 50% 2.00 MB of 4.00 MB, 1.00 MB/s, 0:02 left"), "{text}");
        assert!(!bar.text(0, 0, Duration::ZERO).contains("left"));
        assert_eq!(clock(3661.0), "1:01:01");
    }
}
