//! What a network is worth, for people.

use candle_engine_models::mlp::{Class, Measures, Report};

use crate::exit::Outcome;
use crate::output;

/// Labels beyond which the confusion matrix is only in the JSON.
const MOST: usize = 20;

pub fn print(report: &Report) -> Outcome {
    output::line(summary(report))?;
    if let Measures::Classes { classes, confusion, .. } = &report.measures {
        output::line("")?;
        let rows: Vec<[String; 4]> = classes.iter().map(row).collect();
        output::table(["label", "precision", "recall", "rows"], &rows)?;
        if classes.len() <= MOST {
            output::line("\nrows by their label (down) and by what was predicted (across):")?;
            return output::piece(&matrix(classes, confusion));
        }
    }
    Ok(())
}

/// One line.
pub fn summary(report: &Report) -> String {
    let (rows, loss) = (report.rows, report.loss);
    match &report.measures {
        Measures::Classes { accuracy, .. } => {
            format!("accuracy {:.2} %, loss {loss:.4}, {rows} rows", 100.0 * accuracy)
        }
        Measures::Numbers { r2, mae, rmse } => {
            format!("R2 {r2:.4}, mean error {mae:.4}, root mean square error {rmse:.4}, {rows} rows")
        }
    }
}

fn row(class: &Class) -> [String; 4] {
    let percent = |x: f64| format!("{:.1} %", 100.0 * x);
    [class.label.clone(), percent(class.precision), percent(class.recall), class.rows.to_string()]
}

fn matrix(classes: &[Class], confusion: &[Vec<usize>]) -> String {
    let width = |text: &str| text.chars().count();
    let labels = || classes.iter().map(|class| class.label.as_str());
    let first = labels().map(width).max().unwrap_or(0);
    let widths: Vec<usize> = labels()
        .enumerate()
        .map(|(i, label)| {
            confusion.iter().map(|row| row[i].to_string().len()).max().unwrap_or(0).max(width(label))
        })
        .collect();
    let line = |head: &str, cells: Vec<String>| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("  {cell:>width$}"));
        format!("{head:first$}{}\n", cells.collect::<String>())
    };
    let mut text = line("", labels().map(str::to_owned).collect());
    for (label, row) in labels().zip(confusion) {
        text += &line(label, row.iter().map(ToString::to_string).collect());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_has_columns_as_wide_as_its_labels() {
        let class = |label: &str| Class { label: label.into(), precision: 0.0, recall: 0.0, rows: 0 };
        let text = matrix(&[class("é"), class("long")], &[vec![100, 2], vec![3, 4]]);
        assert_eq!(text, "        é  long\né     100     2\nlong    3     4\n");
    }
}
