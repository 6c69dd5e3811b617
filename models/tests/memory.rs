//! What loading costs: a bf16 model of 1.2 billion parameters is mapped, not copied. A process of its own, because
//! it looks at the whole process's memory.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use candle_engine::memory;
use candle_engine_models::random::Shape;
use candle_engine_models::{LoadOptions, Model};

const ANONYMOUS: u64 = 150 << 20;
const LOAD: Duration = Duration::from_millis(100);

#[test]
fn weights_are_never_copied() {
    let dir = std::env::temp_dir().join(format!("candle-engine-memory-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    Shape::named("llama-1b").unwrap().write_hollow(&dir).unwrap();

    // The best of a few: the first reads the header from the disk, and other programs may be in the way.
    let open = || {
        let start = Instant::now();
        let model = Model::open(&dir.display().to_string(), &LoadOptions::default()).unwrap();
        (start.elapsed(), model)
    };
    let load = (0..5).map(|_| open().0).min().unwrap();
    let (_, model) = open();
    let loaded = memory::anonymous().unwrap();
    let mut session = model.session();
    session.feed(&[1, 2, 3]).unwrap();
    let fed = memory::anonymous().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();

    assert!(load < LOAD, "loading took {load:?}");
    assert!(loaded < ANONYMOUS, "{loaded} bytes after loading");
    let kv = session.kv_bytes() as u64;
    assert!(fed < ANONYMOUS + kv, "{fed} bytes after a forward pass, {kv} of them KV cache");
}
