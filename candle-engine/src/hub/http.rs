//! Requests to the Hub: redirects that do not leak the token, retries that end, answers read as errors.

use std::cell::Cell;
use std::io::ErrorKind;
use std::time::Duration;

use ureq::http::{header, HeaderMap, Method, Request, Response, StatusCode, Uri};
use ureq::{Agent, Body, Proxy};

use crate::{Error, Result};

use super::config::{HubConfig, Proxies};

/// More than any chain of a Hub, its mirrors and their file servers.
const MAX_REDIRECTS: usize = 10;

/// A request that brought no answer: worth another try, or not.
pub(super) enum Failure {
    /// The connection or the server is at fault; perhaps the server said how long to wait.
    Again(Error, Option<Duration>),
    /// The same request would fail again.
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl Failure {
    pub(super) fn again(what: impl Into<String>) -> Self {
        Self::Again(Error::Network(what.into()), None)
    }
}

/// What a request is for.
pub(super) struct Ask<'a> {
    /// Absolute address.
    pub url: String,
    /// The noun of the error messages: a repository, a file of it, a revision.
    pub what: &'a str,
    /// First byte wanted.
    pub from: u64,
    /// Only these many bytes.
    pub length: Option<u64>,
}

pub(super) struct Client {
    agent: Agent,
    origin: Option<Origin>,
    token: Option<String>,
    proxies: Proxies,
    retries: u32,
    backoff: Duration,
    timeout: Duration,
    /// Whether there was ever an answer: only then is a network that is gone likely to come back.
    reached: Cell<bool>,
}

type Origin = (String, String, u16);

