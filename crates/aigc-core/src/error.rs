//! The error type, with a variant for each kind of cause.

use std::path::{Path, PathBuf};

/// The result type of everything in aigc that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error, with the field or file that caused it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration value is out of range, or contradicts another.
    #[error("config field `{field}` is {value}, expected {expected}")]
    Config {
        /// Name of the field.
        field: String,
        /// Its value.
        value: String,
        /// Description of the valid values.
        expected: String,
    },
    /// An argument of a call is out of range, or does not fit the object it is passed to.
    #[error("argument `{argument}` is {value}, expected {expected}")]
    InvalidArgument {
        /// Name of the argument.
        argument: String,
        /// Its value.
        value: String,
        /// Description of the valid values.
        expected: String,
    },
    /// A feature that a file or a call requests is not implemented.
    #[error("{by}: {feature} is not supported{}", if hint.is_empty() { String::new() } else { format!("; {hint}") })]
    Unsupported {
        /// The requested feature.
        feature: String,
        /// The type or function that does not support it.
        by: String,
        /// What to do instead; may be empty.
        hint: String,
    },
    /// A text is not valid JSON, or not the expected JSON.
    #[error("{0}")]
    Json(
        /// What is wrong, with line and column.
        String,
    ),
    /// A run directory cannot be used: it is in use, exists already, or is missing.
    #[error("run directory {}: {reason}", path.display())]
    Run {
        /// The directory.
        path: PathBuf,
        /// Why it cannot be used, and what to do.
        reason: String,
    },
    /// The caller cancelled an operation that has no partial result.
    #[error("cancelled: {operation}")]
    Cancelled {
        /// The cancelled operation.
        operation: String,
    },
    /// A device is not available.
    #[error("device `{name}`: {reason}")]
    Device {
        /// The requested name.
        name: String,
        /// Why it is not available, and what to do.
        reason: String,
    },
    /// A data file does not have the expected content.
    #[error("{}: {fault}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: DataFault,
    },
    /// Weights do not fit the model, or a weight file is broken.
    #[error("weights {}: {reason}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What does not fit or is broken.
        reason: String,
    },
    /// A checkpoint is damaged or does not belong to this run.
    #[error("checkpoint {}: {reason}{}", path.display(), offer(previous))]
    Checkpoint {
        /// The broken file or directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// The step of the newest intact checkpoint before it, if there is one.
        previous: Option<usize>,
    },
    /// Training produced NaN or infinity.
    #[error("`{name}` became {value} at step {step}; {}", match last_good {
        Some(path) => format!("the last good checkpoint is {}", path.display()),
        None => "no checkpoint had been written yet".to_string(),
    })]
    NotFinite {
        /// Step (counted from 1) whose update was not applied.
        step: usize,
        /// Name of the loss, or `grad_norm`.
        name: String,
        /// The value.
        value: f64,
        /// The newest checkpoint on disk.
        last_good: Option<PathBuf>,
    },
    /// Sampling produced NaN or infinity.
    #[error("{what} became infinite or not a number{}; {hint}", match step {
        Some((step, steps)) => format!(" at step {step} of {steps}"),
        None => String::new(),
    })]
    NotFiniteSamples {
        /// What became so: the latents, the decoded images.
        what: String,
        /// The step (counted from 1), and the number of steps.
        step: Option<(usize, usize)>,
        /// What to do.
        hint: String,
    },
    /// A download failed.
    #[error("download {url}: {reason}")]
    Download {
        /// The address.
        url: String,
        /// What happened, and what to do.
        reason: String,
    },
    /// The operating system reported an error.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// An error of the caller's code, passed through from a callback.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

fn offer(previous: &Option<usize>) -> String {
    match previous {
        Some(step) => format!("; the checkpoint of step {step} is intact: resume from step {step}"),
        None => "; there is no intact checkpoint before it".to_string(),
    }
}

/// What is wrong with a data file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DataFault {
    /// The file ends earlier than its header specifies.
    #[error("truncated: {expected} bytes expected, {found} found")]
    Truncated {
        /// Number of bytes by the header.
        expected: u64,
        /// Number of bytes in the file.
        found: u64,
    },
    /// The file continues after the content that its header specifies.
    #[error("oversized: more than the {expected} bytes its header announces")]
    Oversized {
        /// Number of bytes by the header.
        expected: u64,
    },
    /// The file is larger than what is read of such a file.
    #[error("larger than the {limit} bytes that are read")]
    TooLarge {
        /// Largest number of bytes that is read.
        limit: u64,
    },
    /// The first bytes are not those of the format.
    #[error("wrong magic number {found:#010x}, expected {expected}")]
    WrongMagic {
        /// The first four bytes, big-endian.
        found: u32,
        /// The expected bytes.
        expected: &'static str,
    },
    /// The header is not valid.
    #[error("impossible header: {0}")]
    BadHeader(String),
    /// The compressed or encoded content is broken.
    #[error("cannot be decoded: {0}")]
    Decode(String),
    /// Two files or fields that belong together differ.
    #[error("{0}")]
    Mismatch(String),
    /// The file or directory has no content.
    #[error("{0}")]
    Empty(String),
}

impl Error {
    /// An [`Error::Config`]: `field` is `value`; `expected` describes valid values.
    pub fn config(
        field: impl Into<String>,
        value: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Error::Config {
            field: field.into(),
            value: value.to_string(),
            expected: expected.into(),
        }
    }

    /// An [`Error::InvalidArgument`]: `argument` is `value`; `expected` describes valid values.
    pub fn argument(
        argument: impl Into<String>,
        value: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Error::InvalidArgument {
            argument: argument.into(),
            value: value.to_string(),
            expected: expected.into(),
        }
    }

    /// An [`Error::Unsupported`]: `by` does not support `feature`; `hint` describes what to do
    /// instead.
    pub fn unsupported(
        feature: impl Into<String>,
        by: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Error::Unsupported {
            feature: feature.into(),
            by: by.into(),
            hint: hint.into(),
        }
    }

    /// An [`Error::Run`]: a run directory that cannot be used.
    pub fn run(path: impl AsRef<Path>, reason: impl ToString) -> Self {
        Error::Run {
            path: path.as_ref().to_path_buf(),
            reason: reason.to_string(),
        }
    }

    /// An [`Error::Cancelled`]: the caller cancelled `operation`.
    pub fn cancelled(operation: impl Into<String>) -> Self {
        Error::Cancelled {
            operation: operation.into(),
        }
    }

    /// Wraps an error of the caller's code, for use in callbacks.
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Error::Other(error.into())
    }

    /// An [`Error::Data`]: a data file without the expected content.
    pub fn data(path: impl AsRef<Path>, fault: DataFault) -> Self {
        Error::Data {
            path: path.as_ref().to_path_buf(),
            fault,
        }
    }

    /// An [`Error::Checkpoint`]: a checkpoint that is damaged or does not belong to this run.
    pub fn checkpoint(path: impl AsRef<Path>, reason: impl ToString) -> Self {
        Error::Checkpoint {
            path: path.as_ref().to_path_buf(),
            reason: reason.to_string(),
            previous: None,
        }
    }

    /// An [`Error::Weights`]: weights that do not fit the model.
    pub fn weights(path: impl AsRef<Path>, reason: impl ToString) -> Self {
        Error::Weights {
            path: path.as_ref().to_path_buf(),
            reason: reason.to_string(),
        }
    }

    /// For `map_err`: adds the path to an I/O error.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { path, source }
    }
}
