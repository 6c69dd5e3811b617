//! The models that are compiled in: the story-teller against what PyTorch says of it, the listener on its sample.
#![cfg(feature = "builtin")]

use std::path::Path;

use candle_engine::audio::Audio;
use candle_engine_models::whisper::{TranscribeOptions, Whisper};
use candle_engine_models::{GenerateOptions, LoadOptions, Model, SamplerOptions};
use serde_json::Value;

const EXPECTED: &str = include_str!("../builtin/stories/expected.json");

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn it_tells_what_pytorch_tells() {
    let expected: Value = serde_json::from_str(EXPECTED).unwrap();
    let model = Model::open("builtin", &LoadOptions::default()).unwrap();
    let prompt = model.encode(expected["prompt"].as_str().unwrap()).unwrap();
    assert_eq!(prompt, ids(&expected["prompt_ids"]));

    let greedy = ids(&expected["greedy_ids"]);
    let options = GenerateOptions {
        max_tokens: Some(greedy.len()),
        sampler: SamplerOptions::greedy(),
        ..GenerateOptions::default()
    };
    let mut session = model.session();
    let pieces: Vec<_> =
        model.generate(&mut session, &prompt, &options).unwrap().map(Result::unwrap).collect();
    assert_eq!(pieces.iter().map(|p| p.id).collect::<Vec<_>>(), greedy);
    let text: String = pieces.iter().map(|p| p.text.as_str()).collect();
    assert_eq!(text, expected["greedy_text"].as_str().unwrap());
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let model = Model::open("builtin", &LoadOptions::default()).unwrap();
    let tell = |seed| {
        let sampler = SamplerOptions { seed, ..SamplerOptions::default() };
        let options = GenerateOptions { max_tokens: Some(60), sampler, ..model.options() };
        let prompt = model.encode("").unwrap();
        let mut session = model.session();
        model.generate(&mut session, &prompt, &options).unwrap().map(|p| p.unwrap().text).collect::<String>()
    };
    assert_eq!(tell(1), tell(1));
    assert_ne!(tell(1), tell(2));
}

#[test]
fn the_listener_writes_down_its_sample() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/audio/sample.wav");
    let whisper = Whisper::open("builtin", &LoadOptions::default()).unwrap();
    assert!(!whisper.takes_previous_text(), "as its generation_config.json says");
    let recording = whisper.listen(Audio::open(sample).unwrap());
    let segments = whisper.transcribe(recording, &TranscribeOptions::default()).unwrap();
    let texts: Vec<String> = segments.map(|segment| segment.unwrap().text.trim().to_owned()).collect();
    let said = ["turn on the kitchen light", "set a timer for twenty five minutes", "three seven one nine"];
    assert_eq!(texts, said);
}
