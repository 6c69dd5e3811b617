//! Prints what this machine can do at best: arithmetic, memory, and the cost of a parallel region.
//!
//! Usage: `roofline [THREADS…]`; by default one thread, then all.

use std::hint::black_box;
use std::time::{Duration, Instant};

use candle_engine::kernels::threads::{parallel, set_threads, threads};
use candle_engine::kernels::Isa;
use candle_engine_benches::{heading, Ceilings};

fn main() {
    let mut counts: Vec<usize> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    if counts.is_empty() {
        counts = vec![1, threads()];
        counts.dedup();
    }
    for count in counts {
        set_threads(count);
        for isa in Isa::available() {
            let Ceilings { gflops, bf16_gflops, gops, gb_per_s } = Ceilings::measure(isa);
            let head = heading(isa);
            println!(
                "{head}: f32 {gflops:.1} GFLOP/s, bf16 {bf16_gflops:.1} GFLOP/s, int8 {gops:.1} Gop/s, \
                 reads {gb_per_s:.2} GB/s"
            );
        }
        let (busy, idle) = (region(None), region(Some(Duration::from_millis(1))));
        println!(
            "a region of {count} empty tasks: {busy:.2} µs back to back, {idle:.2} µs after 1 ms of rest"
        );
    }
}

/// Microseconds that a region of empty tasks costs, the median of many.
fn region(rest: Option<Duration>) -> f64 {
    let rounds = if rest.is_some() { 200 } else { 100_000 };
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            rest.into_iter().for_each(std::thread::sleep);
            let start = Instant::now();
            parallel(threads(), |i| {
                black_box(i);
            });
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
