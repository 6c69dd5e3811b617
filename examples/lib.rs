//! Short programs on the public API: see `generate.rs`, `chat.rs`, `transcribe.rs`, `train_mlp.rs` and `spirals.rs`
//! beside this file.
