//! Keys and values in blocks: the number formats, and how new rows get in.
//!
//! Within a block and head, keys are stored `[d, BLOCK]` and values `[BLOCK, d]`: both products of attention
//! then run along contiguous numbers and no register is ever summed across. Rows of int8 numbers are stored two by two,
//! number by number, as instructions that add two products take them: keys `[d / 2, BLOCK, 2]`, with a last row of
//! its own where `d` is odd, and values `[BLOCK / 2, d, 2]`.

use half::f16;

use crate::kernels::lanes::{per_isa, Arith, LANES};
use crate::kernels::Isa;
use crate::kv::BLOCK;

/// Keys or values of one block.
#[derive(Debug, Clone, Copy)]
pub enum KvSlice<'a> {
    /// 4 bytes a number.
    F32(&'a [f32]),
    /// 2 bytes a number.
    F16(&'a [f16]),
    /// 1 byte a number, rows two by two, and what a head's numbers of each position are to be multiplied by:
    /// `[g, BLOCK]`.
    I8(&'a [i8], &'a [f32]),
}

/// Keys or values of one block, to be written.
#[derive(Debug)]
pub enum KvSliceMut<'a> {
    /// 4 bytes a number.
    F32(&'a mut [f32]),
    /// 2 bytes a number, rounded to nearest even.
    F16(&'a mut [f16]),
    /// 1 byte a number, rows two by two, and `[g, BLOCK]` scales: 127 is a head's largest number of a position.
    I8(&'a mut [i8], &'a mut [f32]),
}

/// Writes new keys into a block, from the position `at` within it.
///
/// Shapes: `keys [t, g, d]` → `block [g, d, BLOCK]`, columns `at..at + t`.
///
/// # Panics
///
/// If the rows do not fit.
pub fn append_keys(kv_heads: usize, d: usize, keys: &[f32], at: usize, block: KvSliceMut) {
    append_keys_on(Isa::best(), kv_heads, d, keys, at, block);
}

fn append_keys_on(isa: Isa, g: usize, d: usize, keys: &[f32], at: usize, block: KvSliceMut) {
    let t = rows(g * d, keys, at);
    match block {
        KvSliceMut::F32(block) => {
            assert_eq!(block.len(), g * d * BLOCK, "append_keys: block");
            for (i, column) in block.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
                for (j, number) in column[at..at + t].iter_mut().enumerate() {
                    *number = keys[j * g * d + i];
                }
            }
        }
        KvSliceMut::F16(block) => {
            assert_eq!(block.len(), g * d * BLOCK, "append_keys: block");
            #[inline(always)]
            fn scatter(arith: impl Arith, keys: &[f32], at: usize, block: &mut [f16]) {
                let (columns, _) = block.as_chunks_mut::<BLOCK>();
                for (j, key) in keys.chunks_exact(columns.len()).enumerate() {
                    for (key, columns) in key.chunks(LANES).zip(columns.chunks_mut(LANES)) {
                        for (number, column) in arith.narrow(&padded(key)).into_iter().zip(columns) {
                            column[at + j] = number;
                        }
                    }
                }
            }
            per_isa!(isa, scatter, (keys: &[f32], at: usize, block: &mut [f16]));
        }
        KvSliceMut::I8(block, scales) => {
            assert_eq!((block.len(), scales.len()), (g * d * BLOCK, g * BLOCK), "append_keys: block");
            #[inline(always)]
            fn quantize(
                _: impl Arith,
                d: usize,
                keys: &[f32],
                at: usize,
                block: &mut [i8],
                scales: &mut [f32],
            ) {
                let g = scales.len() / BLOCK;
                for (i, key) in keys.chunks_exact(d).enumerate() {
                    let (j, head) = (at + i / g, i % g);
                    let (scale, inverse) = scale(key);
                    scales[head * BLOCK + j] = scale;
                    let columns = block[head * d * BLOCK..].chunks_mut(2 * BLOCK);
                    for (numbers, columns) in key.chunks(2).zip(columns) {
                        let columns = &mut columns[j * numbers.len()..];
                        for (number, column) in numbers.iter().zip(columns) {
                            *column = round(number * inverse);
                        }
                    }
                }
            }
            per_isa!(isa, quantize, (d: usize, keys: &[f32], at: usize, block: &mut [i8], scales: &mut [f32]));
        }
    }
}

/// Writes new values into a block, from the position `at` within it.
///
/// Shapes: `values [t, g, d]` → `block [g, BLOCK, d]`, rows `at..at + t` of each head.
///
/// # Panics
///
/// If the rows do not fit.
pub fn append_values(kv_heads: usize, d: usize, values: &[f32], at: usize, block: KvSliceMut) {
    append_values_on(Isa::best(), kv_heads, d, values, at, block);
}

fn append_values_on(isa: Isa, g: usize, d: usize, values: &[f32], at: usize, block: KvSliceMut) {
    rows(g * d, values, at);
    let rows = values.chunks_exact((g * d).max(1)).enumerate();
    let places = rows.flat_map(|(j, row)| {
        let heads = row.chunks_exact(d.max(1)).enumerate();
        heads.map(move |(head, value)| ((head * BLOCK + at + j) * d, value))
    });
    match block {
        KvSliceMut::F32(block) => {
            assert_eq!(block.len(), g * d * BLOCK, "append_values: block");
            for (to, value) in places {
                block[to..to + d].copy_from_slice(value);
            }
        }
        KvSliceMut::F16(block) => {
            assert_eq!(block.len(), g * d * BLOCK, "append_values: block");
            #[inline(always)]
            fn narrow(arith: impl Arith, value: &[f32], to: &mut [f16]) {
                for (x, to) in value.chunks(LANES).zip(to.chunks_mut(LANES)) {
                    to.copy_from_slice(&arith.narrow(&padded(x))[..to.len()]);
                }
            }
            for (to, value) in places {
                let to = &mut block[to..to + d];
                per_isa!(isa, narrow, (value: &[f32], to: &mut [f16]));
            }
        }
        KvSliceMut::I8(block, scales) => {
            assert_eq!((block.len(), scales.len()), (g * d * BLOCK, g * BLOCK), "append_values: block");
            #[inline(always)]
            fn quantize(_: impl Arith, value: &[f32], to: &mut [i8], to_scale: &mut f32) {
                let (scale, inverse) = scale(value);
                *to_scale = scale;
                for (number, to) in value.iter().zip(to.iter_mut().step_by(2)) {
                    *to = round(number * inverse);
                }
            }
            for (to, value) in places {
                // The row before an odd one stands between its numbers.
                let (row, odd) = (to / d, to / d % 2);
                let (to, scale) = (&mut block[(row - odd) * d + odd..], &mut scales[row]);
                per_isa!(isa, quantize, (value: &[f32], to: &mut [i8], scale: &mut f32));
            }
        }
    }
}

/// What the numbers are to be multiplied by once they are integers, and before.
#[inline(always)]
fn scale(x: &[f32]) -> (f32, f32) {
    // Magnitudes are in the order of their bits, and NaN is above them all: it makes the scale NaN.
    let largest = x.iter().fold(0, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff));
    let largest = f32::from_bits(largest);
    (largest / 127.0, if largest == 0.0 { 0.0 } else { 127.0 / largest })
}

/// The nearest integer, of halves the even one, for a magnitude of at most 127.
#[inline(always)]
fn round(x: f32) -> i8 {
    // The integer then stands in the low bits: 1.5 · 2²³.
    (x + 12_582_912.0).to_bits() as i8
}

/// Number of rows; asserts that they are whole and fit behind `at`.
fn rows(width: usize, x: &[f32], at: usize) -> usize {
    let t = x.len().checked_div(width).unwrap_or(0);
    assert_eq!(x.len(), t * width, "append: whole rows of {width}");
    assert!(at + t <= BLOCK, "append: {t} rows at {at} of {BLOCK}");
    t
}

#[inline(always)]
fn padded(x: &[f32]) -> [f32; LANES] {
    if let Ok(x) = x.try_into() {
        return x;
    }
    let mut out = [0.0; LANES];
    out[..x.len()].copy_from_slice(x);
    out
}
