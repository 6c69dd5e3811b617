//! Tokenizers, chat templates, samplers, stop strings.

pub mod chat;
pub mod sampler;
pub mod stop;
mod tokenizer;

pub use self::chat::{ChatTemplate, Message};
pub use self::sampler::{Sampler, SamplerOptions};
pub use self::stop::StopMatcher;
pub use self::tokenizer::{DecodeStream, Tokenizer};
