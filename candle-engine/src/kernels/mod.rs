//! Plain slices in, plain slices out.

pub mod act;
pub mod blocks;
pub mod isa;
pub mod matmul;
pub mod threads;

pub use act::Act;
pub use isa::Isa;
