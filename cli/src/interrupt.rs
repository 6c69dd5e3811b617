//! Ctrl-C: ends the program with 130, or, while an answer is written, only the answer.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::exit::{Failure, Outcome, GENERAL, INTERRUPTED};

static PRESSED: AtomicBool = AtomicBool::new(false);
static GRACEFUL: AtomicBool = AtomicBool::new(false);
static TEMPORARY: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Takes over Ctrl-C, and the signals by which a program is asked to end.
pub fn install() {
    // Without it Ctrl-C still ends the program, only less tidily.
    let _ = ctrlc::set_handler(|| {
        if GRACEFUL.load(Ordering::Relaxed) && !PRESSED.swap(true, Ordering::Relaxed) {
            return;
        }
        remove_temporary();
        std::process::exit(INTERRUPTED.into());
    });
}

/// While this lives, the first Ctrl-C is only noted; the second ends the program as ever.
#[derive(Debug)]
pub struct Graceful(());

impl Graceful {
    pub fn new() -> Self {
        PRESSED.store(false, Ordering::Relaxed);
        GRACEFUL.store(true, Ordering::Relaxed);
        Self(())
    }

    /// Whether Ctrl-C was pressed.
    pub fn pressed(&self) -> bool {
        PRESSED.load(Ordering::Relaxed)
    }
}

impl Drop for Graceful {
    fn drop(&mut self) {
        GRACEFUL.store(false, Ordering::Relaxed);
    }
}

/// A file or folder that is removed when this is dropped, and when the program is asked to end.
#[derive(Debug)]
pub struct Temporary(PathBuf);

impl Temporary {
    pub fn new() -> Outcome<Self> {
        let nanos = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().subsec_nanos();
        let name = format!("candle-engine-{}-{nanos}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // `create_dir` fails if somebody else has put something there.
        std::fs::create_dir(&path)
            .map_err(|e| Failure::from(candle_engine::Error::io(&path, e)).with_code(GENERAL))?;
        *TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner) = Some(path.clone());
        Ok(Self(path))
    }

    /// Something that another part of the program makes, and may move away.
    pub fn of(path: &Path) -> Self {
        *TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner) = Some(path.to_owned());
        Self(path.to_owned())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        remove_temporary();
    }
}

fn remove_temporary() {
    if let Some(path) = TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = if path.is_file() { std::fs::remove_file(path) } else { std::fs::remove_dir_all(path) };
    }
}
