//! A feed-forward network that `train` made.

use std::path::Path;

use candle_engine_models::mlp::{Kind, Mlp, Target};
use serde_json::json;

use super::Lists;
use crate::exit::Outcome;
use crate::output;

pub fn run(dir: &Path, as_json: bool, lists: &Lists) -> Outcome {
    let mlp = Mlp::load(dir)?;
    let network = mlp.architecture.widths(&mlp.schema);
    if as_json {
        let mut report = json!({
            "model": dir, "architecture": "mlp", "network": network, "parameters": mlp.parameters(),
            "config": mlp.architecture, "schema": mlp.schema,
        });
        for (name, list) in [("tensors", json!(lists.tensors)), ("check", json!(lists.check))] {
            if !list.is_null() {
                report[name] = list;
            }
        }
        return output::json(&report);
    }
    let target = match &mlp.schema.target {
        Target::Classes { name, labels } => format!("{name}: {}", labels.join(", ")),
        Target::Number { name, .. } => format!("{name}: a number"),
    };
    output::line(format_args!("network     {network}, {} parameters", mlp.parameters()))?;
    output::line(format_args!("target      {target}\n"))?;
    let rows: Vec<[String; 2]> = mlp
        .schema
        .inputs
        .iter()
        .map(|input| {
            let what = match &input.kind {
                Kind::Number { mean, std, missing } => {
                    let missing = if *missing { ", may be missing" } else { "" };
                    format!("number, mean {mean}, deviation {std}{missing}")
                }
                Kind::Category { values, embedding: None, .. } => format!("one of {} texts", values.len()),
                Kind::Category { values, embedding: Some(width), .. } => {
                    format!("one of {} texts, embedding of width {width}", values.len())
                }
            };
            [input.name.clone(), what]
        })
        .collect();
    output::table(["input", "what"], &rows)?;
    lists.print()
}
