//! Where the Hub is, where its cache lies and how patient to be: the environment that Hub tools share.

use std::path::{Path, PathBuf};
use std::time::Duration;

const ENDPOINT: &str = "https://huggingface.co";

/// The settings of a [`Hub`](super::Hub).
#[derive(Clone)]
pub struct HubConfig {
    /// Address of the Hub or of a mirror, without a final slash.
    pub endpoint: String,
    /// The folder that holds `models--org--name`.
    pub cache: PathBuf,
    /// Access token, sent to the endpoint and to no other host.
    pub token: Option<String>,
    /// Never touch the network.
    pub offline: bool,
    /// The longest silence on a connection; not the longest download.
    pub timeout: Duration,
    /// Attempts after the first that make no progress before a download fails.
    pub retries: u32,
    /// Pause before the first retry; doubles with each, up to 30 times as long.
    pub backoff: Duration,
    /// PEM file of root certificates that replace the built-in ones.
    pub certificates: Option<PathBuf>,
    /// Proxies by scheme.
    pub proxies: Proxies,
    /// Whether the user wants to see progress bars.
    pub progress: bool,
}

/// Proxies as the customary environment variables give them.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// For `https://` addresses.
    pub https: Option<String>,
    /// For `http://` addresses.
    pub http: Option<String>,
    /// Hosts reached directly: `host`, `.domain` or `*`, separated by commas.
    pub except: Option<String>,
}

impl Proxies {
    /// The proxy for an address, if it is to have one.
    pub(super) fn choose(&self, scheme: &str, host: &str) -> Option<&str> {
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        let direct = self.except.iter().flat_map(|list| list.split(',')).map(str::trim).any(|entry| {
            let domain = entry.trim_start_matches('*').trim_start_matches('.').to_ascii_lowercase();
            entry == "*"
                || !domain.is_empty()
                    && host.strip_suffix(&domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        });
        let proxy = if scheme == "https" { &self.https } else { &self.http };
        proxy.as_deref().filter(|_| !direct)
    }
}

impl Default for HubConfig {
    /// The public Hub and the cache under `~/.cache`, whatever the environment says.
    fn default() -> Self {
        Self::from_vars(|name| {
            matches!(name, "HOME" | "USERPROFILE").then(|| std::env::var(name).ok()).flatten()
        })
    }
}

impl HubConfig {
    /// Reads `HF_HOME`, `HF_HUB_CACHE`, `XDG_CACHE_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`,
    /// `HF_HUB_OFFLINE`, `HF_HUB_DOWNLOAD_TIMEOUT`, `HF_HUB_DISABLE_PROGRESS_BARS`,
    /// `HF_HUB_DISABLE_IMPLICIT_TOKEN`, `SSL_CERT_FILE` (or `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE`),
    /// `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`.
    pub fn from_env() -> Self {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    /// The same from any source of variables; an empty one counts as absent.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Self {
        let var = |name: &str| var(name).filter(|value| !value.trim().is_empty());
        let any = |names: &[&str]| names.iter().find_map(|name| var(name));
        let on = |names: &[&str]| any(names).is_some_and(|value| truthy(&value));
        let user = any(&["HOME", "USERPROFILE"]).map(PathBuf::from).unwrap_or_default();
        let path = |value: String| match value.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => user.join(rest.trim_start_matches('/')),
            _ => PathBuf::from(value),
        };

