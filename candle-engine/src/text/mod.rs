//! Tokenizers, chat templates, samplers, stop strings.

pub mod chat;
pub mod sampler;
pub mod stop;
mod stream;
mod tokenizer;

pub use self::chat::{ChatTemplate, Message};
pub use self::sampler::{Sampler, SamplerOptions};
pub use self::stop::StopMatcher;
pub use self::stream::DecodeStream;
pub use self::tokenizer::Tokenizer;

/// Regular expressions that published byte-level tokenizers cut texts by.
pub mod patterns {
    pub use super::tokenizer::{LLAMA3, QWEN2};
}
