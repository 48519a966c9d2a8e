//! Configurations of the parts of single files, in the layout of `config.json`: those of the
//! published models, with every size that follows from the shapes of the tensors.

mod pipeline;
mod text;
mod transformers;
mod unet;
mod vae;

pub(crate) use pipeline::{model_index, scheduler};

use super::{
    Family,
    scope::{Part, Scope, Shapes},
};
use aigc_core::{Error, Result};
use aigc_diffusion::PredictionType;
use serde_json::{Map, Value};

type Fields = Map<String, Value>;

/// Width of a head, of all networks but Stable Diffusion 1's.
const HEAD_WIDTH: usize = 64;

fn template(text: &str) -> Fields {
    serde_json::from_str(text).expect("the files are objects")
}

/// Sets fields.
fn set<const N: usize>(fields: &mut Fields, values: [(&str, Value); N]) {
    for (name, value) in values {
        fields.insert(name.into(), value);
    }
}

fn text_of(fields: Fields) -> String {
    serde_json::to_string_pretty(&fields).expect("plain values")
}

/// The sizes of a part's tensors, by their new names.
struct Sizes(Shapes);

impl Sizes {
    fn new(part: &Part, shapes: &Shapes) -> Self {
        Self(part.shapes(shapes))
    }

    fn scope(&self) -> Scope<'_> {
        Scope::new(&self.0, "")
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The size of an axis.
    fn at(&self, name: &str, axis: usize) -> Result<usize> {
        let size = self.0.get(name).and_then(|shape| shape.get(axis)).copied();
        size.ok_or_else(|| {
            let feature = format!("a file without {name}, which gives a size,");
            Error::unsupported(feature, "SingleFile::config", "")
        })
    }
}

/// `config.json` of a part with weights.
///
/// # Errors
/// [`Error::Unsupported`] if tensors are missing that give sizes, or sizes do not give a
/// configuration.
pub(crate) fn of_part(
    family: Family,
    prediction: PredictionType,
    part: &Part,
    shapes: &Shapes,
) -> Result<String> {
    let sizes = Sizes::new(part, shapes);
    let fields = match part.name {
        "unet" => unet::config(family, prediction, &sizes)?,
        "vae" => vae::config(family, prediction, &sizes)?,
        "transformer" if family == Family::StableDiffusion3 => transformers::sd3(&sizes)?,
        "transformer" => transformers::flux(&sizes)?,
        _ if sizes.scope().any("encoder.block.") => text::t5(&sizes)?,
        name => text::clip(family, name, &sizes)?,
    };
    Ok(text_of(fields))
}

/// Whether the network is that of Stable Diffusion 2 for 512×512 pixels, which predicts the noise.
fn is_2_base(family: Family, prediction: PredictionType) -> bool {
    family == Family::StableDiffusion2 && prediction == PredictionType::Epsilon
}
