//! Quantized models: how much they lose, and that what is written is what was meant.
#![cfg(feature = "builtin")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use candle_engine::kernels::Isa;
use candle_engine::kv::{Batch, KvType};
use candle_engine::weights::{Format, SafeTensors, Weights};
use candle_engine_models::evaluate::{compare, Comparison, Windows};
use candle_engine_models::quantize::{
    write_folder, write_gguf, Calibration, Observer, Origin, Recipe, Report, Target,
};
use candle_engine_models::{LanguageModel, LoadOptions, Model, Source};
use candle_engine_quantization::write::{safetensors, Planned, Writer};
use candle_engine_quantization::Rows;

/// Stories that the built-in model was not trained on: `make_stories.py --first 90000000 --count 40`.
const HELD_OUT: &str = include_str!("held_out.txt");

/// What a format may change the built-in model's perplexity by.
const INT8: f64 = 0.005;
const INT4_G64: f64 = 0.03;

/// Root mean square of the logits' differences as a share of theirs, where activations are quantized to 8 bits, and
/// to 16.
const LOGITS_QUANTIZED: f32 = 0.03;
const LOGITS_PRECISE: f32 = 3e-4;
/// The same where inputs of matrices in bf16 are rounded to bf16.
const LOGITS_ROUNDED: f32 = 0.01;

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("candle-engine-quantized-{}-{}", id.0, id.1));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn recipe(word: &str) -> Recipe {
    word.parse().unwrap()
}

fn open_with(word: &str, options: LoadOptions) -> Model {
    let options = LoadOptions { kv: Some(KvType::F32), ..options };
    Model::open(word, &options).unwrap_or_else(|e| panic!("{word}: {e}"))
}

fn open(path: &Path) -> Model {
    open_with(&path.display().to_string(), LoadOptions::default())
}

fn builtin(quantize: Option<Recipe>) -> Model {
    open_with("builtin", LoadOptions { quantize, ..LoadOptions::default() })
}

fn origin() -> Origin {
    Origin::open(&Source::Builtin).unwrap()
}

fn folder(origin: &Origin, recipe: &Recipe, calibration: Option<&Calibration>) -> (Folder, Report) {
    let folder = Folder::new();
    let report = write_folder(origin, &folder.0, recipe, calibration, &mut |_, _| ()).unwrap();
    (folder, report)
}

fn compared(reference: &Model, model: &Model) -> Comparison {
    let mut all = Comparison::default();
    for story in HELD_OUT.lines() {
        let tokens = reference.encode(story).unwrap();
        let (mut a, mut b) = (reference.session(), model.session());
        let windows = Windows::for_context(a.context());
        all += compare(&mut a, &mut b, &tokens, windows, &mut |_| ()).unwrap();
    }
    all
}

