//! From the rows of a table to what a network reads and should say.

use candle_engine::{memory, Result};

use super::schema::{Kind, Schema, Target};
use super::table::{shortened, Cell, Table};

/// A table as the network reads it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Encoded {
    /// The number of rows.
    pub rows: usize,
    /// `[rows, dense inputs]`
    pub dense: Vec<f32>,
    /// Entries of each embedding, `[rows]`.
    pub entries: Vec<Vec<u32>>,
    /// Numbers of labels, `[rows]`, of a classification.
    pub labels: Vec<u32>,
    /// Numbers in the target's own units, `[rows]`, of a regression.
    pub targets: Vec<f32>,
}

impl Encoded {
    /// Reads the inputs of a table by the names of its columns, and with `targets` what they should give.
    ///
    /// Errors: `Input` naming a column that is missing, or row and column of what the network does not know.
    pub fn new(schema: &Schema, table: &Table, targets: bool) -> Result<Self> {
        let (rows, width) = (table.rows(), schema.dense());
        memory::check("the encoded data", (rows as u64).saturating_mul(4 * width as u64))?;
        let columns =
            schema.inputs.iter().map(|input| table.column(&input.name)).collect::<Result<Vec<_>>>()?;
        let mut encoded = Self { rows, dense: Vec::with_capacity(rows * width), ..Self::default() };
        encoded.entries.resize_with(schema.embeddings().len(), || Vec::with_capacity(rows));
        for row in 0..rows {
            let mut embedding = 0;
            for (input, &column) in schema.inputs.iter().zip(&columns) {
                match &input.kind {
                    Kind::Number { mean, std, missing } => {
                        let x = number(table, row, column)?;
                        encoded.dense.push(x.map_or(0.0, |x| (x - mean) / std));
                        if *missing {
                            encoded.dense.push(f32::from(x.is_none()));
                        }
                    }
                    Kind::Category { values, embedding: width, missing } => {
                        let known = category(table, row, column, values)?;
                        if known.is_none() && width.is_some() && !missing {
                            return Err(table.error(row, column, "is missing, as it never was in training"));
                        }
                        if width.is_some() {
                            encoded.entries[embedding].push(known.map_or(0, |i| i as u32 + 1));
                            embedding += 1;
                        } else {
                            encoded.dense.extend((0..values.len()).map(|i| f32::from(Some(i) == known)));
                        }
                    }
                }
            }
        }
        if targets {
            encoded.read_targets(&schema.target, table)?;
        }
        Ok(encoded)
    }

    fn read_targets(&mut self, target: &Target, table: &Table) -> Result<()> {
        let column = table.column(target.name())?;
        for row in 0..table.rows() {
            match target {
                Target::Number { .. } => {
                    let missing = || table.error(row, column, "the target is missing");
                    self.targets.push(number(table, row, column)?.ok_or_else(missing)?);
                }
                Target::Classes { labels, .. } => {
                    let label = table.label(row, column);
                    let known = label.as_ref().and_then(|label| position(labels, label));
                    let Some(known) = known else {
                        let label = label.unwrap_or_default();
                        let what = format!("the label `{label}` is none of {}", shortened(labels));
                        return Err(table.error(row, column, what));
                    };
                    self.labels.push(known as u32);
                }
            }
        }
        Ok(())
    }
}

/// A text's place in a list; a number's, however it is written.
fn position(values: &[String], text: &str) -> Option<usize> {
    let number = |text: &str| text.parse::<f32>().ok();
    values.iter().position(|value| value == text).or_else(|| {
        let x = number(text)?;
        values.iter().position(|value| number(value) == Some(x))
    })
}

fn number(table: &Table, row: usize, column: usize) -> Result<Option<f32>> {
    match table.cell(row, column) {
        Cell::Missing => Ok(None),
        Cell::Number(x) if x.is_finite() => Ok(Some(x)),
        Cell::Number(x) => Err(table.error(row, column, format!("expected a number, got {x}"))),
        Cell::Text(text) => Err(table.error(row, column, format!("expected a number, got `{text}`"))),
    }
}

fn category(table: &Table, row: usize, column: usize, values: &[String]) -> Result<Option<usize>> {
    let Some(text) = table.label(row, column) else { return Ok(None) };
    let unknown = || {
        let what = format!("`{text}` is none of the texts that it was trained on: {}", shortened(values));
        table.error(row, column, what)
    };
    position(values, &text).map(Some).ok_or_else(unknown)
}
