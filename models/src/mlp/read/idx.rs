//! IDX, the format of MNIST: two zeros, type, number of dimensions, the dimensions in 32 bits (big endian), then data.

use std::path::{Path, PathBuf};

use candle_engine::{Error, Result};

use super::array::{elements, Array};
use super::{read, unzipped};
use crate::mlp::table::Table;

pub(super) fn table(bytes: &[u8], source: &str) -> Result<Table> {
    array(bytes).map_err(|what| Error::Input(format!("{source}: {what}")))?.table(source)
}

fn array(bytes: &[u8]) -> Result<Array, String> {
    let short = || "the header is cut short".to_owned();
    let [0, 0, kind, dims, rest @ ..] = bytes else { return Err(short()) };
    let (shape, data) = rest.split_at_checked(4 * usize::from(*dims)).ok_or_else(short)?;
    let shape: Vec<usize> =
        shape.as_chunks::<4>().0.iter().map(|n| u32::from_be_bytes(*n) as usize).collect();
    let size = match kind {
        0x08 | 0x09 => 1,
        0x0B => 2,
        0x0C | 0x0D => 4,
        0x0E => 8,
        _ => return Err(format!("is neither text nor IDX: type {kind:#04x} is unknown")),
    };
    elements(&shape, size, data.len())?;
    let two = || data.as_chunks::<2>().0.iter();
    let four = || data.as_chunks::<4>().0.iter();
    let numbers = match kind {
        0x08 => data.iter().map(|x| f32::from(*x)).collect(),
        0x09 => data.iter().map(|x| f32::from(*x as i8)).collect(),
        0x0B => two().map(|x| f32::from(i16::from_be_bytes(*x))).collect(),
        0x0C => four().map(|x| i32::from_be_bytes(*x) as f32).collect(),
        0x0D => four().map(|x| f32::from_be_bytes(*x)).collect(),
        _ => data.as_chunks::<8>().0.iter().map(|x| f64::from_be_bytes(*x) as f32).collect(),
    };
    Ok(Array { shape, numbers, bytes: *kind == 0x08 })
}

/// The labels' file beside one of images: `train-labels-idx1-ubyte` beside `train-images-idx3-ubyte`.
pub(super) fn labels_beside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let labels = name.replacen("images", "labels", 1).replacen("idx3", "idx1", 1);
    let with_end = |end: &str| path.with_file_name(format!("{}{end}", labels.trim_end_matches(".gz")));
    let candidates = [path.with_file_name(&labels), with_end(""), with_end(".gz")];
    candidates.into_iter().find(|path| labels != name && path.is_file())
}

pub(super) fn with_labels(table: Table, path: &Path) -> Result<Table> {
    let wrong = |what: String| Error::Input(format!("{}: {what}", path.display()));
    let bytes = read(path)?;
    let labels = array(&unzipped(&bytes).map_err(wrong)?).map_err(wrong)?;
    if labels.shape.len() != 1 {
        return Err(wrong(format!("expected one label for each image, got shape {:?}", labels.shape)));
    }
    table.with_target("label", &labels.numbers)
}
