//! Any bytes as a safetensors file: an error or tensors whose bytes are as many as they say.
#![no_main]

use candle_engine::weights::{SafeTensors, Weights};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(all) = SafeTensors::from_bytes("fuzz", data.to_vec().into()) {
        for name in all.names() {
            let stored = all.get(&name).expect("a name that was listed");
            assert_eq!(Some(stored.bytes.len()), stored.format.bytes(&stored.shape));
            let _ = stored.rows(0, 1);
        }
    }
});
