//! The networks of all commands, in two sizes.

use crate::fsdd::{DIGITS, RATE};
use aigc_core::{data::ImageShape, eval::sound_classifier::SoundClassifierConfig};
use aigc_diffusion::UNet2dConfig;
use aigc_gan::vocoder::{
    HifiGanConfig, MagnitudeVocoderConfig, MultiPeriodDiscriminatorConfig,
    MultiResolutionDiscriminatorConfig, NsfHifiGanConfig, WaveDiscriminatorsConfig,
};
use aigc_text::music::MusicgenDecoderConfig;
use aigc_vae::codec::EncodecConfig;
use clap::ValueEnum;

/// The size of the networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Size {
    /// Those of the figures.
    #[default]
    Full,
    /// A few thousand weights, to try a command.
    Tiny,
}

impl Size {
    /// A classifier of sounds of a second.
    pub(crate) fn classifier(self, classes: usize) -> SoundClassifierConfig {
        let full = SoundClassifierConfig::new(RATE, classes);
        match self {
            Size::Full => full,
            Size::Tiny => SoundClassifierConfig {
                channels: vec![8; 3],
                hidden: 16,
                ..full
            },
        }
    }

    /// A codec: 1.6 kbit/s in four codebooks; 0.4 kbit/s in two if it is tiny.
    pub(crate) fn codec(self) -> EncodecConfig {
        let full = EncodecConfig::speech_8khz();
        match self {
            Size::Full => full,
            Size::Tiny => EncodecConfig {
                target_bandwidths: vec![0.2, 0.4],
                hidden_size: 8,
                num_filters: 4,
                codebook_size: 16,
                codebook_decay: 0.8,
                ..full
            },
        }
    }

    /// Discriminators of sound.
    pub(crate) fn discriminators(self) -> WaveDiscriminatorsConfig {
        match self {
            Size::Full => WaveDiscriminatorsConfig::light(),
            Size::Tiny => WaveDiscriminatorsConfig {
                multi_period: Some(MultiPeriodDiscriminatorConfig {
                    periods: vec![2],
                    channels: vec![4, 4],
                    ..MultiPeriodDiscriminatorConfig::default()
                }),
                multi_scale: None,
                multi_resolution: Some(MultiResolutionDiscriminatorConfig {
                    resolutions: vec![[128, 32, 128]],
                    channels: 2,
                    ..MultiResolutionDiscriminatorConfig::default()
                }),
            },
        }
    }

    /// A model of a codec's tokens, but for their number.
    pub(crate) fn decoder(self, speakers: usize) -> MusicgenDecoderConfig {
        let full = MusicgenDecoderConfig::speech_8khz(vec![DIGITS, speakers]);
        match self {
            Size::Full => full,
            Size::Tiny => MusicgenDecoderConfig {
                num_hidden_layers: 1,
                ffn_dim: 32,
                num_attention_heads: 2,
                hidden_size: 16,
                ..full
            },
        }
    }

    /// A vocoder of 40 mels.
    pub(crate) fn vocoder(self) -> HifiGanConfig {
        let full = HifiGanConfig::speech_8khz();
        match self {
            Size::Full => full,
            Size::Tiny => HifiGanConfig {
                upsample_initial_channel: 16,
                resblock_kernel_sizes: vec![3],
                resblock_dilation_sizes: vec![vec![1]],
                ..full
            },
        }
    }

    /// A vocoder of 40 mels with a source.
    pub(crate) fn nsf(self) -> NsfHifiGanConfig {
        let full = NsfHifiGanConfig::speech_8khz();
        match self {
            Size::Full => full,
            Size::Tiny => NsfHifiGanConfig {
                upsample_initial_channel: 16,
                resblock_kernel_sizes: vec![3],
                resblock_dilation_sizes: vec![vec![1]],
                harmonics: 2,
                pitch_channels: 8,
                ..full
            },
        }
    }

    /// A vocoder of 40 mels that predicts magnitudes.
    pub(crate) fn magnitude(self) -> MagnitudeVocoderConfig {
        let full = MagnitudeVocoderConfig::speech_8khz();
        match self {
            Size::Full => full,
            Size::Tiny => MagnitudeVocoderConfig {
                dim: 8,
                intermediate_dim: 16,
                num_layers: 1,
                ..full
            },
        }
    }

    /// A denoising network of mel spectra, told a digit or nothing.
    pub(crate) fn unet(self, shape: ImageShape) -> UNet2dConfig {
        let widths = match self {
            Size::Full => [32, 64, 128],
            Size::Tiny => [8; 3],
        };
        let small = UNet2dConfig::small(shape, Some(DIGITS));
        UNet2dConfig {
            block_out_channels: widths[..small.block_out_channels.len()].to_vec(),
            ..small
        }
        .with_null_class()
    }
}
