//! One causal decoder for all Llama-style families.

mod config;
pub mod family;
mod model;
mod names;

pub use self::config::{DecoderConfig, Dims, LayerKind};
pub use self::model::Decoder;
pub use self::names::{Parts, TensorNames, GGUF, HF};
