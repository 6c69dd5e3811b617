//! The other verbs: shapes of their output.

mod common;

#[cfg(feature = "hub")]
use std::io::{BufRead, BufReader, Write};

use common::{ascii, command, finish, reference, run, run_with, Folder};
use serde_json::Value;

#[test]
fn score_gives_log_probabilities() {
    let model = reference("decoders/llama3");
    let report = run(&["score", "-m", &model, "--tokens", "5,6,7", "--top", "3", "--json"]).json();
    assert_eq!(report["tokens"], serde_json::json!([5, 6, 7]));
    let logprobs = report["logprobs"].as_array().unwrap();
    assert_eq!(logprobs.len(), 3);
    assert!(logprobs[0].is_null() && logprobs[1..].iter().all(|x| x.as_f64().unwrap() < 0.0));
    let next = report["next"].as_array().unwrap();
    assert_eq!(next.len(), 3);
    assert!(next.windows(2).all(|n| n[0]["logprob"].as_f64() >= n[1]["logprob"].as_f64()));
    assert!(next[0]["id"].is_u64() && next[0]["token"].is_null());
    let all = run(&["score", "-m", &model, "--tokens", "5", "--top", "113", "--json"]).json();
    let total: f64 =
        all["next"].as_array().unwrap().iter().map(|n| n["logprob"].as_f64().unwrap().exp()).sum();
    assert!((total - 1.0).abs() < 1e-9, "{total}");
}

#[test]
fn score_takes_text_too() {
    let args = ["score", "-m", &ascii(), "--text", "-", "--json", "--top", "1"];
    let report = run_with(&args, "Hello\n").json();
    assert_eq!(report["tokens"].as_array().unwrap().len(), report["logprobs"].as_array().unwrap().len());
    assert!(report["next"][0]["token"].is_string());
    let table = run(&["score", "-m", &ascii(), "--text", "Hello"]).ok();
    assert!(table.contains("logprob") && table.contains("\"H\""), "{table}");
}

