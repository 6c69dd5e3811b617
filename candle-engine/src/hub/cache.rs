//! The cache folder, laid out as the other Hub tools lay it out:
//! `models--org--name/{blobs/<etag>, refs/<revision>, snapshots/<commit>/<file> → blob}`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use crate::{Error, Result};

use super::RepoId;

/// Deeper folders than any repository has.
const MAX_DEPTH: usize = 16;

/// A repository as it lies in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedModel {
    /// Its name.
    pub repo: RepoId,
    /// The commits of which there are files, and the branches and tags that point at each.
    pub commits: BTreeMap<String, Vec<String>>,
    /// Bytes on disk, unfinished downloads included.
    pub bytes: u64,
    /// Finished files, each counted once however many commits share it.
    pub files: usize,
    /// Bytes of unfinished downloads.
    pub unfinished: u64,
    /// When something was last written.
    pub modified: Option<SystemTime>,
}

/// The cache of one user.
pub(super) struct Cache {
    pub root: PathBuf,
}

impl Cache {
    pub(super) fn folder(&self, repo: &RepoId) -> PathBuf {
        self.root.join(repo.folder())
    }

    pub(super) fn blob(&self, repo: &RepoId, etag: &str) -> PathBuf {
        self.folder(repo).join("blobs").join(etag)
    }

    pub(super) fn snapshot(&self, repo: &RepoId, commit: &str) -> PathBuf {
        self.folder(repo).join("snapshots").join(commit)
    }

    pub(super) fn lock(&self, repo: &RepoId, etag: &str) -> PathBuf {
        self.root.join(".locks").join(repo.folder()).join(format!("{etag}.lock"))
    }

    /// The commit that a revision meant when it was last fetched.
    pub(super) fn commit(&self, repo: &RepoId) -> Option<String> {
        let by_ref = fs::read_to_string(self.folder(repo).join("refs").join(repo.revision())).ok();
        let commit = by_ref.map_or_else(|| repo.revision().to_owned(), |commit| commit.trim().to_owned());
        (is_plain(&commit) && self.snapshot(repo, &commit).is_dir()).then_some(commit)
    }

    /// Notes what a branch or tag means now.
    pub(super) fn set_commit(&self, repo: &RepoId, commit: &str) -> Result<()> {
        let revision = repo.revision();
        let path = self.folder(repo).join("refs").join(revision);
        if revision == commit || fs::read_to_string(&path).is_ok_and(|known| known == commit) {
            return Ok(());
        }
        create_parent(&path)?;
        let fresh = sibling(&path);
        fs::write(&fresh, commit).and_then(|()| fs::rename(&fresh, &path)).map_err(|e| Error::io(&path, e))
    }

    /// Makes `snapshots/<commit>/<file>` stand for a blob: by a relative link where the file system has
    /// links, else by a second name, else by a copy.
    pub(super) fn point(&self, repo: &RepoId, commit: &str, file: &str, etag: &str) -> Result<()> {
        let pointer = self.snapshot(repo, commit).join(file);
        create_parent(&pointer)?;
        let mut target = PathBuf::from("../..");
        (0..file.matches('/').count()).for_each(|_| target.push(".."));
        let target = target.join("blobs").join(etag);
        if fs::read_link(&pointer).is_ok_and(|known| known == target) {
            return Ok(());
        }
        let blob = self.blob(repo, etag);
        let fresh = sibling(&pointer);
        symlink(&target, &fresh)
            .or_else(|_| fs::hard_link(&blob, &fresh))
            .or_else(|_| fs::copy(&blob, &fresh).map(drop))
            .and_then(|()| fs::rename(&fresh, &pointer))
            .map_err(|e| Error::io(&pointer, e))
    }

    /// Creates the cache, marked so that backups leave it out.
    pub(super) fn tag(&self) -> Result<()> {
        fs::create_dir_all(&self.root).map_err(|e| Error::io(&self.root, e))?;
        let tag = self.root.join("CACHEDIR.TAG");
        if !tag.exists() {
            fs::write(tag, "Signature: 8a477f597d28d172789f06886806bc55\n").ok();
            // a courtesy, not a need
        }
        Ok(())
    }

