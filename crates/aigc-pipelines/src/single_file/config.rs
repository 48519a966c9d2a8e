//! Configurations of the parts of single files, in the layout of `config.json`: those of the
//! published models, with every size that follows from the shapes of the tensors.

use super::{
    Family,
    scope::{Part, Scope, Shapes},
    unet::{Level, UnetLayout},
};
use aigc_core::{Error, Result};
use aigc_diffusion::PredictionType;
use serde_json::{Map, Value, json};

type Fields = Map<String, Value>;

const UNET: &str = include_str!("configs/unet.json");
const VAE: &str = include_str!("configs/vae.json");
const CLIP: &str = include_str!("configs/clip.json");
const T5: &str = include_str!("configs/t5.json");
const SD3_TRANSFORMER: &str = include_str!("configs/sd3_transformer.json");
const FLUX_TRANSFORMER: &str = include_str!("configs/flux_transformer.json");

/// Width of a head, of all networks but Stable Diffusion 1's.
const HEAD_WIDTH: usize = 64;
/// Heads of Stable Diffusion 1's networks.
const HEADS: usize = 8;
/// Width of the sinusoids of each size that Stable Diffusion XL is told.
const SIZE_WIDTH: usize = 256;

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
pub(crate) fn of_part(family: Family, part: &Part, shapes: &Shapes) -> Result<String> {
    let sizes = Sizes::new(part, shapes);
    let fields = match part.name {
        "unet" => unet(family, &sizes)?,
        "vae" => vae(family, &sizes)?,
        "transformer" if family == Family::StableDiffusion3 => sd3_transformer(&sizes)?,
        "transformer" => flux_transformer(&sizes)?,
        _ if sizes.scope().any("encoder.block.") => t5(&sizes)?,
        name => clip(family, name, &sizes)?,
    };
    Ok(text_of(fields))
}

/// One number if all are equal.
fn one_or_each(values: Vec<usize>) -> Value {
    match values.first() {
        Some(first) if values.iter().all(|value| value == first) => json!(first),
        _ => json!(values),
    }
}

fn unet(family: Family, sizes: &Sizes) -> Result<Fields> {
    let layout = UnetLayout::from_diffusers(sizes.scope());
    if let Some(problem) = layout.problem() {
        return Err(Error::unsupported(
            format!("a network with {problem}"),
            "SingleFile::config",
            "",
        ));
    }
    let levels = layout.down.len();
    let channels: Vec<usize> = (0..levels)
        .map(|l| sizes.at(&format!("down_blocks.{l}.resnets.0.conv2.weight"), 0))
        .collect::<Result<_>>()?;
    let kinds = |levels: &[Level], plain: &str, cross: &str| -> Value {
        let kind = |level: &Level| if level.depth.is_some() { cross } else { plain };
        levels.iter().map(kind).collect()
    };
    let mut fields = template(UNET);
    let linear = sizes
        .0
        .iter()
        .any(|(name, shape)| name.ends_with(".proj_in.weight") && shape.len() == 2);
    // Levels without attention have a number too; that of the last one is the middle's.
    let mut depths: Vec<usize> = layout.down.iter().filter_map(|level| level.depth).collect();
    depths.extend(layout.middle);
    if depths.iter().any(|depth| *depth != depths[0]) {
        let of = |(l, level): (usize, &Level)| {
            let other = layout.middle.filter(|_| l + 1 == levels);
            level.depth.or(other).unwrap_or(1)
        };
        depths = layout.down.iter().enumerate().map(of).collect();
    } else if depths.is_empty() {
        depths.push(1);
    }
    for (down, up) in layout.down.iter().zip(layout.up.iter().rev()) {
        if down.depth != up.depth {
            return Err(Error::unsupported(
                format!(
                    "a network with transformers of {:?} blocks on the way down and {:?} on the way up",
                    down.depth, up.depth
                ),
                "SingleFile::config",
                "give a directory of configurations",
            ));
        }
    }
    // Published configurations call the number of heads `attention_head_dim`.
    let heads = match linear {
        true => json!(
            channels
                .iter()
                .map(|c| (c / HEAD_WIDTH).max(1))
                .collect::<Vec<_>>()
        ),
        false => json!(HEADS),
    };
    let sample_size = match family {
        Family::StableDiffusion2 | Family::LatentConsistency => 96,
        _ if family.is_xl() => 128,
        _ => 64,
    };
    let resnets: Vec<usize> = layout.down.iter().map(|level| level.resnets).collect();
    set(
        &mut fields,
        [
            ("in_channels", json!(sizes.at("conv_in.weight", 1)?)),
            ("out_channels", json!(sizes.at("conv_out.weight", 0)?)),
            ("block_out_channels", json!(channels)),
            ("layers_per_block", one_or_each(resnets)),
            ("transformer_layers_per_block", one_or_each(depths)),
            (
                "down_block_types",
                kinds(&layout.down, "DownBlock2D", "CrossAttnDownBlock2D"),
            ),
            (
                "up_block_types",
                kinds(&layout.up, "UpBlock2D", "CrossAttnUpBlock2D"),
            ),
            ("attention_head_dim", heads),
            ("use_linear_projection", json!(linear)),
            ("sample_size", json!(sample_size)),
        ],
    );
    let attention = sizes
        .0
        .iter()
        .find(|(name, _)| name.ends_with(".attn2.to_k.weight"));
    if let Some((name, _)) = attention {
        set(
            &mut fields,
            [("cross_attention_dim", json!(sizes.at(name, 1)?))],
        );
    }
    if layout.added {
        let width = sizes.at("add_embedding.linear_1.weight", 1)?;
        set(
            &mut fields,
            [
                ("addition_embed_type", json!("text_time")),
                ("addition_time_embed_dim", json!(SIZE_WIDTH)),
                ("projection_class_embeddings_input_dim", json!(width)),
            ],
        );
    }
    if layout.guided.is_some() {
        let width = sizes.at("time_embedding.cond_proj.weight", 1)?;
        set(&mut fields, [("time_cond_proj_dim", json!(width))]);
    }
    if layout.middle.is_none() {
        set(&mut fields, [("mid_block_type", json!("UNetMidBlock2D"))]);
    }
    Ok(fields)
}

