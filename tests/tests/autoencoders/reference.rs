//! Outputs against diffusers' numbers.

use super::flex;
use aigc_core::{
    encoder::{Autoencoder, Posterior},
    rng::Rng,
    weights::WeightReader,
};
use aigc_tests::{folder_from, skip};
use aigc_vae::{AutoencoderKl, Vae, VqModel};
use burn::tensor::{Tensor, TensorData};
use serde_json::{Value, json};
use std::path::PathBuf;

/// The cases of `AutoencoderKL` that there have to be.
pub(super) const AUTOENCODER_KL: [&str; 6] = [
    "autoencoder-kl",
    "autoencoder-kl-16",
    "autoencoder-kl-no-middle-attention",
    "autoencoder-kl-old-names",
    "autoencoder-kl-pickled",
    "autoencoder-kl-sd",
];

/// A call of a network by diffusers.
pub(super) struct Case {
    pub(super) name: String,
    dir: PathBuf,
    json: Value,
    tensors: WeightReader,
}

/// All cases whose folders begin with `prefix`. The test is skipped (or fails, see [`skip`]) if one
/// of `required` is missing.
pub(super) fn cases(prefix: &str, required: &[&str]) -> Vec<Case> {
    let Some(folder) = folder_from("AIGC_FIXTURES") else {
        return vec![];
    };
    let nets = folder.join("nets");
    let entries = std::fs::read_dir(&nets).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    for name in required {
        if !names.iter().any(|found| found == name) {
            skip(&format!("{} has no {name}", nets.display()));
        }
    }
    let open = |name: String| {
        let dir = nets.join(&name);
        let text = std::fs::read_to_string(dir.join("case.json")).unwrap();
        Case {
            json: serde_json::from_str(&text).unwrap(),
            tensors: WeightReader::open(&dir.join("tensors.safetensors")).unwrap(),
            name,
            dir,
        }
    };
    names.into_iter().map(open).collect()
}

impl Case {
    pub(super) fn model_dir(&self) -> PathBuf {
        self.dir.join(self.json["model"].as_str().unwrap())
    }

    fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        let shape = self.tensors.shape(name);
        let shape = shape.unwrap_or_else(|| panic!("{}: no `{name}`", self.name));
        let shape: [usize; D] = shape.try_into().unwrap();
        let values = self.tensors.read(name).unwrap();
        Tensor::from_data(TensorData::new(values, shape), &flex())
    }

    /// Compares a tensor with the expected one, within four times what single precision was off by,
    /// or 1e-4, relative to a value or one.
    fn check<const D: usize>(&self, name: &str, found: Tensor<D>, expected: Tensor<D>) {
        assert_eq!(found.dims(), expected.dims(), "{}: {name}", self.name);
        let off_by = self.json["float64"][name].as_f64().unwrap_or(0.0);
        let tolerance = (4.0 * off_by).max(1e-4);
        let [found, expected] =
            [found, expected].map(|x| x.into_data().iter::<f64>().collect::<Vec<_>>());
        let errors = found
            .iter()
            .zip(&expected)
            .map(|(a, b)| (a - b).abs() / b.abs().max(1.0));
        let error = errors
            .map(|error| if error.is_nan() { f64::INFINITY } else { error })
            .fold(0.0, f64::max);
        println!("{} {name}: {error:.1e}", self.name);
        assert!(
            error < tolerance,
            "{}: {name} is off by {error:.1e}",
            self.name
        );
    }
}

/// Images of a fixture, which are in the range of the networks.
fn to_unit(x: Tensor<4>) -> Tensor<4> {
    (x + 1.0) * 0.5
}

