//! Any bytes as a GGUF file: its tensors, its configuration and its tokenizer.
#![no_main]

use candle_engine::text::Tokenizer;
use candle_engine::weights::gguf::Gguf;
use candle_engine::weights::Weights;
use candle_engine_models::decoder::family;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = Gguf::from_bytes("fuzz", data.to_vec().into()) else { return };
    for name in file.names() {
        let stored = file.get(&name).expect("a name that was listed");
        assert_eq!(Some(stored.bytes.len()), stored.format.bytes(&stored.shape));
    }
    let _ = family::from_gguf(&file);
    if let Ok(tokenizer) = Tokenizer::from_gguf(file.metadata()) {
        let ids = tokenizer.encode("Hello, wörld! 123", true).unwrap_or_default();
        let _ = tokenizer.decode(&ids, false);
    }
});
