//! Products in matrix registers, of bytes and of bf16.

use crate::kernels::amx::{self, Shape, Tiles, ROW, ROWS};

/// Multiplications for each round: as many sums as kernels keep.
const SUMS: usize = 4;

/// Products of bytes, on the calling thread; returns the operations done.
///
/// # Safety
///
/// The CPU has matrix registers, and no other code of this thread uses them.
pub unsafe fn bytes(rounds: usize) -> usize {
    // SAFETY: by the contract.
    unsafe {
        let _tiles = Tiles::new([Shape::WHOLE; 8]);
        for _ in 0..rounds {
            amx::dot_bytes::<0, 4, 6>();
            amx::dot_bytes::<1, 4, 7>();
            amx::dot_bytes::<2, 5, 6>();
            amx::dot_bytes::<3, 5, 7>();
        }
    }
    2 * SUMS * ROWS * ROWS * ROW * rounds
}

/// The same of bf16.
///
/// # Safety
///
/// As [`bytes`].
pub unsafe fn pairs(rounds: usize) -> usize {
    // SAFETY: by the contract.
    unsafe {
        let _tiles = Tiles::new([Shape::WHOLE; 8]);
        for _ in 0..rounds {
            amx::dot_pairs::<0, 4, 6>();
            amx::dot_pairs::<1, 4, 7>();
            amx::dot_pairs::<2, 5, 6>();
            amx::dot_pairs::<3, 5, 7>();
        }
    }
    SUMS * ROWS * ROWS * ROW * rounds
}
