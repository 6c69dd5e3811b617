//! Where a model folder keeps its chat template.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Error, Result};

/// Units: bytes. The largest published `tokenizer_config.json` files have a few megabytes.
const FILE_LIMIT: u64 = 64 << 20;

/// A template and what it refers to.
pub(super) struct Found {
    /// The file that it was in.
    pub(super) path: PathBuf,
    pub(super) default: String,
    /// Used instead when tools are offered.
    pub(super) tool_use: Option<String>,
    pub(super) tokens: Map<String, Value>,
}

/// The keys of `tokenizer_config.json` that matter here; the others are skipped without being built.
#[derive(Default, Deserialize)]
struct Config {
    chat_template: Option<Templates>,
    bos_token: Option<Token>,
    eos_token: Option<Token>,
    unk_token: Option<Token>,
    sep_token: Option<Token>,
    pad_token: Option<Token>,
    cls_token: Option<Token>,
    mask_token: Option<Token>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Object { content: String },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<Named>),
}

#[derive(Deserialize)]
struct Named {
    name: String,
    template: String,
}

impl Config {
    fn tokens(&mut self) -> Map<String, Value> {
        let all = [
            ("bos_token", self.bos_token.take()),
            ("eos_token", self.eos_token.take()),
            ("unk_token", self.unk_token.take()),
            ("sep_token", self.sep_token.take()),
            ("pad_token", self.pad_token.take()),
            ("cls_token", self.cls_token.take()),
            ("mask_token", self.mask_token.take()),
        ];
        let text = |token| match token {
            Token::Text(text) | Token::Object { content: text } => Value::String(text),
        };
        all.into_iter().filter_map(|(name, token)| Some((name.to_owned(), text(token?)))).collect()
    }
}

/// Looks for a template in `dir`.
pub(super) fn find(dir: &Path) -> Result<Option<Found>> {
    let config_path = dir.join("tokenizer_config.json");
    let mut config: Config = json(&config_path)?.unwrap_or_default();
    let tokens = config.tokens();

    let path = dir.join("chat_template.jinja");
    if let Some(default) = read(&path)? {
        let tool_use = read(&dir.join("additional_chat_templates").join("tool_use.jinja"))?;
        return Ok(Some(Found { path, default, tool_use, tokens }));
    }
    let path = dir.join("chat_template.json");
    let (path, templates) = match json::<Config>(&path)?.and_then(|file| file.chat_template) {
        Some(templates) => (path, templates),
        None => match config.chat_template {
            Some(templates) => (config_path, templates),
            None => return Ok(None),
        },
    };
    let (default, tool_use) = match templates {
        Templates::One(source) => (Some(source), None),
        Templates::Named(list) => {
            let (mut default, mut tool_use) = (None, None);
            for Named { name, template } in list {
                match name.as_str() {
                    "default" => default = Some(template),
                    "tool_use" => tool_use = Some(template),
                    _ => {}
                }
            }
            (default, tool_use)
        }
    };
    match default {
        Some(default) => Ok(Some(Found { path, default, tool_use, tokens })),
        None => Err(Error::malformed(path, "`chat_template` names no template `default`")),
    }
}

fn json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Option<T>> {
    let Some(text) = read(path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|e| Error::malformed(path, e.to_string()))
}

/// A file's text; `None` if there is no such file.
fn read(path: &Path) -> Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(Error::io(path, e)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(Error::malformed(path, format!("has more than {FILE_LIMIT} bytes")));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| Error::malformed(path, "is not UTF-8"))
}
