//! The model zoo: open a model by path or name, and it answers.
//!
//! ```
//! use candle_engine_models::{GenerateOptions, LoadOptions, Model};
//!
//! # fn main() -> candle_engine_models::Result<()> {
//! # #[cfg(feature = "builtin")] {
//! let model = Model::open("builtin", &LoadOptions::default())?;
//! let mut session = model.session();
//! let prompt = model.encode("Once upon a time")?;
//! let options = GenerateOptions { max_tokens: Some(16), ..model.options() };
//! for piece in model.generate(&mut session, &prompt, &options)? {
//!     print!("{}", piece?.text);
//! }
//! # }
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod blocks;
#[cfg(feature = "builtin")]
mod builtin;
mod checkpoint;
pub mod decoder;
pub mod evaluate;
mod hf_config;
pub mod mlp;
mod model;
pub mod quantize;
pub mod random;
mod source;
pub mod vad;
pub mod whisper;

pub use candle_engine::session::{
    FinishReason, GenerateOptions, Generation, LanguageModel, Piece, Session, Stats,
};
pub use candle_engine::text::{ChatTemplate, Message, SamplerOptions, Tokenizer};
pub use candle_engine::{Error, ErrorKind, Result};

pub use self::checkpoint::{totals, Checkpoint, FormatTotal};
pub use self::hf_config::HfConfig;
pub use self::model::{LoadOptions, Model};
pub use self::source::Source;
