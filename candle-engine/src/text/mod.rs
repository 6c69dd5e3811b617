//! Tokenizers, chat templates, samplers, stop strings.

pub mod chat;
pub mod sampler;
pub mod stop;
