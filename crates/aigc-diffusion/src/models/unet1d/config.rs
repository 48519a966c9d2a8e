//! Configuration of the U-net over time.

use super::blocks::{BlockConfig, HEAD_WIDTH};
use crate::json;
use aigc_core::{Error, Result, check, data::SampleShape, weights::Loaded};
use serde::{Deserialize, Serialize};

/// The name of the class in diffusers.
const CLASS: &str = "UNet1DModel";

/// A block at one rate on the way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum UNet1dDownBlock {
    /// Receives the encoded time beside the sample, and keeps the rate.
    DownBlock1DNoSkip,
    /// Halves the rate; convolutions.
    DownBlock1D,
    /// Halves the rate; convolutions and self-attention.
    AttnDownBlock1D,
}

/// A block at one rate on the way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum UNet1dUpBlock {
    /// Convolutions and self-attention; doubles the rate.
    AttnUpBlock1D,
    /// Convolutions; doubles the rate.
    UpBlock1D,
    /// Keeps the rate, and ends without norm and activation.
    UpBlock1DNoSkip,
}

/// How a time is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UNet1dTimeEmbedding {
    /// Sines and cosines of random frequencies, which are saved. For times of about 1, as those of
    /// Dance Diffusion and EDM: integer times up to 1000 are many periods apart.
    Fourier,
    /// Sines and cosines of fixed frequencies, as many as the first block has channels. For times
    /// up to 1000, as those of DDPM and of flows.
    Positional,
}

/// Configuration of a [`UNet1dModel`](super::UNet1dModel); the fields are those of diffusers'
/// `UNet1DModel`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UNet1dConfig {
    /// Length of the sounds that it is for, in samples.
    pub sample_size: usize,
    /// Samples per second.
    pub sample_rate: Option<u32>,
    /// Channels of a sound.
    pub in_channels: usize,
    /// Channels of the output: as many as of a sound.
    pub out_channels: usize,
    /// Width of the encoded time, which the first block receives as further channels.
    pub extra_in_channels: usize,
    /// How a time is encoded.
    pub time_embedding_type: UNet1dTimeEmbedding,
    /// Width of a Fourier encoding, even. `None`: `extra_in_channels`, as in older files, or twice
    /// the first block's channels if there are none.
    pub time_embedding_dim: Option<usize>,
    /// Cosines before sines.
    pub flip_sin_to_cos: bool,
    /// Subtracted from the number of frequencies in the exponents of a positional encoding
    /// (Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>, section 3.5): 1 makes the last
    /// frequency exactly 1/10,000 of the first.
    pub freq_shift: f64,
    /// Blocks of the encoder, from the highest rate on.
    pub down_block_types: Vec<UNet1dDownBlock>,
    /// Blocks of the decoder, from the lowest rate on.
    pub up_block_types: Vec<UNet1dUpBlock>,
    /// Channels of each encoder block, from the highest rate on.
    pub block_out_channels: Vec<usize>,
}

impl Default for UNet1dConfig {
    /// diffusers' defaults, which lack the channels of the time ([`small`](Self::small) has them).
    fn default() -> Self {
        use {UNet1dDownBlock::*, UNet1dUpBlock::*};
        Self {
            sample_size: 65_536,
            sample_rate: None,
            in_channels: 2,
            out_channels: 2,
            extra_in_channels: 0,
            time_embedding_type: UNet1dTimeEmbedding::Fourier,
            time_embedding_dim: None,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: vec![DownBlock1DNoSkip, DownBlock1D, AttnDownBlock1D],
            up_block_types: vec![AttnUpBlock1D, UpBlock1D, UpBlock1DNoSkip],
            block_out_channels: vec![32, 32, 64],
        }
    }
}

/// Fields of options that are not implemented, and the value that they have to have.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("downsample_each_block", "false"),
    ("mid_block_type", "\"UNetMidBlock1D\""),
    ("out_block_type", "null"),
    ("use_timestep_embedding", "false"),
];

/// Fields of diffusers' that these blocks do not use.
const WITHOUT_EFFECT: &[&str] = &["act_fn", "layers_per_block", "norm_num_groups"];

