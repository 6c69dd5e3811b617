//! GGUF metadata, said in the words of `config.json`: the families are then the same.

use candle_engine::ops::RopeStyle;
use candle_engine::weights::gguf::{Gguf, Metadata};
use candle_engine::weights::{Format, Weights};
use candle_engine::{Error, Result};
use serde_json::{json, Map, Value};

use super::from_hf;
use crate::blocks::Scaling;
use crate::decoder::DecoderConfig;
use crate::hf_config::HfConfig;

/// GGUF's key after the architecture's name, and the key of `config.json`.
const KEYS: &[(&str, &str)] = &[
    ("context_length", "max_position_embeddings"),
    ("embedding_length", "hidden_size"),
    ("block_count", "num_hidden_layers"),
    ("feed_forward_length", "intermediate_size"),
    ("attention.head_count", "num_attention_heads"),
    ("attention.head_count_kv", "num_key_value_heads"),
    ("attention.key_length", "head_dim"),
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    ("attention.sliding_window", "sliding_window"),
    ("rope.freq_base", "rope_theta"),
];

const ROPE_KEYS: &[(&str, &str)] = &[
    ("rope.scaling.type", "rope_type"),
    ("rope.scaling.factor", "factor"),
    ("rope.scaling.original_context_length", "original_max_position_embeddings"),
];

/// Must equal the head's size where they are given.
const HEAD_DIM_KEYS: &[&str] = &["rope.dimension_count", "attention.value_length"];

const IGNORED: &[&str] = &["vocab_size", "rope.scaling.finetuned"];

const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// Reads the configuration of a GGUF file.
///
/// Errors: `Config` naming the key; `MissingTensor` or `Tensor` naming the tensor.
pub fn config(file: &Gguf) -> Result<DecoderConfig> {
    let meta = file.metadata();
    let arch = meta
        .str("general.architecture")
        .ok_or_else(|| Error::config("general.architecture", "is missing"))?;
    let hf = HfConfig::from_map(translate(file, meta, arch)?);
    let mut config = from_hf(&hf)?;
    for key in HEAD_DIM_KEYS {
        let key = format!("{arch}.{key}");
        if let Some(n) = meta.u64(&key).filter(|&n| n != config.dims.head_dim as u64) {
            let what = format!("expected the head's {} numbers, got {n}", config.dims.head_dim);
            return Err(Error::config(key, what));
        }
    }
    // Converters store Llama's queries and keys so that the numbers of a pair are neighbours.
    if matches!(arch, "llama" | "smollm3") {
        config.rope.style = RopeStyle::Interleaved;
    }
    if file.contains(ROPE_DIVISORS) {
        config.rope.scaling = Scaling::Divisors(divisors(file)?);
    }
    let bias = |part: &str| file.contains(&format!("blk.0.{part}.bias"));
    config.qkv_bias = bias("attn_q");
    config.o_bias = bias("attn_output");
    config.mlp_bias = bias("ffn_gate");
    config.validate()?;
    Ok(config)
}

fn translate(file: &Gguf, meta: &Metadata, arch: &str) -> Result<Map<String, Value>> {
    let mut map = Map::new();
    let mut rope = Map::new();
    let prefix = format!("{arch}.");
    for key in meta.keys() {
        let Some(short) = key.strip_prefix(&prefix) else { continue };
        let value = meta
            .str(key)
            .map(|s| json!(s))
            .or_else(|| meta.bool(key).map(|b| json!(b)))
            .or_else(|| meta.u64(key).map(|n| json!(n)))
            .or_else(|| meta.f64(key).map(|n| json!(n)))
            .unwrap_or_else(|| json!(["a list"]));
        if let Some((_, name)) = KEYS.iter().find(|(gguf, _)| *gguf == short) {
            map.insert((*name).into(), value);
        } else if let Some((_, name)) = ROPE_KEYS.iter().find(|(gguf, _)| *gguf == short) {
            rope.insert((*name).into(), if value == "none" { json!("default") } else { value });
        } else if !IGNORED.contains(&short) && !HEAD_DIM_KEYS.contains(&short) {
            map.insert(key.into(), value);
        }
    }
    if !rope.is_empty() {
        map.insert("rope_scaling".into(), Value::Object(rope));
    }
    let slides = map.contains_key("sliding_window");
    let model_type = if arch == "llama" && slides { "mistral" } else { arch };
    map.insert("model_type".into(), json!(model_type));
    let embedding = file.get("token_embd.weight")?;
    map.insert("vocab_size".into(), json!(embedding.shape.first()));
    map.insert("tie_word_embeddings".into(), json!(!file.contains("output.weight")));
    Ok(map)
}

fn divisors(file: &Gguf) -> Result<Vec<f32>> {
    let stored = file.get(ROPE_DIVISORS)?;
    if stored.format != Format::F32 {
        let what = format!("expected F32, got {}", stored.format);
        return Err(Error::Tensor { name: stored.name, what });
    }
    Ok(stored.bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}
