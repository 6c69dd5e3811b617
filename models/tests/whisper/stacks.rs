//! Hidden states and logits.

use std::path::Path;

use candle_core::Tensor;
use candle_engine::kv::{Batch, KvType};
use candle_engine_models::quantize::{write_whisper_folder, Recipe};
use candle_engine_models::whisper::{Memory, Seen, Whisper};
use candle_engine_models::LoadOptions;

use crate::{answers, folder, numbers, open, Expected, CASES};

/// Largest difference of a hidden state, relative to the largest of its layer.
const HIDDEN: f32 = 1e-4;
/// Largest difference of a logit.
const LOGITS: f32 = 1e-3;

#[track_caller]
fn close(what: &str, got: &Tensor, expected: &Tensor, relative: bool, bound: f32) {
    let (got, expected) = (numbers(got), numbers(expected));
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = if relative { expected.iter().fold(1.0, |m: f32, x| m.max(x.abs())) } else { 1.0 };
    let worst = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= bound * scale, "{what}: off by {worst}, bound {}", bound * scale);
}

/// All logits `[t, vocab]` of tokens that are fed in pieces.
fn logits(model: &Whisper, memory: &Memory, tokens: &[u32], piece: usize) -> Tensor {
    let mut kv = model.decoder().new_cache();
    let pieces = tokens.chunks(piece).map(|tokens| {
        let mut batch = Batch::default();
        batch.push(tokens, &mut kv, true).unwrap();
        model.decoder().forward(&mut batch, &[memory]).unwrap()
    });
    Tensor::cat(&pieces.collect::<Vec<_>>(), 0).unwrap()
}

fn check_stacks(composed: bool) {
    for case in CASES {
        let (model, expected) = (open(case, composed), Expected::open(case));
        let window = expected.window(&model, 0);
        let heard = model
            .encoder()
            .forward_with(std::slice::from_ref(&window), &mut |i, x| {
                let name = format!("encoder.{i}");
                close(&format!("{case} {name}"), x, &expected.tensor(&name), true, HIDDEN);
            })
            .unwrap();
        close(&format!("{case} encoder"), &heard, &expected.tensor("encoder"), true, HIDDEN);

        let memory = model.hear(&[window]).unwrap().remove(0);
        let tokens = expected.tokens();
        let mut kv = model.decoder().new_cache();
        let mut batch = Batch::default();
        batch.push(&tokens, &mut kv, true).unwrap();
        let got = model
            .decoder()
            .forward_with(&mut batch, &[&memory], &mut |seen| {
                if let Seen::Hidden(i, x) = seen {
                    let name = format!("decoder.{i}");
                    close(&format!("{case} {name}"), x, &expected.tensor(&name), true, HIDDEN);
                }
                Ok(())
            })
            .unwrap();
        let wanted = expected.tensor("logits");
        close(&format!("{case} logits"), &got, &wanted, false, LOGITS);
        close(
            &format!("{case} logits, token by token"),
            &logits(&model, &memory, &tokens, 1),
            &wanted,
            false,
            LOGITS,
        );
    }
}

#[test]
fn kernels_agree_with_pytorch() {
    check_stacks(false);
}

#[test]
fn composed_ops_agree_with_pytorch() {
    check_stacks(true);
}

#[test]
fn pieces_and_single_tokens_give_the_same_logits_bit_for_bit() {
    for case in CASES {
        let (model, expected) = (open(case, false), Expected::open(case));
        let memory = model.hear(&[expected.window(&model, 1)]).unwrap().remove(0);
        let tokens = expected.tokens();
        let whole = numbers(&logits(&model, &memory, &tokens, tokens.len()));
        for piece in [1, 3, 7] {
            assert_eq!(numbers(&logits(&model, &memory, &tokens, piece)), whole, "{case} {piece}");
        }
    }
}

