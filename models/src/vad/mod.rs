//! Silero's voice activity detection: which parts of a recording are speech.
//!
//! [`SileroVad`] is the network for 16 kHz of the published models v5 and v6, a probability for each window of 32 ms;
//! [`SpeechTimestamps`] makes speech of probabilities. [`SpeechDetector`] does both for samples as they come, and
//! [`Listener::only_speech`](crate::whisper::Listener::only_speech) leaves out of a transcript what is none.
//!
//! ```no_run
//! use candle_engine::audio::Audio;
//! use candle_engine_models::vad::{SileroVad, SpeechDetector, SpeechOptions};
//!
//! # fn main() -> candle_engine_models::Result<()> {
//! let vad = SileroVad::open("ggml-silero-v5.1.2.bin")?; // or a safetensors file
//! let mut detector = SpeechDetector::new(&vad, &SpeechOptions::default())?;
//! for samples in Audio::open("talk.mp3")? {
//!     detector.push(&samples?)?;
//!     while let Some(speech) = detector.take() {
//!         println!("{:.2} {:.2}", speech.start as f64 / 16e3, speech.end as f64 / 16e3);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod checkpoint;
mod detector;
mod network;
mod timestamps;

pub use self::detector::SpeechDetector;
pub use self::network::{SileroVad, VadState};
pub use self::timestamps::{SpeechOptions, SpeechTimestamps};

/// Samples of a window, at 16 kHz.
pub const WINDOW: usize = 512;
