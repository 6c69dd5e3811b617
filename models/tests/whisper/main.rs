//! Whisper against transformers and openai-whisper.

mod decoding;
mod stacks;

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_engine::kv::KvType;
use candle_engine::weights::{Format, SafeTensors, Weights};
use candle_engine_models::whisper::Whisper;
use candle_engine_models::LoadOptions;

const CASES: [&str; 2] = ["multilingual-80", "turbo-128"];

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/whisper").join(case)
}

fn open(case: &str, composed: bool) -> Whisper {
    let options = LoadOptions { kv: Some(KvType::F32), composed, ..LoadOptions::default() };
    Whisper::open(&folder(case).display().to_string(), &options).unwrap_or_else(|e| panic!("{case}: {e}"))
}

fn answers(case: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(folder(case).join("expected.json")).unwrap()).unwrap()
}

struct Expected(SafeTensors);

impl Expected {
    fn open(case: &str) -> Self {
        Self(SafeTensors::open(&folder(case).join("expected.safetensors")).unwrap())
    }

    fn tensor(&self, name: &str) -> Tensor {
        let stored = self.0.get(name).unwrap();
        let dtype = match stored.format {
            Format::F32 => DType::F32,
            Format::F16 => DType::F16,
            Format::I64 => DType::I64,
            other => panic!("{name}: {other}"),
        };
        Tensor::from_raw_buffer(&stored.bytes, dtype, &stored.shape, &Device::Cpu).unwrap()
    }

    fn tokens(&self) -> Vec<u32> {
        self.tensor("tokens").to_vec1::<i64>().unwrap().into_iter().map(|id| id as u32).collect()
    }

    /// The recording's log-mel spectrogram, `[frames, mels]`.
    fn mel(&self) -> Tensor {
        self.tensor("mel").to_dtype(DType::F32).unwrap().t().unwrap().contiguous().unwrap()
    }

    /// A window of it.
    fn window(&self, model: &Whisper, index: usize) -> Tensor {
        let frames = model.config().frames();
        self.mel().narrow(0, index * frames, frames).unwrap().contiguous().unwrap()
    }
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}
