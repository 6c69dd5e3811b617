//! What the benches share: timing, this machine's ceilings, and the line that says what ran.

use std::hint::black_box;
use std::time::{Duration, Instant};

use candle_engine::kernels::threads::{parallel, threads};
use candle_engine::kernels::{roofline, Isa};

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

/// What the machine can do with the threads that are set.
#[derive(Clone, Copy, Debug)]
pub struct Ceilings {
    /// Multiply-adds on registers, in GFLOP/s.
    pub gflops: f64,
    /// Reading memory that is in no cache, in GB/s.
    pub gb_per_s: f64,
}

impl Ceilings {
    /// Measures both, for about a second.
    pub fn measure(isa: Isa) -> Self {
        let (tasks, budget) = (threads(), Duration::from_millis(400));
        let rounds = 1_000_000;
        let flops = tasks * rounds * roofline::multiply_adds(isa, 1);
        let time = best_time(budget, || {
            parallel(tasks, |_| {
                black_box(roofline::multiply_adds(isa, rounds));
            });
        });
        let gflops = flops as f64 / time * 1e-9;

        // Far more than any last-level cache, in pieces that share out evenly.
        let bytes = vec![1u8; 512 << 20];
        let piece = 256 << 10;
        let time = best_time(budget, || {
            parallel(bytes.len() / piece, |i| {
                black_box(roofline::read(&bytes[i * piece..][..piece]));
            });
        });
        Self { gflops, gb_per_s: bytes.len() as f64 / time * 1e-9 }
    }
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
