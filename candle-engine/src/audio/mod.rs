//! Sound as speech models want it: 16 kHz, one channel, and its log-mel spectrogram.
//!
//! WAV files and raw samples are always read; FLAC, MP3, OGG/Vorbis and M4A/AAC with the feature `audio`.
//!
//! ```no_run
//! use candle_engine::audio::{log_mel, Audio};
//!
//! # fn main() -> candle_engine::Result<()> {
//! // All at once…
//! let samples = Audio::open("talk.wav")?.samples()?;
//! let mel = log_mel(&samples, 80);
//! // … or piece by piece, in memory that does not grow with the length.
//! for samples in Audio::open("talk.wav")? {
//!     println!("{} samples", samples?.len());
//! }
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

#[cfg(feature = "audio")]
mod compressed;
mod mel;
mod pcm;
mod resample;
mod wav;

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

pub use mel::{log_mel, Mel, FRAMES_PER_SECOND, SAMPLES_PER_FRAME};
pub use resample::Resampler;

use crate::{Error, Result};
use pcm::{Pcm, Sample};

/// Samples per second of everything that is read.
pub const SAMPLE_RATE: u32 = 16_000;

/// The slowest and the fastest recording that is read, in samples per second.
const RATES: std::ops::RangeInclusive<u32> = 100..=768_000;

/// The loudest sample that can be meant: that of a file which holds 16-bit numbers as floats.
const LOUDEST: f32 = 32_768.0;

/// A recording, read as it is used: an iterator over pieces of samples at [`SAMPLE_RATE`], one channel, in −1..1.
///
/// Channels are averaged, other rates are resampled. Samples that are no numbers, or absurdly large ones, count as
/// silence. After an error the iterator ends.
pub struct Audio {
    name: String,
    source: Box<dyn Source + Send>,
    resampler: Option<Resampler>,
    rate: u32,
    mono: Vec<f32>,
    done: bool,
}

/// A stream of samples of one channel.
trait Source {
    /// Appends the next samples and gives their rate; `None` at the end.
    fn next(&mut self, mono: &mut Vec<f32>) -> Result<Option<u32>, String>;

    /// Seconds, if known. A hint.
    fn duration(&self) -> Option<f64>;
}

impl<R: Read> Source for Pcm<R> {
    fn next(&mut self, mono: &mut Vec<f32>) -> Result<Option<u32>, String> {
        let more = Pcm::next(self, mono).map_err(|error| error.to_string())?;
        Ok(more.then_some(self.rate))
    }

    fn duration(&self) -> Option<f64> {
        Pcm::duration(self)
    }
}

/// What a recording can be read from when its bytes can be gone through more than once.
trait Seekable: Read + Seek + Send + Sync {}
impl<T: Read + Seek + Send + Sync> Seekable for T {}