impl Client {
    pub(super) fn new(config: &HubConfig) -> Result<Self> {
        let endpoint: Uri = config.endpoint.parse().map_err(|_| bad_endpoint(&config.endpoint))?;
        let origin = origin(&endpoint).ok_or_else(|| bad_endpoint(&config.endpoint))?;
        let timeout = Some(config.timeout);
        let agent = Agent::config_builder()
            .tls_config(super::tls::config(config.certificates.as_deref())?)
            .user_agent(concat!("candle-engine/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(timeout)
            .timeout_connect(timeout)
            .timeout_recv_response(timeout)
            .timeout_per_read(timeout)
            .timeout_per_write(timeout)
            .proxy(None)
            .build()
            .new_agent();
        Ok(Self {
            agent,
            origin: Some(origin),
            token: config.token.clone(),
            proxies: config.proxies.clone(),
            retries: config.retries,
            backoff: config.backoff,
            timeout: config.timeout,
            reached: Cell::new(false),
        })
    }

    /// A whole small document.
    pub(super) fn document(&self, ask: &Ask, limit: u64) -> Result<Vec<u8>> {
        let patience = self.timeout * 6;
        self.retry(|| {
            let (reply, _) = self.send(Method::GET, ask, Some(patience))?;
            let body = reply.into_body().into_with_config().limit(limit).read_to_vec();
            body.map_err(|e| Failure::again(format!("{}: {e}", ask.what)))
        })
    }

    /// One request with its redirects: the answer, and the headers of all hops in their order.
    ///
    /// Errors: by status, see [`refusal`]; 416 is an answer.
    pub(super) fn send(
        &self,
        method: Method,
        ask: &Ask,
        patience: Option<Duration>,
    ) -> Result<(Response<Body>, Vec<HeaderMap>), Failure> {
        let mut url: Uri =
            ask.url.parse().map_err(|_| Error::Network(format!("{}: bad address {}", ask.what, ask.url)))?;
        let mut hops = Vec::new();
        // Once a redirect has left the Hub's origin, nothing that follows is trusted with the token.
        let mut trusted = true;
        for _ in 0..=MAX_REDIRECTS {
            trusted &= origin(&url) == self.origin;
            let reply = self.hop(&method, &url, ask, trusted, patience)?;
            hops.push(reply.headers().clone());
            if !reply.status().is_redirection() || reply.status() == StatusCode::NOT_MODIFIED {
                return match refusal(&reply, ask.what) {
                    Some(failure) => Err(failure),
                    None => Ok((reply, hops)),
                };
            }
            let target = text(reply.headers(), header::LOCATION.as_str()).and_then(|to| join(&url, to));
            let Some(target) = target else {
                return Err(Error::Network(format!("{}: {url} redirects to nowhere", ask.what)).into());
            };
            if url.scheme_str() == Some("https") && target.scheme_str() != Some("https") {
                let what = format!("{}: redirected from https to {target}, refused", ask.what);
                return Err(Error::Network(what).into());
            }
            // A file server has no names for what the Hub already told.
            if method == Method::HEAD && origin(&target) != self.origin && names_blob(&hops, reply.headers())
            {
                return Ok((reply, hops));
            }
            url = target;
        }
        Err(Error::Network(format!("{}: more than {MAX_REDIRECTS} redirects", ask.what)).into())
    }

    fn hop(
        &self,
        method: &Method,
        url: &Uri,
        ask: &Ask,
        trusted: bool,
        patience: Option<Duration>,
    ) -> Result<Response<Body>, Failure> {
        let mut request = Request::builder().method(method).uri(url);
        if let (true, Some(token)) = (trusted, &self.token) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        match ask.length {
            Some(n) => {
                request = request.header(header::RANGE, format!("bytes={}-{}", ask.from, ask.from + n - 1))
            }
            None if ask.from > 0 => request = request.header(header::RANGE, format!("bytes={}-", ask.from)),
            None => {}
        }
        let request = request.body(()).map_err(|_| {
            Error::Input("the token in HF_TOKEN is no token: it does not fit a header".into())
        })?;
        let proxy = match (url.scheme_str(), url.host()) {
            (Some(scheme), Some(host)) => self.proxies.choose(scheme, host),
            _ => None,
        };
        let proxy = match proxy {
            Some(proxy) => {
                Some(Proxy::new(proxy).map_err(|_| Error::Input("the proxy's address is not valid".into()))?)
            }
            None => None,
        };
        let request = self.agent.configure_request(request).proxy(proxy).timeout_recv_body(patience).build();
        match self.agent.run(request) {
            Ok(reply) => {
                self.reached.set(true);
                Ok(reply)
            }
            Err(error) => {
                let host = url.host().unwrap_or("?");
                let what = Error::Network(format!("{}: {host}: {}", ask.what, explain(&error)));
                Err(if self.may_pass(&error) { Failure::Again(what, None) } else { Failure::Final(what) })
            }
        }
    }

    /// Whether the same request may have an answer a little later. A Hub that was never reached is more
    /// likely out of reach, and nobody wants to wait to hear that.
    fn may_pass(&self, error: &ureq::Error) -> bool {
        use ureq::Timeout::{Connect, Resolve};
        match error {
            ureq::Error::Io(e) => match e.kind() {
                ErrorKind::InvalidData => false, // a certificate that does not convince
                ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
                | ErrorKind::UnexpectedEof
                | ErrorKind::TimedOut
                | ErrorKind::WouldBlock => true,
                _ => self.reached.get(),
            },
            ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Timeout(Connect | Resolve) => self.reached.get(),
            ureq::Error::Timeout(_) | ureq::Error::Protocol(_) => true,
            _ => false,
        }
    }

    /// Tries, waits longer each time, gives up with the last error.
    pub(super) fn retry<T>(&self, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T> {
        let mut tries = Tries::new(self);
        loop {
            match attempt() {
                Ok(answer) => return Ok(answer),
                Err(failure) => tries.pause(failure)?,
            }
        }
    }
}

/// Attempts that have failed in a row.
pub(super) struct Tries<'a> {
    client: &'a Client,
    failed: u32,
}

impl<'a> Tries<'a> {
    pub(super) fn new(client: &'a Client) -> Self {
        Self { client, failed: 0 }
    }

    /// There was progress since the last failure.
    pub(super) fn reset(&mut self) {
        self.failed = 0;
    }

    /// Waits before the next attempt, or returns the error when there shall be none.
    pub(super) fn pause(&mut self, failure: Failure) -> Result<()> {
        let (error, asked) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Again(error, asked) => (error, asked),
        };
        if self.failed >= self.client.retries {
            return Err(error);
        }
        let longest = self.client.backoff * 30;
        let pause = self.client.backoff * 2u32.saturating_pow(self.failed);
        std::thread::sleep(pause.max(asked.unwrap_or_default()).min(longest));
        self.failed += 1;
        Ok(())
    }
}

/// The error that an answer stands for, if it is one.
fn refusal(reply: &Response<Body>, what: &str) -> Option<Failure> {
    let status = reply.status();
    let said = text(reply.headers(), "x-error-message").map(|said| {
        let plain: String = said.chars().filter(|c| !c.is_control()).take(200).collect();
        format!(" ({plain})")
    });
    let said = said.unwrap_or_default();
    Some(match status.as_u16() {
        200..=299 | 416 => return None,
        code @ (401 | 403) => Failure::Final(Error::Network(format!(
            "{what}: access denied, HTTP {code}{said}: no such model, or it is private or gated; accept its \
             licence on the Hub and set HF_TOKEN"
        ))),
        404 | 410 => Failure::Final(Error::NotFound { what: format!("{what}: not found on the Hub{said}") }),
        code @ (408 | 425 | 429 | 500..=599) => {
            let asked = text(reply.headers(), "retry-after").and_then(|s| s.parse().ok());
            let error = Error::Network(format!("{what}: the server answered HTTP {code}{said}"));
            Failure::Again(error, asked.map(Duration::from_secs))
        }
        code => Failure::Final(Error::Network(format!("{what}: unexpected HTTP {code}{said}"))),
    })
}

/// A header as text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn names_blob(hops: &[HeaderMap], last: &HeaderMap) -> bool {
    last.contains_key(header::ETAG) || hops.iter().any(|hop| hop.contains_key("x-linked-etag"))
}