    /// Every model in the cache, by name.
    pub(super) fn list(&self) -> Result<Vec<CachedModel>> {
        let entries = match fs::read_dir(&self.root) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|e| Error::io(&self.root, e))?,
        };
        let mut models: Vec<CachedModel> = entries
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| RepoId::from_folder(entry.file_name().to_str()?))
            .map(|repo| self.describe(repo))
            .collect();
        models.sort_by(|a, b| a.repo.name.cmp(&b.repo.name));
        Ok(models)
    }

    fn describe(&self, repo: RepoId) -> CachedModel {
        let folder = self.folder(&repo);
        let mut model =
            CachedModel { repo, commits: BTreeMap::new(), bytes: 0, files: 0, unfinished: 0, modified: None };
        for entry in fs::read_dir(folder.join("snapshots")).into_iter().flatten().flatten() {
            let Ok(commit) = entry.file_name().into_string() else { continue };
            model.commits.insert(commit, Vec::new());
            for file in walk(&entry.path()) {
                // Where there are no links the snapshots hold the bytes themselves.
                let meta = fs::symlink_metadata(entry.path().join(&file));
                model.count(meta.ok().filter(|meta| !meta.is_symlink()));
            }
        }
        for entry in fs::read_dir(folder.join("blobs")).into_iter().flatten().flatten() {
            let meta = fs::metadata(entry.path()).ok();
            if entry.path().extension() == Some(OsStr::new("incomplete")) {
                let bytes = meta.map_or(0, |meta| meta.len());
                model.bytes += bytes;
                model.unfinished += bytes;
            } else {
                model.count(meta);
            }
        }
        for name in walk(&folder.join("refs")) {
            let commit = fs::read_to_string(folder.join("refs").join(&name)).unwrap_or_default();
            if let Some(names) = model.commits.get_mut(commit.trim()) {
                names.push(name);
            }
        }
        model
    }

    /// Deletes a model, or one revision of it, or one GGUF of it. Returns the bytes that this freed.
    ///
    /// Errors: `NotFound` where there is nothing of the kind in the cache.
    pub(super) fn remove(&self, repo: &RepoId) -> Result<u64> {
        let folder = self.folder(repo);
        let missing = || Error::NotFound { what: format!("{repo} is not in {}", self.root.display()) };
        if !folder.is_dir() {
            return Err(missing());
        }
        let before = size(&folder);
        if repo.revision.is_none() && repo.quant.is_none() {
            fs::remove_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
            fs::remove_dir_all(self.root.join(".locks").join(repo.folder())).ok();
            return Ok(before);
        }
        let commit = self.commit(repo).ok_or_else(missing)?;
        let snapshot = self.snapshot(repo, &commit);
        let files = walk(&snapshot);
        if repo.quant.is_some() {
            let model = super::select::model_files(repo, &files)?;
            for file in model.iter().filter(|file| file.ends_with(".gguf")).map(|file| snapshot.join(file)) {
                fs::remove_file(&file).map_err(|e| Error::io(&file, e))?;
            }
        } else {
            fs::remove_dir_all(&snapshot).map_err(|e| Error::io(&snapshot, e))?;
            for name in walk(&folder.join("refs")).into_iter().map(|name| folder.join("refs").join(name)) {
                if fs::read_to_string(&name).is_ok_and(|known| known.trim() == commit) {
                    fs::remove_file(&name).map_err(|e| Error::io(&name, e))?;
                }
            }
        }
        self.sweep(&folder)?;
        Ok(before.saturating_sub(size(&folder)))
    }

    /// Deletes the blobs that no snapshot points at; an unfinished download stays, it may be running.
    fn sweep(&self, folder: &Path) -> Result<()> {
        let mut used = BTreeSet::new();
        for entry in fs::read_dir(folder.join("snapshots")).into_iter().flatten().flatten() {
            for file in walk(&entry.path()) {
                let target = fs::read_link(entry.path().join(file)).unwrap_or_default();
                used.extend(target.file_name().map(OsStr::to_owned));
            }
        }
        for entry in fs::read_dir(folder.join("blobs")).into_iter().flatten().flatten() {
            let unfinished = entry.path().extension() == Some(OsStr::new("incomplete"));
            if !unfinished && !used.contains(&entry.file_name()) {
                fs::remove_file(entry.path()).map_err(|e| Error::io(entry.path(), e))?;
            }
        }
        Ok(())
    }
}

impl CachedModel {
    fn count(&mut self, meta: Option<fs::Metadata>) {
        let Some(meta) = meta.filter(fs::Metadata::is_file) else { return };
        self.bytes += meta.len();
        self.files += 1;
        self.modified = self.modified.max(meta.modified().ok());
    }
}

/// A name that is one component of a path and nothing else.
pub(super) fn is_plain(name: &str) -> bool {
    !name.starts_with('.')
        && (1..=128).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// A file name of a server that stays inside the folder it is joined to, on any system.
pub(super) fn is_inside(file: &str) -> bool {
    let drive = |part: &str| cfg!(windows) && part.contains(':');
    !file.contains(['\\', '\0'])
        && file.split('/').all(|part| !matches!(part, "" | "." | "..") && part.len() <= 255 && !drive(part))
        && file.matches('/').count() < MAX_DEPTH
        && Path::new(file).components().all(|part| matches!(part, Component::Normal(_)))
}

/// The files below a folder, as `a/b` in order; links count where they lead to a file.
pub(super) fn walk(folder: &Path) -> Vec<String> {
    fn visit(folder: &Path, prefix: &str, depth: usize, files: &mut Vec<String>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, Ok(name)) = (entry.path(), entry.file_name().into_string()) else { continue };
            let name = format!("{prefix}{name}");
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if depth < MAX_DEPTH {
                    visit(&path, &format!("{name}/"), depth + 1, files);
                }
            } else if path.is_file() {
                files.push(name);
            }
        }
    }
    let mut files = Vec::new();
    visit(folder, "", 0, &mut files);
    files.sort();
    files
}

/// Creates the folder that a file is to lie in.
pub(super) fn create_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))
}

/// A name beside a file that no other process uses, to be renamed over it.
fn sibling(path: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let unique = format!(".{}.{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    path.with_file_name(unique)
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Bytes of the regular files below a folder, links not followed.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size(&entry.path()),
            Ok(meta) if meta.is_file() => meta.len(),
            _ => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_servers_stay_inside() {
        for good in ["config.json", "1_Pooling/config.json", "a..b", "...", "ü/x y.txt"] {
            assert!(is_inside(good), "{good}");
        }
        for bad in ["", "..", "../x", "a/../../x", "/etc/passwd", "a//b", "a\\..\\b", "./x", "a/", "x\0"] {
            assert!(!is_inside(bad), "{bad}");
        }
        assert!(!is_inside(&"a/".repeat(40)) && !is_inside(&"a".repeat(300)));
    }
}
