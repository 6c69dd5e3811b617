//! Short programs on the public API: see `generate.rs`, `chat.rs` and `transcribe.rs` beside this file.
