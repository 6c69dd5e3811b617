//! Tokenizers, chat templates, samplers, stop strings.

pub mod sampler;
pub mod stop;
