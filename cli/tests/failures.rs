//! Bad input: one line on stderr, the right exit code, no panic.

mod common;

use common::{ascii, command, finish, reference, run, run_with, Folder};

fn broken(change: impl FnOnce(&Folder)) -> Folder {
    let folder = Folder::of("decoders/llama3");
    change(&folder);
    folder
}

fn run_tokens(folder: &Folder) -> common::Ran {
    run(&["run", "-m", &folder.word(), "--tokens", "1,2,3", "-n", "2"])
}

#[test]
fn words_that_are_no_model() {
    run(&["run", "/no/such/model", "Hello"]).fails(3, &["/no/such/model", "no such file"]);
    run(&["run", "./model.gguf"]).fails(3, &["./model.gguf"]);
    run(&["run", "models/that/are/not"]).fails(3, &["models/that/are/not"]);
    run(&["run", "-m", "nonsense", "-p", "Hello"]).fails(3, &["nonsense"]);
    let empty = Folder::new();
    run(&["run", "-m", &empty.word(), "-p", "Hello"]).fails(3, &["config.json"]);
    let text = empty.write("model.bin", "text");
    run(&["run", "-m", &text, "-p", "Hello"]).fails(3, &["model.bin"]);
}

#[test]
fn broken_weights() {
    let name = "model.safetensors";
    let cut = |n: usize| {
        broken(|f| {
            let bytes = f.read(name);
            f.write(name, &bytes[..bytes.len().min(n)]);
        })
    };
    for n in [0, 4, 8, 100, 20_000] {
        run_tokens(&cut(n)).fails(3, &[name]);
    }
    let huge = broken(|f| {
        let mut bytes = f.read(name);
        bytes[..8].copy_from_slice(&(1u64 << 60).to_le_bytes());
        f.write(name, bytes);
    });
    run_tokens(&huge).fails(3, &[name, "1152921504606846976"]);

    let sharded = Folder::of("decoders/llama3-sharded");
    std::fs::remove_file(sharded.0.join("model-00002-of-00004.safetensors")).unwrap();
    run_tokens(&sharded).fails(3, &["model-00002-of-00004.safetensors"]);
}

#[test]
fn broken_gguf() {
    let folder = Folder::new();
    let good = std::fs::read(ascii()).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        let path = folder.write("model.gguf", bad);
        run(&["run", "-m", &path, "-p", "Hello"])
    };
    with(0, b"GGML").fails(3, &["model.gguf", "magic"]);
    with(4, &9u32.to_le_bytes()).fails(3, &["model.gguf", "version"]);
    with(8, &u64::MAX.to_le_bytes()).fails(3, &["model.gguf"]);
    with(16, &u64::MAX.to_le_bytes()).fails(3, &["model.gguf"]);
    with(24, &u64::MAX.to_le_bytes()).fails(3, &["model.gguf"]);
    let path = folder.write("model.gguf", &good[..good.len() / 2]);
    run(&["run", "-m", &path, "-p", "Hello"]).fails(3, &["model.gguf"]);
}

#[test]
fn broken_configurations() {
    let edit = |from: &str, to: &str| {
        let folder = broken(|f| {
            let text = String::from_utf8(f.read("config.json")).unwrap();
            assert!(text.contains(from));
            f.write("config.json", text.replacen(from, to, 1));
        });
        run_tokens(&folder)
    };
    edit("\"hidden_size\"", "\"_\"").fails(3, &["config.json", "hidden_size", "missing"]);
    edit("\"hidden_size\": 54", "\"hidden_size\": \"x\"").fails(3, &["hidden_size", "\"x\""]);
    edit("\"vocab_size\": 113", "\"vocab_size\": 114").fails(3, &["embed_tokens", "114", "113"]);
    edit("\"llama\"", "\"unheard-of\"").fails(3, &["unheard-of"]);
    edit("\"mlp_bias\": false", "\"attn_logit_softcapping\": 50.0").fails(3, &["attn_logit_softcapping"]);
    edit("{", "").fails(3, &["config.json"]);
}

#[test]
fn a_model_without_a_tokenizer_takes_no_text() {
    let model = reference("decoders/llama3");
    run(&["run", "-m", &model, "-p", "Hello"]).fails(3, &["tokenizer"]);
    run(&["score", "-m", &model, "--text", "Hello"]).fails(3, &["tokenizer"]);
}

#[test]
fn a_vocabulary_that_does_not_fit() {
    let folder = Folder::of("decoders/llama3");
    let tokenizer = std::fs::read(reference("tokenizers/llama3/tokenizer.json")).unwrap();
    folder.write("tokenizer.json", tokenizer);
    run_tokens(&folder).fails(3, &["404", "113"]);
}

