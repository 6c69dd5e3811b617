//! The rows as llama-bench prints them.

use candle_engine::kernels::Isa;
use candle_engine_models::{LoadOptions, Model};

use super::Row;
use crate::exit::Outcome;
use crate::output;

/// A table in Markdown whose rows come as they are measured.
pub struct Table {
    silent: bool,
    begun: bool,
}

impl Table {
    pub fn new(silent: bool) -> Self {
        Self { silent, begun: false }
    }

    pub fn print(&mut self, row: &Row, model: &Model, options: &LoadOptions) -> Outcome {
        if self.silent {
            return Ok(());
        }
        if !std::mem::replace(&mut self.begun, true) {
            output::line(cells(
                ["model", "size", "params", "backend", "threads", "test", "t/s", "GB/s"].map(str::to_owned),
            ))?;
            let rule = |width: usize, right: bool| {
                format!("{}{}", "-".repeat(width - 1), if right { ':' } else { '-' })
            };
            let rules: Vec<String> =
                WIDTHS.iter().zip(RIGHT).map(|(&width, right)| format!(" {} ", rule(width, right))).collect();
            output::line(format_args!("|{}|", rules.join("|")))?;
        }
        let backend = match options.device.location() {
            candle_core::DeviceLocation::Cpu => format!("CPU {}", Isa::best()),
            candle_core::DeviceLocation::Cuda { gpu_id } => format!("CUDA {gpu_id}"),
            candle_core::DeviceLocation::Metal { gpu_id } => format!("Metal {gpu_id}"),
        };
        let totals = model.totals();
        let parameters = totals.iter().map(|t| t.parameters).sum();
        let bytes = totals.iter().map(|t| t.bytes).sum();
        output::line(cells([
            format!("{} {}", row.model, row.format),
            output::bytes(bytes),
            output::count(parameters),
            backend,
            row.threads.to_string(),
            row.test.clone(),
            format!("{:.2} ± {:.2}", row.tokens_per_s, row.deviation),
            format!("{:.2}", row.gb_per_s),
        ]))
    }
}

const WIDTHS: [usize; 8] = [30, 10, 10, 12, 7, 15, 20, 8];
const RIGHT: [bool; 8] = [false, true, true, false, true, true, true, true];

fn cells(texts: [String; 8]) -> String {
    let mut line = String::from("|");
    for ((text, width), right) in texts.iter().zip(WIDTHS).zip(RIGHT) {
        let pad = " ".repeat(width.saturating_sub(text.chars().count()));
        line += &if right { format!(" {pad}{text} |") } else { format!(" {text}{pad} |") };
    }
    line
}
