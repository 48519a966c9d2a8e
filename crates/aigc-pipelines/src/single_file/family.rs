//! Which model a checkpoint is of, by the names and shapes of its tensors.

use super::{
    scope::{Scope, Shapes},
    text::{PLACES, TextEncoderAt},
    unet::GUIDED,
};
use aigc_core::{Error, Result};
use std::{fmt::Display, path::Path};

/// The model that a single-file checkpoint holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// Stable Diffusion 1.1 to 1.5.
    StableDiffusion1,
    /// Stable Diffusion 1.5 with a mask and a masked image as further channels.
    StableDiffusion1Inpainting,
    /// Stable Diffusion 2.0 and 2.1, which predict the noise or `v`.
    StableDiffusion2,
    /// Stable Diffusion 2 with a mask and a masked image as further channels.
    StableDiffusion2Inpainting,
    /// Stable Diffusion XL, also Turbo and Lightning.
    StableDiffusionXl,
    /// Stable Diffusion XL with a mask and a masked image as further channels.
    StableDiffusionXlInpainting,
    /// The refiner of Stable Diffusion XL.
    StableDiffusionXlRefiner,
    /// A latent consistency model of Stable Diffusion 1's shape, with embedded guidance.
    LatentConsistency,
    /// Stable Diffusion 3 and 3.5.
    StableDiffusion3,
    /// FLUX.1 dev, with embedded guidance.
    FluxDev,
    /// FLUX.1 schnell.
    FluxSchnell,
}

impl Family {
    /// All families.
    pub const ALL: [Self; 11] = [
        Self::StableDiffusion1,
        Self::StableDiffusion1Inpainting,
        Self::StableDiffusion2,
        Self::StableDiffusion2Inpainting,
        Self::StableDiffusionXl,
        Self::StableDiffusionXlInpainting,
        Self::StableDiffusionXlRefiner,
        Self::LatentConsistency,
        Self::StableDiffusion3,
        Self::FluxDev,
        Self::FluxSchnell,
    ];

    /// The usual name.
    pub fn name(self) -> &'static str {
        match self {
            Self::StableDiffusion1 => "Stable Diffusion 1",
            Self::StableDiffusion1Inpainting => "Stable Diffusion 1 inpainting",
            Self::StableDiffusion2 => "Stable Diffusion 2",
            Self::StableDiffusion2Inpainting => "Stable Diffusion 2 inpainting",
            Self::StableDiffusionXl => "Stable Diffusion XL",
            Self::StableDiffusionXlInpainting => "Stable Diffusion XL inpainting",
            Self::StableDiffusionXlRefiner => "Stable Diffusion XL refiner",
            Self::LatentConsistency => "latent consistency model",
            Self::StableDiffusion3 => "Stable Diffusion 3",
            Self::FluxDev => "FLUX.1 dev",
            Self::FluxSchnell => "FLUX.1 schnell",
        }
    }

    /// diffusers' class of the pipeline.
    pub fn pipeline_class(self) -> &'static str {
        match self {
            Self::StableDiffusion1 | Self::StableDiffusion2 => "StableDiffusionPipeline",
            Self::StableDiffusion1Inpainting | Self::StableDiffusion2Inpainting => {
                "StableDiffusionInpaintPipeline"
            }
            Self::StableDiffusionXl => "StableDiffusionXLPipeline",
            Self::StableDiffusionXlInpainting => "StableDiffusionXLInpaintPipeline",
            Self::StableDiffusionXlRefiner => "StableDiffusionXLImg2ImgPipeline",
            Self::LatentConsistency => "LatentConsistencyModelPipeline",
            Self::StableDiffusion3 => "StableDiffusion3Pipeline",
            Self::FluxDev | Self::FluxSchnell => "FluxPipeline",
        }
    }

    /// Name of the denoising network: `unet` or `transformer`.
    pub fn network(self) -> &'static str {
        match self {
            Self::StableDiffusion3 | Self::FluxDev | Self::FluxSchnell => "transformer",
            _ => "unet",
        }
    }

    /// Names of all parts with weights that the pipeline has in diffusers' layout.
    pub fn parts(self) -> Vec<&'static str> {
        let mut parts = vec![self.network(), "vae"];
        parts.extend(self.text_encoders().iter().map(|(name, _)| *name));
        parts
    }

    /// The text encoders, and where files have them.
    pub(crate) fn text_encoders(self) -> Vec<(&'static str, TextEncoderAt)> {
        let [sd1, sd2, xl, refiner, xl_2, clip_l, clip_g, t5] = PLACES;
        match self {
            Self::StableDiffusion1 | Self::StableDiffusion1Inpainting | Self::LatentConsistency => {
                vec![("text_encoder", sd1)]
            }
            Self::StableDiffusion2 | Self::StableDiffusion2Inpainting => {
                vec![("text_encoder", sd2)]
            }
            Self::StableDiffusionXl | Self::StableDiffusionXlInpainting => {
                vec![("text_encoder", xl), ("text_encoder_2", xl_2)]
            }
            Self::StableDiffusionXlRefiner => vec![("text_encoder_2", refiner)],
            Self::StableDiffusion3 => vec![
                ("text_encoder", clip_l),
                ("text_encoder_2", clip_g),
                ("text_encoder_3", t5),
            ],
            Self::FluxDev | Self::FluxSchnell => {
                vec![("text_encoder", clip_l), ("text_encoder_2", t5)]
            }
        }
    }

    /// Whether the network predicts a velocity from noise to image.
    pub(crate) fn is_flow(self) -> bool {
        self.network() == "transformer"
    }

    pub(crate) fn is_xl(self) -> bool {
        matches!(
            self,
            Self::StableDiffusionXl
                | Self::StableDiffusionXlInpainting
                | Self::StableDiffusionXlRefiner
        )
    }

    pub(crate) fn is_2(self) -> bool {
        matches!(
            self,
            Self::StableDiffusion2 | Self::StableDiffusion2Inpainting
        )
    }
}

