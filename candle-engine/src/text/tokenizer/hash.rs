//! One hash for tokens: a few multiplications, seeded per process.
//!
//! A vocabulary is 10⁵ short strings and twice as many pairs, all hashed before the first token, so the
//! standard library's SipHash would be the largest part of loading. The seed keeps a crafted file from
//! steering every entry into one chain.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

/// Odd, and with about as many ones as zeros: the golden ratio's fraction in 64 bits.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));

/// The seed to begin with; the same for the whole process.
pub(super) fn seed() -> u64 {
    *SEED
}

/// Both halves of the 128-bit product, so that every input bit reaches every output bit.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// Hashes a string.
pub(super) fn of_bytes(seed: u64, bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(8);
    let mut state = seed ^ bytes.len() as u64;
    for word in &mut words {
        state = fold(state ^ u64::from_le_bytes(word.try_into().unwrap_or_default()), MIX);
    }
    let mut tail = [0; 8];
    tail[..words.remainder().len()].copy_from_slice(words.remainder());
    fold(state ^ u64::from_le_bytes(tail), MIX)
}
