//! Whisper: the spectrogram of 30 seconds, the encoder, and the decoder token by token.

use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{Device, Tensor};
use candle_engine::audio::{log_mel, SAMPLE_RATE};
use candle_engine::kernels::act::largest;
use candle_engine::kernels::threads::{parallel_chunks, set_threads, threads};
use candle_engine::kernels::Isa;
use candle_engine::kv::{Batch, KvCache};
use candle_engine::memory;
use candle_engine::ops::to_rows;
use candle_engine_models::quantize::{is_whisper, write_whisper_folder};
use candle_engine_models::whisper::random::WhisperShape;
use candle_engine_models::whisper::{Memory, Whisper};
use candle_engine_models::{totals, Error, LoadOptions, Result, Source};
use serde::Serialize;

use super::load;
use crate::args::Bench;
use crate::exit::Outcome;
use crate::interrupt::Temporary;
use crate::output::{self, Ui};

/// One row of `--json`.
#[derive(Debug, Serialize)]
struct Row {
    model: String,
    /// Number format of most of the weights' bytes.
    format: String,
    test: String,
    isa: &'static str,
    threads: usize,
    /// Of a spectrogram or a window; of a decode, per step: a token of each row.
    ms: f64,
    /// Of all rows together; none but of a decode.
    tokens_per_s: Option<f64>,
    load_ms: f64,
    peak_rss_bytes: Option<u64>,
}

/// What begins a transcript, in tokens.
const PROMPT: usize = 4;
/// Beams that share a window, as the Whisper program has it.
const BEAMS: usize = 5;

/// Runs the benchmark if it is about a Whisper model; whether it was.
pub fn run(args: &Bench, ui: &Ui) -> Outcome<bool> {
    let Some((name, dir, _temporary)) = place(args, ui)? else { return Ok(false) };
    let options = load::options(&args.device, args.kv_type)?;
    let mut rows: Vec<Row> = Vec::new();
    let series = if args.threads.is_empty() { vec![threads()] } else { args.threads.clone() };
    for count in series {
        set_threads(count);
        measure(args, &name, &dir, &options, &mut rows)?;
    }
    if args.json {
        output::json(&rows)?;
        return Ok(true);
    }
    let cells: Vec<_> = rows
        .iter()
        .map(|row| {
            let rate = row.tokens_per_s.map_or_else(|| "-".into(), |rate| format!("{rate:.1}"));
            [
                row.model.clone(),
                row.format.clone(),
                row.test.clone(),
                row.threads.to_string(),
                format!("{:.2}", row.ms),
                rate,
            ]
        })
        .collect();
    output::table(["model", "format", "test", "threads", "ms", "tokens/s"], &cells)?;
    Ok(true)
}

/// Name and folder of the model; random weights, and quantized ones, are written first.
fn place(args: &Bench, ui: &Ui) -> Outcome<Option<(String, PathBuf, Option<Temporary>)>> {
    let shape = args.random.as_deref().and_then(WhisperShape::named);
    let (name, given) = match (shape, &args.random) {
        (Some(shape), _) => (shape.name.to_owned(), None),
        (None, Some(_)) => return Ok(None),
        (None, None) => {
            let word = load::word(None, &args.model);
            match load::locate(&word, ui)? {
                Source::Folder(dir) if is_whisper(&dir) => (word, Some(dir)),
                _ => return Ok(None),
            }
        }
    };
    if let (Some(dir), None) = (&given, &args.quantize) {
        return Ok(Some((name, dir.clone(), None)));
    }
    let folder = Temporary::new()?;
    let make = |part: &str| -> Result<PathBuf> {
        let dir = folder.path().join(part);
        std::fs::create_dir(&dir).map_err(|e| Error::io(&dir, e))?;
        Ok(dir)
    };
    let mut dir = match (given, shape) {
        (Some(dir), _) => dir,
        (None, shape) => {
            let random = make("random")?;
            shape.map_or(Ok(()), |shape| shape.write(&random))?;
            random
        }
    };
    if let Some(recipe) = &args.quantize {
        let quantized = make("quantized")?;
        write_whisper_folder(&dir, &quantized, recipe, &mut |_, _| ())?;
        dir = quantized;
    }
    Ok(Some((name, dir, Some(folder))))
}

