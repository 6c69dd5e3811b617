//! Files of data: CSV, JSON lines, NumPy's arrays, MNIST's IDX.

mod array;
mod csv;
mod idx;
mod json_lines;
mod npy;
mod npz;

use std::borrow::Cow;
use std::path::Path;

use candle_engine::{Error, Result};
use miniz_oxide::inflate::decompress_to_vec_with_limit;

use super::table::Table;

impl Table {
    /// Reads a file: CSV with a header, JSON lines, `.npy`, `.npz`, or IDX, which may be compressed by gzip. What it is
    /// shows in its first bytes.
    ///
    /// Of images in IDX the labels are read too, if they lie beside them under the name that MNIST gives them.
    ///
    /// Errors: `Input` naming the file, and in it row and column where one is to blame.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = read(path)?;
        let labels = idx::labels_beside(path);
        let mut table = Self::from_bytes(&bytes, &path.display().to_string())?;
        if let Some(labels) = labels {
            table = idx::with_labels(table, &labels)?;
        }
        Ok(table)
    }

    /// Reads what a file holds; `source` is what errors call it.
    ///
    /// Errors: as [`Self::open`].
    pub fn from_bytes(bytes: &[u8], source: &str) -> Result<Self> {
        let wrong = |what: String| Error::Input(format!("{source}: {what}"));
        let bytes = unzipped(bytes).map_err(wrong)?;
        let table = match &*bytes {
            [] => return Err(wrong("is empty".into())),
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => npy::table(&bytes, source)?,
            [b'P', b'K', 3 | 5, 4 | 6, ..] => npz::table(&bytes, source)?,
            [0, 0, ..] => idx::table(&bytes, source)?,
            _ => {
                let text = std::str::from_utf8(&bytes).map_err(|e| {
                    wrong(format!("is neither text (UTF-8) nor an array: byte {}", e.valid_up_to()))
                })?;
                let text = text.strip_prefix('\u{feff}').unwrap_or(text);
                match text.trim_start().starts_with('{') {
                    true => json_lines::table(text, source)?,
                    false => csv::table(text, source)?,
                }
            }
        };
        if table.rows() == 0 {
            return Err(wrong("holds no rows, only a header".into()));
        }
        Ok(table)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let wrong = |what: String| Error::Input(format!("{}: {what}", path.display()));
    if path.is_dir() {
        return Err(wrong("is a folder, expected a file of data".into()));
    }
    std::fs::read(path).map_err(|e| wrong(e.to_string()))
}

/// What gzip holds; other bytes as they are.
///
/// Source: RFC 1952
fn unzipped(bytes: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    const EXTRA: u8 = 4;
    const TEXTS: [u8; 2] = [8, 16];
    const CHECK: u8 = 2;
    let [0x1F, 0x8B, method, flags, ..] = *bytes else { return Ok(bytes.into()) };
    let short = || "the gzip file is cut short".to_owned();
    if method != 8 {
        return Err(format!("gzip with method {method}, expected 8"));
    }
    let mut rest = bytes.get(10..).ok_or_else(short)?;
    if flags & EXTRA != 0 {
        let len = rest.first_chunk().map(|n| usize::from(u16::from_le_bytes(*n))).ok_or_else(short)?;
        rest = rest.get(2 + len..).ok_or_else(short)?;
    }
    for _ in TEXTS.iter().filter(|flag| flags & **flag != 0) {
        let end = rest.iter().position(|byte| *byte == 0).ok_or_else(short)?;
        rest = &rest[end + 1..];
    }
    if flags & CHECK != 0 {
        rest = rest.get(2..).ok_or_else(short)?;
    }
    let (deflated, tail) = rest.split_last_chunk::<8>().ok_or_else(short)?;
    let word = |at: usize| u32::from_le_bytes([tail[at], tail[at + 1], tail[at + 2], tail[at + 3]]);
    inflate(deflated, word(4) as usize, word(0)).map(Cow::Owned)
}

/// Expands what deflate packed to so many bytes, and checks them. The buffer grows with what really comes.
fn inflate(deflated: &[u8], len: usize, crc: u32) -> Result<Vec<u8>, String> {
    let bytes = decompress_to_vec_with_limit(deflated, len)
        .map_err(|e| format!("what is compressed is damaged or cut short: {:?}", e.status))?;
    checked(&bytes, len, crc)?;
    Ok(bytes)
}

fn checked(bytes: &[u8], len: usize, crc: u32) -> Result<(), String> {
    if bytes.len() != len || crc32(bytes) != crc {
        return Err("what is compressed is damaged: its checksum differs".into());
    }
    Ok(())
}

/// The checksum of gzip and zip.
///
/// Source: RFC 1952, section 8
fn crc32(bytes: &[u8]) -> u32 {
    static TABLE: [u32; 256] = {
        let (mut table, mut i) = ([0; 256], 0);
        while i < 256 {
            let (mut crc, mut bit) = (i as u32, 0);
            while bit < 8 {
                crc = if crc & 1 == 1 { 0xEDB8_8320 ^ (crc >> 1) } else { crc >> 1 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc: u32, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
}
