//! Silero's network against PyTorch, and speech against faster-whisper's.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_engine::weights::{Format, MappedBytes, SafeTensors, Weights};
use candle_engine_models::vad::{SileroVad, SpeechDetector, SpeechOptions, SpeechTimestamps, WINDOW};
use serde::Deserialize;

const FILES: [&str; 3] = ["silero.safetensors", "silero_16k.safetensors", "ggml-silero.bin"];

fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/vad").join(name)
}

fn expected(name: &str) -> Vec<f32> {
    let stored = SafeTensors::open(&reference("expected.safetensors")).unwrap().get(name).unwrap();
    let dtype = if stored.format == Format::I16 { DType::I16 } else { DType::F32 };
    let tensor = Tensor::from_raw_buffer(&stored.bytes, dtype, &stored.shape, &Device::Cpu).unwrap();
    tensor.to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

/// What PyTorch was given, in −1..1.
fn samples() -> Vec<f32> {
    expected("samples").into_iter().map(|x| x / 32_768.0).collect()
}

#[test]
fn every_container_gives_pytorchs_probabilities() {
    let (samples, expected) = (samples(), expected("probabilities"));
    assert!(!samples.len().is_multiple_of(WINDOW));
    for file in FILES {
        let vad = SileroVad::open(reference(file)).unwrap();
        let got = vad.probabilities(&samples, &mut vad.state()).unwrap();
        assert_eq!(got.len(), expected.len(), "{file}");
        for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert!((got - expected).abs() < 1e-5, "{file}, window {i}: {got}, expected {expected}");
        }
    }
}

#[test]
fn what_was_heard_before_is_carried_over() {
    let vad = SileroVad::open(reference(FILES[0])).unwrap();
    let samples = samples();
    let whole = vad.probabilities(&samples, &mut vad.state()).unwrap();
    let mut state = vad.state();
    let pieces: Vec<f32> =
        samples.chunks(3 * WINDOW).flat_map(|piece| vad.probabilities(piece, &mut state).unwrap()).collect();
    assert_eq!(pieces, whole);
    let fresh = vad.probabilities(&samples[3 * WINDOW..], &mut vad.state()).unwrap();
    assert!((fresh[0] - whole[3]).abs() > 1e-3, "the windows before matter");
    // More than go through the network together.
    let long: Vec<f32> = samples.iter().copied().cycle().take(700 * WINDOW).collect();
    let whole = vad.probabilities(&long, &mut vad.state()).unwrap();
    let mut state = vad.state();
    let pieces: Vec<f32> =
        long.chunks(WINDOW).flat_map(|piece| vad.probabilities(piece, &mut state).unwrap()).collect();
    assert_eq!(pieces, whole);
}

#[derive(Debug, Deserialize)]
struct Case {
    threshold: f32,
    min_speech_duration_ms: u32,
    max_speech_duration_s: Option<f64>,
    min_silence_duration_ms: u32,
    speech_pad_ms: u32,
    probabilities: Vec<f32>,
    samples: usize,
    speech: Vec<(usize, usize)>,
}

#[test]
fn speech_begins_and_ends_where_the_reference_says() {
    let cases: Vec<Case> =
        serde_json::from_slice(&std::fs::read(reference("timestamps.json")).unwrap()).unwrap();
    for (i, case) in cases.iter().enumerate() {
        let seconds = |ms: u32| f64::from(ms) / 1000.0;
        let options = SpeechOptions {
            threshold: case.threshold,
            neg_threshold: None,
            min_speech: seconds(case.min_speech_duration_ms),
            max_speech: case.max_speech_duration_s.unwrap_or(f64::INFINITY),
            min_silence: seconds(case.min_silence_duration_ms),
            pad: seconds(case.speech_pad_ms),
        };
        let mut timestamps = SpeechTimestamps::new(&options).unwrap();
        let mut found: Vec<(usize, usize)> = Vec::new();
        for &probability in &case.probabilities {
            let (settled, going_on) = (timestamps.settled(), timestamps.going_on());
            timestamps.push(probability);
            let new: Vec<_> = std::iter::from_fn(|| timestamps.take()).collect();
            for speech in new {
                assert!(speech.start >= settled, "case {i}: {speech:?} where all was settled, {settled}");
                if let Some(known) = &going_on {
                    let within = speech.start == known.start && speech.end >= known.end;
                    assert!(within || speech.end <= known.start, "case {i}: {speech:?} after {known:?}");
                }
                found.push((speech.start, speech.end));
            }
        }
        timestamps.finish(case.samples);
        found.extend(std::iter::from_fn(|| timestamps.take()).map(|speech| (speech.start, speech.end)));
        assert_eq!(found, case.speech, "case {i}: {options:?}");
    }
}