/// All logits of a few tokens.
fn logits(model: &Model, ids: &[u32]) -> Vec<f32> {
    let mut kv = model.decoder().new_cache();
    let mut batch = Batch::default();
    batch.push(ids, &mut kv, true).unwrap();
    model.decoder().forward(&mut batch).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Whether kernels round the inputs of matrices, those in bf16.
fn rounds(model: &Model) -> bool {
    matches!(Isa::best().name(), "avx512bf16" | "amx")
        && model.totals().iter().any(|total| total.format == Format::BF16)
}

fn share(got: &[f32], expected: &[f32]) -> f32 {
    let rms = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
    assert_eq!(got.len(), expected.len());
    rms(&mut got.iter().zip(expected).map(|(a, b)| a - b)) / rms(&mut expected.iter().copied())
}

/// The table of the README: `cargo test --release -p candle-engine-models --test quantized table -- --nocapture`.
#[test]
fn the_table_of_losses() {
    let reference = builtin(None);
    for (word, most) in [
        ("bf16", INT8),
        ("q8_0", INT8),
        ("int8", INT8),
        ("int8-a16", INT8),
        ("int8-g128", INT8),
        ("int8-g32", INT8),
        ("int4-g64", INT4_G64),
        ("int4-g64-a16", INT4_G64),
        ("int4-g32", INT4_G64),
        ("int4-g64-asym", INT4_G64),
        ("int4-g32-asym", INT4_G64),
        ("q4_0", INT4_G64),
    ] {
        let all = compared(&reference, &builtin(Some(recipe(word))));
        let (before, after) = (all.reference.perplexity(), all.model.perplexity());
        println!("| {word} | {before:.4} | {after:.4} | {:+.2} % | {:.5} |", 100.0 * all.change(), all.kl());
        assert!(all.change().abs() < most, "{word}: {before} became {after}");
        assert!(all.kl() > 0.0 && all.kl() < 0.02, "{word}: {}", all.kl());
    }
}

/// The built-in model in f32, some of whose channels are 100 times as large after the norms, and the weights that
/// meet them so much smaller: the same function.
fn with_outliers(path: &Path) {
    let origin = origin();
    let is_outlier = |i: usize| i % 29 == 3;
    let names = origin.weights.names();
    let planned: Vec<Planned> = names
        .iter()
        .map(|name| Planned {
            name: name.clone(),
            format: Format::F32,
            shape: origin.weights.get(name).unwrap().shape,
        })
        .collect();
    let mut writer = Writer::create(&path.join("model.safetensors"), safetensors(&planned).unwrap()).unwrap();
    for (name, planned) in names.iter().zip(&planned) {
        let mut stored = origin.weights.get(name).unwrap();
        if stored.shape.len() == 1 {
            stored.shape.insert(0, 1);
        }
        let factor = match name {
            n if n.ends_with("layernorm.weight") => 100.0,
            n if ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"].iter().any(|p| n.contains(p)) => 0.01,
            _ => 1.0,
        };
        let inner = stored.shape[1];
        let mut row = vec![0.0; inner];
        for i in 0..stored.shape[0] {
            Rows::new(&stored).unwrap().read(i, &mut row);
            (0..inner).filter(|&j| is_outlier(j)).for_each(|j| row[j] *= factor);
            writer.append(&planned.name, row.iter().flat_map(|x| x.to_le_bytes()).collect()).unwrap();
        }
    }
    writer.finish().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("builtin/stories");
    for name in ["config.json", "tokenizer.json"] {
        std::fs::copy(source.join(name), path.join(name)).unwrap();
    }
}

#[test]
fn outlier_channels_survive_eight_bits() {
    let folder = Folder::new();
    with_outliers(&folder.0);
    let planted = open(&folder.0);
    let same = compared(&builtin(None), &planted);
    assert!(same.kl() < 1e-5, "the function is the same: {}", same.kl());

    let plain = compared(&builtin(None), &builtin(Some(recipe("int8"))));
    let word = folder.0.display().to_string();
    let options = LoadOptions { quantize: Some(recipe("int8")), ..LoadOptions::default() };
    let all = compared(&planted, &open_with(&word, options));
    println!("outliers: {:+.2} %, {:.5} for {:.5} without", 100.0 * all.change(), all.kl(), plain.kl());
    assert!(all.change().abs() < INT8, "{}", all.change());
    assert!(all.kl() < 2.0 * plain.kl(), "{} for {} without", all.kl(), plain.kl());
}

#[test]
fn what_is_written_is_what_is_quantized_while_loading() {
    let ids = builtin(None).encode(HELD_OUT.lines().next().unwrap()).unwrap();
    for word in ["int8", "int8-a16", "int8-g64", "int4-g64", "int4-g32-asym-a16", "bf16"] {
        let (folder, report) = folder(&origin(), &recipe(word), None);
        let model = open(&folder.0);
        assert_eq!(logits(&model, &ids), logits(&builtin(Some(recipe(word))), &ids), "{word}");
        assert_eq!(model.encode("The fox").unwrap(), builtin(None).encode("The fox").unwrap());
        assert_eq!(model.stop_tokens(), builtin(None).stop_tokens());
        let format = recipe(word).target.format();
        assert!(model.totals().iter().any(|total| total.format == format), "{word}: {:?}", model.totals());
        let parameters = |model: &Model| model.totals().iter().map(|total| total.parameters).sum::<u64>();
        let head = (model.decoder().config().dims.vocab * model.decoder().config().dims.hidden) as u64;
        let untied = if word == "bf16" { 0 } else { head };
        assert_eq!(parameters(&model), parameters(&builtin(None)) + untied, "{word}");
        let bytes = std::fs::metadata(folder.0.join("model.safetensors")).unwrap().len();
        assert_eq!(report.bytes_after, bytes);
        assert!(report.layers().iter().all(|(_, deviation, _)| deviation.relative() < 0.12), "{word}");
        assert_eq!(report.layers().last().unwrap().0, None, "{word}: the head comes last");

        // The same integers multiplied as floats.
        let composed = open_with(
            &folder.0.display().to_string(),
            LoadOptions { composed: true, ..LoadOptions::default() },
        );
        let off = share(&logits(&model, &ids), &logits(&composed, &ids));
        let most = if word.ends_with("-a16") { LOGITS_PRECISE } else { LOGITS_QUANTIZED };
        assert!(off < most, "{word}: off by {off}");
    }
}

#[test]
fn what_compressed_tensors_wrote() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/quantized");
    let mut formats = Vec::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let expected = SafeTensors::open(&path.join("expected.safetensors")).unwrap();
        let numbers = |name: &str| expected.get(name).unwrap().bytes.to_vec();
        let ids: Vec<u32> =
            numbers("input_ids").as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect();
        let wanted: Vec<f32> =
            numbers("logits").as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let word = path.display().to_string();
        // Nothing but the order of sums differs where activations stay floats.
        let options = LoadOptions { composed: true, ..LoadOptions::default() };
        let off = share(&logits(&open_with(&word, options), &ids), &wanted);
        assert!(off < 1e-5, "{word} composed: off by {off}");
        let model = open(&path);
        let off = share(&logits(&model, &ids), &wanted);
        println!("{word}: off by {off}");
        // No word of activations: those of 8-bit weights take 16 bits.
        let precise = word.ends_with("int8-g32") || word.ends_with("int8-packed");
        let most = match (precise, rounds(&model)) {
            (true, false) => LOGITS_PRECISE,
            (true, true) => LOGITS_ROUNDED,
            (false, _) => LOGITS_QUANTIZED,
        };
        assert!(off < most, "{word}: off by {off}");
        formats.push(model.totals()[0].format.to_string());
    }
    formats.sort();
    assert_eq!(formats, ["Int4-g32", "Int4-g32", "Int8", "Int8", "Int8-g32"]);
}

