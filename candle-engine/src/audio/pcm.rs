//! Samples as plain numbers, one after another: what WAV files and raw streams hold.

use std::io::{self, Read};

/// How a sample is written; little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sample {
    U8,
    I16,
    I24,
    I32,
    F32,
    F64,
    ALaw,
    MuLaw,
}

impl Sample {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::ALaw | Self::MuLaw => 1,
            Self::I16 => 2,
            Self::I24 => 3,
            Self::I32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The sample at the start of `x`, in −1..1.
    fn read(self, x: &[u8]) -> f32 {
        match self {
            Self::U8 => (f32::from(x[0]) - 128.0) / 128.0,
            Self::I16 => f32::from(i16::from_le_bytes([x[0], x[1]])) / 32768.0,
            Self::I24 => i32::from_le_bytes([0, x[0], x[1], x[2]]) as f32 / 2_147_483_648.0,
            Self::I32 => i32::from_le_bytes([x[0], x[1], x[2], x[3]]) as f32 / 2_147_483_648.0,
            Self::F32 => f32::from_le_bytes([x[0], x[1], x[2], x[3]]),
            Self::F64 => f64::from_le_bytes([x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]]) as f32,
            Self::ALaw => a_law(x[0]),
            Self::MuLaw => mu_law(x[0]),
        }
    }
}

/// Source: ITU-T G.711, A-law: sign, three bits of exponent, four of mantissa, even bits inverted.
fn a_law(x: u8) -> f32 {
    let x = x ^ 0x55;
    let (exponent, mantissa) = (x >> 4 & 7, i16::from(x & 15) * 2 + 1);
    let level = if exponent == 0 { mantissa } else { (mantissa + 32) << (exponent - 1) };
    f32::from(if x & 0x80 == 0 { -level } else { level }) / 4096.0
}

/// Source: ITU-T G.711, μ-law: as A-law, all bits inverted, biased by 33.
fn mu_law(x: u8) -> f32 {
    let x = !x;
    let (exponent, mantissa) = (x >> 4 & 7, i16::from(x & 15) * 2 + 33);
    let level = (mantissa << exponent) - 33;
    f32::from(if x & 0x80 == 0 { level } else { -level }) / 8192.0
}

/// A stream of frames, one sample per channel each.
#[derive(Debug)]
pub(super) struct Pcm<R> {
    reader: R,
    pub(super) sample: Sample,
    pub(super) channels: usize,
    /// Samples per second and channel.
    pub(super) rate: u32,
    /// Bytes left; as many as come if unknown.
    pub(super) left: Option<u64>,
    buffer: Vec<u8>,
}

/// Bytes that are read at a time.
const BUFFER: usize = 1 << 16;

impl<R: Read> Pcm<R> {
    pub(super) fn new(reader: R, sample: Sample, channels: usize, rate: u32, left: Option<u64>) -> Self {
        Self { reader, sample, channels, rate, left, buffer: Vec::new() }
    }

    /// Appends the next frames, each the mean of its channels; `false` at the end. An incomplete last frame is
    /// dropped.
    pub(super) fn next(&mut self, mono: &mut Vec<f32>) -> io::Result<bool> {
        let (width, frame) = (self.sample.bytes(), self.sample.bytes() * self.channels);
        let most = (BUFFER / frame).max(1) * frame;
        let wanted = self.left.map_or(most as u64, |left| left.min(most as u64));
        self.buffer.clear();
        let read = self.reader.by_ref().take(wanted).read_to_end(&mut self.buffer)?;
        self.left = self.left.map(|left| left - read as u64);
        let scale = 1.0 / self.channels as f32;
        mono.extend(
            self.buffer
                .chunks_exact(frame)
                .map(|frame| frame.chunks_exact(width).map(|x| self.sample.read(x)).sum::<f32>() * scale),
        );
        Ok(read >= frame)
    }

    /// With no more bytes left than a file of `length` bytes can hold.
    pub(super) fn within(mut self, length: u64) -> Self {
        self.left = Some(self.left.map_or(length, |left| left.min(length)));
        self
    }

    /// Seconds left, if known.
    pub(super) fn duration(&self) -> Option<f64> {
        let frame = (self.sample.bytes() * self.channels) as u64;
        self.left.map(|left| (left / frame) as f64 / f64::from(self.rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mono(sample: Sample, channels: usize, bytes: &[u8]) -> Vec<f32> {
        let mut pcm = Pcm::new(bytes, sample, channels, 8000, None);
        let mut out = Vec::new();
        while pcm.next(&mut out).unwrap() {}
        out
    }

    #[test]
    fn every_kind_of_sample_spans_the_same_range() {
        assert_eq!(mono(Sample::U8, 1, &[0, 64, 128, 192]), [-1.0, -0.5, 0.0, 0.5]);
        assert_eq!(mono(Sample::I16, 1, &[0, 0x80, 0, 0, 0, 0x40]), [-1.0, 0.0, 0.5]);
        assert_eq!(mono(Sample::I24, 1, &[0, 0, 0x80, 0, 0, 0x40]), [-1.0, 0.5]);
        assert_eq!(mono(Sample::I32, 1, &[0, 0, 0, 0x80, 0, 0, 0, 0x40]), [-1.0, 0.5]);
        assert_eq!(mono(Sample::F32, 1, &0.25f32.to_le_bytes()), [0.25]);
        assert_eq!(mono(Sample::F64, 1, &0.25f64.to_le_bytes()), [0.25]);
    }

    #[test]
    fn the_laws_of_telephony() {
        // G.711's tables, of 13 and 14 bits: smallest, largest.
        assert_eq!(
            mono(Sample::ALaw, 1, &[0xd5, 0x55, 0xaa, 0x2a]).map_to(4096.0),
            [1.0, -1.0, 4032.0, -4032.0]
        );
        assert_eq!(
            mono(Sample::MuLaw, 1, &[0xff, 0x7f, 0x80, 0x00]).map_to(8192.0),
            [0.0, 0.0, 8031.0, -8031.0]
        );
    }

    trait MapTo {
        fn map_to(self, scale: f32) -> Vec<f32>;
    }

    impl MapTo for Vec<f32> {
        fn map_to(self, scale: f32) -> Vec<f32> {
            self.into_iter().map(|x| x * scale).collect()
        }
    }

    #[test]
    fn channels_are_averaged_and_half_a_frame_is_dropped() {
        assert_eq!(mono(Sample::U8, 2, &[192, 64, 192, 192, 192]), [0.0, 0.5]);
        assert!(mono(Sample::F64, 2, &[0; 15]).is_empty());
        // More channels than the buffer has bytes.
        assert_eq!(mono(Sample::U8, 70_000, &[192; 150_000]), [0.5, 0.5]);
    }
}
