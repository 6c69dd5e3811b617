//! Quantizing models: to a folder or a GGUF file, or while loading.

mod folder;
mod gguf;
mod gguf_tokenizer;
mod job;
mod memory;
mod mlp;
mod origin;
mod recipe;
mod report;
mod smooth;
mod whisper;

pub use self::folder::write_folder;
pub use self::gguf::write_gguf;
pub use self::mlp::write_mlp;
pub use self::origin::Origin;
pub use self::recipe::{Plan, Recipe, Step};
pub use self::report::{Report, Written};
pub use self::smooth::{Calibration, ALPHA};
pub use self::whisper::{is_whisper, write_whisper_folder};
pub use candle_engine_quantization::write::Staged;
pub use candle_engine_quantization::{Deviation, Observer, Target};

pub(crate) use self::memory::{in_memory, InMemory};
pub(crate) use self::whisper::whisper_in_memory;
