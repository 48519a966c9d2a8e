//! U-nets and ControlNets against diffusers.

use crate::cases::{Case, every, is_net};
use aigc_core::{
    device::device,
    weights::{OpenOptions, WeightDtype},
};
use aigc_diffusion::{
    AnyDenoiser, Conditioning, ControlNetModel, ControlResiduals, UNet2dConditionModel,
};
use burn::tensor::{Int, Tensor};

/// Weights in half precision.
const HALF: &str = "diffusion_pytorch_model.fp16.safetensors";

/// The conditions that are among the tensors of a case.
fn conditions(case: &Case) -> Conditioning {
    Conditioning {
        class_labels: labels(case),
        class_embeddings: optional(case, "class_embeddings"),
        encoder_hidden_states: optional(case, "encoder_hidden_states"),
        encoder_attention_mask: case
            .has("encoder_attention_mask")
            .then(|| case.mask("encoder_attention_mask")),
        pooled_projections: optional(case, "text_embeds"),
        time_ids: optional(case, "time_ids"),
        residuals: residuals(case),
        ..Conditioning::default()
    }
}

fn optional<const D: usize>(case: &Case, name: &str) -> Option<Tensor<D>> {
    case.has(name).then(|| case.float(name))
}

fn labels(case: &Case) -> Option<Tensor<1, Int>> {
    case.has("class_labels").then(|| case.int("class_labels"))
}

/// `residual.00`, `residual.01`, … and `mid_residual`.
fn residuals(case: &Case) -> Option<ControlResiduals> {
    let names = case.names();
    let down = names.iter().filter(|name| name.starts_with("residual."));
    let down: Vec<Tensor<4>> = down.map(|name| case.float(name)).collect();
    (!down.is_empty()).then(|| ControlResiduals {
        down,
        mid: case.float("mid_residual"),
    })
}

/// Times are integers in files.
fn time(case: &Case) -> Tensor<1> {
    case.float("timestep")
}

pub(crate) fn is_unet(case: &Case) -> bool {
    is_net(case, &["UNet2DConditionModel"])
}

#[test]
fn unets() {
    every(is_unet, |case| {
        let flex = device("flex").unwrap();
        let network = UNet2dConditionModel::from_pretrained(case.path("model"), &flex).unwrap();
        assert!(
            network.unused_fields.is_empty() && network.unused_tensors.is_empty(),
            "{network}"
        );
        let call = |network: &UNet2dConditionModel| {
            network.forward_with_timestep_cond(
                case.float("sample"),
                time(case),
                &conditions(case),
                optional(case, "timestep_cond"),
            )
        };
        case.assert_close("output", &call(&network), 1e-4);
        if case.path("model").join(HALF).exists() {
            // Weights that stay in half precision.
            let options = OpenOptions::default().with_dtype(WeightDtype::Stored);
            let half =
                UNet2dConditionModel::from_pretrained_with(case.path("model"), &options, &flex);
            case.assert_close("output", &call(&half.unwrap()), 1e-4);
        }
        // The same after saving, through the enum of all networks.
        let dir = tempfile::tempdir().unwrap();
        let network = AnyDenoiser::from(network.into_inner());
        network.save_pretrained(dir.path()).unwrap();
        let again = UNet2dConditionModel::from_pretrained(dir.path(), &flex).unwrap();
        case.assert_close("output", &call(&again), 1e-4);
    });
}

pub(crate) fn is_controlnet(case: &Case) -> bool {
    is_net(case, &["ControlNetModel"])
}

#[test]
fn controlnets() {
    every(is_controlnet, |case| {
        let flex = device("flex").unwrap();
        let network = ControlNetModel::from_pretrained(case.path("model"), &flex).unwrap();
        assert!(
            network.unused_fields.is_empty() && network.unused_tensors.is_empty(),
            "{network}"
        );
        let options = &case.json["options"];
        let scale = options["conditioning_scale"].as_f64().unwrap_or(1.0);
        let guess_mode = options["guess_mode"].as_bool().unwrap_or(false);
        let call = |network: &ControlNetModel| {
            let residuals = network.forward(
                case.float("sample"),
                time(case),
                case.float("controlnet_cond"),
                &conditions(case),
                scale,
                guess_mode,
            );
            let down = case.names();
            let down = down.iter().filter(|name| name.starts_with("down."));
            assert_eq!(down.count(), residuals.down.len());
            for (i, map) in residuals.down.iter().enumerate() {
                case.assert_close(&format!("down.{i:02}"), map, 1e-4);
            }
            case.assert_close("mid", &residuals.mid, 1e-4);
        };
        call(&network);
        let dir = tempfile::tempdir().unwrap();
        network.save_pretrained(dir.path()).unwrap();
        call(&ControlNetModel::from_pretrained(dir.path(), &flex).unwrap());
    });
}
