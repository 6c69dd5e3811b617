//! Decodings, languages, transcripts and word times.

use candle_engine_models::whisper::{
    Context, DecodeOptions, Recording, Segment, Spectrogram, Task, Thresholds, TranscribeOptions, Whisper,
};
use candle_engine_models::Error;
use serde_json::Value;

use crate::{answers, numbers, open, Expected, CASES};

/// What pads the recording to whole windows, as `make_whisper.py` has it.
const SILENCE: f32 = -0.5;
/// One implementation of zlib finds a byte or two more than another, which counts in these short texts.
const RATIO: f64 = 0.1;

#[track_caller]
fn near(what: &str, got: f64, expected: &Value, bound: f64) {
    let expected = expected.as_f64().unwrap();
    assert!((got - expected).abs() <= bound, "{what}: {got}, not {expected}");
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn task(options: &Value) -> Task {
    if options["task"] == "translate" {
        Task::Translate
    } else {
        Task::Transcribe
    }
}

fn decode_options(model: &Whisper, options: &Value) -> DecodeOptions {
    let number = |key: &str| options[key].as_u64().map(|n| n as usize);
    let float = |key: &str| options[key].as_f64().map(|x| x as f32);
    let flag = |key: &str, default: bool| options[key].as_bool().unwrap_or(default);
    DecodeOptions {
        beam_size: number("beam_size"),
        patience: float("patience").unwrap_or(1.0),
        length_penalty: float("length_penalty"),
        sample_len: number("sample_len"),
        suppress: if options["suppress_tokens"] == "" {
            Vec::new()
        } else {
            model.tokens().unwrap().non_speech.clone()
        },
        suppress_blank: flag("suppress_blank", true),
        without_timestamps: flag("without_timestamps", false),
        max_initial_timestamp: if options.get("max_initial_timestamp").is_some() { None } else { Some(1.0) },
        ..DecodeOptions::default()
    }
}

#[test]
fn languages_are_as_probable_as_the_reference_says() {
    for case in CASES {
        let (model, expected) = (open(case, false), Expected::open(case));
        let found = model.detect_language(&expected.window(&model, 0)).unwrap();
        let wanted = &answers(case)["languages"];
        assert_eq!(found.len(), wanted.as_object().unwrap().len());
        for language in &found {
            near(&format!("{case} {}", language.code), language.probability, &wanted[language.code], 1e-4);
        }
        assert!(found.windows(2).all(|pair| pair[0].probability >= pair[1].probability));
    }
}

#[test]
fn windows_are_decoded_as_the_reference_does() {
    for case in CASES {
        let (model, expected) = (open(case, false), Expected::open(case));
        let window = expected.window(&model, 0);
        for wanted in answers(case)["decodings"].as_array().unwrap() {
            let options = &wanted["options"];
            let what = format!("{case} {options}");
            let tokens = model.tokens().unwrap();
            let text = |key: &str| match options[key].as_str() {
                Some(text) => tokens.encode(&format!(" {text}")).unwrap(),
                None => Vec::new(),
            };
            let context = Context {
                language: wanted["language"].as_str().unwrap(),
                task: task(options),
                previous: &text("prompt"),
                prefix: &text("prefix"),
            };
            if options["language"].is_null() {
                let found = model.detect_language(&window).unwrap();
                assert_eq!(found[0].code, context.language, "{what}");
            }
            let windows = [window.clone()];
            let got = model.decode(&windows, &context, &decode_options(&model, options)).unwrap().remove(0);
            assert_eq!(got.tokens, ids(&wanted["tokens"]), "{what}");
            assert_eq!(Value::from(got.text.as_str()), wanted["text"], "{what}");
            near(&what, got.avg_logprob, &wanted["avg_logprob"], 1e-3);
            near(&what, got.no_speech_prob, &wanted["no_speech_prob"], 1e-4);
            near(&what, got.compression_ratio, &wanted["compression_ratio"], RATIO);
        }
    }
}

fn recording(model: &Whisper, case: &str) -> Spectrogram {
    Spectrogram::new(model.config().mels, numbers(&Expected::open(case).mel()), SILENCE).unwrap()
}

fn transcribe_options(model: &Whisper, options: &Value) -> TranscribeOptions {
    let flag = |key: &str, default: bool| options[key].as_bool().unwrap_or(default);
    let seconds = |text: &str| text.split(',').map(|number| number.parse().unwrap()).collect();
    TranscribeOptions {
        task: task(options),
        language: options["language"].as_str().map(str::to_owned),
        decode: DecodeOptions { suppress: Vec::new(), ..decode_options(model, options) },
        temperatures: vec![0.0],
        thresholds: Thresholds { compression_ratio: None, logprob: None, no_speech: None },
        condition_on_previous_text: flag("condition_on_previous_text", true),
        initial_prompt: options["initial_prompt"].as_str().map(str::to_owned),
        carry_initial_prompt: flag("carry_initial_prompt", false),
        clips: options["clip_timestamps"].as_str().map(seconds).unwrap_or_default(),
        word_timestamps: flag("word_timestamps", false),
        hallucination_silence_threshold: options["hallucination_silence_threshold"].as_f64(),
        ..TranscribeOptions::default()
    }
}

fn check_segment(what: &str, got: &Segment, wanted: &Value) {
    assert_eq!(got.tokens, ids(&wanted["tokens"]), "{what}");
    assert_eq!(Value::from(got.text.as_str()), wanted["text"], "{what}");
    assert_eq!(Value::from(got.seek), wanted["seek"], "{what}");
    near(what, got.start, &wanted["start"], 1e-6);
    near(what, got.end, &wanted["end"], 1e-6);
    near(what, got.avg_logprob, &wanted["avg_logprob"], 1e-3);
    let words = wanted["words"].as_array();
    assert_eq!(got.words.as_ref().map(Vec::len), words.map(Vec::len), "{what}");
    for (got, wanted) in got.words.iter().flatten().zip(words.into_iter().flatten()) {
        let what = format!("{what}: {got:?}");
        assert_eq!(Value::from(got.word.as_str()), wanted["word"], "{what}");
        near(&what, got.start, &wanted["start"], 1e-6);
        near(&what, got.end, &wanted["end"], 1e-6);
        near(&what, got.probability, &wanted["probability"], 1e-3);
    }
}

#[test]
fn recordings_are_transcribed_as_the_reference_does() {
    for case in CASES {
        let model = open(case, false);
        for wanted in answers(case)["transcripts"].as_array().unwrap() {
            let options = &wanted["options"];
            let what = format!("{case} {options}");
            let mut transcription =
                model.transcribe(recording(&model, case), &transcribe_options(&model, options)).unwrap();
            assert_eq!(Value::from(transcription.language()), wanted["language"], "{what}");
            let got: Vec<Segment> = transcription.by_ref().collect::<Result<_, _>>().unwrap();
            // The reference hands out segments that it has emptied.
            let wanted: Vec<&Value> =
                wanted["segments"].as_array().unwrap().iter().filter(|s| s["text"] != "").collect();
            for (i, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
                assert_eq!(got.id, i, "{what}");
                check_segment(&format!("{what}: segment {i}"), got, wanted);
            }
            assert_eq!(got.len(), wanted.len(), "{what}");
        }
    }
}

#[test]
fn a_batch_gives_every_window_what_it_gets_alone() {
    for case in CASES {
        let model = open(case, false);
        let run = |batch: usize| {
            let options = TranscribeOptions {
                language: Some("en".into()),
                batch,
                word_timestamps: true,
                temperatures: vec![0.0, 0.7],
                thresholds: Thresholds { no_speech: None, logprob: Some(-0.6), ..Thresholds::default() },
                ..TranscribeOptions::default()
            };
            let mut transcription = model.transcribe(recording(&model, case), &options).unwrap();
            let segments: Vec<Segment> = transcription.by_ref().collect::<Result<_, _>>().unwrap();
            (segments, transcription.take_reports())
        };
        let (two, reports) = run(2);
        assert!(reports.len() >= 4 && reports.iter().any(|r| r.attempts.len() > 1), "{reports:?}");
        let (all, same) = run(64);
        assert_eq!((&two, &reports), (&all, &same), "{case}");
        assert!(two.windows(2).all(|pair| pair[0].seek <= pair[1].seek));
        let covered: f64 = reports.iter().map(|report| report.duration).sum();
        assert!((covered - 7.3).abs() < 1e-9, "every frame is in one window: {covered}");
    }
}

/// A recording that cannot be read beyond a frame.
struct Broken(Spectrogram, usize);

impl Recording for Broken {
    fn mels(&self) -> usize {
        self.0.mels()
    }

    fn frames_until(&mut self, end: usize) -> Result<usize, Error> {
        match end > self.1 {
            true => Err(Error::Input("broken off".into())),
            false => self.0.frames_until(end),
        }
    }

    fn frames(&mut self, range: std::ops::Range<usize>) -> Result<Vec<f32>, Error> {
        self.0.frames(range)
    }

    fn silence(&self) -> f32 {
        self.0.silence()
    }
}

#[test]
fn recordings_share_batches_and_nothing_else() {
    let model = open("turbo-128", false);
    let whole = numbers(&Expected::open("turbo-128").mel());
    let part = |from: usize, frames: usize, readable: usize| {
        let numbers = whole[from * 128..(from + frames) * 128].to_vec();
        Broken(Spectrogram::new(128, numbers, SILENCE).unwrap(), readable)
    };
    // Of the second two windows can be read, of the fourth none.
    let recordings = || {
        let whole = usize::MAX;
        let parts = [(0, 300, whole), (100, 600, 450), (350, 50, whole), (0, 300, 100), (200, 530, whole)];
        parts.map(|(from, frames, readable)| part(from, frames, readable))
    };
    for (batch, beam_size) in [(1, None), (3, Some(2)), (16, None)] {
        let options = TranscribeOptions {
            batch,
            decode: DecodeOptions { beam_size, ..DecodeOptions::default() },
            word_timestamps: true,
            temperatures: vec![0.0, 0.7],
            thresholds: Thresholds { no_speech: None, logprob: Some(-0.6), ..Thresholds::default() },
            ..TranscribeOptions::default()
        };
        let mut all = model.transcribe_all(recordings().map(Ok), &options).unwrap();
        for (i, recording) in recordings().into_iter().enumerate() {
            let turn = all.next().unwrap();
            let mut alone = match (turn, model.transcribe(recording, &options)) {
                (Ok(mut turn), Ok(mut alone)) => {
                    let segments: Vec<_> = turn.by_ref().map(|s| s.map_err(|e| e.to_string())).collect();
                    let same: Vec<_> = alone.by_ref().map(|s| s.map_err(|e| e.to_string())).collect();
                    assert_eq!(segments, same, "recording {i}, batch {batch}");
                    assert_eq!((turn.language(), turn.heard()), (alone.language(), alone.heard()));
                    assert_eq!(turn.take_reports(), alone.take_reports(), "recording {i}, batch {batch}");
                    segments
                }
                (turn, alone) => {
                    let [turn, alone] = [turn.err(), alone.err()].map(|e| e.map(|e| e.to_string()));
                    assert!(turn.is_some() && turn == alone, "recording {i}: {turn:?}, alone {alone:?}");
                    assert_eq!(i, 3);
                    continue;
                }
            };
            let last = alone.pop();
            let broken = last.as_ref().is_some_and(|last| last.as_ref().is_err_and(|e| e == "broken off"));
            assert_eq!(broken, i == 1, "recording {i}: {last:?}");
            assert!(alone.iter().all(Result::is_ok) && (i != 1 || !alone.is_empty()), "what could be read");
        }
        assert!(all.next().is_none());
    }
}

#[test]
fn nothing_is_an_empty_transcript() {
    let model = open("turbo-128", false);
    let none = Spectrogram::new(128, Vec::new(), SILENCE).unwrap();
    let mut transcription = model.transcribe(none.clone(), &TranscribeOptions::default()).unwrap();
    assert!(transcription.next().is_none());
    let options = TranscribeOptions { clips: vec![100.0], ..TranscribeOptions::default() };
    assert_eq!(model.transcribe(recording(&model, "turbo-128"), &options).unwrap().count(), 0);
}

#[test]
fn wrong_options_are_named() {
    let model = open("turbo-128", false);
    let error = |options: TranscribeOptions| {
        let none = Spectrogram::new(128, Vec::new(), SILENCE).unwrap();
        model.transcribe(none, &options).map(|_| ()).unwrap_err().to_string()
    };
    let default = TranscribeOptions::default;
    assert!(error(TranscribeOptions { language: Some("klingon".into()), ..default() }).contains("`klingon`"));
    assert!(error(TranscribeOptions { temperatures: vec![-1.0], ..default() }).contains("temperature"));
    assert!(error(TranscribeOptions { suppress_tokens: vec![-2], ..default() }).contains("suppress_tokens"));
    assert!(error(TranscribeOptions { batch: 0, ..default() }).contains("batch"));
    let silence = TranscribeOptions { hallucination_silence_threshold: Some(1.0), ..default() };
    assert!(error(silence).contains("word_timestamps"));
}
