//! Any bytes as a file of whisper.cpp's: its tensors and its tokenizer.
#![no_main]

use candle_engine::text::Tokenizer;
use candle_engine::weights::{Ggml, Weights};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = Ggml::from_bytes("fuzz", data.to_vec().into()) else { return };
    for name in file.names() {
        let stored = file.get(&name).expect("a name that was listed");
        assert_eq!(Some(stored.bytes.len()), stored.format.bytes(&stored.shape));
    }
    if let Ok(tokenizer) = Tokenizer::from_ranks(file.vocabulary(), &["<|endoftext|>".into()]) {
        let ids = tokenizer.encode("Hello, wörld! 123", true).unwrap_or_default();
        let _ = tokenizer.decode(&ids, false);
    }
});
