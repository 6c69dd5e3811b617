//! A small Hub on 127.0.0.1, with a file server beside it, that can be told to misbehave.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha1::Sha1;
use sha2::{Digest, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// An answer, and how it goes wrong.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    pub cut: Option<usize>,
    /// Say nothing for so long after the headers.
    pub stall: Duration,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// A server that logs what it is asked; its threads end with the test process.
pub struct Server {
    pub url: String,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let (handler, shared): (Arc<Handler>, _) = (Arc::new(handler), log.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (handler, log) = (handler.clone(), shared.clone());
                std::thread::spawn(move || serve(stream, &*handler, &log));
            }
        });
        Self { url, log }
    }

    pub fn log(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    /// How many requests there were of a method whose path ends like this.
    pub fn count(&self, method: &str, path: &str) -> usize {
        self.log().iter().filter(|r| r.method == method && r.path.ends_with(path)).count()
    }
}

fn serve(mut stream: TcpStream, handler: &Handler, log: &Mutex<Vec<Request>>) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines().map_while(Result::ok);
    let first = lines.next()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned())))
        .collect();
    let request = Request { method, path, headers };
    let reply = handler(&request);
    log.lock().unwrap().push(request.clone());
    let mut head = format!("HTTP/1.1 {} Whatever\r\nConnection: close\r\n", reply.status);
    if !reply.headers.iter().any(|(name, _)| name == "Content-Length") {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    reply.headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    std::thread::sleep(reply.stall);
    if request.method != "HEAD" {
        stream.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len()).min(reply.body.len())]).ok()?;
    }
    Some(())
}

/// What one misbehaviour sees: the request, and how many like it (method and path) came before.
pub type Fault = dyn Fn(&Request, usize) -> Option<Reply> + Send + Sync;

/// The Hub `url` and its file server, which hold one repository, `org/name`.
pub struct FakeHub {
    pub hub: Server,
    pub files: Server,
}

impl FakeHub {
    pub fn start(repo: &[(&str, Vec<u8>)]) -> Self {
        Self::faulty(repo, |_, _| None)
    }

    pub fn faulty(
        repo: &[(&str, Vec<u8>)],
        fault: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let repo: BTreeMap<String, Vec<u8>> = repo.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
        let (repo, fault): (_, Arc<Fault>) = (Arc::new(repo), Arc::new(fault));
        let guarded = |handler: Box<Handler>| {
            let (fault, seen) = (fault.clone(), Mutex::new(BTreeMap::<String, usize>::new()));
            Server::start(move |request| {
                let key = format!("{} {}", request.method, request.path);
                let nth = {
                    let mut seen = seen.lock().unwrap();
                    let count = seen.entry(key).or_default();
                    *count += 1;
                    *count - 1
                };
                fault(request, nth).unwrap_or_else(|| handler(request))
            })
        };
        let store = repo.clone();
        let files =
            guarded(Box::new(move |request| match store.get(request.path.trim_start_matches("/cdn/")) {
                Some(body) => content(request, body),
                None => Reply::status(404),
            }));
        let cdn = files.url.clone();
        let hub = guarded(Box::new(move |request| answer(request, &repo, &cdn)));
        Self { hub, files }
    }
}

fn answer(request: &Request, repo: &BTreeMap<String, Vec<u8>>, cdn: &str) -> Reply {
    if request.path.starts_with("/api/models/org/name/revision/main") {
        let siblings: Vec<_> =
            repo.iter().map(|(k, v)| serde_json::json!({ "rfilename": k, "size": v.len() })).collect();
        let body = serde_json::json!({ "sha": COMMIT, "siblings": siblings, "unknown": [1] });
        return Reply { status: 200, body: body.to_string().into_bytes(), ..Reply::default() };
    }
    let file = request.path.strip_prefix(&format!("/org/name/resolve/{COMMIT}/")).unwrap_or_default();
    let Some(body) = repo.get(file) else {
        return Reply::status(404).with("X-Error-Message", "Entry not found");
    };
    // Like the Hub: large files lie elsewhere under their SHA-256, small ones here under their Git hash.
    if file.ends_with(".safetensors") || file.ends_with(".gguf") {
        let reply = Reply::status(302).with("Location", format!("{cdn}/cdn/{file}"));
        let reply =
            reply.with("X-Linked-Size", body.len()).with("X-Linked-ETag", format!("\"{}\"", sha256(body)));
        return reply.with("X-Repo-Commit", COMMIT);
    }
    content(request, body).with("ETag", format!("\"{}\"", git_hash(body)))
}

/// The bytes asked for, from where they are asked for.
pub fn content(request: &Request, body: &[u8]) -> Reply {
    let from = request.header("range").map(|range| {
        let range = range.trim_start_matches("bytes=");
        range.split_once('-').unwrap().0.parse::<usize>().unwrap()
    });
    match from {
        None => Reply { status: 200, body: body.to_vec(), ..Reply::default() },
        Some(from) if from >= body.len() => Reply::status(416),
        Some(from) => Reply { status: 206, body: body[from..].to_vec(), ..Reply::default() }
            .with("Content-Range", format!("bytes {from}-{}/{}", body.len() - 1, body.len())),
    }
}

pub fn sha256(body: &[u8]) -> String {
    hex(&Sha256::digest(body))
}

pub fn git_hash(body: &[u8]) -> String {
    hex(&Sha1::new_with_prefix(format!("blob {}\0", body.len())).chain_update(body).finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
