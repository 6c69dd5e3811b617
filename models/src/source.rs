//! What a user's word for a model means: a folder, a file, the built-in model, or a name on the Hub.

use std::path::{Path, PathBuf};

use candle_engine::weights::ggml;
use candle_engine::{Error, Result};

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Compiled into the program.
    Builtin,
    /// A folder in the Hub's layout, with `config.json` and safetensors.
    Folder(PathBuf),
    /// One safetensors file, with `config.json` beside it.
    Safetensors(PathBuf),
    /// A GGUF file, or the first of several.
    Gguf(PathBuf),
    /// A file of whisper.cpp's, `ggml-tiny.bin` and its like.
    Ggml(PathBuf),
    /// `org/name`, `org/name@revision`, `org/name:QUANT`, `hf://org/name`.
    Hub(String),
}

/// The word for the model that is compiled in.
pub const BUILTIN: &str = "builtin";

impl Source {
    /// Reads the word. What exists on the disk comes before what may exist on the Hub.
    ///
    /// Errors: `NotFound` for a path that is not there, a folder without a model, or a word that is neither.
    pub fn parse(word: &str) -> Result<Self> {
        if word == BUILTIN {
            return Ok(Self::Builtin);
        }
        let path = Path::new(word);
        if path.is_dir() {
            return Self::folder(path);
        }
        if path.is_file() {
            return match path.extension().and_then(|e| e.to_str()) {
                Some("gguf") => Ok(Self::Gguf(path.into())),
                Some("safetensors") => Ok(Self::Safetensors(path.into())),
                // Caches hold blobs without an extension: the first bytes tell.
                _ if starts_with(path, b"GGUF") => Ok(Self::Gguf(path.into())),
                _ if starts_with(path, &ggml::MAGIC) => Ok(Self::Ggml(path.into())),
                _ => Err(Error::malformed(path, "expected a .gguf or .safetensors file, or a folder")),
            };
        }
        if Self::names_the_hub(word) {
            return Ok(Self::Hub(word.into()));
        }
        Err(Error::NotFound {
            what: format!("{word}: no such file or folder, and no Hub name (org/name) either"),
        })
    }

    /// Whether a word that is no path can name a model on the Hub.
    pub fn names_the_hub(word: &str) -> bool {
        let name = word.strip_prefix("hf://").unwrap_or(word);
        let mut parts = name.split(['@', ':']).next().unwrap_or("").split('/');
        let good = |part: Option<&str>| {
            part.is_some_and(|p| {
                !p.is_empty()
                    && !p.starts_with(['.', '-'])
                    && p.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            })
        };
        good(parts.next()) && good(parts.next()) && parts.next().is_none()
    }

    /// Whether a single word on a command line means a model and not a prompt.
    pub fn is_model(word: &str) -> bool {
        word == BUILTIN
            || Path::new(word).exists()
            || [".gguf", ".safetensors"].iter().any(|end| word.ends_with(end))
            || Self::names_the_hub(word)
    }

    /// Why a file of whisper.cpp's is of no use where a language model is wanted.
    pub(crate) fn no_language_model(file: &Path) -> Error {
        Error::malformed(file, "expected a language model, got a Whisper model: `transcribe` runs it")
    }

    fn folder(dir: &Path) -> Result<Self> {
        if dir.join("config.json").is_file() {
            return Ok(Self::Folder(dir.into()));
        }
        let entries = std::fs::read_dir(dir).map_err(|e| Error::io(dir, e))?;
        let mut files: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "gguf"))
            // Of the shards of one file only the first.
            .filter(|path| {
                let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
                !name.contains("-of-") || name.contains("-00001-of-")
            })
            .collect();
        files.sort();
        let list = |files: &[PathBuf]| {
            let names: Vec<_> =
                files.iter().filter_map(|f| f.file_name()).map(|f| f.to_string_lossy()).collect();
            names.join(", ")
        };
        match files.len() {
            1 => Ok(Self::Gguf(files.remove(0))),
            0 => {
                Err(Error::NotFound { what: format!("{}: no config.json and no .gguf file", dir.display()) })
            }
            _ => Err(Error::NotFound { what: format!("{}: name one of {}", dir.display(), list(&files)) }),
        }
    }
}

fn starts_with(path: &Path, magic: &[u8]) -> bool {
    use std::io::Read;
    let mut start = vec![0; magic.len()];
    std::fs::File::open(path).and_then(|mut f| f.read_exact(&mut start)).is_ok() && start == magic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_name_a_model() {
        for word in ["org/name", "hf://org/name@main", "org/name:Q4_K_M", "a.gguf", "builtin"] {
            assert!(Source::is_model(word), "{word}");
        }
        for word in ["Hello", "either/or/both", "/no/such/path", "a b/c", "../x", "and/", "http://x.y"] {
            assert!(!Source::is_model(word), "{word}");
        }
        assert_eq!(Source::parse("org/name").unwrap(), Source::Hub("org/name".into()));
        let error = Source::parse("/no/such/path").unwrap_err().to_string();
        assert!(error.contains("/no/such/path: no such file or folder"), "{error}");
    }
}
