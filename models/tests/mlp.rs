//! Feed-forward networks: what is read, what is learnt, what is saved.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use candle_engine_models::mlp::{
    Act, Architecture, Data, Decay, Encoded, End, Event, FitOptions, Hints, Kind, Measures, Method, Mlp,
    Norm, Prediction, Table, Target,
};
use candle_engine_models::quantize::{write_mlp, Recipe};
use candle_engine_models::Result;

fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/tables").join(name)
}

fn csv(text: &str) -> Result<Table> {
    Table::from_bytes(text.as_bytes(), "data.csv")
}

fn data(text: &str) -> Result<Data> {
    Data::new(&csv(text)?, &Hints::default(), 0.0, 1)
}

#[track_caller]
fn fails<T: std::fmt::Debug>(result: Result<T>, parts: &[&str]) {
    let error = result.unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

/// A folder's name, and nothing there; it goes at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("candle-engine-mlp-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Flowers: two numbers, one of them at times unknown, two texts with few and with many values.
fn flowers(rows: usize) -> String {
    let mut text = String::from("length,width,colour,place,kind\n");
    let (mut state, kinds) = (1u64, ["rose", "tulip", "poppy"]);
    let mut random = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    for i in 0..rows {
        let kind = i % 3;
        let width = if i % 7 == 0 { String::new() } else { format!("{:.3}", kind as f64 + random()) };
        let (colour, place) = (["red", "\"deep, red\"", "pink"][(i / 3) % 3], i % 23);
        text += &format!("{:.3},{width},{colour},p{place},{}\n", 2.0 * kind as f64 + random(), kinds[kind]);
    }
    text
}

fn quick() -> FitOptions {
    FitOptions { epochs: 30, batch_size: 16, lr: 0.01, ..FitOptions::default() }
}

fn fit(data: &Data, architecture: &Architecture, options: &FitOptions) -> Result<Mlp> {
    let mut mlp = Mlp::new(data.schema.clone(), architecture.clone(), options.seed)?;
    mlp.fit(data, options, &mut |_| ControlFlow::Continue(()))?;
    Ok(mlp)
}

#[test]
fn arrays_of_all_formats_say_the_same() -> Result<()> {
    let read = |name: &str, hints: &Hints| -> Result<Data> {
        Data::new(&Table::open(&reference(name))?, hints, 0.2, 3)
    };
    let expected = read("rows.npy", &Hints::default())?;
    assert_eq!(expected.schema.inputs.len(), 6);
    assert_eq!(expected.schema.target.labels(), ["0", "1", "2"]);
    assert_eq!(expected.rows.labels[..4], [0, 1, 2, 0]);
    assert_eq!(read("columns.npy", &Hints::default())?.rows, expected.rows);
    for name in ["stored.npz", "deflated.npz", "digits-images-idx3-ubyte.gz"] {
        let data = read(name, &Hints::default())?;
        assert_eq!(data.rows.labels, expected.rows.labels, "{name}");
        // Bytes are pixels, which share a mean and a deviation.
        let Kind::Number { mean, std, .. } = data.schema.inputs[0].kind else { panic!() };
        assert!(data.schema.inputs.iter().all(|x| x.kind == data.schema.inputs[0].kind), "{name}");
        let Kind::Number { mean: own_mean, std: own_std, .. } = expected.schema.inputs[0].kind else {
            panic!()
        };
        for (pixel, number) in data.rows.dense.iter().zip(&expected.rows.dense).step_by(6) {
            assert!((pixel * std + mean - (number * own_std + own_mean)).abs() < 1e-3, "{name}");
        }
    }
    Ok(())
}

#[test]
fn broken_arrays_are_errors_whatever_byte_is_missing_or_wrong() {
    for name in
        ["rows.npy", "stored.npz", "deflated.npz", "digits-images-idx3-ubyte.gz", "digits-labels-idx1-ubyte"]
    {
        let good = std::fs::read(reference(name)).unwrap();
        for len in 0..good.len() {
            fails(Table::from_bytes(&good[..len], name), &[name]);
        }
        // A changed number is as good as another; only that nothing panics or allocates without end is asked.
        for at in 0..good.len().min(300) {
            for byte in [0, 1, 0x7F, 0xFF] {
                let mut bad = good.clone();
                bad[at] = byte;
                let _ = Table::from_bytes(&bad, name);
            }
        }
    }
    let nan: Vec<u8> = std::fs::read(reference("rows.npy")).unwrap();
    let mut bad = nan.clone();
    bad[128 + 8 * 9..][..8].copy_from_slice(&f64::NAN.to_le_bytes());
    let table = Table::from_bytes(&bad, "rows.npy").unwrap();
    fails(Data::new(&table, &Hints::default(), 0.0, 1), &["rows.npy", "row 2", "`x2`", "NaN"]);
}

#[test]
fn csv_as_people_and_programs_write_it() -> Result<()> {
    let table = csv("\u{feff}name;\"a \"\"b\"\"\";y\r\n\r\n\"x;\r\n1\";1,5;?\r\nz;NA;2")?;
    assert_eq!(table.columns(), ["name", "a \"b\"", "y"]);
    assert_eq!(table.rows(), 2);
    for (text, parts) in [
        ("", &["is empty"][..]),
        ("a,b\n", &["no rows"]),
        ("a,b\n1,2\n3\n", &["line 3", "expected 2 cells", "got 1"]),
        ("a,b\n1,2,3\n", &["line 2", "got 3"]),
        ("a,a\n1,2\n", &["two columns", "`a`"]),
        ("1,2\n3,4\n", &["first line", "names"]),
        ("a,b\n\"1,2\n3,4\n", &["line 2", "never closed"]),
        ("a,b\n\"1\"x,2\n", &["line 2", "closing quote"]),
        ("a,,b\n1,2,3\n", &["column 2"]),
    ] {
        fails(csv(text), parts);
    }
    fails(Table::from_bytes(b"{\"a\": 1}\n{\"b\": 1}\n", "rows"), &["line 2", "`b`"]);
    fails(Table::from_bytes(b"{\"a\": []}\n", "rows"), &["line 1", "`a`"]);
    fails(Table::from_bytes(b"a,b\n\xFF,1\n", "rows"), &["UTF-8", "byte 4"]);
    fails(Table::open(&std::env::temp_dir()), &["is a folder"]);
    Ok(())
}

#[test]
fn columns_are_found_from_what_they_hold() -> Result<()> {
    let data = data(&flowers(120))?;
    let kinds: Vec<&Kind> = data.schema.inputs.iter().map(|input| &input.kind).collect();
    assert!(matches!(kinds[0], Kind::Number { missing: false, .. }));
    assert!(matches!(kinds[1], Kind::Number { missing: true, .. }));
    let values = ["deep, red", "pink", "red"].map(String::from).to_vec();
    assert_eq!(*kinds[2], Kind::Category { values, embedding: None, missing: false });
    assert!(matches!(kinds[3], Kind::Category { values, embedding: Some(9), .. } if values.len() == 23));
    assert_eq!((data.schema.dense(), data.schema.width(), data.schema.outputs()), (6, 15, 3));
    assert_eq!(data.schema.target.labels(), ["poppy", "rose", "tulip"]);
    let column = |i: usize| data.rows.dense.iter().skip(i).step_by(6).map(|x| f64::from(*x));
    assert!(column(0).sum::<f64>().abs() < 1e-3);
    assert!((column(0).map(|x| x * x).sum::<f64>() / 120.0 - 1.0).abs() < 1e-3);
    assert_eq!(column(2).sum::<f64>(), 18.0);

    let target = |text: &str| Ok::<_, candle_engine_models::Error>(self::data(text)?.schema.target);
    let numbers = |f: fn(usize) -> f64| (0..30).map(|i| format!("{i},{}\n", f(i))).collect::<String>();
    let few = target(&format!("x,y\n{}", numbers(|i| (i % 3) as f64 * 10.0)))?;
    assert_eq!(few.labels(), ["0", "10", "20"]);
    assert!(matches!(target(&format!("x,y\n{}", numbers(|i| i as f64)))?, Target::Number { .. }));
    assert!(matches!(target(&format!("x,y\n{}", numbers(|i| (i % 3) as f64 + 0.5)))?, Target::Number { .. }));
    Ok(())
}

#[test]
fn data_that_nothing_can_be_learnt_from() -> Result<()> {
    for (text, parts) in [
        ("a,y\n1,p\n2,p\n", &["`y`", "`p` in every row"][..]),
        ("a,y\n1,p\nx,q\n3,p\n", &["row 2 (line 3)", "`a`", "`x`", "--categorical a"]),
        ("a,y\n1,p\nnan,q\n", &["row 2 (line 3)", "`a`", "NaN"]),
        ("a,y\n1,p\n2,\n", &["row 2 (line 3)", "`y`", "missing"]),
        ("y\n1\n2\n", &["nothing but the target `y`"]),
    ] {
        fails(data(text), parts);
    }
    let names: String = (0..60).map(|i| format!("n{i},{}\n", i % 2)).collect();
    fails(data(&format!("name,y\n{names}")), &["`name`", "60 different texts", "--ignore name"]);
    let table = csv("a,y\n1,p\n2,q\n")?;
    fails(
        Data::new(&table, &Hints { target: Some("z".into()), ..Hints::default() }, 0.0, 1),
        &["`z`", "`a`"],
    );
    fails(Data::new(&csv("a,y\n1,p\n")?, &Hints::default(), 0.1, 1), &["0.1 of 1 rows"]);
    let empty = Table::from_bytes(b"{}\n{}\n{}\n", "empty.jsonl")?;
    fails(Data::new(&empty, &Hints::default(), 0.3, 1), &["empty.jsonl", "no columns"]);

    let mlp = fit(&data(&flowers(60))?, &Architecture::default(), &quick())?;
    let with = |row: &str| csv(&format!("length,width,colour,place,kind\n{row}\n"));
    fails(mlp.evaluate(&with("1,1,red,p1,lily")?), &["row 1 (line 2)", "`kind`", "`lily`", "`poppy`"]);
    fails(mlp.predict(&with("1,1,blue,p1,rose")?), &["`colour`", "`blue`", "`pink`"]);
    fails(mlp.predict(&with("1,x,red,p1,rose")?), &["`width`", "`x`"]);
    fails(mlp.predict(&with("1,1,red,,rose")?), &["`place`", "never was in training"]);
    assert!(mlp.predict(&with("1,,,p1,rose")?).is_ok());
    fails(mlp.predict(&csv("length\n1\n")?), &["no column `width`"]);
    Ok(())
}

#[test]
fn layers_are_those_that_the_data_needs() -> Result<()> {
    let schema = data(&flowers(60))?.schema;
    let set = |layers: &[usize]| {
        let mut architecture = Architecture::default();
        architecture.set_layers(layers, &schema)?;
        Ok(architecture.widths(&schema))
    };
    assert_eq!(set(&[15, 8, 3])?, "15-8-3");
    assert_eq!(set(&[15, 3])?, "15-3");
    assert_eq!(set(&[8])?, "15-8-3");
    assert_eq!(set(&[])?, "15-3");
    assert_eq!(set(&[8, 4])?, "15-8-4-3");
    for wrong in [&[14, 8, 3][..], &[15, 8, 4], &[15, 0, 3]] {
        fails(set(wrong), &["the data needs 15,…,3"]);
    }
    Ok(())
}

#[test]
fn a_saved_network_gives_the_same_bits() -> Result<()> {
    let data = data(&flowers(90))?;
    let table = csv(&flowers(90))?;
    for (name, norm, act, hidden_sizes) in [
        ("plain", None, Act::Relu, vec![16, 8]),
        ("layer", Some(Norm::LayerNorm), Act::Gelu, vec![12]),
        ("batch", Some(Norm::BatchNorm), Act::Tanh, vec![12]),
        ("one", None, Act::Silu, vec![]),
    ] {
        let architecture = Architecture { hidden_sizes, hidden_act: act, norm, dropout: 0.1 };
        let mut mlp = fit(&data, &architecture, &quick())?;
        let folder = Folder::new(name);
        mlp.save(&folder.0)?;
        fails(mlp.save(&folder.0), &["is there already"]);
        let loaded = Mlp::load(&folder.0)?;
        assert!(Mlp::is_in(&folder.0));
        assert_eq!((&loaded.schema, &loaded.architecture), (&mlp.schema, &mlp.architecture));
        let bits = |mlp: &Mlp, rows: &Encoded| -> Result<Vec<u32>> {
            Ok(mlp.outputs(rows)?.iter().map(|x| x.to_bits()).collect())
        };
        assert_eq!(bits(&loaded, &data.rows)?, bits(&mlp, &data.rows)?, "{name}");
        assert_eq!(loaded.predict(&table)?, mlp.predict(&table)?);
        // A row's outputs do not depend on the rows beside it.
        let one = csv(&flowers(90).lines().take(2).collect::<Vec<_>>().join("\n"))?;
        assert_eq!(loaded.predict(&one)?[0], mlp.predict(&table)?[0], "{name}");
        let Prediction::Label(_, probabilities) = &mlp.predict(&one)?[0] else { panic!() };
        assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }
    Ok(())
}

#[test]
fn the_same_seed_gives_the_same_network() -> Result<()> {
    let data = data(&flowers(90))?;
    let outputs =
        |seed| fit(&data, &Architecture::default(), &FitOptions { seed, ..quick() })?.outputs(&data.rows);
    assert_eq!(outputs(4)?, outputs(4)?);
    assert_ne!(outputs(4)?, outputs(5)?);
    Ok(())
}

#[test]
fn what_can_be_learnt_is_learnt_by_every_method() -> Result<()> {
    let table = csv(&flowers(300))?;
    let data = Data::new(&table, &Hints::default(), 0.2, 1)?;
    assert_eq!((data.train.len(), data.validation.len()), (240, 60));
    let options = [
        FitOptions {
            method: Method::Sgd { momentum: 0.9, dampening: 0.0, nesterov: false },
            lr: 0.05,
            ..quick()
        },
        FitOptions { method: Method::Adam { betas: [0.9, 0.999], eps: 1e-8 }, balanced: true, ..quick() },
        FitOptions {
            method: Method::RmsProp { alpha: 0.99, eps: 1e-8, momentum: 0.0 },
            lr: 0.003,
            decay: Decay::Plateau,
            ..quick()
        },
        FitOptions { decay: Decay::Cosine, warmup: 20, label_smoothing: 0.05, clip: Some(1.0), ..quick() },
        FitOptions { decay: Decay::Step, accumulate: 2, ..quick() },
    ];
    for options in options {
        let report = fit(&data, &Architecture::default(), &options)?.validate(&data)?;
        assert!(report.score() > 0.97, "{options:?}: {report:?}");
    }
    let line: String =
        (0..200).map(|i| format!("{},{},{}\n", i % 17, i % 5, 3 * (i % 17) - 40 * (i % 5))).collect();
    let table = csv(&format!("a,b,y\n{line}"))?;
    let hints = Hints { task: Some(candle_engine_models::mlp::Task::Regression), ..Hints::default() };
    let data = Data::new(&table, &hints, 0.2, 1)?;
    let mlp = fit(&data, &Architecture::default(), &FitOptions { epochs: 200, ..quick() })?;
    let report = mlp.evaluate(&table)?;
    let Measures::Numbers { r2, mae, rmse } = report.measures else { panic!() };
    assert!(r2 > 0.999 && mae < 2.0 && rmse >= mae, "{report:?}");
    let Prediction::Number(y) = mlp.predict(&csv("a,b\n10,2\n")?)?[0] else { panic!() };
    assert!((y + 50.0).abs() < 5.0, "{y}");
    Ok(())
}

#[test]
fn the_best_epoch_is_kept_when_training_stops() -> Result<()> {
    let data = Data::new(&csv(&flowers(120))?, &Hints::default(), 0.25, 1)?;
    let mut mlp = Mlp::new(data.schema.clone(), Architecture::default(), 0)?;
    let fit = mlp.fit(&data, &FitOptions { patience: Some(2), lr: 0.3, ..quick() }, &mut |_| {
        ControlFlow::Continue(())
    })?;
    assert_eq!(fit.end, End::Patience);
    assert_eq!(fit.epochs.len(), fit.best + 2);
    let least = fit.epochs.iter().filter_map(|epoch| epoch.validation_loss).fold(f64::INFINITY, f64::min);
    assert_eq!(fit.epochs[fit.best - 1].validation_loss, Some(least));
    assert_eq!(mlp.validate(&data)?.loss, least);

    let mut steps = 0;
    let stopped = mlp.fit(&data, &quick(), &mut |event| match event {
        Event::Step { done: 3, .. } => ControlFlow::Break(()),
        Event::Step { .. } => {
            steps += 1;
            ControlFlow::Continue(())
        }
        Event::Epoch(_) => ControlFlow::Continue(()),
    })?;
    assert_eq!((steps, stopped.end, stopped.epochs.len()), (2, End::Stopped, 1));
    Ok(())
}

#[test]
fn integers_cost_little_accuracy() -> Result<()> {
    let table = csv(&flowers(300))?;
    let data = Data::new(&table, &Hints::default(), 0.2, 1)?;
    for (name, norm) in [("int8", None), ("int8-norm", Some(Norm::BatchNorm))] {
        let architecture = Architecture { norm, hidden_sizes: vec![48, 20], ..Architecture::default() };
        let mut mlp = fit(&data, &architecture, &quick())?;
        let (from, to) = (Folder::new(&format!("{name}-from")), Folder::new(&format!("{name}-to")));
        mlp.save(&from.0)?;
        std::fs::create_dir(&to.0).unwrap();
        let report = write_mlp(&from.0, &to.0, &"int8".parse::<Recipe>().unwrap(), &mut |_, _| {})?;
        assert!(report.bytes_after < report.bytes_before);
        let mut small = Mlp::load(&to.0)?;
        let (before, after) = (mlp.evaluate(&table)?, small.evaluate(&table)?);
        assert!(before.score() - after.score() < 0.005, "{before:?} {after:?}");
        assert_ne!(mlp.outputs(&data.rows)?, small.outputs(&data.rows)?);
        fails(small.save(&from.0.join("again")), &["quantized"]);
        fails(
            write_mlp(&to.0, &from.0, &"int8".parse::<Recipe>().unwrap(), &mut |_, _| {}),
            &["quantized already"],
        );
    }
    Ok(())
}

#[test]
fn folders_that_were_changed_are_errors() -> Result<()> {
    let mut mlp = fit(&data(&flowers(60))?, &Architecture::default(), &quick())?;
    let folder = Folder::new("changed");
    mlp.save(&folder.0)?;
    let path = folder.0.join("config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    for (from, to, part) in [
        ("\"mlp\"", "\"llama\"", "model_type"),
        ("\"std\": ", "\"std\": -", "std above 0"),
        ("64", "65", "[65"),
        ("64", "6400000000000", "network"),
        ("\"relu\"", "\"step\"", "step"),
        ("{", "", "config.json"),
    ] {
        assert!(config.contains(from), "{from}: {config}");
        std::fs::write(&path, config.replacen(from, to, 1)).unwrap();
        fails(Mlp::load(&folder.0), &[part]);
    }
    Ok(())
}