        let home = var("HF_HOME").map(path).unwrap_or_else(|| {
            var("XDG_CACHE_HOME").map_or_else(|| user.join(".cache"), path).join("huggingface")
        });
        let cache = any(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]).map_or_else(|| home.join("hub"), path);
        let token_file = var("HF_TOKEN_PATH").map_or_else(|| home.join("token"), path);
        let token = if on(&["HF_HUB_DISABLE_IMPLICIT_TOKEN"]) {
            None
        } else {
            any(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]).or_else(|| read_token(&token_file))
        };
        let seconds = var("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|value| value.trim().parse::<u32>().ok());
        let endpoint = var("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        let all = any(&["ALL_PROXY", "all_proxy"]);
        Self {
            endpoint: endpoint.trim().trim_end_matches('/').to_owned(),
            cache,
            token: token.map(|token| token.trim().to_owned()),
            offline: on(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]),
            timeout: Duration::from_secs(seconds.filter(|&s| s > 0).unwrap_or(10).into()),
            retries: 5,
            backoff: Duration::from_millis(500),
            certificates: any(&["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]).map(path),
            proxies: Proxies {
                https: any(&["HTTPS_PROXY", "https_proxy"]).or_else(|| all.clone()),
                http: any(&["HTTP_PROXY", "http_proxy"]).or(all),
                except: any(&["NO_PROXY", "no_proxy"]),
            },
            progress: !on(&["HF_HUB_DISABLE_PROGRESS_BARS"]),
        }
    }
}

impl std::fmt::Debug for HubConfig {
    /// Everything but the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubConfig")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

fn truthy(value: &str) -> bool {
    ["1", "true", "yes", "on"].iter().any(|yes| value.trim().eq_ignore_ascii_case(yes))
}

fn read_token(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().filter(|token| !token.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(vars: &[(&str, &str)]) -> HubConfig {
        HubConfig::from_vars(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string()))
    }

    #[test]
    fn the_cache_follows_the_shared_variables() {
        let cache = |vars: &[(&str, &str)]| config(vars).cache.to_string_lossy().replace('\\', "/");
        assert_eq!(cache(&[("HOME", "/u")]), "/u/.cache/huggingface/hub");
        assert_eq!(cache(&[("HOME", "/u"), ("XDG_CACHE_HOME", "/x")]), "/x/huggingface/hub");
        assert_eq!(cache(&[("HOME", "/u"), ("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/x")]), "/u/hf/hub");
        assert_eq!(cache(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/h")]), "/c");
        assert_eq!(cache(&[("HOME", "/u"), ("HF_HOME", "")]), "/u/.cache/huggingface/hub");
    }

    #[test]
    fn switches_and_numbers() {
        for yes in ["1", "true", "YES", "On"] {
            assert!(config(&[("HF_HUB_OFFLINE", yes)]).offline);
        }
        assert!(!config(&[("HF_HUB_OFFLINE", "0")]).offline);
        assert_eq!(config(&[("HF_HUB_DOWNLOAD_TIMEOUT", "3")]).timeout, Duration::from_secs(3));
        assert_eq!(config(&[("HF_HUB_DOWNLOAD_TIMEOUT", "soon")]).timeout, Duration::from_secs(10));
        assert_eq!(config(&[("HF_ENDPOINT", "http://mirror/")]).endpoint, "http://mirror");
        assert!(!config(&[("HF_HUB_DISABLE_PROGRESS_BARS", "1")]).progress);
    }

    #[test]
    fn the_token_is_found_and_not_shown() {
        let folder = std::env::temp_dir().join(format!("hub-token-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("token");
        std::fs::write(&file, "hf_secret\n").unwrap();
        let from_file = config(&[("HF_HOME", folder.to_str().unwrap())]);
        assert_eq!(from_file.token.as_deref(), Some("hf_secret"));
        assert!(!format!("{from_file:?}").contains("secret"));
        let path = file.to_str().unwrap();
        assert_eq!(config(&[("HF_TOKEN_PATH", path)]).token.as_deref(), Some("hf_secret"));
        assert_eq!(config(&[("HF_TOKEN_PATH", path), ("HF_TOKEN", "other")]).token.as_deref(), Some("other"));
        assert_eq!(config(&[("HF_TOKEN_PATH", path), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).token, None);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn proxies_go_by_scheme_and_exception() {
        let proxies =
            config(&[("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", "localhost, .corp.example")]).proxies;
        assert_eq!(proxies.choose("https", "hub.example"), Some("http://p:1"));
        assert_eq!(proxies.choose("http", "hub.example"), None);
        assert_eq!(proxies.choose("https", "LOCALHOST"), None);
        assert_eq!(proxies.choose("https", "git.corp.example"), None);
        assert_eq!(proxies.choose("https", "notcorp.example"), Some("http://p:1"));
        assert_eq!(config(&[("ALL_PROXY", "p"), ("NO_PROXY", "*")]).proxies.choose("https", "a"), None);
    }
}
