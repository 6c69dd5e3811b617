//! Short programs on the public API: see `generate.rs` and `chat.rs` beside this file.
