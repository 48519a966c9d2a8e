//! The names and shapes of a file's tensors, and parts of a pipeline that are made of them.

use aigc_core::weights::{TensorSource, WeightReader};
use std::collections::BTreeMap;

/// Names and shapes of all tensors of a file.
pub(crate) type Shapes = BTreeMap<String, Vec<usize>>;

/// The names and shapes of a reader.
pub(crate) fn shapes(reader: &WeightReader) -> Shapes {
    let shape = |name: &str| reader.shape(name).unwrap_or_default().to_vec();
    reader
        .names()
        .map(|name| (name.to_owned(), shape(name)))
        .collect()
}

/// The tensors whose names begin with a prefix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    shapes: &'a Shapes,
    prefix: &'a str,
}

impl<'a> Scope<'a> {
    pub(crate) fn new(shapes: &'a Shapes, prefix: &'a str) -> Self {
        Self { shapes, prefix }
    }

    /// The name in the file of a tensor in this scope.
    pub(crate) fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(crate) fn shape(&self, name: &str) -> Option<&'a [usize]> {
        self.shapes.get(&self.full(name)).map(|shape| &shape[..])
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.shape(name).is_some()
    }

    /// Whether a name begins so.
    pub(crate) fn any(&self, start: &str) -> bool {
        let start = self.full(start);
        let next = self.shapes.range(start.clone()..).next();
        next.is_some_and(|(name, _)| name.starts_with(&start))
    }

    /// Names without the prefix.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> {
        let prefix = self.prefix;
        self.shapes
            .range(prefix.to_owned()..)
            .map_while(move |(name, _)| name.strip_prefix(prefix))
    }

    /// How many of `start(0)`, `start(1)`, … begin names.
    pub(crate) fn count(&self, start: impl Fn(usize) -> String) -> usize {
        (0..).take_while(|i| self.any(&start(*i))).count()
    }
}

/// A part of a pipeline: its tensors, and those that the file should have but does not.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Part {
    /// Name of its directory in diffusers' layout.
    pub(crate) name: &'static str,
    pub(crate) sources: Vec<TensorSource>,
    /// Names that the file lacks.
    pub(crate) missing: Vec<String>,
    /// A matrix that files leave out because it is the identity: its name and size.
    pub(crate) identity: Option<(&'static str, usize)>,
}

impl Part {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    /// Adds a tensor under a new name, if the file has it, else notes that it is missing.
    pub(crate) fn take(&mut self, scope: Scope<'_>, original: &str, name: &str) {
        match scope.has(original) {
            true => self
                .sources
                .push(TensorSource::new(name, scope.full(original))),
            false => self.missing.push(scope.full(original)),
        }
    }

    /// [`take`](Self::take) for the weight and the bias of a layer.
    pub(crate) fn take_layer(&mut self, scope: Scope<'_>, original: &str, name: &str) {
        for param in ["weight", "bias"] {
            self.take(
                scope,
                &format!("{original}.{param}"),
                &format!("{name}.{param}"),
            );
        }
    }

    /// Shapes by the new names.
    pub(crate) fn shapes(&self, shapes: &Shapes) -> Shapes {
        let shape = |source: &TensorSource| {
            let mut shape = source
                .shape
                .clone()
                .or_else(|| shapes.get(&source.source).cloned())
                .unwrap_or_default();
            if let (Some(rows), Some(first), None) =
                (&source.rows, shape.first_mut(), &source.shape)
            {
                *first = rows.len();
            }
            if source.transpose {
                shape.reverse();
            }
            shape
        };
        let named = |source: &TensorSource| (source.name.clone(), shape(source));
        let identity = self.identity;
        let identity = identity.map(|(name, size)| (name.to_owned(), vec![size, size]));
        self.sources.iter().map(named).chain(identity).collect()
    }
}