impl Audio {
    /// Opens a file of any format that is read; which one its content tells.
    ///
    /// Errors: `Input` naming the file if it cannot be read, is empty, in no known format, or without sound.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let name = path.as_ref().display().to_string();
        let file = File::open(path).map_err(|error| input(&name, error))?;
        Self::from_seekable(name, Box::new(BufReader::new(file)))
    }

    /// Reads a file that is in memory; `name` is for errors.
    ///
    /// Errors: as [`Audio::open`].
    pub fn from_bytes(
        name: impl Into<String>,
        bytes: impl AsRef<[u8]> + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::from_seekable(name.into(), Box::new(Cursor::new(bytes)))
    }

    /// Reads a stream, such as standard input, as it comes: a file of a known format, or else raw samples: 16-bit
    /// signed, little-endian, 16 kHz, one channel. `name` is for errors.
    ///
    /// Errors: `Input` naming the stream.
    pub fn from_stream(
        name: impl Into<String>,
        mut stream: impl Read + Send + Sync + 'static,
    ) -> Result<Self> {
        let name = name.into();
        let head = head(&mut stream).map_err(|error| input(&name, error))?;
        let whole = Cursor::new(head.clone()).chain(stream);
        if wav::is_wav(&head) {
            return Self::new(&name, wav::open(BufReader::new(whole)));
        }
        #[cfg(feature = "audio")]
        if compressed::is_container(&head) {
            return Self::new(&name, compressed::open_stream(whole, &head));
        }
        Self::new(&name, Ok(Pcm::new(whole, Sample::I16, 1, SAMPLE_RATE, None)))
    }

    fn from_seekable(name: String, mut file: Box<dyn Seekable>) -> Result<Self> {
        let mut opened = || {
            let length = file.seek(SeekFrom::End(0))?;
            file.rewind()?;
            let head = head(&mut file)?;
            file.rewind()?;
            Ok((length, head))
        };
        let (length, head) = opened().map_err(|error: io::Error| input(&name, error))?;
        if head.is_empty() {
            return Err(input(&name, "the file is empty"));
        }
        if wav::is_wav(&head) {
            return Self::new(&name, wav::open(BufReader::new(file)).map(|wav| wav.within(length)));
        }
        #[cfg(feature = "audio")]
        return Self::new(&name, compressed::open(file, &head, length));
        #[cfg(not(feature = "audio"))]
        Err(input(&name, UNKNOWN_FORMAT))
    }

    fn new(name: &str, source: Result<impl Source + Send + 'static, String>) -> Result<Self> {
        let source = Box::new(source.map_err(|what| input(name, what))?);
        Ok(Self { name: name.into(), source, resampler: None, rate: 0, mono: Vec::new(), done: false })
    }

    /// Seconds of the recording, where its header says: a hint for progress bars.
    pub fn duration(&self) -> Option<f64> {
        self.source.duration()
    }

    /// All samples; none if the recording has none.
    ///
    /// Errors: `Input` naming the recording.
    pub fn samples(self) -> Result<Vec<f32>> {
        let mut samples = Vec::new();
        for piece in self {
            samples.append(&mut piece?);
        }
        Ok(samples)
    }

    /// The next samples; none at the end.
    fn piece(&mut self) -> Result<Vec<f32>, String> {
        let mut out = Vec::new();
        while out.is_empty() && !self.done {
            self.mono.clear();
            let Some(rate) = self.source.next(&mut self.mono)? else {
                self.done = true;
                self.finish(&mut out);
                break;
            };
            if rate != self.rate || self.resampler.is_none() {
                if !RATES.contains(&rate) {
                    return Err(format!(
                        "{rate} samples per second, expected {} to {}",
                        RATES.start(),
                        RATES.end()
                    ));
                }
                self.finish(&mut out);
                self.rate = rate;
                self.resampler = Some(Resampler::new(rate));
            }
            for x in &mut self.mono {
                if x.is_nan() || x.abs() > LOUDEST {
                    *x = 0.0;
                }
            }
            if let Some(resampler) = &mut self.resampler {
                resampler.push(&self.mono, &mut out);
            }
        }
        Ok(out)
    }

    fn finish(&mut self, out: &mut Vec<f32>) {
        if let Some(resampler) = &mut self.resampler {
            resampler.finish(out);
        }
    }
}

impl Iterator for Audio {
    type Item = Result<Vec<f32>>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.piece() {
            Ok(piece) => (!piece.is_empty()).then_some(Ok(piece)),
            Err(what) => {
                self.done = true;
                Some(Err(input(&self.name, what)))
            }
        }
    }
}

impl std::fmt::Debug for Audio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audio").field("name", &self.name).field("rate", &self.rate).finish_non_exhaustive()
    }
}

fn input(name: &str, what: impl std::fmt::Display) -> Error {
    Error::Input(format!("{name}: {what}"))
}

/// What a file is that nobody here reads.
const UNKNOWN_FORMAT: &str = if cfg!(feature = "audio") {
    "no known audio format, expected WAV, FLAC, MP3, OGG/Vorbis or M4A/AAC"
} else {
    "no WAV file; other formats need the feature `audio`"
};

