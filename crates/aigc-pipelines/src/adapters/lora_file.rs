//! Low-rank adapters in files.

use super::metadata::{self, Alphas};
use aigc_core::{Error, Result, weights::WeightReader};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Names of weights in directories: diffusers', and PEFT's.
const STEMS: [&str; 2] = ["pytorch_lora_weights", "adapter_model"];

/// Limit on the names in an error message.
const LISTED: usize = 64;

/// The naming of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoraForm {
    /// PEFT's, which diffusers writes now: `unet.….to_q.lora_A.weight`.
    Peft,
    /// That of older versions of diffusers: `unet.….to_q.lora.down.weight`, or
    /// `unet.….processor.to_q_lora.down.weight`.
    Diffusers,
    /// That of kohya's scripts (<https://github.com/kohya-ss/sd-scripts>):
    /// `lora_unet_…_to_q.lora_down.weight`, with underscores for dots.
    Kohya,
}

/// What a tensor of an adapter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Down,
    Up,
    /// Between the two, for a convolution whose kernel has its own factor.
    Mid,
    /// Factors of the two matrices of a Hadamard product.
    Hadamard(Factor),
    /// The two matrices of a Kronecker product, or their factors.
    Kronecker(Factor),
    /// The whole difference.
    Difference,
}

/// A matrix of a product of two, or a factor of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Factor {
    W1,
    W1A,
    W1B,
    W2,
    W2A,
    W2B,
}

use Role::{Difference, Down, Hadamard, Kronecker, Mid, Up};

/// Endings of names.
const ROLES: [(&str, Role); 22] = [
    (".lora_A.weight", Down),
    (".lora_B.weight", Up),
    (".lora.down.weight", Down),
    (".lora.up.weight", Up),
    (".lora_linear_layer.down.weight", Down),
    (".lora_linear_layer.up.weight", Up),
    (".lora_down.weight", Down),
    (".lora_up.weight", Up),
    (".lora_mid.weight", Mid),
    // The name of the layer has `_lora` in its last part.
    (".down.weight", Down),
    (".up.weight", Up),
    (".hada_w1_a", Hadamard(Factor::W1A)),
    (".hada_w1_b", Hadamard(Factor::W1B)),
    (".hada_w2_a", Hadamard(Factor::W2A)),
    (".hada_w2_b", Hadamard(Factor::W2B)),
    (".lokr_w1", Kronecker(Factor::W1)),
    (".lokr_w1_a", Kronecker(Factor::W1A)),
    (".lokr_w1_b", Kronecker(Factor::W1B)),
    (".lokr_w2", Kronecker(Factor::W2)),
    (".lokr_w2_a", Kronecker(Factor::W2A)),
    (".lokr_w2_b", Kronecker(Factor::W2B)),
    (".diff", Difference),
];

/// Parts of names of adapters that are not supported, and their kinds.
const UNSUPPORTED: [(&str, &str); 12] = [
    (".dora_scale", "DoRA"),
    (".lora_magnitude_vector", "DoRA"),
    (".hada_t1", "LoHa with factors of the kernel"),
    (".hada_t2", "LoHa with factors of the kernel"),
    (".lokr_t2", "LoKr with factors of the kernel"),
    (".oft_", "OFT"),
    (".boft_", "BOFT"),
    (".on_input", "IA³"),
    (".a1.weight", "GLoRA"),
    (".diff_b", "differences of biases"),
    (".lora_embedding_", "LoRA of embeddings"),
    (".ia3_", "IA³"),
];

/// The tensors that change one layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Change {
    /// Names in the file.
    pub(crate) tensors: BTreeMap<Role, String>,
    pub(crate) alpha: Option<f64>,
    /// Whether the scale is `alpha / √rank`.
    pub(crate) root: bool,
}

