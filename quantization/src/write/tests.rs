//! What is written is read back by the readers.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use candle_engine::weights::{Format, Gguf, SafeTensors, Weights};

use super::*;

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("candle-engine-write-{}-{}", id.0, id.1));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tensor(name: &str, format: Format, shape: &[usize]) -> Planned {
    Planned { name: name.into(), format, shape: shape.to_vec() }
}

#[test]
fn tensors_in_pieces_and_out_of_order() {
    let folder = Folder::new();
    let all = [
        tensor("bytes", Format::I8, &[3, 5]),
        tensor("halves", Format::F16, &[3]),
        tensor("shape", Format::I64, &[2]),
        tensor("words", Format::F32, &[1, 2]),
        tensor("none", Format::F32, &[0]),
    ];
    let path = folder.0.join("m.safetensors");
    let mut writer = Writer::create(&path, safetensors(&all).unwrap()).unwrap();
    writer.append("bytes", (0..7).collect()).unwrap();
    writer.append("words", vec![1; 8]).unwrap();
    writer.append("bytes", (7..15).collect()).unwrap();
    writer.append("shape", vec![2; 16]).unwrap();
    writer.append("halves", vec![3; 6]).unwrap();
    writer.finish().unwrap();

    let read = SafeTensors::open(&path).unwrap();
    assert_eq!(read.names().len(), all.len());
    for planned in &all {
        let stored = read.get(&planned.name).unwrap();
        assert_eq!((stored.format, &stored.shape), (planned.format, &planned.shape));
        // Kernels read numbers where they lie.
        assert!(stored.bytes.as_ptr().addr().is_multiple_of(stored.format.block().1), "{}", planned.name);
    }
    assert_eq!(&read.get("bytes").unwrap().bytes[..], (0..15).collect::<Vec<u8>>());
    assert_eq!(&read.get("halves").unwrap().bytes[..], [3; 6]);
    assert_eq!(read.metadata()["format"], "pt");
}

#[test]
fn a_gguf_file_with_its_metadata() {
    let folder = Folder::new();
    let metadata = [
        ("general.architecture".to_owned(), MetaValue::Str("llama".into())),
        ("a.count".into(), MetaValue::U32(7)),
        ("a.number".into(), MetaValue::F32(0.5)),
        ("a.flag".into(), MetaValue::Bool(true)),
        ("a.texts".into(), MetaValue::Strs(vec!["x".into(), "é".into()])),
        ("a.ints".into(), MetaValue::I32s(vec![-1, 2])),
        ("a.floats".into(), MetaValue::F32s(vec![1.0, -2.0])),
    ];
    let all = [tensor("norm", Format::F32, &[3]), tensor("w", Format::Q8_0, &[2, 32])];
    let path = folder.0.join("m.gguf");
    let mut writer = Writer::create(&path, gguf(&metadata, &all).unwrap()).unwrap();
    writer.append("w", vec![9; 68]).unwrap();
    writer.append("norm", vec![1; 12]).unwrap();
    writer.finish().unwrap();

    let read = Gguf::open(&path).unwrap();
    let meta = read.metadata();
    assert_eq!((meta.str("general.architecture"), meta.u64("a.count")), (Some("llama"), Some(7)));
    assert_eq!((meta.f64("a.number"), meta.bool("a.flag")), (Some(0.5), Some(true)));
    assert_eq!(meta.strings("a.texts").unwrap(), ["x", "é"]);
    assert_eq!((meta.ints("a.ints"), meta.f32s("a.floats")), (Some(vec![-1, 2]), Some(vec![1.0, -2.0])));
    let w = read.get("w").unwrap();
    assert_eq!((w.format, w.shape, &w.bytes[..]), (Format::Q8_0, vec![2, 32], &[9; 68][..]));
    assert_eq!(&read.get("norm").unwrap().bytes[..], [1; 12]);
}

#[test]
fn what_does_not_fit_the_plan_is_refused() {
    let folder = Folder::new();
    let all = [tensor("a", Format::I8, &[4]), tensor("b", Format::I8, &[1])];
    let mut writer = Writer::create(&folder.0.join("m"), safetensors(&all).unwrap()).unwrap();
    writer.append("a", vec![0; 3]).unwrap();
    let error = writer.append("a", vec![0; 2]).unwrap_err().to_string();
    assert_eq!(error, "tensor `a`: 2 bytes come where 1 are left");
    assert!(writer.append("c", vec![]).unwrap_err().to_string().contains("was not planned"));
    assert_eq!(writer.finish().unwrap_err().to_string(), "tensor `a`: 1 bytes never came");
    assert!(safetensors(&[tensor("q", Format::Q8_0, &[1, 32])]).is_err());
    assert!(gguf(&[], &[tensor("q", Format::Q8_0, &[1, 33])]).is_err());
    let missing = folder.0.join("no/such/folder/m");
    let error = Writer::create(&missing, safetensors(&all).unwrap()).unwrap_err().to_string();
    assert!(error.starts_with(&missing.display().to_string()), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_that_names_the_file() {
    let all = [tensor("a", Format::I8, &[1 << 20])];
    let mut writer = Writer::create("/dev/full".as_ref(), safetensors(&all).unwrap()).unwrap();
    let wrote = writer.append("a", vec![0; 1 << 20]).and_then(|()| writer.finish());
    assert!(wrote.unwrap_err().to_string().starts_with("/dev/full: "));
}

#[test]
fn a_result_appears_when_it_is_complete() {
    let folder = Folder::new();
    let destination = folder.0.join("new/model");
    let staged = Staged::folder(&destination).unwrap();
    std::fs::write(staged.path().join("x"), "1").unwrap();
    assert!(!destination.exists());
    let unfinished = staged.path().to_owned();
    drop(staged);
    assert!(!unfinished.exists() && !destination.exists());

    let staged = Staged::folder(&destination).unwrap();
    std::fs::write(staged.path().join("x"), "2").unwrap();
    staged.commit().unwrap();
    assert_eq!(std::fs::read(destination.join("x")).unwrap(), b"2");
    assert!(Staged::folder(&destination).unwrap_err().to_string().ends_with("model: is there already"));
    assert!(Staged::file(&destination).is_err());

    let empty = folder.0.join("empty");
    std::fs::create_dir(&empty).unwrap();
    Staged::folder(&empty).unwrap().commit().unwrap();
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 2);
}
