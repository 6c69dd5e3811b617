//! A model that is ready to use: decoder, tokenizer, chat template, and when to stop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::{DType, Device};
use candle_engine::kv::KvType;
use candle_engine::ops::Exec;
use candle_engine::session::{GenerateOptions, Generation, Session};
use candle_engine::text::{ChatTemplate, Message, Tokenizer};
use candle_engine::weights::gguf::{Gguf, Metadata};
use candle_engine::weights::{Format, SafeTensors, Weights};
use candle_engine::{Context, Error, Result};
use candle_engine_quantization::compressed_tensors::Activations;
use candle_engine_quantization::{tensors, Loader, Observer};

use crate::checkpoint::{totals, Checkpoint, FormatTotal};
use crate::decoder::{family, Decoder, DecoderConfig, TensorNames, GGUF, HF};
use crate::hf_config::HfConfig;
use crate::quantize::{in_memory, InMemory, Recipe};
use crate::Source;

/// How to load a model.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Where it runs.
    pub device: Device,
    /// Number format of the KV cache; `None` takes f32 for f32 weights and f16 for all others.
    pub kv: Option<KvType>,
    /// Runs ops composed of candle's own even where a kernel exists: for comparisons.
    pub composed: bool,
    /// Quantizes the weights while they are loaded; they are then in memory and no longer mapped.
    pub quantize: Option<Recipe>,
    /// Takes down what goes into the matrices.
    pub observer: Option<Observer>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { device: Device::Cpu, kv: None, composed: false, quantize: None, observer: None }
    }
}

/// A model with everything that belongs to it.
///
/// ```
/// use candle_engine_models::{LoadOptions, Model};
///
/// # fn main() -> candle_engine_models::Result<()> {
/// # #[cfg(feature = "builtin")] {
/// let model = Model::open("builtin", &LoadOptions::default())?;
/// let ids = model.encode("Once upon a time")?;
/// let mut session = model.session();
/// assert_eq!(session.feed(&ids)?.len(), model.tokenizer()?.vocab_size());
/// # }
/// # Ok(())
/// # }
/// ```
pub struct Model {
    name: String,
    decoder: Arc<Decoder>,
    weights: Arc<dyn Weights>,
    tokenizer: Result<Tokenizer, Arc<Error>>,
    template: Result<Option<ChatTemplate>, Arc<Error>>,
    stop_tokens: Vec<u32>,
    license: Option<String>,
    load_time: Duration,
}

/// What a container holds, before the decoder is built on it.
pub(crate) struct Parts {
    pub config: DecoderConfig,
    pub names: &'static TensorNames,
    pub weights: Arc<dyn Weights>,
    pub activations: Activations,
    /// Stop tokens that the configuration files name.
    pub stop_tokens: Vec<u32>,
    pub license: Option<String>,
}

/// What text needs: read beside the weights, because a large vocabulary takes longer than they do.
pub(crate) struct TextParts {
    pub tokenizer: Result<Tokenizer>,
    pub template: Result<Option<ChatTemplate>>,
}

impl Model {
    /// Opens a model by path, by name on the Hub, or as `builtin`.
    ///
    /// Errors: `NotFound`, `Io`, `Malformed`, `Config`, `MissingTensor`, `ShapeMismatch`, each naming the file, key
    /// or tensor; `Network` for the Hub. A model without a tokenizer opens; only its text is an error.
    pub fn open(word: &str, options: &LoadOptions) -> Result<Self> {
        Self::from_source(&Source::parse(word)?, options)
    }

