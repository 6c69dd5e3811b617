//! The Hub client against a small Hub on this machine: no network.

mod proxy;
mod server;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_engine::hub::{Hub, HubConfig, Progress, RepoId};
use candle_engine::{Error, ErrorKind};

use server::{content, git_hash, sha256, FakeHub, Reply, COMMIT};

/// A folder that goes when the test does.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("candle-engine-hub-{}-{name}", std::process::id()));
        std::fs::remove_dir_all(&path).ok();
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn hub(url: &str, cache: &Folder) -> Hub {
    Hub::new(HubConfig {
        endpoint: url.into(),
        cache: cache.0.clone(),
        token: Some("hf_secret".into()),
        timeout: Duration::from_secs(2),
        backoff: Duration::from_millis(1),
        ..HubConfig::from_vars(|_| None)
    })
}

fn offline(cache: &Folder) -> Hub {
    let config = hub("http://127.0.0.1:9", cache).config().clone();
    Hub::new(HubConfig { offline: true, ..config })
}

fn repo() -> RepoId {
    RepoId::parse("org/name").unwrap()
}

fn weights() -> Vec<u8> {
    (0..700_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("README.md", b"not wanted".to_vec()),
        ("config.json", b"{}".to_vec()),
        ("model.safetensors", weights()),
        ("tokenizer.json", b"{ }".to_vec()),
    ]
}

fn quiet(_: Progress) {}

fn pull_error(fake: &FakeHub, cache: &Folder) -> Error {
    hub(&fake.hub.url, cache).pull(&repo(), &mut quiet).unwrap_err()
}

fn blobs(cache: &Folder) -> PathBuf {
    cache.0.join("models--org--name/blobs")
}

/// Leaves the first bytes of the weights as an interrupted download would.
fn interrupted(cache: &Folder, bytes: &[u8]) -> PathBuf {
    std::fs::create_dir_all(blobs(cache)).unwrap();
    let path = blobs(cache).join(format!("{}.incomplete", sha256(&weights())));
    std::fs::write(&path, bytes).unwrap();
    path
}

fn assert_whole(dir: &Path) {
    assert_eq!(std::fs::read(dir.join("model.safetensors")).unwrap(), weights());
    assert_eq!(std::fs::read(dir.join("config.json")).unwrap(), b"{}");
}

