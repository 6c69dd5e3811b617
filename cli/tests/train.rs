//! `train`, `predict` and `quantize` of small networks, from a file to a label.

mod common;

use common::{command, reference, run, run_with, Folder};
use serde_json::Value;

/// Two numbers and a text that tell three kinds apart, one cell unknown.
fn flowers(rows: usize) -> String {
    let mut text = String::from("length,width,colour,kind\n");
    for i in 0..rows {
        let (kind, part) = (i % 3, (i * 7 % 10) as f64 / 10.0);
        let width = if i == 4 { String::new() } else { format!("{}", kind as f64 - part) };
        let colour = ["red", "\"pink, pale\""][i / 3 % 2];
        text +=
            &format!("{},{width},{colour},{}\n", 2.0 * kind as f64 + part, ["rose", "tulip", "poppy"][kind]);
    }
    text
}

/// Trains quickly, unless `more` says otherwise.
fn train<'a>(data: &'a str, out: &'a str, more: &[&'a str]) -> common::Ran {
    let mut args = vec!["train", data, "-o", out];
    for pair in [["--lr", "0.01"], ["--epochs", "30"], ["--batch-size", "16"]] {
        if !more.contains(&pair[0]) {
            args.extend(pair);
        }
    }
    run(&[&args[..], more].concat())
}

#[test]
fn from_a_table_to_labels() {
    let folder = Folder::new();
    let data = folder.write("flowers.csv", flowers(150));
    let [out, again, small, plot] =
        ["net", "again", "small", "loss.svg"].map(|name| folder.0.join(name).display().to_string());
    let report = train(&data, &out, &["--layers", "64,32", "--json", &format!("--plot={plot}")]).json();
    assert_eq!(report["network"], "5-64-32-3");
    assert!(report["report"]["accuracy"].as_f64().unwrap() > 0.95, "{report}");
    assert_eq!(report["rows"], 150);
    assert_eq!(report["report"]["rows"], 30);
    assert_eq!(report["report"]["confusion"].as_array().unwrap().len(), 3);
    let epochs = report["epochs"].as_array().unwrap();
    assert!(epochs[0]["loss"].as_f64() > epochs[epochs.len() - 1]["loss"].as_f64());
    assert!(std::fs::read_to_string(&plot).unwrap().starts_with("<svg"));
    train(&data, &again, &["--layers", "64,32", "-q", "--threads", "1"]).ok();
    let weights = |out: &str| std::fs::read(format!("{out}/model.safetensors")).unwrap();
    assert!(weights(&out) == weights(&again), "a seed gives the same network with any number of threads");

    let shown = run(&["show", &out]).ok();
    assert!(shown.contains("one of 2 texts") && shown.contains("may be missing"), "{shown}");
    let rows: Vec<Value> = predictions(run(&["predict", &out, &data]).ok());
    assert_eq!(rows.len(), 150);
    assert_eq!(rows[0]["label"], "rose");
    assert_eq!(rows[0]["probability"], rows[0]["probabilities"]["rose"]);
    let line = "{\"length\": 4.5, \"width\": 1.5, \"colour\": \"red\"}\n";
    assert_eq!(predictions(run_with(&["predict", &out], line).ok())[0]["label"], "poppy");
    assert_eq!(predictions(run_with(&["predict", &out, "-"], &flowers(150)).ok()), rows);

    let report = run(&["quantize", &out, "-o", &small, "--eval", &data, "--json"]).json();
    let accuracy = |which: &str| report["eval"][which]["accuracy"].as_f64().unwrap();
    assert!(accuracy("before") - accuracy("after") < 0.005, "{report}");
    assert!(report["bytes_after"].as_u64() < report["bytes_before"].as_u64());
    assert_eq!(predictions(run(&["predict", &small, &data]).ok()).len(), 150);
    let text = run(&["predict", &small, &data, "--report"]).ok();
    assert!(text.contains("accuracy") && text.contains("recall") && text.contains("tulip"), "{text}");
    let smaller = folder.0.join("smaller").display().to_string();
    run(&["quantize", &small, "-o", &smaller]).fails(4, &["quantized already"]);
    run(&["run", &out, "-p", "Hello"]).fails(3, &["mlp"]);
}

