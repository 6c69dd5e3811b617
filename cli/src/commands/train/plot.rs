//! The curve of the losses: on the terminal, and as an SVG file.

use std::path::Path;

use candle_engine::Error;
use candle_engine_models::mlp::Epoch;

use crate::exit::{Failure, Outcome, GENERAL};
use crate::output::Ui;

/// Columns and lines on the terminal.
const COLUMNS: usize = 64;
const LINES: usize = 14;

/// Refuses a file that is not going to be one of SVG.
pub fn check(path: Option<&Path>) -> Outcome {
    let end = path.and_then(Path::extension);
    match path {
        Some(path) if end.is_none_or(|end| !end.eq_ignore_ascii_case("svg")) => {
            Err(Failure::usage(format!("--plot={}: expected a name that ends in .svg", path.display())))
        }
        _ => Ok(()),
    }
}

/// Draws the losses of all epochs on the terminal, and to a file if one is named.
pub fn draw(epochs: &[Epoch], path: Option<&Path>, ui: &Ui) -> Outcome {
    let curves = Curves::new(epochs);
    ui.note(curves.text());
    if let Some(path) = path {
        std::fs::write(path, curves.svg())
            .map_err(|e| Failure::from(Error::io(path, e)).with_code(GENERAL))?;
    }
    Ok(())
}

/// Losses by epoch.
struct Curves {
    train: Vec<f64>,
    validation: Vec<f64>,
    low: f64,
    high: f64,
    /// Whether each line up is a factor: what falls by much is seen to fall to the end.
    factors: bool,
}

impl Curves {
    fn new(epochs: &[Epoch]) -> Self {
        let train: Vec<f64> = epochs.iter().map(|epoch| epoch.loss).collect();
        let validation: Vec<f64> = epochs.iter().filter_map(|epoch| epoch.validation_loss).collect();
        let all = || train.iter().chain(&validation).copied().filter(|x| x.is_finite());
        let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
        // A flat line lies in the middle of something.
        let (low, high) = if low < high { (low, high) } else { (low - 0.5, low + 0.5) };
        let factors = low > 0.0 && high > 10.0 * low;
        Self { train, validation, low, high, factors }
    }

    /// How far up a loss lies, 0 to 1.
    fn height(&self, loss: f64) -> f64 {
        let height = match self.factors {
            true => (loss / self.low).ln() / (self.high / self.low).ln(),
            false => (loss - self.low) / (self.high - self.low),
        };
        height.clamp(0.0, 1.0)
    }

    /// The loss that lies so far up.
    fn loss_at(&self, height: f64) -> f64 {
        match self.factors {
            true => self.low * (self.high / self.low).powf(height),
            false => self.low + (self.high - self.low) * height,
        }
    }

    fn text(&self) -> String {
        let mut cells = vec![[' '; COLUMNS]; LINES];
        for (losses, mark) in [(&self.train, '.'), (&self.validation, 'o')] {
            for (column, line) in (0..COLUMNS).filter_map(|column| {
                let epoch = column * losses.len() / COLUMNS;
                let height = self.height(*losses.get(epoch)?);
                Some((column, ((1.0 - height) * (LINES - 1) as f64).round() as usize))
            }) {
                cells[line][column] = mark;
            }
        }
        let mut text = String::new();
        for (i, line) in cells.iter().enumerate() {
            let label = match i {
                0 => format!("{:.4}", self.high),
                _ if i + 1 == LINES => format!("{:.4}", self.low),
                _ => String::new(),
            };
            text += &format!("{label:>10} |{}\n", line.iter().collect::<String>().trim_end());
        }
        let marks = if self.validation.is_empty() { ". train" } else { ". train, o validation" };
        text + &format!(
            "{:>10} +{}\n{:12}epochs 1 to {}; loss: {marks}",
            "",
            "-".repeat(COLUMNS),
            "",
            self.train.len()
        )
    }

    fn svg(&self) -> String {
        let (width, height, left, bottom) = (640.0, 400.0, 60.0, 40.0);
        let x = |i: usize, n: usize| left + (width - left - 20.0) * i as f64 / (n.max(2) - 1) as f64;
        let y = |loss: f64| 20.0 + (height - bottom - 20.0) * (1.0 - self.height(loss));
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        for i in 0..=4 {
            let loss = self.loss_at(f64::from(i) / 4.0);
            let (at, from, to) = (y(loss), left, width - 20.0);
            svg += &format!("<path d=\"M{from} {at:.1}H{to}\" stroke=\"#ddd\"/>\n");
            svg += &format!(
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{loss:.4}</text>\n",
                left - 6.0,
                at + 4.0
            );
        }
        let epochs = self.train.len();
        let under = height - bottom + 18.0;
        svg += &format!("<text x=\"{left}\" y=\"{under}\">epoch 1</text>\n");
        svg += &format!("<text x=\"{}\" y=\"{under}\" text-anchor=\"end\">{epochs}</text>\n", width - 20.0);
        let curves = [("train", "#1f77b4", &self.train), ("validation", "#d62728", &self.validation)];
        for (i, (name, colour, losses)) in
            curves.into_iter().filter(|(.., losses)| !losses.is_empty()).enumerate()
        {
            let points: Vec<String> = losses
                .iter()
                .enumerate()
                .filter(|(_, loss)| loss.is_finite())
                .map(|(i, loss)| format!("{:.1},{:.1}", x(i, losses.len()), y(*loss)))
                .collect();
            let points = points.join(" ");
            svg += &format!(
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n"
            );
            let (at, down) = (width - 100.0, 36.0 + 16.0 * i as f64);
            svg += &format!("<text x=\"{at}\" y=\"{down}\" fill=\"{colour}\">{name}</text>\n");
        }
        svg + "</svg>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_fall_where_losses_do() {
        let epoch = |epoch: usize| {
            let loss = 1.0 / epoch as f64;
            Epoch { epoch, loss, validation_loss: Some(2.0 * loss), score: 0.0, lr: 0.0 }
        };
        let curves = Curves::new(&(1..=8).map(epoch).collect::<Vec<_>>());
        let text = curves.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), LINES + 2);
        assert!(lines[0].starts_with("    2.0000 |oooo") && lines[LINES - 1].contains("0.1250"), "{text}");
        assert!(lines[LINES - 1].ends_with('.') && lines[LINES + 1].contains("epochs 1 to 8"), "{text}");
        let svg = curves.svg();
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("60.0,20.0") && svg.contains("620.0,"), "{svg}");
        assert!(check(Some("a.png".as_ref())).is_err() && check(Some("a.SVG".as_ref())).is_ok());
    }
}
