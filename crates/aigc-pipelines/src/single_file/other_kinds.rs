//! What a file is that is no checkpoint of a known model.

use super::scope::{Scope, Shapes};

/// Beginnings of names, and what a file with such names is. The first one that is found counts.
const KINDS: [(&str, &str); 31] = {
    const LORA: &str = "low-rank adapters; open them with `Lora::open`";
    const INVERSION: &str = "a textual inversion; open it with `TextualInversion::open`";
    const DIFFUSERS: &str = "a network in diffusers' layout; open its directory";
    const AUTOENCODER: &str = "an autoencoder without a network; open the whole checkpoint";
    const ENCODER: &str = "a text encoder without a network; open the whole checkpoint";
    const PIXART: &str = "a transformer of the kind of PixArt in its first layout; open a directory \
                          of diffusers";
    [
        ("lora_", LORA),
        ("lllite_", "a ControlNet-LLLite"),
        (
            "control_model.",
            "a ControlNet in its first layout; open a directory of diffusers",
        ),
        (
            "controlnet_cond_embedding.",
            "a ControlNet in diffusers' layout; open its directory with \
             `TextToImagePipeline::with_controlnet_from`",
        ),
        ("adapter.body.", "a T2I-Adapter"),
        ("ip_adapter.", "an IP-Adapter"),
        ("image_proj.", "an IP-Adapter"),
        ("redux_", "FLUX.1 Redux, which prepares images for FLUX.1"),
        ("emb_params", INVERSION),
        ("string_to_param.", INVERSION),
        ("clip_l", INVERSION),
        ("clip_g", INVERSION),
        ("down_blocks.", DIFFUSERS),
        ("transformer_blocks.", DIFFUSERS),
        ("single_transformer_blocks.", DIFFUSERS),
        ("unet.", DIFFUSERS),
        (
            "model_ema.",
            "averaged weights without the plain ones, which name the layers",
        ),
        ("first_stage_model.", AUTOENCODER),
        ("vae.", AUTOENCODER),
        ("decoder.conv_in.", AUTOENCODER),
        ("encoder.conv_in.", AUTOENCODER),
        ("quant_conv.", AUTOENCODER),
        ("text_model.", ENCODER),
        ("text_encoders.", ENCODER),
        ("cond_stage_model.", ENCODER),
        ("conditioner.", ENCODER),
        ("transformer.resblocks.", ENCODER),
        ("encoder.block.", ENCODER),
        ("vision_model.", "a vision encoder"),
        ("t_block.", PIXART),
        ("double_layers.", "a transformer of the kind of AuraFlow"),
    ]
};

/// Parts of the names of adapters, in any of their layouts.
const ADAPTERS: [&str; 10] = [
    ".lora_A.",
    ".lora_B.",
    ".lora_up.",
    ".lora_down.",
    ".lora.up.",
    ".lora.down.",
    "_lora.up.",
    "_lora.down.",
    ".hada_w1",
    ".lokr_w1",
];

/// Parts of the names of factors that go with quantised weights.
const QUANTISED: [&str; 6] = [
    ".scale_weight",
    ".weight_scale",
    "scaled_fp8",
    ".comfy_quant",
    ".absmax",
    ".quant_state.",
];

fn found<'a>(shapes: &'a Shapes, parts: &[&str]) -> Option<&'a String> {
    let mut names = shapes.keys();
    names.find(|name| parts.iter().any(|part| name.contains(part)))
}

/// What a file is that changes the network of another one; its tensors may have the names of
/// networks too.
pub(super) fn change(shapes: &Shapes) -> Option<String> {
    if let Some(name) = found(shapes, &ADAPTERS) {
        return Some(format!(
            "low-rank adapters, such as {name}; open them with `Lora::open`"
        ));
    }
    let name = found(shapes, &[".motion_modules."])?;
    Some(format!("a motion module of AnimateDiff, such as {name}"))
}

/// What a file is whose weights are not their values.
pub(super) fn quantised(shapes: &Shapes) -> Option<String> {
    let name = found(shapes, &QUANTISED)?;
    Some(format!(
        "quantised weights with factors of their own ({name}); open a checkpoint in 8, 16 or 32 \
         bits without them"
    ))
}

/// What a file without a known network is or looks like.
pub(super) fn other_kind(shapes: &Shapes) -> String {
    let all = Scope::new(shapes, "");
    if let Some((_, kind)) = KINDS.iter().find(|(start, _)| all.any(start)) {
        return (*kind).into();
    }
    let some: Vec<&str> = shapes.keys().take(4).map(String::as_str).collect();
    match shapes.len() {
        0 => "a file without tensors".into(),
        n => format!(
            "a checkpoint of an unknown kind with {n} tensors, such as {}",
            some.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::detect::detect, *};
    use std::path::Path;

    fn of(name: &str) -> String {
        let shapes = Shapes::from([(name.to_owned(), vec![1])]);
        detect(Path::new("a.bin"), &shapes).unwrap_err().to_string()
    }

    #[test]
    fn other_files_are_named() {
        for (name, kind) in [
            ("lora_unet_mid_block.alpha", "Lora::open"),
            (
                "unet.mid_block.attentions.0.proj_in.lora_A.weight",
                "Lora::open",
            ),
            (
                "transformer.single_transformer_blocks.0.attn.to_q.lora_B.weight",
                "Lora::open",
            ),
            ("double_blocks.0.img_attn.proj.lora_A.weight", "Lora::open"),
            (
                "diffusion_model.input_blocks.1.1.proj_in.lora_up.weight",
                "Lora::open",
            ),
            (
                "down_blocks.0.motion_modules.0.temporal_transformer.norm.bias",
                "AnimateDiff",
            ),
            (
                "control_model.time_embed.0.weight",
                "a ControlNet in its first layout",
            ),
            (
                "controlnet_cond_embedding.conv_in.bias",
                "with_controlnet_from",
            ),
            ("mid_block.resnets.0.conv1.bias", "an unknown kind"),
            ("down_blocks.0.resnets.0.conv1.bias", "diffusers' layout"),
            ("emb_params", "TextualInversion::open"),
            ("clip_g", "TextualInversion::open"),
            (
                "first_stage_model.decoder.conv_in.bias",
                "an autoencoder without a network",
            ),
            ("decoder.conv_in.bias", "an autoencoder without a network"),
            (
                "text_encoders.clip_l.logit_scale",
                "a text encoder without a network",
            ),
            (
                "encoder.block.0.layer.0.layer_norm.weight",
                "a text encoder",
            ),
            (
                "double_blocks.0.img_mod.lin.scale_weight",
                "quantised weights",
            ),
            ("some.weight", "1 tensors, such as some.weight"),
        ] {
            let error = of(name);
            assert!(error.contains(kind), "{name}: {error}");
            assert!(error.contains("a.bin: "), "{error}");
        }
        let empty = detect(Path::new("a.bin"), &Shapes::new());
        let empty = empty.unwrap_err().to_string();
        assert!(empty.contains("without tensors"), "{empty}");
    }
}
