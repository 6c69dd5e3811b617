//! What comes before a speech model: spectrograms of a window, and resampling.
//!
//! Usage: `cargo bench --bench audio -- [--threads N]`
//!
//! Spectrograms are stated in ms for 30 s of sound, resampling in times as fast as the sound.

use std::hint::black_box;
use std::time::Duration;

use candle_engine::audio::{log_mel, Resampler, SAMPLE_RATE};
use candle_engine::kernels::threads::set_threads;
use candle_engine::kernels::Isa;
use candle_engine_benches::{best_time, heading};

const SECONDS: usize = 30;
const BUDGET: Duration = Duration::from_secs(1);

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.next().and_then(|count| count.parse().ok())) {
            ("--threads", Some(count)) => set_threads(count),
            _ => panic!("expected --threads and a number, got {arg}"),
        }
    }
    println!("{}", heading(Isa::from_env().unwrap_or_else(|error| panic!("{error}"))));
    let sound = |rate: u32| -> Vec<f32> {
        let noise = |i: usize| ((i * 7919) % 1000) as f32 / 500.0 - 1.0;
        (0..SECONDS * rate as usize).map(noise).collect()
    };
    let samples = sound(SAMPLE_RATE);
    for n_mels in [80, 128] {
        let time = best_time(BUDGET, || _ = black_box(log_mel(black_box(&samples), n_mels)));
        println!("log_mel {n_mels}: {:.2} ms", 1e3 * time);
    }
    for rate in [8_000, 22_050, 44_100, 48_000, 44_056] {
        let samples = sound(rate);
        let (mut resampler, mut out) = (Resampler::new(rate), Vec::new());
        let time = best_time(BUDGET, || {
            out.clear();
            // As a decoder gives them.
            black_box(&samples).chunks(1152).for_each(|piece| resampler.push(piece, &mut out));
            resampler.finish(&mut out);
            black_box(&out);
        });
        println!("resample {rate}: {:.0} ×", SECONDS as f64 / time);
    }
}
