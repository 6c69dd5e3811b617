//! What a conversion came to.

use candle_engine::weights::Format;
use candle_engine_quantization::Deviation;

/// A tensor that was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// Its name in the source.
    pub name: String,
    /// The layer it belongs to.
    pub layer: Option<usize>,
    /// What it was.
    pub from: Format,
    /// What it is.
    pub to: Format,
    /// How far it is from what it was.
    pub deviation: Deviation,
}

/// A conversion.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// All tensors, in the order in which they were written.
    pub tensors: Vec<Written>,
    /// Bytes of the tensors before.
    pub bytes_before: u64,
    /// Bytes of the file of tensors.
    pub bytes_after: u64,
}

impl Report {
    /// Deviation of each layer's matrices taken together, and of what is in no layer; and the matrix that deviates most.
    pub fn layers(&self) -> Vec<(Option<usize>, Deviation, &Written)> {
        let mut rows: Vec<(Option<usize>, Deviation, &Written)> = Vec::new();
        let mut converted: Vec<&Written> = self.tensors.iter().filter(|t| t.deviation.energy > 0.0).collect();
        converted.sort_by_key(|t| (t.layer.is_none(), t.layer));
        for tensor in converted {
            match rows.last_mut().filter(|(layer, ..)| *layer == tensor.layer) {
                Some((_, sum, worst)) => {
                    *sum += tensor.deviation;
                    if tensor.deviation.relative() > worst.deviation.relative() {
                        *worst = tensor;
                    }
                }
                None => rows.push((tensor.layer, tensor.deviation, tensor)),
            }
        }
        rows
    }
}
