//! One error type for the engine: every variant names the file, tensor, layer or key it is about.

use std::path::{Path, PathBuf};

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong, in terms a caller can act on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read, mapped or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file was read but its content is not what its format promises.
    #[error("{}: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        what: String,
    },
    /// A tensor that the model needs is not in the weights.
    #[error("tensor `{name}` is missing")]
    MissingTensor {
        /// Its name in the checkpoint.
        name: String,
    },
    /// A tensor has another shape than the configuration implies.
    #[error("tensor `{name}`: expected shape {expected:?}, got {got:?}")]
    ShapeMismatch {
        /// Its name in the checkpoint.
        name: String,
        /// Shape that the configuration implies.
        expected: Vec<usize>,
        /// Shape in the file.
        got: Vec<usize>,
    },
    /// A tensor's number format cannot be used where it stands.
    #[error("tensor `{name}`: {what}")]
    Tensor {
        /// Its name in the checkpoint.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// A configuration key has a value that this engine cannot honour.
    #[error("config key `{key}`: {what}")]
    Config {
        /// The key, dotted where nested.
        key: String,
        /// Expected and found.
        what: String,
    },
    /// A model, or a file of it, could not be found.
    #[error("{what}")]
    NotFound {
        /// What was looked for, and where.
        what: String,
    },
    /// The tokenizer could not be read or refused the text.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The chat template is wrong or raised an exception of its own.
    #[error("chat template: {0}")]
    Template(String),
    /// The prompt does not fit the context.
    #[error("the prompt has {tokens} tokens, the context holds {context}")]
    ContextFull {
        /// Tokens in the prompt.
        tokens: usize,
        /// Tokens that fit.
        context: usize,
    },
    /// The caller's input or option is unusable.
    #[error("{0}")]
    Input(String),
    /// The network failed, or the server refused.
    #[error("{0}")]
    Network(String),
    /// The model would not fit in memory.
    #[error("{what} needs {needed} bytes, {available} are available")]
    OutOfMemory {
        /// What was to be allocated.
        what: String,
        /// Bytes.
        needed: u64,
        /// Bytes.
        available: u64,
    },
    /// An error with the place where it happened.
    #[error("{at}: {source}")]
    At {
        /// A layer, a file, a step.
        at: String,
        /// The error itself.
        source: Box<Error>,
    },
    /// An error that is reported each time the part it spoiled is asked for.
    #[error(transparent)]
    Shared(std::sync::Arc<Error>),
    /// candle's own error.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// The kinds of failure that a program tells its caller apart (exit codes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Anything without a better name.
    General,
    /// A model cannot be loaded.
    Load,
    /// The input is unusable.
    Input,
    /// Network or authorization.
    Network,
    /// Would not fit in memory.
    Memory,
}

impl Error {
    /// A file's content is not what its format promises.
    pub fn malformed(path: impl AsRef<Path>, what: impl Into<String>) -> Self {
        Self::Malformed { path: path.as_ref().to_owned(), what: what.into() }
    }

    /// A system error with the file it is about.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_owned(), source }
    }

    /// A configuration key that cannot be honoured.
    pub fn config(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Config { key: key.into(), what: what.into() }
    }

    /// The kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. }
            | Self::Malformed { .. }
            | Self::MissingTensor { .. }
            | Self::ShapeMismatch { .. }
            | Self::Tensor { .. }
            | Self::Config { .. }
            | Self::NotFound { .. }
            | Self::Tokenizer(_) => ErrorKind::Load,
            Self::Template(_) | Self::ContextFull { .. } | Self::Input(_) => ErrorKind::Input,
            Self::Network(_) => ErrorKind::Network,
            Self::OutOfMemory { .. } => ErrorKind::Memory,
            Self::At { source, .. } => source.kind(),
            Self::Shared(error) => error.kind(),
            Self::Candle(_) => ErrorKind::General,
        }
    }
}

/// Adds the place to an error.
pub trait Context<T> {
    /// Names the layer, file or step in which the error happened.
    fn at(self, place: impl std::fmt::Display) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn at(self, place: impl std::fmt::Display) -> Result<T> {
        self.map_err(|e| Error::At { at: place.to_string(), source: Box::new(e.into()) })
    }
}
