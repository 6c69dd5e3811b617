//! A GGUF file as llama.cpp's converter would write it.

use std::path::Path;

use candle_engine::weights::gguf::Metadata;
use candle_engine::weights::{Format, Stored};
use candle_engine::{Error, Result};
use candle_engine_quantization::write::{gguf, MetaValue};
use candle_engine_quantization::{Encoding, Target};

use super::folder::run;
use super::gguf_tokenizer;
use super::job::{Job, Kind};
use super::origin::Origin;
use super::recipe::{Plan, Recipe, Step};
use super::report::Report;
use crate::blocks::Scaling;
use crate::decoder::{DecoderConfig, TensorNames, GGUF, HF};

/// Writes a model to a GGUF file, with its tokenizer; `progress` is told bytes written and to write.
///
/// Matrices are in the recipe's format, vectors in f32. Memory does not grow with the model. Of another GGUF file
/// whatever is not converted stays as it is.
///
/// Errors: `Io` naming the file; `Tensor` for what cannot be converted; `Input` for a format that GGUF has not;
/// `Config` naming the key for a tokenizer that it cannot describe.
pub fn write_gguf(
    origin: &Origin,
    file: &Path,
    recipe: &Recipe,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report> {
    if let Some(target) = recipe.targets().find(|target| target.is_grouped()) {
        let what = format!("GGUF has no {target}: name a folder, or take q8_0, q4_0, f16, bf16 or f32");
        return Err(Error::Input(what));
    }
    let config = &origin.config;
    let plan = Plan::new(recipe, &*origin.weights, origin.names(), config)?;
    if let Some(source) = &origin.gguf {
        let jobs: Vec<Job> = plan.steps.iter().map(again).collect();
        let metadata = translate(source.metadata(), recipe.target);
        return run(&jobs, file, |tensors| gguf(&metadata, tensors), progress);
    }
    let rotated_in_pairs = matches!(architecture(config), "llama" | "smollm3");
    let mut jobs = Vec::new();
    for step in &plan.steps {
        jobs.push(job(step, config, rotated_in_pairs)?);
    }
    if let Some(divisors) = divisors(config) {
        jobs.push(divisors);
    }
    let mut metadata = describe(config)?;
    metadata.extend(kind(recipe.target));
    metadata.extend(gguf_tokenizer::describe(origin)?);
    run(&jobs, file, |tensors| gguf(&metadata, tensors), progress)
}

/// A tensor of a GGUF file on its way into another one.
fn again(step: &Step) -> Job {
    let is_that = step.target.is_some_and(|target| target.format() == step.source.format);
    let name = if is_that { format!("{}.weight", step.name) } else { step.name.clone() };
    Job::new(&Step { name, target: step.target.filter(|_| !is_that), ..step.clone() }, None)
}

/// What a GGUF file says, but of its numbers and of its parts.
fn translate(source: &Metadata, target: Target) -> Vec<(String, MetaValue)> {
    let new = kind(target);
    let goes = |key: &str| {
        new.iter().any(|(known, _)| known == key) || key.starts_with("split.") || key == "general.alignment"
    };
    let kept = source.keys().filter(|key| !goes(key));
    let kept =
        kept.filter_map(|key| Some((key.to_owned(), MetaValue::Encoded(source.encoded(key)?.to_vec()))));
    kept.chain(new.clone()).collect()
}

/// What is said of the numbers.
fn kind(target: Target) -> [(String, MetaValue); 2] {
    // Source: llama.cpp's `llama_ftype`.
    let file_type = match target {
        Target::F16 => 1,
        Target::Q4_0 => 2,
        Target::Q8_0 => 7,
        Target::BF16 => 32,
        _ => 0,
    };
    [
        ("general.file_type".into(), MetaValue::U32(file_type)),
        ("general.quantization_version".into(), MetaValue::U32(2)),
    ]
}

fn job(step: &Step, config: &DecoderConfig, rotated_in_pairs: bool) -> Result<Job> {
    let err = |what: &str| Error::Tensor { name: step.source.name.clone(), what: what.into() };
    let end = if step.name.ends_with(".bias") { "bias" } else { "weight" };
    let base = step.name.strip_suffix(end).and_then(|base| base.strip_suffix('.')).unwrap_or(&step.name);
    let name = rename(base).ok_or_else(|| err("has no name in GGUF"))?;
    let heads = match base.rsplit_once('.').map(|(_, part)| part) {
        Some("q_proj") if rotated_in_pairs => Some(config.dims.heads),
        Some("k_proj") if rotated_in_pairs => Some(config.dims.kv_heads),
        _ => None,
    };
    let order = heads.map(|heads| pairs(heads, config.dims.head_dim));
    if let Some(rows) = order.as_ref().map(Vec::len).filter(|rows| step.source.shape.first() != Some(rows)) {
        let (name, got) = (step.source.name.clone(), step.source.shape.clone());
        let expected = std::iter::once(rows).chain(got.iter().skip(1).copied()).collect();
        return Err(Error::ShapeMismatch { name, expected, got });
    }
    let (name, kind) = match (step.target, step.source.shape.len()) {
        (Some(target), _) => (name, Kind::Matrix(Encoding::new(target, step.source.format, None))),
        (None, 1) => (format!("{name}.{end}"), Kind::Vector(Target::F32)),
        (None, _) if order.is_none() => (format!("{name}.{end}"), Kind::Copy),
        (None, _) => {
            let target = super::job::same(step.source.format);
            (name, Kind::Matrix(Encoding::new(target, step.source.format, None)))
        }
    };
    Ok(Job { source: step.source.clone(), name, kind, layer: step.layer, inputs: None, outputs: None, order })
}

/// The name in GGUF of what is `base` in the Hub's checkpoints.
fn rename(base: &str) -> Option<String> {
    let TensorNames { embedding, norm, head, layers, parts } = &HF;
    if let Some((layer, part)) = base.strip_prefix(layers).and_then(|rest| rest.split_once('.')) {
        let (p, g) = (parts, &GGUF.parts);
        let known = [
            (p.attn_norm, g.attn_norm),
            (p.q_proj, g.q_proj),
            (p.k_proj, g.k_proj),
            (p.v_proj, g.v_proj),
            (p.o_proj, g.o_proj),
            (p.q_norm, g.q_norm),
            (p.k_norm, g.k_norm),
            (p.mlp_norm, g.mlp_norm),
            (p.gate_proj, g.gate_proj),
            (p.up_proj, g.up_proj),
            (p.down_proj, g.down_proj),
        ];
        let (_, name) = known.into_iter().find(|(hf, _)| *hf == part)?;
        return Some(GGUF.part(layer.parse().ok()?, name));
    }
    let known = [(embedding, GGUF.embedding), (norm, GGUF.norm), (head, GGUF.head)];
    known.into_iter().find(|(hf, _)| **hf == base).map(|(_, name)| name.to_owned())
}

/// The rows of heads in the order of GGUF's Llama: the two of a rotated pair are neighbours.
fn pairs(heads: usize, head_dim: usize) -> Vec<usize> {
    let half = head_dim / 2;
    let row = |i: usize| i / head_dim * head_dim + i % 2 * half + i % head_dim / 2;
    (0..heads * head_dim).map(row).collect()
}

fn architecture(config: &DecoderConfig) -> &'static str {
    match config.family {
        "mistral" => "llama",
        family => family,
    }
}