fn predictions(text: String) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn numbers_and_arrays() {
    let folder = Folder::new();
    let [line, digits] = ["line", "digits"].map(|name| folder.0.join(name).display().to_string());
    let rows: String = (0..120).map(|i| format!("{},{}\n", i % 40, 3.5 * (i % 40) as f64 + 1.0)).collect();
    let data = folder.write("line.csv", format!("x,y\n{rows}"));
    let ran = train(&data, &line, &["--epochs", "200", "--patience", "0", "--plot"]);
    assert!(ran.err.contains("regression") && ran.err.contains("epochs 1 to"), "{ran:?}");
    let report = ran.ok();
    let r2 = report.strip_prefix("R2 ").and_then(|rest| rest.split_once(',')).unwrap().0;
    assert!(r2.parse::<f64>().unwrap() > 0.99, "{report}");
    let value = predictions(run_with(&["predict", &line], "x\n20\n").ok())[0]["value"].as_f64().unwrap();
    assert!((value - 71.0).abs() < 5.0, "{value}");

    let images = reference("tables/digits-images-idx3-ubyte.gz");
    let ran = train(&images, &digits, &["--layers", "6,12,3", "--json"]);
    assert!(ran.err.contains("3 labels"), "{ran:?}");
    assert_eq!(ran.json()["network"], "6-12-3");
    assert_eq!(predictions(run(&["predict", &digits, &images]).ok()).len(), 40);
}

#[test]
fn data_and_options_that_cannot_be() {
    let folder = Folder::new();
    let out = folder.0.join("net").display().to_string();
    let fails = |text: &str, more: &[&str], code: i32, parts: &[&str]| {
        let data = folder.write("data.csv", text);
        train(&data, &out, more).fails(code, parts);
        assert!(!folder.0.join("net").exists());
    };
    fails("", &[], 4, &["data.csv", "is empty"]);
    fails("a,y\n", &[], 4, &["data.csv", "no rows"]);
    fails("a,y\n1,p\n2\n", &[], 4, &["line 3", "expected 2 cells"]);
    fails("a,y\n1,p\nx,q\n3,q\n", &[], 4, &["row 2 (line 3)", "`a`", "`x`"]);
    fails("a,y\n1,p\nNaN,q\n", &[], 4, &["row 2 (line 3)", "`a`", "NaN"]);
    fails("a,y\n1,p\n2,p\n", &[], 4, &["`y`", "`p` in every row"]);
    let good = flowers(30);
    fails(&good, &["--layers", "7,8,3"], 4, &["layers 7,8,3", "the data needs", ",3"]);
    fails(&good, &["--target", "z"], 4, &["`z`", "`kind`"]);
    fails(&good, &["--task", "regression"], 4, &["row 1 (line 2)", "`kind`", "`rose`"]);
    fails(&good, &["--lr", "1e30", "--optimizer", "sgd"], 4, &["loss is", "first"]);
    fails(&good, &["--plot=loss.bmp"], 2, &["loss.bmp", ".svg"]);
    train("/no/such.csv", &out, &[]).fails(4, &["/no/such.csv"]);
    train(&folder.word(), &out, &[]).fails(4, &["is a folder"]);
    for name in ["rows.npy", "deflated.npz", "digits-images-idx3-ubyte.gz"] {
        let bytes = std::fs::read(reference(&format!("tables/{name}"))).unwrap();
        let data = folder.write(name, &bytes[..bytes.len() - 9]);
        train(&data, &out, &[]).fails(4, &[name]);
    }
    for (option, value, part) in
        [("--validation", "1", "below 1"), ("--lr", "0", "above 0"), ("--layers", "a", "a")]
    {
        let ran = run(&["train", "data.csv", "-o", &out, option, value]);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.err.contains(part), "{ran:?}");
    }

    let data = folder.write("data.csv", &good);
    train(&data, &out, &[]).ok();
    train(&data, &out, &[]).fails(4, &["is there already"]);
    run_with(&["predict", &out, "--report"], "length,width,colour,kind\n1,1,red,lily\n")
        .fails(4, &["stdin", "`lily`"]);
    run_with(&["predict", &out], "length,width,colour\n1,1,blue\n")
        .fails(4, &["row 1 (line 2)", "`colour`", "`blue`"]);
    run_with(&["predict", &out], "length\n1\n").fails(4, &["`width`"]);
    run(&["predict", &out, "/no/such.csv"]).fails(4, &["/no/such.csv"]);
    run(&["predict", "/no/such/folder", &data]).fails(3, &["config.json"]);
    run(&["quantize", &out, "-o", &folder.0.join("q").display().to_string(), "--format", "bf16"])
        .fails(4, &["int8"]);
}

/// The first Ctrl-C ends training, and what was best is saved.
#[cfg(unix)]
#[test]
fn an_interrupted_training_is_saved() {
    let folder = Folder::new();
    let data = folder.write("flowers.csv", flowers(3000));
    let out = folder.0.join("net").display().to_string();
    let mut command = command(&["train", &data, "-o", &out, "--epochs", "1000000", "--patience", "0", "-v"]);
    command.stdin(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The first line about an epoch: training is going on.
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().starts_with("epoch 2:")));
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert_eq!(predictions(run(&["predict", &out, &data]).ok()).len(), 3000);
}
