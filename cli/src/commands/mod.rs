//! What each verb does, one file each.

mod bench;
mod chat;
mod completions;
mod devices;
mod generate;
#[cfg(feature = "hub")]
mod hub;
mod load;
mod perplexity;
mod predict;
mod prompt;
mod quantize;
mod run;
mod sampling;
mod score;
mod show;
mod train;
mod transcribe;

use std::time::Instant;

use candle_engine::kernels::Isa;

use crate::args::{Cli, Command};
use crate::exit::{Failure, Outcome};
use crate::interrupt;
use crate::output::Ui;

/// Does what the command line says; `start` is when the program began.
pub fn run(cli: &Cli, start: Instant) -> Outcome {
    if let Command::Completions(args) = &cli.command {
        return completions::run(args);
    }
    // A level that this CPU lacks would otherwise be a panic in the middle of the work.
    Isa::from_env().map_err(|e| Failure::usage(e.to_string()))?;
    interrupt::install();
    let ui = Ui::new(cli.quiet, cli.verbose);
    match &cli.command {
        Command::Run(args) => run::run(args, &ui, start),
        Command::Chat(args) => chat::run(args, &ui),
        Command::Score(args) => score::run(args, &ui),
        Command::Perplexity(args) => perplexity::run(args, &ui),
        Command::Transcribe(args) => transcribe::run(args, &ui),
        Command::Show(args) => show::run(args, &ui),
        Command::Quantize(args) => quantize::run(args, &ui),
        Command::Train(args) => train::run(args, &ui),
        Command::Predict(args) => predict::run(args),
        #[cfg(feature = "hub")]
        Command::Pull(args) => hub::pull(args, &ui),
        #[cfg(feature = "hub")]
        Command::Ls(args) => hub::ls(args),
        #[cfg(feature = "hub")]
        Command::Rm(args) => hub::rm(args, &ui),
        Command::Bench(args) => bench::run(args, &ui),
        Command::Devices(args) => devices::run(args),
        Command::Completions(args) => completions::run(args),
    }
}
