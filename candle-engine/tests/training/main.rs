//! Training against PyTorch: gradients of every op, and whole runs (`tests/reference/make_train.py`).

mod truth;

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_engine::train::{
    Activation, BatchNorm, CrossEntropy, Embedding, Graph, Ids, Init, LayerNorm, Linear, Loss, Method,
    Optimizer, Params, Plan, Pointwise, Schedule, Var,
};
use candle_engine::Result;
use serde::Deserialize;

const ROWS: usize = 7;
const INPUTS: usize = 5;
const CLASSES: usize = 3;
const BATCHES: usize = 4;
const ENTRIES: usize = 6;

/// A training run, as `make_train.py` describes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    net: Vec<String>,
    loss: String,
    optimizer: OptimizerCase,
    steps: usize,
    #[serde(default)]
    label_smoothing: f32,
    #[serde(default)]
    class_weights: Vec<f32>,
    clip_norm: Option<f32>,
    accumulate: Option<usize>,
    no_decay: Option<String>,
    schedule: Option<ScheduleCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OptimizerCase {
    name: String,
    lr: f64,
    #[serde(default)]
    momentum: f32,
    #[serde(default)]
    dampening: f32,
    #[serde(default)]
    nesterov: bool,
    weight_decay: Option<f32>,
    betas: Option<[f64; 2]>,
    eps: Option<f32>,
    alpha: Option<f64>,
}

#[derive(Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
enum ScheduleCase {
    Step { every: u64, gamma: f64 },
    Cosine { steps: u64, floor: f64 },
    WarmUp { steps: u64, then_cosine: u64 },
    Plateau { factor: f64, patience: u64, threshold: f64 },
}

/// Records the network; returns its two inputs and its output.
fn layers(case: &Case, params: &mut Params, graph: &mut Graph) -> Result<(Var, Ids, Var)> {
    let input = graph.input("x", ROWS, INPUTS);
    let ids = graph.ids("ids", ROWS);
    let (mut x, mut kept) = (input, Vec::new());
    for (i, layer) in case.net.iter().enumerate() {
        let (kind, argument) = layer.split_once(':').unwrap_or((layer, "0"));
        let (name, argument, width) = (format!("l{i}"), argument.parse().unwrap(), graph.shape(x).1);
        x = match kind {
            "linear" => Linear::new(params, &name, width, argument)?.forward(graph, x)?,
            "linear_without_bias" => {
                Linear::with_init(params, &name, width, argument, Init::Constant(0.0), false)?
                    .forward(graph, x)?
            }
            "layer_norm" => LayerNorm::new(params, &name, width)?.forward(graph, x)?,
            "batch_norm" => BatchNorm::new(params, &name, width)?.forward(graph, x)?,
            "embedding" => Embedding::new(params, &name, ENTRIES, argument)?.forward(graph, ids),
            "add" => graph.add(x, kept[argument])?,
            "softmax" => graph.softmax(x),
            "relu" => graph.activation(x, Activation::Relu),
            "gelu" => graph.activation(x, Activation::Gelu),
            "silu" => graph.activation(x, Activation::Silu),
            "tanh" => graph.activation(x, Activation::Tanh),
            "sigmoid" => graph.activation(x, Activation::Sigmoid),
            other => panic!("layer {other}"),
        };
        kept.push(x);
    }
    Ok((input, ids, x))
}

