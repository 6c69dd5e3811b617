//! JSON lines: an object for each row.

use candle_engine::{Error, Result};
use serde_json::{Map, Value};

use crate::mlp::table::{Cells, Table, Texts};

/// The first object's keys are the columns; what a later one lacks is missing, what it has besides is an error.
pub(super) fn table(text: &str, source: &str) -> Result<Table> {
    let mut columns: Vec<String> = Vec::new();
    let mut texts = Texts::default();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |what: String| Error::Input(format!("{source}: line {}: {what}", i + 1));
        let row: Map<String, Value> =
            serde_json::from_str(line).map_err(|e| wrong(format!("expected a JSON object: {e}")))?;
        if columns.is_empty() {
            columns = row.keys().cloned().collect();
        }
        if let Some(key) = row.keys().find(|key| !columns.contains(key)) {
            return Err(wrong(format!("`{key}` is not among the first line's keys")));
        }
        for column in &columns {
            match row.get(column) {
                None | Some(Value::Null) => texts.push(""),
                Some(Value::String(text)) => texts.push(text),
                Some(value @ (Value::Bool(_) | Value::Number(_))) => texts.push(&value.to_string()),
                Some(_) => return Err(wrong(format!("`{column}`: expected a number, a text or null"))),
            }
        }
        texts.end_row(i + 1);
    }
    Table::new(source, columns, Cells::Texts(texts))
}