#[test]
fn windows_and_sequences_together_give_what_each_gives_alone() {
    for case in CASES {
        for kv in [KvType::F32, KvType::F16, KvType::I8] {
            let options = LoadOptions { kv: Some(kv), ..LoadOptions::default() };
            let model = Whisper::open(&folder(case).display().to_string(), &options).unwrap();
            let expected = Expected::open(case);
            let windows: Vec<Tensor> = (0..3).map(|i| expected.window(&model, i)).collect();
            let tokens = expected.tokens();
            let together = model.hear(&windows).unwrap();
            // Two sequences share a memory, one begins with a past.
            let parts: [(usize, &[u32]); 4] =
                [(0, &tokens[..5]), (1, &tokens[..9]), (1, &tokens[3..]), (2, &tokens[..1])];
            let alone: Vec<Vec<f32>> = parts
                .iter()
                .map(|&(window, tokens)| {
                    let memory = model.hear(&windows[window..=window]).unwrap().remove(0);
                    let logits = logits(&model, &memory, tokens, tokens.len());
                    numbers(&logits.get(tokens.len() - 1).unwrap())
                })
                .collect();
            let mut caches: Vec<_> = parts.iter().map(|_| model.decoder().new_cache()).collect();
            let mut past = Batch::single(&tokens[..4], &mut caches[1]).unwrap();
            model.decoder().forward(&mut past, &[&together[1]]).unwrap();
            let mut batch = Batch::default();
            for (i, (kv, &(_, tokens))) in caches.iter_mut().zip(&parts).enumerate() {
                batch.push(if i == 1 { &tokens[4..] } else { tokens }, kv, false).unwrap();
            }
            let memories: Vec<&Memory> = parts.iter().map(|&(window, _)| &together[window]).collect();
            let got = model.decoder().forward(&mut batch, &memories).unwrap().to_vec2::<f32>().unwrap();
            assert_eq!(got, alone, "{case} {kv:?}");
        }
    }
}