fn optimizer(case: &Case) -> Optimizer {
    let OptimizerCase { ref name, lr, momentum, dampening, nesterov, weight_decay, betas, eps, alpha } =
        case.optimizer;
    let (betas, eps) = (betas.unwrap_or([0.9, 0.999]), eps.unwrap_or(1e-8));
    let method = match name.as_str() {
        "sgd" => Method::Sgd { momentum, dampening, nesterov },
        "adam" => Method::Adam { betas, eps },
        "adamw" => Method::AdamW { betas, eps },
        "rmsprop" => Method::RmsProp { alpha: alpha.unwrap_or(0.99), eps, momentum },
        other => panic!("optimizer {other}"),
    };
    let decay = weight_decay.unwrap_or(if name == "adamw" { 0.01 } else { 0.0 });
    let mut optimizer =
        Optimizer::new(method, lr).weight_decay(decay).accumulate(case.accumulate.unwrap_or(1));
    if let Some(norm) = case.clip_norm {
        optimizer = optimizer.clip_norm(norm);
    }
    if let Some(end) = case.no_decay.clone() {
        optimizer = optimizer.group(move |name| name.ends_with(&end), 1.0, 0.0);
    }
    let schedule = match case.schedule {
        None => Schedule::Constant,
        Some(ScheduleCase::Step { every, gamma }) => Schedule::Step { every, gamma },
        Some(ScheduleCase::Cosine { steps, floor }) => Schedule::Cosine { steps, floor },
        Some(ScheduleCase::WarmUp { steps, then_cosine }) => {
            Schedule::WarmUp { steps, then: Box::new(Schedule::Cosine { steps: then_cosine, floor: 0.0 }) }
        }
        Some(ScheduleCase::Plateau { factor, patience, threshold }) => {
            Schedule::Plateau { factor, patience, threshold }
        }
    };
    optimizer.schedule(schedule)
}

/// The greatest difference, relative to the larger of 1 and what is expected.
fn difference(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let one = |(got, want): (&f32, &f32)| (got - want).abs() / want.abs().max(1.0);
    // A NaN counts as the largest.
    got.iter().zip(want).map(one).fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a })
}

/// A case's network as it begins, with its batches.
struct Prepared {
    params: Params,
    plan: Plan,
    input: Var,
    entries: Ids,
    target: Var,
    label_ids: Ids,
    x: Vec<f32>,
    targets: Vec<f32>,
    labels: Vec<u32>,
    ids: Vec<u32>,
}

impl Prepared {
    fn new(case: &Case, fixture: &HashMap<String, Tensor>) -> Result<Self> {
        let tensor = |name: &str| fixture.get(name).unwrap_or_else(|| panic!("{name}"));
        let floats = |name: &str| tensor(name).flatten_all()?.to_vec1::<f32>();
        let numbers = |name: &str| tensor(name).flatten_all()?.to_dtype(DType::U32)?.to_vec1::<u32>();
        let (x, mut targets) = (floats("x")?, floats("targets")?);
        let (labels, ids) = (numbers("labels")?, numbers("ids")?);
        if case.loss == "bce_with_logits" {
            targets.iter_mut().for_each(|y| *y = 1.0 / (1.0 + (-*y).exp()));
        }

        let (mut params, mut graph) = (Params::new(1), Graph::new());
        let (input, entries, y) = layers(case, &mut params, &mut graph)?;
        params.load(|name| fixture.get(&format!("{}/begin/{name}", case.name)).cloned())?;
        let label_ids = graph.ids("labels", ROWS);
        let target = graph.input("targets", ROWS, CLASSES);
        let pointwise = |graph: &mut Graph, how| -> Result<Loss> { graph.pointwise(y, target, how) };
        let loss = match case.loss.as_str() {
            "cross_entropy" => {
                let how = CrossEntropy {
                    label_smoothing: case.label_smoothing,
                    weights: case.class_weights.clone(),
                };
                graph.cross_entropy(y, label_ids, how)?
            }
            "mse" => pointwise(&mut graph, Pointwise::Mse)?,
            "mae" => pointwise(&mut graph, Pointwise::Mae)?,
            "huber" => pointwise(&mut graph, Pointwise::Huber { delta: 0.7 })?,
            "bce_with_logits" => pointwise(&mut graph, Pointwise::BceWithLogits)?,
            other => panic!("loss {other}"),
        };
        let plan = graph.training(loss, &params)?;
        Ok(Self { params, plan, input, entries, target, label_ids, x, targets, labels, ids })
    }

