//! The engine: weights that are mapped and never copied, CPU kernels picked at run time, fused ops,
//! KV blocks, text and sessions. The model zoo stands on it; see the crate `candle-engine-models`.

#![deny(unsafe_code)] // but for the kernels, and for mapping a file

pub mod audio;
pub mod error;
#[cfg(feature = "hub")]
pub mod hub;
#[allow(unsafe_code)]
pub mod kernels;
pub mod kv;
pub mod memory;
pub mod ops;
pub mod session;
pub mod text;
pub mod train;
pub mod weights;

pub use error::{Context, Error, ErrorKind, Result};
