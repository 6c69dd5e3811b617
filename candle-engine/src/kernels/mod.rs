//! Plain slices in, plain slices out.

pub mod isa;
pub mod threads;

pub use isa::Isa;