    /// Opens a model whose place is known.
    ///
    /// Errors: as [`Self::open`].
    pub fn from_source(source: &Source, options: &LoadOptions) -> Result<Self> {
        let start = Instant::now();
        match source {
            Source::Builtin => builtin(options, start),
            Source::Folder(dir) => Self::from_folder(dir, || SafeTensors::open(dir), options, start),
            Source::Safetensors(file) => {
                let dir = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                Self::from_folder(dir, || SafeTensors::open(file), options, start)
            }
            Source::Gguf(file) => {
                let gguf = Arc::new(Gguf::open(file)?);
                let text = || TextParts {
                    tokenizer: Tokenizer::from_gguf(gguf.metadata()),
                    template: gguf_template(gguf.metadata()),
                };
                let parts = || {
                    Ok(Parts {
                        config: family::from_gguf(&gguf).at(file.display())?,
                        names: &GGUF,
                        stop_tokens: gguf_stop_tokens(&gguf),
                        license: gguf.metadata().str("general.license").map(str::to_owned),
                        weights: gguf.clone(),
                        activations: Activations::default(),
                    })
                };
                Self::assemble(file.display().to_string(), parts, text, options, start)
            }
            Source::Ggml(file) => Err(Source::no_language_model(file)),
            Source::Hub(name) => Self::from_source(&hub(name)?, options),
        }
    }

    fn from_folder(
        dir: &Path,
        weights: impl FnOnce() -> Result<SafeTensors>,
        options: &LoadOptions,
        start: Instant,
    ) -> Result<Self> {
        let text = || TextParts {
            tokenizer: Tokenizer::from_file(&dir.join("tokenizer.json")),
            template: ChatTemplate::from_dir(dir),
        };
        let parts = || {
            let path = dir.join("config.json");
            let hf = HfConfig::open(&path)?;
            Ok(Parts {
                config: family::from_hf(&hf).at(path.display())?,
                names: &HF,
                weights: Arc::new(weights()?),
                activations: hf.get("quantization_config").map(Activations::read).unwrap_or_default(),
                stop_tokens: folder_stop_tokens(dir, &hf)?,
                license: folder_license(dir),
            })
        };
        Self::assemble(dir.display().to_string(), parts, text, options, start)
    }

    /// Reads the text's parts on another thread while the decoder is built.
    pub(crate) fn assemble(
        name: String,
        parts: impl FnOnce() -> Result<Parts>,
        text: impl FnOnce() -> TextParts + Send,
        options: &LoadOptions,
        start: Instant,
    ) -> Result<Self> {
        std::thread::scope(|scope| {
            let text = scope.spawn(text);
            let mut parts = parts()?;
            if let Some(recipe) = &options.quantize {
                let quantized = in_memory(recipe, parts.weights, parts.names, &parts.config).at(&name)?;
                let InMemory { weights, untied, activations } = quantized;
                (parts.weights, parts.activations) = (weights, activations);
                parts.config.tied_head &= !untied;
            }
            let exec = exec(&*parts.weights, parts.names, options);
            let loader = Loader::new(parts.weights.clone(), exec)
                .activations(parts.activations)
                .observed(options.observer.clone());
            let kv = kv_type(&*parts.weights, parts.names, options);
            let decoder = Decoder::load(parts.config, parts.names, &loader, kv).at(&name)?;
            let Ok(TextParts { tokenizer, template }) = text.join() else {
                return Err(Error::Tokenizer("the reader panicked".into()));
            };
            let mut stop_tokens = parts.stop_tokens;
            if let Ok(tokenizer) = &tokenizer {
                let (tokens, rows) = (tokenizer.vocab_size(), decoder.config().dims.vocab);
                if tokens > rows {
                    let what = format!("{name}: it has {tokens} tokens, the embedding {rows} rows");
                    return Err(Error::Tokenizer(what));
                }
                if stop_tokens.is_empty() {
                    stop_tokens = well_known_stop_tokens(tokenizer);
                }
            }
            Ok(Self {
                name,
                decoder: Arc::new(decoder),
                weights: parts.weights,
                tokenizer: tokenizer.map_err(Arc::new),
                template: template.map_err(Arc::new),
                stop_tokens,
                license: parts.license,
                load_time: start.elapsed(),
            })
        })
    }

    /// The path or name it was opened by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The decoder.
    pub fn decoder(&self) -> &Arc<Decoder> {
        &self.decoder
    }

    /// The checkpoint.
    pub fn weights(&self) -> &Arc<dyn Weights> {
        &self.weights
    }

    /// Tensors, numbers and bytes by format, the format with the most bytes first.
    pub fn totals(&self) -> Vec<FormatTotal> {
        totals(&*self.weights)
    }