/// Low-rank adapters (Hu et al. 2021, <https://arxiv.org/abs/2106.09685>) of a file, for any of the
/// parts of a pipeline. Their tensors are read when they are applied.
///
/// Besides the product of two factors (LoRA; of convolutions too, as in LoCon), the Hadamard and
/// Kronecker products of LyCORIS (Yeh et al. 2023, <https://arxiv.org/abs/2309.14859>: LoHa, LoKr)
/// and whole differences can be merged.
#[derive(Debug)]
pub struct Lora {
    pub(crate) reader: WeightReader,
    /// By the name of the layer in the file.
    pub(crate) changes: BTreeMap<String, Change>,
    /// Tensors that belong to no layer.
    pub(crate) others: Vec<String>,
    form: LoraForm,
}

impl Lora {
    /// Opens a file, or a directory with `pytorch_lora_weights.safetensors` or PEFT's
    /// `adapter_model.safetensors` and `adapter_config.json`.
    ///
    /// # Errors
    /// [`Error::Weights`] if the file is broken, has no adapters, or factors without their
    /// counterparts; [`Error::Unsupported`] naming the kind for adapters of other kinds, such as
    /// DoRA; [`Error::Data`] for an option of PEFT's that is not supported; [`Error::Io`] if it
    /// cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut alphas = Alphas::default();
        let reader = match path.is_dir() {
            true => {
                let config: PathBuf = path.join("adapter_config.json");
                if config.is_file() {
                    alphas = metadata::of_config(&config)?;
                }
                WeightReader::from_dir(path, &STEMS)?
            }
            false => WeightReader::open(path)?,
        };
        if let Some(text) = reader.metadata().get("lora_adapter_metadata") {
            alphas.extend(metadata::of_text(text, reader.path())?);
        }
        Self::of_reader(reader, &alphas)
    }

    fn of_reader(reader: WeightReader, alphas: &Alphas) -> Result<Self> {
        let wrong = |reason: String| Error::weights(reader.path(), reason);
        let mut changes: BTreeMap<String, Change> = BTreeMap::new();
        let (mut scalars, mut others) = (vec![], vec![]);
        let mut form = None;
        for name in reader.names() {
            if let Some(kind) = unsupported(name) {
                return Err(Error::unsupported(
                    format!(
                        "{}: {name}: an adapter of the kind {kind}",
                        reader.path().display()
                    ),
                    "Lora",
                    "LoRA, LoCon, LoHa, LoKr and whole differences are",
                ));
            }
            if let Some(stem) = name.strip_suffix(".alpha") {
                scalars.push((stem.to_owned(), name.to_owned()));
                continue;
            }
            let Some((stem, role)) = role_of(name) else {
                others.push(name.to_owned());
                continue;
            };
            form = form.or(Some(form_of(name)));
            let change = changes.entry(stem.to_owned()).or_default();
            if let Some(other) = change.tensors.insert(role, name.to_owned()) {
                return Err(wrong(format!("{other} and {name} are the same factor")));
            }
        }
        let Some(form) = form else {
            let some: Vec<&str> = reader.names().take(4).collect();
            let reason = match some.is_empty() {
                true => "no adapters: the file has no tensors".into(),
                false => format!(
                    "no adapters: the file has tensors such as {}",
                    some.join(", ")
                ),
            };
            return Err(wrong(reason));
        };
        for (stem, name) in scalars {
            match changes.get_mut(&stem) {
                Some(change) => change.alpha = Some(scalar(&reader, &name)?),
                None => others.push(name),
            }
        }
        for (stem, change) in &mut changes {
            if let (None, Some((alpha, root))) = (change.alpha, alphas.of(stem)) {
                (change.alpha, change.root) = (Some(alpha), root);
            }
        }
        let mut incomplete: Vec<String> = changes
            .values()
            .filter(|change| !change.is_complete())
            .flat_map(|change| change.tensors.values().cloned())
            .collect();
        if !incomplete.is_empty() {
            let more = incomplete.len().saturating_sub(LISTED);
            incomplete.truncate(LISTED);
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            let reason = format!(
                "factors without their counterparts: {}{more}",
                incomplete.join(", ")
            );
            return Err(wrong(reason));
        }
        Ok(Self {
            reader,
            changes,
            others,
            form,
        })
    }

    /// The file or directory.
    pub fn path(&self) -> &Path {
        self.reader.path()
    }

    /// The naming of the file.
    pub fn form(&self) -> LoraForm {
        self.form
    }

    /// The layers that the file changes, by its names for them.
    pub fn layers(&self) -> impl Iterator<Item = &str> {
        self.changes.keys().map(String::as_str)
    }

    /// `__metadata__` of a safetensors file: how kohya's scripts trained an adapter.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        self.reader.metadata()
    }
}

