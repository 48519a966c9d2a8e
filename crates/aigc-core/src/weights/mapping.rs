//! Names and layouts of parameters in files.

/// Name and layout of a parameter in files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyMapping {
    /// Possible names, the usual one first. Without any, the parameter keeps its value.
    pub candidates: Vec<String>,
    /// Whether a matrix is stored transposed.
    pub transpose: bool,
}

impl KeyMapping {
    /// A parameter called `name`, not transposed.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            candidates: vec![name.into()],
            transpose: false,
        }
    }

    /// A parameter that the files do not contain.
    pub fn skip() -> Self {
        Self::default()
    }

    /// Adds another possible name.
    pub fn or(mut self, name: impl Into<String>) -> Self {
        self.candidates.push(name.into());
        self
    }
}

/// A parameter of a model, as the argument of a mapping.
#[derive(Clone, Copy, Debug)]
pub struct ParamKey<'a> {
    /// Field names joined by dots, without the names of enum variants.
    pub path: &'a str,
    /// Type of the module with the parameter, such as `Linear`.
    pub module: &'a str,
}

/// The name and layout of a parameter in PyTorch: `weight` and `bias` for the `gamma` and `beta` of
/// a norm, `[out, in]` for the weight of a `Linear`.
pub fn pytorch_key(key: ParamKey<'_>) -> KeyMapping {
    let (parent, field) = key
        .path
        .rsplit_once('.')
        .map_or(("", key.path), |(parent, field)| (parent, field));
    let dot = if parent.is_empty() { "" } else { "." };
    let named = |field: &str| format!("{parent}{dot}{field}");
    match (key.module, field) {
        (norm, "gamma") if norm.ends_with("Norm") => {
            KeyMapping::new(named("weight")).or(named("gamma"))
        }
        (norm, "beta") if norm.ends_with("Norm") => {
            KeyMapping::new(named("bias")).or(named("beta"))
        }
        ("Linear", "weight") => KeyMapping {
            candidates: vec![key.path.into()],
            transpose: true,
        },
        _ => KeyMapping::new(key.path),
    }
}

/// A field at the root of a model that has another name in files of earlier versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenamedField {
    /// Name of the field.
    pub name: &'static str,
    /// Former name of the field.
    pub former: &'static str,
}

impl RenamedField {
    /// The former path of a parameter of this field; `None` for other parameters.
    pub fn former_path(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix(self.name)?;
        rest.starts_with('.')
            .then(|| format!("{}{rest}", self.former))
    }
}

/// [`pytorch_key`], with the former names of renamed fields as further candidates.
pub fn renamed_key(key: ParamKey<'_>, renamed: &[RenamedField]) -> KeyMapping {
    let former = renamed
        .iter()
        .find_map(|field| field.former_path(key.path))
        .map(|path| pytorch_key(ParamKey { path: &path, ..key }));
    let mut mapping = pytorch_key(key);
    mapping
        .candidates
        .extend(former.into_iter().flat_map(|former| former.candidates));
    mapping
}
