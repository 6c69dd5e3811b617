//! What quantizing costs: memory does not grow with the model. A process of its own, because it looks at the whole
//! process's memory.
#![cfg(target_os = "linux")]

use candle_engine::memory;
use candle_engine_models::quantize::{write_folder, Origin, Recipe};
use candle_engine_models::random::Shape;
use candle_engine_models::Source;

/// A fifth of what is read.
const MOST: u64 = 50 << 20;

#[test]
fn quantizing_streams() {
    let dir = std::env::temp_dir().join(format!("candle-engine-quantize-{}", std::process::id()));
    let (source, result) = (dir.join("source"), dir.join("result"));
    std::fs::create_dir_all(&source).unwrap();
    std::fs::create_dir_all(&result).unwrap();
    Shape::named("smollm2-135m").unwrap().write_hollow(&source).unwrap();
    let origin = Origin::open(&Source::Folder(source)).unwrap();
    let before = memory::peak_resident().unwrap();
    let recipe = Recipe::new("int8".parse().unwrap());
    let report = write_folder(&origin, &result, &recipe, None, &mut |_, _| ());
    let peak = memory::peak_resident().unwrap() - before;
    std::fs::remove_dir_all(&dir).unwrap();
    let report = report.unwrap();
    assert!(report.bytes_before > 5 * MOST, "{} bytes", report.bytes_before);
    assert!(peak < MOST, "{peak} bytes more were resident, mapped files included");
}
