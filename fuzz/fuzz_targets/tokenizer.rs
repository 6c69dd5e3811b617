//! Any bytes as a tokenizer.json, and what it reads encodes and decodes.
#![no_main]

use candle_engine::text::Tokenizer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_bytes(data) else { return };
    for text in ["Hello, wörld! 123", " a\n\tb  ", "日本語 🙂\u{200d}🙂"] {
        if let Ok(ids) = tokenizer.encode(text, true) {
            let _ = tokenizer.decode(&ids, false);
            let mut stream = tokenizer.stream();
            for id in ids {
                let _ = stream.push(id);
            }
            let _ = stream.flush();
        }
    }
});
