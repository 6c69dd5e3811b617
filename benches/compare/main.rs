//! Side by side with candle-transformers' own Llama: the same weights, threads and tokens, in one run. `speech.py` has its
//! Whisper measured, by `--one candle-whisper f32 FOLDER`.
//!
//! `cargo run --release -p candle-engine-benches --bin compare -- [SHAPE] [--threads N] [--rounds N]`
//!
//! Every figure comes from a process of its own, the engines in turn, and is the median of the rounds.

mod candle_llama;
mod candle_whisper;
mod engine;
mod files;
mod table;

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use candle_engine::memory;
use serde::{Deserialize, Serialize};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const PREFILL: usize = 512;
const DECODE: usize = 64;

/// Storage formats, and where candle computes in another one because it cannot multiply in this one.
const FORMATS: &[&str] = &["f32", "f16", "bf16", "q8_0"];
const ENGINES: &[&str] = &["candle", "candle-engine"];

/// What one process measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    engine: String,
    format: String,
    prefill_tokens_per_s: f64,
    decode_tokens_per_s: f64,
    load_ms: f64,
    peak_rss_mb: f64,
    anonymous_mb: f64,
    /// Ids of the first greedy tokens: both engines read the same model if they agree.
    greedy: Vec<u32>,
}

/// An engine under test: it feeds tokens and says which comes next.
trait Engine {
    /// Feeds tokens after those fed before; the likeliest next token.
    fn feed(&mut self, tokens: &[u32]) -> Outcome<u32>;
    /// Forgets all tokens.
    fn reset(&mut self) -> Outcome<()>;
}

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [one, engine, format, path] = &args[..] {
        if one == "--one" && engine == "candle-whisper" {
            println!("{}", serde_json::to_string(&candle_whisper::measure(path.as_ref())?)?);
            return Ok(());
        }
        if one == "--one" {
            let row = measure(engine, format, PathBuf::from(path))?;
            println!("{}", serde_json::to_string(&row)?);
            return Ok(());
        }
    }
    let option = |name: &str, default: &str| {
        let at = args.iter().position(|a| a == name);
        at.and_then(|i| args.get(i + 1)).map_or(default, String::as_str).to_owned()
    };
    let shape = args.first().filter(|a| !a.starts_with("--")).map_or("smollm2-135m", String::as_str);
    let threads = option("--threads", "2");
    let rounds: usize = option("--rounds", "5").parse()?;
    let dir = std::env::temp_dir().join(format!("candle-engine-compare-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let result = compare(&dir, shape, &threads, rounds);
    std::fs::remove_dir_all(&dir)?;
    result
}

fn compare(dir: &std::path::Path, shape: &str, threads: &str, rounds: usize) -> Outcome<()> {
    files::write_all(dir, shape)?;
    let mut rows: Vec<Row> = Vec::new();
    for format in FORMATS {
        for round in 0..rounds {
            for engine in ENGINES {
                eprintln!("{format} round {} of {rounds}: {engine}", round + 1);
                let out = Command::new(std::env::current_exe()?)
                    .args(["--one", engine, format])
                    .arg(dir.join(format))
                    .env("RAYON_NUM_THREADS", threads)
                    .env("CANDLE_NUM_THREADS", threads)
                    .env("CANDLE_ENGINE_THREADS", threads)
                    .stderr(std::process::Stdio::inherit())
                    .output()?;
                if !out.status.success() {
                    return Err(format!("{engine} {format} failed").into());
                }
                rows.push(serde_json::from_slice(&out.stdout)?);
            }
        }
    }
    table::print(shape, threads, rounds, &rows);
    Ok(())
}

fn measure(engine: &str, format: &str, path: PathBuf) -> Outcome<Row> {
    let start = Instant::now();
    let mut model: Box<dyn Engine> = match engine {
        "candle" => candle_llama::open(format, &path)?,
        _ => engine::open(&path)?,
    };
    let load_ms = start.elapsed().as_secs_f64() * 1e3;
    let anonymous = memory::anonymous().unwrap_or(0);
    let prompt: Vec<u32> = (0..PREFILL as u32).map(|i| (i * 7919) % 40_000 + 3).collect();

    // Warm-up: page cache, thread pools, and the tokens that both engines must agree on.
    let mut greedy = vec![model.feed(&prompt[..16])?];
    for i in 0..3 {
        greedy.push(model.feed(&[greedy[i]])?);
    }
    model.reset()?;

    let start = Instant::now();
    let mut next = model.feed(&prompt)?;
    let prefill = start.elapsed().as_secs_f64();
    model.reset()?;
    // Decoding starts behind a short prompt, as a first answer does.
    next = next.min(model.feed(&prompt[..16])?);
    let start = Instant::now();
    for _ in 0..DECODE {
        next = model.feed(&[next])?;
    }
    let decode = start.elapsed().as_secs_f64();
    let mb = |bytes: u64| bytes as f64 / 1e6;
    Ok(Row {
        engine: engine.into(),
        format: format.into(),
        prefill_tokens_per_s: PREFILL as f64 / prefill,
        decode_tokens_per_s: DECODE as f64 / decode,
        load_ms,
        peak_rss_mb: mb(memory::peak_resident().unwrap_or(0)),
        anonymous_mb: mb(anonymous),
        greedy,
    })
}