fn vae(family: Family, sizes: &Sizes) -> Result<Fields> {
    let mut fields = template(VAE);
    let levels = sizes.scope().count(|l| format!("encoder.down_blocks.{l}."));
    let channels: Vec<usize> = (0..levels)
        .map(|l| {
            sizes.at(
                &format!("encoder.down_blocks.{l}.resnets.0.conv2.weight"),
                0,
            )
        })
        .collect::<Result<_>>()?;
    let layers = sizes
        .scope()
        .count(|j| format!("encoder.down_blocks.0.resnets.{j}."));
    set(
        &mut fields,
        [
            ("in_channels", json!(sizes.at("encoder.conv_in.weight", 1)?)),
            (
                "out_channels",
                json!(sizes.at("decoder.conv_out.weight", 0)?),
            ),
            (
                "latent_channels",
                json!(sizes.at("decoder.conv_in.weight", 1)?),
            ),
            ("block_out_channels", json!(channels)),
            ("layers_per_block", json!(layers)),
            (
                "down_block_types",
                json!(vec!["DownEncoderBlock2D"; levels]),
            ),
            ("up_block_types", json!(vec!["UpDecoderBlock2D"; levels])),
            ("use_quant_conv", json!(sizes.has("quant_conv.weight"))),
            (
                "use_post_quant_conv",
                json!(sizes.has("post_quant_conv.weight")),
            ),
            (
                "mid_block_add_attention",
                json!(sizes.scope().any("decoder.mid_block.attentions.")),
            ),
        ],
    );
    let (sample_size, scaling, shift) = match family {
        Family::StableDiffusion3 => (1024, 1.5305, json!(0.0609)),
        Family::FluxDev | Family::FluxSchnell => (1024, 0.3611, json!(0.1159)),
        Family::StableDiffusion2 => (768, 0.18215, Value::Null),
        _ if family.is_xl() => (1024, 0.13025, Value::Null),
        _ => (512, 0.18215, Value::Null),
    };
    set(
        &mut fields,
        [
            ("sample_size", json!(sample_size)),
            ("scaling_factor", json!(scaling)),
            ("shift_factor", shift),
            ("force_upcast", json!(true)),
        ],
    );
    Ok(fields)
}

fn clip(family: Family, name: &str, sizes: &Sizes) -> Result<Fields> {
    let mut fields = template(CLIP);
    let embeddings = "text_model.embeddings";
    let tokens = format!("{embeddings}.token_embedding.weight");
    let width = sizes.at(&tokens, 1)?;
    let layers = sizes
        .scope()
        .count(|i| format!("text_model.encoder.layers.{i}."));
    let positions = sizes.at(&format!("{embeddings}.position_embedding.weight"), 0)?;
    let inner = sizes.at("text_model.encoder.layers.0.mlp.fc1.weight", 0)?;
    set(
        &mut fields,
        [
            ("vocab_size", json!(sizes.at(&tokens, 0)?)),
            ("hidden_size", json!(width)),
            ("num_hidden_layers", json!(layers)),
            ("num_attention_heads", json!((width / HEAD_WIDTH).max(1))),
            ("intermediate_size", json!(inner)),
            ("max_position_embeddings", json!(positions)),
        ],
    );
    // OpenCLIP's models, which Stable Diffusion 2 and the second encoders of later ones are.
    if family.is_2() || name == "text_encoder_2" {
        set(&mut fields, [("hidden_act", json!("gelu"))]);
    }
    let projected = name == "text_encoder_2" || family == Family::StableDiffusion3;
    if projected {
        let to = sizes.at("text_projection.weight", 0).unwrap_or(width);
        set(
            &mut fields,
            [
                ("architectures", json!(["CLIPTextModelWithProjection"])),
                ("projection_dim", json!(to)),
            ],
        );
    }
    Ok(fields)
}