    /// Bytes of weights that one forward pass reads, whatever the number of tokens: all but the embedding, of which
    /// it takes rows, unless that is the head too.
    pub fn bytes_per_pass(&self) -> u64 {
        let all: u64 = self.totals().iter().map(|total| total.bytes).sum();
        let unread = if self.decoder.config().tied_head {
            |n: &TensorNames| n.head
        } else {
            |n: &TensorNames| n.embedding
        };
        let unread = [&HF, &GGUF].map(|names| format!("{}.weight", unread(names)));
        let listed = tensors(&*self.weights).into_iter().filter(|tensor| unread.contains(&tensor.name));
        all - listed.map(|tensor| tensor.bytes).sum::<u64>()
    }

    /// What the model's card says of its licence.
    pub fn license(&self) -> Option<&str> {
        self.license.as_deref()
    }

    /// How long opening took.
    pub fn load_time(&self) -> Duration {
        self.load_time
    }

    /// Tokens that end an answer.
    pub fn stop_tokens(&self) -> &[u32] {
        &self.stop_tokens
    }

    /// The tokenizer.
    ///
    /// Errors: what reading it met.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().map_err(|e| Error::Shared(e.clone()))
    }

    /// The chat template; `None` for a model that only completes.
    ///
    /// Errors: what reading it met.
    pub fn template(&self) -> Result<Option<&ChatTemplate>> {
        self.template.as_ref().map(Option::as_ref).map_err(|e| Error::Shared(e.clone()))
    }

    /// Replaces the chat template.
    pub fn set_template(&mut self, template: ChatTemplate) {
        self.template = Ok(Some(template));
    }

    /// A new, empty session.
    pub fn session(&self) -> Session {
        Session::new(self.decoder.clone())
    }

    /// Options for a generation that ends where this model says it should.
    pub fn options(&self) -> GenerateOptions {
        GenerateOptions { stop_tokens: self.stop_tokens.clone(), ..GenerateOptions::default() }
    }

    /// The tokens of a text to be completed, with those that the model wants at its start.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer()?.encode(text, true)
    }

    /// The tokens of a conversation, ready for the model's answer.
    ///
    /// Errors: `Template` if there is none or it raises an exception.
    pub fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>> {
        let template = self.template()?;
        let template = template.ok_or_else(|| Error::Template(format!("{} has none", self.name)))?;
        self.tokenizer()?.encode(&template.render(messages, None, true, None)?, false)
    }

    /// Feeds a prompt to a session and continues it.
    ///
    /// Errors: as [`Session::generate`].
    pub fn generate<'a>(
        &'a self,
        session: &'a mut Session,
        prompt: &[u32],
        options: &GenerateOptions,
    ) -> Result<Generation<'a>> {
        session.generate(self.tokenizer()?, prompt, options)
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("name", &self.name).field("config", self.decoder.config()).finish()
    }
}

/// The format of the first layer's query projection stands for the model's; where it is integers, that of the
/// embedding, if it was kept as it was.
fn format(weights: &dyn Weights, names: &TensorNames) -> Format {
    let query = weights.get(&format!("{}.weight", names.part(0, names.parts.q_proj)));
    match query {
        Ok(stored) if stored.format != Format::I8 => stored.format,
        _ => match weights.get(&format!("{}.weight", names.embedding)) {
            Ok(stored) if stored.format == Format::BF16 => Format::BF16,
            _ => Format::F16,
        },
    }
}

fn exec(weights: &dyn Weights, names: &TensorNames, options: &LoadOptions) -> Exec {
    if options.composed {
        return Exec::composed(options.device.clone());
    }
    let dtype = match format(weights, names) {
        Format::BF16 => DType::BF16,
        Format::F16 => DType::F16,
        _ => DType::F32,
    };
    Exec::new(options.device.clone(), dtype)
}

fn kv_type(weights: &dyn Weights, names: &TensorNames, options: &LoadOptions) -> KvType {
    let exact = format(weights, names) == Format::F32;
    options.kv.unwrap_or(if exact { KvType::F32 } else { KvType::F16 })
}