impl Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

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
    let found = match network {
        Some(prefix) => {
            of_network(shapes, Scope::new(shapes, prefix)).map(|family| (family, prefix))
        }
        None => Err(other_kind(shapes)),
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
    if Scope::new(shapes, "").has("edm_mean") {
        return Err("a network of the kind of Playground 2.5".into());
    }
    let channels = scope.shape("input_blocks.0.0.weight").unwrap_or_default();
    let channels = channels.get(1).copied().unwrap_or(0);
    let inpainting = match channels {
        4 => false,
        9 => true,
        5 => return Err("a network with 5 input channels, as for images by depth".into()),
        7 => return Err("a network with 7 input channels, as for upscaling".into()),
        8 => return Err("a network with 8 input channels, as for editing by instruction".into()),
        other => return Err(format!("a network with {other} input channels")),
    };
    let choose = |plain, other| if inpainting { other } else { plain };
    if scope.any("label_emb.") {
        return xl(shapes, scope, inpainting);
    }
    let open_clip = PLACES[1].is_in(shapes);
    // Without its text encoder, a network of version 2 is known by the matrices around attention,
    // which are convolutions in version 1.
    let matrices = scope
        .shape("input_blocks.1.1.proj_in.weight")
        .is_some_and(|shape| shape.len() == 2);
    if open_clip || (matrices && !PLACES[0].is_in(shapes)) {
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
    for name in [
        "double_blocks.0.img_mod.lin.weight",
        "vector_in.in_layer.weight",
    ] {
        if !scope.has(name) {
            return Err(format!("a transformer like FLUX.1's without {name}"));
        }
    }
    if scope.any("txt_in.individual_token_refiner.") {
        return Err("a transformer of the kind of HunyuanVideo".into());
    }
    let columns = |name: &str| scope.shape(name).and_then(|shape| shape.get(1)).copied();
    let rows = |name: &str| scope.shape(name).and_then(|shape| shape.first()).copied();
    let (input, output) = (columns("img_in.weight"), rows("final_layer.linear.weight"));
    if let (Some(input), Some(output)) = (input, output)
        && input != output
    {
        return Err(format!(
            "a FLUX.1 transformer with {input} input and {output} output channels, \
             as for filling or for control images"
        ));
    }
    Ok(match scope.any("guidance_in.") {
        true => Family::FluxDev,
        false => Family::FluxSchnell,
    })
}

/// What a file without a known network is or looks like.
fn other_kind(shapes: &Shapes) -> String {
    let any = |start: &str| Scope::new(shapes, "").any(start);
    let known = [
        ("lora_", "low-rank adapters; open them with `Lora::open`"),
        ("control_model.", "a ControlNet"),
        (
            "down_blocks.",
            "a network in diffusers' layout; open its directory",
        ),
        ("unet.", "low-rank adapters; open them with `Lora::open`"),
        (
            "transformer_blocks.",
            "a network in diffusers' layout; open its directory",
        ),
        (
            "emb_params",
            "a textual inversion; open it with `TextualInversion::open`",
        ),
        (
            "string_to_param.",
            "a textual inversion; open it with `TextualInversion::open`",
        ),
        (
            "model_ema.",
            "averaged weights without the plain ones, which name the layers",
        ),
        ("first_stage_model.", "an autoencoder without a network"),
        ("decoder.", "an autoencoder without a network"),
        ("text_model.", "a text encoder without a network"),
    ];
    if let Some((_, kind)) = known.iter().find(|(start, _)| any(start)) {
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
        for (names, channels, family) in [
            (&[sd1][..], 4, Family::StableDiffusion1),
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
        assert!(of(&dev).unwrap_err().contains("384 input and 64 output"));
        assert!(of(&dev[..1]).unwrap_err().contains("without vector_in"));
        let sd3 = "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight";
        let found = of(&[(sd3, &[9, 9])]);
        assert_eq!(
            found,
            Ok((Family::StableDiffusion3, "model.diffusion_model."))
        );
    }

    #[test]
    fn other_files_are_named() {
        let of = |name: &str| {
            let shapes = file(&[(name, &[1])]);
            detect(Path::new("a.bin"), &shapes).unwrap_err().to_string()
        };
        assert!(of("lora_unet_mid_block.alpha").contains("Lora::open"));
        assert!(of("control_model.time_embed.0.weight").contains("a ControlNet"));
        assert!(of("emb_params").contains("TextualInversion::open"));
        let unknown = of("some.weight");
        assert!(
            unknown.contains("a.bin: a checkpoint of an unknown kind"),
            "{unknown}"
        );
        assert!(
            unknown.contains("1 tensors, such as some.weight"),
            "{unknown}"
        );
        let empty = detect(Path::new("a.bin"), &Shapes::new())
            .unwrap_err()
            .to_string();
        assert!(empty.contains("without tensors"), "{empty}");
    }
}
