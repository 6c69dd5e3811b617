//! Dense matrix products against this machine's ceilings and against candle's own path.
//!
//! Usage: `cargo bench --bench matmul -- [--threads N] [--no-candle] [FILTER…]`, a filter being a part of a
//! label such as `llama-1b/decode` or `bf16`. One thread count a run, since candle's pool cannot change.
//!
//! Decode reads each weight for one token and is stated in GB/s, prefill in GFLOP/s.

use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use candle_engine::kernels::matmul::{matmul, Dense, DenseFormat};
use candle_engine::kernels::threads::set_threads;
use candle_engine::kernels::Isa;
use candle_engine_benches::{best_time, heading, Ceilings};

/// Name, outputs, inputs.
const SHAPES: [(&str, usize, usize); 6] = [
    ("in-cache", 192, 1024),
    ("llama-1b/o_proj", 2048, 2048),
    ("llama-1b/up_proj", 8192, 2048),
    ("llama-1b/down_proj", 2048, 8192),
    ("smollm2-135m/down_proj", 576, 1536),
    ("llama-1b/lm_head", 64128, 2048),
];

const TOKENS: [usize; 4] = [1, 8, 128, 512];

const BUDGET: Duration = Duration::from_millis(150);

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let (mut filters, mut candle) = (Vec::new(), true);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--threads" => {
                let count = args.next().expect("a number after --threads");
                set_threads(count.parse().expect("a number after --threads"));
                std::env::set_var("RAYON_NUM_THREADS", count);
            }
            "--no-candle" => candle = false,
            _ => filters.push(arg),
        }
    }
    let isa = Isa::from_env().unwrap_or_else(|error| panic!("{error}"));
    let ceilings = Ceilings::measure(isa);
    println!("{}", heading(isa));
    println!(
        "ceilings: {:.1} GFLOP/s, bf16 {:.1} GFLOP/s, {:.2} GB/s",
        ceilings.gflops, ceilings.bf16_gflops, ceilings.gb_per_s
    );
    println!("{:44} {:>10} {:>22} {:>16}", "", "time", "", "candle");
    for (name, n, k) in SHAPES {
        for format in [DenseFormat::F32, DenseFormat::BF16, DenseFormat::F16] {
            let weights = Weights::new(n, k, format);
            for t in TOKENS {
                // The head sees a sequence's last token alone.
                if t > 1 && n > 10_000 {
                    continue;
                }
                let phase = if t == 1 { "decode" } else { "prefill" };
                let label = format!("{name}/{phase} {n}x{k} {format:?} t={t}").to_lowercase();
                if filters.iter().all(|filter| label.contains(filter.as_str())) {
                    weights.bench(&label, t, ceilings, candle);
                }
            }
        }
    }
}

struct Weights {
    bytes: Vec<u8>,
    format: DenseFormat,
    n: usize,
    k: usize,
}

impl Weights {
    fn new(n: usize, k: usize, format: DenseFormat) -> Self {
        // 0.5 or so in each format: no denormals, no infinities.
        let element: &[u8] = match format {
            DenseFormat::F32 => &[0, 0, 0, 0x3f],
            DenseFormat::F16 => &[0, 0x38],
            DenseFormat::BF16 => &[0, 0x3f],
        };
        Self { bytes: element.repeat(n * k), format, n, k }
    }

    fn bench(&self, label: &str, t: usize, ceilings: Ceilings, candle: bool) {
        let (n, k) = (self.n, self.k);
        let (x, mut y) = (vec![0.25f32; t * k], vec![0f32; t * n]);
        let w = Dense::new(&self.bytes, self.format, n, k);
        let ours = best_time(BUDGET, || matmul(&x, &w, None, &mut y));
        assert_eq!(y[t * n - 1], 0.125 * k as f32, "{label}");
        let rate = if t == 1 {
            let gb = self.bytes.len() as f64 / ours * 1e-9;
            format!("{gb:7.2} GB/s {:5.1} %", 100.0 * gb / ceilings.gb_per_s)
        } else {
            let gflops = (2 * t * n * k) as f64 / ours * 1e-9;
            let most = if self.format == DenseFormat::BF16 { ceilings.bf16_gflops } else { ceilings.gflops };
            format!("{gflops:5.1} GFLOP/s {:5.1} %", 100.0 * gflops / most)
        };
        let candle = if candle {
            self.candle(t).map_or("none".into(), |time| format!("{:6.2}x", time / ours))
        } else {
            String::new()
        };
        println!("{label:44} {:7.1} µs {rate:>22} {candle:>16}", ours * 1e6);
    }

    /// The time of candle's own product, activations in the weights' format as its models have them.
    fn candle(&self, t: usize) -> Option<f64> {
        let dtype = match self.format {
            DenseFormat::F32 => DType::F32,
            DenseFormat::F16 => DType::F16,
            DenseFormat::BF16 => DType::BF16,
        };
        let cpu = &Device::Cpu;
        let w = Tensor::from_raw_buffer(&self.bytes, dtype, &[self.n, self.k], cpu).ok()?.t().ok()?;
        let x = Tensor::full(0.25f32, (t, self.k), cpu).ok()?.to_dtype(dtype).ok()?;
        x.matmul(&w).ok()?;
        Some(best_time(BUDGET, || drop(x.matmul(&w))))
    }
}
