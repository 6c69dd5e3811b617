//! Converted matrices against what they were.

use candle_engine::kernels::blocks;
use candle_engine::weights::{Format, SafeTensors, Stored, Weights};
use half::{bf16, f16};

use crate::compressed_tensors::matrix;
use crate::write::{safetensors, Writer};
use crate::{convert, planned, Deviation, Encoding, Rows, Target};

/// Roughly normal numbers, the same each time.
fn numbers(count: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| (0..6).map(|_| uniform()).sum::<f32>() * 0.05).collect()
}

fn stored(format: Format, shape: [usize; 2], numbers: &[f32]) -> Stored {
    let bytes: Vec<u8> = match format {
        Format::F16 => numbers.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        Format::BF16 => numbers.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        _ => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
    };
    Stored { name: "w.weight".into(), bytes: bytes.into(), shape: shape.to_vec(), format }
}

/// The numbers that a matrix is after its conversion, read back from a file, and what the conversion said.
fn converted(source: &Stored, rows: &Rows, encoding: &Encoding) -> (Vec<f32>, Deviation) {
    let path = std::env::temp_dir().join(format!(
        "candle-engine-encode-{}-{:?}-{}.safetensors",
        std::process::id(),
        std::thread::current().id(),
        encoding.target
    ));
    let (out, inner) = rows.shape();
    let mut all = vec![0.0; out * inner];
    if encoding.target.is_blocks() {
        let mut bytes = Vec::new();
        let deviation = convert(rows, "w", encoding, &mut |_, part| {
            bytes.extend(part);
            Ok(())
        });
        blocks::dequantize(encoding.target.format(), &bytes, &mut all);
        return (all, deviation.unwrap());
    }
    let plan = planned("w", encoding, rows.shape());
    let mut writer = Writer::create(&path, safetensors(&plan).unwrap()).unwrap();
    let deviation = convert(rows, "w", encoding, &mut |name, bytes| writer.append(name, bytes)).unwrap();
    writer.finish().unwrap();
    let read = SafeTensors::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    match matrix(&read, "w").unwrap() {
        Some(parts) => {
            assert_eq!(parts.format().unwrap(), encoding.target.format());
            let matrix = parts.join().unwrap();
            all.chunks_exact_mut(inner).enumerate().for_each(|(i, row)| matrix.dequantize(i, row));
        }
        None => {
            let stored = read.get("w.weight").unwrap();
            assert_eq!((&stored.shape, stored.format), (&source.shape, encoding.target.format()));
            let rows = Rows::new(&stored).unwrap();
            all.chunks_exact_mut(inner).enumerate().for_each(|(i, row)| rows.read(i, row));
        }
    }
    (all, deviation)
}

fn target(word: &str) -> Target {
    word.parse().unwrap()
}

#[test]
fn the_deviation_is_what_was_lost_and_within_bounds() {
    let shape = [37, 384];
    for (word, most) in [
        ("f32", 0.0),
        ("f16", 3e-4),
        ("bf16", 2.5e-3),
        ("int8", 9e-3),
        ("int8-g64", 7e-3),
        ("int4-g128", 0.12),
        ("int4-g64", 0.105),
        ("int4-g32", 0.095),
        ("int4-g64-asym", 0.1),
        ("int4-g32-asym", 0.085),
        ("q8_0", 6.5e-3),
        ("q4_0", 0.095),
    ] {
        for format in [Format::F32, Format::F16, Format::BF16] {
            let source = stored(format, shape, &numbers(shape[0] * shape[1]));
            let rows = Rows::new(&source).unwrap();
            let mut before = vec![0.0; shape[0] * shape[1]];
            before.chunks_exact_mut(shape[1]).enumerate().for_each(|(i, row)| rows.read(i, row));
            let (after, said) = converted(&source, &rows, &Encoding::new(target(word), format, None));
            let sum = |f: &dyn Fn(f32, f32) -> f32| -> f64 {
                before.iter().zip(&after).map(|(&a, &b)| f64::from(f(a, b))).sum()
            };
            let error = sum(&|a, b| (a - b).powi(2));
            let energy = sum(&|a, _| a * a);
            assert!((said.error - error).abs() <= 1e-3 * error, "{word} {format}: {said:?}, {error}");
            assert!((said.energy - energy).abs() <= 1e-4 * energy, "{word} {format}");
            assert!(said.relative() <= most, "{word} {format}: {}", said.relative());
        }
    }
}

