//! `quantize`, and `--quantize` where a model is loaded.

mod common;

use common::{reference, run, Folder};

#[cfg(feature = "builtin")]
#[test]
fn a_folder_with_report_and_perplexity() {
    let folder = Folder::new();
    let text = folder.write("text.txt", "Once upon a time there was a small hen. She lived in a barn.");
    let out = folder.0.join("int8").display().to_string();
    let report = run(&["quantize", "builtin", "-o", &out, "--eval", &text, "--json"]).json();
    assert_eq!(report["format"], "int8");
    assert_eq!(report["output"], out);
    let size = std::fs::metadata(folder.0.join("int8/model.safetensors")).unwrap().len();
    assert_eq!(report["bytes_after"], size);
    let layers = report["layers"].as_array().unwrap();
    assert!(layers.iter().all(|l| l["error"].as_f64().unwrap() > 0.0 && l["error"].as_f64().unwrap() < 0.02));
    assert!(
        layers.last().unwrap()["layer"].is_null()
            && layers.last().unwrap()["worst"] == "model.embed_tokens.weight"
    );
    let eval = &report["eval"];
    let (before, after) =
        (eval["perplexity_before"].as_f64().unwrap(), eval["perplexity_after"].as_f64().unwrap());
    assert!((after / before - 1.0).abs() < 0.02 && eval["kl"].as_f64().unwrap() > 0.0, "{eval}");

    let shown = run(&["show", &out, "--json", "--tensors", "--check"]).json();
    assert_eq!(shown["problems"], serde_json::json!([]));
    let formats: Vec<&str> =
        shown["formats"].as_array().unwrap().iter().map(|f| f["format"].as_str().unwrap()).collect();
    assert_eq!(formats, ["int8", "f16"]);
    let tensors = shown["tensors"].as_array().unwrap();
    let named = |name: &str| tensors.iter().find(|t| t["name"] == name).unwrap();
    let (head, embedding) = (named("lm_head.weight"), named("model.embed_tokens.weight"));
    assert_eq!((head["format"].as_str(), &head["shape"]), (Some("int8"), &embedding["shape"]));
    let ppl = |args: &[&str]| {
        run(&[&["perplexity", &text, "--json"], args].concat()).json()["perplexity"].as_f64().unwrap()
    };
    assert_eq!(ppl(&["-m", &out]), ppl(&["-m", "builtin", "--quantize", "int8"]));
    assert!((ppl(&["-m", &out]) - after).abs() < 1e-9 * after);

    let table = folder.0.join("again").display().to_string();
    let args = ["quantize", "builtin", "-o", &table, "--format", "int4-g32", "--calibrate", &text];
    let table = run(&[&args[..], &["--keep", "*.down_proj", "--embed", "bf16"]].concat()).ok();
    assert!(table.starts_with("layer ") && table.contains("others") && table.contains("size "), "{table}");
    assert!(!table.contains("down_proj"), "{table}");
}

#[cfg(feature = "builtin")]
#[test]
fn a_gguf_file() {
    let folder = Folder::new();
    let out = folder.0.join("m.gguf").display().to_string();
    run(&["quantize", "-m", "builtin", "-o", &out]).ok();
    let told = |model: &str| run(&["run", "-m", model, "-p", "Once", "-n", "8", "--temp", "0", "--raw"]).ok();
    assert_eq!(told(&out), told("builtin"));
    let again = folder.0.join("again.gguf").display().to_string();
    run(&["quantize", &out, "-o", &again, "--format", "Q4_0"]).ok();
    let formats = run(&["show", &again, "--json"]).json()["formats"].clone();
    assert!(formats.to_string().contains("q4_0"), "{formats}");
    let folder = folder.0.join("folder").display().to_string();
    run(&["quantize", &out, "-o", &folder]).fails(4, &["GGUF", ".gguf"]);
}

#[test]
fn what_is_there_is_not_touched() {
    let folder = Folder::new();
    let model = reference("decoders/llama2");
    folder.write("mine.txt", "x");
    run(&["quantize", &model, "-o", &folder.word()]).fails(4, &[&folder.word(), "is there already"]);
    let inside = format!("{}/mine.txt/model", folder.word());
    run(&["quantize", &model, "-o", &inside]).fails(3, &["mine.txt"]);
    let out = folder.0.join("out").display().to_string();
    run(&["quantize", &model, "-o", &out, "--format", "q8_0"]).fails(4, &[".gguf"]);
    run(&["quantize", &model, "-o", &out, "--format", "int3"]).fails(2, &[]);
    run(&["quantize", &reference("gguf/llama3-f32.gguf"), "-o", &out]).fails(4, &["GGUF", ".gguf"]);
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn quantized_while_loading() {
    let model = reference("decoders/llama3");
    let score = |args: &[&str]| {
        let all = run(&[&["score", "-m", &model, "--tokens", "5,6,7", "--json"], args].concat()).json();
        all["logprobs"][2].as_f64().unwrap()
    };
    let plain = score(&[]);
    for format in ["int8", "int4-g64", "bf16"] {
        let quantized = score(&["--quantize", format]);
        assert!(quantized != plain && (quantized - plain).abs() < 0.5, "{format}: {quantized} {plain}");
    }
    let gguf = reference("gguf/llama3-f32.gguf");
    run(&["run", "-m", &gguf, "-p", "Hello", "-n", "2", "--quantize", "int8"]).ok();
    let quantized = reference("gguf/llama-q8_0.gguf");
    run(&["run", "-m", &quantized, "-p", "Hello", "--quantize", "int8"]).ok();
    let rows =
        run(&["bench", "-m", &model, "--quantize", "int8", "-p", "8", "-n", "2", "-r", "1", "--json"]).json();
    assert_eq!(rows[0]["format"], "int8");
}
