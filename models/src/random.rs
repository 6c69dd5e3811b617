//! Known shapes with random weights: what a benchmark needs when nothing may be downloaded.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use candle_engine::{Error, Result};
use half::bf16;
use serde_json::{json, Map, Value};

/// A published model's shape.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// The word that names it on a command line.
    pub name: &'static str,
    model_type: &'static str,
    hidden: usize,
    ffn: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    vocab: usize,
    context: usize,
    theta: f64,
}

/// The shapes that can be asked for.
pub const SHAPES: &[Shape] = &[
    Shape {
        name: "llama-1b",
        model_type: "llama",
        hidden: 2048,
        ffn: 8192,
        layers: 16,
        heads: 32,
        kv_heads: 8,
        vocab: 128_256,
        context: 131_072,
        theta: 500_000.0,
    },
    Shape {
        name: "smollm2-135m",
        model_type: "llama",
        hidden: 576,
        ffn: 1536,
        layers: 30,
        heads: 9,
        kv_heads: 3,
        vocab: 49_152,
        context: 8192,
        theta: 100_000.0,
    },
    Shape {
        name: "qwen2.5-0.5b",
        model_type: "qwen2",
        hidden: 896,
        ffn: 4864,
        layers: 24,
        heads: 14,
        kv_heads: 2,
        vocab: 151_936,
        context: 32_768,
        theta: 1_000_000.0,
    },
];

impl Shape {
    /// The shape of that name.
    ///
    /// Errors: `Input` listing the names there are.
    pub fn named(name: &str) -> Result<&'static Self> {
        SHAPES.iter().find(|s| s.name == name).ok_or_else(|| {
            let names: Vec<_> = SHAPES.iter().map(|s| s.name).collect();
            Error::Input(format!("no random shape `{name}`: known are {}", names.join(", ")))
        })
    }

    /// Names and shapes of all tensors.
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (h, f) = (self.hidden, self.ffn);
        let kv = h / self.heads * self.kv_heads;
        let mut all = vec![("model.embed_tokens.weight".to_owned(), vec![self.vocab, h])];
        for i in 0..self.layers {
            let mut add = |part: &str, shape: &[usize]| {
                all.push((format!("model.layers.{i}.{part}"), shape.to_vec()));
            };
            add("input_layernorm.weight", &[h]);
            for (part, out) in [("q", h), ("k", kv), ("v", kv)] {
                add(&format!("self_attn.{part}_proj.weight"), &[out, h]);
                if self.model_type == "qwen2" {
                    add(&format!("self_attn.{part}_proj.bias"), &[out]);
                }
            }
            add("self_attn.o_proj.weight", &[h, h]);
            add("post_attention_layernorm.weight", &[h]);
            add("mlp.gate_proj.weight", &[f, h]);
            add("mlp.up_proj.weight", &[f, h]);
            add("mlp.down_proj.weight", &[h, f]);
        }
        all.push(("model.norm.weight".into(), vec![h]));
        all
    }

    fn config(&self) -> Value {
        json!({
            "architectures": [if self.model_type == "qwen2" { "Qwen2ForCausalLM" } else { "LlamaForCausalLM" }],
            "model_type": self.model_type,
            "hidden_size": self.hidden,
            "intermediate_size": self.ffn,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocab,
            "max_position_embeddings": self.context,
            "rope_theta": self.theta,
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "tie_word_embeddings": true,
            "torch_dtype": "bfloat16",
        })
    }

    /// Writes a folder that opens as a model: bf16, normally distributed with deviation 0.02, norms around one.
    /// The same bytes every time.
    ///
    /// Errors: `Io` naming the file.
    pub fn write(&self, dir: &Path) -> Result<()> {
        write_checkpoint(dir, &self.config(), &self.tensors())
    }

    /// As [`Self::write`], but all numbers are zero and the file is one hole: it takes no space and no time, and
    /// serves to measure what loading costs.
    ///
    /// Errors: `Io` naming the file.
    pub fn write_hollow(&self, dir: &Path) -> Result<()> {
        write_config(dir, &self.config())?;
        let path = dir.join("model.safetensors");
        let write = || {
            let (header, data) = header(&self.tensors());
            let mut file = File::create(&path)?;
            file.write_all(&header)?;
            file.set_len((header.len() + data) as u64)
        };
        write().map_err(|e| Error::io(&path, e))
    }
}

/// Writes a folder of bf16 weights, those of norms around one. The same bytes every time.
///
/// Errors: `Io` naming the file.
pub(crate) fn write_checkpoint(dir: &Path, config: &Value, tensors: &[(String, Vec<usize>)]) -> Result<()> {
    write_config(dir, config)?;
    let path = dir.join("model.safetensors");
    write_tensors(&path, tensors).map_err(|e| Error::io(&path, e))
}

fn write_config(dir: &Path, config: &Value) -> Result<()> {
    let path = dir.join("config.json");
    std::fs::write(&path, config.to_string()).map_err(|e| Error::io(&path, e))
}

/// The file's beginning, and how many bytes of numbers follow it.
fn header(tensors: &[(String, Vec<usize>)]) -> (Vec<u8>, usize) {
    let (mut map, mut at) = (Map::new(), 0);
    for (name, shape) in tensors {
        let bytes = 2 * shape.iter().product::<usize>();
        map.insert(name.clone(), json!({"dtype": "BF16", "shape": shape, "data_offsets": [at, at + bytes]}));
        at += bytes;
    }
    let mut json = Value::Object(map).to_string();
    json.push_str(&" ".repeat(json.len().next_multiple_of(8) - json.len()));
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend(json.as_bytes());
    (header, at)
}

fn write_tensors(path: &Path, tensors: &[(String, Vec<usize>)]) -> std::io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&header(tensors).0)?;
    let (table, mut random) = (normal_table(), Random(0x9E37_79B9_7F4A_7C15));
    for (name, shape) in tensors {
        let mean = if name.contains("norm") { 1.0 } else { 0.0 };
        write_normal(&mut file, shape.iter().product(), mean, &table, &mut random)?;
    }
    file.flush()
}

/// Draws from the normal distribution with deviation 0.02.
fn normal_table() -> [f32; 1 << TABLE_BITS] {
    // The sum of twelve uniform numbers is normal enough for a benchmark.
    let mut random = Random(1);
    std::array::from_fn(|_| {
        let sum: f64 = (0..12).map(|_| (random.next() >> 11) as f64 / (1u64 << 53) as f64).sum();
        (0.02 * (sum - 6.0)) as f32
    })
}

const TABLE_BITS: u32 = 12;

fn write_normal(
    file: &mut impl Write,
    mut count: usize,
    mean: f32,
    table: &[f32; 1 << TABLE_BITS],
    random: &mut Random,
) -> std::io::Result<()> {
    let table: Vec<[u8; 2]> = table.iter().map(|x| bf16::from_f32(x + mean).to_le_bytes()).collect();
    let mut chunk = Vec::with_capacity(1 << 16);
    while count > 0 {
        chunk.clear();
        while chunk.len() < 1 << 15 && chunk.len() < 2 * count {
            let bits = random.next();
            for i in 0..4 {
                chunk.extend(table[(bits >> (i * 16)) as usize & ((1 << TABLE_BITS) - 1)]);
            }
        }
        chunk.truncate(2 * count);
        file.write_all(&chunk)?;
        count -= chunk.len() / 2;
    }
    Ok(())
}

/// xorshift64*. Source: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled".
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}