#[test]
fn more_queries_than_positions_attend_alike() {
    let (model, expected) = (open("turbo-128", false), Expected::open("turbo-128"));
    let memory = model.hear(&[expected.window(&model, 0)]).unwrap().remove(0);
    let tokens = expected.tokens();
    let alone = numbers(&logits(&model, &memory, &tokens, tokens.len()));
    // Seven sequences of one memory are more rows than it has positions.
    let mut caches: Vec<_> = (0..7).map(|_| model.decoder().new_cache()).collect();
    let mut batch = Batch::default();
    for kv in &mut caches {
        batch.push(&tokens, kv, true).unwrap();
    }
    assert!(batch.rows() > model.config().encoder.positions);
    let got = numbers(&model.decoder().forward(&mut batch, &[&memory; 7]).unwrap());
    for (i, part) in got.chunks_exact(alone.len()).enumerate() {
        assert_eq!(part, alone, "sequence {i}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (model, expected) = (open("turbo-128", false), Expected::open("turbo-128"));
    let window = expected.window(&model, 0);
    let error = model.hear(&[window.narrow(0, 0, 50).unwrap()]).unwrap_err().to_string();
    assert!(error.contains("expected [200, 128], got [50, 128]"), "{error}");
    let memory = model.hear(&[window]).unwrap().remove(0);
    let forward = |tokens: &[u32], memories: &[&Memory]| {
        let mut kv = model.decoder().new_cache();
        let mut batch = Batch::single(tokens, &mut kv).unwrap();
        model.decoder().forward(&mut batch, memories).unwrap_err().to_string()
    };
    assert!(forward(&[9999], &[&memory]).contains("token id 9999"));
    assert!(forward(&[1; 65], &[&memory]).contains("65 tokens, the context holds 64"));
    assert!(forward(&[1], &[]).contains("1 sequences with 0 memories"));
}

/// All logits of the fixture's tokens over its first window.
fn answer(model: &Whisper, expected: &Expected) -> Tensor {
    let memory = model.hear(&[expected.window(model, 0)]).unwrap().remove(0);
    let tokens = expected.tokens();
    logits(model, &memory, &tokens, tokens.len())
}

#[test]
fn files_of_whisper_cpp_are_read() {
    let (model, expected) = (open("turbo-128", false), Expected::open("turbo-128"));
    let wanted = answer(&model, &expected);
    let ggml = |kind: &str| open(&format!("turbo-128/ggml-{kind}.bin"), false);
    let exact = ggml("f16");
    // The same matrices; only norms and biases were rounded once more here.
    close("f16", &answer(&exact, &expected), &wanted, false, 0.01);
    let (got, wanted) = (numbers(&answer(&ggml("q5_0"), &expected)), numbers(&wanted));
    let difference: Vec<f32> = got.iter().zip(&wanted).map(|(a, b)| a - b).collect();
    let share = rms(&difference) / rms(&wanted);
    assert!(share < 0.1 && share > 1e-3, "q5_0: off by {share} of the logits");

    // The tokens follow from vocabulary and sizes.
    let (ours, theirs) = (model.tokens().unwrap(), exact.tokens().unwrap());
    assert_eq!((ours.eot, ours.timestamp_begin), (theirs.eot, theirs.timestamp_begin));
    assert_eq!(ours.languages, theirs.languages);
    assert_eq!(ours.non_speech, theirs.non_speech);
    for text in [" the other, then: 你好 (a) --", "They’re in on it  ", ""] {
        assert_eq!(ours.encode(text).unwrap(), theirs.encode(text).unwrap(), "{text:?}");
        assert_eq!(theirs.decode(&theirs.encode(text).unwrap()).unwrap(), text);
    }
}

fn rms(numbers: &[f32]) -> f32 {
    (numbers.iter().map(|x| x * x).sum::<f32>() / numbers.len() as f32).sqrt()
}

#[test]
fn tokens_have_the_meaning_that_the_reference_gives_them() {
    for case in CASES {
        let (expected, model) = (answers(case), open(case, false));
        let tokens = model.tokens().unwrap();
        let non_speech: Vec<u32> = serde_json::from_value(expected["non_speech_tokens"].clone()).unwrap();
        assert_eq!(tokens.non_speech, non_speech, "{case}");
        let mut languages: Vec<&str> = tokens.languages.iter().map(|(code, _)| *code).collect();
        languages.sort_unstable();
        let wanted: Vec<&String> = expected["languages"].as_object().unwrap().keys().collect();
        assert_eq!(languages, wanted, "{case}");
    }
}

/// int8 is what the same kernels make of it, whether it was quantized while loading or before; the error is bounded.
#[test]
fn integers_of_8_bits_drop_in() {
    let recipe: Recipe = "int8".parse().unwrap();
    let expected = Expected::open("turbo-128");
    let wanted = numbers(&expected.tensor("logits"));
    let options = LoadOptions { quantize: Some(recipe.clone()), ..LoadOptions::default() };
    let loaded = Whisper::open(&folder("turbo-128").display().to_string(), &options).unwrap();
    let got = numbers(&answer(&loaded, &expected));
    let difference: Vec<f32> = got.iter().zip(&wanted).map(|(a, b)| a - b).collect();
    let share = rms(&difference) / rms(&wanted);
    assert!(share < 0.1 && share > 1e-4, "int8: off by {share} of the logits");

    let dir = std::env::temp_dir().join(format!("candle-engine-whisper-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    write_whisper_folder(&folder("turbo-128"), &dir, &recipe, &mut |_, _| ()).unwrap();
    let stored = Whisper::open(&dir.display().to_string(), &LoadOptions::default()).unwrap();
    assert_eq!(numbers(&answer(&stored, &expected)), got);
    assert_eq!(stored.tokens().unwrap().eot, loaded.tokens().unwrap().eot);

    // The same without the prefix of the Hub's names.
    let (short, again) = (dir.join("short"), dir.join("again"));
    std::fs::create_dir_all(&short).unwrap();
    std::fs::create_dir_all(&again).unwrap();
    for file in ["config.json", "generation_config.json", "tokenizer.json"] {
        std::fs::copy(folder("turbo-128").join(file), short.join(file)).unwrap();
    }
    let whole = std::fs::read(folder("turbo-128").join("model.safetensors")).unwrap();
    std::fs::write(short.join("model.safetensors"), without_prefix(&whole)).unwrap();
    let whisper = |dir: &Path, options: &LoadOptions| {
        numbers(&answer(&Whisper::open(&dir.display().to_string(), options).unwrap(), &expected))
    };
    let plain = LoadOptions::default();
    assert_eq!(whisper(&short, &plain), whisper(&folder("turbo-128"), &plain));
    assert_eq!(whisper(&short, &options), got);
    write_whisper_folder(&short, &again, &recipe, &mut |_, _| ()).unwrap();
    assert_eq!(whisper(&again, &plain), got);
    std::fs::remove_dir_all(&dir).unwrap();

    // And from whisper.cpp's file, whose norms and biases were rounded once less.
    let ggml = whisper(&folder("turbo-128").join("ggml-f16.bin"), &options);
    let difference: Vec<f32> = ggml.iter().zip(&got).map(|(a, b)| a - b).collect();
    let share = rms(&difference) / rms(&got);
    assert!(share < 0.01, "off by {share} of the logits of the folder");
}

/// A safetensors file with `name` for `model.name`.
fn without_prefix(file: &[u8]) -> Vec<u8> {
    let (length, rest) = file.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header = std::str::from_utf8(header).unwrap().replace("\"model.", "\"");
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}
