//! The verb `transcribe`: what it prints and writes, and what it refuses.

mod common;

use common::{command, finish, reference, run, Folder};
use serde_json::Value;

/// Samples as a WAV file: 16 bits, 16 kHz, one channel.
fn wav(samples: &[f32]) -> Vec<u8> {
    let bytes: Vec<u8> = samples.iter().flat_map(|x| ((x * 32767.0) as i16).to_le_bytes()).collect();
    let mut file = b"RIFF".to_vec();
    file.extend((36 + bytes.len() as u32).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend(16_000u32.to_le_bytes());
    file.extend(32_000u32.to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend((bytes.len() as u32).to_le_bytes());
    file.extend(bytes);
    file
}

/// Something that is not silent.
fn tones(seconds: f32) -> Vec<f32> {
    let tone = |i: usize| {
        let t = i as f32 / 16_000.0;
        (t * 1400.0 * (1.0 + (t * 2.0).sin() * 0.1)).sin() * 0.4 * (t * 9.0).sin().abs()
    };
    (0..(seconds * 16_000.0) as usize).map(tone).collect()
}

fn model() -> String {
    reference("whisper/turbo-128")
}

/// The program, taking whatever the random model says.
fn transcribe(args: &[&str]) -> common::Ran {
    let model = model();
    let fixed = ["transcribe", "-m", &model, "--logprob_threshold", "None", "--no-speech-threshold", "None"];
    run(&[&fixed[..], &["--compression_ratio_threshold", "None"], args].concat())
}

#[test]
fn a_recording_becomes_text_json_and_files() {
    let folder = Folder::new();
    let file = folder.write("talk.wav", wav(&tones(5.0)));
    let printed = transcribe(&[&file, "--language", "en"]).ok();
    assert!(printed.lines().count() > 1 && printed.starts_with("[00:0"), "{printed}");

    let dir = format!("{}/out", folder.word());
    let args = [&file, "--language", "English", "--word_timestamps", "True", "--json", "--explain"];
    let report = transcribe(&[&args[..], &["-o", &dir, "-f", "all", "--highlight-words"]].concat()).json();
    assert_eq!((report["language"].as_str(), report["duration"].as_f64()), (Some("en"), Some(5.0)));
    let segments = report["segments"].as_array().unwrap();
    for key in [
        "start",
        "end",
        "text",
        "tokens",
        "temperature",
        "avg_logprob",
        "compression_ratio",
        "no_speech_prob",
    ] {
        assert!(!segments[0][key].is_null(), "{key}");
    }
    assert!(segments.iter().any(|segment| !segment["words"].as_array().unwrap().is_empty()));
    assert_eq!(report["windows"][0]["attempts"][0]["verdict"], "accepted");
    let read = |end: &str| std::fs::read_to_string(format!("{dir}/talk.{end}")).unwrap();
    assert!(read("vtt").starts_with("WEBVTT\n\n") && read("vtt").contains("<u>"));
    assert!(read("srt").starts_with("1\n00:00:0") && read("tsv").starts_with("start\tend\ttext\n"));
    let json: Value = serde_json::from_str(&read("json")).unwrap();
    assert_eq!(json["segments"], report["segments"]);
    assert!(read("txt").lines().count() >= segments.len());

    let again = transcribe(&[&args[..], &["-t", "1"]].concat()).json();
    assert_eq!(again["segments"], report["segments"], "the same, whatever the number of threads");
    let found = transcribe(&[&file, "--json"]).json();
    assert!(found["language_probability"].as_f64().unwrap() > 0.01);
    assert!(report["language_probability"].is_null());
}

#[test]
fn stdin_is_a_recording_too() {
    let folder = Folder::new();
    let file = folder.write("talk.wav", wav(&tones(3.0)));
    let model = model();
    let args = ["transcribe", "-m", &model, "-", "--language", "en", "--json", "--temperature", "0"];
    let run_with = |bytes: Vec<u8>| {
        use std::io::Write;
        let mut child = command(&args).stdin(std::process::Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{out:?}");
        let report: Value = serde_json::from_slice(&out.stdout).unwrap();
        report["segments"].clone()
    };
    let whole = std::fs::read(&file).unwrap();
    // Raw samples are what follows the header.
    assert_eq!(run_with(whole.clone()), run_with(whole[44..].to_vec()));
}

#[test]
fn why_is_explained() {
    let folder = Folder::new();
    let file = folder.write("talk.wav", wav(&tones(2.5)));
    let model = model();
    let args =
        ["transcribe", "-m", &model, &file, "--language", "en", "--explain", "--logprob-threshold", "-0.01"];
    let ran = run(&[&args[..], &["--no_speech_threshold", "None"]].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let line = ran.err.lines().next().unwrap();
    assert!(
        line.starts_with("00:00.000 --> 00:02.000: temperature 0.0 unlikely (mean log-probability -"),
        "{line}"
    );
    assert!(line.contains("; temperature 0.2 ") && line.contains(" < -0.01)"), "{line}");
}

#[test]
fn little_or_nothing_is_an_empty_transcript() {
    let folder = Folder::new();
    for (name, samples) in [("none.wav", Vec::new()), ("one.wav", vec![0.5]), ("short.wav", vec![0.1; 100])] {
        let file = folder.write(name, wav(&samples));
        assert_eq!(transcribe(&[&file, "--language", "en"]).ok(), "", "{name}");
    }
    let file = folder.write("silence.wav", wav(&vec![0.0; 48_000]));
    assert_eq!(transcribe(&[&file, "--language", "en", "--vad_filter", "True"]).ok(), "");
}

#[test]
fn a_network_tells_what_is_speech() {
    let folder = Folder::new();
    let file = folder.write("talk.wav", wav(&tones(5.0)));
    let windows = |args: &[&str]| {
        let fixed = [&file, "--language", "en", "--json", "--explain", "--vad_filter", "True"];
        let report = transcribe(&[&fixed[..], args].concat()).json();
        let time = |window: &Value, key: &str| window[key].as_f64().unwrap();
        let windows = report["windows"].as_array().unwrap().clone();
        windows.iter().map(|w| (time(w, "start"), time(w, "duration"))).collect::<Vec<_>>()
    };
    for name in ["silero.safetensors", "silero_16k.safetensors", "ggml-silero.bin"] {
        let vad = reference(&format!("vad/{name}"));
        // A threshold that everything reaches, and one that nothing does.
        assert_eq!(windows(&["--vad_model", &vad, "--vad-threshold", "0"])[0], (0.0, 2.0), "{name}");
        assert_eq!(windows(&["--vad-model", &vad, "--vad_threshold", "1"]), [], "{name}");
    }
    let vad = reference("vad/silero.safetensors");
    let found = [&file, "--vad", "--vad-model", &vad, "--vad-threshold", "1"];
    assert_eq!(transcribe(&found).ok(), "", "no language is told by nothing");
    let args = ["--vad_model", &vad, "--vad_threshold", "0", "--vad_speech_pad_ms", "0", "--batch", "4"];
    let cut = windows(&[&args[..], &["--vad_max_speech_duration_s", "1"]].concat());
    // Of 31 windows of 32 ms each; the one after them begins none.
    assert_eq!(cut, [(0.0, 1.0), (1.02, 1.0), (2.04, 1.0), (3.07, 1.0), (4.09, 0.91)]);
}

#[test]
fn a_batch_hears_everything() {
    let folder = Folder::new();
    let file = folder.write("talk.wav", wav(&tones(9.0)));
    let report = |batch: &str| {
        let args = [&file, "--language", "en", "--json", "--explain", "--batch", batch];
        transcribe(&args).json()
    };
    let (two, many) = (report("2"), report("16"));
    assert_eq!(two["segments"], many["segments"]);
    let windows = many["windows"].as_array().unwrap();
    let heard: f64 = windows.iter().map(|window| window["duration"].as_f64().unwrap()).sum();
    assert!((heard - 9.0).abs() < 1e-9, "{heard}");
}

#[test]
fn a_batch_of_several_files_says_of_each_what_it_says_alone() {
    let folder = Folder::new();
    let lengths = [5.0, 1.0, 9.0, 0.0, 3.0, 2.5];
    // Each begins elsewhere.
    let sound = |seconds: f32| wav(&tones(2.0 * seconds)[(16_000.0 * seconds) as usize..]);
    let files = lengths.map(|seconds| folder.write(&format!("{seconds}.wav"), sound(seconds)));
    // One that is not there, and one that cannot be read.
    let text = folder.write("text.mp3", b"this is no sound");
    let mut all: Vec<&str> = files.iter().map(String::as_str).collect();
    all.insert(1, "/no/such.wav");
    all.insert(4, &text);
    let (together, alone) = (format!("{}/together", folder.word()), format!("{}/alone", folder.word()));
    let words = |dir: &str, batch: &str, files: &[&str]| {
        let args = ["--word_timestamps", "True", "--explain", "-o", dir, "-f", "all", "--batch", batch];
        transcribe(&[&args[..], files].concat())
    };
    for batch in ["1", "2", "8"] {
        let ran = words(&together, batch, &all);
        assert_eq!(ran.code, Some(4), "{ran:?}");
        assert!(ran.err.contains("/no/such.wav") && ran.err.contains("text.mp3"), "{ran:?}");
        let each: String = files.iter().map(|file| words(&alone, batch, &[file]).ok()).collect();
        assert_eq!(ran.out, each, "printed in the files' order, batch {batch}");
        for length in lengths {
            for end in ["txt", "vtt", "srt", "tsv", "json"] {
                let read = |dir: &str| std::fs::read_to_string(format!("{dir}/{length}.{end}")).unwrap();
                assert_eq!(read(&together), read(&alone), "{length}.{end}, batch {batch}");
            }
        }
    }
    let lines = transcribe(&[&["--json", "--batch", "8"], &all[..]].concat()).out;
    let names: Vec<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["file"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, files);
}

#[test]
fn what_cannot_be_transcribed_is_said_in_one_line() {
    let folder = Folder::new();
    let (model, talk) = (model(), folder.write("talk.wav", wav(&tones(1.0))));
    let fails = |args: &[&str], code: i32, parts: &[&str]| {
        run(&[&["transcribe"], args].concat()).fails(code, parts);
    };
    fails(&["-m", &model, "/no/such.wav"], 4, &["/no/such.wav"]);
    let empty = folder.write("empty.wav", b"");
    fails(&["-m", &model, &empty], 4, &["empty.wav", "empty"]);
    let text = folder.write("text.mp3", b"this is no sound");
    fails(&["-m", &model, &text], 4, &["text.mp3"]);
    fails(
        &["-m", &reference("decoders/llama2"), &talk],
        3,
        &["config.json", "model_type", "expected whisper"],
    );
    fails(&["-m", "/no/such/model", &talk], 3, &["/no/such/model"]);
    fails(&["-m", &model, &talk, "--language", "klingon"], 4, &["klingon"]);
    fails(&["-m", &model, &talk, "--beam_size", "0"], 2, &["beam_size"]);
    fails(&["-m", &model, &talk, "--max_line_width", "20"], 2, &["--word-timestamps"]);
    fails(&["-m", &model, &talk, "--clip_timestamps", "1,x"], 2, &["--clip-timestamps", "`x`"]);
    let vad = reference("vad/ggml-silero.bin");
    fails(&["-m", &model, &talk, "--vad_model", &vad], 2, &["--vad-model wants --vad-filter"]);
    fails(&["-m", &model, &talk, "--vad", "--vad_max_speech_duration_s", "9"], 2, &["wants --vad-model"]);
    fails(&["-m", &model, &talk, "--vad", "--vad_threshold", "1.5"], 2, &["vad_threshold"]);
    fails(&["-m", &model, &talk, "--vad", "--vad_model", "/no/such.bin"], 3, &["/no/such.bin"]);
    let other = reference("whisper/turbo-128/ggml-f16.bin");
    fails(&["-m", &model, &talk, "--vad", "--vad_model", &other], 3, &["ggml-f16.bin", "silero-16k"]);
    fails(&["-m", &vad, &talk], 3, &["ggml-silero.bin", "expected a Whisper model"]);
    let whisper_cpp = reference("whisper/turbo-128/ggml-q5_0.bin");
    let quantized = format!("{}/quantized", folder.word());
    run(&["quantize", &whisper_cpp, "-o", &quantized])
        .fails(3, &["ggml-q5_0.bin", "`transcribe --quantize`"]);
    let loading = ["-m", &whisper_cpp, &talk, "--language", "en", "--quantize", "int8"];
    assert_eq!(run(&[&["transcribe"], &loading[..]].concat()).code, Some(0), "while loading, it is");
    // The others are transcribed all the same.
    let ran = transcribe(&["--language", "en", "/no/such.wav", &talk]);
    assert!(ran.code == Some(4) && !ran.out.is_empty(), "{ran:?}");
    let run = finish(command(&["run", "-m", &reference("whisper/turbo-128/ggml-f16.bin"), "x"]), "");
    run.fails(3, &["ggml-f16.bin", "transcribe"]);
}