    /// Writes a batch into the plan.
    fn feed(&mut self, batch: usize) {
        let plan = &mut self.plan;
        plan.input_mut(self.input).copy_from_slice(&self.x[batch * ROWS * INPUTS..][..ROWS * INPUTS]);
        plan.input_mut(self.target)
            .copy_from_slice(&self.targets[batch * ROWS * CLASSES..][..ROWS * CLASSES]);
        plan.ids_mut(self.label_ids).copy_from_slice(&self.labels[batch * ROWS..][..ROWS]);
        plan.ids_mut(self.entries).copy_from_slice(&self.ids[batch * ROWS..][..ROWS]);
    }
}

/// By how much losses and parameters differ from PyTorch's.
fn run(case: &Case, fixture: &HashMap<String, Tensor>) -> Result<f32> {
    let floats =
        |name: &str| fixture.get(name).unwrap_or_else(|| panic!("{name}")).flatten_all()?.to_vec1::<f32>();
    let mut prepared = Prepared::new(case, fixture)?;
    let mut optimizer = optimizer(case);
    let mut losses = Vec::new();
    for step in 0..case.steps {
        prepared.feed(step % BATCHES);
        let before = optimizer.steps();
        losses.push(prepared.plan.step(&mut prepared.params, &mut optimizer)?);
        if optimizer.steps() > before {
            optimizer.report(losses[losses.len() - 1].into());
        }
    }
    let mut worst = difference(&losses, &floats(&format!("{}/losses", case.name))?);
    for (name, tensor) in prepared.params.tensors()? {
        let want = floats(&format!("{}/end/{name}", case.name))?;
        let error = difference(&tensor.flatten_all()?.to_vec1::<f32>()?, &want);
        worst = if error > worst || error.is_nan() { error } else { worst };
    }
    Ok(worst)
}

fn cases() -> Result<(Vec<Case>, HashMap<String, Tensor>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/train");
    let cases = serde_json::from_slice(&std::fs::read(folder.join("cases.json")).unwrap()).unwrap();
    Ok((cases, candle_core::safetensors::load(folder.join("cases.safetensors"), &Device::Cpu)?))
}

/// Asserts that parameters moved by the slopes of a loss in f64, which differences over 2 · 10⁻⁵ show to some nine
/// digits: what a step of plain SGD with a rate of 1 does.
fn assert_moved_by_slopes(
    what: &str,
    begin: &HashMap<String, Tensor>,
    end: &HashMap<String, Tensor>,
    loss: impl Fn(&truth::Numbers) -> f64,
) -> Result<usize> {
    const STEP: f64 = 1e-5;
    let floats = |tensor: &Tensor| -> Result<Vec<f64>> {
        Ok(tensor.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f64::from).collect())
    };
    let mut numbers = truth::Numbers::new();
    for (name, tensor) in begin {
        numbers.insert(name.clone(), floats(tensor)?);
    }
    let mut checked = 0;
    for (name, end) in end.iter().filter(|(name, _)| !name.contains(".running_")) {
        let end = floats(end)?;
        for at in (0..end.len()).step_by(end.len().div_ceil(11)) {
            let here = numbers[name][at];
            let mut loss_at = |x: f64| {
                numbers.get_mut(name).unwrap()[at] = x;
                loss(&numbers)
            };
            let slope = (loss_at(here + STEP) - loss_at(here - STEP)) / (2.0 * STEP);
            loss_at(here);
            let got = here - end[at];
            assert!(
                (got - slope).abs() <= 2e-6 * slope.abs().max(1.0),
                "{what}: {name}[{at}]: {got}, not {slope}"
            );
            checked += 1;
        }
    }
    Ok(checked)
}

fn rows(x: &[f32], width: usize) -> truth::Rows {
    x.chunks(width).map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect()
}

