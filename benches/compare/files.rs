//! The same random weights in every format: safetensors folders, and a GGUF file for the blocks.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{safetensors, DType, Device, Tensor};
use candle_engine_models::random::Shape;

use crate::Outcome;

/// Writes `dir/<format>/` for every format.
pub fn write_all(dir: &Path, shape: &str) -> Outcome<()> {
    let bf16 = dir.join("bf16");
    std::fs::create_dir_all(&bf16)?;
    Shape::named(shape)?.write(&bf16)?;
    let config = std::fs::read(bf16.join("config.json"))?;
    for (name, dtype) in [("f16", DType::F16), ("f32", DType::F32)] {
        let to = dir.join(name);
        std::fs::create_dir_all(&to)?;
        std::fs::write(to.join("config.json"), &config)?;
        let tensors = read(&bf16)?
            .into_iter()
            .map(|(name, t)| Ok((name, t.to_dtype(dtype)?)))
            .collect::<candle_core::Result<HashMap<_, _>>>()?;
        safetensors::save(&tensors, to.join("model.safetensors"))?;
    }
    write_gguf(&bf16, &dir.join("q8_0"), &serde_json::from_slice(&config)?)
}

fn read(dir: &Path) -> Outcome<HashMap<String, Tensor>> {
    Ok(safetensors::load(dir.join("model.safetensors"), &Device::Cpu)?)
}

fn write_gguf(from: &Path, to: &Path, config: &serde_json::Value) -> Outcome<()> {
    std::fs::create_dir_all(to)?;
    let size = |key: &str| config[key].as_u64().unwrap_or(0) as u32;
    let number = |key: &str| config[key].as_f64().unwrap_or(0.0) as f32;
    let head = size("hidden_size") / size("num_attention_heads");
    let metadata = [
        ("general.architecture", Value::String("llama".into())),
        ("llama.embedding_length", Value::U32(size("hidden_size"))),
        ("llama.block_count", Value::U32(size("num_hidden_layers"))),
        ("llama.feed_forward_length", Value::U32(size("intermediate_size"))),
        ("llama.attention.head_count", Value::U32(size("num_attention_heads"))),
        ("llama.attention.head_count_kv", Value::U32(size("num_key_value_heads"))),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(number("rms_norm_eps"))),
        ("llama.rope.dimension_count", Value::U32(head)),
        ("llama.rope.freq_base", Value::F32(number("rope_theta"))),
        ("llama.context_length", Value::U32(size("max_position_embeddings"))),
    ];
    let mut tensors = Vec::new();
    for (name, tensor) in read(from)? {
        let matrix = tensor.rank() == 2;
        let tensor = tensor.to_dtype(DType::F32)?;
        let format = if matrix { GgmlDType::Q8_0 } else { GgmlDType::F32 };
        tensors.push((gguf_name(&name), QTensor::quantize(&tensor, format)?));
    }
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(k, v)| (*k, v)).collect();
    let mut file = std::io::BufWriter::new(File::create(to.join("model.gguf"))?);
    gguf_file::write(&mut file, &metadata, &tensors)?;
    Ok(())
}

fn gguf_name(name: &str) -> String {
    const PARTS: &[(&str, &str)] = &[
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("model.layers.", "blk."),
        ("post_attention_layernorm", "ffn_norm"),
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    PARTS.iter().fold(name.to_owned(), |name, (hf, gguf)| name.replace(hf, gguf))
}
