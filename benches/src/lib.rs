//! What the benches share: timing, the machine's ceilings, and the line that says what ran.

use std::time::{Duration, Instant};

pub use candle_engine::kernels::roofline::Ceilings;
use candle_engine::kernels::threads::threads;
use candle_engine::kernels::Isa;

/// The best time of one call, in seconds, over many calls within about `budget`.
pub fn best_time(budget: Duration, mut f: impl FnMut()) -> f64 {
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    let mut calls = 0;
    while calls < 3 || start.elapsed() < budget {
        let call = Instant::now();
        f();
        best = best.min(call.elapsed().as_secs_f64());
        calls += 1;
    }
    best
}

/// The machine, the ISA, the threads and the commit, for a table's head.
pub fn heading(isa: Isa) -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown CPU");
    let cpu = cpu.trim_start_matches(['\t', ' ', ':']);
    let git = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let commit = git.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default();
    format!("{cpu}, {isa}, {} threads, commit {commit}", threads())
}
