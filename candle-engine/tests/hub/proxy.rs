//! Proxies as the environment names them: every connection goes through one, or past it where it should.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use candle_engine::hub::{Hub, HubConfig};
use candle_engine::ErrorKind;

use super::server::FakeHub;
use super::{assert_whole, files, quiet, repo, Folder};

/// A proxy that knows every host as this machine and logs the tunnels that it was asked for.
struct FakeProxy {
    address: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl FakeProxy {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let shared = log.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let log = shared.clone();
                std::thread::spawn(move || tunnel(client, &log));
            }
        });
        Self { address, log }
    }

    /// The requests' first lines, and what they say about who asks.
    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

fn tunnel(mut client: TcpStream, log: &Mutex<Vec<String>>) -> Option<()> {
    // By the byte: what follows the request belongs to the tunnel.
    let mut lines = BufReader::with_capacity(1, client.try_clone().ok()?).lines().map_while(Result::ok);
    let first = lines.next()?;
    let mut headers = lines.take_while(|line| !line.is_empty()).map(|line| line.to_ascii_lowercase());
    let who = headers.by_ref().find(|line| line.starts_with("proxy-authorization"));
    headers.for_each(drop);
    log.lock().unwrap().push(format!("{first} {}", who.unwrap_or_default()));
    let (_, port) = first.split(' ').nth(1)?.rsplit_once(':')?;
    let mut server = TcpStream::connect(("127.0.0.1", port.parse().ok()?)).ok()?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    let (mut from, mut to) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut server, &mut client);
    client.shutdown(Shutdown::Both).ok()
}

/// A Hub at a name that nobody can resolve, at the port of `fake`.
fn unresolvable(fake: &FakeHub, cache: &Folder, vars: &[(&str, String)]) -> Hub {
    let (_, port) = fake.hub.url.rsplit_once(':').unwrap();
    let endpoint = ("HF_ENDPOINT", format!("http://hub.invalid:{port}"));
    let vars: Vec<_> = vars.iter().chain([&endpoint]).collect();
    let var = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
    Hub::new(HubConfig { cache: cache.0.clone(), retries: 0, ..HubConfig::from_vars(var) })
}

#[test]
fn requests_go_through_the_proxy_of_their_scheme() {
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        let (fake, proxy, cache) = (FakeHub::start(&files()), FakeProxy::start(), Folder::new(name));
        let hub = unresolvable(&fake, &cache, &[(name, format!("http://{}", proxy.address))]);
        assert_whole(&hub.pull(&repo(), &mut quiet).unwrap().dir);
        let log = proxy.log();
        assert!(log.iter().any(|line| line.starts_with("CONNECT hub.invalid:")), "{name}: {log:?}");
        assert!(log.iter().any(|line| line.starts_with("CONNECT 127.0.0.1:")), "{name}: {log:?}");
    }
    let (fake, proxy, cache) = (FakeHub::start(&files()), FakeProxy::start(), Folder::new("https"));
    let hub = unresolvable(&fake, &cache, &[("HTTPS_PROXY", format!("http://{}", proxy.address))]);
    assert_eq!(hub.pull(&repo(), &mut quiet).unwrap_err().kind(), ErrorKind::Network);
    assert_eq!(proxy.log(), [""; 0]);
}

#[test]
fn some_hosts_are_reached_directly() {
    let (fake, proxy, cache) = (FakeHub::start(&files()), FakeProxy::start(), Folder::new("direct"));
    let vars = [("HTTP_PROXY", proxy.address.clone()), ("NO_PROXY", "example.com, 127.0.0.1".into())];
    assert_whole(&unresolvable(&fake, &cache, &vars).pull(&repo(), &mut quiet).unwrap().dir);
    let log = proxy.log();
    assert!(!log.is_empty() && log.iter().all(|line| line.starts_with("CONNECT hub.invalid:")), "{log:?}");
}

#[test]
fn the_proxy_learns_the_name_in_its_address_and_not_the_token() {
    let (fake, proxy, cache) = (FakeHub::start(&files()), FakeProxy::start(), Folder::new("name"));
    let vars =
        [("HTTP_PROXY", format!("http://ann:pass@{}", proxy.address)), ("HF_TOKEN", "hf_secret".into())];
    assert_whole(&unresolvable(&fake, &cache, &vars).pull(&repo(), &mut quiet).unwrap().dir);
    // ann:pass in base64, in small letters.
    let basic = "proxy-authorization: basic yw5uonbhc3m=";
    assert!(proxy.log().iter().all(|line| line.ends_with(basic)), "{:?}", proxy.log());
    assert!(fake.hub.log().iter().all(|r| r.header("authorization") == Some("Bearer hf_secret")));
    assert!(fake.hub.log().iter().all(|r| r.header("proxy-authorization").is_none()));
}

#[test]
fn a_proxy_that_is_not_there_is_an_error_of_the_network() {
    let (fake, cache) = (FakeHub::start(&files()), Folder::new("gone"));
    let hub = unresolvable(&fake, &cache, &[("HTTP_PROXY", "http://127.0.0.1:9".into())]);
    assert_eq!(hub.pull(&repo(), &mut quiet).unwrap_err().kind(), ErrorKind::Network);
    let hub = unresolvable(&fake, &cache, &[("HTTP_PROXY", "no address".into())]);
    let error = hub.pull(&repo(), &mut quiet).unwrap_err();
    assert!(error.to_string().contains("proxy"), "{error}");
}
