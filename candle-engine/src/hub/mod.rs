//! Models by name: the Hub's downloads in the cache that every Hub tool shares.
//!
//! [`Hub::model`] is what a program wants: the local path of a model, fetched only if it has to be.
//! The cache is laid out as `huggingface_hub` lays it out, so either finds what the other fetched.

mod cache;
mod config;
mod download;
mod http;
mod repo;
mod select;
mod tls;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Error, Result};

pub use self::cache::CachedModel;
pub use self::config::{HubConfig, Proxies};
pub use self::repo::RepoId;
pub use self::select::model_files;

use self::cache::Cache;
use self::download::Download;
use self::http::{Ask, Client};

/// The longest list of files that is read: far more than any model has.
const MAX_LISTING: u64 = 64 << 20;

/// The Hub and its cache.
///
/// ```no_run
/// use candle_engine::hub::{Hub, HubConfig, RepoId};
///
/// let hub = Hub::new(HubConfig::from_env());
/// let repo = RepoId::parse("HuggingFaceTB/SmolLM2-135M-Instruct")?;
/// let folder = hub.model(&repo, &mut |p| eprintln!("{}: {} bytes", p.file, p.done))?;
/// # Ok::<(), candle_engine::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Hub {
    config: HubConfig,
}

/// A commit of a repository in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// What was asked for.
    pub repo: RepoId,
    /// The commit it was.
    pub commit: String,
    /// The folder with the commit's files, as far as they were fetched.
    pub dir: PathBuf,
}

/// A commit of a repository on the Hub.
#[derive(Debug, Clone)]
pub struct Listing {
    /// What was asked for.
    pub repo: RepoId,
    /// The commit that the revision means now.
    pub commit: String,
    /// All its files, with their bytes where the Hub tells.
    pub files: Vec<(String, Option<u64>)>,
}

/// How far a download is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The file being fetched.
    pub file: &'a str,
    /// Its number, from 0.
    pub index: usize,
    /// Files in all.
    pub files: usize,
    /// Bytes of this file that have arrived, in earlier attempts too.
    pub done: u64,
    /// Bytes of this file, where the Hub tells.
    pub size: Option<u64>,
    /// Bytes of all files that have arrived.
    pub all_done: u64,
    /// Bytes of all files, where the Hub tells.
    pub all_size: Option<u64>,
    /// Another process is fetching this file, and this one waits for it.
    pub waiting: bool,
}

/// What the Hub's API says of a revision, as far as it is used.
#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
}

impl Hub {
    /// A Hub with these settings; nothing is contacted or created yet.
    pub fn new(config: HubConfig) -> Self {
        Self { config }
    }

    /// Its settings.
    pub fn config(&self) -> &HubConfig {
        &self.config
    }

    /// The local path of a model: its folder, or its GGUF file. From the cache where it is complete there,
    /// without a look at the network; otherwise fetched.
    ///
    /// Errors: those of [`Hub::pull`].
    pub fn model(&self, repo: &RepoId, progress: &mut dyn FnMut(Progress)) -> Result<PathBuf> {
        match self.cached(repo).map(|snapshot| snapshot.model()) {
            Some(Ok(path)) => Ok(path),
            _ => self.pull(repo, progress)?.model(),
        }
    }

    /// What the cache has of a model, complete or not; no network.
    pub fn cached(&self, repo: &RepoId) -> Option<Snapshot> {
        let cache = self.cache();
        let commit = cache.commit(repo)?;
        Some(Snapshot { repo: repo.clone(), dir: cache.snapshot(repo, &commit), commit })
    }

    /// Fetches what [`model_files`] names, as far as the cache does not have it, and so brings the model up
    /// to date. Offline, the cached model will do.
    ///
    /// Errors: `Network` for a connection or server that fails, for access denied, and offline for a model that
    /// is not complete in the cache; `NotFound` for a model, revision or file that the Hub does not have;
    /// `Input` for several GGUF files to choose from; `Io` for a cache that cannot be written.
    pub fn pull(&self, repo: &RepoId, progress: &mut dyn FnMut(Progress)) -> Result<Snapshot> {
        if self.config.offline {
            return self.offline(repo);
        }
        let listing = self.list_files(repo)?;
        let names: Vec<String> = listing.files.iter().map(|(name, _)| name.clone()).collect();
        self.fetch(&listing, &model_files(repo, &names)?, progress)
    }

    fn offline(&self, repo: &RepoId) -> Result<Snapshot> {
        let why = "HF_HUB_OFFLINE forbids to fetch it";
        let cache = self.config.cache.display();
        let snapshot = self
            .cached(repo)
            .ok_or_else(|| Error::Network(format!("{repo} is not in {cache}, and {why}")))?;
        match snapshot.model() {
            Ok(_) => Ok(snapshot),
            Err(missing) => {
                Err(Error::Network(format!("{repo} is not complete in the cache, and {why}: {missing}")))
            }
        }
    }

    /// Asks the Hub which files a revision has.
    ///
    /// Errors: `Network`, `NotFound`.
    pub fn list_files(&self, repo: &RepoId) -> Result<Listing> {
        self.list_with(&self.client()?, repo)
    }

