//! Any bytes as a safetensors file: an error or tensors whose bytes are as many as they say, some of them matrices of
//! small integers.
#![no_main]

use candle_engine::weights::{SafeTensors, Weights};
use candle_engine_quantization::compressed_tensors::{matrix, suffix};
use candle_engine_quantization::tensors;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(all) = SafeTensors::from_bytes("fuzz", data.to_vec().into()) {
        for name in all.names() {
            let stored = all.get(&name).expect("a name that was listed");
            assert_eq!(Some(stored.bytes.len()), stored.format.bytes(&stored.shape));
            let _ = stored.rows(0, 1);
            let base = [suffix::PACKED, suffix::WEIGHT].iter().find_map(|end| name.strip_suffix(end));
            let parts = base.and_then(|base| matrix(&all, base).ok()?);
            if let Some(matrix) = parts.and_then(|parts| parts.join().ok()) {
                matrix.dequantize(0, &mut vec![0.0; matrix.shape().1]);
            }
        }
        tensors(&all);
    }
});
