//! Autoencoders in diffusers' layout.

use crate::{
    cases::{Case, every, is_net},
    differences::tensors_apart,
};
use aigc_core::{CancelToken, device::device, encoder::Autoencoder, weights::WeightReader};
use aigc_vae::{AutoencoderKl, AutoencoderTiny, TileConfig, Vae};
use burn::tensor::Tensor;
use std::path::Path;

const TOLERANCE: f64 = 1e-4;

/// Images in `[−1, 1]`, as the networks and the cases have them, in `[0, 1]`, and back.
fn to_unit(images: Tensor<4>) -> Tensor<4> {
    (images + 1.0) * 0.5
}

fn from_unit(images: Tensor<4>) -> Tensor<4> {
    images * 2.0 - 1.0
}

fn check_kl(case: &Case, model: &AutoencoderKl) {
    let image = to_unit(case.float("image"));
    let posterior = Vae::<4, 4>::encode(model, image.clone());
    case.assert_close("mean", &posterior.mean, TOLERANCE);
    case.assert_close("logvar", &posterior.logvar, TOLERANCE);
    let noise: Tensor<4> = case.float("noise");
    let z = posterior.mean.clone() + (posterior.logvar.clone() * 0.5).exp() * noise;
    case.assert_close("latents", &model.scale_latents(z), TOLERANCE);
    let decoded = Vae::<4, 4>::decode(model, posterior.mean.clone()).mean();
    case.assert_close("decoded_mean", &from_unit(decoded), TOLERANCE);
    let z = model.unscale_latents(case.float("z"));
    let decoded = from_unit(Vae::<4, 4>::decode(model, z.clone()).mean());
    case.assert_close("decoded", &decoded, TOLERANCE);
    // As the first stage of latent diffusion: clamped, and the mode is the scaled mean.
    let stage: &dyn Autoencoder = model;
    let mode = model.scale_latents(posterior.mean);
    let apart = tensors_apart(stage.encode(image).mode(), mode);
    assert!(apart < 1e-4, "scaled mean: {apart:.1e}");
    let clamped = to_unit(decoded).clamp(0.0, 1.0);
    let apart = tensors_apart(stage.decode(case.float("z")), clamped);
    assert!(apart < 1e-5, "clamped image: {apart:.1e}");
    // One tile is the whole image.
    let tiles = TileConfig::new(1 << 10);
    let tiled = model.decode_tiled(z, &tiles, &CancelToken::new()).unwrap();
    case.assert_close("decoded", &from_unit(tiled), TOLERANCE);
}

fn check_tiny(case: &Case, model: &AutoencoderTiny) {
    let latents = model.latents(to_unit(case.float("image")));
    case.assert_close("latents", &latents, TOLERANCE);
    case.assert_close("scaled", &model.scale_latents(latents), TOLERANCE);
    let z: Tensor<4> = case.float("z");
    let sigmoid = burn::tensor::activation::sigmoid(z.clone());
    case.assert_close("unscaled", &model.unscale_latents(sigmoid), TOLERANCE);
    case.assert_close("decoded", &from_unit(model.images(z)), TOLERANCE);
}

fn names(dir: &Path) -> Vec<String> {
    let files = WeightReader::from_dir(dir, &["diffusion_pytorch_model"]).unwrap();
    files.names().map(str::to_owned).collect()
}

pub(crate) fn is_kl(case: &Case) -> bool {
    is_net(case, &["AutoencoderKL"])
}

#[test]
fn autoencoder_kl_matches_diffusers() {
    every(is_kl, |case| {
        let device = device("flex").unwrap();
        let model = AutoencoderKl::from_pretrained(case.path("model"), &device).unwrap();
        assert!(model.unused_tensors.is_empty(), "{model}");
        assert!(model.unused_fields.is_empty(), "{model}");
        check_kl(case, &model);
        let dir = tempfile::tempdir().unwrap();
        model.save_pretrained(dir.path()).unwrap();
        check_kl(
            case,
            &AutoencoderKl::from_pretrained(dir.path(), &device).unwrap(),
        );
    });
}

pub(crate) fn is_tiny(case: &Case) -> bool {
    is_net(case, &["AutoencoderTiny"])
}

#[test]
fn autoencoder_tiny_matches_diffusers() {
    every(is_tiny, |case| {
        let device = device("flex").unwrap();
        let model = AutoencoderTiny::from_pretrained(case.path("model"), &device).unwrap();
        assert!(model.warnings().is_empty(), "{model}");
        check_tiny(case, &model);
        let dir = tempfile::tempdir().unwrap();
        model.save_pretrained(dir.path()).unwrap();
        assert_eq!(names(dir.path()), names(&case.path("model")));
        let again = AutoencoderTiny::from_pretrained(dir.path(), &device).unwrap();
        assert!(again.warnings().is_empty(), "{again}");
        check_tiny(case, &again);
    });
}
