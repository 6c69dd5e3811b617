//! What a checkpoint holds, for reports: a matrix of small integers is one thing, not the tensors it lies in.

use candle_engine::weights::{Format, Weights};

use crate::compressed_tensors::{matrix, suffix};

/// A tensor, or a matrix with its scales.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name; that of a matrix ends in `.weight`.
    pub name: String,
    /// The format of its numbers.
    pub format: Format,
    /// Dimensions, slowest first.
    pub shape: Vec<usize>,
    /// Bytes in the file.
    pub bytes: u64,
}

/// Everything in a checkpoint, sorted by name.
pub fn tensors(weights: &dyn Weights) -> Vec<Listed> {
    let names = weights.names();
    let size = |name: String| weights.get(&name).map_or(0, |stored| stored.bytes.len() as u64);
    let mut listed = Vec::with_capacity(names.len());
    for name in &names {
        let base = [suffix::PACKED, suffix::WEIGHT].iter().find_map(|end| name.strip_suffix(end));
        let joined = base.and_then(|base| {
            let parts = matrix(weights, base).ok()??;
            Some((base, parts.shape(), parts.format().ok()?))
        });
        if let Some((base, (out, inner), format)) = joined {
            let all = [suffix::WEIGHT, suffix::PACKED, suffix::SHAPE, suffix::SCALE, suffix::ZERO_POINT];
            listed.push(Listed {
                name: format!("{base}{}", suffix::WEIGHT),
                format,
                shape: vec![out, inner],
                bytes: all.iter().map(|end| size(format!("{base}{end}"))).sum(),
            });
        } else if !belongs(weights, name) {
            if let Ok(stored) = weights.get(name) {
                let bytes = stored.bytes.len() as u64;
                listed.push(Listed { name: stored.name, format: stored.format, shape: stored.shape, bytes });
            }
        }
    }
    listed
}

/// Whether a tensor is part of a matrix that is listed.
fn belongs(weights: &dyn Weights, name: &str) -> bool {
    [suffix::SHAPE, suffix::SCALE, suffix::ZERO_POINT].iter().any(|end| {
        name.strip_suffix(end).is_some_and(|base| {
            matrix(weights, base).ok().flatten().is_some_and(|parts| parts.format().is_ok())
        })
    })
}
