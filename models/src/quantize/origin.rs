//! A model that is about to be converted: weights, configuration, and the files beside them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_engine::weights::{Gguf, SafeTensors, Weights};
use candle_engine::{Context, Error, Result};
use serde_json::{Map, Value};

use crate::checkpoint::files_of;
use crate::decoder::{family, DecoderConfig, TensorNames, GGUF, HF};
use crate::hf_config::HfConfig;
use crate::model::hub;
use crate::Source;

/// What a model is converted from.
pub struct Origin {
    /// The tensors.
    pub weights: Arc<dyn Weights>,
    /// What the decoder is.
    pub config: DecoderConfig,
    pub(crate) json: Map<String, Value>,
    /// The file, if it is one of GGUF.
    pub(crate) gguf: Option<Arc<Gguf>>,
    pub(crate) files: Vec<Beside>,
}

/// A file that goes with the weights.
#[derive(Debug, Clone)]
pub(crate) enum Beside {
    File(PathBuf),
    /// Compiled in, with its name.
    #[cfg(feature = "builtin")]
    Constant(&'static str, &'static [u8]),
}

/// Endings of files that hold weights, in any framework.
const WEIGHTS: &[&str] =
    &["safetensors", "bin", "pt", "pth", "gguf", "onnx", "h5", "msgpack", "ckpt", "ot", "index.json"];

/// The files that go with the weights of a folder.
pub(super) fn beside(dir: &Path) -> Vec<Beside> {
    let is_beside = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or(".");
        name != "config.json"
            && !name.starts_with('.')
            && !WEIGHTS.iter().any(|end| name.ends_with(&format!(".{end}")))
    };
    files_of(dir).into_iter().filter(is_beside).map(Beside::File).collect()
}

impl Origin {
    /// Opens a folder, a safetensors or GGUF file, or the built-in model.
    ///
    /// Errors: `Io`, `Malformed` and `Config` naming file and key.
    pub fn open(source: &Source) -> Result<Self> {
        match source {
            Source::Builtin => Self::builtin(),
            Source::Folder(dir) => Self::from_folder(dir, SafeTensors::open(dir)?),
            Source::Safetensors(file) => {
                let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
                Self::from_folder(dir, SafeTensors::open(file)?)
            }
            Source::Gguf(file) => {
                let gguf = Arc::new(Gguf::open(file)?);
                Ok(Self {
                    config: family::from_gguf(&gguf).at(file.display())?,
                    weights: gguf.clone(),
                    json: Map::new(),
                    gguf: Some(gguf),
                    files: Vec::new(),
                })
            }
            Source::Ggml(file) => Err(Source::no_language_model(file)),
            Source::Hub(name) => Self::open(&hub(name)?),
        }
    }

    #[cfg(feature = "builtin")]
    fn builtin() -> Result<Self> {
        let (config, weights, files) = crate::builtin::files()?;
        let files = files.iter().map(|(name, bytes)| Beside::Constant(name, bytes)).collect();
        Self::new("builtin".as_ref(), config, weights, files)
    }

    #[cfg(not(feature = "builtin"))]
    fn builtin() -> Result<Self> {
        Err(crate::model::no_builtin())
    }

    fn from_folder(dir: &Path, weights: SafeTensors) -> Result<Self> {
        let path = dir.join("config.json");
        let config = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
        Self::new(&path, &config, weights, beside(dir))
    }

    fn new(path: &Path, config: &[u8], weights: SafeTensors, files: Vec<Beside>) -> Result<Self> {
        let json: Map<String, Value> =
            serde_json::from_slice(config).map_err(|e| Error::malformed(path, e.to_string()))?;
        let config = family::from_hf(&HfConfig::from_map(json.clone())).at(path.display())?;
        Ok(Self { weights: Arc::new(weights), config, json, gguf: None, files })
    }

    /// Names of its tensors.
    pub fn names(&self) -> &'static TensorNames {
        if self.gguf.is_some() {
            &GGUF
        } else {
            &HF
        }
    }

    /// The content of a file beside the weights.
    pub(crate) fn read(&self, wanted: &str) -> Option<Result<Vec<u8>>> {
        self.files.iter().find_map(|file| match file {
            #[cfg(feature = "builtin")]
            Beside::Constant(name, bytes) if *name == wanted => Some(Ok(bytes.to_vec())),
            Beside::File(path) if path.file_name().is_some_and(|name| name == wanted) => {
                Some(std::fs::read(path).map_err(|e| Error::io(path, e)))
            }
            _ => None,
        })
    }
}
