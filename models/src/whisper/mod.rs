//! Whisper: speech to text.
//!
//! [`Whisper`] is the model: an [`Encoder`] of log-mel windows and a [`TextDecoder`] of tokens over what it gives.
//! [`Whisper::transcribe`] makes segments of a [`Recording`], window after window, as the reference does.
//!
//! ```no_run
//! use candle_engine::audio::Audio;
//! use candle_engine_models::whisper::{TranscribeOptions, Whisper};
//! use candle_engine_models::LoadOptions;
//!
//! # fn main() -> candle_engine_models::Result<()> {
//! let whisper = Whisper::open("turbo", &LoadOptions::default())?; // or a folder, or a ggml-*.bin file
//! let recording = whisper.listen(Audio::open("talk.mp3")?); // or `listen_to` pieces of samples
//! for segment in whisper.transcribe(recording, &TranscribeOptions::default())? {
//!     let segment = segment?;
//!     println!("{:.2} {:.2} {}", segment.start, segment.end, segment.text);
//! }
//! # Ok(())
//! # }
//! ```

mod alignment_heads;
mod compression;
mod config;
mod decode;
mod decoder;
mod encoder;
mod ggml;
mod hallucination;
pub mod languages;
mod layer;
mod listen;
mod model;
mod open;
mod prefixed;
mod probability;
pub mod random;
mod recording;
mod segment;
mod tokens;
mod transcribe;
mod words;
mod write;

pub(crate) use self::prefixed::prefixed;

pub use self::compression::compression_ratio;
pub use self::config::{StackDims, WhisperConfig};
pub use self::decode::{Attempt, Context, DecodeOptions, Decoded, LanguageProbability, Thresholds, Verdict};
pub use self::decoder::{Memory, Seen, TextDecoder};
pub use self::encoder::Encoder;
pub use self::listen::Listener;
pub use self::model::Whisper;
pub use self::recording::{Recording, Spectrogram, FRAMES_PER_SECOND};
pub use self::segment::{Outcome, Segment, WindowReport};
pub use self::tokens::{Task, Tokens};
pub use self::transcribe::{SpeechGate, TranscribeOptions, Transcription, Transcriptions, Turn};
pub use self::words::{Punctuation, Word};
pub use self::write::{timestamp, SubtitleOptions, Transcript, TranscriptFormat};
