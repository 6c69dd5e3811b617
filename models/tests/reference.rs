//! Every family against PyTorch: hidden states of each layer, logits, greedy tokens.

use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use candle_engine::kernels::Isa;
use candle_engine::kv::{Batch, KvType};
use candle_engine::weights::{Format, SafeTensors, Weights};
use candle_engine_models::{LanguageModel, LoadOptions, Model, Session};

/// Largest difference of a hidden state in f32 (PyTorch and this engine sum in other orders).
const HIDDEN: f32 = 1e-4;
/// Largest difference of a logit.
const LOGITS: f32 = 1e-3;
/// Root mean square of the logits' differences as a share of theirs, where kernels quantize activations to 8 bits in
/// blocks of 32. Half a percent comes with each product.
const LOGITS_QUANTIZED: f32 = 0.03;

/// The same where inputs of matrices in bf16 are rounded to bf16: half of 2⁻⁸ at most comes with each of them.
const LOGITS_ROUNDED: f32 = 0.01;

struct Expected(SafeTensors);

impl Expected {
    fn open(path: &Path) -> Self {
        Self(SafeTensors::open(path).unwrap())
    }

    fn numbers(&self, name: &str) -> Vec<f32> {
        let stored = self.0.get(name).unwrap();
        assert_eq!(stored.format, Format::F32, "{name}");
        stored.bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        let stored = self.0.get(name).unwrap();
        assert_eq!(stored.format, Format::I64, "{name}");
        stored.bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect()
    }
}

fn reference(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference").join(kind)
}

/// The cases of one kind, as `(name, model, expected)`.
fn cases(kind: &str) -> Vec<(String, String, Expected)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(reference(kind)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let expected = match kind {
            "decoders" => path.join("expected.safetensors"),
            _ if path.extension().is_some_and(|e| e == "gguf") => path.with_extension("expected.safetensors"),
            _ => continue,
        };
        found.push((name, path.display().to_string(), Expected::open(&expected)));
    }
    assert!(found.len() > 10, "{kind}: {} cases", found.len());
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn close(what: &str, got: &[f32], expected: &[f32], bound: f32) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= bound, "{what}: off by {worst}, bound {bound}");
}

fn open(model: &str, composed: bool) -> Model {
    let options = LoadOptions { kv: Some(KvType::F32), composed, ..LoadOptions::default() };
    Model::open(model, &options).unwrap_or_else(|e| panic!("{model}: {e}"))
}

/// All logits `[t, vocab]` of one prompt, and what `see` is shown on the way.
fn logits(model: &Model, ids: &[u32], see: &mut dyn FnMut(usize, &Tensor)) -> Vec<f32> {
    let mut kv = model.decoder().new_cache();
    let mut batch = Batch::default();
    batch.push(ids, &mut kv, true).unwrap();
    numbers(&model.decoder().forward_with(&mut batch, see).unwrap())
}

fn greedy(session: &mut Session, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut next = argmax(session.feed(prompt).unwrap());
    let mut out = vec![next];
    while out.len() < count {
        next = argmax(session.feed(&[next]).unwrap());
        out.push(next);
    }
    out
}

fn argmax(logits: &[f32]) -> u32 {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32
}

/// Whether kernels round the inputs of a model's matrices.
fn rounds(model: &Model) -> bool {
    matches!(Isa::best().name(), "avx512bf16" | "amx")
        && model.totals().iter().any(|total| total.format == Format::BF16)
}

/// Fails if the differences' root mean square is more than a share of what is expected.
#[track_caller]
fn near(what: &str, got: &[f32], expected: &[f32], most: f32) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let difference: Vec<f32> = got.iter().zip(expected).map(|(a, b)| a - b).collect();
    let share = rms(&difference) / rms(expected);
    assert!(share <= most, "{what}: off by {share}");
}

fn check_decoders(composed: bool) {
    for (name, path, expected) in cases("decoders") {
        let model = open(&path, composed);
        let ids = expected.ids("input_ids");
        let check = |what: &str, got: &[f32], expected: &[f32], bound: f32| match !composed && rounds(&model)
        {
            true => near(what, got, expected, LOGITS_ROUNDED),
            false => close(what, got, expected, bound),
        };
        let got = logits(&model, &ids, &mut |i, x| {
            let hidden = expected.numbers(&format!("hidden.{i}"));
            let scale = hidden.iter().fold(1.0, |m: f32, x| m.max(x.abs()));
            check(&format!("{name} hidden.{i}"), &numbers(x), &hidden, HIDDEN * scale);
        });
        check(&format!("{name} logits"), &got, &expected.numbers("logits"), LOGITS);
        let expected = expected.ids("greedy");
        assert_eq!(greedy(&mut model.session(), &ids, expected.len()), expected, "{name}");
    }
}

#[test]
fn kernels_agree_with_pytorch() {
    check_decoders(false);
}

