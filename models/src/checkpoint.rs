//! A checkpoint as far as it can be read, also one that no decoder here can run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_engine::text::ChatTemplate;
use candle_engine::weights::gguf::Gguf;
use candle_engine::weights::{Format, SafeTensors, Weights};
use candle_engine::{Context, Result};
use candle_engine_quantization::tensors;

use crate::decoder::{family, DecoderConfig};
use crate::hf_config::HfConfig;
use crate::model::{
    builtin_checkpoint, folder_license, folder_stop_tokens, gguf_stop_tokens, gguf_template, hub,
};
use crate::Source;

/// What is known of a checkpoint without running it. Each part that cannot be read says why.
pub struct Checkpoint {
    /// The family by its own name: `model_type`, or `general.architecture`.
    pub family: Option<String>,
    /// What the decoder would be.
    pub config: Result<DecoderConfig>,
    /// The tensors.
    pub weights: Result<Arc<dyn Weights>>,
    /// The chat template, if there is one.
    pub template: Result<Option<ChatTemplate>>,
    /// Tokens that end an answer, as far as the files name them.
    pub stop_tokens: Vec<u32>,
    /// What the model's card says of its licence.
    pub license: Option<String>,
    /// The files it is made of; none for the built-in model.
    pub files: Vec<PathBuf>,
}

impl Checkpoint {
    /// Reads what there is to read.
    ///
    /// Errors: `NotFound` for the built-in model in a build without it; `Io` and `Malformed` for a GGUF file, of which
    /// nothing is known if its header cannot be read; those of the Hub.
    pub fn open(source: &Source) -> Result<Self> {
        match source {
            Source::Builtin => builtin_checkpoint(),
            Source::Folder(dir) => Ok(Self::from_folder(dir, SafeTensors::open(dir), files_of(dir))),
            Source::Safetensors(file) => {
                let dir = file.parent().unwrap_or(Path::new(""));
                Ok(Self::from_folder(dir, SafeTensors::open(file), vec![file.clone()]))
            }
            Source::Gguf(file) => Self::from_gguf(file),
            Source::Ggml(file) => Err(Source::no_language_model(file)),
            Source::Hub(name) => Self::open(&hub(name)?),
        }
    }

    fn from_folder(dir: &Path, weights: Result<SafeTensors>, files: Vec<PathBuf>) -> Self {
        let path = dir.join("config.json");
        let hf = HfConfig::open(&path);
        let read = hf.as_ref().ok();
        Self {
            family: read.and_then(|hf| Some(hf.get("model_type")?.as_str()?.to_owned())),
            stop_tokens: read.and_then(|hf| folder_stop_tokens(dir, hf).ok()).unwrap_or_default(),
            config: hf.and_then(|hf| family::from_hf(&hf).at(path.display())),
            weights: weights.map(|w| Arc::new(w) as Arc<dyn Weights>),
            template: ChatTemplate::from_dir(dir),
            license: folder_license(dir),
            files,
        }
    }

    fn from_gguf(file: &Path) -> Result<Self> {
        let gguf = Gguf::open(file)?;
        let metadata = gguf.metadata();
        Ok(Self {
            family: metadata.str("general.architecture").map(str::to_owned),
            config: family::from_gguf(&gguf).at(file.display()),
            template: gguf_template(metadata),
            stop_tokens: gguf_stop_tokens(&gguf),
            license: metadata.str("general.license").map(str::to_owned),
            files: shards_of(file),
            weights: Ok(Arc::new(gguf)),
        })
    }
}

/// The files of a folder, its subfolders left out, in order.
pub(crate) fn files_of(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// The GGUF files that belong together: `…-00001-of-00003.gguf` and its like.
fn shards_of(first: &Path) -> Vec<PathBuf> {
    let stem = |path: &Path| -> Option<(String, String)> {
        let (rest, count) = path.file_stem()?.to_str()?.rsplit_once("-of-")?;
        Some((rest.rsplit_once('-')?.0.to_owned(), count.to_owned()))
    };
    let Some(wanted) = stem(first) else { return vec![first.to_owned()] };
    let dir = first.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    files_of(dir).into_iter().filter(|path| stem(path).as_ref() == Some(&wanted)).collect()
}

/// The tensors of one format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormatTotal {
    /// The format.
    pub format: Format,
    /// How many tensors.
    pub tensors: usize,
    /// How many numbers.
    pub parameters: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// Counts tensors, numbers and bytes by format, the format with the most bytes first. A matrix and its scales count
/// as one.
pub fn totals(weights: &dyn Weights) -> Vec<FormatTotal> {
    let mut totals: Vec<FormatTotal> = Vec::new();
    for tensor in tensors(weights) {
        let at = totals.iter().position(|t| t.format == tensor.format).unwrap_or_else(|| {
            totals.push(FormatTotal { format: tensor.format, tensors: 0, parameters: 0, bytes: 0 });
            totals.len() - 1
        });
        let total = &mut totals[at];
        total.tensors += 1;
        total.parameters += tensor.shape.iter().map(|&n| n as u64).product::<u64>();
        total.bytes += tensor.bytes;
    }
    totals.sort_by_key(|t| std::cmp::Reverse(t.bytes));
    totals
}