#[test]
fn prompts_that_do_not_fit() {
    let model = reference("decoders/llama3");
    let long = vec!["5"; 600].join(",");
    run(&["run", "-m", &model, "--tokens", &long]).fails(4, &["600", "512"]);
    run(&["score", "-m", &model, "--tokens", &long]).fails(4, &["600", "512"]);
    run(&["score", "-m", &model, "--tokens", "5,6,7", "-c", "2"]).fails(4, &["3", "2"]);
    run(&["run", "-m", &model, "--tokens", "5,113"]).fails(4, &["113"]);
    run(&["score", "-m", &model, "--tokens", "113"]).fails(4, &["113"]);
    run(&["run", "-m", &model, "--tokens", "5", "-l", "113=1"]).fails(4, &["113"]);
    run(&["run", "-m", &ascii(), "-f", "/no/such/file"]).fails(4, &["/no/such/file"]);
    run(&["perplexity", "-m", &ascii(), "/no/such/file"]).fails(4, &["/no/such/file"]);
    let folder = Folder::new();
    let binary = folder.write("binary", [0xFF, 0xFE, 0x00]);
    run(&["run", "-m", &ascii(), "-f", &binary]).fails(4, &["UTF-8"]);
    let text = folder.write("text", "some text");
    run(&["perplexity", "-m", &ascii(), &text, "--window", "100000"]).fails(4, &["100000"]);
}

/// A model with so many heads that a few positions of its cache fill any machine; its file is one hole.
#[cfg(target_os = "linux")]
#[test]
fn a_cache_that_does_not_fit_in_memory_is_6() {
    const HEADS: usize = 1 << 24;
    const HEAD: usize = 32;
    let folder = Folder::new();
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2, "intermediate_size": 2,
        "num_hidden_layers": 1, "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": HEAD,
        "vocab_size": 8, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    });
    folder.write("config.json", config.to_string());
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    let mut add = |name: &str, shape: &[usize]| {
        let begin = end;
        end += 2 * shape.iter().product::<usize>();
        let tensor = serde_json::json!({"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]});
        header.insert(name.into(), tensor);
    };
    add("model.embed_tokens.weight", &[8, 2]);
    add("model.norm.weight", &[2]);
    for name in ["input_layernorm", "post_attention_layernorm"] {
        add(&format!("model.layers.0.{name}.weight"), &[2]);
    }
    for name in ["self_attn.q", "self_attn.k", "self_attn.v"] {
        add(&format!("model.layers.0.{name}_proj.weight"), &[HEAD * HEADS, 2]);
    }
    add("model.layers.0.self_attn.o_proj.weight", &[2, HEAD * HEADS]);
    for name in ["gate", "up", "down"] {
        add(&format!("model.layers.0.mlp.{name}_proj.weight"), &[2, 2]);
    }
    let header = serde_json::Value::Object(header).to_string();
    let path = folder.write("model.safetensors", [&header.len().to_le_bytes(), header.as_bytes()].concat());
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
    run(&["run", "-m", &folder.word(), "--tokens", &["1"; 500].join(",")])
        .fails(6, &["KV cache", "available"]);
}

#[test]
fn templates_that_raise() {
    let folder = Folder::new();
    let raises = folder.write("raises.jinja", "{{ raise_exception('roles must\nalternate') }}");
    let broken = folder.write("broken.jinja", "{% if %}");
    let with = |template: &str| run(&["run", "-m", &ascii(), "-p", "Hi", "--chat-template-file", template]);
    with(&raises).fails(4, &["roles must alternate"]);
    with(&broken).fails(4, &["template"]);
    with("/no/such.jinja").fails(4, &["/no/such.jinja"]);
    run_with(&["chat", &ascii()], "Hello\n").fails(4, &["no chat template", "run"]);
    run(&["run", "-m", &ascii(), "-p", "Hi", "--system", "S"]).fails(4, &["--system"]);
}

#[test]
fn wrong_usage_is_2() {
    let usage = |args: &[&str], part: &str| {
        let ran = run(args);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.err.contains(part), "`{part}` is not in {}", ran.err);
    };
    usage(&["nonsense"], "nonsense");
    usage(&[], "Usage");
    usage(&["run", "--temp", "warm", "x"], "warm");
    usage(&["run", "--temp", "-1", "x"], "temperature");
    usage(&["run", "--top-p", "1.5", "x"], "top_p");
    usage(&["run", "-n", "-2", "x"], "-2");
    usage(&["run", "-t", "0", "x"], "1 or more");
    usage(&["run", "-l", "x", "y"], "ID=BIAS");
    usage(&["run", "--tokens", "1,x"], "x");
    usage(&["run", "-m", "a", "b", "c"], "`b`");
    usage(&["run", "a", "b", "-p", "c"], "`a`");
    usage(&["run", "--device", "abacus", "x"], "abacus");
    usage(&["score", "-m", "builtin"], "--text");
    usage(&["bench", "--random", "nonsense"], "llama-1b");
    usage(&["bench", "-m", "builtin", "-p", "0", "-n", "0"], "nothing to measure");
    usage(&["completions", "tcsh"], "tcsh");
    if cfg!(not(feature = "cuda")) {
        usage(&["run", "--device", "cuda:0", "x"], "feature `cuda`");
    }
    if cfg!(not(feature = "metal")) {
        usage(&["run", "--device", "metal", "x"], "feature `metal`");
    }
}

#[test]
fn a_forced_level_that_this_cpu_lacks_is_an_error() {
    let mut command = command(&["devices"]);
    command.env("CANDLE_ENGINE_ISA", "abacus");
    finish(command, "").fails(2, &["CANDLE_ENGINE_ISA", "abacus", "scalar"]);
}
