//! A matrix and the tensors that it becomes.

use candle_engine::weights::Format;
use candle_engine::Result;

use crate::compressed_tensors::{pack_rows, suffix};
use crate::encode::{encode, Deviation, Encoding};
use crate::write::Planned;
use crate::{Rows, Target};

/// Integers of 4 bits in an I32.
const PER_WORD: usize = 8;

/// Names, formats and shapes of the tensors that the matrix `base` becomes.
pub fn planned(base: &str, encoding: &Encoding, (out, inner): (usize, usize)) -> Vec<Planned> {
    let tensor = |suffix: &str, format, shape: &[usize]| Planned {
        name: format!("{base}{suffix}"),
        format,
        shape: shape.to_vec(),
    };
    let scales = |group: usize| tensor(suffix::SCALE, encoding.scales, &[out, inner / group]);
    match encoding.target {
        Target::Int8 { group } => {
            vec![tensor(suffix::WEIGHT, Format::I8, &[out, inner]), scales(group.unwrap_or(inner))]
        }
        Target::Int4 { group, zero_point } => {
            let mut all = vec![
                tensor(suffix::PACKED, Format::I32, &[out, inner / PER_WORD]),
                tensor(suffix::SHAPE, Format::I64, &[2]),
                scales(group),
            ];
            if zero_point {
                all.push(tensor(suffix::ZERO_POINT, Format::I32, &[out.div_ceil(PER_WORD), inner / group]));
            }
            all
        }
        plain => vec![tensor(suffix::WEIGHT, plain.format(), &[out, inner])],
    }
}

/// Converts a matrix to the tensors that [`planned`] lists; `sink` appends bytes to the tensor of a name.
///
/// Errors: as [`encode`].
pub fn convert(
    rows: &Rows,
    base: &str,
    encoding: &Encoding,
    sink: &mut dyn FnMut(&str, Vec<u8>) -> Result<()>,
) -> Result<Deviation> {
    let name = |suffix: &str| format!("{base}{suffix}");
    let (out, inner) = rows.shape();
    let int4 = matches!(encoding.target, Target::Int4 { .. });
    let quants = name(if int4 { suffix::PACKED } else { suffix::WEIGHT });
    let (mut scales, mut zeros) = (Vec::new(), Vec::new());
    let deviation = encode(rows, encoding, &mut |mut part| {
        scales.append(&mut part.scales);
        zeros.append(&mut part.zeros);
        sink(&quants, part.quants)
    })?;
    if !scales.is_empty() {
        sink(&name(suffix::SCALE), scales)?;
    }
    if let Target::Int4 { group, zero_point } = encoding.target {
        sink(&name(suffix::SHAPE), [out, inner].map(|n| (n as i64).to_le_bytes()).concat())?;
        if zero_point {
            sink(&name(suffix::ZERO_POINT), pack_rows(&zeros, inner / group))?;
        }
    }
    Ok(deviation)
}
