//! Any bytes as a file of whisper.cpp's that finds speech: an error, or a network that runs.
#![no_main]

use candle_engine::weights::GgmlVad;
use candle_engine_models::vad::SileroVad;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = GgmlVad::from_bytes("fuzz", data.to_vec().into()) else { return };
    let Ok(vad) = SileroVad::from_ggml(&file) else { return };
    let probabilities = vad.probabilities(&[0.1; 1000], &mut vad.state()).expect("sizes that were checked");
    // Of weights that are no numbers comes none.
    assert!(probabilities.len() == 2 && probabilities.iter().all(|p| p.is_nan() || (0.0..=1.0).contains(p)));
});
