//! How the block formats pack their numbers. What is written here is the specification; a number is
//! `scale · (quant − OFFSET) + min`, of a block with integers of its own for every period
//! `(scale · sub-scale) · (quant − OFFSET) + min · sub-min`.
//!
//! Source: the block layouts in ggml's `ggml-common.h` and `ggml-quants.c` (`dequantize_row_*`).

use crate::weights::Format;

/// Numbers that are unpacked at once.
pub const GROUP: usize = 32;

/// A block format.
pub trait Block: Sync {
    /// Its name; gives [`Self::LEN`] and [`Self::BYTES`].
    const FORMAT: Format;
    /// Numbers in a block: those under one scale, of the activations too.
    const LEN: usize = Self::FORMAT.block().0;
    /// Bytes of a block.
    const BYTES: usize = Self::FORMAT.block().1;
    /// Numbers of a period, under one sub-scale: 16 or 32. Where that is all of the block, there are none.
    const PERIOD: usize = GROUP;
    /// Quants are unsigned and of so many bits; but 8 means signed.
    const BITS: u32;
    /// What is taken from every quant.
    const OFFSET: i32;
    /// Whether there is a `min`.
    const HAS_MIN: bool;

    /// The quants of the block's numbers `32·g..32·(g + 1)`, in order.
    fn quants(block: &[u8], g: usize) -> [u8; GROUP];

    /// Scale and min of the block.
    fn scale(block: &[u8]) -> (f32, f32);

    /// Sub-scale, of at most 8 bits with its sign, and sub-min, of 6 without, of the block's numbers
    /// `PERIOD·i..PERIOD·(i + 1)`.
    fn sub_scale(block: &[u8], i: usize) -> (i32, i32) {
        let _ = (block, i);
        (1, 1)
    }
}

/// Whether a format has sub-scales.
pub const fn has_sub_scales<B: Block>() -> bool {
    B::LEN > B::PERIOD
}

/// Number `i` of a block.
#[inline(always)]
pub fn number<B: Block>(block: &[u8], i: usize) -> f32 {
    let ((scale, min), (sub_scale, sub_min)) = (B::scale(block), B::sub_scale(block, i / B::PERIOD));
    let quant = B::quants(block, i / GROUP)[i % GROUP];
    let quant = if B::BITS == 8 { i32::from(quant as i8) } else { i32::from(quant) };
    (scale * sub_scale as f32).mul_add((quant - B::OFFSET) as f32, min * sub_min as f32)
}

/// The half float at byte `at`.
#[inline(always)]
fn half(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// A half float's value, exact for every bit pattern, without a branch or a table.
#[inline(always)]
fn f16_to_f32(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff);
    // 2^112 moves the exponent's bias from 15 to 127, and normalizes what was subnormal.
    let value = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
    let special = if magnitude >= 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(value.to_bits() | special | (u32::from(bits & 0x8000) << 16))
}

/// The four-bit halves of 16 bytes: all the low ones, then all the high ones.
#[inline(always)]
fn nibbles(bytes: &[u8]) -> [u8; GROUP] {
    let (bytes, mut out) = (&bytes[..GROUP / 2], [0; GROUP]);
    for i in 0..GROUP / 2 {
        (out[i], out[i + GROUP / 2]) = (bytes[i] & 15, bytes[i] >> 4);
    }
    out
}

/// [`nibbles`], with a fifth bit from the 32 at `high`.
#[inline(always)]
fn nibbles_and_bits(bytes: &[u8], high: &[u8]) -> [u8; GROUP] {
    let (low, high) = (nibbles(bytes), &high[..4]);
    std::array::from_fn(|i| low[i] | (((high[i / 8] >> (i % 8)) & 1) << 4))
}

/// `(byte >> shift) & mask` of 32 bytes.
#[inline(always)]
fn bits(bytes: &[u8], shift: usize, mask: u8) -> [u8; GROUP] {
    let (bytes, mut out) = (&bytes[..GROUP], [0; GROUP]);
    for i in 0..GROUP {
        out[i] = (bytes[i] >> shift) & mask;
    }
    out
}

#[inline(always)]
fn join(mut low: [u8; GROUP], high: [u8; GROUP], shift: u32) -> [u8; GROUP] {
    for i in 0..GROUP {
        low[i] |= high[i] << shift;
    }
    low
}

