//! Any bytes as a recording, a file and a stream: an error, or samples that are numbers.
#![no_main]

use std::io::Cursor;

use candle_engine::audio::{log_mel, Audio};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let file = Audio::from_bytes("fuzz", data.to_vec());
    let stream = Audio::from_stream("fuzz", Cursor::new(data.to_vec()));
    for audio in [file, stream].into_iter().flatten() {
        let _ = audio.duration();
        for piece in audio {
            let Ok(piece) = piece else { break };
            assert!(!piece.is_empty() && piece.iter().all(|x| x.is_finite()));
            let mel = log_mel(&piece[..piece.len().min(4_000)], 80);
            assert!(mel.data.iter().all(|y| y.is_finite()));
        }
    }
});