    fn list_with(&self, client: &Client, repo: &RepoId) -> Result<Listing> {
        let what = format!("{} at revision {}", repo.name, repo.revision());
        let revision = http::escape(repo.revision(), false);
        let url = format!("{}/api/models/{}/revision/{revision}", self.config.endpoint, repo.name);
        let ask = |url| client.document(&Ask { url, what: &what, from: 0, length: None }, MAX_LISTING);
        // Not every mirror takes the parameter that asks for the sizes.
        let body = match ask(format!("{url}?blobs=true")) {
            Err(Error::NotFound { .. }) => ask(url)?,
            answer => answer?,
        };
        let info: Info = serde_json::from_slice(&body)
            .map_err(|e| Error::Network(format!("{what}: the server's answer is no list of files: {e}")))?;
        if !cache::is_plain(&info.sha) {
            return Err(Error::Network(format!("{what}: the server names no usable commit: `{}`", info.sha)));
        }
        let files = info.siblings.into_iter().map(|file| (file.rfilename, file.size)).collect();
        Ok(Listing { repo: repo.clone(), commit: info.sha, files })
    }

    /// Fetches files of a commit, as far as the cache does not have them.
    ///
    /// Errors: those of [`Hub::pull`]; `Network` too for a name that would leave the snapshot's folder.
    pub fn fetch(
        &self,
        listing: &Listing,
        want: &[String],
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Snapshot> {
        let (repo, commit) = (&listing.repo, &listing.commit);
        if let Some(file) = want.iter().find(|file| !cache::is_inside(file)) {
            return Err(Error::Network(format!(
                "{repo}: the server names a file outside of its folder: `{file}`"
            )));
        }
        let client = self.client()?;
        let cache = self.cache();
        let dir = cache.snapshot(repo, commit);
        cache.tag()?;
        let sizes =
            want.iter().map(|file| listing.files.iter().find(|(name, _)| name == file).and_then(|(_, n)| *n));
        let all_size = sizes.sum::<Option<u64>>();
        let mut before = 0;
        for (index, file) in want.iter().enumerate() {
            let mut report = |done, size, waiting| {
                let all_done = before + done;
                progress(Progress {
                    file,
                    index,
                    files: want.len(),
                    done,
                    size,
                    all_done,
                    all_size,
                    waiting,
                });
            };
            // A commit never changes: a file of it that is there is right.
            if let Ok(meta) = std::fs::metadata(dir.join(file)) {
                report(meta.len(), Some(meta.len()), false);
                before += meta.len();
                continue;
            }
            let path = http::escape(file, true);
            let url = format!("{}/{}/resolve/{commit}/{path}", self.config.endpoint, repo.name);
            let what = format!("{file} of {} at revision {}", repo.name, repo.revision());
            let (etag, size) =
                Download { client: &client, cache: &cache, repo, url, what }.run(&mut report)?;
            cache.point(repo, commit, file, &etag)?;
            before += size;
        }
        // The name comes last, so that a model found by name is one whose download came to its end.
        cache.set_commit(repo, commit)?;
        Ok(Snapshot { repo: repo.clone(), commit: commit.clone(), dir })
    }

    /// The models in the cache.
    ///
    /// Errors: `Io` where the cache exists but cannot be read.
    pub fn list(&self) -> Result<Vec<CachedModel>> {
        self.cache().list()
    }

    /// Deletes a model from the cache: all of it, or with `@revision` one revision, or with `:QUANT` one GGUF.
    /// Returns the bytes that this freed.
    ///
    /// Errors: `NotFound`, `Io`.
    pub fn remove(&self, repo: &RepoId) -> Result<u64> {
        self.cache().remove(repo)
    }

    fn cache(&self) -> Cache {
        Cache { root: self.config.cache.clone() }
    }

    fn client(&self) -> Result<Client> {
        if self.config.offline {
            return Err(Error::Network("HF_HUB_OFFLINE forbids to use the network".into()));
        }
        Client::new(&self.config)
    }
}

impl Snapshot {
    /// The files that are there, as `a/b`, in order.
    pub fn files(&self) -> Vec<String> {
        cache::walk(&self.dir)
    }

    /// The path to open: the folder, or the GGUF file (its first part, if it has several).
    ///
    /// Errors: `NotFound` naming the file that is missing; `Input` for several GGUF files to choose from.
    pub fn model(&self) -> Result<PathBuf> {
        let files = self.files();
        let wanted = model_files(&self.repo, &files)?;
        if let Some(gguf) = wanted.iter().find(|file| file.ends_with(".gguf")) {
            return Ok(self.dir.join(gguf));
        }
        let present: BTreeSet<&str> = files.iter().map(String::as_str).collect();
        let mut needed = vec!["config.json".to_owned()];
        for index in wanted.iter().filter(|file| file.ends_with(".safetensors.index.json")) {
            needed.extend(shards(&self.dir.join(index))?);
        }
        match needed.iter().find(|file| !present.contains(file.as_str())) {
            Some(missing) => {
                Err(Error::NotFound { what: format!("{missing} is not in {}", self.dir.display()) })
            }
            None => Ok(self.dir.clone()),
        }
    }
}

/// The files that an index spreads its tensors over.
fn shards(index: &Path) -> Result<BTreeSet<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let text = std::fs::read(index).map_err(|e| Error::io(index, e))?;
    let index: Index = serde_json::from_slice(&text).map_err(|e| Error::malformed(index, e.to_string()))?;
    Ok(index.weight_map.into_values().collect())
}