/// The six-bit sub-scale and sub-min of Q4_K and Q5_K: the first four pairs lie in the low bits of bytes 0–3 and
/// 4–7, the last four in the halves of bytes 8–11 and the high bits of the others.
#[inline(always)]
fn six_bits(packed: &[u8], i: usize) -> (i32, i32) {
    let packed = &packed[..12];
    let (scale, min) = if i < 4 {
        (packed[i] & 63, packed[i + 4] & 63)
    } else {
        ((packed[i + 4] & 15) | ((packed[i - 4] >> 6) << 4), (packed[i + 4] >> 4) | ((packed[i] >> 6) << 4))
    };
    (i32::from(scale), i32::from(min))
}

/// `d` (2 bytes), 32 signed bytes.
pub struct Q8_0;

impl Block for Q8_0 {
    const FORMAT: Format = Format::Q8_0;
    const BITS: u32 = 8;
    const OFFSET: i32 = 0;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn quants(block: &[u8], _: usize) -> [u8; GROUP] {
        bits(&block[2..], 0, 0xff)
    }

    #[inline(always)]
    fn scale(block: &[u8]) -> (f32, f32) {
        (half(block, 0), 0.0)
    }
}

/// `d`, 32 nibbles.
pub struct Q4_0;

impl Block for Q4_0 {
    const FORMAT: Format = Format::Q4_0;
    const BITS: u32 = 4;
    const OFFSET: i32 = 8;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn quants(block: &[u8], _: usize) -> [u8; GROUP] {
        nibbles(&block[2..])
    }

    #[inline(always)]
    fn scale(block: &[u8]) -> (f32, f32) {
        (half(block, 0), 0.0)
    }
}

/// `d`, `m`, 32 nibbles.
pub struct Q4_1;

impl Block for Q4_1 {
    const FORMAT: Format = Format::Q4_1;
    const BITS: u32 = 4;
    const OFFSET: i32 = 0;
    const HAS_MIN: bool = true;

    #[inline(always)]
    fn quants(block: &[u8], _: usize) -> [u8; GROUP] {
        nibbles(&block[4..])
    }

    #[inline(always)]
    fn scale(block: &[u8]) -> (f32, f32) {
        (half(block, 0), half(block, 2))
    }
}

/// `d`, 32 fifth bits, 32 nibbles.
pub struct Q5_0;

impl Block for Q5_0 {
    const FORMAT: Format = Format::Q5_0;
    const BITS: u32 = 5;
    const OFFSET: i32 = 16;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn quants(block: &[u8], _: usize) -> [u8; GROUP] {
        nibbles_and_bits(&block[6..], &block[2..])
    }

    #[inline(always)]
    fn scale(block: &[u8]) -> (f32, f32) {
        (half(block, 0), 0.0)
    }
}

/// `d`, `m`, 32 fifth bits, 32 nibbles.
pub struct Q5_1;

impl Block for Q5_1 {
    const FORMAT: Format = Format::Q5_1;
    const BITS: u32 = 5;
    const OFFSET: i32 = 0;
    const HAS_MIN: bool = true;

    #[inline(always)]
    fn quants(block: &[u8], _: usize) -> [u8; GROUP] {
        nibbles_and_bits(&block[8..], &block[4..])
    }

    #[inline(always)]
    fn scale(block: &[u8]) -> (f32, f32) {
        (half(block, 0), half(block, 2))
    }
}

/// 16 bytes of scale and min nibbles, 64 bytes of two bits, `d`, `dmin`.
pub struct Q2K;

impl Block for Q2K {
    const FORMAT: Format = Format::Q2_K;
    const PERIOD: usize = 16;
    const BITS: u32 = 2;
    const OFFSET: i32 = 0;
    const HAS_MIN: bool = true;

    #[inline(always)]
    fn quants(block: &[u8], g: usize) -> [u8; GROUP] {
        bits(&block[16 + g / 4 * 32..], g % 4 * 2, 3)
    }

    #[inline(always)]
    fn scale(block: &[u8]) -> (f32, f32) {
        (half(block, 80), -half(block, 82))
    }