#[test]
fn a_stream_has_the_speech_of_the_whole() {
    let vad = SileroVad::open(reference(FILES[2])).unwrap();
    let samples: Vec<f32> = samples().into_iter().cycle().take(200_000).collect();
    let options =
        SpeechOptions { min_speech: 0.03, min_silence: 0.03, pad: 0.01, ..SpeechOptions::default() };
    let speech = |piece: usize| {
        let mut detector = SpeechDetector::new(&vad, &options).unwrap();
        let mut found = Vec::new();
        for samples in samples.chunks(piece) {
            detector.push(samples).unwrap();
            found.extend(std::iter::from_fn(|| detector.take()));
        }
        detector.finish().unwrap();
        found.extend(std::iter::from_fn(|| detector.take()));
        found
    };
    let whole = speech(samples.len());
    assert!(whole.len() > 3, "{whole:?}");
    for piece in [1_000, 511, 512] {
        assert_eq!(speech(piece), whole, "{piece}");
    }
    // Nothing at all is no speech.
    let mut nothing = SpeechDetector::new(&vad, &options).unwrap();
    nothing.finish().unwrap();
    assert_eq!(nothing.take(), None);
}

/// A copy of a fixture, changed, under a name of its own.
fn changed(name: &str, from: &str, change: fn(&mut Vec<u8>)) -> (PathBuf, String) {
    let path = std::env::temp_dir().join(format!("candle-engine-vad-{}-{name}", std::process::id()));
    let mut bytes = std::fs::read(reference(from)).unwrap();
    change(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    let error = SileroVad::open(&path).map(|_| ()).unwrap_err().to_string();
    std::fs::remove_file(&path).unwrap();
    (path, error)
}

/// Puts other bytes, as many, for the first that are equal to some.
fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
}

#[test]
fn a_file_of_another_kind_says_what_was_expected() {
    let (ggml, tensors) = (FILES[2], FILES[0]);
    type Change = fn(&mut Vec<u8>);
    let cases: [(&str, &str, Change, &str); 7] = [
        ("cut.bin", ggml, |b| b.truncate(b.len() - 5), "forward_basis_buffer`: truncated"),
        ("kind.bin", ggml, |b| replace(b, b"silero-16k", b"silero-08k"), "kind `silero-16k`"),
        ("window.bin", ggml, |b| b[30] ^= 1, "window_size"),
        ("cut.safetensors", tensors, |b| b.truncate(1000), "cut.safetensors"),
        (
            "missing.safetensors",
            tensors,
            |b| replace(b, b"_model.decoder.rnn.weight_hh", b"_model.decoder.rnn.weight_xx"),
            "tensor `_model.decoder.rnn.weight_hh` is missing",
        ),
        (
            "shape.safetensors",
            tensors,
            |b| replace(b, b"[14,9,3]", b"[9,14,3]"),
            "`_model.encoder.0.reparam_conv.weight`: expected shape [14, 9, 3], got [9, 14, 3]",
        ),
        ("what.onnx", ggml, |_| {}, "expected safetensors, or a ggml-silero-*.bin"),
    ];
    for (name, from, change, part) in cases {
        let (path, error) = changed(name, from, change);
        assert!(error.contains(part) && error.contains(&path.display().to_string()), "{name}: {error}");
    }
    let whisper = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/whisper/turbo-128/");
    for (file, part) in
        [("ggml-f16.bin", "kind `silero-16k`"), ("model.safetensors", "tensor `_model.stft.forward_basis")]
    {
        let error = SileroVad::open(whisper.join(file)).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(file), "{error}");
    }
    assert!(SileroVad::open("/no/such.bin").unwrap_err().to_string().contains("/no/such.bin"));
}

#[test]
fn a_broken_file_gives_an_error_or_probabilities() {
    let whole = std::fs::read(reference(FILES[2])).unwrap();
    // The header, and every tensor's.
    for i in (0..whole.len()).filter(|i| i % 97 == 0 || *i < 120) {
        let mut broken = whole.clone();
        broken[i] = broken[i].wrapping_add(1);
        let Ok(file) = candle_engine::weights::GgmlVad::from_bytes("x", MappedBytes::from(broken)) else {
            continue;
        };
        if let Ok(vad) = SileroVad::from_ggml(&file) {
            assert_eq!(vad.probabilities(&[0.1; 1000], &mut vad.state()).unwrap().len(), 2);
        }
    }
}
