//! `bench`: prefill and decode, in the layout of llama-bench.

mod measure;
mod table;
mod whisper;

use std::path::Path;

use candle_engine::kernels::roofline::Ceilings;
use candle_engine::kernels::threads::{set_threads, threads};
use candle_engine::kernels::Isa;
use candle_engine::memory;
use candle_engine::weights::Format;
use candle_engine_models::quantize::{write_folder, write_gguf, Origin, Recipe};
use candle_engine_models::random::Shape;
use candle_engine_models::{Error, LoadOptions, Source};
use serde::Serialize;

use self::measure::{operations, Kind, Opened, Test};
use self::table::Table;
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
    isa: &'static str,
    threads: usize,
    /// Of all sequences of a batch together.
    tokens_per_s: f64,
    /// Bytes of weights and cache read, 10⁹ per second.
    gb_per_s: f64,
    /// Of what binds the test: reading memory for a decode, multiplying for a prefill. `None` on a GPU.
    percent_of_peak: Option<f64>,
    load_ms: f64,
    /// From opening the model to the logits after its first token.
    first_token_ms: f64,
    peak_rss_bytes: Option<u64>,
    /// Of memory that is no file's, after the first token.
    anonymous_bytes: Option<u64>,
    #[serde(skip)]
    deviation: f64,
    #[serde(skip)]
    kind: Kind,
    /// Operations of the matrices, 10⁹ per second.
    #[serde(skip)]
    gop_per_s: f64,
}

pub fn run(args: &Bench, ui: &Ui) -> Outcome {
    if whisper::run(args, ui)? {
        return Ok(());
    }
    let tests = tests(args);
    if tests.is_empty() {
        return Err(Failure::usage("nothing to measure: -p and -n are both 0"));
    }
    let options = load::options(&args.device, args.kv_type)?;
    let (name, source, _temporary) = source(args, ui)?;
    let mut table = Table::new(args.json);
    let mut rows: Vec<Row> = Vec::new();
    let series = if args.threads.is_empty() { vec![threads()] } else { args.threads.clone() };
    let mut notes = Vec::new();
    for threads in series {
        set_threads(threads);
        let bench = Opened::new(&source, &options)?;
        let first = rows.len();
        for test in &tests {
            let times = bench.measure(test, &name, args.repetitions, ui)?;
            let row = row(&bench, test, &name, &times);
            table.print(&row, &bench.model, &options)?;
            rows.push(row);
        }
        notes.push(summary(&bench, &options, &mut rows[first..]));
    }
    if args.json {
        return output::json(&rows);
    }
    output::line("")?;
    notes.iter().try_for_each(output::line)?;
    match rows.last().and_then(|row| row.peak_rss_bytes) {
        Some(peak) => output::line(format_args!("peak memory {}", output::bytes(peak))),
        None => Ok(()),
    }
}

fn tests(args: &Bench) -> Vec<Test> {
    let prefill = args.n_prompt.iter().filter(|&&n| n > 0).map(|&n| Kind::Prefill(n));
    let decode = args.n_gen.iter().filter(|&&n| n > 0).flat_map(|&tokens| {
        let batches = args.batch.iter();
        batches.map(move |&batch| Kind::Decode { tokens, batch })
    });
    let kinds: Vec<Kind> = prefill.chain(decode).collect();
    let all = args.n_depth.iter().flat_map(|&depth| kinds.iter().map(move |&kind| Test { depth, kind }));
    all.collect()
}

/// Name and place of the model; random weights are written first, and go with the folder they are in.
fn source(args: &Bench, ui: &Ui) -> Outcome<(String, Source, Option<Temporary>)> {
    let Some(shape) = &args.random else {
        let word = load::word(None, &args.model);
        let source = load::locate(&word, ui)?;
        let name = word.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or(&word).to_owned();
        let Some(recipe) = &args.quantize else { return Ok((name, source, None)) };
        let folder = Temporary::new()?;
        let quantized = quantized(&source, recipe, folder.path(), ui)?;
        return Ok((name, quantized, Some(folder)));
    };
    let shape = Shape::named(shape).map_err(|e| Failure::usage(format!("--random: {e}")))?;
    let folder = Temporary::new()?;
    ui.detail(format_args!("writing random weights to {}", folder.path().display()));
    let random = folder.path().join("random");
    std::fs::create_dir(&random).map_err(|e| Error::io(&random, e))?;
    shape.write(&random)?;
    let mut source = Source::Folder(random.clone());
    if let Some(recipe) = &args.quantize {
        source = quantized(&source, recipe, folder.path(), ui)?;
        std::fs::remove_dir_all(&random).map_err(|e| Error::io(&random, e))?;
    }
    Ok((shape.name.to_owned(), source, Some(folder)))
}