#[test]
fn composed_ops_agree_with_pytorch() {
    check_decoders(true);
}

#[test]
fn gguf_agrees_with_pytorch() {
    for (name, path, expected) in cases("gguf") {
        let ids = expected.ids("input_ids");
        let wanted = expected.numbers("logits");
        // Ops composed of candle's dequantize the blocks: nothing is lost.
        let exact = logits(&open(&path, true), &ids, &mut |_, _| {});
        close(&format!("{name} composed"), &exact, &wanted, LOGITS);

        let model = open(&path, false);
        let got = logits(&model, &ids, &mut |_, _| {});
        if name.contains("llama-q") {
            near(&format!("{name} logits"), &got, &wanted, LOGITS_QUANTIZED);
        } else if rounds(&model) {
            near(&format!("{name} logits"), &got, &wanted, LOGITS_ROUNDED);
        } else {
            close(&format!("{name} logits"), &got, &wanted, LOGITS);
        }
        let expected = expected.ids("greedy");
        assert_eq!(greedy(&mut model.session(), &ids, expected.len()), expected, "{name}");
    }
}

fn rms(numbers: &[f32]) -> f32 {
    (numbers.iter().map(|x| x * x).sum::<f32>() / numbers.len() as f32).sqrt()
}

#[test]
fn chunks_and_single_tokens_give_the_same_logits_bit_for_bit() {
    for (name, path, expected) in cases("decoders") {
        let model = open(&path, false);
        let ids = expected.ids("input_ids");
        let vocab = model.decoder().vocab();
        let whole = logits(&model, &ids, &mut |_, _| {});
        for chunk in [1, 5, 7] {
            let mut session = model.session().with_chunk(chunk);
            session
                .feed_all(&ids, |i, row| {
                    assert_eq!(row, &whole[i * vocab..(i + 1) * vocab], "{name} {chunk}: {i}")
                })
                .unwrap();
        }
        let mut session = model.session().with_chunk(5);
        let last = session.feed(&ids).unwrap();
        assert_eq!(last, &whole[(ids.len() - 1) * vocab..], "{name}: only the last row");
    }
}

#[test]
fn a_ragged_batch_gives_what_each_sequence_gives_alone() {
    for (name, path, expected) in cases("decoders") {
        for kv in [KvType::F32, KvType::F16, KvType::I8] {
            let options = LoadOptions { kv: Some(kv), ..LoadOptions::default() };
            let model = Model::open(&path, &options).unwrap();
            let ids = expected.ids("input_ids");
            // One sequence goes on from its past, one is a single token, one is a whole prompt.
            let mut past = model.session();
            past.feed(&ids[..10]).unwrap();
            let alone: Vec<Vec<f32>> = [&ids[..13], &ids[3..4], &ids[..]]
                .iter()
                .map(|part| model.session().feed(part).unwrap().to_vec())
                .collect();
            let decoder = model.decoder();
            let (mut a, mut b, mut c) = (decoder.new_cache(), decoder.new_cache(), decoder.new_cache());
            decoder.forward(&mut Batch::single(&ids[..10], &mut a).unwrap()).unwrap();
            let mut batch = Batch::default();
            batch.push(&ids[10..13], &mut a, false).unwrap();
            batch.push(&ids[3..4], &mut b, false).unwrap();
            batch.push(&ids, &mut c, false).unwrap();
            let together = decoder.forward(&mut batch).unwrap().to_vec2::<f32>().unwrap();
            assert_eq!(together, alone, "{name} {kv:?}");
        }
    }
}

#[test]
fn a_fork_goes_its_own_way() {
    let (_, path, expected) = cases("decoders").swap_remove(5);
    let model = open(&path, false);
    let ids = expected.ids("input_ids");
    let mut one = model.session();
    one.feed(&ids[..20]).unwrap();
    let mut two = one.fork().unwrap();
    let other: Vec<u32> = ids[20..].iter().rev().copied().collect();
    let forked = two.feed(&other).unwrap().to_vec();
    let went_on = one.feed(&ids[20..]).unwrap().to_vec();
    assert_eq!(went_on, model.session().feed(&ids).unwrap());
    let whole: Vec<u32> = ids[..20].iter().chain(&other).copied().collect();
    assert_eq!(forked, model.session().feed(&whole).unwrap());
}

#[test]
fn a_truncated_session_forgets() {
    let (_, path, expected) = cases("decoders").swap_remove(0);
    let model = open(&path, false);
    let ids = expected.ids("input_ids");
    let mut session = model.session();
    session.feed(&ids).unwrap();
    assert_eq!(session.reuse(&ids[..9]), 8, "the last token is left to be fed");
    session.feed(&ids[8..9]).unwrap();
    assert_eq!(session.logits(), model.session().feed(&ids[..9]).unwrap());
}
