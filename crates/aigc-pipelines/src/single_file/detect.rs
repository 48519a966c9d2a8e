//! Which model a checkpoint is of, by the names and shapes of its tensors.

use super::{
    Family,
    other_kinds::{change, other_kind, quantised},
    scope::{Scope, Shapes},
    text::PLACES,
    unet::GUIDED,
};
use aigc_core::{Error, Result};
use std::path::Path;

/// Prefixes of the denoising network's names: of whole checkpoints, and of files with the network
/// only.
const NETWORKS: [&str; 3] = ["model.diffusion_model.", "diffusion_model.", ""];

/// The family of a file, and the prefix of its network.
///
/// # Errors
/// [`Error::Unsupported`] with what the file is or looks like, and the known families.
pub(crate) fn detect(path: &Path, shapes: &Shapes) -> Result<(Family, &'static str)> {
    let network = NETWORKS
        .into_iter()
        .find(|prefix| is_network(Scope::new(shapes, prefix)));
    let found = match (change(shapes).or_else(|| quantised(shapes)), network) {
        (Some(other), _) => Err(other),
        (None, Some(prefix)) => {
            of_network(shapes, Scope::new(shapes, prefix)).map(|family| (family, prefix))
        }
        (None, None) => Err(other_kind(shapes)),
    };
    found.map_err(|kind| {
        let names: Vec<&str> = Family::ALL.iter().map(|family| family.name()).collect();
        Error::unsupported(
            format!("{}: {kind}", path.display()),
            "SingleFile",
            format!("known kinds: {}", names.join(", ")),
        )
    })
}

fn is_network(scope: Scope<'_>) -> bool {
    scope.has("input_blocks.0.0.weight")
        || scope.any("joint_blocks.0.")
        || scope.any("double_blocks.0.")
}

/// The family of a network; else what it is.
fn of_network(shapes: &Shapes, scope: Scope<'_>) -> Result<Family, String> {
    if scope.any("joint_blocks.0.") {
        return Ok(Family::StableDiffusion3);
    }
    if scope.any("double_blocks.0.") {
        return flux(scope);
    }
    let all = Scope::new(shapes, "");
    if all.has("edm_mean") {
        return Err("a network of the kind of Playground 2.5".into());
    }
    if all.any("edm_vpred.") {
        return Err("a network of the kind of CosXL".into());
    }
    let channels = scope.shape("input_blocks.0.0.weight").unwrap_or_default();
    let channels = channels.get(1).copied().unwrap_or(0);
    let inpainting = match channels {
        4 => false,
        9 => true,
        5 => return Err("a network with 5 input channels, as for images by depth".into()),
        7 => return Err("a network with 7 input channels, as for upscaling".into()),
        8 => {
            let kind = "a network with 8 input channels, as for editing by instruction \
                        (InstructPix2Pix), for which there is no pipeline here";
            return Err(kind.into());
        }
        other => return Err(format!("a network with {other} input channels")),
    };
    let choose = |plain, other| if inpainting { other } else { plain };
    if scope.any("label_emb.") {
        return xl(shapes, scope, inpainting);
    }
    if is_version_2(shapes, scope) {
        return Ok(choose(
            Family::StableDiffusion2,
            Family::StableDiffusion2Inpainting,
        ));
    }
    if GUIDED.iter().any(|layer| scope.any(&format!("{layer}."))) {
        return match inpainting {
            false => Ok(Family::LatentConsistency),
            true => Err("a latent consistency model for inpainting".into()),
        };
    }
    Ok(choose(
        Family::StableDiffusion1,
        Family::StableDiffusion1Inpainting,
    ))
}

/// Whether a network without sizes is of version 2: its text encoder says it. Without that, the
/// width of prompts does, or that the matrices around attention are no convolutions.
fn is_version_2(shapes: &Shapes, scope: Scope<'_>) -> bool {
    if PLACES[0].is_in(shapes) || PLACES[1].is_in(shapes) {
        return PLACES[1].is_in(shapes);
    }
    let attention = "input_blocks.1.1";
    let keys = format!("{attention}.transformer_blocks.0.attn2.to_k.weight");
    match scope.shape(&keys) {
        Some([_, 768]) => false,
        Some([_, 1024]) => true,
        _ => {
            let matrix = scope.shape(&format!("{attention}.proj_in.weight"));
            matrix.is_some_and(|shape| shape.len() == 2)
        }
    }
}