#[test]
fn gradients_are_slopes_of_the_loss() -> Result<()> {
    let (cases, fixture) = cases()?;
    let mut checked = 0;
    for case in cases.iter().filter(|case| case.steps == 1) {
        let mut prepared = Prepared::new(case, &fixture)?;
        prepared.feed(0);
        let begin = prepared.params.tensors()?;
        prepared.plan.step(&mut prepared.params, &mut optimizer(case))?;
        let end = prepared.params.tensors()?;
        let batch = truth::Batch {
            x: rows(&prepared.x[..ROWS * INPUTS], INPUTS),
            ids: prepared.ids[..ROWS].to_vec(),
            labels: prepared.labels[..ROWS].to_vec(),
            targets: rows(&prepared.targets[..ROWS * CLASSES], CLASSES),
            kept: Vec::new(),
        };
        let how = truth::Loss {
            name: &case.loss,
            label_smoothing: case.label_smoothing.into(),
            class_weights: case.class_weights.iter().map(|x| f64::from(*x)).collect(),
        };
        let loss =
            |params: &truth::Numbers| truth::loss(&how, &truth::forward(&case.net, params, &batch), &batch);
        checked += assert_moved_by_slopes(&case.name, &begin, &end, loss)?;
    }
    assert!(checked > 500, "{checked}");
    Ok(())
}

#[test]
fn dropout_passes_the_gradient_of_what_it_kept() -> Result<()> {
    let net = ["linear:40", "dropout", "linear:3"].map(String::from);
    let (mut params, mut graph) = (Params::new(5), Graph::new());
    let (x, labels) = (graph.input("x", ROWS, INPUTS), graph.ids("labels", ROWS));
    let before = Linear::new(&mut params, "l0", INPUTS, 40)?.forward(&mut graph, x)?;
    let after = graph.dropout(before, 0.4)?;
    let y = Linear::new(&mut params, "l2", 40, 3)?.forward(&mut graph, after)?;
    let loss = graph.cross_entropy(y, labels, CrossEntropy::default())?;
    let mut plan = graph.training(loss, &params)?;
    let numbers: Vec<f32> = (0..ROWS * INPUTS).map(|i| (i * 37 % 19) as f32 / 9.0 - 1.0).collect();
    let classes: Vec<u32> = (0..ROWS).map(|i| i as u32 % 3).collect();
    plan.input_mut(x).copy_from_slice(&numbers);
    plan.ids_mut(labels).copy_from_slice(&classes);
    let begin = params.tensors()?;
    plan.step(&mut params, &mut Optimizer::sgd(1.0, 0.0))?;
    let (before, after) = (plan.rows(before)?, plan.rows(after)?);
    let kept: Vec<f32> = before.iter().zip(&after).map(|(before, after)| after / before).collect();
    let zeros = kept.iter().filter(|kept| **kept == 0.0).count();
    assert!((60..160).contains(&zeros), "{zeros} of {}", kept.len());
    let exact = |kept: &f32| if *kept == 0.0 { 0.0 } else { 1.0 / (1.0 - 0.4) };
    assert!(kept.iter().all(|kept| (f64::from(*kept) - exact(kept)).abs() < 1e-6));
    let batch = truth::Batch {
        x: rows(&numbers, INPUTS),
        ids: Vec::new(),
        labels: classes,
        targets: Vec::new(),
        kept: kept.chunks(40).map(|row| row.iter().map(exact).collect()).collect(),
    };
    let how = truth::Loss { name: "cross_entropy", label_smoothing: 0.0, class_weights: Vec::new() };
    let loss = |params: &truth::Numbers| truth::loss(&how, &truth::forward(&net, params, &batch), &batch);
    assert_moved_by_slopes("dropout", &begin, &params.tensors()?, loss)?;
    Ok(())
}

#[test]
fn gradients_and_runs_are_pytorchs() -> Result<()> {
    let (cases, fixture) = cases()?;
    let mut failed = Vec::new();
    for case in &cases {
        let tolerance = if case.steps == 1 { 2e-6 } else { 1e-4 };
        let error = run(case, &fixture).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        println!("{:28} {error:.2e}", case.name);
        if error.is_nan() || error > tolerance {
            failed.push(format!("{}: {error:e}", case.name));
        }
    }
    assert!(cases.len() > 30);
    assert!(failed.is_empty(), "{failed:#?}");
    Ok(())
}

