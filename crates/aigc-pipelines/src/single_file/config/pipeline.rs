//! Configurations of schedulers, and indices of pipelines.

use super::{Fields, set, template, text_of};
use crate::single_file::Family;
use aigc_diffusion::PredictionType;
use serde_json::{Value, json};

/// `scheduler_config.json` of a family.
pub(crate) fn scheduler(family: Family, prediction: PredictionType, zero_snr: bool) -> String {
    let betas = json!({
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "steps_offset": 1,
        "prediction_type": prediction,
        "timestep_spacing": "leading",
        "trained_betas": null,
    });
    let more = match family {
        Family::StableDiffusion3 => json!({
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "num_train_timesteps": 1000,
            "shift": 3.0,
        }),
        Family::FluxDev => json!({
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "base_image_seq_len": 256,
            "base_shift": 0.5,
            "max_image_seq_len": 4096,
            "max_shift": 1.15,
            "num_train_timesteps": 1000,
            "shift": 3.0,
            "use_dynamic_shifting": true,
        }),
        Family::FluxSchnell => json!({
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "num_train_timesteps": 1000,
            "shift": 1.0,
            "use_dynamic_shifting": false,
        }),
        Family::StableDiffusion1 => json!({
            "_class_name": "PNDMScheduler",
            "set_alpha_to_one": false,
            "skip_prk_steps": true,
        }),
        Family::LatentConsistency => json!({
            "_class_name": "LCMScheduler",
            "clip_sample": false,
            "original_inference_steps": 50,
            "set_alpha_to_one": true,
            "timestep_scaling": 10.0,
        }),
        _ if family.is_xl() => json!({
            "_class_name": "EulerDiscreteScheduler",
            "interpolation_type": "linear",
            "rescale_betas_zero_snr": zero_snr,
            "use_karras_sigmas": false,
        }),
        _ => json!({
            "_class_name": "DDIMScheduler",
            "clip_sample": false,
            "rescale_betas_zero_snr": zero_snr,
            "set_alpha_to_one": false,
        }),
    };
    let mut fields = Fields::new();
    let parts = [(!family.is_flow()).then_some(betas), Some(more)];
    for part in parts.into_iter().flatten() {
        if let Value::Object(part) = part {
            fields.extend(part);
        }
    }
    text_of(fields)
}

/// `model_index.json` of a family.
pub(crate) fn model_index(family: Family, scheduler: &str) -> String {
    let scheduler: Fields = template(scheduler);
    let network = match family {
        Family::StableDiffusion3 => "SD3Transformer2DModel",
        Family::FluxDev | Family::FluxSchnell => "FluxTransformer2DModel",
        _ => "UNet2DConditionModel",
    };
    let mut fields = Fields::new();
    set(
        &mut fields,
        [
            ("_class_name", json!(family.pipeline_class())),
            (family.network(), json!(["diffusers", network])),
            ("vae", json!(["diffusers", "AutoencoderKL"])),
            ("scheduler", json!(["diffusers", scheduler["_class_name"]])),
        ],
    );
    for (name, place) in family.text_encoders() {
        let projected = family.is_projected(name);
        let (model, tokenizer) = match (place.is_t5(), projected) {
            (true, _) => ("T5EncoderModel", "T5TokenizerFast"),
            (false, true) => ("CLIPTextModelWithProjection", "CLIPTokenizer"),
            (false, false) => ("CLIPTextModel", "CLIPTokenizer"),
        };
        fields.insert(name.into(), json!(["transformers", model]));
        let name = name.replace("text_encoder", "tokenizer");
        fields.insert(name, json!(["transformers", tokenizer]));
    }
    if family.is_xl() {
        let refiner = family == Family::StableDiffusionXlRefiner;
        set(
            &mut fields,
            [("force_zeros_for_empty_prompt", json!(!refiner))],
        );
        if refiner {
            set(
                &mut fields,
                [
                    ("requires_aesthetics_score", json!(true)),
                    ("text_encoder", json!([null, null])),
                    ("tokenizer", json!([null, null])),
                ],
            );
        }
    } else if family.network() == "unet" {
        set(
            &mut fields,
            [
                ("feature_extractor", json!([null, null])),
                ("requires_safety_checker", json!(false)),
                ("safety_checker", json!([null, null])),
            ],
        );
    }
    text_of(fields)
}