/// The first bytes, by which formats are told apart.
fn head(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    reader.take(12).read_to_end(&mut head)?;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A WAV file of floats with one channel.
    fn wav(rate: u32, samples: &[f32]) -> Vec<u8> {
        let size = (4 * samples.len()) as u32;
        let mut file = [&b"RIFF"[..], &(36 + size).to_le_bytes(), b"WAVEfmt ", &16u32.to_le_bytes()].concat();
        file.extend([3u16, 1].map(u16::to_le_bytes).concat());
        file.extend([rate, 4 * rate].map(u32::to_le_bytes).concat());
        file.extend([4u16, 32].map(u16::to_le_bytes).concat());
        file.extend(b"data");
        file.extend(size.to_le_bytes());
        file.extend(samples.iter().flat_map(|x| x.to_le_bytes()));
        file
    }

    fn samples(bytes: Vec<u8>) -> Vec<f32> {
        Audio::from_bytes("test", bytes).unwrap().samples().unwrap()
    }

    #[test]
    fn a_wav_file_is_read_from_a_path_from_memory_and_from_a_stream() {
        let want = [0.25, -0.5, 1.0];
        let file = wav(SAMPLE_RATE, &want);
        let path = std::env::temp_dir().join(format!("candle-engine-audio-{}.wav", std::process::id()));
        std::fs::write(&path, &file).unwrap();
        let opened = Audio::open(&path).unwrap();
        assert_eq!(opened.duration(), Some(3.0 / 16_000.0));
        assert_eq!(opened.samples().unwrap(), want);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(Audio::from_stream("-", Cursor::new(file.clone())).unwrap().samples().unwrap(), want);
        assert_eq!(samples(file), want);
    }

    #[test]
    fn a_stream_without_a_header_is_raw_samples() {
        for n in [0, 1, 5, 6, 7, 100_000] {
            let raw: Vec<u8> = (0..n).flat_map(|i| (i as i16).to_le_bytes()).collect();
            let read = Audio::from_stream("-", Cursor::new(raw)).unwrap().samples().unwrap();
            assert_eq!(read, (0..n).map(|i| f32::from(i as i16) / 32_768.0).collect::<Vec<_>>());
        }
    }

    #[test]
    fn nothing_in_nothing_out() {
        assert!(samples(wav(44_100, &[])).is_empty());
        assert_eq!(samples(wav(44_100, &[0.5])).len(), 1);
        assert!(Audio::open("/nonexistent.wav").unwrap_err().to_string().starts_with("/nonexistent.wav: "));
        for (bytes, what) in
            [(&b""[..], "the file is empty"), (b"RIFF", UNKNOWN_FORMAT), (b"text", UNKNOWN_FORMAT)]
        {
            let error = Audio::from_bytes("x.wav", bytes).unwrap_err();
            assert_eq!(error.to_string(), format!("x.wav: {what}"));
            assert_eq!(error.kind(), crate::ErrorKind::Input);
        }
    }

    #[test]
    fn what_is_no_sound_is_silence() {
        let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, 0.5];
        assert_eq!(samples(wav(SAMPLE_RATE, &odd)), [0.0, 0.0, 0.0, 0.0, 0.0, 0.5]);
    }

    #[test]
    fn a_rate_that_cannot_be_meant_is_an_error_once() {
        for rate in [0, 99, 768_001, u32::MAX / 4] {
            let mut audio = Audio::from_bytes("x", wav(rate, &[0.0; 10])).unwrap();
            assert!(audio.next().unwrap().unwrap_err().to_string().contains("samples per second"));
            assert!(audio.next().is_none());
        }
    }

    /// Six hours, one second at a time.
    struct Long {
        seconds: u32,
        second: Vec<u8>,
        at: usize,
    }

    impl Read for Long {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            if self.at == self.second.len() && self.seconds > 0 {
                (self.seconds, self.at) = (self.seconds - 1, 0);
            }
            let n = to.len().min(self.second.len() - self.at);
            to[..n].copy_from_slice(&self.second[self.at..][..n]);
            self.at += n;
            Ok(n)
        }
    }

    #[test]
    fn six_hours_come_in_small_pieces() {
        let head = wav(8_000, &[]);
        // The header's sizes, as a writer to a pipe leaves them.
        let head = [&head[..4], &[0xff; 4], &head[8..40], &[0xff; 4]].concat();
        let seconds = 6 * 60 * 60;
        let stream = Long { seconds, second: vec![0; 32_000], at: 32_000 };
        let (mut total, mut largest) = (0, 0);
        for piece in Audio::from_stream("-", Cursor::new(head).chain(stream)).unwrap() {
            let piece = piece.unwrap();
            (total, largest) = (total + piece.len(), largest.max(piece.capacity()));
        }
        assert_eq!(total, seconds as usize * SAMPLE_RATE as usize);
        assert!(largest <= 1 << 17, "{largest}");
    }
}