impl Change {
    fn has(&self, role: Role) -> bool {
        self.tensors.contains_key(&role)
    }

    /// Whether these are the tensors of one kind of change, and no others.
    fn is_complete(&self) -> bool {
        use Factor::{W1, W1A, W1B, W2, W2A, W2B};
        let has_all = |roles: &[Role]| roles.iter().all(|role| self.has(*role));
        let kronecker =
            |whole: Factor, left: Factor, right: Factor| match self.has(Kronecker(whole)) {
                true => Some(1),
                false => has_all(&[Kronecker(left), Kronecker(right)]).then_some(2),
            };
        let needed = if has_all(&[Down, Up]) {
            2 + usize::from(self.has(Mid))
        } else if has_all(&[W1A, W1B, W2A, W2B].map(Hadamard)) {
            4
        } else if self.has(Difference) {
            1
        } else {
            match (kronecker(W1, W1A, W1B), kronecker(W2, W2A, W2B)) {
                (Some(first), Some(second)) => first + second,
                _ => return false,
            }
        };
        self.tensors.len() == needed
    }
}

/// The kind of a tensor that belongs to an adapter that is not supported.
fn unsupported(name: &str) -> Option<&'static str> {
    let factors = [".lora_B.", ".lora_up.", ".lora.up."];
    if name.ends_with(".bias") && factors.iter().any(|factor| name.contains(factor)) {
        return Some("LoRA with biases");
    }
    let (_, kind) = UNSUPPORTED.iter().find(|(part, _)| name.contains(part))?;
    Some(*kind)
}

/// The layer of a tensor, and what the tensor is.
fn role_of(name: &str) -> Option<(&str, Role)> {
    let known = ROLES.iter().find_map(|(ending, role)| {
        let stem = name.strip_suffix(ending)?;
        let bare = [".down.weight", ".up.weight"].contains(ending);
        let last = stem.rsplit('.').next().unwrap_or(stem);
        (!bare || last.contains("_lora")).then_some((stem, *role))
    });
    // In PEFT's models, the name of the adapter follows.
    let with_adapter = || {
        let (factor, _adapter) = name.strip_suffix(".weight")?.rsplit_once('.')?;
        let down = factor.strip_suffix(".lora_A").map(|stem| (stem, Down));
        down.or_else(|| Some((factor.strip_suffix(".lora_B")?, Up)))
    };
    known.or_else(with_adapter)
}

fn form_of(name: &str) -> LoraForm {
    if name.contains(".lora_A.") || name.contains(".lora_B.") {
        LoraForm::Peft
    } else if name.starts_with("lora_") || name.starts_with("lycoris_") {
        LoraForm::Kohya
    } else {
        LoraForm::Diffusers
    }
}

/// The value of a tensor with one element.
fn scalar(reader: &WeightReader, name: &str) -> Result<f64> {
    let wrong = |reason: String| Error::weights(reader.path(), format!("{name} {reason}"));
    let shape = reader.shape(name).unwrap_or_default();
    if shape.iter().any(|size| *size != 1) {
        return Err(wrong(format!(
            "has the shape {shape:?}, expected one number"
        )));
    }
    let is_float = reader.dtype(name).is_some_and(|dtype| dtype.is_float());
    let value = match is_float {
        true => reader.read(name)?.first().map(|value| f64::from(*value)),
        false => reader.read_int(name)?.first().map(|value| *value as f64),
    };
    match value {
        Some(value) if value.is_finite() => Ok(value),
        other => Err(wrong(format!("is {other:?}, expected a finite number"))),
    }
}
