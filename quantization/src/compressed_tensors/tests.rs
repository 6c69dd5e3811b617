//! Tensors and configurations, right and wrong.

use candle_engine::weights::{Format, SafeTensors, Weights};
use serde_json::{json, Value};

use super::*;
use crate::Target;

/// A checkpoint of tensors given as name, dtype, shape and bytes.
fn weights(tensors: &[(&str, &str, &[usize], Vec<u8>)]) -> SafeTensors {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::<u8>::new());
    for (name, dtype, shape, bytes) in tensors {
        let from = data.len();
        data.extend(bytes);
        header.insert(
            (*name).into(),
            json!({"dtype": dtype, "shape": shape, "data_offsets": [from, data.len()]}),
        );
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    SafeTensors::from_bytes("test", file.into()).unwrap()
}

fn floats(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn sizes(x: &[i64]) -> Vec<u8> {
    x.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn numbers(weights: &dyn Weights) -> Vec<Vec<f32>> {
    let matrix = matrix(weights, "w").unwrap().unwrap().join().unwrap();
    let (out, inner) = matrix.shape();
    (0..out)
        .map(|row| {
            let mut numbers = vec![0.0; inner];
            matrix.dequantize(row, &mut numbers);
            numbers
        })
        .collect()
}

fn error(weights: &dyn Weights) -> String {
    matrix(weights, "w").and_then(|parts| parts.unwrap().join().map(drop)).unwrap_err().to_string()
}

#[test]
fn eight_bits_with_every_kind_of_scale() {
    let quants = vec![1, 2, 0xFF, 0x81];
    for (shape, scales, expected) in [
        (&[2, 1][..], vec![0.5, 2.0], [[0.5, 1.0], [-2.0, -254.0]]),
        (&[2], vec![0.5, 2.0], [[0.5, 1.0], [-2.0, -254.0]]),
        (&[1], vec![0.5], [[0.5, 1.0], [-0.5, -63.5]]),
        (&[], vec![2.0], [[2.0, 4.0], [-2.0, -254.0]]),
    ] {
        let all = weights(&[
            ("w.weight", "I8", &[2, 2], quants.clone()),
            ("w.weight_scale", "F32", shape, floats(&scales)),
        ]);
        assert_eq!(numbers(&all), expected, "{shape:?}");
    }
}

#[test]
fn eight_bits_that_are_packed() {
    let all = weights(&[
        ("w.weight_packed", "I32", &[1, 2], vec![0x81, 0x7F, 0x80, 0xFF, 0, 9, 9, 9]),
        ("w.weight_shape", "I64", &[2], sizes(&[1, 5])),
        ("w.weight_scale", "F32", &[1, 1], floats(&[1.0])),
    ]);
    assert_eq!(numbers(&all), [[1.0, -1.0, 0.0, 127.0, -128.0]]);
}

#[test]
fn four_bits_with_zero_points_packed_along_the_rows() {
    let packed: Vec<u8> = (0..9 * 4).map(|i| (i % 16) as u8 | 0x50).collect();
    // The zero points of nine rows are 0 to 8.
    let zeros = vec![0x10, 0x32, 0x54, 0x76, 0x08, 0, 0, 0];
    let all = weights(&[
        ("w.weight_packed", "I32", &[9, 1], packed),
        ("w.weight_shape", "I64", &[2], sizes(&[9, 8])),
        ("w.weight_scale", "F32", &[9, 1], floats(&[1.0; 9])),
        ("w.weight_zero_point", "I32", &[2, 1], zeros.clone()),
    ]);
    let rows = numbers(&all);
    assert_eq!(rows[0], [0.0, 5.0, 1.0, 5.0, 2.0, 5.0, 3.0, 5.0]);
    assert_eq!(rows[8][..2], [0.0 - 8.0, 5.0 - 8.0]);
    assert_eq!(pack_rows(&[0, 1, 2, 3, 4, 5, 6, 7, 8], 1), zeros);
}

#[test]
fn what_is_wrong_is_named() {
    let scale: (&str, &str, &[usize], Vec<u8>) = ("w.weight_scale", "F32", &[1, 1], floats(&[1.0]));
    let quants: (&str, &str, &[usize], Vec<u8>) = ("w.weight", "I8", &[1, 64], vec![0; 64]);
    let packed: (&str, &str, &[usize], Vec<u8>) = ("w.weight_packed", "I32", &[1, 8], vec![0; 32]);
    let shape: (&str, &str, &[usize], Vec<u8>) = ("w.weight_shape", "I64", &[2], sizes(&[1, 64]));
    let with = |extra: &[(&str, &str, &[usize], Vec<u8>)]| error(&weights(extra));

    assert_eq!(with(std::slice::from_ref(&quants)), "tensor `w.weight_scale` is missing");
    assert_eq!(with(&[packed.clone(), scale.clone()]), "tensor `w.weight_shape` is missing");
    let three = ("w.weight_scale", "F32", &[1, 3][..], floats(&[1.0; 3]));
    assert!(with(&[quants.clone(), three]).contains("`w.weight_scale`: expected [1, groups of 64 inputs]"));
    let sixteen = ("w.weight_scale", "F32", &[1, 4][..], floats(&[1.0; 4]));
    assert!(with(&[quants.clone(), sixteen]).contains("groups of 16 inputs are no multiple of 32"));
    let wrong = ("w.weight_scale", "I32", &[1, 1][..], floats(&[1.0]));
    assert!(with(&[quants.clone(), wrong]).contains("`w.weight_scale`: expected F32, F16 or BF16, got I32"));
    let zero = ("w.weight_zero_point", "I8", &[1, 1][..], vec![1]);
    let text = with(&[quants.clone(), scale.clone(), zero]);
    assert!(text.contains("`w.weight_zero_point`: zero points of 8-bit"), "{text}");
    let order = ("w.weight_g_idx", "I32", &[64][..], vec![0; 256]);
    let text = with(&[packed.clone(), shape.clone(), scale.clone(), order]);
    assert!(text.contains("`w.weight_g_idx`") && text.contains("actorder"), "{text}");
    let claimed = ("w.weight_shape", "I64", &[2][..], sizes(&[1 << 31, 64]));
    let text = with(&[packed.clone(), claimed, scale.clone()]);
    assert!(text.contains("`w.weight_packed`: expected I32 [2147483648, 8] for 4 bits"), "{text}");
    let negative = ("w.weight_shape", "I64", &[2][..], sizes(&[-1, 64]));
    assert!(with(&[packed.clone(), negative, scale.clone()]).contains("expected two sizes, got -1"));
    let zero = ("w.weight_zero_point", "I32", &[2, 1][..], vec![0; 8]);
    assert!(with(&[packed, shape, scale, zero]).contains("`w.weight_zero_point`: expected I32 [1, 1]"));
    assert!(matrix(&weights(&[("w.weight", "F32", &[1, 1], floats(&[1.0]))]), "w").unwrap().is_none());
}

#[test]
fn configurations_that_would_not_be_honoured() {
    let good = |weights: Value| {
        json!({"quant_method": "compressed-tensors", "format": "pack-quantized",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}})
    };
    let fine =
        json!({"num_bits": 4, "type": "int", "symmetric": false, "strategy": "group", "group_size": 32});
    check(&good(fine.clone())).unwrap();
    let with = |key: &str, value: Value| {
        let mut weights = fine.clone();
        weights[key] = value;
        check(&good(weights)).map_err(|e| e.to_string())
    };
    assert!(with("actorder", json!("weight")).is_ok());
    for (key, value, expected) in [
        (
            "num_bits",
            json!(3),
            "`quantization_config.config_groups.group_0.weights.num_bits`: expected 4 or 8, got 3",
        ),
        ("type", json!("float"), "weights.type`: expected int, got \"float\""),
        ("strategy", json!("block"), "weights.strategy`: expected channel or group or tensor, got \"block\""),
        ("actorder", json!("group"), "weights.actorder`: expected weight or static, got \"group\""),
        ("num_bits", json!(8), "weights.symmetric`: expected true for 8 bits, got false"),
    ] {
        let error = with(key, value).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let whole = |key: &str, value: Value| {
        let mut config = good(fine.clone());
        config[key] = value;
        check(&config).unwrap_err().to_string()
    };
    assert!(whole("quant_method", json!("gptq")).contains("quant_method`: expected compressed-tensors, got"));
    assert!(whole("format", json!("marlin-24")).contains("`quantization_config.format`"));
    assert!(whole("transform_config", json!({"a": 1})).contains("transform_config"));
    assert!(whole("config_groups", Value::Null).contains("config_groups`: is missing"));
    assert!(check(&json!([])).is_err());
}

#[test]
fn what_is_written_is_understood() {
    let int4 = Target::Int4 { group: 64, zero_point: false };
    let matrix = |name: &str, target, precise| {
        let table = name.ends_with("embed_tokens");
        Converted { name: name.into(), target, precise, table }
    };
    let converted = [
        matrix("m.a", int4, false),
        matrix("m.b", int4, false),
        matrix("m.c", int4, true),
        matrix("lm_head", Target::INT8, false),
        matrix("m.d", Target::INT8, true),
        matrix("m.embed_tokens", Target::INT8, false),
    ];
    let config = describe(&converted, &["c".into()]).unwrap();
    check(&config).unwrap();
    assert_eq!(config["format"], "mixed-precision");
    assert_eq!(config["ignore"], json!(["c"]));
    let group = |i: usize| &config["config_groups"][format!("group_{i}")];
    assert_eq!((&group(0)["targets"], &group(2)["targets"]), (&json!(["Linear"]), &json!(["lm_head"])));
    assert_eq!(
        (&group(0)["weights"]["group_size"], &group(2)["weights"]["strategy"]),
        (&json!(64), &json!("channel"))
    );
    let activations = Activations::read(&config);
    for matrix in &converted {
        let bits = if matrix.target == int4 { 4 } else { 8 };
        assert_eq!(activations.is_precise(&matrix.name, bits), matrix.precise, "{}", matrix.name);
    }
    assert!(describe(&[matrix("a", Target::BF16, false)], &[]).is_none());
    assert_eq!(Target::INT8.format(), Format::Int8 { group: None });
}

#[test]
fn headers_with_any_byte_changed_are_errors_or_matrices() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/quantized");
    let mut joined = 0;
    for case in ["int4-g32-asym", "int8-packed"] {
        let good = std::fs::read(root.join(case).join("model.safetensors")).unwrap();
        let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
        for at in 8..header {
            for byte in [b'0', b'9', good[at] ^ 1] {
                let mut bytes = good.clone();
                bytes[at] = byte;
                let Ok(all) = SafeTensors::from_bytes("broken", bytes.into()) else { continue };
                crate::tensors(&all);
                for base in ["model.layers.0.self_attn.k_proj", "model.layers.0.mlp.up_proj"] {
                    let Ok(Some(parts)) = matrix(&all, base) else { continue };
                    let Ok(matrix) = parts.join() else { continue };
                    matrix.dequantize(matrix.shape().0 - 1, &mut vec![0.0; matrix.shape().1]);
                    joined += 1;
                }
            }
        }
    }
    assert!(joined > 0);
}
