//! Whisper: speech to text.
//!
//! [`Whisper`] is the model: an [`Encoder`] of log-mel windows and a [`TextDecoder`] of tokens over what it gives.

mod alignment_heads;
mod config;
mod decoder;
mod encoder;
mod ggml;
pub mod languages;
mod layer;
mod model;
mod open;
mod tokens;

pub use self::config::{StackDims, WhisperConfig};
pub use self::decoder::{Memory, Seen, TextDecoder};
pub use self::encoder::Encoder;
pub use self::model::Whisper;
pub use self::tokens::{Task, Tokens};
