//! One file of a repository into one blob of the cache: locked, resumed, measured, hashed, renamed.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha1::Sha1;
use sha2::{Digest, Sha256};
use ureq::http::{header, HeaderMap, Method, StatusCode};

use crate::{Error, Result};

use super::cache::{create_parent, is_plain, Cache};
use super::http::{text, Ask, Client, Failure, Tries};
use super::RepoId;

/// What one read takes from the connection at most.
const CHUNK: usize = 128 * 1024;

/// What the Hub says of a file before it is fetched.
struct Blob {
    etag: String,
    size: Option<u64>,
}

/// A file to fetch, with the nouns for its error messages.
pub(super) struct Download<'a> {
    pub client: &'a Client,
    pub cache: &'a Cache,
    pub repo: &'a RepoId,
    pub url: String,
    pub what: String,
}

impl Download<'_> {
    /// Fetches the file unless its blob is there. Returns the blob's name and size.
    ///
    /// `report(bytes, size, waiting)` hears of every step.
    pub(super) fn run(&self, report: &mut dyn FnMut(u64, Option<u64>, bool)) -> Result<(String, u64)> {
        let blob = self.client.retry(|| self.ask())?;
        let path = self.cache.blob(self.repo, &blob.etag);
        create_parent(&path)?;
        let guard = self.lock(&blob.etag, &mut || report(0, blob.size, true))?;
        let size = match fs::metadata(&path) {
            // Only a finished download gets this name, so it needs no second hash.
            Ok(meta) if blob.size.is_none_or(|size| size == meta.len()) => meta.len(),
            _ => {
                let partial = match guard {
                    Some(_) => path.with_file_name(format!("{}.incomplete", blob.etag)),
                    // Where the file system has no locks, nobody else may write to the same file.
                    None => path.with_file_name(format!("{}.{}.incomplete", blob.etag, std::process::id())),
                };
                let size = self.fetch(&blob, &partial, &mut |done| report(done, blob.size, false))?;
                fs::rename(&partial, &path).map_err(|e| Error::io(&path, e))?;
                size
            }
        };
        report(size, Some(size), false);
        Ok((blob.etag, size))
    }

    /// Asks for name and size of the blob; servers that know no HEAD are asked for the first byte.
    fn ask(&self) -> Result<Blob, Failure> {
        let mut ask = Ask { url: self.url.clone(), what: &self.what, from: 0, length: None };
        let patience = Some(Duration::from_secs(60));
        let (reply, hops) = match self.client.send(Method::HEAD, &ask, patience) {
            Err(Failure::Final(Error::Network(what)))
                if what.contains("HTTP 405") || what.contains("HTTP 501") =>
            {
                ask.length = Some(1);
                self.client.send(Method::GET, &ask, patience)?
            }
            answer => answer?,
        };
        let find = |name: &str| hops.iter().rev().find_map(|headers: &HeaderMap| text(headers, name));
        // A redirect may have an ETag of its own: the last one is the file's.
        let etag = find("x-linked-etag").or_else(|| find(header::ETAG.as_str())).unwrap_or_default();
        let etag = etag.trim_start_matches("W/").trim_matches('"');
        if !is_plain(etag) {
            return Err(
                Error::Network(format!("{}: the server names no usable ETag: `{etag}`", self.what)).into()
            );
        }
        let number = |text: &str| text.parse::<u64>().ok();
        let size = find("x-linked-size").and_then(number).or_else(|| match reply.status() {
            StatusCode::OK => text(reply.headers(), header::CONTENT_LENGTH.as_str()).and_then(number),
            StatusCode::PARTIAL_CONTENT => content_range(reply.headers()).and_then(|(_, size)| size),
            _ => None,
        });
        Ok(Blob { etag: etag.to_owned(), size })
    }

    /// Waits until no other process fetches the same blob. `None` where the file system has no locks.
    fn lock(&self, etag: &str, waiting: &mut dyn FnMut()) -> Result<Option<File>> {
        let path = self.cache.lock(self.repo, etag);
        create_parent(&path)?;
        loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let file = file.map_err(|e| Error::io(&path, e))?;
            match file.try_lock() {
                // Other tools delete their lock files: a lock on a deleted file excludes nobody.
                Ok(()) if same_file(&file, &path) => return Ok(Some(file)),
                Ok(()) => continue,
                Err(TryLockError::WouldBlock) => {
                    waiting();
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(TryLockError::Error(_)) => return Ok(None),
            }
        }
    }

    /// Brings the partial file to its end, over as many connections as it takes, and checks it.
    fn fetch(&self, blob: &Blob, path: &Path, report: &mut dyn FnMut(u64)) -> Result<u64> {
        let mut partial = Partial::open(path, blob)?;
        let mut tries = Tries::new(self.client);
        let mut furthest = partial.done;
        // A partial file may be another tool's, or from before a crash: it gets one more chance from zero.
        let mut inherited = partial.done > 0;
        loop {
            report(partial.done);
            let outcome = if Some(partial.done) == blob.size {
                Ok(())
            } else {
                self.stream(blob, &mut partial, report)
            };
            if let Err(failure) = outcome {
                if partial.done > furthest {
                    furthest = partial.done;
                    tries.reset();
                }
                tries.pause(failure)?;
                continue;
            }
            match partial.check(blob) {
                Ok(()) => break,
                Err(_) if inherited => {
                    inherited = false;
                    partial.restart(blob)?;
                }
                Err(why) => {
                    drop(partial);
                    fs::remove_file(path).map_err(|e| Error::io(path, e))?;
                    return Err(Error::Network(format!("{}: {why}; the download was discarded", self.what)));
                }
            }
        }
        partial.file.sync_all().map_err(|e| Error::io(path, e))?;
        Ok(partial.done)
    }

    /// One connection: from where the partial file ends to the end of the file, or as far as it goes.
    fn stream(&self, blob: &Blob, partial: &mut Partial, report: &mut dyn FnMut(u64)) -> Result<(), Failure> {
        let ask = Ask { url: self.url.clone(), what: &self.what, from: partial.done, length: None };
        let (reply, _) = self.client.send(Method::GET, &ask, None)?;
        match reply.status() {
            StatusCode::OK => partial.restart(blob)?,
            StatusCode::PARTIAL_CONTENT => {
                let range = content_range(reply.headers());
                let fits = range.is_some_and(|(from, size)| {
                    from == partial.done && (size.is_none() || blob.size.is_none() || size == blob.size)
                });
                if !fits {
                    partial.restart(blob)?;
                    return Err(Failure::again(format!(
                        "{}: the server resumes at another place",
                        self.what
                    )));
                }
            }
            // The partial file is longer than the file itself.
            _ => {
                partial.restart(blob)?;
                return Err(Failure::again(format!(
                    "{}: the server has no bytes from {}",
                    self.what, ask.from
                )));
            }
        }
        let mut body = reply.into_body().into_reader();
        let mut chunk = vec![0; CHUNK];
        loop {
            let n = match body.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) => {
                    return Err(Failure::again(format!(
                        "{}: cut off after {} bytes: {e}",
                        self.what, partial.done
                    )))
                }
            };
            if blob.size.is_some_and(|size| partial.done + n as u64 > size) {
                partial.restart(blob)?;
                return Err(Failure::again(format!(
                    "{}: the server sends more bytes than it announced",
                    self.what
                )));
            }
            partial.append(&chunk[..n])?;
            report(partial.done);
        }
        match blob.size {
            Some(size) if partial.done < size => {
                Err(Failure::again(format!("{}: cut off after {} of {size} bytes", self.what, partial.done)))
            }
            _ => Ok(()),
        }
    }
}

