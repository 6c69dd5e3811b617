//! How much a text repeats itself.

use zlib_rs::{compress_bound, compress_slice, DeflateConfig};

/// The level at which this implementation searches as zlib's own does by default.
const LEVEL: i32 = 9;

/// Bytes of the text per byte that zlib needs for it; 0 for no text.
pub fn compression_ratio(text: &str) -> f64 {
    let mut room = vec![0; compress_bound(text.len())];
    // The bound is never too small.
    let (compressed, _) = compress_slice(&mut room, text.as_bytes(), DeflateConfig::new(LEVEL));
    text.len() as f64 / compressed.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ratios by Python's zlib.
    #[test]
    fn ratios_are_those_of_zlib() {
        let repeated = "thank you for watching ".repeat(20);
        for (text, expected) in [
            ("", 0.0),
            ("a", 1.0 / 9.0),
            ("And so my fellow Americans, ask not what your country can do for you.", 0.9857),
            (&*repeated, 12.7778),
        ] {
            let got = compression_ratio(text);
            assert!((got - expected).abs() < 1e-4, "{text:?}: {got}, not {expected}");
        }
    }
}
