//! The header of a WAV file.
//!
//! Source: Microsoft and IBM 1991, "Multimedia Programming Interface and Data Specifications"; EBU Tech 3306 (RF64).

use std::io::{self, Read};

use super::pcm::{Pcm, Sample};

/// The tag of a format whose own tag stands in the extension.
const EXTENSIBLE: u16 = 0xfffe;

/// A size that its writer did not know.
const UNKNOWN: u32 = u32::MAX;

/// More than any `fmt ` chunk has.
const MOST_FORMAT: u32 = 1 << 10;

/// Reads up to the first sample. Sizes are hints only: the samples end where the stream does, or sooner if the
/// header says so. A writer that could not seek back leaves 0 or the largest number.
pub(super) fn open<R: Read>(mut reader: R) -> Result<Pcm<R>, String> {
    let mut head = [0; 12];
    fill(&mut reader, &mut head, "header")?;
    if !is_wav(&head) {
        return Err("no WAV file".into());
    }
    let whole = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    let (mut format, mut long_size) = (None, None);
    loop {
        let mut chunk = [0; 8];
        fill(&mut reader, &mut chunk, "`data` chunk")?;
        let [a, b, c, d, size @ ..] = chunk;
        let size = u32::from_le_bytes(size);
        match &[a, b, c, d] {
            b"data" => {
                let (sample, channels, rate) =
                    format.ok_or("the `data` chunk comes before the `fmt ` chunk")?;
                let left = match size {
                    UNKNOWN => long_size,
                    0 if whole == 0 || whole == UNKNOWN => None,
                    size => Some(u64::from(size)),
                };
                return Ok(Pcm::new(reader, sample, channels, rate, left));
            }
            b"fmt " if (16..=MOST_FORMAT).contains(&size) => {
                let mut bytes = vec![0; size.next_multiple_of(2) as usize];
                fill(&mut reader, &mut bytes, "`fmt ` chunk")?;
                format = Some(self::format(&bytes)?);
            }
            b"fmt " => return Err(format!("the `fmt ` chunk has {size} bytes, expected 16, 18 or 40")),
            b"ds64" if (24..=MOST_FORMAT).contains(&size) => {
                let mut bytes = vec![0; size.next_multiple_of(2) as usize];
                fill(&mut reader, &mut bytes, "`ds64` chunk")?;
                long_size = bytes[8..].first_chunk().map(|&bytes| u64::from_le_bytes(bytes));
            }
            _ => {
                let padded = u64::from(size) + u64::from(size % 2);
                io::copy(&mut reader.by_ref().take(padded), &mut io::sink())
                    .map_err(|error| error.to_string())?;
            }
        }
    }
}

/// Whether these are the first bytes of a WAV file.
pub(super) fn is_wav(head: &[u8]) -> bool {
    matches!(head.get(..4), Some(b"RIFF" | b"RF64")) && head.get(8..12) == Some(b"WAVE")
}

fn fill(reader: &mut impl Read, to: &mut [u8], what: &str) -> Result<(), String> {
    reader.read_exact(to).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => format!("the file ends before its {what}"),
        _ => error.to_string(),
    })
}

