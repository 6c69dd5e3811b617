//! candle-transformers' Whisper in f32.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, IndexOp, Tensor, D};
use candle_nn::VarBuilder;
use candle_transformers::models::whisper::model::Whisper;
use candle_transformers::models::whisper::{audio, Config, N_FFT, N_FRAMES, N_SAMPLES};
use serde::Serialize;

use crate::Outcome;

/// Greedy tokens, and repetitions of what is shorter.
const STEPS: usize = 100;
const REPETITIONS: usize = 5;
/// `<|startoftranscript|>`, English, to be transcribed, without timestamps.
const PROMPT: [u32; 4] = [50258, 50259, 50359, 50363];

/// Milliseconds of a spectrogram of 30 s, of the encoder, and of a greedy step.
#[derive(Serialize)]
pub struct Times {
    mel: f64,
    encode: f64,
    decode: f64,
}

pub fn measure(folder: &Path) -> Outcome<Times> {
    let mut config: serde_json::Map<_, _> =
        serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
    // It takes what is absent, and no null.
    config.retain(|_, value: &mut serde_json::Value| !value.is_null());
    let config: Config = serde_json::from_value(config.into())?;
    let device = Device::Cpu;
    #[allow(unsafe_code)]
    // SAFETY: nobody changes the file meanwhile.
    let weights = unsafe {
        VarBuilder::from_mmaped_safetensors(&[folder.join("model.safetensors")], DType::F32, &device)?
    };
    let mut model = Whisper::load(&weights, config.clone())?;

    let samples: Vec<f32> = (0..N_SAMPLES).map(|i| ((i * 7919) % 2000) as f32 / 1e4 - 0.1).collect();
    // What the filters are does not matter to how long they take.
    let bins = N_FFT / 2 + 1;
    let filters = vec![1.0 / bins as f32; config.num_mel_bins * bins];
    let mel_of = || audio::pcm_to_mel(&config, &samples, &filters);
    let mel = mel_of();
    let frames = mel.len() / config.num_mel_bins;
    let mel = Tensor::from_vec(mel, (1, config.num_mel_bins, frames), &device)?;
    let mel = mel.narrow(D::Minus1, 0, N_FRAMES)?.contiguous()?;
    let mel_time = median(|| Ok(mel_of().len()))?;
    let encode = median(|| Ok(model.encoder.forward(&mel, true)?.elem_count()))?;

    // Keys and values of earlier tokens are not kept: each step takes all of them, as its own example does.
    let heard = model.encoder.forward(&mel, true)?;
    let mut tokens = PROMPT.to_vec();
    let start = Instant::now();
    for step in 0..STEPS {
        let x = Tensor::new(tokens.as_slice(), &device)?.unsqueeze(0)?;
        let hidden = model.decoder.forward(&x, &heard, step == 0)?;
        let logits = model.decoder.final_linear(&hidden.i((..1, tokens.len() - 1..))?)?;
        tokens.push(logits.flatten_all()?.argmax(D::Minus1)?.to_scalar()?);
    }
    let decode = start.elapsed().as_secs_f64() * 1e3 / STEPS as f64;
    Ok(Times { mel: mel_time, encode, decode })
}

/// Milliseconds, after a first time.
fn median(mut run: impl FnMut() -> Outcome<usize>) -> Outcome<f64> {
    black_box(run()?);
    let mut times = Vec::with_capacity(REPETITIONS);
    for _ in 0..REPETITIONS {
        let start = Instant::now();
        black_box(run()?);
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[REPETITIONS / 2])
}
