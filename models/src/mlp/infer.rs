//! What the columns of a table are, found from what they hold.

use std::collections::BTreeSet;

use candle_engine::{Error, Result};

use super::schema::{Input, Kind, Schema, Target};
use super::table::{Cell, Cells, Table};

/// Texts that a column of categories may hold.
const MOST_CATEGORIES: usize = 1000;
/// Texts that may be as good as different in every row, and still are categories.
const FEW_CATEGORIES: usize = 20;
/// Categories that have an input each; more get an embedding.
const ONE_HOT: usize = 16;
/// Labels that whole numbers may be.
const MOST_NUMBERED: usize = 100;

/// What the data alone does not say.
#[derive(Debug, Clone, Default)]
pub struct Hints {
    /// The target's column; the last if absent.
    pub target: Option<String>,
    /// Columns that are left out.
    pub ignore: Vec<String>,
    /// Columns of categories, even if they hold numbers.
    pub categorical: Vec<String>,
    /// What is predicted; found from the target if absent.
    pub task: Option<Task>,
}

/// What is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// One of some labels.
    Classification,
    /// A number.
    Regression,
}

impl Schema {
    /// Finds it: means and deviations from the rows `train`, categories and labels from all.
    ///
    /// Errors: `Input` naming row and column of what cannot be: a text among numbers, NaN, a target that is missing or
    /// always the same.
    pub fn infer(table: &Table, hints: &Hints, train: &[usize]) -> Result<Self> {
        let target = match &hints.target {
            Some(name) => table.column(name)?,
            None => table
                .target
                .or(table.columns.len().checked_sub(1))
                .ok_or_else(|| Error::Input(format!("{}: its rows have no columns", table.source)))?,
        };
        let numbered =
            |names: &[String]| names.iter().map(|name| table.column(name)).collect::<Result<Vec<_>>>();
        let (ignored, categorical) = (numbered(&hints.ignore)?, numbered(&hints.categorical)?);
        let columns: Vec<usize> =
            (0..table.columns.len()).filter(|c| *c != target && !ignored.contains(c)).collect();
        let mut all = table_statistics(table, train)?;
        if let (Some(all), Cells::Numbers(_, true)) = (&mut all, &table.cells) {
            share(all, &columns);
        }
        let mut inputs = Vec::new();
        for column in columns {
            let kind = match &all {
                Some(all) if !categorical.contains(&column) => {
                    let (mean, std) = rounded(all[column]);
                    Some(Kind::Number { mean, std, missing: false })
                }
                _ => kind(table, column, categorical.contains(&column), train)?,
            };
            if let Some(kind) = kind {
                inputs.push(Input { name: table.columns[column].clone(), kind });
            }
        }
        if inputs.is_empty() {
            let name = &table.columns[target];
            return Err(Error::Input(format!(
                "{}: nothing but the target `{name}` to learn from",
                table.source
            )));
        }
        Ok(Self { inputs, target: target_of(table, target, hints.task, train)? })
    }
}

/// What the cells of a column are.
struct Census<'a> {
    missing: usize,
    numbers: usize,
    /// The row of the first text.
    text: Option<(usize, &'a str)>,
    texts: usize,
}

/// Errors: `Input` for a number that is not finite.
fn census(table: &Table, column: usize) -> Result<Census<'_>> {
    let mut census = Census { missing: 0, numbers: 0, text: None, texts: 0 };
    for row in 0..table.rows() {
        match table.cell(row, column) {
            Cell::Missing => census.missing += 1,
            Cell::Number(x) if x.is_finite() => census.numbers += 1,
            Cell::Number(x) => {
                let what = format!("{x} is no number to learn from; leave a cell empty that is not known");
                return Err(table.error(row, column, what));
            }
            Cell::Text(text) => {
                census.text.get_or_insert((row, text));
                census.texts += 1;
            }
        }
    }
    Ok(census)
}

/// What a column holds; `None` if nothing.
fn kind(table: &Table, column: usize, categorical: bool, train: &[usize]) -> Result<Option<Kind>> {
    let census = census(table, column)?;
    if census.missing == table.rows() {
        return Ok(None);
    }
    if categorical || census.texts > census.numbers {
        return categories(table, column, census.missing > 0).map(Some);
    }
    if let Some((row, text)) = census.text {
        let name = &table.columns[column];
        let what = format!(
            "expected a number as in most rows, got `{text}`; --categorical {name} takes all of them for texts"
        );
        return Err(table.error(row, column, what));
    }
    let (mean, std) = statistics(table, column, train);
    Ok(Some(Kind::Number { mean, std, missing: census.missing > 0 }))
}