fn t5(sizes: &Sizes) -> Result<Fields> {
    let mut fields = template(T5);
    let tokens = ["shared.weight", "encoder.embed_tokens.weight"];
    let tokens = if sizes.has(tokens[0]) {
        tokens[0]
    } else {
        tokens[1]
    };
    let attention = "encoder.block.0.layer.0.SelfAttention";
    let feed = "encoder.block.0.layer.1.DenseReluDense";
    let bias = format!("{attention}.relative_attention_bias.weight");
    let (buckets, heads) = (sizes.at(&bias, 0)?, sizes.at(&bias, 1)?);
    let gated = sizes.has(&format!("{feed}.wi_0.weight"));
    let layers = sizes.scope().count(|i| format!("encoder.block.{i}."));
    set(
        &mut fields,
        [
            ("vocab_size", json!(sizes.at(tokens, 0)?)),
            ("d_model", json!(sizes.at(tokens, 1)?)),
            ("num_layers", json!(layers)),
            ("num_heads", json!(heads)),
            ("relative_attention_num_buckets", json!(buckets)),
            (
                "d_kv",
                json!(sizes.at(&format!("{attention}.q.weight"), 0)? / heads.max(1)),
            ),
            ("d_ff", json!(sizes.at(&format!("{feed}.wo.weight"), 1)?)),
        ],
    );
    if !gated {
        set(
            &mut fields,
            [
                ("feed_forward_proj", json!("relu")),
                ("dense_act_fn", json!("relu")),
                ("is_gated_act", json!(false)),
            ],
        );
    }
    Ok(fields)
}

fn sd3_transformer(sizes: &Sizes) -> Result<Fields> {
    let mut fields = template(SD3_TRANSFORMER);
    let patches = "pos_embed.proj.weight";
    let (width, patch) = (sizes.at(patches, 0)?, sizes.at(patches, 2)?);
    let positions = sizes.at("pos_embed.pos_embed", 1)?;
    let layers = sizes.scope().count(|i| format!("transformer_blocks.{i}."));
    let dual: Vec<usize> = (0..layers)
        .filter(|i| sizes.scope().any(&format!("transformer_blocks.{i}.attn2.")))
        .collect();
    let normalised = "transformer_blocks.0.attn.norm_q.weight";
    let head_width = sizes.at(normalised, 0).unwrap_or(HEAD_WIDTH);
    set(
        &mut fields,
        [
            ("in_channels", json!(sizes.at(patches, 1)?)),
            ("patch_size", json!(patch)),
            ("num_layers", json!(layers)),
            ("attention_head_dim", json!(head_width)),
            ("num_attention_heads", json!(width / head_width.max(1))),
            (
                "joint_attention_dim",
                json!(sizes.at("context_embedder.weight", 1)?),
            ),
            (
                "caption_projection_dim",
                json!(sizes.at("context_embedder.weight", 0)?),
            ),
            (
                "pooled_projection_dim",
                json!(sizes.at("time_text_embed.text_embedder.linear_1.weight", 1)?),
            ),
            (
                "out_channels",
                json!(sizes.at("proj_out.weight", 0)? / (patch * patch).max(1)),
            ),
            ("pos_embed_max_size", json!(positions.isqrt())),
            ("dual_attention_layers", json!(dual)),
            (
                "qk_norm",
                if sizes.has(normalised) {
                    json!("rms_norm")
                } else {
                    Value::Null
                },
            ),
        ],
    );
    Ok(fields)
}

fn flux_transformer(sizes: &Sizes) -> Result<Fields> {
    let mut fields = template(FLUX_TRANSFORMER);
    let head_width = sizes.at("transformer_blocks.0.attn.norm_q.weight", 0)?;
    if fields["attention_head_dim"] != json!(head_width) {
        return Err(Error::unsupported(
            format!("a transformer with heads of width {head_width}, not 128,"),
            "SingleFile::config",
            "the axes of its rotations are unknown; give a directory of configurations",
        ));
    }
    let scope = sizes.scope();
    let count = |blocks: &str| scope.count(|i| format!("{blocks}.{i}."));
    set(
        &mut fields,
        [
            ("in_channels", json!(sizes.at("x_embedder.weight", 1)?)),
            ("num_layers", json!(count("transformer_blocks"))),
            (
                "num_single_layers",
                json!(count("single_transformer_blocks")),
            ),
            (
                "num_attention_heads",
                json!(sizes.at("x_embedder.weight", 0)? / head_width),
            ),
            (
                "joint_attention_dim",
                json!(sizes.at("context_embedder.weight", 1)?),
            ),
            (
                "pooled_projection_dim",
                json!(sizes.at("time_text_embed.text_embedder.linear_1.weight", 1)?),
            ),
            (
                "guidance_embeds",
                json!(scope.any("time_text_embed.guidance_embedder.")),
            ),
        ],
    );
    Ok(fields)
}

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
        let projected = name == "text_encoder_2" || family == Family::StableDiffusion3;
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