/// A network of two layers; its input, its labels and its loss.
fn small(params: &mut Params, graph: &mut Graph) -> Result<(Var, Ids, Loss)> {
    let hidden = Linear::new(params, "hidden", INPUTS, 40)?;
    let out = Linear::new(params, "out", 40, CLASSES)?;
    let (x, labels) = (graph.input("x", ROWS, INPUTS), graph.ids("labels", ROWS));
    let h = hidden.forward(graph, x)?;
    let h = graph.activation(h, Activation::Relu);
    let h = graph.dropout(h, 0.25)?;
    let y = out.forward(graph, h)?;
    Ok((x, labels, graph.cross_entropy(y, labels, CrossEntropy::default())?))
}

#[test]
fn a_parameter_without_gradient_is_named_with_what_cut_it_off() -> Result<()> {
    let (mut params, mut graph) = (Params::new(1), Graph::new());
    let first = Linear::new(&mut params, "first", INPUTS, 4)?;
    let second = Linear::new(&mut params, "second", 4, CLASSES)?;
    Linear::new(&mut params, "unused", 4, 4)?;
    let (x, labels) = (graph.input("x", ROWS, INPUTS), graph.ids("labels", ROWS));
    let h = first.forward(&mut graph, x)?;
    let h = graph.detach(h);
    let y = second.forward(&mut graph, h)?;
    let loss = graph.cross_entropy(y, labels, CrossEntropy::default())?;
    let error = graph.training(loss.clone(), &params).unwrap_err().to_string();
    for part in [
        "`first.weight` (`detach` cuts it off)",
        "`first.bias`",
        "`unused.bias` (no layer of the graph uses it)",
    ] {
        assert!(error.contains(part), "{part} in: {error}");
    }
    assert!(!error.contains("second"), "{error}");

    params.freeze(|name| !name.starts_with("second"));
    graph.training(loss, &params)?;
    Ok(())
}

#[test]
fn a_gradient_of_zeros_is_named_with_where_it_vanished() -> Result<()> {
    let (mut params, mut graph) = (Params::new(1), Graph::new());
    let first = Linear::new(&mut params, "first", 2, 2)?;
    let second = Linear::new(&mut params, "second", 2, 2)?;
    params.load(|name| {
        // No number passes the ReLU.
        let shape: &[usize] = if name.ends_with("weight") { &[2, 2] } else { &[2] };
        Tensor::full(if name == "first.bias" { -1f32 } else { 0.0 }, shape, &Device::Cpu).ok()
    })?;
    let (x, labels) = (graph.input("x", 1, 2), graph.ids("labels", 1));
    let h = first.forward(&mut graph, x)?;
    let h = graph.activation(h, Activation::Relu);
    let y = second.forward(&mut graph, h)?;
    let loss = graph.cross_entropy(y, labels, CrossEntropy::default())?;
    let mut plan = graph.training(loss, &params)?;
    let before = params.tensors()?["second.bias"].to_vec1::<f32>()?;
    let error = plan.step(&mut params, &mut Optimizer::adam(0.1)).unwrap_err().to_string();
    assert!(
        error.contains("`first.weight` (it vanishes between `second` and the relu of `first`)"),
        "{error}"
    );
    assert!(error.contains("`second.weight` (its layer's input is zero)"), "{error}");
    assert_eq!(params.tensors()?["second.bias"].to_vec1::<f32>()?, before, "nothing was updated");

    plan.audit(candle_engine::train::Audit::Allow);
    plan.step(&mut params, &mut Optimizer::adam(0.1))?;
    Ok(())
}