fn categories(table: &Table, column: usize, missing: bool) -> Result<Kind> {
    let values = distinct(table, column);
    let (count, rows) = (values.len(), table.rows());
    if count > MOST_CATEGORIES || count > FEW_CATEGORIES && count * 2 > rows {
        let name = &table.columns[column];
        let what = format!(
            "{count} different texts in {rows} rows are neither numbers nor categories; --ignore {name} leaves it out"
        );
        return Err(Error::Input(format!("{}: column `{name}`: {what}", table.source)));
    }
    // As wide as fastai makes it.
    let width = || ((1.6 * (count as f64).powf(0.56)).round() as usize).min(50);
    let embedding = (count > ONE_HOT).then(width);
    Ok(Kind::Category { values: values.into_iter().collect(), embedding, missing })
}

fn distinct(table: &Table, column: usize) -> BTreeSet<String> {
    (0..table.rows()).filter_map(|row| table.label(row, column)).collect()
}

/// Mean and standard deviation of the numbers in some rows; 0 and 1 of none, 1 if they are all the same.
fn statistics(table: &Table, column: usize, rows: &[usize]) -> (f32, f32) {
    let numbers = || {
        rows.iter().filter_map(|row| match table.cell(*row, column) {
            Cell::Number(x) => Some(f64::from(x)),
            _ => None,
        })
    };
    let count = numbers().count().max(1) as f64;
    let mean = numbers().sum::<f64>() / count;
    rounded((mean, numbers().map(|x| (x - mean).powi(2)).sum::<f64>() / count))
}

/// Mean and variance of all columns of a table of numbers, which is read row by row; `None` for one of texts.
///
/// Errors: `Input` for a number that is not finite.
fn table_statistics(table: &Table, train: &[usize]) -> Result<Option<Vec<(f64, f64)>>> {
    let Cells::Numbers(numbers, _) = &table.cells else { return Ok(None) };
    let (width, count) = (table.columns.len(), train.len().max(1) as f64);
    if let Some(at) = numbers.iter().position(|x| !x.is_finite()) {
        let what = format!("{} is no number to learn from", numbers[at]);
        return Err(table.error(at / width, at % width, what));
    }
    let mut means = vec![0.0; width];
    for &row in train {
        let row = &numbers[row * width..][..width];
        means.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x) / count);
    }
    let mut variances = vec![0.0; width];
    for &row in train {
        let row = numbers[row * width..][..width].iter().zip(&means);
        variances
            .iter_mut()
            .zip(row)
            .for_each(|(sum, (x, mean))| *sum += (f64::from(*x) - mean).powi(2) / count);
    }
    Ok(Some(means.into_iter().zip(variances).collect()))
}

/// Mean and deviation; 1 where rounding alone leaves one.
fn rounded((mean, variance): (f64, f64)) -> (f32, f32) {
    let std = variance.sqrt();
    (mean as f32, if std <= 1e-6 * mean.abs() { 1.0 } else { std as f32 })
}

/// Pixels share a mean and a variance: one that is almost always black would otherwise count for too much.
fn share(all: &mut [(f64, f64)], columns: &[usize]) {
    let count = columns.len().max(1) as f64;
    let average = |of: fn((f64, f64)) -> f64| columns.iter().map(|c| of(all[*c])).sum::<f64>() / count;
    let mean = average(|(mean, _)| mean);
    let variance = average(|(mean, variance)| variance + mean * mean) - mean * mean;
    columns.iter().for_each(|c| all[*c] = (mean, variance.max(0.0)));
}

fn target_of(table: &Table, column: usize, task: Option<Task>, train: &[usize]) -> Result<Target> {
    let census = census(table, column)?;
    let name = table.columns[column].clone();
    if let Some(row) = (0..table.rows()).find(|row| table.cell(*row, column) == Cell::Missing) {
        return Err(table.error(row, column, "the target is missing"));
    }
    if let (Some((row, text)), Some(Task::Regression)) = (census.text, task) {
        return Err(table.error(row, column, format!("expected a number, got `{text}`")));
    }
    let values = distinct(table, column);
    if let (1, Some(only)) = (values.len(), values.first()) {
        let what = format!("the target is `{only}` in every row: there is nothing to learn");
        return Err(Error::Input(format!("{}: column `{name}`: {what}", table.source)));
    }
    let task = task.unwrap_or_else(|| {
        let whole = |row| matches!(table.cell(row, column), Cell::Number(x) if x.fract() == 0.0);
        let few = values.len() <= 2 || values.len() <= MOST_NUMBERED && values.len() * 5 <= table.rows();
        match census.text.is_some() || few && (0..table.rows()).all(whole) {
            true => Task::Classification,
            false => Task::Regression,
        }
    });
    if task == Task::Regression {
        let (mean, std) = statistics(table, column, train);
        return Ok(Target::Number { name, mean, std });
    }
    if values.len() > MOST_CATEGORIES {
        let what = format!("{} different texts are no labels", values.len());
        return Err(Error::Input(format!("{}: column `{name}`: {what}", table.source)));
    }
    let mut labels: Vec<String> = values.into_iter().collect();
    if census.text.is_none() {
        let number = |label: &String| label.parse().unwrap_or(f32::NAN);
        labels.sort_by(|a, b| number(a).total_cmp(&number(b)));
    }
    Ok(Target::Classes { name, labels })
}
