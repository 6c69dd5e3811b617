//! NaN and infinity in stored tensors.

use std::sync::atomic::{AtomicU64, Ordering};

use candle_engine::kernels::blocks;
use candle_engine::kernels::threads::parallel;
use candle_engine::weights::{Format, Stored};

/// Numbers that no weight should be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NonFinite {
    /// Not a number.
    pub nan: u64,
    /// Infinity of either sign.
    pub infinite: u64,
}

impl NonFinite {
    /// Whether all numbers are finite.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Blocks that one task looks at.
const TASK: usize = 1 << 14;

/// Reads every number of a tensor; integers are always finite.
pub fn non_finite(stored: &Stored) -> NonFinite {
    let (numbers, bytes) = stored.format.block();
    let (nan, infinite) = (AtomicU64::new(0), AtomicU64::new(0));
    let tasks: Vec<&[u8]> = stored.bytes.chunks(TASK * bytes).collect();
    parallel(tasks.len(), |i| {
        let found = scan(stored.format, numbers, tasks[i]);
        nan.fetch_add(found.nan, Ordering::Relaxed);
        infinite.fetch_add(found.infinite, Ordering::Relaxed);
    });
    NonFinite { nan: nan.into_inner(), infinite: infinite.into_inner() }
}

fn scan(format: Format, numbers: usize, bytes: &[u8]) -> NonFinite {
    match format {
        Format::F32 => count(bytes, |b| u32::from_le_bytes(b).into(), 0x7F80_0000, 0x007F_FFFF),
        Format::F16 => count(bytes, |b| u16::from_le_bytes(b).into(), 0x7C00, 0x03FF),
        Format::BF16 => count(bytes, |b| u16::from_le_bytes(b).into(), 0x7F80, 0x007F),
        Format::F64 => count(bytes, u64::from_le_bytes, 0x7FF0 << 48, !(0xFFF0 << 48)),
        Format::F8E5M2 => count(bytes, |[b]| b.into(), 0x7C, 0x03),
        // The finite variant: no infinity, and one NaN of each sign.
        Format::F8E4M3 => {
            NonFinite { nan: bytes.iter().filter(|&b| b & 0x7F == 0x7F).count() as u64, infinite: 0 }
        }
        Format::I8
        | Format::U8
        | Format::I16
        | Format::U16
        | Format::I32
        | Format::U32
        | Format::I64
        | Format::U64
        | Format::Bool => NonFinite::default(),
        _ => {
            // A block's numbers are as good as its scales.
            let mut row = vec![0f32; bytes.len() / format.block().1 * numbers];
            blocks::dequantize(format, bytes, &mut row);
            let nan = row.iter().filter(|x| x.is_nan()).count() as u64;
            let infinite = row.iter().filter(|x| x.is_infinite()).count() as u64;
            NonFinite { nan, infinite }
        }
    }
}

/// Counts the numbers whose exponent bits are all set.
fn count<const N: usize>(
    bytes: &[u8],
    bits: impl Fn([u8; N]) -> u64,
    exponent: u64,
    mantissa: u64,
) -> NonFinite {
    let (mut nan, mut infinite) = (0, 0);
    for number in bytes.as_chunks::<N>().0 {
        let bits = bits(*number);
        let special = bits & exponent == exponent;
        let zero = bits & mantissa == 0;
        nan += u64::from(special & !zero);
        infinite += u64::from(special & zero);
    }
    NonFinite { nan, infinite }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_engine::weights::MappedBytes;

    fn found(format: Format, shape: &[usize], bytes: Vec<u8>) -> (u64, u64) {
        let stored =
            Stored { name: "w".into(), bytes: MappedBytes::from(bytes), shape: shape.to_vec(), format };
        let NonFinite { nan, infinite } = non_finite(&stored);
        (nan, infinite)
    }

    #[test]
    fn every_float_format() {
        let x = [0.0, f64::NAN, -1.5, f64::NEG_INFINITY, f64::INFINITY, f64::MIN_POSITIVE];
        let f64s = x.iter().flat_map(|x| x.to_le_bytes()).collect();
        let f32s = x.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect();
        let f16s = x.iter().flat_map(|&x| half::f16::from_f64(x).to_le_bytes()).collect();
        let bf16s = x.iter().flat_map(|&x| half::bf16::from_f64(x).to_le_bytes()).collect();
        assert_eq!(found(Format::F64, &[6], f64s), (1, 2));
        assert_eq!(found(Format::F32, &[6], f32s), (1, 2));
        assert_eq!(found(Format::F16, &[6], f16s), (1, 2));
        assert_eq!(found(Format::BF16, &[6], bf16s), (1, 2));
        assert_eq!(found(Format::F8E4M3, &[3], vec![0x7F, 0xFF, 0x7E]), (2, 0));
        assert_eq!(found(Format::F8E5M2, &[3], vec![0x7F, 0xFC, 0x7B]), (1, 1));
        assert_eq!(found(Format::U8, &[2], vec![0xFF, 0x7F]), (0, 0));
    }

    #[test]
    fn blocks_are_as_good_as_their_scales() {
        let block = |scale: half::f16| [&scale.to_le_bytes()[..], &[1; 32]].concat();
        let bytes = [block(half::f16::ONE), block(half::f16::NAN), block(half::f16::INFINITY)].concat();
        assert_eq!(found(Format::Q8_0, &[3, 32], bytes), (32, 32));
    }
}
