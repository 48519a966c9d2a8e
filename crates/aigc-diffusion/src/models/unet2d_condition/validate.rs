//! Checks of the configuration's values.

use super::{
    config::UNet2dConditionConfig,
    types::{AdditionEmbedType, CrossDownBlockType, CrossMidBlockType, CrossUpBlockType, PerBlock},
};
use crate::{
    json,
    models::{
        SampleSize,
        blocks::Shared,
        unet2d::{ClassEmbedType, TimeScaleShift},
    },
};
use aigc_core::{Error, Result, check::ensure, nn::diffusers::activation};

/// Limit on the transformer blocks of an attention.
const MAX_TRANSFORMERS: usize = 64;
/// Limit on the side of a kernel.
const MAX_KERNEL: usize = 31;

impl UNet2dConditionConfig {
    /// Width of the time embedding.
    pub(super) fn time_width(&self) -> usize {
        self.time_embedding_dim.unwrap_or_else(|| {
            let first = self.block_out_channels.first().unwrap_or(&0);
            first.saturating_mul(4)
        })
    }

    /// Width of the hidden states that cross-attention expects.
    pub(super) fn tokens_width(&self) -> usize {
        self.encoder_hid_dim.unwrap_or(self.cross_attention_dim)
    }

    /// Checks all fields.
    pub(super) fn validate(&self) -> Result<Shared> {
        let shared = self.validate_encoder()?;
        let levels = self.block_out_channels.len();
        let [height, width] = self.sample_size.map_or([1, 1], SampleSize::sides);
        json::check_ranges(&[
            ("sample_size", height, 1 << 14),
            ("sample_size", width, 1 << 14),
            ("out_channels", self.out_channels, 1 << 12),
        ])?;
        check_kernel("conv_out_kernel", self.conv_out_kernel)?;
        json::levels(
            &self.block_out_channels,
            &[("up_block_types", self.up_block_types.len())],
            self.freq_shift,
        )?;
        for (i, kind) in self.up_block_types.iter().enumerate() {
            if *kind == CrossUpBlockType::CrossAttnUpBlock2D {
                self.check_heads(levels - 1 - i)?;
                for layer in 0..=self.layers_per_block {
                    self.up_transformers(i, layer)?;
                }
            }
        }
        Ok(shared)
    }

    /// Checks the fields that a ControlNet has too.
    pub(in crate::models) fn validate_encoder(&self) -> Result<Shared> {
        let levels = self.block_out_channels.len();
        let given = |width: Option<usize>| width.unwrap_or(1);
        json::check_ranges(&[
            ("in_channels", self.in_channels, 1 << 12),
            ("layers_per_block", self.layers_per_block, 64),
            ("cross_attention_dim", self.cross_attention_dim, 1 << 16),
            ("encoder_hid_dim", given(self.encoder_hid_dim), 1 << 16),
            ("block_out_channels", levels, 16),
            (
                "block_out_channels",
                self.block_out_channels.first().copied().unwrap_or(1),
                1 << 14,
            ),
            ("time_embedding_dim", self.time_width(), 1 << 16),
        ])?;
        check_kernel("conv_in_kernel", self.conv_in_kernel)?;
        json::levels(
            &self.block_out_channels,
            &[("down_block_types", self.down_block_types.len())],
            self.freq_shift,
        )?;
        for (field, len) in [
            ("attention_head_dim", self.attention_head_dim.len()),
            ("only_cross_attention", self.only_cross_attention.len()),
        ] {
            if let Some(len) = len.filter(|len| *len != levels) {
                let expected = format!("{levels}, as block_out_channels, or one value");
                return Err(Error::config(field, format!("{len} values"), expected));
            }
        }
        for channels in &self.block_out_channels {
            json::check_ranges(&[("block_out_channels", *channels, 1 << 14)])?;
            json::divides(*channels, &[("norm_num_groups", self.norm_num_groups)])?;
        }
        for (level, kind) in self.down_block_types.iter().enumerate() {
            if *kind == CrossDownBlockType::CrossAttnDownBlock2D {
                self.check_heads(level)?;
                for layer in 0..self.layers_per_block {
                    self.down_transformers(level, layer)?;
                }
            }
        }
        if self.mid_block_type == Some(CrossMidBlockType::UNetMidBlock2DCrossAttn) {
            self.check_heads(levels - 1)?;
            self.down_transformers(levels - 1, 0)?;
        }
        self.check_embeddings()?;
        Shared {
            time: self.time_width(),
            groups: self.norm_num_groups,
            epsilon: self.norm_eps,
            activation: activation(&self.act_fn)?,
            dropout: self.dropout,
            scale_shift: self.resnet_time_scale_shift == TimeScaleShift::ScaleShift,
            head_width: None,
        }
        .checked(self.mid_block_scale_factor, self.downsample_padding)
    }