#[test]
fn a_pull_fills_the_shared_layout() {
    let (fake, cache) = (FakeHub::start(&files()), Folder::new("layout"));
    let hub = hub(&fake.hub.url, &cache);
    assert_eq!(hub.cached(&repo()), None);
    let snapshot = hub.pull(&repo(), &mut quiet).unwrap();
    assert_eq!(snapshot.commit, COMMIT);
    assert_eq!(snapshot.files(), ["config.json", "model.safetensors", "tokenizer.json"]);
    assert_whole(&snapshot.dir);
    let folder = cache.0.join("models--org--name");
    assert_eq!(std::fs::read_to_string(folder.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(snapshot.dir, folder.join("snapshots").join(COMMIT));
    let mut names: Vec<_> = std::fs::read_dir(blobs(&cache))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let mut expected = vec![sha256(&weights()), git_hash(b"{}"), git_hash(b"{ }")];
    expected.sort();
    assert_eq!(names, expected);
    #[cfg(unix)]
    assert_eq!(
        std::fs::read_link(snapshot.dir.join("config.json")).unwrap(),
        Path::new("../../blobs").join(git_hash(b"{}"))
    );
    assert_eq!(hub.model(&repo(), &mut quiet).unwrap(), snapshot.dir);
}

#[test]
fn a_second_pull_downloads_nothing() {
    let (fake, cache) = (FakeHub::start(&files()), Folder::new("second"));
    let hub = hub(&fake.hub.url, &cache);
    let first = hub.pull(&repo(), &mut quiet).unwrap();
    let (requests, downloads) = (fake.hub.log().len(), fake.files.log().len());
    assert_eq!(hub.pull(&repo(), &mut quiet).unwrap(), first);
    assert_eq!((fake.hub.log().len(), fake.files.log().len()), (requests + 1, downloads));
    // And to run a model that is there, nobody is asked.
    hub.model(&repo(), &mut quiet).unwrap();
    assert_eq!(fake.hub.log().len(), requests + 1);
}

#[test]
fn only_the_hub_sees_the_token() {
    let (fake, cache) = (FakeHub::start(&files()), Folder::new("token"));
    hub(&fake.hub.url, &cache).pull(&repo(), &mut quiet).unwrap();
    assert!(fake.hub.log().iter().all(|r| r.header("authorization") == Some("Bearer hf_secret")));
    assert!(!fake.files.log().is_empty());
    assert!(fake.files.log().iter().all(|r| r.header("authorization").is_none()));
}

#[test]
fn nested_files_are_linked_from_their_depth() {
    let (fake, cache) = (FakeHub::start(&[("a/b/c.txt", b"deep".to_vec())]), Folder::new("nested"));
    let hub = hub(&fake.hub.url, &cache);
    let listing = hub.list_files(&repo()).unwrap();
    let snapshot = hub.fetch(&listing, &["a/b/c.txt".into()], &mut quiet).unwrap();
    assert_eq!(std::fs::read(snapshot.dir.join("a/b/c.txt")).unwrap(), b"deep");
}

#[test]
fn a_cut_off_download_is_resumed() {
    let cache = Folder::new("resume");
    let fake = FakeHub::faulty(&files(), |request, nth| {
        let cut = request.path.ends_with("/cdn/model.safetensors") && nth < 3;
        cut.then(|| Reply { cut: Some(200_000), ..content(request, &weights()) })
    });
    let snapshot = hub(&fake.hub.url, &cache).pull(&repo(), &mut quiet).unwrap();
    assert_whole(&snapshot.dir);
    let ranges: Vec<_> = fake.files.log().iter().map(|r| r.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges.len(), 4);
    assert_eq!(ranges[0], None);
    assert_eq!(ranges[3].as_deref(), Some("bytes=600000-"));
}

#[test]
fn an_interrupted_download_is_resumed_by_the_next_process() {
    let (fake, cache) = (FakeHub::start(&files()), Folder::new("next"));
    interrupted(&cache, &weights()[..300_000]);
    let snapshot = hub(&fake.hub.url, &cache).pull(&repo(), &mut quiet).unwrap();
    assert_whole(&snapshot.dir);
    assert_eq!(fake.files.log()[0].header("range"), Some("bytes=300000-"));
    assert!(!blobs(&cache).join(format!("{}.incomplete", sha256(&weights()))).exists());
}

#[test]
fn a_wrong_beginning_is_fetched_again() {
    for wrong in [vec![7; 300_000], vec![7; 700_000], vec![7; 900_000]] {
        let (fake, cache) = (FakeHub::start(&files()), Folder::new("wrong-start"));
        interrupted(&cache, &wrong);
        assert_whole(&hub(&fake.hub.url, &cache).pull(&repo(), &mut quiet).unwrap().dir);
    }
}

#[test]
fn a_server_that_ignores_ranges_starts_over() {
    let cache = Folder::new("no-range");
    let fake = FakeHub::faulty(&files(), |request, _| {
        let ours = request.path.ends_with("/cdn/model.safetensors");
        ours.then(|| Reply { status: 200, body: weights(), ..Reply::default() })
    });
    interrupted(&cache, &weights()[..300_000]);
    assert_whole(&hub(&fake.hub.url, &cache).pull(&repo(), &mut quiet).unwrap().dir);
}

#[test]
fn a_server_that_never_comes_to_the_end_is_given_up() {
    let cache = Folder::new("never");
    let fake = FakeHub::faulty(&files(), |request, _| {
        let ours = request.path.ends_with("/cdn/model.safetensors");
        ours.then(|| Reply { status: 200, body: weights(), cut: Some(1000), ..Reply::default() })
    });
    let error = pull_error(&fake, &cache);
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(
        error.to_string().contains("model.safetensors") && error.to_string().contains("cut off"),
        "{error}"
    );
    assert_eq!(fake.files.log().len(), 6);
}

#[test]
fn wrong_bytes_are_discarded() {
    for file in ["/cdn/model.safetensors", "/config.json"] {
        let cache = Folder::new("hash");
        let fake = FakeHub::faulty(&files(), move |request, _| {
            let ours = request.path.ends_with(file) && request.method == "GET";
            let size = if file.ends_with("json") { 2 } else { weights().len() };
            ours.then(|| Reply { status: 200, body: vec![0; size], ..Reply::default() })
        });
        let error = pull_error(&fake, &cache);
        assert_eq!(error.kind(), ErrorKind::Network);
        assert!(error.to_string().contains("discarded"), "{error}");
        let left = std::fs::read_dir(blobs(&cache)).unwrap().filter_map(Result::ok);
        assert!(left.into_iter().all(|entry| !entry.path().to_string_lossy().ends_with("incomplete")));
        assert_eq!(hub(&fake.hub.url, &cache).cached(&repo()), None);
    }
}

#[test]
fn more_bytes_than_announced_are_refused() {
    let cache = Folder::new("more");
    let fake = FakeHub::faulty(&files(), |request, _| {
        let ours = request.path.ends_with("/cdn/model.safetensors");
        ours.then(|| Reply { status: 200, body: vec![0; 2_000_000], ..Reply::default() })
    });
    assert!(pull_error(&fake, &cache).to_string().contains("more bytes than it announced"));
}

#[test]
fn refusals_say_what_to_do() {
    for (status, kind, word) in [
        (401, ErrorKind::Network, "HF_TOKEN"),
        (403, ErrorKind::Network, "licence"),
        (404, ErrorKind::Load, "org/name at revision main"),
        (418, ErrorKind::Network, "418"),
    ] {
        let cache = Folder::new(&format!("status-{status}"));
        let fake = FakeHub::faulty(&files(), move |_, _| Some(Reply::status(status)));
        let error = pull_error(&fake, &cache);
        assert_eq!(error.kind(), kind, "{status}");
        assert!(error.to_string().contains(word), "{error}");
        assert!(!error.to_string().contains("hf_secret"));
    }
    let cache = Folder::new("file-404");
    let fake =
        FakeHub::faulty(&files(), |r, _| r.path.ends_with("tokenizer.json").then(|| Reply::status(404)));
    let error = pull_error(&fake, &cache).to_string();
    assert!(error.contains("tokenizer.json of org/name at revision main"), "{error}");
}

#[test]
fn a_server_in_trouble_is_asked_again() {
    let cache = Folder::new("retry");
    let fake = FakeHub::faulty(&files(), |_, nth| match nth {
        0 => Some(Reply::status(500)),
        1 => Some(Reply::status(429).with("Retry-After", 3600)),
        _ => None,
    });
    assert_whole(&hub(&fake.hub.url, &cache).pull(&repo(), &mut quiet).unwrap().dir);

    let cache = Folder::new("dead");
    let fake = FakeHub::faulty(&files(), |_, _| Some(Reply::status(503)));
    assert!(pull_error(&fake, &cache).to_string().contains("503"));
    assert_eq!(fake.hub.log().len(), 6);
}

#[test]
fn a_mirror_without_head_and_parameters_will_do() {
    let cache = Folder::new("mirror");
    let fake = FakeHub::faulty(&files(), |request, _| match request.method.as_str() {
        "HEAD" => Some(Reply::status(405)),
        _ if request.path.contains('?') => Some(Reply::status(404)),
        _ => None,
    });
    assert_whole(&hub(&fake.hub.url, &cache).pull(&repo(), &mut quiet).unwrap().dir);
}

#[test]
fn small_files_may_lie_behind_a_redirect_too() {
    let cache = Folder::new("resolve-cache");
    let fake = FakeHub::faulty(&files(), |request, _| match request.path.as_str() {
        path if path.ends_with("/config.json") && path.contains("/resolve/") => Some(
            Reply::status(307).with("Location", "/elsewhere/config").with("ETag", "W/\"of-the-redirect\""),
        ),
        "/elsewhere/config" => Some(content(request, b"{}").with("ETag", format!("\"{}\"", git_hash(b"{}")))),
        _ => None,
    });
    assert_whole(&hub(&fake.hub.url, &cache).pull(&repo(), &mut quiet).unwrap().dir);
    assert!(blobs(&cache).join(git_hash(b"{}")).exists());
}

#[test]
fn redirects_end() {
    let cache = Folder::new("loop");
    let fake = FakeHub::faulty(&files(), |r, _| Some(Reply::status(307).with("Location", r.path.clone())));
    assert!(pull_error(&fake, &cache).to_string().contains("redirects"));
    let fake =
        FakeHub::faulty(&files(), |_, _| Some(Reply::status(307).with("Location", "file:///etc/passwd")));
    assert!(pull_error(&fake, &cache).to_string().contains("redirects to nowhere"));
}

#[test]
fn answers_that_are_nonsense() {
    let cache = Folder::new("nonsense");
    for body in [
        "",
        "[]",
        "{",
        r#"{"siblings":[]}"#,
        r#"{"sha":"../../x","siblings":[]}"#,
        r#"{"sha":"..","siblings":[]}"#,
        r#"{"sha":"ab","siblings":[{"rfilename":3}]}"#,
        r#"{"sha":"ab","siblings":[]}"#,
    ] {
        let fake = FakeHub::faulty(&files(), move |_, _| {
            Some(Reply { status: 200, body: body.as_bytes().to_vec(), ..Reply::default() })
        });
        assert!(hub(&fake.hub.url, &cache).pull(&repo(), &mut quiet).is_err(), "{body}");
    }
    for etag in ["", "..", "../../x", "a/b", "\"\""] {
        let fake = FakeHub::faulty(&files(), move |request, _| {
            (request.method == "HEAD").then(|| Reply::status(200).with("ETag", etag))
        });
        assert!(pull_error(&fake, &cache).to_string().contains("no usable ETag"), "{etag}");
    }
}

#[test]
fn names_of_the_server_stay_in_the_snapshot() {
    let cache = Folder::new("traversal");
    for name in ["../../../evil.txt", "/tmp/evil.txt", "a/../../../../evil.txt", "..\\evil.txt"] {
        let fake = FakeHub::start(&[(name, b"evil".to_vec())]);
        let hub = hub(&fake.hub.url, &cache);
        let listing = hub.list_files(&repo()).unwrap();
        let error = hub.fetch(&listing, &[name.into()], &mut quiet).unwrap_err();
        assert!(error.to_string().contains("outside"), "{error}");
        assert_eq!(std::fs::read_dir(&cache.0).unwrap().count(), 0);
    }
}

#[test]
fn offline_uses_the_cache_or_says_what_is_missing() {
    let (fake, cache) = (FakeHub::start(&files()), Folder::new("offline"));
    let offline = offline(&cache);
    let error = offline.pull(&repo(), &mut quiet).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(
        error.to_string().contains("org/name") && error.to_string().contains("HF_HUB_OFFLINE"),
        "{error}"
    );
    let snapshot = hub(&fake.hub.url, &cache).pull(&repo(), &mut quiet).unwrap();
    assert_eq!(offline.pull(&repo(), &mut quiet).unwrap(), snapshot);
    assert_eq!(offline.model(&repo(), &mut quiet).unwrap(), snapshot.dir);
    std::fs::remove_file(snapshot.dir.join("config.json")).unwrap();
    let error = offline.model(&repo(), &mut quiet).unwrap_err().to_string();
    assert!(error.contains("config.json"), "{error}");
    // With a network, only the missing file is fetched.
    let before = fake.files.log().len();
    hub(&fake.hub.url, &cache).model(&repo(), &mut quiet).unwrap();
    assert_eq!(fake.files.log().len(), before);
}

#[test]
fn a_missing_shard_is_noticed() {
    let index = br#"{"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}}"#.to_vec();
    let shards = [
        ("config.json", b"{}".to_vec()),
        ("model-1.safetensors", vec![1; 9]),
        ("model-2.safetensors", vec![2; 9]),
        ("model.safetensors.index.json", index),
    ];
    let (fake, cache) = (FakeHub::start(&shards), Folder::new("shards"));
    let snapshot = hub(&fake.hub.url, &cache).pull(&repo(), &mut quiet).unwrap();
    assert_eq!(snapshot.model().unwrap(), snapshot.dir);
    std::fs::remove_file(snapshot.dir.join("model-2.safetensors")).unwrap();
    let error = offline(&cache).model(&repo(), &mut quiet).unwrap_err().to_string();
    assert!(error.contains("model-2.safetensors"), "{error}");
}

#[test]
fn a_gguf_by_its_quantization() {
    let files =
        [("config.json", b"{}".to_vec()), ("m-Q4_K_M.gguf", vec![4; 400]), ("m-Q8_0.gguf", vec![8; 800])];
    let (fake, cache) = (FakeHub::start(&files), Folder::new("gguf"));
    let hub = hub(&fake.hub.url, &cache);
    let several = hub.pull(&repo(), &mut quiet).unwrap_err();
    assert!(several.to_string().contains("m-Q8_0"), "{several}");
    let q8 = RepoId::parse("org/name:q8_0").unwrap();
    let path = hub.model(&q8, &mut quiet).unwrap();
    assert!(path.ends_with("m-Q8_0.gguf"));
    assert_eq!(fake.files.count("GET", "m-Q4_K_M.gguf"), 0);
    hub.model(&RepoId::parse("org/name:Q4_K_M").unwrap(), &mut quiet).unwrap();
    assert_eq!(hub.remove(&q8).unwrap(), 800);
    assert!(!path.exists());
    assert!(hub.cached(&repo()).unwrap().files().contains(&"m-Q4_K_M.gguf".to_owned()));
}

#[test]
fn two_pulls_at_once_fetch_once() {
    let cache = Folder::new("both");
    let fake = FakeHub::faulty(&files(), |request, _| {
        let ours = request.path.ends_with("/cdn/model.safetensors");
        ours.then(|| Reply { stall: Duration::from_millis(400), ..content(request, &weights()) })
    });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_whole(&hub(&fake.hub.url, &cache).pull(&repo(), &mut quiet).unwrap().dir));
        }
    });
    assert_eq!(fake.files.count("GET", "model.safetensors"), 1);
}