    #[inline(always)]
    fn sub_scale(block: &[u8], i: usize) -> (i32, i32) {
        (i32::from(block[i] & 15), i32::from(block[i] >> 4))
    }
}

/// 32 bytes of third bits, 64 bytes of two bits, 12 bytes of six-bit scales, `d`.
pub struct Q3K;

impl Block for Q3K {
    const FORMAT: Format = Format::Q3_K;
    const PERIOD: usize = 16;
    const BITS: u32 = 3;
    const OFFSET: i32 = 4;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn quants(block: &[u8], g: usize) -> [u8; GROUP] {
        join(bits(&block[32 + g / 4 * 32..], g % 4 * 2, 3), bits(block, g, 1), 2)
    }

    #[inline(always)]
    fn scale(block: &[u8]) -> (f32, f32) {
        (half(block, 108), 0.0)
    }

    #[inline(always)]
    fn sub_scale(block: &[u8], i: usize) -> (i32, i32) {
        let packed = &block[96..108];
        let low = (packed[i % 8] >> (i / 8 * 4)) & 15;
        let high = (packed[8 + i % 4] >> (i / 4 * 2)) & 3;
        (i32::from(low | (high << 4)) - 32, 0)
    }
}

/// `d`, `dmin`, 12 bytes of six-bit scales and mins, 128 bytes of nibbles.
pub struct Q4K;

impl Block for Q4K {
    const FORMAT: Format = Format::Q4_K;
    const BITS: u32 = 4;
    const OFFSET: i32 = 0;
    const HAS_MIN: bool = true;

    #[inline(always)]
    fn quants(block: &[u8], g: usize) -> [u8; GROUP] {
        bits(&block[16 + g / 2 * 32..], g % 2 * 4, 15)
    }

    #[inline(always)]
    fn scale(block: &[u8]) -> (f32, f32) {
        (half(block, 0), -half(block, 2))
    }

    #[inline(always)]
    fn sub_scale(block: &[u8], i: usize) -> (i32, i32) {
        six_bits(&block[4..], i)
    }
}

/// `d`, `dmin`, 12 bytes of six-bit scales and mins, 32 bytes of fifth bits, 128 bytes of nibbles.
pub struct Q5K;

impl Block for Q5K {
    const FORMAT: Format = Format::Q5_K;
    const BITS: u32 = 5;
    const OFFSET: i32 = 0;
    const HAS_MIN: bool = true;

    #[inline(always)]
    fn quants(block: &[u8], g: usize) -> [u8; GROUP] {
        join(bits(&block[48 + g / 2 * 32..], g % 2 * 4, 15), bits(&block[16..], g, 1), 4)
    }

    #[inline(always)]
    fn scale(block: &[u8]) -> (f32, f32) {
        (half(block, 0), -half(block, 2))
    }

    #[inline(always)]
    fn sub_scale(block: &[u8], i: usize) -> (i32, i32) {
        six_bits(&block[4..], i)
    }
}

/// 128 bytes of nibbles, 64 bytes of two high bits, 16 signed scales, `d`.
pub struct Q6K;

impl Block for Q6K {
    const FORMAT: Format = Format::Q6_K;
    const PERIOD: usize = 16;
    const BITS: u32 = 6;
    const OFFSET: i32 = 32;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn quants(block: &[u8], g: usize) -> [u8; GROUP] {
        let (half, quarter) = (g / 4, g % 4);
        let low = bits(&block[half * 64 + quarter % 2 * 32..], quarter / 2 * 4, 15);
        join(low, bits(&block[128 + half * 32..], quarter * 2, 3), 4)
    }

    #[inline(always)]
    fn scale(block: &[u8]) -> (f32, f32) {
        (half(block, 208), 0.0)
    }

    #[inline(always)]
    fn sub_scale(block: &[u8], i: usize) -> (i32, i32) {
        (i32::from(block[192 + i] as i8), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_float_is_exact() {
        for bits in 0..=u16::MAX {
            let (got, expected) = (f16_to_f32(bits), half::f16::from_bits(bits).to_f32());
            assert!(got == expected || got.is_nan() && expected.is_nan(), "{bits:#x}: {got} {expected}");
            assert_eq!(got.is_sign_negative(), expected.is_sign_negative());
        }
    }
}
