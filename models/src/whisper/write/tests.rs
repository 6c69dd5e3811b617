//! Against openai-whisper's writers.

use serde_json::Value;

use super::super::{Segment, Word};
use super::*;

const EXPECTED: &str = include_str!("../../../../tests/reference/whisper/subtitles.json");

fn transcript(value: &Value) -> Transcript {
    let number = |v: &Value| v.as_f64().unwrap();
    let word = |v: &Value| Word {
        word: v["word"].as_str().unwrap().into(),
        start: number(&v["start"]),
        end: number(&v["end"]),
        probability: 0.5,
    };
    let segment = |v: &Value| Segment {
        id: 0,
        seek: 0,
        start: number(&v["start"]),
        end: number(&v["end"]),
        text: v["text"].as_str().unwrap().into(),
        tokens: Vec::new(),
        temperature: 0.0,
        avg_logprob: -0.2,
        compression_ratio: 1.0,
        no_speech_prob: 0.1,
        words: v["words"].as_array().map(|words| words.iter().map(word).collect()),
    };
    let segments = value["segments"].as_array().unwrap().iter().map(segment).collect();
    Transcript::new(segments, "en", 4000.0)
}

#[test]
fn files_are_those_of_the_reference() {
    let expected: Value = serde_json::from_str(EXPECTED).unwrap();
    let cases = expected["cases"].as_array().unwrap();
    assert!(cases.len() > 8);
    for case in cases {
        let transcript = transcript(&expected["transcripts"][case["transcript"].as_str().unwrap()]);
        let options = &case["options"];
        let number = |key: &str| options[key].as_u64().map(|n| n as usize);
        let options = SubtitleOptions {
            max_line_width: number("max_line_width"),
            max_line_count: number("max_line_count"),
            max_words_per_line: number("max_words_per_line"),
            highlight_words: options["highlight_words"].as_bool().unwrap_or(false),
        };
        for (name, text) in case["files"].as_object().unwrap() {
            let format: TranscriptFormat = name.parse().unwrap();
            assert_eq!(format.write(&transcript, &options), text.as_str().unwrap(), "{case}");
        }
    }
}

#[test]
fn json_has_everything() {
    let expected: Value = serde_json::from_str(EXPECTED).unwrap();
    let transcript = transcript(&expected["transcripts"]["words"]);
    let json = TranscriptFormat::Json.write(&transcript, &SubtitleOptions::default());
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["language"], "en");
    for key in
        ["start", "end", "text", "words", "avg_logprob", "compression_ratio", "no_speech_prob", "temperature"]
    {
        assert!(!json["segments"][0][key].is_null(), "{key}");
    }
    assert_eq!(timestamp(3661.5), "01:01:01.500");
    assert!("mp4".parse::<TranscriptFormat>().is_err());
}
