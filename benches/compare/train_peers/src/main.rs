//! Training steps by candle-nn and burn: `train-peers candle|burn w1|w2|w3|w4|w4b1 STEPS`.
//!
//! The networks, numbers and output of `train_steps`; threads are set by the environment.

mod burn_steps;
mod candle_steps;

use std::time::Instant;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// A network to be timed.
pub struct Work {
    pub widths: &'static [usize],
    pub batch: usize,
    pub method: Method,
}

pub enum Method {
    Adam,
    Sgd,
    AdamW,
    Forward,
}

impl Work {
    fn new(name: &str) -> Self {
        const WIDE: &[usize] = &[784, 512, 256, 10];
        match name {
            "w1" => Self { widths: &[2, 32, 32, 2], batch: 64, method: Method::Adam },
            "w2" => Self { widths: &[784, 128, 10], batch: 64, method: Method::Sgd },
            "w3" => Self { widths: WIDE, batch: 128, method: Method::AdamW },
            "w4" => Self { widths: WIDE, batch: 128, method: Method::Forward },
            "w4b1" => Self { widths: WIDE, batch: 1, method: Method::Forward },
            other => panic!("expected w1, w2, w3, w4 or w4b1, got {other}"),
        }
    }

    pub fn x(&self) -> Vec<f32> {
        (0..self.batch * self.widths[0]).map(|i| ((i * 37 % 255) as f32 / 255.0) - 0.5).collect()
    }

    pub fn labels(&self) -> Vec<i64> {
        (0..self.batch).map(|i| (i % self.widths[self.widths.len() - 1]) as i64).collect()
    }
}

/// What a layer begins with: the same in every engine.
pub fn begin(n: usize, inputs: usize) -> Vec<f32> {
    let one = |i: usize| f64::from((i as u32).wrapping_mul(2_654_435_761)) / 4_294_967_296.0 * 2.0 - 1.0;
    (0..n).map(|i| (one(i) / (inputs as f64).sqrt()) as f32).collect()
}

/// Times steps as `train_steps` does.
pub fn time(start: Instant, steps: usize, mut step: impl FnMut() -> Result<f32>) -> Result<()> {
    step()?;
    let first = start.elapsed();
    let mut loss = step()?;
    let part = steps.saturating_sub(2).div_ceil(10).max(1);
    let mut times = [0.0; 10];
    for time in &mut times {
        let start = Instant::now();
        for _ in 0..part {
            loss = step()?;
        }
        *time = start.elapsed().as_secs_f64() * 1e6 / part as f64;
    }
    times.sort_by(f64::total_cmp);
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak: u64 = peak.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
    println!(
        "{{\"us_per_step\":{},\"first_step_ms\":{},\"loss\":{loss},\"peak_rss_bytes\":{}}}",
        (times[4] + times[5]) / 2.0,
        first.as_secs_f64() * 1e3,
        peak << 10
    );
    Ok(())
}

fn main() -> Result<()> {
    let start = Instant::now();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [engine, work, steps] = &arguments[..] else { return Err("engine, work and steps expected".into()) };
    let (work, steps) = (Work::new(work), steps.parse()?);
    match engine.as_str() {
        "candle" => candle_steps::run(start, &work, steps),
        "burn" => burn_steps::run(start, &work, steps),
        other => Err(format!("expected candle or burn, got {other}").into()),
    }
}
