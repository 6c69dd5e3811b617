//! Number formats: how a stored matrix becomes a [`Linear`](candle_engine::weights::Linear), and how a matrix is
//! converted and written.
//!
//! One file per kind of format. [`Loader`] picks the kind from what is stored, so models never name a format.
#![forbid(unsafe_code)]

mod check;
pub mod compressed_tensors;
mod convert;
mod dense;
mod encode;
#[cfg(test)]
mod encode_tests;
mod gguf_blocks;
mod gguf_encode;
mod grouped;
mod int4;
mod int8;
mod loader;
mod observe;
mod rows;
mod target;
mod tensors;
pub mod write;

pub use self::check::{non_finite, NonFinite};
pub use self::convert::{convert, planned};
pub use self::encode::{encode, Deviation, Encoding, Part};
pub use self::loader::{Embedding, Loader};
pub use self::observe::{Observer, Seen};
pub use self::rows::Rows;
pub use self::target::Target;
pub use self::tensors::{tensors, Listed};
