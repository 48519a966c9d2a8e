//! Names of a vocoder's weights in files.

use aigc_core::{
    Result,
    nn::weight_norm_key,
    weights::{TensorSource, WeightReader},
};
use std::path::Path;

/// Stems of the names of weight files in a directory.
const STEMS: [&str; 2] = ["model", "pytorch_model"];

/// Where the final model of a training has the generator's weights.
const GENERATOR: &str = "generator.";

/// End of the path of a gain of weight normalisation.
const GAIN: &str = "weight_norm.gain";

/// The weights of a vocoder's directory under the paths of its parameters, from files of
/// transformers with or without weight normalisation, and from the `final` of a training, where the
/// discriminators' weights are left out.
pub(super) fn open(dir: &Path, variant: Option<&str>) -> Result<WeightReader> {
    let files = WeightReader::from_dir_with_variant(dir, &STEMS, variant)?;
    let trained = files.names().any(|name| name.starts_with(GENERATOR));
    let files = if trained {
        files.subset(GENERATOR)
    } else {
        files
    };
    let source = |name: &str| {
        let path = weight_norm_key(name);
        let is_gain = path.ends_with(GAIN);
        let source = TensorSource::new(path, name);
        match files.shape(name) {
            // Stored as `[outputs, 1, 1]`.
            Some([outputs, _, ..]) if is_gain => source.reshaped(vec![*outputs]),
            _ => source,
        }
    };
    let sources: Vec<TensorSource> = files.names().map(source).collect();
    files.renamed(sources)
}

/// Whether the layers in files that [`open`] has opened are normalised.
pub(super) fn are_normalized(files: &WeightReader) -> bool {
    files.names().any(|name| name.ends_with(GAIN))
}
