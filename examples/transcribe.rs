//! Writes down what is said: `cargo run --release -p candle-engine-examples --example transcribe -- MODEL FILE`

use candle_engine::audio::Audio;
use candle_engine_models::whisper::{TranscribeOptions, Whisper};
use candle_engine_models::{LoadOptions, Result};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(model), Some(file)) = (args.next(), args.next()) else {
        eprintln!("usage: transcribe MODEL FILE");
        return Ok(());
    };
    let whisper = Whisper::open(&model, &LoadOptions::default())?;
    let recording = whisper.listen(Audio::open(file)?);
    for segment in whisper.transcribe(recording, &TranscribeOptions::default())? {
        let segment = segment?;
        println!("{:8.2} {:8.2} {}", segment.start, segment.end, segment.text);
    }
    Ok(())
}
