//! A file that a thread of its own writes, so that disk and arithmetic do not wait for one another.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::thread::JoinHandle;

use candle_engine::{Error, Result};

/// Pieces that may wait for the disk.
const WAITING: usize = 32;
/// Bytes after which they are forced to the disk: it then works all along, and not only at the end.
const FLUSH: u64 = 64 << 20;

type Piece = (u64, Vec<u8>);

#[derive(Debug)]
pub(super) struct Output {
    path: PathBuf,
    pieces: Option<SyncSender<Piece>>,
    thread: Option<JoinHandle<io::Result<File>>>,
}

impl Output {
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|e| Error::io(path, e))?;
        let (pieces, waiting) = sync_channel(WAITING);
        let thread = std::thread::spawn(move || write(file, waiting));
        Ok(Self { path: path.to_owned(), pieces: Some(pieces), thread: Some(thread) })
    }

    pub fn write(&mut self, at: u64, bytes: Vec<u8>) -> Result<()> {
        let sent = self.pieces.as_ref().is_some_and(|pieces| pieces.send((at, bytes)).is_ok());
        if sent {
            return Ok(());
        }
        // The thread ends early only if the disk refused.
        self.join().map(drop)
    }

    pub fn finish(mut self, len: u64) -> Result<()> {
        let file = self.join()?;
        file.set_len(len).and_then(|()| file.sync_all()).map_err(|e| Error::io(&self.path, e))
    }

    fn join(&mut self) -> Result<File> {
        self.pieces = None;
        let ended = self.thread.take().map(JoinHandle::join);
        let broken = || Err(io::Error::other("the writing thread ended"));
        let written = ended.and_then(std::result::Result::ok).unwrap_or_else(broken);
        written.map_err(|e| Error::io(&self.path, e))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ = self.join();
        }
    }
}

fn write(mut file: File, pieces: Receiver<Piece>) -> io::Result<File> {
    let (mut position, mut unsaved) = (0, 0);
    for (at, bytes) in pieces {
        if at != position {
            file.seek(SeekFrom::Start(at))?;
        }
        file.write_all(&bytes)?;
        position = at + bytes.len() as u64;
        unsaved += bytes.len() as u64;
        if unsaved >= FLUSH {
            file.sync_data()?;
            unsaved = 0;
        }
    }
    Ok(file)
}
