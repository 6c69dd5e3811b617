//! The program `candle-engine`: argument parsing, progress, printing. No maths.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod exit;
mod interrupt;
mod output;
mod progress;

use std::process::ExitCode;
use std::time::Instant;

use candle_engine::kernels::Recycler;

#[global_allocator]
static ALLOCATOR: Recycler = Recycler::new();

fn main() -> ExitCode {
    let start = Instant::now();
    let cli = args::Cli::from_process();
    match commands::run(&cli, start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