/// Fewest samples at the lowest rate, before the middle halves it. The filters mirror three samples
/// there, and two at half the rate, without the first and the last one.
const LEAST: usize = 6;

impl UNet1dConfig {
    /// A small network for sounds of `channels` channels and about `sample_size` samples, which has
    /// to be a multiple of 8: two rates of 32 channels and one of 64, with attention at the lowest.
    /// Its times are encoded by [`Fourier`](UNet1dTimeEmbedding::Fourier) features. To train with
    /// integer times, set `time_embedding_type` to
    /// [`Positional`](UNet1dTimeEmbedding::Positional) and `extra_in_channels` to 32.
    pub fn small(channels: usize, sample_size: usize) -> Self {
        Self {
            sample_size,
            in_channels: channels,
            out_channels: channels,
            extra_in_channels: 16,
            time_embedding_dim: Some(16),
            ..Self::default()
        }
    }

    /// A configuration from the fields of its file; the others have defaults. The report lists
    /// unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Config`] names a field with a value that it cannot have, or that is not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let mut fields = json::parse_object(text)?;
        for field in WITHOUT_EFFECT {
            fields.remove(*field);
        }
        let config: Loaded<Self> = json::network(fields, CLASS, UNSUPPORTED)?;
        config.validate()?;
        Ok(config)
    }

    /// The configuration as diffusers writes it. The width of a Fourier encoding is always written:
    /// without it, diffusers assumes twice the channels of the first block.
    pub fn to_json(&self) -> String {
        let mut config = self.clone();
        if config.time_embedding_type == UNet1dTimeEmbedding::Fourier {
            config.time_embedding_dim = Some(self.time_width());
        }
        json::to_text(&config, CLASS)
    }

    /// Width of the encoded time.
    pub fn time_width(&self) -> usize {
        let first = self.block_out_channels.first().copied().unwrap_or(0);
        let default = match self.extra_in_channels {
            0 => first.saturating_mul(2),
            extra => extra,
        };
        match self.time_embedding_type {
            UNet1dTimeEmbedding::Fourier => self.time_embedding_dim.unwrap_or(default),
            UNet1dTimeEmbedding::Positional => first,
        }
    }

    /// What the length of a sound has to be a multiple of: 2 for each rate, and for the middle.
    pub fn length_factor(&self) -> usize {
        let halving = self.down_block_types.iter().filter(|block| block.halves());
        1 << (halving.count() + 1).min(32)
    }

    /// The shortest sound, in samples.
    pub fn min_length(&self) -> usize {
        LEAST * self.length_factor() / 2
    }

    /// Checks the values.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        let levels = self.block_out_channels.len();
        json::check_ranges(&[
            ("sample_size", self.sample_size, 1 << 28),
            ("in_channels", self.in_channels, 1 << 8),
            ("out_channels", self.out_channels, 1 << 8),
            ("block_out_channels", levels, 24),
            ("extra_in_channels", self.extra_in_channels.max(1), 1 << 14),
            (
                "time_embedding_dim",
                self.time_embedding_dim.unwrap_or(1),
                1 << 14,
            ),
        ])?;
        for channels in &self.block_out_channels {
            json::check_ranges(&[("block_out_channels", *channels, 1 << 14)])?;
        }
        if let Some(rate) = self.sample_rate {
            check::in_range("sample_rate", rate, 1..=1 << 24)?;
        }
        let lists = [
            ("down_block_types", self.down_block_types.len()),
            ("up_block_types", self.up_block_types.len()),
        ];
        json::levels(&self.block_out_channels, &lists, self.freq_shift)?;
        let time = self.time_width();
        let expected = "an even number, for sines and cosines";
        check::ensure(time.is_multiple_of(2), "time_embedding_dim", time, expected)?;
        self.validate_blocks()?;
        check::ensure(
            self.extra_in_channels == time,
            "extra_in_channels",
            self.extra_in_channels,
            &format!("{time}, the width of the encoded time"),
        )?;
        for block in self.blocks() {
            let [_, between, to] = block.channels;
            for channels in [between, to] {
                let fits = channels >= HEAD_WIDTH && channels.is_multiple_of(channels / HEAD_WIDTH);
                if block.attends && !fits {
                    let expected = "for attention, at least 32, and a multiple of their 32nd part";
                    return Err(Error::config("block_out_channels", channels, expected));
                }
            }
        }
        Ok(())
    }

    /// Only the first block receives the time, and the rate doubles where it was halved.
    fn validate_blocks(&self) -> Result<()> {
        let receives = |block: &UNet1dDownBlock| *block == UNet1dDownBlock::DownBlock1DNoSkip;
        let down = &self.down_block_types;
        if !receives(&down[0]) || down[1..].iter().any(receives) {
            let expected = "DownBlock1DNoSkip, which receives the time, as the first block alone";
            return Err(Error::config(
                "down_block_types",
                format!("{down:?}"),
                expected,
            ));
        }
        let rates = down.iter().rev().map(|block| block.halves());
        match rates
            .zip(&self.up_block_types)
            .position(|(halves, block)| halves != block.doubles())
        {
            None => Ok(()),
            Some(wrong) => Err(Error::config(
                "up_block_types",
                format!("{:?} (block {wrong})", self.up_block_types[wrong]),
                "a block that doubles the rate where an encoder block halves it, and only there",
            )),
        }
    }

    /// Fails unless the network processes sounds of this shape.
    pub(super) fn check_shape(&self, shape: SampleShape) -> Result<()> {
        let [channels, samples] = *shape.dims() else {
            return Err(Error::argument(
                "shape",
                shape,
                "sounds: channels and samples",
            ));
        };
        for (field, found) in [
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
        ] {
            let expected = format!("{channels}, the channels of the sounds");
            check::ensure(found == channels, field, found, &expected)?;
        }
        let (factor, least) = (self.length_factor(), self.min_length());
        let expected = format!("a multiple of {factor} samples, and at least {least}");
        check::ensure_argument(
            samples.is_multiple_of(factor) && samples >= least,
            "shape",
            shape,
            &expected,
        )
    }

    /// The blocks of the encoder, the middle and the decoder.
    fn blocks(&self) -> Vec<BlockConfig> {
        let mut blocks = self.down();
        blocks.push(self.middle());
        blocks.extend(self.up());
        blocks
    }

    pub(super) fn down(&self) -> Vec<BlockConfig> {
        let mut from = self.in_channels + self.extra_in_channels;
        let blocks = self.down_block_types.iter().zip(&self.block_out_channels);
        let block = |(kind, to): (&UNet1dDownBlock, &usize)| {
            let channels = [from, *to, *to];
            from = *to;
            BlockConfig {
                attends: *kind == UNet1dDownBlock::AttnDownBlock1D,
                halves: kind.halves(),
                ..BlockConfig::new(channels, 3)
            }
        };
        blocks.map(block).collect()
    }

    pub(super) fn middle(&self) -> BlockConfig {
        let channels = self.block_out_channels[self.block_out_channels.len() - 1];
        BlockConfig {
            attends: true,
            halves: true,
            doubles: true,
            ..BlockConfig::new([channels; 3], 6)
        }
    }

    pub(super) fn up(&self) -> Vec<BlockConfig> {
        let levels = self.block_out_channels.len();
        let block = |(i, kind): (usize, &UNet1dUpBlock)| {
            let level = levels - 1 - i;
            let from = self.block_out_channels[level];
            let to = match level {
                0 => self.out_channels,
                level => self.block_out_channels[level - 1],
            };
            let attends = *kind == UNet1dUpBlock::AttnUpBlock1D;
            let between = if attends { to } else { from };
            BlockConfig {
                attends,
                doubles: kind.doubles(),
                is_output: *kind == UNet1dUpBlock::UpBlock1DNoSkip,
                // The sample, and the skip of the encoder block at this rate.
                ..BlockConfig::new([2 * from, between, to], 3)
            }
        };
        self.up_block_types.iter().enumerate().map(block).collect()
    }
}

impl UNet1dDownBlock {
    fn halves(self) -> bool {
        self != Self::DownBlock1DNoSkip
    }
}

impl UNet1dUpBlock {
    fn doubles(self) -> bool {
        self != Self::UpBlock1DNoSkip
    }
}
