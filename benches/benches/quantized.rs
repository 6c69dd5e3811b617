//! Products with quantized matrices against this machine's ceilings.
//!
//! Usage: `cargo bench --bench quantized -- [--threads N] [FILTER…]`, a filter being a part of a label such as
//! `llama-1b/down_proj` or `int8`.
//!
//! Decode reads each weight for one token and is stated in GB/s, prefill in Gop/s of 8-bit integers.

use std::time::Duration;

use candle_engine::kernels::grouped::{self, Bits, Grouped};
use candle_engine::kernels::matmul::DenseFormat;
use candle_engine::kernels::threads::set_threads;
use candle_engine::kernels::{blocks, Isa};
use candle_engine::weights::Format;
use candle_engine_benches::{best_time, heading, Ceilings};

/// Name, outputs, inputs.
const SHAPES: [(&str, usize, usize); 5] = [
    ("llama-1b/k_proj", 512, 2048),
    ("llama-1b/up_proj", 8192, 2048),
    ("llama-1b/down_proj", 2048, 8192),
    ("smollm2-135m/down_proj", 576, 1536),
    ("llama-1b/lm_head", 128256, 2048),
];

const TOKENS: [usize; 6] = [1, 2, 4, 8, 128, 512];

const BUDGET: Duration = Duration::from_millis(150);

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let mut filters = Vec::new();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--threads" => {
                set_threads(args.next().and_then(|n| n.parse().ok()).expect("a number after --threads"));
            }
            _ => filters.push(arg),
        }
    }
    let isa = Isa::from_env().unwrap_or_else(|error| panic!("{error}"));
    let ceilings = Ceilings::measure(isa);
    println!("{}", heading(isa));
    println!("ceilings: {:.1} GFLOP/s, {:.2} GB/s", ceilings.gflops, ceilings.gb_per_s);
    for (name, n, k) in SHAPES {
        for t in TOKENS {
            // The head sees a sequence's last token alone.
            if t > 1 && n > 10_000 {
                continue;
            }
            let x: Vec<f32> = (0..t * k).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
            let mut y = vec![0f32; t * n];
            let mut bench = |format: &str, bytes: usize, run: &mut dyn FnMut(&[f32], &mut [f32])| {
                let phase = if t == 1 { "decode" } else { "prefill" };
                let label = format!("{name}/{phase} {n}x{k} {format} t={t}").to_lowercase();
                if !filters.iter().all(|filter| label.contains(filter.as_str())) {
                    return;
                }
                let time = best_time(BUDGET, || run(&x, &mut y));
                let gb = bytes as f64 / time * 1e-9;
                let gops = (2 * t * n * k) as f64 / time * 1e-9;
                println!(
                    "{label:44} {:8.1} µs {gb:7.2} GB/s {:5.1} % {gops:7.1} Gop/s {:5.1} % of four times f32's",
                    time * 1e6,
                    100.0 * gb / ceilings.gb_per_s,
                    25.0 * gops / ceilings.gflops,
                );
            };
            for (label, bits, group) in [
                ("int8", Bits::Int8, k),
                ("int8-a16", Bits::Int8, k),
                ("int8-g128", Bits::Int8, 128),
                ("int4-g64", Bits::Int4, 64),
            ] {
                if k % group != 0 {
                    continue;
                }
                let quants: Vec<u8> = (0..n * bits.bytes(k)).map(|i| (i * 89 % 251) as u8).collect();
                let scales = [0, 0x2c].repeat(n * k / group);
                let w = Grouped::new(bits, &quants, &scales, DenseFormat::F16, None, n, k, group)
                    .precise(label.ends_with("-a16"));
                bench(label, quants.len() + scales.len(), &mut |x, y| grouped::matmul(isa, &w, x, y));
            }
            for format in [Format::Q8_0, Format::Q4_0, Format::Q4_K, Format::Q5_K, Format::Q6_K] {
                let Some(bytes) = format.bytes(&[n, k]) else { continue };
                // 0x2c bytes everywhere are scales of about 0.06.
                let w = vec![0x2c; bytes];
                bench(&format.to_string(), bytes, &mut |x, y| blocks::matmul(isa, format, &w, k, x, y));
            }
        }
    }
}
