//! Arrays of numbers on their way into a table.

use candle_engine::{Error, Result};

use crate::mlp::table::{Cells, Table};

/// Numbers with a shape, row-major.
#[derive(Debug)]
pub(super) struct Array {
    pub shape: Vec<usize>,
    pub numbers: Vec<f32>,
    /// Whether they were bytes.
    pub bytes: bool,
}

impl Array {
    /// Columns `x0`, `x1`, … of all dimensions but the first.
    ///
    /// Errors: `Input` if it has fewer than two dimensions, or holds nothing.
    pub fn table(self, source: &str) -> Result<Table> {
        if self.shape.len() < 2 {
            let what = format!("expected rows of numbers, got an array of shape {:?}", self.shape);
            return Err(Error::Input(format!("{source}: {what}")));
        }
        // Of an empty array the other dimensions may claim anything.
        if self.numbers.is_empty() {
            return Err(Error::Input(format!("{source}: an array of shape {:?} is empty", self.shape)));
        }
        let columns = (0..self.shape[1..].iter().product()).map(|i| format!("x{i}")).collect();
        Table::new(source, columns, Cells::Numbers(self.numbers, self.bytes))
    }
}

/// Elements of a shape, if `bytes` bytes are what it needs.
pub(super) fn elements(shape: &[usize], size: usize, bytes: usize) -> Result<usize, String> {
    let count = shape.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
    let needed = count.and_then(|count| count.checked_mul(size));
    match (count, needed) {
        (Some(count), Some(needed)) if needed == bytes => Ok(count),
        _ => Err(format!("shape {shape:?} of {size} bytes each does not fit the {bytes} bytes that follow")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_without_rows_may_claim_any_columns() {
        let shape = vec![0, usize::MAX, usize::MAX];
        assert_eq!(elements(&shape, 1, 0), Ok(0));
        let error = Array { shape, numbers: Vec::new(), bytes: true }.table("x").unwrap_err().to_string();
        assert!(error.starts_with("x: an array of shape [0, ") && error.ends_with("is empty"), "{error}");
    }
}
