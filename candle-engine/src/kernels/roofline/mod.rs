//! What this machine can do at best: the ceilings that kernels are measured against.

mod dot;
mod float;
#[cfg(target_arch = "x86_64")]
mod tiles;

use std::hint::black_box;
use std::time::{Duration, Instant};

pub use self::dot::dot_products;
pub use self::float::{bf16_multiply_adds, multiply_adds};
use super::threads::{parallel, threads};
use super::Isa;
use crate::memory;

/// Independent sums: enough to hide the latency of any core that this project knows.
const SUMS: usize = 12;

/// How long one ceiling is measured.
const BUDGET: Duration = Duration::from_millis(400);

/// What the machine can do with the threads that are set.
#[derive(Clone, Copy, Debug)]
pub struct Ceilings {
    /// Fused multiply-adds of f32 on registers, in 10⁹ operations per second, two each.
    pub gflops: f64,
    /// The same of bf16, which without an instruction for it is widened.
    pub bf16_gflops: f64,
    /// Dot products of 8-bit integers on registers, in 10⁹ operations per second, two for each product.
    pub gops: f64,
    /// Reading memory that is in no cache, in 10⁹ bytes per second.
    pub gb_per_s: f64,
}

impl Ceilings {
    /// Measures all, for a second or two.
    pub fn measure(isa: Isa) -> Self {
        let rate = |operations: fn(Isa, usize) -> usize| {
            let (tasks, rounds) = (threads(), 200_000);
            let time = best_time(|| {
                parallel(tasks, |_| {
                    black_box(operations(isa, rounds));
                });
            });
            (tasks * rounds * operations(isa, 1)) as f64 / time * 1e-9
        };
        Self {
            gflops: rate(multiply_adds),
            bf16_gflops: rate(bf16_multiply_adds),
            gops: rate(dot_products),
            gb_per_s: read_rate(),
        }
    }
}

fn read_rate() -> f64 {
    // Far more than any last-level cache, if there is room, in pieces that share out evenly.
    const PIECE: usize = 256 << 10;
    let room = memory::available().map_or(usize::MAX, |bytes| bytes as usize / 4);
    let bytes = vec![1u8; room.min(512 << 20).next_multiple_of(PIECE)];
    let time = best_time(|| {
        parallel(bytes.len() / PIECE, |i| {
            black_box(read(&bytes[i * PIECE..][..PIECE]));
        });
    });
    bytes.len() as f64 / time * 1e-9
}

/// Seconds of the best of many calls.
fn best_time(f: impl Fn()) -> f64 {
    let (start, mut best, mut calls) = (Instant::now(), f64::INFINITY, 0);
    while calls < 3 || start.elapsed() < BUDGET {
        let call = Instant::now();
        f();
        best = best.min(call.elapsed().as_secs_f64());
        calls += 1;
    }
    best
}

/// Reads all bytes, on the calling thread; returns a sum of them, so that the reading is not optimized away.
pub fn read(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    let (blocks, _) = words.as_chunks::<16>();
    let mut sums = [0u64; 16];
    for block in blocks {
        sums.iter_mut().zip(block).for_each(|(sum, word)| *sum ^= u64::from_ne_bytes(*word));
    }
    sums.iter().fold(0, |a, b| a ^ b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted_and_bytes_are_read() {
        for isa in Isa::available() {
            assert!(multiply_adds(isa, 10) >= 2 * SUMS * 10);
            assert!(bf16_multiply_adds(isa, 10) >= multiply_adds(isa, 10));
            assert!(dot_products(isa, 10) >= 2 * SUMS * 10);
        }
        let mut bytes = vec![0; 1024];
        bytes[777] = 1;
        assert_eq!(read(&bytes).count_ones(), 1);
    }
}
