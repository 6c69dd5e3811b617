//! CSV: a header, then rows; cells apart by commas, semicolons or tabs, and in quotes if they hold any of these.

use candle_engine::{Error, Result};

use crate::mlp::table::{Cells, Table, Texts};

pub(super) fn table(text: &str, source: &str) -> Result<Table> {
    let wrong = |what: String| Error::Input(format!("{source}: {what}"));
    let header = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let mut rows = Rows { text, line: 1, separator: separator(header) };
    let mut cells = Vec::new();
    if rows.next(&mut cells).map_err(wrong)?.is_none() {
        return Err(wrong("is empty".into()));
    }
    let columns: Vec<String> = cells.iter().map(|name| name.trim().to_owned()).collect();
    if columns.iter().all(|name| name.parse::<f32>().is_ok()) {
        return Err(wrong("the first line holds numbers, expected names of columns".into()));
    }
    if let Some(at) = columns.iter().position(String::is_empty).filter(|at| *at > 0) {
        return Err(wrong(format!("column {} has no name", at + 1)));
    }
    let mut texts = Texts::default();
    while let Some(line) = rows.next(&mut cells).map_err(wrong)? {
        if cells.len() != columns.len() {
            let (want, got) = (columns.len(), cells.len());
            return Err(wrong(format!("line {line}: expected {want} cells as in the header, got {got}")));
        }
        cells.iter().for_each(|cell| texts.push(cell));
        texts.end_row(line);
    }
    Table::new(source, columns, Cells::Texts(texts))
}

/// What stands most often in the header.
fn separator(header: &str) -> u8 {
    let count = |separator: &u8| header.bytes().filter(|byte| byte == separator).count();
    [b'\t', b';', b','].into_iter().max_by_key(count).unwrap_or(b',')
}

/// Goes through the rows.
struct Rows<'a> {
    text: &'a str,
    line: usize,
    separator: u8,
}

impl Rows<'_> {
    /// The next row's cells, and the line that it begins in; empty lines are passed over.
    ///
    /// Source: RFC 4180
    fn next(&mut self, cells: &mut Vec<String>) -> Result<Option<usize>, String> {
        cells.clear();
        loop {
            match self.text.as_bytes() {
                [] => return Ok(None),
                [b'\r', b'\n', ..] | [b'\n', ..] => self.end_line(),
                _ => break,
            }
        }
        let first = self.line;
        loop {
            let cell = match self.text.starts_with('"') {
                true => self.quoted()?,
                false => self.plain(),
            };
            cells.push(cell);
            match self.text.as_bytes() {
                [] => return Ok(Some(first)),
                [byte, ..] if *byte == self.separator => self.text = &self.text[1..],
                [b'\r', b'\n', ..] | [b'\n', ..] => {
                    self.end_line();
                    return Ok(Some(first));
                }
                _ => return Err(format!("line {}: something stands behind a closing quote", self.line)),
            }
        }
    }

    fn end_line(&mut self) {
        self.text = &self.text[1 + usize::from(self.text.starts_with('\r'))..];
        self.line += 1;
    }

    fn plain(&mut self) -> String {
        let separator = char::from(self.separator);
        let end = self.text.find([separator, '\n']).unwrap_or(self.text.len());
        let (cell, rest) = self.text.split_at(end);
        let cell = match rest.starts_with('\n') && cell.ends_with('\r') {
            true => &cell[..end - 1],
            false => cell,
        };
        self.text = &self.text[cell.len()..];
        cell.to_owned()
    }

    /// A cell in quotes, in which two stand for one.
    fn quoted(&mut self) -> Result<String, String> {
        let mut cell = String::new();
        loop {
            self.text = &self.text[1..];
            let Some(end) = self.text.find('"') else {
                return Err(format!("line {}: a quote is never closed", self.line));
            };
            cell += &self.text[..end];
            self.line += self.text[..end].matches('\n').count();
            self.text = &self.text[end + 1..];
            if !self.text.starts_with('"') {
                return Ok(cell);
            }
            cell.push('"');
        }
    }
}