    fn check_embeddings(&self) -> Result<()> {
        if self.encoder_hid_dim.is_none() {
            ensure(
                self.encoder_hid_dim_type.is_none(),
                "encoder_hid_dim",
                "null",
                "the width of the hidden states, with encoder_hid_dim_type",
            )?;
        }
        if let Some(count) = self.num_class_embeds {
            json::check_ranges(&[("num_class_embeds", count, 1 << 20)])?;
        }
        if let Some(width) = self.time_cond_proj_dim {
            // Frequencies of the encoded scale are spread over one fewer than half the width.
            ensure(
                (4..=1 << 16).contains(&width),
                "time_cond_proj_dim",
                width,
                "4 to 65536",
            )?;
        }
        let takes_vectors = matches!(
            self.class_embed_type,
            Some(ClassEmbedType::Projection | ClassEmbedType::SimpleProjection)
        );
        if takes_vectors || self.addition_embed_type.is_some() {
            let field = "projection_class_embeddings_input_dim";
            self.check_width(field, self.projection_class_embeddings_input_dim)?;
        }
        if self.addition_embed_type == Some(AdditionEmbedType::TextTime) {
            let field = "addition_time_embed_dim";
            let width = self.check_width(field, self.addition_time_embed_dim)?;
            ensure(
                width.is_multiple_of(2) && self.freq_shift < (width / 2) as f64,
                field,
                width,
                "an even number, more than twice freq_shift",
            )?;
        }
        Ok(())
    }

    /// The width in a field that the type of an embedding needs.
    fn check_width(&self, field: &str, width: Option<usize>) -> Result<usize> {
        let Some(width) = width else {
            let expected = "a width, for this type of embedding";
            return Err(Error::config(field, "null", expected));
        };
        json::check_ranges(&[(field, width, 1 << 16)])?;
        Ok(width)
    }

    fn check_heads(&self, level: usize) -> Result<()> {
        json::divides(
            self.block_out_channels[level],
            &[("attention_head_dim", self.heads(level))],
        )
    }

    /// Heads of the attentions at a size.
    pub(super) fn heads(&self, level: usize) -> usize {
        let heads = self.attention_head_dim.at(level);
        heads.expect("as many as block_out_channels")
    }

    /// Transformer blocks in the attention after a layer of the encoder; the middle has those of
    /// the first layer at the smallest size.
    pub(super) fn down_transformers(&self, level: usize, layer: usize) -> Result<usize> {
        checked(
            "transformer_layers_per_block",
            self.transformer_layers_per_block.at(level, layer),
        )
    }

    /// Transformer blocks in the attention after a layer of the `i`-th block of the decoder.
    pub(super) fn up_transformers(&self, i: usize, layer: usize) -> Result<usize> {
        if let Some(all) = &self.reverse_transformer_layers_per_block {
            let number = all.get(i).and_then(|block| block.at(layer));
            return checked("reverse_transformer_layers_per_block", number);
        }
        let level = self.block_out_channels.len() - 1 - i;
        if let super::TransformerLayers::Blocks(all) = &self.transformer_layers_per_block
            && let Some(PerBlock::Each(_)) = all.get(level)
        {
            let expected = "a list for the blocks of the decoder, because \
                            transformer_layers_per_block differs between layers";
            let field = "reverse_transformer_layers_per_block";
            return Err(Error::config(field, "null", expected));
        }
        self.down_transformers(level, layer)
    }
}

fn checked(field: &str, number: Option<usize>) -> Result<usize> {
    let Some(number) = number else {
        let expected = "a number for every block with attention, or for each of its layers";
        return Err(Error::config(field, "too short", expected));
    };
    ensure(
        number <= MAX_TRANSFORMERS,
        field,
        number,
        &format!("at most {MAX_TRANSFORMERS}"),
    )?;
    Ok(number)
}

fn check_kernel(field: &str, side: usize) -> Result<()> {
    ensure(
        side % 2 == 1 && side <= MAX_KERNEL,
        field,
        side,
        &format!("an odd number up to {MAX_KERNEL}"),
    )
}
