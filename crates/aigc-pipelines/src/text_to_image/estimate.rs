//! The memory that a request will need, before it starts.

use super::{
    families::PipelineFamily,
    job::Job,
    options::{PipelineOptions, Residency},
    pipeline::TextToImagePipeline,
};
use aigc_core::{Result, json, text_to_image::ImageRequest};
use aigc_diffusion::{AnyDenoiser, Denoiser};
use aigc_vae::TileConfig;
use serde_json::{Map, Value};

/// Limit on numbers of configurations of parts that were not opened yet.
const LARGEST: u64 = 1 << 20;

/// Bytes of a number of a map.
const FLOAT: u64 = 4;

/// An estimate of the memory of a request, in bytes: the weights of the parts, and the maps of the
/// stages. What a backend keeps beside them is not counted, and neither are previews: with
/// [`Residency::WhileNeeded`] they open the autoencoder beside the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryEstimate {
    /// Weights of each part, with adapters that are attached to them.
    pub weights: Vec<(String, u64)>,
    /// Maps of the stages that follow each other: `encoding`, `image_encoding` for a request with
    /// an image, `denoising`, `decoding`, to which the safety checker belongs.
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
        let encoders = self.parts.encoders.iter().zip(PipelineFamily::ENCODERS);
        let encoders: Vec<(String, u64)> = encoders
            .filter_map(|(part, name)| Some((name.to_owned(), part.as_ref()?.num_bytes())))
            .collect();
        let component = self.network.component().to_owned();
        let mut network = vec![(component, self.parts.denoiser.num_bytes())];
        let controlnets = self.parts.controlnets.iter();
        network.extend(controlnets.map(|part| ("controlnet".to_owned(), part.num_bytes())));
        let vae = vec![("vae".to_owned(), self.parts.vae.num_bytes())];
        let mut decoders = vae.clone();
        if let Some(safety) = &self.safety {
            let checker = safety.checker();
            decoders.push((checker.name().to_owned(), checker.num_bytes()));
        }

        let sum = |parts: &[(String, u64)]| -> u64 { parts.iter().map(|(_, bytes)| bytes).sum() };
        let mut stages = vec![("encoding", &encoders, self.encoding(&job))];
        if job.image.is_some() {
            stages.push(("image_encoding", &vae, self.image_encoding(&job)));
        }
        let last = self.decoding(&job).max(self.checking(&job));
        stages.push(("denoising", &network, self.denoising_bytes(&job)));
        stages.push(("decoding", &decoders, last));
        let peak = match self.residency {
            Residency::WhileNeeded => {
                let each = stages.iter().map(|(_, parts, maps)| sum(parts) + maps);
                each.max().unwrap_or(0)
            }
            Residency::Always | Residency::OnDemand => {
                let weights = sum(&encoders) + sum(&network) + sum(&decoders);
                weights + stages.iter().map(|(.., maps)| *maps).max().unwrap_or(0)
            }
        };
        let stages = stages.into_iter();
        let stages = stages.map(|(name, _, maps)| (name.to_owned(), maps));
        Ok(MemoryEstimate {
            stages: stages.collect(),
            weights: [encoders, network, decoders].concat(),
            peak,
        })
    }

    /// Maps of the text encoders: the hidden states of all layers are kept.
    fn encoding(&self, job: &Job) -> u64 {
        let tokens = job.max_sequence_length.max(77) as u64;
        let encoders = self.parts.encoders.iter().flatten();
        let each = encoders.filter_map(|part| {
            let fields = json::parse_object(part.config()).ok()?;
            let (width, layers) = (
                number(&fields, &["hidden_size", "d_model"])?,
                number(&fields, &["num_hidden_layers", "num_layers"])?,
            );
            Some(tokens * width * (layers + 12) * FLOAT)
        });
        each.max().unwrap_or(0) * if job.is_guided() { 2 } else { 1 }
    }

    /// Maps of the network, for a batch.
    fn denoising_bytes(&self, job: &Job) -> u64 {
        let [_, height, width] = job.latent_shape;
        let positions = (height * width) as u64;
        let batch = job.batch(1) as u64;
        let rows = batch * if job.is_guided() { 2 } else { 1 };
        let fields = json::parse_object(self.parts.denoiser.config()).unwrap_or_default();
        let each = match &self.network {
            AnyDenoiser::UNet2dCondition(unet) => {
                let channels = &unet.config().block_out_channels;
                let layers = unet.config().layers_per_block as u64 + 1;
                // A ControlNet keeps as many maps as the encoder of the U-net.
                let nets = self.parts.controlnets.len() as u64;
                let skips = skips(channels, layers, positions);
                (nets + 1) * skips + block(channels, positions)
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

    /// Maps of the encoder, for the image to start from.
    fn image_encoding(&self, job: &Job) -> u64 {
        let names = ["block_out_channels", "encoder_block_out_channels"];
        self.autoencoder(job, names, 0, 1)
    }

    /// Maps of the decoder, for a batch. Its last block receives the channels of the one before.
    fn decoding(&self, job: &Job) -> u64 {
        let names = ["block_out_channels", "decoder_block_out_channels"];
        let batch = job.batch(1) as u64;
        self.autoencoder(job, names, 1, batch)
    }

    /// Maps of the autoencoder for a batch of images, where they are largest: at the size of the
    /// images, with the channels of this level.
    fn autoencoder(&self, job: &Job, names: [&str; 2], level: usize, batch: u64) -> u64 {
        let whole = u64::from(job.size.width) * u64::from(job.size.height);
        let fields = json::parse_object(self.parts.vae.config()).unwrap_or_default();
        let channels = names.iter().find_map(|name| fields.get(*name)?.as_array());
        let channels = channels.map(Vec::as_slice).unwrap_or_default();
        let wide = channels.get(level).or(channels.first());
        let wide = wide.and_then(Value::as_u64);
        let tile = number(&fields, &["sample_size"]).unwrap_or(512);
        let TileConfig { size, .. } = TileConfig::new(tile as usize);
        let pixels = match job.is_tiled() {
            true => whole.min((size * size) as u64),
            false => whole * batch,
        };
        let channels = wide.unwrap_or(64).min(LARGEST);
        // A map of the block with its normalised copy, and one that is computed of them; the image
        // itself.
        pixels * channels * 3 * FLOAT + whole * 3 * 2 * FLOAT
    }

    /// Maps of the safety checker for a batch: the hidden states of all layers are kept.
    fn checking(&self, job: &Job) -> u64 {
        let Some(safety) = &self.safety else { return 0 };
        let fields = json::parse_object(safety.checker().config()).unwrap_or_default();
        let vision = fields.get("vision_config").and_then(Value::as_object);
        let of = |name: &str, default: u64| {
            let found = vision.and_then(|fields| number(fields, &[name]));
            found.unwrap_or(default)
        };
        // Defaults of transformers' `CLIPVisionConfig`.
        let patches = of("image_size", 224) / of("patch_size", 32).max(1);
        let layers = of("num_hidden_layers", 12) + 12;
        let batch = job.batch(1) as u64;
        let numbers = [patches, of("hidden_size", 768), layers, batch, FLOAT];
        numbers.into_iter().fold(patches, u64::saturating_mul)
    }
}

/// Maps of one image that a U-net's decoder receives.
fn skips(channels: &[usize], layers: u64, positions: u64) -> u64 {
    let levels = channels.iter().enumerate();
    let maps = levels.map(|(level, channels)| (positions >> (2 * level)) * *channels as u64);
    maps.sum::<u64>() * layers * FLOAT
}

/// Maps of one image in a transformer block of a U-net: the feed-forward layer has 8 times the
/// channels and their gated half; the map, its norm and what is added.
fn block(channels: &[usize], positions: u64) -> u64 {
    let levels = channels.iter().enumerate();
    let maps = levels.map(|(level, channels)| (positions >> (2 * level)) * *channels as u64);
    maps.max().unwrap_or(0) * 16 * FLOAT
}

/// The first of these fields that is a number.
fn number(fields: &Map<String, Value>, names: &[&str]) -> Option<u64> {
    names
        .iter()
        .find_map(|name| fields.get(*name).and_then(Value::as_u64))
        .map(|number| number.min(LARGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_grow_with_the_area() {
        let channels = [320, 640, 1280, 1280];
        let maps = |positions| skips(&channels, 3, positions) + block(&channels, positions);
        let (small, large) = (maps(64 * 64), maps(128 * 128));
        assert_eq!(large, 4 * small);
        // Of the order of a hundred megabytes for Stable Diffusion 1 at 512×512.
        assert!((80..200).contains(&(small >> 20)), "{small}");
    }
}