#[test]
fn a_loss_that_is_not_finite_stops_with_the_step_and_the_place() -> Result<()> {
    let (mut params, mut graph) = (Params::new(1), Graph::new());
    let (x, _, loss) = small(&mut params, &mut graph)?;
    let mut plan = graph.training(loss, &params)?;
    let mut optimizer = Optimizer::sgd(0.1, 0.9);
    plan.input_mut(x).fill(1.0);
    plan.step(&mut params, &mut optimizer)?;
    let before = params.tensors()?["out.weight"].to_vec2::<f32>()?;
    plan.input_mut(x)[3] = f32::NAN;
    let error = plan.step(&mut params, &mut optimizer).unwrap_err().to_string();
    assert!(error.contains("step 2") && error.contains("input `x`"), "{error}");
    plan.input_mut(x).fill(f32::MAX);
    let error = plan.step(&mut params, &mut optimizer).unwrap_err().to_string();
    // Its factor 4/3 is too much for a sum that was just within the range.
    assert!(error.contains("step 2") && error.contains("the output of `dropout`"), "{error}");
    assert_eq!(params.tensors()?["out.weight"].to_vec2::<f32>()?, before, "nothing was updated");
    Ok(())
}

#[test]
fn shapes_and_numbers_that_do_not_fit_name_the_layer() -> Result<()> {
    let (mut params, mut graph) = (Params::new(1), Graph::new());
    let layer = Linear::new(&mut params, "fc", 4, 2)?;
    let x = graph.input("pixels", ROWS, INPUTS);
    let error = layer.forward(&mut graph, x).unwrap_err().to_string();
    assert_eq!(error, "layer `fc`: expected 4 inputs, got 5 from `pixels`");
    assert!(Linear::new(&mut params, "fc", 1, 1).unwrap_err().to_string().contains("`fc.weight`"));
    assert!(Linear::new(&mut params, "empty", 0, 1).is_err());
    assert!(graph.dropout(x, 1.0).is_err());

    let (mut params, mut graph) = (Params::new(1), Graph::new());
    let (_, labels, loss) = small(&mut params, &mut graph)?;
    let mut plan = graph.training(loss, &params)?;
    plan.ids_mut(labels).fill(CLASSES as u32);
    let error = plan.step(&mut params, &mut Optimizer::adam(0.1)).unwrap_err().to_string();
    assert_eq!(error, "`labels`, row 0: expected a number below 3, got 3");
    Ok(())
}

#[test]
fn threads_change_no_bit() -> Result<()> {
    let run = |threads: usize| -> Result<Vec<f32>> {
        candle_engine::kernels::threads::set_threads(threads);
        let (mut params, mut graph) = (Params::new(5), Graph::new());
        // Wide enough that the work is shared.
        let hidden = Linear::new(&mut params, "hidden", 300, 200)?;
        let out = Linear::new(&mut params, "out", 200, 200)?;
        let (x, labels) = (graph.input("x", 100, 300), graph.ids("labels", 100));
        let h = hidden.forward(&mut graph, x)?;
        let h = graph.activation(h, Activation::Gelu);
        let y = out.forward(&mut graph, h)?;
        let loss = graph.cross_entropy(y, labels, CrossEntropy::default())?;
        let mut plan = graph.training(loss, &params)?;
        for (i, x) in plan.input_mut(x).iter_mut().enumerate() {
            *x = (i as f32 * 0.7).sin();
        }
        for (i, label) in plan.ids_mut(labels).iter_mut().enumerate() {
            *label = i as u32;
        }
        let mut optimizer = Optimizer::adamw(0.01);
        let mut losses = Vec::new();
        for _ in 0..5 {
            losses.push(plan.step(&mut params, &mut optimizer)?);
        }
        losses.extend(params.tensors()?["hidden.weight"].flatten_all()?.to_vec1::<f32>()?);
        Ok(losses)
    };
    let one = run(1)?;
    for threads in [2, 3, 8] {
        assert!(run(threads)? == one, "{threads} threads");
    }
    Ok(())
}
