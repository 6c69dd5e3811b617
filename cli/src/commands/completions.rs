//! `completions`: what a shell needs to complete commands and options.

use crate::args::{Cli, Completions};
use crate::exit::Outcome;
use crate::output;

pub fn run(args: &Completions) -> Outcome {
    // Into a buffer first: the generator panics where a pipe is closed.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::clap(), "candle-engine", &mut script);
    output::piece(&String::from_utf8_lossy(&script))
}
