//! `bench`: prefill and decode, in the layout of llama-bench.

use std::time::{Duration, Instant};

use candle_engine::kernels::threads::{set_threads, threads};
use candle_engine::kernels::Isa;
use candle_engine::memory;
use candle_engine::session::PREFILL_CHUNK;
use candle_engine_models::random::Shape;
use candle_engine_models::{LoadOptions, Model, Session, Source};
use serde::Serialize;

use super::load;
use crate::args::Bench;
use crate::exit::{Failure, Outcome};
use crate::interrupt::Temporary;
use crate::output::{self, Ui};
use crate::progress::{Progress, Unit};

/// One row of `--json`.
#[derive(Debug, Serialize)]
struct Row {
    model: String,
    /// Number format of most of the weights' bytes.
    format: String,
    test: String,
    threads: usize,
    tokens_per_s: f64,
    /// Bytes of weights read, 10⁹ per second.
    gb_per_s: f64,
    load_ms: f64,
    /// From opening the model to the logits after its first token.
    first_token_ms: f64,
    peak_rss_bytes: Option<u64>,
    #[serde(skip)]
    deviation: f64,
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
struct Test {
    depth: usize,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Prefill(usize),
    Decode(usize),
}

pub fn run(args: &Bench, ui: &Ui) -> Outcome {
    let tests = tests(args);
    if tests.is_empty() {
        return Err(Failure::usage("nothing to measure: -p and -n are both 0"));
    }
    let options = load::options(&args.device, args.kv_type)?;
    let (name, source, _temporary) = source(args, ui)?;
    let mut table = Table::new(args.json);
    let mut rows = Vec::new();
    let series = if args.threads.is_empty() { vec![threads()] } else { args.threads.clone() };
    for threads in series {
        set_threads(threads);
        let bench = Opened::new(&source, &options)?;
        for test in &tests {
            let row = bench.measure(test, &name, threads, args.repetitions, ui)?;
            table.print(&row, &bench.model, &options)?;
            rows.push(row);
        }
    }
    if args.json {
        return output::json(&rows);
    }
    output::line("")?;
    rows.dedup_by_key(|row| row.threads);
    rows.iter().try_for_each(|row| {
        let Row { threads, load_ms, first_token_ms, .. } = row;
        output::line(format_args!(
            "threads {threads}: load {load_ms:.1} ms, first token {first_token_ms:.1} ms"
        ))
    })?;
    match memory::peak_resident() {
        Some(peak) => output::line(format_args!("peak memory {}", output::bytes(peak))),
        None => Ok(()),
    }
}

fn tests(args: &Bench) -> Vec<Test> {
    let prefill = args.n_prompt.iter().filter(|&&n| n > 0).map(|&n| Kind::Prefill(n));
    let decode = args.n_gen.iter().filter(|&&n| n > 0).map(|&n| Kind::Decode(n));
    let kinds: Vec<Kind> = prefill.chain(decode).collect();
    let all = args.n_depth.iter().flat_map(|&depth| kinds.iter().map(move |&kind| Test { depth, kind }));
    all.collect()
}

/// Name and place of the model; random weights are written first, and go with the folder they are in.
fn source(args: &Bench, ui: &Ui) -> Outcome<(String, Source, Option<Temporary>)> {
    let Some(shape) = &args.random else {
        let word = load::word(None, &args.model);
        let source = load::locate(&word, ui)?;
        let name = word.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or(&word);
        return Ok((name.to_owned(), source, None));
    };
    let shape = Shape::named(shape).map_err(|e| Failure::usage(format!("--random: {e}")))?;
    let folder = Temporary::new()?;
    ui.detail(format_args!("writing random weights to {}", folder.path().display()));
    shape.write(folder.path())?;
    Ok((shape.name.to_owned(), Source::Folder(folder.path().to_owned()), Some(folder)))
}

/// A model that was opened for one number of threads.
struct Opened {
    model: Model,
    load: Duration,
    first_token: Duration,
}

impl Opened {
    fn new(source: &Source, options: &LoadOptions) -> Outcome<Self> {
        let start = Instant::now();
        let model = Model::from_source(source, options)?;
        let load = start.elapsed();
        model.session().feed(&[0])?;
        Ok(Self { load, first_token: start.elapsed(), model })
    }