fn explain(error: &ureq::Error) -> String {
    match error {
        ureq::Error::HostNotFound => "no such host; is there a network?".into(),
        ureq::Error::Timeout(_) => "timed out (HF_HUB_DOWNLOAD_TIMEOUT sets the seconds)".into(),
        ureq::Error::Io(e) if e.kind() == ErrorKind::InvalidData => {
            format!("{e} (SSL_CERT_FILE names other root certificates)")
        }
        ureq::Error::Io(e) => e.to_string(),
        other => other.to_string(),
    }
}

fn bad_endpoint(endpoint: &str) -> Error {
    Error::Input(format!("the endpoint `{endpoint}` (HF_ENDPOINT) is no http or https address"))
}

/// Scheme, host and port: who would see a token.
fn origin(url: &Uri) -> Option<Origin> {
    let scheme = url.scheme_str()?.to_ascii_lowercase();
    let default = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    Some((scheme, url.host()?.to_ascii_lowercase(), url.port_u16().unwrap_or(default)))
}

/// Where a `Location` header leads.
fn join(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let target = if location.contains("://") && !location.starts_with('/') {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    target.parse().ok().filter(|uri| origin(uri).is_some())
}

/// A text as one segment, or with `/` kept as several segments, of an address.
pub(super) fn escape(text: &str, keep_slash: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            b'/' if keep_slash => out.push('/'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_joined() {
        let base: Uri = "https://hub.example:8443/a/b/c?x=1".parse().unwrap();
        let to = |location| join(&base, location).map(|uri| uri.to_string());
        assert_eq!(to("/d/e?f=1").as_deref(), Some("https://hub.example:8443/d/e?f=1"));
        assert_eq!(to("http://cdn.example/x").as_deref(), Some("http://cdn.example/x"));
        assert_eq!(to("//cdn.example/x").as_deref(), Some("https://cdn.example/x"));
        assert_eq!(to("d").as_deref(), Some("https://hub.example:8443/a/b/d"));
        assert_eq!(to("/d?u=http://x/y").as_deref(), Some("https://hub.example:8443/d?u=http://x/y"));
        assert_eq!(to("file:///etc/passwd"), None);
    }

    #[test]
    fn origins_differ_by_scheme_host_and_port() {
        let of = |url: &str| origin(&url.parse().unwrap());
        assert_eq!(of("https://Hub.example/a"), of("https://hub.example:443/b"));
        assert_ne!(of("https://hub.example"), of("http://hub.example"));
        assert_ne!(of("http://127.0.0.1:1"), of("http://127.0.0.1:2"));
    }

    #[test]
    fn addresses_are_escaped() {
        assert_eq!(escape("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(escape("a b/ü?.txt", true), "a%20b/%C3%BC%3F.txt");
    }
}