#[test]
fn smoothing_changes_nothing_but_the_rounding() {
    let observer = Observer::default();
    let options = LoadOptions { observer: Some(observer.clone()), ..LoadOptions::default() };
    let watched = open_with("builtin", options);
    let ids = watched.encode(HELD_OUT.lines().next().unwrap()).unwrap();
    watched.session().feed(&ids).unwrap();
    let origin = origin();
    let calibrate = |alpha| {
        let seen = observer.seen();
        assert_eq!(seen.values().map(|seen| seen.tokens).max(), Some(ids.len()));
        Calibration::new(&seen, alpha, &*origin.weights, origin.names(), &origin.config).unwrap()
    };
    let smooth = calibrate(0.5);
    let (exact, _) = folder(&origin, &recipe("f32"), Some(&smooth));
    let off = share(&logits(&open(&exact.0), &ids), &logits(&builtin(None), &ids));
    assert!(off < 1e-5, "off by {off}");

    let reference = builtin(None);
    for word in ["int8", "int4-g64"] {
        for (what, calibration) in [("weighted", calibrate(0.0)), ("smoothed", smooth.clone())] {
            let (folder, _) = folder(&origin, &recipe(word), Some(&calibration));
            let all = compared(&reference, &open(&folder.0));
            println!("| {word} {what} | {:+.2} % | {:.5} |", 100.0 * all.change(), all.kl());
            let most = if word == "int8" { INT8 } else { INT4_G64 };
            assert!(all.change().abs() < most, "{word} {what}: {}", all.change());
        }
    }
}

#[test]
fn gguf_files_hold_the_same_model() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/decoders");
    let ids: Vec<u32> = (5..40).collect();
    let mut refused = Vec::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let folder = Folder::new();
        let file = folder.0.join("m.gguf");
        let origin = Origin::open(&Source::Folder(path.clone())).unwrap();
        if write_gguf(&origin, &file, &recipe("f32"), &mut |_, _| ()).is_err() {
            refused.push(name);
            continue;
        }
        let model = open(&path);
        let off = share(&logits(&open(&file), &ids), &logits(&model, &ids));
        let most = if rounds(&model) { LOGITS_ROUNDED } else { 1e-5 };
        assert!(off < most, "{name}: off by {off}");
    }
    refused.sort();
    // Odd parameters; only some layers slide; other layers than every fourth are not rotated.
    assert_eq!(refused, ["llama-yarn", "qwen2-window", "smollm3"]);
}