#[test]
fn autoencoder_kl_matches_diffusers() {
    for case in cases("autoencoder-kl", &AUTOENCODER_KL) {
        let loaded = AutoencoderKl::from_pretrained(case.model_dir(), &flex()).unwrap();
        assert!(loaded.unused_fields.is_empty(), "{}: {loaded}", case.name);
        assert!(loaded.unused_tensors.is_empty(), "{}: {loaded}", case.name);
        // The only note is that of a field without effect.
        assert_eq!(loaded.notes.len(), 1, "{}: {loaded}", case.name);
        assert!(loaded.notes[0].contains("force_upcast"), "{loaded}");
        let model = loaded.into_inner();
        let first_stage: &dyn Autoencoder = &model;
        let decode = |z| Vae::<4, 4>::decode(&model, z).mean() * 2.0 - 1.0;

        let images = to_unit(case.tensor("image"));
        let posterior = Vae::<4, 4>::encode(&model, images.clone());
        let (mean, logvar) = (posterior.mean.clone(), posterior.logvar.clone());
        case.check("mean", mean.clone(), case.tensor("mean"));
        case.check("logvar", logvar.clone(), case.tensor("logvar"));
        let scaled = model.scale_latents(case.tensor("mean"));
        case.check("mean, scaled", first_stage.encode(images).mode(), scaled);
        match case.json["kind"].as_str() {
            Some("AutoencoderKL") => {
                case.check("kl", posterior.kl(), case.tensor("kl"));
                case.check("decoded", decode(mean), case.tensor("decoded"));
            }
            Some("prompt-net") => {
                let outputs = json!(["decoded", "decoded_mean", "latents", "logvar", "mean"]);
                assert_eq!(case.json["outputs"], outputs, "{}", case.name);
                let z = mean.clone() + (logvar * 0.5).exp() * case.tensor("noise");
                case.check("latents", model.scale_latents(z), case.tensor("latents"));
                case.check("decoded_mean", decode(mean), case.tensor("decoded_mean"));
                let (z, expected) = (case.tensor::<4>("z"), case.tensor::<4>("decoded"));
                let decoded = decode(model.unscale_latents(z.clone()));
                case.check("decoded", decoded, expected.clone());
                let expected = to_unit(expected).clamp(0.0, 1.0);
                case.check("decoded", first_stage.decode(z), expected);
            }
            kind => panic!("{}: unknown kind {kind:?}", case.name),
        }
    }
}

#[test]
fn vq_model_matches_diffusers() {
    for case in cases("vq", &["vq"]) {
        let loaded = VqModel::from_pretrained(case.model_dir(), &flex()).unwrap();
        assert!(loaded.warnings().is_empty(), "{}: {loaded}", case.name);
        assert_eq!(case.json["kind"], "VQModel", "{}", case.name);
        let model = loaded.into_inner();
        let images = to_unit(case.tensor("image"));
        let posterior = Vae::<4, 4>::encode(&model, images.clone());
        case.check("latents", posterior.latents.clone(), case.tensor("latents"));
        let indices: Vec<i64> = posterior.indices.clone().into_data().iter().collect();
        assert_eq!(
            indices,
            case.tensors.read_int("indices").unwrap(),
            "{}",
            case.name
        );
        let quantized = posterior.quantized.clone();
        case.check("quantized", quantized.clone(), case.tensor("quantized"));
        let straight_through = posterior.sample(&mut Rng::new(0));
        case.check("quantized", straight_through, case.tensor("quantized"));
        let expected = case.tensor::<4>("decoded");
        let [batch, _, height, width] = quantized.dims();
        let indices = posterior.indices.reshape([batch, height, width]);
        for decoded in [
            Vae::<4, 4>::decode(&model, quantized),
            model.decode_indices(indices),
        ] {
            case.check("decoded", decoded.mean() * 2.0 - 1.0, expected.clone());
        }
        let first_stage: &dyn Autoencoder = &model;
        let z = first_stage.encode(images).mode();
        let latents = case.tensor::<4>("latents") * model.config().scaling_factor;
        case.check("latents, scaled", z.clone(), latents);
        let expected = to_unit(expected).clamp(0.0, 1.0);
        case.check("decoded", first_stage.decode(z), expected);
    }
}