    fn measure(&self, test: &Test, name: &str, threads: usize, repetitions: usize, ui: &Ui) -> Outcome<Row> {
        let tokens = match test.kind {
            Kind::Prefill(n) | Kind::Decode(n) => n,
        };
        let mut session = self.model.session();
        if test.depth + tokens > session.context() {
            let what = format!("{test}: the context holds {} tokens", session.context());
            return Err(Failure::input(what));
        }
        let mut progress = Progress::new(ui, format!("{name} {test}"), Unit::Steps, repetitions as u64 + 1);
        let text = tokens_of(test.depth + tokens, self.model.decoder().config().dims.vocab);
        let (before, text) = text.split_at(test.depth);
        if !before.is_empty() {
            session.feed(before)?;
        }
        let mut times = Vec::with_capacity(repetitions);
        // The first one only warms up.
        for i in 0..=repetitions {
            progress.set(i as u64);
            let time = step(&mut session, test, text)?;
            if i > 0 {
                times.push(time.as_secs_f64());
            }
        }
        times.sort_by(f64::total_cmp);
        let rates: Vec<f64> = times.iter().map(|t| tokens as f64 / t).collect();
        let passes = match test.kind {
            Kind::Prefill(n) => n.div_ceil(PREFILL_CHUNK),
            Kind::Decode(n) => n,
        };
        let tokens_per_s = median(&rates);
        let totals = self.model.totals();
        Ok(Row {
            model: name.to_owned(),
            format: totals.first().map(|t| t.format.to_string().to_lowercase()).unwrap_or_default(),
            test: test.to_string(),
            threads,
            tokens_per_s,
            gb_per_s: self.model.bytes_per_pass() as f64 * passes as f64 / tokens as f64 * tokens_per_s / 1e9,
            load_ms: self.load.as_secs_f64() * 1e3,
            first_token_ms: self.first_token.as_secs_f64() * 1e3,
            peak_rss_bytes: memory::peak_resident(),
            deviation: deviation(&rates),
        })
    }
}

fn step(session: &mut Session, test: &Test, text: &[u32]) -> Outcome<Duration> {
    session.truncate(test.depth);
    let start = Instant::now();
    match test.kind {
        Kind::Prefill(_) => _ = session.feed(text)?,
        Kind::Decode(_) => {
            for id in text {
                session.feed(&[*id])?;
            }
        }
    }
    Ok(start.elapsed())
}

/// Tokens without a pattern, the same each time.
fn tokens_of(n: usize, vocab: usize) -> Vec<u32> {
    // Source: Knuth, TAOCP vol. 2, 3.3.4, the multiplier of MMIX.
    let mut state = 1u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocab as u64) as u32
    };
    std::iter::repeat_with(next).take(n).collect()
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
        _ => sorted[middle],
    }
}

fn deviation(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0)).sqrt()
}

impl std::fmt::Display for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            Kind::Prefill(n) => write!(f, "pp{n}")?,
            Kind::Decode(n) => write!(f, "tg{n}")?,
        }
        if self.depth > 0 {
            write!(f, "@d{}", self.depth)?;
        }
        Ok(())
    }
}

/// A table in Markdown whose rows come as they are measured.
struct Table {
    silent: bool,
    begun: bool,
}

impl Table {
    fn new(silent: bool) -> Self {
        Self { silent, begun: false }
    }

    fn print(&mut self, row: &Row, model: &Model, options: &LoadOptions) -> Outcome {
        if self.silent {
            return Ok(());
        }
        if !std::mem::replace(&mut self.begun, true) {
            output::line(cells(
                ["model", "size", "params", "backend", "threads", "test", "t/s", "GB/s"].map(str::to_owned),
            ))?;
            let rule = |width: usize, right: bool| {
                format!("{}{}", "-".repeat(width - 1), if right { ':' } else { '-' })
            };
            let rules: Vec<String> =
                WIDTHS.iter().zip(RIGHT).map(|(&width, right)| format!(" {} ", rule(width, right))).collect();
            output::line(format_args!("|{}|", rules.join("|")))?;
        }
        let backend = match options.device.location() {
            candle_core::DeviceLocation::Cpu => format!("CPU {}", Isa::best()),
            candle_core::DeviceLocation::Cuda { gpu_id } => format!("CUDA {gpu_id}"),
            candle_core::DeviceLocation::Metal { gpu_id } => format!("Metal {gpu_id}"),
        };
        let totals = model.totals();
        let parameters = totals.iter().map(|t| t.parameters).sum();
        let bytes = totals.iter().map(|t| t.bytes).sum();
        output::line(cells([
            format!("{} {}", row.model, row.format),
            output::bytes(bytes),
            output::count(parameters),
            backend,
            row.threads.to_string(),
            row.test.clone(),
            format!("{:.2} ± {:.2}", row.tokens_per_s, row.deviation),
            format!("{:.2}", row.gb_per_s),
        ]))
    }
}

const WIDTHS: [usize; 8] = [30, 10, 10, 12, 7, 15, 20, 8];
const RIGHT: [bool; 8] = [false, true, true, false, true, true, true, true];

fn cells(texts: [String; 8]) -> String {
    let mut line = String::from("|");
    for ((text, width), right) in texts.iter().zip(WIDTHS).zip(RIGHT) {
        let pad = " ".repeat(width.saturating_sub(text.chars().count()));
        line += &if right { format!(" {pad}{text} |") } else { format!(" {text}{pad} |") };
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics() {
        assert_eq!(median(&[1.0, 2.0, 10.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0]), 1.5);
        assert_eq!(deviation(&[1.0, 3.0]), 2f64.sqrt());
        assert_eq!(deviation(&[1.0]), 0.0);
    }

    #[test]
    fn tests_are_named_as_in_llama_bench() {
        assert_eq!(Test { depth: 0, kind: Kind::Prefill(512) }.to_string(), "pp512");
        assert_eq!(Test { depth: 4096, kind: Kind::Decode(64) }.to_string(), "tg64@d4096");
        assert!(tokens_of(100, 7).iter().all(|&id| id < 7));
    }
}