/// A quantized copy of a model in a folder for temporary files: what is measured is a stored model.
fn quantized(source: &Source, recipe: &Recipe, folder: &Path, ui: &Ui) -> Outcome<Source> {
    let mut progress: Option<Progress> = None;
    let mut show = |done, total| {
        progress.get_or_insert_with(|| Progress::new(ui, recipe.to_string(), Unit::Bytes, total)).set(done);
    };
    let origin = Origin::open(source)?;
    if recipe.target.is_blocks() {
        let file = folder.join(format!("{recipe}.gguf"));
        write_gguf(&origin, &file, recipe, &mut show)?;
        return Ok(Source::Gguf(file));
    }
    let dir = folder.join(recipe.to_string());
    std::fs::create_dir(&dir).map_err(|e| Error::io(&dir, e))?;
    write_folder(&origin, &dir, recipe, None, &mut show)?;
    Ok(Source::Folder(dir))
}

fn row(bench: &Opened, test: &Test, name: &str, times: &[f64]) -> Row {
    let rates: Vec<f64> = times.iter().map(|time| test.tokens() as f64 / time).collect();
    let tokens_per_s = median(&rates);
    let per_token = tokens_per_s / test.tokens() as f64 / 1e9;
    let totals = bench.model.totals();
    Row {
        model: name.to_owned(),
        format: totals.first().map(|t| t.format.to_string().to_lowercase()).unwrap_or_default(),
        test: test.to_string(),
        isa: Isa::best().name(),
        threads: threads(),
        tokens_per_s,
        gb_per_s: bench.bytes(test) * per_token,
        percent_of_peak: None,
        load_ms: bench.load.as_secs_f64() * 1e3,
        first_token_ms: bench.first_token.as_secs_f64() * 1e3,
        peak_rss_bytes: memory::peak_resident(),
        anonymous_bytes: bench.anonymous,
        deviation: deviation(&rates),
        kind: test.kind,
        gop_per_s: operations(bench.model.decoder().config(), test.tokens()) * per_token,
    }
}

/// Compares the rows of one number of threads with what the CPU could do: last, because measuring that takes memory.
fn summary(bench: &Opened, options: &LoadOptions, rows: &mut [Row]) -> String {
    let (load, first) = (bench.load.as_secs_f64() * 1e3, bench.first_token.as_secs_f64() * 1e3);
    let mut line = format!("threads {}: load {load:.1} ms, first token {first:.1} ms", threads());
    if !options.device.is_cpu() {
        return line;
    }
    let ceilings = Ceilings::measure(Isa::best());
    // Norms, and often the embedding, are floats beside integers.
    let float = |format| matches!(format, Format::F32 | Format::F16 | Format::BF16);
    let totals = bench.model.totals();
    let multiplies = match totals.first() {
        Some(most) if totals.iter().all(|total| float(total.format)) => match most.format {
            Format::BF16 => ceilings.bf16_gflops,
            _ => ceilings.gflops,
        },
        _ => ceilings.gops,
    };
    line += &format!(
        "; peaks: read {:.1} GB/s, f32 {:.0} GFLOP/s, bf16 {:.0} GFLOP/s, int8 {:.0} Gop/s",
        ceilings.gb_per_s, ceilings.gflops, ceilings.bf16_gflops, ceilings.gops
    );
    for row in rows {
        let percent = match row.kind {
            Kind::Prefill(_) => row.gop_per_s / multiplies * 100.0,
            Kind::Decode { .. } => row.gb_per_s / ceilings.gb_per_s * 100.0,
        };
        row.percent_of_peak = Some(percent);
        line += &format!(", {} {percent:.0} %", row.test);
    }
    line
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
}
