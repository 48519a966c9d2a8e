//! The memory that a request will need, before it starts.

use super::{
    job::Job,
    options::{PipelineOptions, Residency, Tiling},
    parts::Part,
    pipeline::TextToImagePipeline,
};
use aigc_core::{Result, json, text_to_image::ImageRequest};
use aigc_diffusion::{AnyDenoiser, Denoiser};
use aigc_vae::{AutoencoderKlConfig, TileConfig};
use serde_json::{Map, Value};

/// Bytes of a number of a map.
const FLOAT: u64 = 4;

/// An estimate of the memory of a request, in bytes: the weights of the parts, and the maps of the
/// stages. What a backend keeps beside them is not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryEstimate {
    /// Weights of each part.
    pub weights: Vec<(String, u64)>,
    /// Maps of the stages that follow each other: `encoding`, `denoising`, `decoding`.
    pub stages: Vec<(String, u64)>,
    /// The most that is in memory at the same time.
    pub peak: u64,
}

impl TextToImagePipeline {
    /// Estimates the memory of a request.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub fn memory_estimate(
        &self,
        request: &ImageRequest,
        options: &PipelineOptions,
    ) -> Result<MemoryEstimate> {
        let job = self.prepare(request, options)?;
        let named = |part: &Part<_>, name: &str| (name.to_owned(), bytes(part));
        let mut encoders = vec![];
        for (part, name) in self
            .parts
            .encoders
            .iter()
            .zip(super::PipelineFamily::ENCODERS)
        {
            encoders.extend(part.as_ref().map(|part| named(part, name)));
        }
        let mut network = vec![(
            self.network.component().to_owned(),
            bytes(&self.parts.denoiser),
        )];
        let controlnets = self.parts.controlnets.iter();
        network.extend(controlnets.map(|part| ("controlnet".to_owned(), bytes(part))));
        let vae = vec![("vae".to_owned(), bytes(&self.parts.vae))];

        let sum = |parts: &[(String, u64)]| -> u64 { parts.iter().map(|(_, bytes)| bytes).sum() };
        let stages = [
            ("encoding", &encoders, self.encoding(&job)),
            ("denoising", &network, self.denoising(&job)),
            ("decoding", &vae, self.decoding(&job)),
        ];
        let peak = match self.residency {
            Residency::WhileNeeded => {
                let each = stages.iter().map(|(_, parts, maps)| sum(parts) + maps);
                each.max().unwrap_or(0)
            }
            Residency::Always | Residency::OnDemand => {
                let weights: u64 = stages.iter().map(|(_, parts, _)| sum(parts)).sum();
                weights + stages.iter().map(|(.., maps)| *maps).max().unwrap_or(0)
            }
        };
        let stages = stages
            .map(|(name, _, maps)| (name.to_owned(), maps))
            .to_vec();
        Ok(MemoryEstimate {
            weights: [encoders, network, vae].concat(),
            stages,
            peak,
        })
    }

    /// Maps of the text encoders: the hidden states of all layers are kept.
    fn encoding(&self, job: &Job) -> u64 {
        let tokens = job.max_sequence_length.max(77) as u64;
        let configs = self
            .parts
            .encoders
            .iter()
            .flatten()
            .filter_map(|part| part.source());
        let each = configs.filter_map(|source| {
            let fields = json::parse_object(&source.config).ok()?;
            let (width, layers) = (
                number(&fields, &["hidden_size", "d_model"])?,
                number(&fields, &["num_hidden_layers", "num_layers"])?,
            );
            Some(tokens * width * (layers + 12) * FLOAT)
        });
        each.max().unwrap_or(0) * if job.is_guided() { 2 } else { 1 }
    }

    /// Maps of the network, for a batch.
    fn denoising(&self, job: &Job) -> u64 {
        let [_, height, width] = job.latent_shape;
        let positions = (height * width) as u64;
        let batch = job.options.batch_size.min(job.num_images()) as u64;
        let rows = batch * if job.is_guided() { 2 } else { 1 };
        let fields = self
            .parts
            .denoiser
            .source()
            .map(|source| json::parse_object(&source.config));
        let fields = fields.and_then(Result::ok).unwrap_or_default();
        let each = match &self.network {
            AnyDenoiser::UNet2dCondition(unet) => {
                let channels = &unet.config().block_out_channels;
                let layers = unet.config().layers_per_block as u64 + 1;
                unet_maps(channels, layers, positions)
            }
            _ => {
                let heads = number(&fields, &["num_attention_heads"]).unwrap_or(24);
                let head = number(&fields, &["attention_head_dim"]).unwrap_or(64);
                let tokens = positions / 4 + job.max_sequence_length as u64 + 77;
                // Queries, keys and values, the feed-forward layer, and what is added.
                tokens * heads * head * 16 * FLOAT
            }
        };
        rows * each
    }

    /// Maps of the decoder.
    fn decoding(&self, job: &Job) -> u64 {
        let whole = u64::from(job.size.width) * u64::from(job.size.height);
        let config = self.parts.vae.source().map(|source| source.config.as_str());
        let config = config.and_then(|text| AutoencoderKlConfig::from_json(text).ok());
        let (channels, tile) = match config {
            Some(config) => {
                let channels = &config.block_out_channels;
                let wide = channels.get(1).or(channels.first()).copied().unwrap_or(64);
                (
                    wide as u64,
                    config.sample_size.sides().into_iter().max().unwrap_or(512),
                )
            }
            None => (64, 512),
        };
        let TileConfig { size, .. } = TileConfig::new(tile);
        let tiled = match job.options.tiling {
            Tiling::Never => false,
            Tiling::Always => true,
            Tiling::Auto => whole > 1024 * 1024,
        };
        let pixels = match tiled {
            true => whole.min((size * size) as u64),
            false => whole * job.options.batch_size.min(job.num_images()) as u64,
        };
        // A map of the last block with its normalised copy, and one that is computed of them; the
        // image itself.
        pixels * channels * 3 * FLOAT + whole * 3 * 2 * FLOAT
    }
}

/// Maps of a U-net of one image: those that its decoder receives, and those of a block.
fn unet_maps(channels: &[usize], layers: u64, positions: u64) -> u64 {
    let at = |level: usize| positions >> (2 * level);
    let levels = channels.iter().enumerate();
    let skips: u64 = levels
        .clone()
        .map(|(level, channels)| at(level) * *channels as u64 * layers)
        .sum();
    // In a transformer block: the feed-forward layer has 8 times the channels and their gated
    // half; the map, its norm and what is added.
    let block = levels
        .map(|(level, channels)| at(level) * *channels as u64 * 16)
        .max();
    (skips + block.unwrap_or(0)) * FLOAT
}

fn bytes<M>(part: &Part<M>) -> u64 {
    part.source().map_or(0, |source| source.bytes())
}

/// The first of these fields that is a number.
fn number(fields: &Map<String, Value>, names: &[&str]) -> Option<u64> {
    names
        .iter()
        .find_map(|name| fields.get(*name).and_then(Value::as_u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_grow_with_the_area() {
        let channels = [320, 640, 1280, 1280];
        let small = unet_maps(&channels, 3, 64 * 64);
        let large = unet_maps(&channels, 3, 128 * 128);
        assert_eq!(large, 4 * small);
        // Of the order of a hundred megabytes for Stable Diffusion 1 at 512×512.
        assert!((80..200).contains(&(small >> 20)), "{small}");
    }
}
