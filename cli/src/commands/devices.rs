//! `devices`: what this build and this machine can run a model on.

use candle_core::Device;
use candle_engine::kernels::{threads::threads, Isa};
use candle_engine::memory;
use serde::Serialize;

use crate::args::Devices;
use crate::exit::Outcome;
use crate::output;

/// One row.
#[derive(Debug, Serialize)]
struct Row {
    /// What `--device` takes.
    device: String,
    /// What it is.
    name: String,
    threads: Option<usize>,
    isa: Option<&'static str>,
    /// Bytes that are free, where that is known.
    memory_bytes: Option<u64>,
}

pub fn run(args: &Devices) -> Outcome {
    let isa = Isa::best().name();
    let mut rows = vec![Row {
        device: "cpu".into(),
        name: std::env::consts::ARCH.into(),
        threads: Some(threads()),
        isa: Some(isa),
        memory_bytes: memory::available(),
    }];
    if cfg!(feature = "cuda") {
        rows.extend(gpus("cuda", "CUDA", Device::new_cuda));
    }
    if cfg!(feature = "metal") {
        rows.extend(gpus("metal", "Metal", Device::new_metal));
    }
    if args.json {
        return output::json(&rows);
    }
    let none = || "-".to_owned();
    let cells: Vec<_> = rows
        .into_iter()
        .map(|row| {
            [
                row.device,
                row.name,
                row.threads.map_or_else(none, |n| n.to_string()),
                row.isa.map_or_else(none, str::to_owned),
                row.memory_bytes.map_or_else(none, output::bytes),
            ]
        })
        .collect();
    output::table(["device", "name", "threads", "isa", "free memory"], &cells)
}

/// Devices are numbered without gaps: the first that fails is the end.
fn gpus(kind: &str, name: &str, open: impl Fn(usize) -> candle_core::Result<Device>) -> Vec<Row> {
    (0..64)
        .take_while(|&n| open(n).is_ok())
        .map(|n| Row {
            device: format!("{kind}:{n}"),
            name: format!("{name} device {n}"),
            threads: None,
            isa: None,
            memory_bytes: None,
        })
        .collect()
}
