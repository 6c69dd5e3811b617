//! Quantizing models: to a folder or a GGUF file, or while loading.

mod folder;
mod gguf;
mod gguf_tokenizer;
mod job;
mod memory;
mod origin;
mod recipe;
mod report;
mod smooth;

pub use self::folder::write_folder;
pub use self::gguf::write_gguf;
pub use self::origin::Origin;
pub use self::recipe::{Plan, Recipe, Step};
pub use self::report::{Report, Written};
pub use self::smooth::{Calibration, ALPHA};
pub use candle_engine_quantization::write::Staged;
pub use candle_engine_quantization::{Deviation, Observer, Target};

pub(crate) use self::memory::{in_memory, InMemory};
