//! The fields that both configurations have, and their checks.

use crate::{LikelihoodKind, models::check_weights};
use aigc_core::{
    Error, Result,
    check::{self, ensure},
    data::{ImageShape, SampleShape},
    nn::{
        Activation,
        diffusers::{SampleSize, activation},
    },
};

/// Limit on the channels of images and latents. Sizes from a file decide how much memory is
/// allocated.
pub(super) const MAX_CHANNELS: usize = 1 << 12;

/// The fields that both models have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Architecture<'a> {
    pub(crate) sample_size: SampleSize,
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) latent_channels: usize,
    pub(crate) down_blocks: usize,
    pub(crate) up_blocks: usize,
    pub(crate) block_out_channels: &'a [usize],
    pub(crate) layers_per_block: usize,
    pub(crate) norm_num_groups: usize,
    pub(crate) act_fn: &'a str,
    pub(crate) mid_block_add_attention: bool,
    pub(crate) scaling_factor: f64,
    pub(crate) likelihood: LikelihoodKind,
}

impl Architecture<'_> {
    pub(crate) fn sample_shape(&self) -> SampleShape {
        let [height, width] = self.sample_size.sides();
        SampleShape::new(&[self.in_channels, height, width])
    }

    /// Whether images of this shape have the channels of the model, and latents.
    pub(crate) fn accepts(&self, shape: SampleShape) -> bool {
        let smallest = 1 << (self.block_out_channels.len() - 1);
        match shape.dims() {
            [channels, sides @ ..] => {
                *channels == self.in_channels
                    && sides.len() == 2
                    && sides.iter().all(|side| *side >= smallest)
            }
            [] => false,
        }
    }

    pub(crate) fn latent_shape(&self, channels: usize) -> SampleShape {
        let factor = 1 << (self.block_out_channels.len() - 1);
        let [height, width] = self.sample_size.sides();
        SampleShape::new(&[channels, height / factor, width / factor])
    }

    /// The activation in the blocks.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub(crate) fn validate(&self) -> Result<Activation> {
        const MAX_SIDE: usize = 1 << 14;
        let [height, width] = self.sample_size.sides();
        let levels = self.block_out_channels.len();
        check::sizes(&[
            ("sample_size", height, MAX_SIDE),
            ("sample_size", width, MAX_SIDE),
            ("in_channels", self.in_channels, MAX_CHANNELS),
            ("out_channels", self.out_channels, MAX_CHANNELS),
            ("latent_channels", self.latent_channels, MAX_CHANNELS),
            ("layers_per_block", self.layers_per_block, 64),
            ("norm_num_groups", self.norm_num_groups, MAX_SIDE),
        ])?;
        let count = |n: usize| format!("{n} blocks");
        let field = "block_out_channels";
        ensure(
            (1..=14).contains(&levels),
            field,
            count(levels),
            "1 to 14 blocks",
        )?;
        let blocks = [
            ("down_block_types", self.down_blocks),
            ("up_block_types", self.up_blocks),
        ];
        for (field, n) in blocks {
            let expected = format!("{levels} blocks, as block_out_channels");
            ensure(n == levels, field, count(n), &expected)?;
        }
        for channels in self.block_out_channels {
            check::sizes(&[("block_out_channels", *channels, 1 << 14)])?;
            ensure(
                channels.is_multiple_of(self.norm_num_groups),
                "norm_num_groups",
                self.norm_num_groups,
                &format!("a divisor of {channels} channels"),
            )?;
        }
        ensure(
            self.in_channels == self.out_channels,
            "out_channels",
            self.out_channels,
            &format!("{}, as in_channels", self.in_channels),
        )?;
        let factor = 1 << (levels - 1);
        for side in [height, width] {
            let expected = format!("a multiple of {factor}, for {levels} blocks");
            ensure(side.is_multiple_of(factor), "sample_size", side, &expected)?;
        }
        check::positive("scaling_factor", self.scaling_factor)?;
        match self.likelihood {
            LikelihoodKind::Gaussian(std) => check::positive("likelihood.gaussian", std)?,
            other => {
                let value = format!("{other:?}");
                return Err(Error::config("likelihood", value, "gaussian"));
            }
        }
        // Sizes within their limits can still have a product beyond the memory.
        let weights = usize::try_from(self.num_weights()).unwrap_or(usize::MAX);
        check_weights("weights of block_out_channels", weights, 1, "a model")?;
        // No blocks of diffusers' autoencoders have it.
        let expected = "silu, swish, gelu, relu or mish";
        ensure(self.act_fn != "quick_gelu", "act_fn", self.act_fn, expected)?;
        activation(self.act_fn)
    }

    /// The number of weights without biases, or a few more: every convolution of a size counts as
    /// one between the most channels of that size and its neighbours.
    fn num_weights(&self) -> u128 {
        let all = self.block_out_channels;
        let blocks = 2 * self.layers_per_block as u128 + 1;
        let of_size = |at: usize| {
            let widest = all[at.saturating_sub(1)..all.len().min(at + 2)]
                .iter()
                .max();
            let area = widest.map_or(0, |widest| (*widest as u128).pow(2));
            // A residual block has two convolutions of 3×3 and one of 1×1; the sizes are changed by
            // two of 3×3.
            area * (19 * blocks + 18)
        };
        let (first, last) = (all[0] as u128, all[all.len() - 1] as u128);
        let ends = 9 * first * (self.in_channels + self.out_channels) as u128
            + 27 * last * self.latent_channels as u128;
        // Two blocks and attention in the middle of encoder and decoder.
        let middle = 2 * (2 * 18 + 4) * last * last;
        (0..all.len()).map(of_size).sum::<u128>() + ends + middle
    }
}

/// Standard deviation of a validated `likelihood`.
pub(crate) fn likelihood_std(likelihood: LikelihoodKind) -> f64 {
    match likelihood {
        LikelihoodKind::Gaussian(std) => std,
        other => unreachable!("{other:?} was refused by `init`"),
    }
}

/// Channels at each size of a small model for images of `shape`.
pub(super) fn small_channels(shape: ImageShape) -> Vec<usize> {
    let fits = |levels: &usize| {
        let factor = 1 << (levels - 1);
        [shape.height, shape.width]
            .iter()
            .all(|side| side.is_multiple_of(factor) && side / factor >= 4)
    };
    let levels = (1..=3).rev().find(fits).unwrap_or(1);
    [32, 64, 64][..levels].to_vec()
}
