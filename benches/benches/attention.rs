//! Attention over blocks: a prompt's prefill and a step's decode, per KV format.
//!
//! Usage: `cargo bench --bench attention -- [--threads N] [FILTER…]`, a filter being a part of a label such as
//! `llama-1b/decode` or `f16`.
//!
//! Prefill is stated in GFLOP/s of the scores that are seen, decode in GB/s of the keys and values read.
//! Decode takes caches in turn, as layers do, so that none is found in a cache of the CPU.

use std::hint::black_box;
use std::time::{Duration, Instant};

use candle_engine::kernels::attention::{attention, AttentionSpec, Heads, KvSlice, SequenceKv};
use candle_engine::kernels::threads::{set_threads, threads};
use candle_engine::kernels::Isa;
use candle_engine::kv::{KvType, BLOCK};
use half::f16;

/// Model, and its heads.
const SHAPES: [(&str, Heads); 4] = [
    ("llama-1b", Heads { heads: 32, kv_heads: 8, head_dim: 64 }),
    ("smollm2-135m", Heads { heads: 9, kv_heads: 3, head_dim: 64 }),
    ("qwen3-0.6b", Heads { heads: 16, kv_heads: 8, head_dim: 128 }),
    ("multi-head", Heads { heads: 16, kv_heads: 16, head_dim: 64 }),
];

/// Phase, new tokens, and positions in all.
const PHASES: [(&str, usize, usize); 4] =
    [("prefill", 512, 512), ("chunk", 128, 4096), ("decode", 1, 4096), ("decode", 1, 256)];

/// Bytes of caches that a decode goes through: more than the last-level cache.
const COLD: usize = 256 << 20;

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let mut filters = Vec::new();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--threads" => {
                let count = args.next().expect("a number after --threads");
                set_threads(count.parse().expect("a number after --threads"));
            }
            _ => filters.push(arg),
        }
    }
    let isa = Isa::from_env().unwrap_or_else(|error| panic!("{error}"));
    println!("{isa}, {} threads", threads());
    for (model, heads) in SHAPES {
        for (phase, t, s) in PHASES {
            for (name, kind) in [("f32", KvType::F32), ("f16", KvType::F16), ("int8", KvType::I8)] {
                let label = format!("{model}/{phase} t={t} s={s} {name}");
                if filters.iter().all(|filter| label.contains(filter.as_str())) {
                    bench(&label, heads, t, s, kind);
                }
            }
        }
    }
}

/// Planes of keys and values in turn.
enum Planes {
    F32(Vec<f32>),
    F16(Vec<f16>),
    I8(Vec<i8>, Vec<f32>),
}

fn bench(label: &str, heads: Heads, t: usize, s: usize, kind: KvType) {
    let Heads { heads: h, kv_heads: g, head_dim: d } = heads;
    let number = |i: usize| ((i * 7919) % 1000) as f32 / 500.0 - 1.0;
    let numbers = |n: usize| (0..n).map(number);
    let planes = 2 * s.div_ceil(BLOCK);
    let plane = g * BLOCK * d;
    let bytes = planes * g * BLOCK * kind.bytes(d);
    let caches = if t == 1 { COLD.div_ceil(bytes) } else { 1 };
    let n = caches * planes * plane;
    let all = match kind {
        KvType::F32 => Planes::F32(numbers(n).collect()),
        KvType::F16 => Planes::F16(numbers(n).map(f16::from_f32).collect()),
        KvType::I8 => Planes::I8(numbers(n).map(|x| (x * 127.0) as i8).collect(), vec![1.0 / 127.0; n / d]),
    };
    let slice = |i: usize| {
        let at = i * plane..(i + 1) * plane;
        match &all {
            Planes::F32(x) => KvSlice::F32(&x[at]),
            Planes::F16(x) => KvSlice::F16(&x[at]),
            Planes::I8(x, scales) => KvSlice::I8(&x[at], &scales[i * plane / d..(i + 1) * plane / d]),
        }
    };
    let spec = AttentionSpec { heads, scale: 0.125, window: None, softcap: None, causal: true };
    let q: Vec<f32> = numbers(t * h * d).collect();
    let mut out = vec![0.0; q.len()];
    let sequences: Vec<_> = (0..caches)
        .map(|cache| {
            let side = |side| (0..planes / 2).map(|block| slice(cache * planes + 2 * block + side)).collect();
            [SequenceKv { keys: side(0), values: side(1), start: s - t, len: t }]
        })
        .collect();
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.len() < 2 * caches.max(3) || start.elapsed() < Duration::from_millis(300) {
        let sequence = &sequences[times.len() % caches];
        let call = Instant::now();
        attention(&spec, &q, sequence, &mut out);
        black_box(&mut out);
        times.push(call.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    // The best is what the code can do; decode's best may have met a warm cache, so its median counts.
    let time = if t == 1 { times[times.len() / 2] } else { times[0] };
    let seen = t * (s - t) + t * (t + 1) / 2;
    let flops = (4 * h * d * seen) as f64;
    print!("{label:44} {:>9.1} µs  {:>6.1} GFLOP/s", time * 1e6, flops / time * 1e-9);
    println!("  {:>6.2} GB/s", bytes as f64 / time * 1e-9);
}