#[test]
fn progress_adds_up() {
    let (fake, cache) = (FakeHub::start(&files()), Folder::new("progress"));
    interrupted(&cache, &weights()[..300_000]);
    let all = (weights().len() + 2 + 3) as u64;
    for _ in 0..2 {
        let mut last = (0, 0);
        let mut seen = Vec::new();
        let mut listen = |p: Progress| {
            assert!(p.done <= p.size.unwrap() && p.all_done >= p.done);
            assert!((p.index, p.all_done) >= last, "{p:?} after {last:?}");
            assert_eq!((p.files, p.all_size, p.waiting), (3, Some(all), false));
            last = (p.index, p.all_done);
            seen.push((p.file.to_owned(), p.done));
        };
        hub(&fake.hub.url, &cache).pull(&repo(), &mut listen).unwrap();
        assert_eq!(last, (2, all));
        assert!(seen.contains(&("model.safetensors".into(), 700_000)));
    }
}

#[test]
fn a_silent_server_is_left() {
    let cache = Folder::new("silent");
    let fake = FakeHub::faulty(&files(), |request, _| {
        let ours = request.path.ends_with("/cdn/model.safetensors");
        ours.then(|| Reply { stall: Duration::from_secs(60), ..content(request, &weights()) })
    });
    let config = hub(&fake.hub.url, &cache).config().clone();
    let hub = Hub::new(HubConfig { timeout: Duration::from_millis(200), retries: 1, ..config });
    let start = Instant::now();
    let error = hub.pull(&repo(), &mut quiet).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.to_string().to_lowercase().contains("time"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn nobody_there() {
    let cache = Folder::new("nobody");
    let config = hub("http://127.0.0.1:9", &cache).config().clone();
    let (start, patient) = (Instant::now(), HubConfig { backoff: Duration::from_secs(9), ..config });
    let error = Hub::new(patient).pull(&repo(), &mut quiet).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(start.elapsed() < Duration::from_secs(5), "nobody waits to hear that nobody is there");
    let error = hub("ftp://x", &cache).pull(&repo(), &mut quiet).unwrap_err();
    assert!(error.to_string().contains("HF_ENDPOINT"), "{error}");
}

#[test]
fn models_are_listed_and_removed() {
    let (fake, cache) = (FakeHub::start(&files()), Folder::new("list"));
    let hub = hub(&fake.hub.url, &cache);
    assert_eq!(hub.list().unwrap(), []);
    assert!(hub.remove(&repo()).is_err());
    hub.pull(&repo(), &mut quiet).unwrap();
    interrupted(&cache, &[]);
    std::fs::create_dir_all(cache.0.join("datasets--a--b/blobs")).unwrap();
    std::fs::write(blobs(&cache).join("0.incomplete"), [0; 10]).unwrap();
    let [model] = &hub.list().unwrap()[..] else { panic!("one model") };
    assert_eq!(model.repo, repo());
    assert_eq!((model.files, model.unfinished), (3, 10));
    assert_eq!(model.bytes, weights().len() as u64 + 2 + 3 + 10);
    assert_eq!(model.commits[COMMIT], ["main"]);
    assert!(model.modified.unwrap().elapsed().unwrap() < Duration::from_secs(60));
    assert!(hub.remove(&RepoId::parse("org/name@other").unwrap()).is_err());
    assert!(hub.remove(&RepoId::parse("org/name@main").unwrap()).unwrap() >= weights().len() as u64);
    assert_eq!(hub.cached(&repo()), None);
    assert!(hub.remove(&repo()).is_ok());
    assert_eq!(hub.list().unwrap(), []);
    assert!(cache.0.join("datasets--a--b").is_dir());
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let (fake, cache) = (FakeHub::start(&files()), Folder::new("unwritable"));
    // A file where the folder should be: even the superuser cannot create folders below it.
    let path = cache.0.join("file");
    std::fs::write(&path, "").unwrap();
    let config = hub(&fake.hub.url, &cache).config().clone();
    let hub = Hub::new(HubConfig { cache: path.join("hub"), ..config });
    let error = hub.pull(&repo(), &mut quiet).unwrap_err();
    assert!(matches!(&error, Error::Io { path: named, .. } if named.starts_with(&path)), "{error}");
}

#[cfg(unix)]
#[test]
fn a_read_only_cache_is_read_and_not_written() {
    use std::os::unix::fs::PermissionsExt;
    let (fake, cache) = (FakeHub::start(&files()), Folder::new("read-only"));
    let online = hub(&fake.hub.url, &cache);
    let allow = |mode| std::fs::set_permissions(&cache.0, std::fs::Permissions::from_mode(mode)).unwrap();
    allow(0o555);
    if std::fs::write(cache.0.join("probe"), "").is_ok() {
        return allow(0o755); // the superuser writes anywhere
    }
    let refused = online.pull(&repo(), &mut quiet);
    allow(0o755);
    assert!(matches!(refused, Err(Error::Io { .. })));
}
