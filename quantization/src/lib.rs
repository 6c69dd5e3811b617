//! Number formats: how a stored matrix becomes a [`Linear`](candle_engine::weights::Linear).
//!
//! One file per kind of format. [`Loader`] picks the kind from what is stored, so models never name a format.
#![forbid(unsafe_code)]

mod check;
mod dense;
mod gguf_blocks;
mod loader;

pub use self::check::{non_finite, NonFinite};
pub use self::loader::{Embedding, Loader};
