//! `quantization_config`: what it may say, and what is written.

use candle_engine::{Error, Result};
use serde_json::{json, Map, Value};

use crate::Target;

const KEY: &str = "quantization_config";
const FORMATS: &[&str] = &["int-quantized", "naive-quantized", "pack-quantized", "mixed-precision", "dense"];

/// Refuses what would not be computed as the configuration says.
///
/// The tensors say the rest: bits, groups, which layers. How activations and the KV cache are quantized is passed
/// over as long as it is no coarser than 8 bits, for the engine chooses that itself.
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
            bits(inputs, &key, &[8])?;
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

/// The `quantization_config` of a model of whose matrices `converted` lists names and formats, and `kept` the names of
/// those that stay floats. `None` if none is converted to integers.
pub fn describe(converted: &[(String, Target)], kept: &[String]) -> Option<Value> {
    let mut targets: Vec<(Target, Vec<&str>)> = Vec::new();
    for (name, target) in converted.iter().filter(|(_, target)| target.is_grouped()) {
        match targets.iter_mut().find(|(known, _)| known == target) {
            Some((_, names)) => names.push(name),
            None => targets.push((*target, vec![name])),
        }
    }
    // What most are becomes the rule, the others are named.
    targets.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
    let formats: Vec<&str> = targets.iter().map(|(target, _)| format_of(*target)).collect();
    let format = match formats[..] {
        [] => return None,
        [first, ..] if formats.iter().all(|format| *format == first) => first,
        _ => "mixed-precision",
    };
    let mut groups = Map::new();
    for (i, (target, names)) in targets.iter().enumerate() {
        let targets = if i == 0 { vec!["Linear"] } else { names.clone() };
        let activations = matches!(target, Target::Int8 { .. }).then(
            || json!({"num_bits": 8, "type": "int", "symmetric": true, "strategy": "token", "dynamic": true}),
        );
        groups.insert(
            format!("group_{i}"),
            json!({
                "targets": targets,
                "weights": weights_json(*target),
                "input_activations": activations,
                "output_activations": null,
                "format": format_of(*target),
            }),
        );
    }
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
