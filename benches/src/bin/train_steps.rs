//! Steps of small networks' training: `train_steps w1|w2|w3|w4|w4b1 [--threads N] [--steps K]`.
//!
//! | | network | batch | |
//! |---|---|---|---|
//! | w1 | 2-32-32-2 | 64 | Adam |
//! | w2 | 784-128-10 | 64 | SGD with momentum |
//! | w3 | 784-512-256-10 | 128 | AdamW |
//! | w4, w4b1 | w3's | 128, 1 | forward only |
//!
//! ReLU between layers, cross-entropy, f32. The batch is written once, as those of PyTorch and JAX are; a step trains and reads
//! the loss. Prints
//! `{"us_per_step","first_step_ms","loss","peak_rss_bytes","allocations_per_step"}`: the median of ten runs of K / 10
//! steps, and the time from the program's start to the end of the first step.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use candle_engine::train::{
    Activation, CrossEntropy, Graph, Ids, Init, Linear, Loss, Optimizer, Params, Plan, Var,
};
use candle_engine::{kernels::threads::set_threads, memory, Error, Result};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A network to be timed.
struct Work {
    widths: &'static [usize],
    batch: usize,
    optimizer: Option<fn() -> Optimizer>,
    steps: usize,
}

fn work(name: &str) -> Result<Work> {
    const WIDE: &[usize] = &[784, 512, 256, 10];
    Ok(match name {
        "w1" => Work {
            widths: &[2, 32, 32, 2],
            batch: 64,
            optimizer: Some(|| Optimizer::adam(1e-3)),
            steps: 20000,
        },
        "w2" => Work {
            widths: &[784, 128, 10],
            batch: 64,
            optimizer: Some(|| Optimizer::sgd(0.01, 0.9)),
            steps: 2000,
        },
        "w3" => Work { widths: WIDE, batch: 128, optimizer: Some(|| Optimizer::adamw(1e-3)), steps: 400 },
        "w4" => Work { widths: WIDE, batch: 128, optimizer: None, steps: 1000 },
        "w4b1" => Work { widths: WIDE, batch: 1, optimizer: None, steps: 10000 },
        other => return Err(Error::Input(format!("expected w1, w2, w3, w4 or w4b1, got `{other}`"))),
    })
}

/// What a layer begins with: the same in every engine.
fn begin(n: usize, inputs: usize) -> Vec<f32> {
    let one = |i: usize| f64::from((i as u32).wrapping_mul(2_654_435_761)) / 4_294_967_296.0 * 2.0 - 1.0;
    (0..n).map(|i| (one(i) / (inputs as f64).sqrt()) as f32).collect()
}

fn record(
    widths: &[usize],
    batch: usize,
    params: &mut Params,
    graph: &mut Graph,
) -> Result<(Var, Ids, Loss)> {
    let (x, labels) = (graph.input("x", batch, widths[0]), graph.ids("labels", batch));
    let mut h = x;
    for (i, pair) in widths.windows(2).enumerate() {
        let name = format!("fc{}", i + 1);
        h = Linear::with_init(params, &name, pair[0], pair[1], Init::Constant(0.0), true)?
            .forward(graph, h)?;
        params.set(&format!("{name}.weight"), &begin(pair[0] * pair[1], pair[0]))?;
        params.set(&format!("{name}.bias"), &begin(pair[1], pair[0]))?;
        if i + 2 < widths.len() {
            h = graph.activation(h, Activation::Relu);
        }
    }
    Ok((x, labels, graph.cross_entropy(h, labels, CrossEntropy::default())?))
}

fn main() -> Result<()> {
    let start = Instant::now();
    let (mut name, mut threads, mut steps) = (String::new(), 1, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let number = arguments.next().and_then(|n| n.parse::<usize>().ok());
            number.ok_or_else(|| Error::Input(format!("expected a number after {argument}")))
        };
        match argument.as_str() {
            "--threads" => threads = number()?,
            "--steps" => steps = Some(number()?),
            _ => name = argument,
        }
    }
    set_threads(threads);
    let Work { widths, batch, optimizer, steps: usual } = work(&name)?;
    let runs = 10;
    // Two steps are made before the clock runs.
    let steps = steps.unwrap_or(usual).saturating_sub(2).div_ceil(runs).max(1);

    let (mut params, mut graph) = (Params::new(42), Graph::new());
    let (x, labels, loss) = record(widths, batch, &mut params, &mut graph)?;
    // The same numbers in every engine.
    let numbers: Vec<f32> = (0..batch * widths[0]).map(|i| ((i * 37 % 255) as f32 / 255.0) - 0.5).collect();
    let classes: Vec<u32> = (0..batch).map(|i| (i % widths[widths.len() - 1]) as u32).collect();
    let mut optimizer = optimizer.map(|optimizer| optimizer());
    let mut plan = match optimizer {
        Some(_) => graph.training(loss, &params)?,
        None => graph.inference(Some(loss)),
    };
    plan.input_mut(x).copy_from_slice(&numbers);
    plan.ids_mut(labels).copy_from_slice(&classes);
    let mut step = |plan: &mut Plan| -> Result<f32> {
        match &mut optimizer {
            Some(optimizer) => plan.step(&mut params, optimizer),
            None => plan.run(&params),
        }
    };
    step(&mut plan)?;
    let first = start.elapsed();
    step(&mut plan)?;

    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let mut times = [0.0; 10];
    let mut loss = 0.0;
    for time in &mut times {
        let start = Instant::now();
        for _ in 0..steps {
            loss = step(&mut plan)?;
        }
        *time = start.elapsed().as_secs_f64() * 1e6 / steps as f64;
    }
    let allocations = (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / (runs * steps) as f64;
    times.sort_by(f64::total_cmp);
    println!(
        "{}",
        serde_json::json!({
            "us_per_step": (times[4] + times[5]) / 2.0,
            "first_step_ms": first.as_secs_f64() * 1e3,
            "loss": loss,
            "peak_rss_bytes": memory::peak_resident(),
            "allocations_per_step": allocations,
        })
    );
    Ok(())
}
