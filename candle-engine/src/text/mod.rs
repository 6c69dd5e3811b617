//! Tokenizers, chat templates, samplers.
