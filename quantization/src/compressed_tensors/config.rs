//! `quantization_config`: what it may say, and what is written.

use candle_engine::{Error, Result};
use serde_json::{json, Map, Value};

use crate::Target;

const KEY: &str = "quantization_config";
const FORMATS: &[&str] = &["int-quantized", "naive-quantized", "pack-quantized", "mixed-precision", "dense"];

/// Refuses what would not be computed as the configuration says.
///
/// The tensors say the rest: bits, groups, which layers. Of activations the bits are followed ([`Activations`]); how
/// they and the KV cache are scaled is passed over, for the engine chooses that itself, and no coarser.
///
/// [`Activations`]: super::Activations
///
/// Errors: `Config` naming the key.
pub fn check(config: &Value) -> Result<()> {
    let config = object(config, KEY)?;
    expect(config, KEY, "quant_method", &["compressed-tensors"])?;
    expect(config, KEY, "format", FORMATS)?;
    // Either is said of models whose tensors are compressed.
    expect(config, KEY, "quantization_status", &["compressed", "frozen"])?;
    for key in ["sparsity_config", "transform_config", "moe_sparsity_config"] {
        if let Some(value) = get(config, key).filter(|value| !is_trivial(value)) {
            return Err(Error::config(format!("{KEY}.{key}"), format!("{value} is not supported")));
        }
    }
    let key = format!("{KEY}.config_groups");
    let groups = get(config, "config_groups").ok_or_else(|| Error::config(&key, "is missing"))?;
    for (name, group) in object(groups, &key)? {
        let key = format!("{key}.{name}");
        let group = object(group, &key)?;
        expect(group, &key, "format", FORMATS)?;
        if let Some(value) = get(group, "output_activations") {
            return Err(Error::config(
                format!("{key}.output_activations"),
                format!("{value} is not supported"),
            ));
        }
        if let Some(weights) = get(group, "weights") {
            weights_of(object(weights, &format!("{key}.weights"))?, &format!("{key}.weights"))?;
        }
        if let Some(inputs) = get(group, "input_activations") {
            let key = format!("{key}.input_activations");
            let inputs = object(inputs, &key)?;
            expect(inputs, &key, "type", &["int"])?;
            bits(inputs, &key, &[8, 16])?;
        }
    }
    Ok(())
}

fn weights_of(weights: &Map<String, Value>, key: &str) -> Result<()> {
    expect(weights, key, "type", &["int"])?;
    bits(weights, key, &[4, 8])?;
    expect(weights, key, "strategy", &["channel", "group", "tensor"])?;
    // With this order the inputs stay where they are.
    expect(weights, key, "actorder", &["weight", "static"])?;
    let symmetric = get(weights, "symmetric").and_then(Value::as_bool).unwrap_or(true);
    if !symmetric && get(weights, "num_bits").and_then(Value::as_u64) == Some(8) {
        let what = "expected true for 8 bits, got false";
        return Err(Error::config(format!("{key}.symmetric"), what));
    }
    Ok(())
}

fn bits(args: &Map<String, Value>, key: &str, known: &[u64]) -> Result<()> {
    let value = get(args, "num_bits").map_or(Some(8), Value::as_u64);
    if value.is_some_and(|n| known.contains(&n)) {
        return Ok(());
    }
    let known: Vec<String> = known.iter().map(u64::to_string).collect();
    let got = get(args, "num_bits").unwrap_or(&Value::Null);
    Err(Error::config(format!("{key}.num_bits"), format!("expected {}, got {got}", known.join(" or "))))
}

/// A string among these, if it is there at all.
fn expect(map: &Map<String, Value>, at: &str, key: &str, known: &[&str]) -> Result<()> {
    match get(map, key) {
        None => Ok(()),
        Some(value) if value.as_str().is_some_and(|text| known.contains(&text)) => Ok(()),
        Some(other) => {
            let what = format!("expected {}, got {other}", known.join(" or "));
            Err(Error::config(format!("{at}.{key}"), what))
        }
    }
}

fn get<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    map.get(key).filter(|value| !value.is_null())
}

fn object<'a>(value: &'a Value, key: &str) -> Result<&'a Map<String, Value>> {
    value.as_object().ok_or_else(|| Error::config(key, format!("expected an object, got {value}")))
}

/// Nothing, or a sparsity that leaves the tensors dense.
fn is_trivial(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty() || map.get("format").is_some_and(|format| format == "dense"),
        _ => false,
    }
}

/// A matrix that is converted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// Its name, without `.weight`.
    pub name: String,
    /// What it becomes.
    pub target: Target,
    /// Whether its activations take 16 bits.
    pub precise: bool,
    /// Whether its rows are looked up, and it multiplies nothing.
    pub table: bool,
}

/// The `quantization_config` of a model of whose matrices these are converted, and `kept` are the names of those that
/// stay floats. `None` if none is converted to integers.
pub fn describe(converted: &[Converted], kept: &[String]) -> Option<Value> {
    let mut groups: Vec<(&Converted, Vec<&str>)> = Vec::new();
    for matrix in converted.iter().filter(|matrix| matrix.target.is_grouped()) {
        let kind = |m: &Converted| (m.target, m.precise, m.table);
        match groups.iter_mut().find(|(known, _)| kind(known) == kind(matrix)) {
            Some((_, names)) => names.push(&matrix.name),
            None => groups.push((matrix, vec![&matrix.name])),
        }
    }
    // What most are becomes the rule, the others are named.
    groups.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
    let formats: Vec<&str> = groups.iter().map(|(matrix, _)| format_of(matrix.target)).collect();
    let format = match formats[..] {
        [] => return None,
        [first, ..] if formats.iter().all(|format| *format == first) => first,
        _ => "mixed-precision",
    };
    let group = |(i, (matrix, names)): (usize, &(&Converted, Vec<&str>))| {
        let targets = if i == 0 { vec!["Linear"] } else { names.clone() };
        let group = json!({
            "targets": targets,
            "weights": weights_json(matrix.target),
            "input_activations": activations_json(matrix),
            "output_activations": null,
            "format": format_of(matrix.target),
        });
        (format!("group_{i}"), group)
    };
    let groups: Map<String, Value> = groups.iter().enumerate().map(group).collect();
    Some(json!({
        "quant_method": "compressed-tensors",
        "format": format,
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": kept,
        "kv_cache_scheme": null,
        "global_compression_ratio": null,
    }))
}

/// What [`super::Activations`] reads again.
fn activations_json(matrix: &Converted) -> Option<Value> {
    let bits = match (matrix.target, matrix.precise) {
        _ if matrix.table => return None,
        (Target::Int8 { .. }, false) => 8,
        (Target::Int4 { .. }, true) => 16,
        _ => return None,
    };
    Some(json!({"num_bits": bits, "type": "int", "symmetric": true, "strategy": "token", "dynamic": true}))
}

fn format_of(target: Target) -> &'static str {
    match target {
        Target::Int4 { .. } => "pack-quantized",
        _ => "int-quantized",
    }
}

fn weights_json(target: Target) -> Value {
    let (bits, group, symmetric) = match target {
        Target::Int4 { group, zero_point } => (4, Some(group), !zero_point),
        Target::Int8 { group } => (8, group, true),
        _ => (8, None, true),
    };
    json!({
        "num_bits": bits,
        "type": "int",
        "symmetric": symmetric,
        "strategy": if group.is_some() { "group" } else { "channel" },
        "group_size": group,
        "dynamic": false,
    })
}
