//! Recordings as ffmpeg encodes them (`tests/reference/make_recordings.py`): two tones, one in each channel.
#![cfg(feature = "audio")]

use std::f64::consts::TAU;
use std::path::PathBuf;

use candle_engine::audio::{Audio, SAMPLE_RATE};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/audio").join(name)
}

fn samples(name: &str) -> Vec<f32> {
    Audio::open(path(name)).unwrap().samples().unwrap()
}

/// Root mean square of the difference from the channels' mean, begun so many seconds late, away from the ends.
fn error(samples: &[f32], late: f64) -> f64 {
    let (first, count) = (1_000, 14_000);
    let wrong = samples.iter().enumerate().skip(first).take(count).map(|(i, &x)| {
        let time = i as f64 / f64::from(SAMPLE_RATE) - late;
        let tones = 0.25 * (TAU * 440.0 * time).sin() + 0.25 * (TAU * 1250.0 * time).sin();
        (f64::from(x) - tones).powi(2)
    });
    (wrong.sum::<f64>() / count as f64).sqrt()
}

#[test]
fn every_format_sounds_as_it_was_recorded() {
    // What leads AAC into its first frame is told in an edit list, which symphonia does not follow.
    let lead = 1024.0 / 44_100.0;
    for (name, late, tolerance) in
        [("tone.flac", 0.0, 2e-5), ("tone.mp3", 0.0, 0.02), ("tone.ogg", 0.0, 0.02), ("tone.m4a", lead, 0.02)]
    {
        let samples = samples(name);
        assert!((16_000..=16_800).contains(&samples.len()), "{name}: {} samples", samples.len());
        let error = error(&samples, late);
        assert!(error < tolerance, "{name}: {error}");
        let seconds = Audio::open(path(name)).unwrap().duration().unwrap();
        assert!((0.99..1.05).contains(&seconds), "{name}: {seconds} s");
    }
}

#[test]
fn streams_and_memory_give_what_files_give() {
    for name in ["tone.flac", "tone.mp3", "tone.ogg"] {
        let bytes = std::fs::read(path(name)).unwrap();
        let want = samples(name);
        assert_eq!(Audio::from_bytes(name, bytes.clone()).unwrap().samples().unwrap(), want, "{name}");
        if name != "tone.mp3" {
            let stream = std::io::Cursor::new(bytes);
            assert_eq!(Audio::from_stream(name, stream).unwrap().samples().unwrap(), want, "{name}");
        }
    }
}

#[test]
fn a_tag_is_passed_over() {
    // One as long as a large picture, all of whose bytes look like the beginning of a frame.
    let tag = [&b"ID3\x04\0\0\0\x7f\x7f\x7f"[..], &[0xff; 0x1f_ffff]].concat();
    for name in ["tone.mp3", "tone.flac"] {
        let bytes = [&tag[..], &std::fs::read(path(name)).unwrap()].concat();
        let want = samples(name);
        assert_eq!(Audio::from_bytes(name, bytes.clone()).unwrap().samples().unwrap(), want, "{name}");
        let stream = Audio::from_stream(name, std::io::Cursor::new(bytes)).unwrap();
        assert_eq!(stream.samples().unwrap(), want, "{name}");
    }
}

#[test]
fn what_was_cut_off_is_heard_up_to_there() {
    let samples = samples("tone-cut.mp3");
    assert!((6_000..9_000).contains(&samples.len()), "{} samples", samples.len());
    for name in ["tone.flac", "tone.mp3", "tone.ogg", "tone.m4a"] {
        let bytes = std::fs::read(path(name)).unwrap();
        for length in (1..bytes.len()).step_by(97) {
            // An error or some samples, and no panic.
            let audio = Audio::from_bytes(name, bytes[..length].to_vec());
            if let Err(error) = audio.and_then(Audio::samples) {
                assert!(error.to_string().starts_with(name), "{error}");
            }
        }
    }
}

#[test]
fn a_film_without_sound_is_an_error() {
    let error = Audio::open(path("silent.mp4")).unwrap_err().to_string();
    assert!(
        error.ends_with("silent.mp4: isomp4 file without sound: none of its 1 tracks has any"),
        "{error}"
    );
}