#[test]
fn perplexity_agrees_with_score_and_does_not_depend_on_chunks() {
    let folder = Folder::new();
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(4);
    let file = folder.write("text.txt", &text);
    let model = ascii();
    let scored = run(&["score", "-m", &model, "--text", &text, "--json"]).json();
    let logprobs: Vec<f64> =
        scored["logprobs"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
    let nll = -logprobs.iter().sum::<f64>() / logprobs.len() as f64;
    let measure = |window: &str, stride: &str| {
        run(&["perplexity", "-m", &model, &file, "--window", window, "--stride", stride, "--json"]).json()
    };
    let whole = measure("512", "256");
    assert!((whole["nll"].as_f64().unwrap() - nll).abs() < 1e-5, "{whole} {nll}");
    assert!((whole["perplexity"].as_f64().unwrap() - nll.exp()).abs() < 1e-3 * nll.exp());
    for (window, stride) in [("32", "16"), ("16", "15"), ("7", "1")] {
        let report = measure(window, stride);
        assert_eq!(report["tokens"], whole["tokens"]);
        assert!(report["standard_error"].as_f64().unwrap() > 0.0);
    }
    let line = run(&["perplexity", "-m", &model, &file]).ok();
    assert!(line.starts_with("perplexity ") && line.contains(" ± "), "{line}");
}

#[test]
fn show_says_what_a_model_is() {
    let report = run(&["show", &reference("decoders/llama3-bf16"), "--json", "--tensors", "--check"]).json();
    assert_eq!(report["architecture"], "llama");
    assert_eq!(report["problems"], serde_json::json!([]));
    assert_eq!(report["config"]["vocab"], 113);
    assert_eq!(report["config"]["rope"]["type"], "llama3");
    assert_eq!(report["formats"][0]["format"], "bf16");
    assert_eq!(report["check"], serde_json::json!([]));
    assert_eq!(report["stop_tokens"], serde_json::json!([2]));
    let tensors = report["tensors"].as_array().unwrap();
    let bytes: u64 = tensors.iter().map(|t| t["bytes"].as_u64().unwrap()).sum();
    assert_eq!(report["bytes"], bytes);
    let text = run(&["show", &reference("gguf/llama-q4_k-q5_k-q6_k.gguf"), "--tensors", "--check"]).ok();
    for part in ["q4_k", "q6_k", "context", "token_embd.weight", "all numbers are finite"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn show_reads_what_it_can_of_an_unknown_architecture() {
    let folder = Folder::of("decoders/llama3");
    folder.write("config.json", r#"{"model_type": "griffin", "hidden_size": 8}"#);
    let ran = run(&["show", &folder.word(), "--tensors"]);
    assert!(ran.out.contains("griffin") && ran.out.contains("lm_head.weight"), "{ran:?}");
    ran.fails(3, &["griffin"]);
}

#[test]
fn show_check_finds_what_is_not_finite() {
    let folder = Folder::of("decoders/llama3");
    let mut bytes = folder.read("model.safetensors");
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    folder.write("model.safetensors", bytes);
    assert_eq!(run(&["show", &folder.word()]).code, Some(0));
    let ran = run(&["show", &folder.word(), "--check", "--json"]);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["check"].as_array().unwrap().len(), 1);
    assert_eq!(report["check"][0]["nan"], 1);
    ran.fails(3, &["1 tensor"]);
}

#[test]
fn bench_prints_rows() {
    let model = reference("decoders/llama3");
    let args = ["bench", "-m", &model, "-p", "32", "-n", "8", "-t", "1,2", "-r", "2"];
    let rows = run(&[&args[..], &["--json"]].concat()).json();
    let rows = rows.as_array().unwrap();
    let tests: Vec<_> =
        rows.iter().map(|r| (r["test"].as_str().unwrap(), r["threads"].as_u64().unwrap())).collect();
    assert_eq!(tests, [("pp32", 1), ("tg8", 1), ("pp32", 2), ("tg8", 2)]);
    for row in rows {
        let fields: Vec<_> = row.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            fields,
            [
                "model",
                "format",
                "test",
                "isa",
                "threads",
                "tokens_per_s",
                "gb_per_s",
                "percent_of_peak",
                "load_ms",
                "first_token_ms",
                "peak_rss_bytes",
                "anonymous_bytes",
            ]
        );
        assert!(row["tokens_per_s"].as_f64().unwrap() > 0.0 && row["gb_per_s"].as_f64().unwrap() > 0.0);
        assert_eq!((row["model"].as_str(), row["format"].as_str()), (Some("llama3"), Some("f32")));
    }
    let table = run(&[&args[..], &["-c", "16"]].concat()).ok();
    assert!(table.starts_with("| model ") && table.contains("tg8@d16") && table.contains(" ± "), "{table}");
}

#[test]
fn devices_are_listed() {
    let devices = run(&["devices", "--json"]).json();
    assert_eq!(devices[0]["device"], "cpu");
    assert!(devices[0]["threads"].as_u64().unwrap() > 0);
    assert!(run(&["devices"]).ok().contains("cpu"));
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = run(&["completions", shell]).ok();
        assert!(script.contains("candle-engine") && script.contains("perplexity"), "{shell}");
    }
}

#[test]
fn help_documents_exit_codes_and_words() {
    let help = run(&["--help"]).ok();
    for part in ["Exit codes", "130 interrupted", "CANDLE_ENGINE_TOP_K", "run", "bench"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    assert!(run(&["run", "--help"]).ok().contains("--repeat-penalty"));
}

#[cfg(feature = "hub")]
#[test]
fn a_proxy_that_refuses_is_5() {
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = proxy.accept().unwrap();
        // The whole head: it may come in pieces.
        let lines = BufReader::new(&stream).lines().map(Result::unwrap);
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").unwrap();
        head.join("\n")
    });
    let folder = Folder::new();
    let mut command = command(&["pull", "org/name"]);
    command.env("HF_HOME", &folder.0).env("HF_ENDPOINT", "http://hub.invalid").env("HTTP_PROXY", address);
    command.env_remove("NO_PROXY").env_remove("no_proxy");
    finish(command, "").fails(5, &["org/name", "hub.invalid"]);
    let asked = asked.join().unwrap();
    assert!(asked.starts_with("CONNECT hub.invalid:80 "), "{asked}");
}

#[cfg(feature = "hub")]
#[test]
fn the_cache_is_listed_and_emptied() {
    let folder = Folder::new();
    let with = |args: &[&str]| {
        let mut command = command(args);
        command.env("HF_HOME", &folder.0).env("HF_HUB_OFFLINE", "1");
        finish(command, "")
    };
    assert_eq!(with(&["ls", "--json"]).json(), serde_json::json!([]));
    let model = folder.0.join("hub/models--org--tiny");
    let snapshot = model.join("snapshots/abc");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(model.join("refs")).unwrap();
    std::fs::write(model.join("refs/main"), "abc").unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(reference(&format!("decoders/llama3/{file}")), snapshot.join(file)).unwrap();
    }
    assert_eq!(with(&["ls", "--json"]).json()[0]["model"], "org/tiny");
    assert!(with(&["list"]).ok().contains("org/tiny"));
    let ids = with(&["run", "org/tiny", "--tokens", "5,6", "-n", "2", "--ignore-eos"]).ok();
    assert_eq!(ids.matches(',').count(), 1, "{ids}");
    with(&["rm", "org/tiny"]).ok();
    with(&["rm", "org/tiny"]).fails(3, &["org/tiny"]);
    with(&["run", "org/tiny", "Hello"]).fails(5, &["org/tiny", "HF_HUB_OFFLINE"]);
}
