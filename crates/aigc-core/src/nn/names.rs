//! Names of weight-normalised and recurrent layers in files.

use crate::weights::{KeyMapping, ParamKey, pytorch_key};

/// Names in files below a layer, and the names of the same parameters here.
const WEIGHT_NORM: [(&str, &str); 4] = [
    ("weight_g", "weight_norm.gain"),
    ("weight_v", "weight"),
    ("parametrizations.weight.original0", "weight_norm.gain"),
    ("parametrizations.weight.original1", "weight"),
];

/// The name here of a tensor that PyTorch's weight norm has stored: `X.weight_norm.gain` for
/// `X.weight_g` and `X.parametrizations.weight.original0`, `X.weight` for `X.weight_v` and
/// `X.parametrizations.weight.original1`. Other names stay as they are.
///
/// A gain is stored as `[outputs, 1, …]`.
pub fn weight_norm_key(key: &str) -> String {
    let known = WEIGHT_NORM.iter().find_map(|(stored, name)| {
        let layer = key.strip_suffix(stored)?;
        (layer.is_empty() || layer.ends_with('.')).then(|| format!("{layer}{name}"))
    });
    known.unwrap_or_else(|| key.into())
}

/// Where PyTorch stores a parameter: [`pytorch_key`], both names of the parameters of a
/// [weight-normalised](super::WeightNorm) [`Conv1d`](super::Conv1d) or
/// [`ConvTranspose1d`](super::ConvTranspose1d) (see [`weight_norm_key`]), and the names of an
/// [`Lstm`](super::Lstm), such as `weight_ih_l0`.
///
/// A layer without normalisation that would read the direction of a normalised one as its weight
/// is an error of [`WeightReader::load_into`](crate::weights::WeightReader::load_into).
pub fn layer_key(key: ParamKey<'_>) -> KeyMapping {
    let (parent, field) = match key.path.rsplit_once('.') {
        Some((_, field)) => (&key.path[..key.path.len() - field.len()], field),
        None => ("", key.path),
    };
    match (key.module, field) {
        ("WeightNorm", "gain") => {
            let layer = parent.strip_suffix("weight_norm.").unwrap_or(parent);
            KeyMapping::new(format!("{layer}weight_g"))
                .or(format!("{layer}parametrizations.weight.original0"))
                .or(key.path)
        }
        ("Conv1d" | "ConvTranspose1d", "weight") => KeyMapping::new(key.path)
            .or(format!("{parent}weight_v"))
            .or(format!("{parent}parametrizations.weight.original1")),
        ("LstmCell", _) => match lstm_name(parent, field) {
            Some(name) => KeyMapping::new(name).or(key.path),
            None => KeyMapping::new(key.path),
        },
        _ => pytorch_key(key),
    }
}

/// `X.weight_ih_l1_reverse` for the field `weight_ih` of `X.layers.1.reverse.`.
fn lstm_name(parent: &str, field: &str) -> Option<String> {
    let (cell, suffix) = match parent.strip_suffix(".reverse.") {
        Some(cell) => (cell, "_reverse"),
        None => (parent.strip_suffix(".forward.")?, ""),
    };
    let (layers, index) = cell.rsplit_once('.')?;
    let lstm = layers.strip_suffix("layers")?;
    Some(format!("{lstm}{field}_l{index}{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_names_of_weight_norm_are_known() {
        for (stored, name) in [
            ("a.conv.weight_g", "a.conv.weight_norm.gain"),
            ("a.conv.weight_v", "a.conv.weight"),
            (
                "conv.parametrizations.weight.original0",
                "conv.weight_norm.gain",
            ),
            ("conv.parametrizations.weight.original1", "conv.weight"),
            ("weight_g", "weight_norm.gain"),
            ("conv.bias", "conv.bias"),
            ("conv.my_weight_g", "conv.my_weight_g"),
        ] {
            assert_eq!(weight_norm_key(stored), name);
        }
    }

    #[test]
    fn layers_have_names_of_pytorch() {
        let names = |module: &str, path: &str| layer_key(ParamKey { path, module }).candidates;
        assert_eq!(
            names("WeightNorm", "a.conv.weight_norm.gain"),
            [
                "a.conv.weight_g",
                "a.conv.parametrizations.weight.original0",
                "a.conv.weight_norm.gain"
            ]
        );
        assert_eq!(names("WeightNorm", "weight_norm.gain")[0], "weight_g");
        assert_eq!(
            names("ConvTranspose1d", "up.weight"),
            [
                "up.weight",
                "up.weight_v",
                "up.parametrizations.weight.original1"
            ]
        );
        assert_eq!(names("Conv1d", "up.bias"), ["up.bias"]);
        assert_eq!(names("GroupNorm", "norm.gamma")[0], "norm.weight");
        assert_eq!(
            names("LstmCell", "a.lstm.layers.0.forward.weight_ih")[0],
            "a.lstm.weight_ih_l0"
        );
        assert_eq!(
            names("LstmCell", "layers.11.reverse.bias_hh")[0],
            "bias_hh_l11_reverse"
        );
        let linear = ParamKey {
            path: "out.weight",
            module: "Linear",
        };
        assert!(layer_key(linear).transpose);
    }
}