#[test]
fn integers_times_a_scale_are_kept() {
    // Both ends of the range occur, so that the scale is known.
    let ends = |i: usize, low: i32, high: i32| match i % 32 {
        0 => low,
        1 => high,
        _ => low + (i as i32 * 7) % (high - low),
    };
    for (word, low, high) in
        [("int8", -127, 127), ("int8-g32", -127, 127), ("int4-g32", -8, 7), ("q8_0", -127, 127)]
    {
        let exact: Vec<f32> = (0..3 * 64).map(|i| ends(i, low, high) as f32 * 0.125).collect();
        let source = stored(Format::F32, [3, 64], &exact);
        let rows = Rows::new(&source).unwrap();
        let (after, said) = converted(&source, &rows, &Encoding::new(target(word), Format::F32, None));
        assert_eq!(after, exact, "{word}");
        assert_eq!(said.error, 0.0, "{word}");
    }
}

#[test]
fn zeros_stay_zeros_and_what_is_no_number_is_refused() {
    for word in ["int8", "int4-g32", "int4-g32-asym", "q8_0", "q4_0", "bf16"] {
        let encoding = Encoding::new(target(word), Format::F32, None);
        let source = stored(Format::F32, [2, 64], &[0.0; 128]);
        let (after, said) = converted(&source, &Rows::new(&source).unwrap(), &encoding);
        assert_eq!((after, said.relative()), (vec![0.0; 128], 0.0), "{word}");
        for bad in [f32::NAN, f32::INFINITY] {
            let mut numbers = numbers(128);
            numbers[40] = bad;
            let source = stored(Format::F32, [2, 64], &numbers);
            let error = convert(&Rows::new(&source).unwrap(), "w", &encoding, &mut |_, _| Ok(()));
            assert!(error.unwrap_err().to_string().contains("`w.weight`: holds NaN, infinity"), "{word}");
        }
    }
}

#[test]
fn factors_and_order_apply_before_the_conversion() {
    let numbers = numbers(4 * 32);
    let source = stored(Format::F32, [4, 32], &numbers);
    let inputs: Vec<f32> = (0..32).map(|i| (i as f32 - 16.0).exp2()).collect();
    let (outputs, order) = ([1.0, 2.0, 4.0, 8.0], [2, 0, 3, 1]);
    let rows = Rows::new(&source).unwrap().scaled(Some(&inputs), Some(&outputs)).ordered(&order);
    let (after, _) = converted(&source, &rows, &Encoding::new(Target::F32, Format::F32, None));
    for (i, &from) in order.iter().enumerate() {
        for j in 0..32 {
            assert_eq!(after[i * 32 + j], numbers[from * 32 + j] * inputs[j] * outputs[from]);
        }
    }
    let most = rows.column_maxima();
    assert_eq!(most[5], (0..4).map(|i| after[i * 32 + 5].abs()).fold(0.0, f32::max));
}

#[test]
fn important_inputs_are_kept_better() {
    let source = stored(Format::F32, [64, 128], &numbers(64 * 128));
    let rows = Rows::new(&source).unwrap();
    let error = |importance: Option<Vec<f32>>| {
        let encoding = Encoding::new(target("int4-g64"), Format::F32, importance.map(Into::into));
        let (after, _) = converted(&source, &rows, &encoding);
        let mut row = vec![0.0; 128];
        let mut sum = 0.0;
        for (i, after) in after.chunks_exact(128).enumerate() {
            rows.read(i, &mut row);
            sum += row[..8].iter().zip(after).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
        }
        sum
    };
    let importance = (0..128).map(|i| if i % 64 < 8 { 100.0 } else { 1.0 }).collect();
    assert!(error(Some(importance)) < 0.8 * error(None));
}
