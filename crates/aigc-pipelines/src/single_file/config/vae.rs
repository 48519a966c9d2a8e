//! Configurations of autoencoders.

use super::{Fields, Sizes, is_2_base, set, template};
use crate::single_file::Family;
use aigc_core::Result;
use aigc_diffusion::PredictionType;
use serde_json::{Value, json};

const VAE: &str = include_str!("../configs/vae.json");

/// `config.json` of an `AutoencoderKL`.
pub(super) fn config(family: Family, prediction: PredictionType, sizes: &Sizes) -> Result<Fields> {
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
        _ if is_2_base(family, prediction) => (512, 0.18215, Value::Null),
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
            // Decoders of XL overflow in half precision. Those that were repaired for it look the
            // same, and lose nothing in single precision.
            ("force_upcast", json!(true)),
        ],
    );
    Ok(fields)
}
