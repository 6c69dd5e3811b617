//! Spectrograms against transformers' own (`tests/reference/make_log_mel.py`).

use std::path::Path;

use candle_engine::audio::log_mel;
use candle_engine::weights::{SafeTensors, Weights};

#[test]
fn spectrograms_are_those_of_the_reference() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/audio/log_mel.safetensors");
    let fixture = SafeTensors::open(&path).unwrap();
    let samples = fixture.get("samples").unwrap();
    let (samples, _) = samples.bytes.as_chunks();
    let samples: Vec<f32> = samples.iter().map(|&x| f32::from(i16::from_le_bytes(x)) / 32_768.0).collect();
    for n_mels in [80, 128] {
        let want = fixture.get(&format!("log_mel.{n_mels}")).unwrap();
        let want: Vec<f32> = want.bytes.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect();
        let got = log_mel(&samples, n_mels);
        assert_eq!((got.n_mels, got.data.len()), (n_mels, want.len()));
        for (i, got) in got.data.iter().enumerate() {
            // The reference has a band's frames side by side.
            let (frame, band) = (i / n_mels, i % n_mels);
            let want = want[band * (want.len() / n_mels) + frame];
            assert!((got - want).abs() < 1e-4, "frame {frame}, band {band} of {n_mels}: {got}, not {want}");
        }
    }
}