fn measure(args: &Bench, name: &str, dir: &Path, options: &LoadOptions, rows: &mut Vec<Row>) -> Outcome {
    let model = Whisper::from_source(&Source::Folder(dir.to_owned()), options)?;
    let format = totals(&**model.weights()).first().map(|total| total.format.to_string().to_lowercase());
    let mut add = |test: String, ms: f64, tokens: Option<usize>| {
        rows.push(Row {
            model: name.to_owned(),
            format: format.clone().unwrap_or_default(),
            test,
            isa: Isa::best().name(),
            threads: threads(),
            ms,
            tokens_per_s: tokens.map(|tokens| tokens as f64 / ms * 1e3),
            load_ms: model.load_time().as_secs_f64() * 1e3,
            peak_rss_bytes: memory::peak_resident(),
        });
    };
    let (frames, mels) = (model.config().frames(), model.config().mels);
    let samples: Vec<f32> =
        (0..30 * SAMPLE_RATE).map(|i| (i as f32 * 0.01 * (i % 977) as f32).sin() * 0.1).collect();
    add("mel".into(), median(args.repetitions, || Ok(_ = log_mel(&samples, mels)))?, None);
    let mel = log_mel(&samples, mels);
    let mut data = mel.data;
    data.resize(frames * mels, 0.0);
    let window = Tensor::from_vec(data, (frames, mels), &Device::Cpu).map_err(Error::from)?;
    add(
        "encode".into(),
        median(args.repetitions, || Ok(_ = model.hear(std::slice::from_ref(&window))?))?,
        None,
    );

    let memory = model.hear(std::slice::from_ref(&window))?.remove(0);
    let steps = args.n_gen.first().copied().unwrap_or(64).clamp(1, model.config().decoder.positions - PROMPT);
    for &batch in &args.batch {
        // Windows of their own: a memory that is shared is read once.
        let others: Vec<Memory> = (1..batch)
            .map(|_| Ok(model.hear(std::slice::from_ref(&window))?.remove(0)))
            .collect::<Result<_>>()?;
        let memories: Vec<&Memory> = std::iter::once(&memory).chain(&others).collect();
        let ms = median(args.repetitions, || decode(&model, &memories, steps))? / steps as f64;
        let test = if batch == 1 { "decode".to_owned() } else { format!("decode x{batch}") };
        add(test, ms, Some(batch));
    }
    let ms = median(args.repetitions, || decode(&model, &[&memory; BEAMS], steps))? / steps as f64;
    add(format!("decode beam{BEAMS}"), ms, Some(1));
    Ok(())
}

/// The likeliest tokens, as many of each row.
fn decode(model: &Whisper, memories: &[&Memory], steps: usize) -> Result<()> {
    let mut caches: Vec<KvCache> = memories.iter().map(|_| model.decoder().new_cache()).collect();
    let mut feed: Vec<Vec<u32>> = vec![vec![0; PROMPT]; memories.len()];
    for _ in 0..steps {
        let mut batch = Batch::default();
        for (kv, tokens) in caches.iter_mut().zip(&feed) {
            batch.push(tokens, kv, false)?;
        }
        let logits = model.decoder().forward(&mut batch, memories)?;
        let logits = to_rows(&logits)?;
        parallel_chunks(&mut feed, 1, |row, feed| feed[0] = vec![likeliest(&logits[row])]);
    }
    Ok(())
}

fn likeliest(logits: &[f32]) -> u32 {
    let most = largest(logits);
    logits.iter().position(|&logit| logit == most).unwrap_or(0) as u32
}

/// Milliseconds: the median of some repetitions, one more before to warm up.
fn median(repetitions: usize, mut run: impl FnMut() -> Result<()>) -> Outcome<f64> {
    run()?;
    let mut times = Vec::with_capacity(repetitions);
    for _ in 0..repetitions {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(super::median(&times))
}