/// Sample, channels and rate of a `fmt ` chunk.
fn format(chunk: &[u8]) -> Result<(Sample, usize, u32), String> {
    let short = |at: usize| u16::from_le_bytes([chunk[at], chunk[at + 1]]);
    let (channels, block) = (usize::from(short(2)), usize::from(short(12)));
    let rate = u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]);
    let tag = match short(0) {
        EXTENSIBLE if chunk.len() >= 26 => short(24),
        tag => tag,
    };
    if channels == 0 || block == 0 || block % channels != 0 {
        return Err(format!("{channels} channels in blocks of {block} bytes"));
    }
    // Samples of odd widths are written at the top of the next whole byte.
    let sample = match (tag, block / channels) {
        (1, 1) => Sample::U8,
        (1, 2) => Sample::I16,
        (1, 3) => Sample::I24,
        (1, 4) => Sample::I32,
        (3, 4) => Sample::F32,
        (3, 8) => Sample::F64,
        (6, 1) => Sample::ALaw,
        (7, 1) => Sample::MuLaw,
        (1 | 3 | 6 | 7, width) => return Err(format!("samples of {width} bytes in WAV format {tag}")),
        (tag, _) => return Err(format!("WAV format {tag:#06x}, expected PCM, float, A-law or μ-law")),
    };
    Ok((sample, channels, rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(name: &[u8; 4], size: u32, content: &[u8]) -> Vec<u8> {
        [&name[..], &size.to_le_bytes(), content].concat()
    }

    fn fmt(tag: u16, channels: u16, bytes: u16) -> Vec<u8> {
        let fields = [tag, channels, 8000, 0, 0, 0, channels * bytes, 8 * bytes];
        chunk(b"fmt ", 16, &fields.map(u16::to_le_bytes).concat())
    }

    fn riff(size: u32, chunks: &[Vec<u8>]) -> Vec<u8> {
        chunk(b"RIFF", size, &[&b"WAVE"[..], &chunks.concat()].concat())
    }

    fn read(bytes: &[u8]) -> Result<Vec<f32>, String> {
        let (mut wav, mut out) = (open(bytes)?, Vec::new());
        while wav.next(&mut out).unwrap() {}
        Ok(out)
    }

    #[test]
    fn chunks_that_do_not_matter_are_skipped() {
        let chunks = [
            chunk(b"LIST", 3, b"abc\0"), // padded to an even length
            fmt(1, 2, 1),
            chunk(b"fact", 4, &[0; 4]),
            chunk(b"data", 4, &[192, 192, 64, 64]),
            chunk(b"LIST", 4, b"abcd"),
        ];
        assert_eq!(read(&riff(76, &chunks)), Ok(vec![0.5, -0.5]));
    }

    #[test]
    fn the_extension_names_the_format() {
        let mut fields = [EXTENSIBLE, 1, 8000, 0, 0, 0, 4, 32, 22, 32, 0, 0].map(u16::to_le_bytes).concat();
        fields.extend([3, 0].into_iter().chain([0; 14]));
        let chunks = [chunk(b"fmt ", 40, &fields), chunk(b"data", 4, &0.25f32.to_le_bytes())];
        assert_eq!(read(&riff(72, &chunks)), Ok(vec![0.25]));
    }

    #[test]
    fn sizes_that_lie() {
        let wav = |whole, size| riff(whole, &[fmt(1, 1, 1), chunk(b"data", size, &[192; 5])]);
        for (whole, size) in
            [(0, 0), (UNKNOWN, 0), (UNKNOWN, UNKNOWN), (41, 5), (41, 6), (41, u32::MAX - 1), (0, 5)]
        {
            assert_eq!(read(&wav(whole, size)), Ok(vec![0.5; 5]), "{whole}, {size}");
        }
        assert_eq!(read(&wav(41, 3)), Ok(vec![0.5; 3]));
        assert_eq!(read(&wav(41, 0)), Ok(vec![]));
    }

    #[test]
    fn long_files_have_their_size_apart() {
        let sizes = [100u64, 3, 3].map(u64::to_le_bytes).concat();
        let mut file =
            riff(UNKNOWN, &[chunk(b"ds64", 24, &sizes), fmt(1, 1, 1), chunk(b"data", UNKNOWN, &[192; 5])]);
        file[..4].copy_from_slice(b"RF64");
        assert_eq!(read(&file), Ok(vec![0.5; 3]));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |bytes: &[u8]| read(bytes).unwrap_err();
        let data = || chunk(b"data", 4, &[0; 4]);
        assert_eq!(error(b"RIFF"), "the file ends before its header");
        assert_eq!(error(&riff(4, &[])), "the file ends before its `data` chunk");
        assert_eq!(
            error(&riff(4, &[chunk(b"LIST", 1 << 30, b"abc")])),
            "the file ends before its `data` chunk"
        );
        assert_eq!(error(&riff(4, &[data()])), "the `data` chunk comes before the `fmt ` chunk");
        assert_eq!(error(&riff(4, &[chunk(b"fmt ", 16, b"abc")])), "the file ends before its `fmt ` chunk");
        assert!(error(&riff(4, &[chunk(b"fmt ", 1 << 31, b"abc")])).contains("2147483648 bytes"));
        assert_eq!(error(&riff(4, &[fmt(1, 1, 5), data()])), "samples of 5 bytes in WAV format 1");
        assert!(error(&riff(4, &[fmt(0x55, 1, 1), data()])).starts_with("WAV format 0x0055"));
        assert_eq!(error(&riff(4, &[fmt(1, 0, 1), data()])), "0 channels in blocks of 0 bytes");
    }
}
