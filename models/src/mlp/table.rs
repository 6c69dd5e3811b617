//! Rows of named columns, as they were read.

use candle_engine::{Error, Result};

/// Rows of named columns, as they were read.
#[derive(Debug, Clone)]
pub struct Table {
    /// What errors call it: its path.
    pub(super) source: String,
    pub(super) columns: Vec<String>,
    pub(super) cells: Cells,
    /// The column that the file itself says is the target.
    pub(super) target: Option<usize>,
}

/// All cells, row by row.
#[derive(Debug, Clone)]
pub(super) enum Cells {
    Texts(Texts),
    /// Numbers, and whether they were bytes: pixels, that is.
    Numbers(Vec<f32>, bool),
}

/// Texts end to end.
#[derive(Debug, Clone, Default)]
pub(super) struct Texts {
    text: String,
    /// Where each cell ends.
    ends: Vec<usize>,
    /// The line that each row begins in.
    lines: Vec<usize>,
}

/// One cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Cell<'a> {
    Missing,
    Number(f32),
    Text(&'a str),
}

/// What people and programs write where nothing is known.
const MISSING: &[&str] = &["", "NA", "N/A", "null", "NULL", "None", "?"];

impl Texts {
    pub fn push(&mut self, cell: &str) {
        self.text.push_str(cell);
        self.ends.push(self.text.len());
    }

    /// The cells pushed since are a row that began in this line.
    pub fn end_row(&mut self, line: usize) {
        self.lines.push(line);
    }

    fn get(&self, i: usize) -> &str {
        let from = if i == 0 { 0 } else { self.ends[i - 1] };
        self.text[from..self.ends[i]].trim()
    }
}

impl Table {
    /// Errors: `Input` if two columns have one name.
    pub(super) fn new(source: &str, columns: Vec<String>, cells: Cells) -> Result<Self> {
        let mut sorted: Vec<&String> = columns.iter().collect();
        sorted.sort();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::Input(format!("{source}: two columns are called `{}`", pair[0])));
        }
        Ok(Self { source: source.into(), columns, cells, target: None })
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        match &self.cells {
            Cells::Texts(texts) => texts.lines.len(),
            Cells::Numbers(numbers, _) => numbers.len() / self.columns.len().max(1),
        }
    }

    /// The names of its columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The column of that name.
    ///
    /// Errors: `Input` naming it and what there is.
    pub(super) fn column(&self, name: &str) -> Result<usize> {
        self.columns.iter().position(|column| column == name).ok_or_else(|| {
            let columns = shortened(&self.columns);
            Error::Input(format!("{}: there is no column `{name}`, only {columns}", self.source))
        })
    }

    pub(super) fn cell(&self, row: usize, column: usize) -> Cell<'_> {
        let at = row * self.columns.len() + column;
        match &self.cells {
            Cells::Numbers(numbers, _) => Cell::Number(numbers[at]),
            Cells::Texts(texts) => {
                let text = texts.get(at);
                if MISSING.contains(&text) {
                    return Cell::Missing;
                }
                text.parse().map_or(Cell::Text(text), Cell::Number)
            }
        }
    }

    /// A cell as it is written, `None` where it is missing.
    pub(super) fn label(&self, row: usize, column: usize) -> Option<String> {
        match (&self.cells, self.cell(row, column)) {
            (_, Cell::Missing) => None,
            (Cells::Texts(texts), _) => Some(texts.get(row * self.columns.len() + column).to_owned()),
            (Cells::Numbers(..), Cell::Number(x)) => Some(x.to_string()),
            (Cells::Numbers(..), Cell::Text(text)) => Some(text.to_owned()),
        }
    }

    /// An error about a cell.
    pub(super) fn error(&self, row: usize, column: usize, what: impl std::fmt::Display) -> Error {
        let line = match &self.cells {
            Cells::Texts(texts) => format!(" (line {})", texts.lines[row]),
            Cells::Numbers(..) => String::new(),
        };
        let column = &self.columns[column];
        Error::Input(format!("{}: row {}{line}, column `{column}`: {what}", self.source, row + 1))
    }

    /// Appends a column of numbers that is the target.
    ///
    /// Errors: `Input` if there are not as many numbers as rows.
    pub(super) fn with_target(self, name: &str, numbers: &[f32]) -> Result<Self> {
        let (rows, width) = (self.rows(), self.columns.len());
        let Cells::Numbers(inputs, bytes) = &self.cells else { return Ok(self) };
        if numbers.len() != rows {
            let got = numbers.len();
            return Err(Error::Input(format!("{}: {rows} rows, but {got} of `{name}`", self.source)));
        }
        let mut cells = Vec::with_capacity(rows * (width + 1));
        for (row, target) in inputs.chunks_exact(width).zip(numbers) {
            cells.extend_from_slice(row);
            cells.push(*target);
        }
        let columns = self.columns.iter().cloned().chain([name.to_owned()]).collect();
        let mut table = Self::new(&self.source, columns, Cells::Numbers(cells, *bytes))?;
        table.target = Some(width);
        Ok(table)
    }
}

/// Some names for a message.
pub(super) fn shortened(names: &[String]) -> String {
    const MOST: usize = 8;
    let mut text = names.iter().take(MOST).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > MOST {
        text += &format!(" and {} more", names.len() - MOST);
    }
    text
}
