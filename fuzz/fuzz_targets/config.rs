//! Any bytes as a config.json: an error, or sizes that agree.
#![no_main]

use candle_engine_models::decoder::family;
use candle_engine_models::HfConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(config) = HfConfig::from_bytes("fuzz", data) else { return };
    if let Ok(decoder) = family::from_hf(&config) {
        decoder.validate().expect("what was accepted is valid");
        if decoder.dims.head_dim <= 4096 {
            let _ = decoder.rope.frequencies();
        }
    }
});