/// What each frequency is divided by, for a scaling that GGUF has no words for.
fn divisors(config: &DecoderConfig) -> Option<Job> {
    if !matches!(config.rope.scaling, Scaling::Llama3 { .. }) {
        return None;
    }
    let (scaled, _) = config.rope.frequencies();
    let plain = crate::blocks::RopeConfig { scaling: Scaling::None, ..config.rope.clone() };
    let divisors = plain.frequencies().0.into_iter().zip(scaled).map(|(plain, scaled)| plain / scaled);
    let bytes: Vec<u8> = divisors.flat_map(f32::to_le_bytes).collect();
    let name = "rope_freqs.weight".to_owned();
    let source =
        Stored { name: name.clone(), shape: vec![bytes.len() / 4], bytes: bytes.into(), format: Format::F32 };
    Some(Job { source, name, kind: Kind::Copy, layer: None, inputs: None, outputs: None, order: None })
}

fn describe(config: &DecoderConfig) -> Result<Vec<(String, MetaValue)>> {
    let (arch, d) = (architecture(config), &config.dims);
    let mut all = vec![("general.architecture".to_owned(), MetaValue::Str(arch.into()))];
    let mut add = |key: &str, value| all.push((format!("{arch}.{key}"), value));
    for (key, n) in [
        ("context_length", d.context),
        ("embedding_length", d.hidden),
        ("block_count", d.layers),
        ("feed_forward_length", d.ffn),
        ("attention.head_count", d.heads),
        ("attention.head_count_kv", d.kv_heads),
        ("attention.key_length", d.head_dim),
        ("attention.value_length", d.head_dim),
        ("rope.dimension_count", d.head_dim),
        ("vocab_size", d.vocab),
    ] {
        add(key, MetaValue::U32(n as u32));
    }
    add("attention.layer_norm_rms_epsilon", MetaValue::F32(config.norm_eps));
    add("rope.freq_base", MetaValue::F32(config.rope.theta as f32));
    match &config.rope.scaling {
        Scaling::None | Scaling::Llama3 { .. } | Scaling::Divisors(_) => {}
        Scaling::Linear { factor } => {
            add("rope.scaling.type", MetaValue::Str("linear".into()));
            add("rope.scaling.factor", MetaValue::F32(*factor as f32));
        }
        Scaling::Yarn(yarn) => {
            let usual = 0.1 * yarn.factor.ln() + 1.0;
            let is_usual = yarn.truncate
                && (yarn.beta_fast, yarn.beta_slow) == (32.0, 1.0)
                && (yarn.attention_factor - usual).abs() < 1e-6;
            if !is_usual {
                let what = "GGUF has only YaRN with its own betas and attention factor";
                return Err(Error::config("rope_scaling", what));
            }
            add("rope.scaling.type", MetaValue::Str("yarn".into()));
            add("rope.scaling.factor", MetaValue::F32(yarn.factor as f32));
            let context = MetaValue::U32(yarn.original_context as u32);
            add("rope.scaling.original_context_length", context);
        }
    }
    let windows: Vec<_> = config.layers.iter().map(|layer| layer.window).collect();
    // Source: llama.cpp's `smollm3`, which rotates all layers but every fourth.
    let rotated = |i: usize| arch != "smollm3" || !(i + 1).is_multiple_of(4);
    if !config.layers.iter().enumerate().all(|(i, layer)| layer.rope == rotated(i)) {
        return Err(Error::config("no_rope_layers", "GGUF cannot say which layers are not rotated"));
    }
    match windows.first().copied().flatten() {
        Some(window) if windows.iter().all(|w| *w == Some(window)) => {
            add("attention.sliding_window", MetaValue::U32(window as u32));
        }
        None if windows.iter().all(Option::is_none) => {}
        _ => return Err(Error::config("layer_types", "GGUF cannot say that only some layers slide")),
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_pair_become_neighbours() {
        assert_eq!(pairs(2, 6), [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
    }

    #[test]
    fn names_in_gguf() {
        assert_eq!(rename("model.layers.12.self_attn.q_proj").unwrap(), "blk.12.attn_q");
        assert_eq!(rename("model.embed_tokens").unwrap(), "token_embd");
        assert_eq!(rename("model.layers.1.mlp.experts"), None);
    }
}
