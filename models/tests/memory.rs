//! What loading costs: a model of 1.2 billion parameters is mapped, not copied, whatever its format. A process of its
//! own, because it looks at the whole process's memory.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_engine::memory;
use candle_engine::weights::Format;
use candle_engine_models::quantize::{Origin, Plan, Recipe};
use candle_engine_models::random::Shape;
use candle_engine_models::{LoadOptions, Model, Source};
use candle_engine_quantization::compressed_tensors::{describe, suffix};
use candle_engine_quantization::write::{gguf, safetensors, Layout, MetaValue, Planned, Writer};
use candle_engine_quantization::{planned, Encoding};

const ANONYMOUS: u64 = 100 << 20;
const LOAD: Duration = Duration::from_millis(100);

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn weights_are_never_copied() {
    let name = format!("candle-engine-memory-{}", std::process::id());
    let folder = Folder(std::env::temp_dir().join(name));
    let bf16 = folder.0.join("bf16");
    std::fs::create_dir_all(&bf16).unwrap();
    Shape::named("llama-1b").unwrap().write_hollow(&bf16).unwrap();
    let origin = Origin::open(&Source::Folder(bf16.clone())).unwrap();

    check(&bf16, "bf16");
    for word in ["int8", "int4-g64"] {
        let to = folder.0.join(word);
        hollow_folder(&origin, &bf16, &to, &word.parse().unwrap());
        check(&to, word);
    }
    for format in [Format::Q8_0, Format::Q4_K] {
        let to = folder.0.join(format!("{format}.gguf"));
        hollow_gguf(&origin, &to, format);
        check(&to, &format.to_string());
    }
}

fn check(path: &Path, what: &str) {
    // The best of a few: the first reads the header from the disk, and other programs may be in the way.
    let open = || {
        let start = Instant::now();
        let model = Model::open(&path.display().to_string(), &LoadOptions::default()).unwrap();
        (start.elapsed(), model)
    };
    let load = (0..5).map(|_| open().0).min().unwrap();
    let (_, model) = open();
    let loaded = memory::anonymous().unwrap();
    let mut session = model.session();
    session.feed(&[1, 2, 3]).unwrap();
    let fed = memory::anonymous().unwrap();
    let (kv, bytes) =
        (session.kv_bytes() as u64, model.totals().iter().map(|total| total.bytes).sum::<u64>());
    println!(
        "{what}: {load:?}, {loaded} bytes after loading {bytes}, {fed} after a pass, {kv} of them KV cache"
    );
    assert!(bytes > 5 * ANONYMOUS, "{what}: {bytes} bytes would not be seen");
    assert!(load < LOAD, "{what}: loading took {load:?}");
    assert!(loaded < ANONYMOUS, "{what}: {loaded} bytes after loading");
    assert!(fed < ANONYMOUS + kv, "{what}: {fed} bytes after a forward pass, {kv} of them KV cache");
}

/// Writes a file whose tensors are holes, but for those that `fill` appends.
fn hollow(path: &Path, layout: Layout, fill: impl FnOnce(&mut Writer)) {
    let len = layout.len();
    let mut writer = Writer::create(path, layout).unwrap();
    fill(&mut writer);
    drop(writer);
    File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// What quantizing would make, without the numbers.
fn hollow_folder(origin: &Origin, source: &Path, to: &Path, recipe: &Recipe) {
    std::fs::create_dir(to).unwrap();
    let plan = Plan::new(recipe, &*origin.weights, origin.names(), &origin.config).unwrap();
    let (mut all, mut shapes) = (Vec::new(), Vec::new());
    for step in &plan.steps {
        let (format, shape) = (step.source.format, step.source.shape.clone());
        match step.target {
            Some(target) => {
                all.extend(planned(&step.name, &Encoding::new(target, format, None), (shape[0], shape[1])));
                shapes.push((format!("{}{}", step.name, suffix::SHAPE), shape));
            }
            None => all.push(Planned { name: step.name.clone(), format, shape }),
        }
    }
    shapes.retain(|(name, _)| all.iter().any(|tensor| tensor.name == *name));
    hollow(&to.join("model.safetensors"), safetensors(&all).unwrap(), |writer| {
        for (name, shape) in shapes {
            writer.append(&name, shape.iter().flat_map(|&n| (n as i64).to_le_bytes()).collect()).unwrap();
        }
    });
    let config = std::fs::read_to_string(source.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["quantization_config"] = describe(&plan.converted(origin.names()), &[]).unwrap();
    config["tie_word_embeddings"] = false.into();
    std::fs::write(to.join("config.json"), config.to_string()).unwrap();
}

fn hollow_gguf(origin: &Origin, to: &Path, format: Format) {
    let d = &origin.config.dims;
    let (kv, ffn) = (d.kv_heads * d.head_dim, d.ffn);
    let mut all = Vec::new();
    let mut add = |name: String, format, shape: &[usize]| {
        all.push(Planned { name: format!("{name}.weight"), format, shape: shape.to_vec() });
    };
    add("token_embd".into(), format, &[d.vocab, d.hidden]);
    add("output_norm".into(), Format::F32, &[d.hidden]);
    for layer in 0..d.layers {
        for (part, out, inner) in [
            ("attn_q", d.hidden, d.hidden),
            ("attn_k", kv, d.hidden),
            ("attn_v", kv, d.hidden),
            ("attn_output", d.hidden, d.hidden),
            ("ffn_gate", ffn, d.hidden),
            ("ffn_up", ffn, d.hidden),
            ("ffn_down", d.hidden, ffn),
        ] {
            add(format!("blk.{layer}.{part}"), format, &[out, inner]);
        }
        for norm in ["attn_norm", "ffn_norm"] {
            add(format!("blk.{layer}.{norm}"), Format::F32, &[d.hidden]);
        }
    }
    let mut metadata = vec![
        ("general.architecture".to_owned(), MetaValue::Str("llama".into())),
        ("llama.attention.layer_norm_rms_epsilon".into(), MetaValue::F32(origin.config.norm_eps)),
    ];
    for (key, n) in [
        ("context_length", d.context),
        ("embedding_length", d.hidden),
        ("block_count", d.layers),
        ("feed_forward_length", d.ffn),
        ("attention.head_count", d.heads),
        ("attention.head_count_kv", d.kv_heads),
    ] {
        metadata.push((format!("llama.{key}"), MetaValue::U32(n as u32)));
    }
    hollow(to, gguf(&metadata, &all).unwrap(), |_| ());
}
