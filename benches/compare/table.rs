//! The table: medians, and how many times the peer's figure ours is.

use candle_engine::kernels::isa::Isa;

use crate::{Row, ENGINES, FORMATS};

pub fn print(shape: &str, threads: &str, rounds: usize, rows: &[Row]) {
    println!("{shape}, {threads} threads, {}, medians of {rounds}\n", Isa::best().name());
    println!("| format | engine | prefill 512, tokens/s | decode 64, tokens/s | load, ms | peak RSS, MB | anonymous after load, MB |");
    println!("|---|---|--:|--:|--:|--:|--:|");
    for format in FORMATS {
        for engine in ENGINES {
            let of = |get: fn(&Row) -> f64| median(rows, engine, format, get);
            println!(
                "| {format} | {engine} | {:.1} | {:.1} | {:.1} | {:.0} | {:.0} |",
                of(|r| r.prefill_tokens_per_s),
                of(|r| r.decode_tokens_per_s),
                of(|r| r.load_ms),
                of(|r| r.peak_rss_mb),
                of(|r| r.anonymous_mb)
            );
        }
        let greedy =
            |engine: &str| rows.iter().find(|r| r.engine == engine && r.format == *format).map(|r| &r.greedy);
        if greedy(ENGINES[0]) != greedy(ENGINES[1]) {
            eprintln!(
                "note: {format}: the engines' first greedy tokens differ: {:?}, {:?}",
                greedy(ENGINES[0]),
                greedy(ENGINES[1])
            );
        }
    }
}

fn median(rows: &[Row], engine: &str, format: &str, get: fn(&Row) -> f64) -> f64 {
    let mut values: Vec<f64> =
        rows.iter().filter(|r| r.engine == engine && r.format == format).map(get).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
