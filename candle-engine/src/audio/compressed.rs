//! Compressed recordings, decoded by symphonia.
//!
//! It does not follow the edit lists of MP4 files: their sound begins with what leads the encoder in, some 20 to 50 ms.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom};

use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::common::Limit;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream, ReadOnlySource};
use symphonia::core::meta::MetadataOptions;
use symphonia::default::{get_codecs, get_probe};

use super::{Seekable, Source, UNKNOWN_FORMAT};

/// The sound in a container.
pub(super) struct Compressed {
    format: Box<dyn FormatReader>,
    track: Track,
    samples: Vec<f32>,
    /// Why packets were skipped, while none could be decoded.
    useless: Option<String>,
}

/// The track that is listened to.
struct Track {
    id: u32,
    decoder: Box<dyn AudioDecoder>,
    seconds: Option<f64>,
}

/// Opens a file whose bytes can be gone through more than once, from its first `head` on; `length` in bytes.
pub(super) fn open(mut file: Box<dyn Seekable>, head: &[u8], length: u64) -> Result<Compressed, String> {
    let start = tag(head).min(length);
    file.seek(SeekFrom::Start(start)).map_err(|error| error.to_string())?;
    Compressed::new(Box::new(Whole { file, start, length }))
}

/// Opens a stream, which begins with `head`.
pub(super) fn open_stream(
    mut stream: impl Read + Send + Sync + 'static,
    head: &[u8],
) -> Result<Compressed, String> {
    io::copy(&mut stream.by_ref().take(tag(head)), &mut io::sink()).map_err(|error| error.to_string())?;
    Compressed::new(Box::new(ReadOnlySource::new(stream)))
}

/// Bytes of the ID3 tag, pictures included, that stands before the sound.
///
/// Source: id3.org, ID3v2.4.0 structure, 3.1: seven bits of size in each of four bytes, and a footer if a flag says so.
fn tag(head: &[u8]) -> u64 {
    let Some(&[b'I', b'D', b'3', _, _, flags, a, b, c, d]) = head.first_chunk() else { return 0 };
    let size = [a, b, c, d].iter().fold(0, |size, &byte| size << 7 | u64::from(byte & 0x7f));
    10 + size + if flags & 0x10 != 0 { 10 } else { 0 }
}

/// Whether a stream that begins so is one of the containers. Streams of raw samples must not look like one, so the
/// few bits by which MPEG audio without a tag is found do not count.
pub(super) fn is_container(head: &[u8]) -> bool {
    head.starts_with(b"fLaC")
        || head.starts_with(b"OggS")
        || head.starts_with(b"ID3")
        || head.get(4..8) == Some(b"ftyp")
}

impl Compressed {
    fn new(source: Box<dyn MediaSource>) -> Result<Self, String> {
        let stream = MediaSourceStream::new(source, Default::default());
        // Pictures are not for listening.
        let tags = MetadataOptions::default().limit_visual_bytes(Limit::Maximum(0));
        let format = get_probe().probe(&Hint::new(), stream, FormatOptions::default(), tags);
        let format = format.map_err(|error| match error {
            Error::Unsupported(_) => UNKNOWN_FORMAT.into(),
            Error::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => UNKNOWN_FORMAT.into(),
            error => error.to_string(),
        })?;
        let track = Track::of(&*format)?;
        Ok(Self { format, track, samples: Vec::new(), useless: None })
    }
}

impl Track {
    /// The first one with sound.
    fn of(format: &dyn FormatReader) -> Result<Self, String> {
        let container = format.format_info().short_name;
        let Some(track) = format.default_track(TrackType::Audio) else {
            return Err(format!(
                "{container} file without sound: none of its {} tracks has any",
                format.tracks().len()
            ));
        };
        let codec = track.codec_params.as_ref().and_then(|codec| codec.audio());
        let codec = codec.ok_or_else(|| format!("{container} file whose codec is unknown"))?;
        let decoder = get_codecs().make_audio_decoder(codec, &AudioDecoderOptions::default());
        let decoder =
            decoder.map_err(|error| format!("{container} file whose sound cannot be decoded: {error}"))?;
        let seconds = track.num_frames.zip(codec.sample_rate).map(|(n, rate)| n as f64 / f64::from(rate));
        Ok(Self { id: track.id, decoder, seconds })
    }
}

impl Source for Compressed {
    fn next(&mut self, mono: &mut Vec<f32>) -> Result<Option<u32>, String> {
        loop {
            let packet = match self.format.next_packet() {
                Ok(Some(packet)) if packet.track_id != self.track.id => continue,
                Ok(Some(packet)) => packet,
                // Another recording follows.
                Err(Error::ResetRequired) => {
                    self.track = Track::of(&*self.format)?;
                    continue;
                }
                Ok(None) => return self.useless.take().map_or(Ok(None), Err),
                // A file that was cut off ends where it ends.
                Err(Error::IoError(error)) if error.kind() == ErrorKind::UnexpectedEof => {
                    return self.useless.take().map_or(Ok(None), Err);
                }
                Err(error) => return Err(error.to_string()),
            };
            match self.track.decoder.decode(&packet) {
                Ok(decoded) if decoded.num_planes() > 0 => {
                    self.useless = None;
                    let (rate, channels) = (decoded.spec().rate(), decoded.num_planes());
                    decoded.copy_to_vec_interleaved(&mut self.samples);
                    let scale = 1.0 / channels as f32;
                    mono.extend(
                        self.samples.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() * scale),
                    );
                    return Ok(Some(rate));
                }
                Ok(_) => {}
                // A damaged packet is left out.
                Err(error) => _ = self.useless.get_or_insert_with(|| error.to_string()),
            }
        }
    }

    fn duration(&self) -> Option<f64> {
        self.track.seconds
    }
}

/// A file of known length, from `start` on.
struct Whole {
    file: Box<dyn Seekable>,
    start: u64,
    length: u64,
}

impl Read for Whole {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.file.read(to)
    }
}

impl Seek for Whole {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => SeekFrom::Start(at.saturating_add(self.start)),
            to => to,
        };
        Ok(self.file.seek(to)?.saturating_sub(self.start))
    }
}

impl MediaSource for Whole {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.length - self.start)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_tag_says_how_long_it_is() {
        assert_eq!(super::tag(b"ID3\x04\0\0\0\0\x01\x02ab"), 10 + 130);
        assert_eq!(super::tag(b"ID3\x04\0\x10\0\0\x01\x02ab"), 10 + 130 + 10);
        assert_eq!(super::tag(b"ID3\x04\0"), 0);
        assert_eq!(super::tag(b"fLaC\0\0\0\0\0\0"), 0);
    }
}
