//! NumPy's `.npy`: a magic number, a version, the length of a header, the header as a Python dictionary, data.

use candle_engine::{Error, Result};
use half::f16;

use super::array::{elements, Array};
use crate::mlp::table::Table;

pub(super) fn table(bytes: &[u8], source: &str) -> Result<Table> {
    array(bytes).map_err(|what| Error::Input(format!("{source}: {what}")))?.table(source)
}

pub(super) fn array(bytes: &[u8]) -> Result<Array, String> {
    let short = || "the header is cut short".to_owned();
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("is no array of NumPy")?;
    let (len, rest) = match rest {
        [1, _, a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        [version, ..] if *version > 3 => return Err(format!("version {version} of the format is unknown")),
        _ => return Err(short()),
    };
    let (header, data) = rest.split_at_checked(len).ok_or_else(short)?;
    let header = std::str::from_utf8(header).map_err(|_| "the header is no text")?;
    let dtype = value(header, "descr")?.trim_matches(['\'', '"']).to_owned();
    let shape = shape(value(header, "shape")?)?;
    let size = dtype.get(2..).and_then(|n| n.parse().ok()).filter(|n| [1, 2, 4, 8].contains(n));
    let size = size.ok_or_else(|| unsupported(&dtype))?;
    let count = elements(&shape, size, data.len())?;
    let numbers = numbers(&dtype, data)?;
    let numbers = match value(header, "fortran_order")? {
        "False" => numbers,
        "True" if shape.len() == 2 => {
            (0..count).map(|i| numbers[i % shape[1] * shape[0] + i / shape[1]]).collect()
        }
        "True" if shape.len() < 2 => numbers,
        other => return Err(format!("fortran_order {other} is not supported for shape {shape:?}")),
    };
    Ok(Array { shape, numbers, bytes: dtype == "|u1" })
}

fn unsupported(dtype: &str) -> String {
    format!("dtype `{dtype}` is not supported: expected integers, floats or booleans, little endian")
}

fn numbers(dtype: &str, data: &[u8]) -> Result<Vec<f32>, String> {
    let two = || data.as_chunks::<2>().0.iter();
    let four = || data.as_chunks::<4>().0.iter();
    let eight = || data.as_chunks::<8>().0.iter();
    Ok(match dtype {
        "|u1" | "|b1" => data.iter().map(|x| f32::from(*x)).collect(),
        "|i1" => data.iter().map(|x| f32::from(*x as i8)).collect(),
        "<u2" => two().map(|x| f32::from(u16::from_le_bytes(*x))).collect(),
        "<i2" => two().map(|x| f32::from(i16::from_le_bytes(*x))).collect(),
        "<f2" => two().map(|x| f16::from_le_bytes(*x).to_f32()).collect(),
        "<u4" => four().map(|x| u32::from_le_bytes(*x) as f32).collect(),
        "<i4" => four().map(|x| i32::from_le_bytes(*x) as f32).collect(),
        "<f4" => four().map(|x| f32::from_le_bytes(*x)).collect(),
        "<u8" => eight().map(|x| u64::from_le_bytes(*x) as f32).collect(),
        "<i8" => eight().map(|x| i64::from_le_bytes(*x) as f32).collect(),
        "<f8" => eight().map(|x| f64::from_le_bytes(*x) as f32).collect(),
        _ => return Err(unsupported(dtype)),
    })
}

/// What a key of the dictionary has for a value, up to the comma behind it.
fn value<'a>(header: &'a str, key: &str) -> Result<&'a str, String> {
    let missing = || format!("the header has no `{key}`");
    let at = header.find(&format!("'{key}'")).ok_or_else(missing)?;
    let rest = header[at..].split_once(':').ok_or_else(missing)?.1.trim_start();
    let end = match rest.strip_prefix('(') {
        Some(tuple) => tuple.find(')').map(|end| end + 2),
        None => rest.find([',', '}']),
    };
    Ok(rest[..end.ok_or_else(missing)?].trim())
}

/// `(60000, 784)`
fn shape(text: &str) -> Result<Vec<usize>, String> {
    let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
    let parts = inner.into_iter().flat_map(|inner| inner.split(',')).map(str::trim).filter(|n| !n.is_empty());
    let shape: Option<Vec<usize>> = parts.map(|n| n.parse().ok()).collect();
    shape.filter(|_| inner.is_some()).ok_or_else(|| format!("shape `{text}` is no list of sizes"))
}
