//! The values of a pickle, and why it may have none.

use pytorch_reader::DType;
use std::{collections::BTreeSet, fmt::Display};

/// The number of a value.
pub(super) type Id = usize;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// What is not needed.
    Opaque,
    Int(i64),
    Text(String),
    /// A function or class, such as `torch.HalfStorage`.
    Name(String),
    /// A tuple or a list.
    Items(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Storage {
        key: String,
        dtype: DType,
    },
    Tensor {
        key: String,
        dtype: DType,
        /// Number of the first element in the storage.
        first: usize,
        shape: Vec<usize>,
        steps: Vec<usize>,
    },
}

/// What a pickle holds.
pub(super) struct Unpickled {
    pub(super) values: Vec<Value>,
    pub(super) root: Id,
    /// Number of bytes of the pickle.
    pub(super) len: usize,
    /// Functions and classes that it names, with their modules.
    pub(super) names: BTreeSet<String>,
}

/// Why a pickle was not read.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is no pickle, or has something that is not read here.
    Broken(String),
    /// It would take much more memory than its tensors.
    TooLarge(String),
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Broken(reason)
    }
}

impl From<&str> for Fault {
    fn from(reason: &str) -> Self {
        Self::Broken(reason.into())
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Broken(reason) | Self::TooLarge(reason)) = self;
        f.write_str(reason)
    }
}