#[cfg(feature = "builtin")]
fn builtin(options: &LoadOptions, start: Instant) -> Result<Model> {
    crate::builtin::open(options, start)
}

#[cfg(not(feature = "builtin"))]
fn builtin(_: &LoadOptions, _: Instant) -> Result<Model> {
    Err(no_builtin())
}

#[cfg(feature = "builtin")]
pub(crate) fn builtin_checkpoint() -> Result<Checkpoint> {
    crate::builtin::checkpoint()
}

#[cfg(not(feature = "builtin"))]
pub(crate) fn builtin_checkpoint() -> Result<Checkpoint> {
    Err(no_builtin())
}

#[cfg(not(feature = "builtin"))]
pub(crate) fn no_builtin() -> Error {
    Error::NotFound { what: "this build has no built-in model (feature `builtin`)".into() }
}

#[cfg(feature = "hub")]
pub(crate) fn hub(name: &str) -> Result<Source> {
    use candle_engine::hub::{Hub, HubConfig, RepoId};
    let path = Hub::new(HubConfig::from_env()).model(&RepoId::parse(name)?, &mut |_| ())?;
    Source::parse(&path.to_string_lossy())
}

#[cfg(not(feature = "hub"))]
pub(crate) fn hub(name: &str) -> Result<Source> {
    Err(Error::NotFound { what: format!("{name}: this build cannot reach the Hub (feature `hub`)") })
}

pub(crate) fn folder_stop_tokens(dir: &Path, config: &HfConfig) -> Result<Vec<u32>> {
    const KEY: &str = "eos_token_id";
    let path: PathBuf = dir.join("generation_config.json");
    let generation = if path.is_file() { Some(HfConfig::open(&path)?) } else { None };
    match generation.as_ref().and_then(|g| g.get(KEY)).or_else(|| config.get(KEY)) {
        None => Ok(Vec::new()),
        Some(value) => token_ids(value)
            .ok_or_else(|| Error::config(KEY, format!("expected a token id or a list of them, got {value}"))),
    }
}

/// One id or a list of ids.
pub(crate) fn token_ids(value: &serde_json::Value) -> Option<Vec<u32>> {
    let id = |v: &serde_json::Value| u32::try_from(v.as_u64()?).ok();
    match value.as_array() {
        Some(list) => list.iter().map(id).collect(),
        None => Some(vec![id(value)?]),
    }
}

pub(crate) fn gguf_template(meta: &Metadata) -> Result<Option<ChatTemplate>> {
    let Some(source) = meta.str("tokenizer.chat_template") else { return Ok(None) };
    let tokens = meta.strings("tokenizer.ggml.tokens").unwrap_or_default();
    let text = |key: &str| {
        let id = meta.u64(&format!("tokenizer.ggml.{key}_token_id"))?;
        tokens.get(usize::try_from(id).ok()?).copied()
    };
    match meta.str("tokenizer.chat_template.tool_use") {
        Some(tool_use) => ChatTemplate::with_tool_use(source, tool_use, text("bos"), text("eos")).map(Some),
        None => ChatTemplate::new(source, text("bos"), text("eos")).map(Some),
    }
}

pub(crate) fn gguf_stop_tokens(file: &Gguf) -> Vec<u32> {
    ["eos_token_id", "eot_token_id", "eom_token_id"]
        .iter()
        .filter_map(|key| file.metadata().u64(&format!("tokenizer.ggml.{key}")))
        .filter_map(|id| u32::try_from(id).ok())
        .collect()
}

/// Texts that end an answer in the models of the zoo, for a file that names no id.
fn well_known_stop_tokens(tokenizer: &Tokenizer) -> Vec<u32> {
    const ENDS: &[&str] = &["</s>", "<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>"];
    ENDS.iter().filter_map(|end| tokenizer.id(end)).collect()
}

/// The `license:` line of the model card's front matter.
pub(crate) fn folder_license(dir: &Path) -> Option<String> {
    let card = std::fs::read_to_string(dir.join("README.md")).ok()?;
    let front = card.strip_prefix("---")?.split("\n---").next()?;
    front.lines().find_map(|line| Some(line.strip_prefix("license:")?.trim().to_owned()))
}