#[test]
fn gguf_files_have_the_tokenizer() {
    let reference = builtin(None);
    let folder = Folder::new();
    for (word, most) in [("f16", 1e-4), ("bf16", 0.02), ("q8_0", 0.03), ("q4_0", 0.25)] {
        let file = folder.0.join(format!("{word}.gguf"));
        write_gguf(&origin(), &file, &recipe(word), &mut |_, _| ()).unwrap();
        let model = open(&file);
        let story = HELD_OUT.lines().next().unwrap();
        let ids = reference.encode(story).unwrap();
        assert_eq!(model.encode(story).unwrap(), ids, "{word}");
        assert_eq!(model.stop_tokens(), reference.stop_tokens());
        let off = share(&logits(&model, &ids), &logits(&reference, &ids));
        assert!(off < most, "{word}: off by {off}");
    }
}

#[test]
fn gguf_files_become_others() {
    let folder = Folder::new();
    let path = |word: &str| folder.0.join(format!("{word}.gguf"));
    write_gguf(&origin(), &path("f16"), &recipe("f16"), &mut |_, _| ()).unwrap();
    let ids: Vec<u32> = (5..60).collect();
    for word in ["q8_0", "q4_0", "f32"] {
        write_gguf(&origin(), &path(word), &recipe(word), &mut |_, _| ()).unwrap();
        let source = Origin::open(&Source::Gguf(path("f16"))).unwrap();
        let again = path(&format!("{word}-again"));
        write_gguf(&source, &again, &recipe(word), &mut |_, _| ()).unwrap();
        let (direct, again) = (open(&path(word)), open(&again));
        assert_eq!(logits(&direct, &ids), logits(&again, &ids), "{word}");
        assert_eq!(direct.totals(), again.totals(), "{word}");
        assert_eq!(direct.stop_tokens(), again.stop_tokens());
        assert_eq!(again.encode("The fox").unwrap(), direct.encode("The fox").unwrap());
    }
    // What has the format already is copied, whatever the rest becomes.
    let source = Origin::open(&Source::Gguf(path("q8_0"))).unwrap();
    let kept = Recipe { keep: vec!["blk.0.*".into()], ..recipe("q4_0") };
    let report = write_gguf(&source, &path("mixed"), &kept, &mut |_, _| ()).unwrap();
    for tensor in &report.tensors {
        let copied = tensor.name.starts_with("blk.0.") || tensor.name == "token_embd.weight";
        assert_eq!(tensor.deviation.energy == 0.0, copied || tensor.from == Format::F32, "{}", tensor.name);
    }
    assert!(share(&logits(&open(&path("mixed")), &ids), &logits(&builtin(None), &ids)) < 0.25);
}

#[test]
fn what_cannot_be_done_is_said() {
    let refuses = |result: candle_engine_models::Result<Report>, parts: &[&str]| {
        let error = result.unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    let (quantized, _) = folder(&origin(), &recipe("int8"), None);
    let again = Origin::open(&Source::Folder(quantized.0.clone())).unwrap();
    let target = Folder::new();
    let mut none = |_, _| ();
    refuses(write_folder(&again, &target.0, &recipe("int4"), None, &mut none), &["quantized already"]);
    refuses(write_folder(&origin(), &target.0, &recipe("q8_0"), None, &mut none), &["q8_0", ".gguf"]);
    let file = target.0.join("m.gguf");
    refuses(write_gguf(&origin(), &file, &recipe("int8"), &mut none), &["GGUF has no int8"]);
    let typo = Recipe { keep: vec!["*.ffn_down".into()], ..recipe("int8") };
    refuses(write_folder(&origin(), &target.0, &typo, None, &mut none), &["no tensor", "*.ffn_down"]);
    let typo = Recipe { precise: vec!["down".into()], ..recipe("int8") };
    refuses(
        write_folder(&origin(), &target.0, &typo, None, &mut none),
        &["no matrix", "`down`", "_proj.weight"],
    );
    let floats = Recipe { precise: vec!["*".into()], ..recipe("f16") };
    refuses(write_folder(&origin(), &target.0, &floats, None, &mut none), &["no matrix of integers"]);
    let gone = target.0.join("gone");
    refuses(write_folder(&origin(), &gone, &recipe("int8"), None, &mut none), &["gone"]);

    // A head of other rows than the configuration says.
    let odd = Folder::new();
    for name in ["config.json", "model.safetensors"] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("builtin/stories");
        std::fs::copy(source.join(name), odd.0.join(name)).unwrap();
    }
    let text = std::fs::read_to_string(odd.0.join("config.json")).unwrap();
    std::fs::write(odd.0.join("config.json"), text.replace("\"head_dim\": 32", "\"head_dim\": 64")).unwrap();
    let odd = Origin::open(&Source::Folder(odd.0.clone())).unwrap();
    refuses(write_gguf(&odd, &file, &recipe("f16"), &mut none), &["k_proj", "expected shape [128, 192]"]);

    let config = quantized.0.join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("\"num_bits\": 8", "\"num_bits\": 5")).unwrap();
    let error = Model::open(&quantized.0.display().to_string(), &LoadOptions::default()).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("group_0.weights.num_bits`: expected 4 or 8, got 5"), "{error}");
}

