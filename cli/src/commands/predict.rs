//! `predict`: what a trained network says of rows.

use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use candle_engine::kernels::threads::set_threads;
use candle_engine_models::mlp::{Mlp, Prediction, Table};
use serde_json::{json, Map, Value};

use super::train::report;
use crate::args::train::Predict;
use crate::exit::{Failure, Outcome};
use crate::output;

pub fn run(args: &Predict) -> Outcome {
    if let Some(threads) = args.threads {
        set_threads(threads);
    }
    let mlp = Mlp::load(&args.folder)?;
    let table = table(&args.file)?;
    if args.report {
        let report = mlp.evaluate(&table)?;
        return match args.json {
            true => output::json(&report),
            false => report::print(&report),
        };
    }
    let labels = mlp.schema.target.labels();
    let mut out = BufWriter::new(io::stdout().lock());
    for prediction in mlp.predict(&table)? {
        writeln!(out, "{}", object(labels, prediction))?;
    }
    out.flush()?;
    Ok(())
}

/// A table from a file; `-` is stdin.
pub fn table(file: &Path) -> Outcome<Table> {
    if file != Path::new("-") {
        return Ok(Table::open(file)?);
    }
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes).map_err(|e| Failure::input(format!("stdin: {e}")))?;
    Ok(Table::from_bytes(&bytes, "stdin")?)
}

fn object(labels: &[String], prediction: Prediction) -> Value {
    match prediction {
        Prediction::Number(value) => json!({ "value": value }),
        Prediction::Label(label, probabilities) => {
            let all: Map<String, Value> =
                labels.iter().cloned().zip(probabilities.iter().map(|p| json!(p))).collect();
            json!({ "label": labels[label], "probability": probabilities[label], "probabilities": all })
        }
    }
}