fn xl(shapes: &Shapes, scope: Scope<'_>, inpainting: bool) -> Result<Family, String> {
    let [sd1, sd2, xl, refiner, xl_2, ..] = PLACES;
    if sd1.is_in(shapes) || sd2.is_in(shapes) || !scope.has("label_emb.0.0.weight") {
        return Err("a network of Stable Diffusion 2 with image embeddings or noise levels".into());
    }
    // Without text encoders: the refiner alone begins without attention and has four sizes.
    let base = xl.is_in(shapes) || xl_2.is_in(shapes);
    let four_sizes = scope.any("input_blocks.9.0.op.");
    match (!base && (refiner.is_in(shapes) || four_sizes), inpainting) {
        (true, false) => Ok(Family::StableDiffusionXlRefiner),
        (true, true) => Err("a refiner for inpainting".into()),
        (false, false) => Ok(Family::StableDiffusionXl),
        (false, true) => Ok(Family::StableDiffusionXlInpainting),
    }
}

fn flux(scope: Scope<'_>) -> Result<Family, String> {
    for (start, kind) in [
        ("txt_in.individual_token_refiner.", "HunyuanVideo"),
        ("distilled_guidance_layer.", "Chroma"),
        ("double_stream_modulation_img.", "FLUX.2"),
    ] {
        if scope.any(start) {
            return Err(format!("a transformer of the kind of {kind}"));
        }
    }
    for name in [
        "double_blocks.0.img_mod.lin.weight",
        "vector_in.in_layer.weight",
    ] {
        if !scope.has(name) {
            return Err(format!("a transformer like FLUX.1's without {name}"));
        }
    }
    let columns = |name: &str| scope.shape(name).and_then(|shape| shape.get(1)).copied();
    let rows = |name: &str| scope.shape(name).and_then(|shape| shape.first()).copied();
    let (input, output) = (columns("img_in.weight"), rows("final_layer.linear.weight"));
    if let (Some(input), Some(output)) = (input, output)
        && input != output
    {
        // Latents, then those of the masked image and the mask in 8×8 pixels; or of one image.
        let (model, class) = match input.checked_div(output) {
            Some(6) => ("FLUX.1 Fill", "FluxFillPipeline"),
            Some(2) => ("FLUX.1 Depth or Canny", "FluxControlPipeline"),
            _ => ("a FLUX.1 transformer", "FluxPipeline"),
        };
        return Err(format!(
            "{model} with {input} input and {output} output channels, for which there is no \
             pipeline here ({class} in diffusers); FLUX.1 dev and schnell have as many input as \
             output channels, and fill a mask too"
        ));
    }
    Ok(match scope.any("guidance_in.") {
        true => Family::FluxDev,
        false => Family::FluxSchnell,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(names: &[(&str, &[usize])]) -> Shapes {
        let entry = |(name, shape): &(&str, &[usize])| (name.to_string(), shape.to_vec());
        names.iter().map(entry).collect()
    }

    const UNET: &str = "model.diffusion_model.input_blocks.0.0.weight";

    fn detected(more: &[(&str, &[usize])], channels: usize) -> Result<Family, String> {
        let mut shapes = file(more);
        shapes.insert(UNET.into(), vec![320, channels, 3, 3]);
        let found = detect(Path::new("a.safetensors"), &shapes);
        found
            .map(|(family, _)| family)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn families_are_told_apart() {
        let sd1 = (
            "cond_stage_model.transformer.text_model.final_layer_norm.bias",
            &[768][..],
        );
        let sd2 = (
            "cond_stage_model.model.transformer.resblocks.0.ln_1.bias",
            &[1024][..],
        );
        let xl = (
            "conditioner.embedders.1.model.transformer.resblocks.0.ln_1.bias",
            &[9][..],
        );
        let refiner = (
            "conditioner.embedders.0.model.transformer.resblocks.0.ln_1.bias",
            &[9][..],
        );
        let sizes = (
            "model.diffusion_model.label_emb.0.0.weight",
            &[1280, 2816][..],
        );
        let guided = (
            "model.diffusion_model.time_embed.cond_proj.weight",
            &[320, 256][..],
        );
        let matrix = (
            "model.diffusion_model.input_blocks.1.1.proj_in.weight",
            &[9, 9][..],
        );
        let convolution = (
            "model.diffusion_model.input_blocks.1.1.proj_in.weight",
            &[9, 9, 1, 1][..],
        );
        let keys = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight";
        for (names, channels, family) in [
            (
                &[(keys, &[320, 768][..]), matrix][..],
                4,
                Family::StableDiffusion1,
            ),
            (&[(keys, &[320, 1024][..])], 4, Family::StableDiffusion2),
            (&[sd1], 4, Family::StableDiffusion1),
            (&[sd1, matrix], 4, Family::StableDiffusion1),
            (&[convolution], 4, Family::StableDiffusion1),
            (&[sd1], 9, Family::StableDiffusion1Inpainting),
            (&[sd1, guided], 4, Family::LatentConsistency),
            (&[sd2], 4, Family::StableDiffusion2),
            (&[matrix], 4, Family::StableDiffusion2),
            (&[sd2], 9, Family::StableDiffusion2Inpainting),
            (&[xl, sizes], 4, Family::StableDiffusionXl),
            (&[sizes], 4, Family::StableDiffusionXl),
            (&[xl, sizes], 9, Family::StableDiffusionXlInpainting),
            (&[refiner, sizes], 4, Family::StableDiffusionXlRefiner),
        ] {
            assert_eq!(detected(names, channels), Ok(family), "{names:?}");
        }
        for (names, channels, kind) in [
            (&[sd1][..], 8, "editing by instruction"),
            (&[sd2], 5, "images by depth"),
            (&[sd2, sizes], 4, "image embeddings"),
            (&[("edm_mean", &[4][..])], 4, "Playground"),
            (&[("edm_vpred.sigma_max", &[1][..])], 4, "CosXL"),
            (&[sd1], 77, "77 input channels"),
        ] {
            let error = detected(names, channels).unwrap_err();
            assert!(error.contains(kind), "{error}");
            assert!(
                error.contains("known kinds: Stable Diffusion 1, "),
                "{error}"
            );
        }
    }

    #[test]
    fn transformers_are_told_apart() {
        let of = |names: &[(&str, &[usize])]| {
            let found = detect(Path::new("a.safetensors"), &file(names));
            found.map_err(|error| error.to_string())
        };
        let flux = [
            ("double_blocks.0.img_mod.lin.weight", &[9, 9][..]),
            ("vector_in.in_layer.weight", &[9, 9]),
            ("img_in.weight", &[9, 64]),
            ("final_layer.linear.weight", &[64, 9]),
        ];
        assert_eq!(of(&flux), Ok((Family::FluxSchnell, "")));
        let mut dev = flux.to_vec();
        dev.push(("guidance_in.in_layer.weight", &[9, 9]));
        assert_eq!(of(&dev), Ok((Family::FluxDev, "")));
        dev[2].1 = &[9, 384];
        let fill = of(&dev).unwrap_err();
        assert!(
            fill.contains("FLUX.1 Fill with 384 input and 64 output"),
            "{fill}"
        );
        dev[2].1 = &[9, 128];
        let control = of(&dev).unwrap_err();
        assert!(
            control.contains("FLUX.1 Depth or Canny with 128 input"),
            "{control}"
        );
        assert!(control.contains("FluxControlPipeline"), "{control}");
        assert!(of(&dev[..1]).unwrap_err().contains("without vector_in"));
        let sd3 = "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight";
        let found = of(&[(sd3, &[9, 9])]);
        assert_eq!(
            found,
            Ok((Family::StableDiffusion3, "model.diffusion_model."))
        );
    }
}