#[test]
fn head_and_embedding_by_choice() {
    let ids: Vec<u32> = (5..60).collect();
    let reference = logits(&builtin(None), &ids);
    for (head, embedding, most) in
        [("int8", "int8", 0.05), ("keep", "int8", 0.05), ("int4-g32", "int4-g64", 0.25), ("f16", "f16", 0.05)]
    {
        let choice = |word: &str| (word != "keep").then(|| word.parse().unwrap());
        let what = format!("head {head}, embedding {embedding}");
        let recipe = Recipe { head: choice(head), embedding: choice(embedding), ..recipe("int8") };
        let (folder, _) = folder(&origin(), &recipe, None);
        let model = open(&folder.0);
        let got = logits(&model, &ids);
        assert_eq!(got, logits(&builtin(Some(recipe)), &ids), "{what}");
        let off = share(&got, &reference);
        assert!(off < most, "{what}: off by {off}");
        assert_eq!(model.decoder().config().tied_head, embedding == "f16", "{what}");
        let word = folder.0.display().to_string();
        let composed = open_with(&word, LoadOptions { composed: true, ..LoadOptions::default() });
        assert!(share(&got, &logits(&composed, &ids)) < LOGITS_QUANTIZED, "{what}");
        let d = &model.decoder().config().dims;
        let bytes: u64 = model.totals().iter().map(|total| total.bytes).sum();
        assert_eq!(model.bytes_per_pass() == bytes, model.decoder().config().tied_head, "{what}");
        assert!(model.session().feed(&[d.vocab as u32]).is_err(), "{what}: no such row");
        if embedding == "int8" && head == "int8" {
            // As others may tie it.
            let config = folder.0.join("config.json");
            let text = std::fs::read_to_string(&config).unwrap();
            let tied = text.replace("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
            assert_ne!(text, tied);
            std::fs::write(&config, tied).unwrap();
            assert_eq!(logits(&open(&folder.0), &ids), got, "{what}, tied");
        }
    }

    let folder = Folder::new();
    let file = folder.0.join("m.gguf");
    let blocks = Recipe { head: Some(Target::Q8_0), embedding: Some(Target::Q4_0), ..recipe("q4_0") };
    write_gguf(&origin(), &file, &blocks, &mut |_, _| ()).unwrap();
    assert!(share(&logits(&open(&file), &ids), &reference) < 0.35);
}

#[test]
fn only_what_is_named_is_precise() {
    let ids: Vec<u32> = (5..60).collect();
    let down = Recipe { precise: vec!["*.down_proj".into()], ..recipe("int8") };
    let (folder, _) = folder(&origin(), &down, None);
    let some = logits(&open(&folder.0), &ids);
    assert_eq!(some, logits(&builtin(Some(down)), &ids));
    for word in ["int8", "int8-a16"] {
        assert_ne!(some, logits(&builtin(Some(recipe(word))), &ids), "{word}");
    }
}

#[test]
fn what_is_kept_stays_as_it_is() {
    let mut kept = recipe("int4-g64");
    kept.keep = vec!["*.0.*".into(), "lm_head".into()];
    let (folder, report) = folder(&origin(), &kept, None);
    let changed: Vec<_> = report.tensors.iter().filter(|t| t.from != t.to).collect();
    assert!(changed.iter().all(|t| t.layer.is_some_and(|layer| layer > 0)), "{changed:?}");
    let layers = origin().config.dims.layers;
    assert_eq!(changed.len(), 7 * (layers - 1));
    let json = std::fs::read_to_string(folder.0.join("config.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let ignored = json["quantization_config"]["ignore"].as_array().unwrap();
    assert!(ignored.iter().any(|name| name == "lm_head"), "{ignored:?}");
    assert_eq!(ignored.len(), 7 + 1, "a layer and the head: {ignored:?}");
    let model = open(&folder.0);
    assert!(model.decoder().config().tied_head);
    let ids: Vec<u32> = (5..60).collect();
    assert!(share(&logits(&model, &ids), &logits(&builtin(None), &ids)) < 0.2);
}
