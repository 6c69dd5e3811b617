//! candle-transformers' Llama, float and quantized.

use std::fs::File;
use std::path::Path;

use candle_core::quantized::gguf_file::Content;
use candle_core::{DType, Device, Tensor, D};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Config, Llama, LlamaConfig};
use candle_transformers::models::quantized_llama::ModelWeights;

use crate::{Engine, Outcome};

struct Float {
    model: Llama,
    config: Config,
    dtype: DType,
    cache: Cache,
    at: usize,
}

struct Quantized {
    model: ModelWeights,
    at: usize,
}

pub fn open(format: &str, path: &Path) -> Outcome<Box<dyn Engine>> {
    let device = Device::Cpu;
    if path.join("model.gguf").is_file() {
        let mut file = File::open(path.join("model.gguf"))?;
        let content = Content::read(&mut file)?;
        let model = ModelWeights::from_gguf(content, &mut file, &device)?;
        return Ok(Box::new(Quantized { model, at: 0 }));
    }
    // Its CPU matmul takes no bf16: it widens such weights to f32 while it loads them.
    let dtype = if format == "f16" { DType::F16 } else { DType::F32 };
    let config: LlamaConfig = serde_json::from_slice(&std::fs::read(path.join("config.json"))?)?;
    let config = config.into_config(false);
    #[allow(unsafe_code)]
    // SAFETY: the file was written by this program and nobody else changes it.
    let weights =
        unsafe { VarBuilder::from_mmaped_safetensors(&[path.join("model.safetensors")], dtype, &device)? };
    let model = Llama::load(weights, &config)?;
    let cache = Cache::new(true, dtype, &config, &device)?;
    Ok(Box::new(Float { model, config, dtype, cache, at: 0 }))
}

fn likeliest(logits: &Tensor) -> Outcome<u32> {
    Ok(logits.flatten_all()?.argmax(D::Minus1)?.to_scalar()?)
}

impl Engine for Float {
    fn feed(&mut self, tokens: &[u32]) -> Outcome<u32> {
        let x = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let logits = self.model.forward(&x, self.at, &mut self.cache)?;
        self.at += tokens.len();
        likeliest(&logits)
    }

    fn reset(&mut self) -> Outcome<()> {
        self.cache = Cache::new(true, self.dtype, &self.config, &Device::Cpu)?;
        self.at = 0;
        Ok(())
    }
}

impl Engine for Quantized {
    fn feed(&mut self, tokens: &[u32]) -> Outcome<u32> {
        let x = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let logits = self.model.forward(&x, self.at)?;
        self.at += tokens.len();
        likeliest(&logits)
    }

    fn reset(&mut self) -> Outcome<()> {
        self.model.clear_kv_cache();
        self.at = 0;
        Ok(())
    }
}