/// The part of a file that has arrived, and its hash so far.
struct Partial {
    path: PathBuf,
    file: File,
    done: u64,
    hash: Hash,
}

impl Partial {
    /// Opens what an earlier attempt left, reading it once for the hash.
    fn open(path: &Path, blob: &Blob) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|e| Error::io(path, e))?;
        let mut partial = Self { path: path.to_owned(), file, done: 0, hash: Hash::of(blob) };
        let mut chunk = vec![0; CHUNK];
        loop {
            let n = partial.file.read(&mut chunk).map_err(|e| Error::io(path, e))?;
            if n == 0 {
                break;
            }
            partial.hash.update(&chunk[..n]);
            partial.done += n as u64;
        }
        if blob.size.is_some_and(|size| partial.done > size) {
            partial.restart(blob)?;
        }
        Ok(partial)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| Error::io(&self.path, e))?;
        self.hash.update(bytes);
        self.done += bytes.len() as u64;
        Ok(())
    }

    /// Forgets everything.
    fn restart(&mut self, blob: &Blob) -> Result<()> {
        let cut = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        cut.map_err(|e| Error::io(&self.path, e))?;
        self.done = 0;
        self.hash = Hash::of(blob);
        Ok(())
    }

    /// Whether this is the file that the ETag names.
    fn check(&mut self, blob: &Blob) -> std::result::Result<(), String> {
        let (name, found) = match &self.hash {
            Hash::Sha256(hash) => ("SHA-256", hex(&hash.clone().finalize())),
            Hash::GitBlob(hash) => ("Git hash", hex(&hash.clone().finalize())),
            Hash::Unknown => return Ok(()),
        };
        if found.eq_ignore_ascii_case(&blob.etag) {
            return Ok(());
        }
        Err(format!("the {name} is {found}, the Hub says {}", blob.etag))
    }
}

/// What an ETag of the Hub is, by its length: large files have their SHA-256, small ones their Git blob hash.
enum Hash {
    Sha256(Sha256),
    GitBlob(Sha1),
    /// A mirror's own ETag: only the size can be checked.
    Unknown,
}

impl Hash {
    fn of(blob: &Blob) -> Self {
        let digits = blob.etag.bytes().all(|b| b.is_ascii_hexdigit());
        match (blob.etag.len(), blob.size) {
            (64, _) if digits => Self::Sha256(Sha256::new()),
            (40, Some(size)) if digits => Self::GitBlob(Sha1::new_with_prefix(format!("blob {size}\0"))),
            _ => Self::Unknown,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::GitBlob(hash) => hash.update(bytes),
            Self::Unknown => {}
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `bytes 5-9/10` → (5, 10)
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let range = text(headers, header::CONTENT_RANGE.as_str())?.strip_prefix("bytes ")?;
    let (span, size) = range.split_once('/')?;
    let (from, _) = span.split_once('-')?;
    Some((from.trim().parse().ok()?, size.trim().parse().ok()))
}

#[cfg(unix)]
fn same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |meta: &fs::Metadata| (meta.dev(), meta.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(a), Ok(b)) if id(&a) == id(&b))
}

#[cfg(not(unix))]
fn same_file(_: &File, _: &Path) -> bool {
    true // an open file cannot be deleted there
}
