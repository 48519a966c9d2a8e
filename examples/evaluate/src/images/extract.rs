//! The features that images are compared in.

use super::{
    run::bytes,
    set::{BATCH, ImageSet},
};
use crate::options::FeatureChoice;
use aigc_core::{
    CancelToken, Error, Result,
    burn::tensor::{Device, Tensor},
    data::ImageShape,
    eval::{
        Classifier, FeatureCache, FeatureExtractor, FeatureStream, Features, InceptionV3, LeNet5,
    },
};
use aigc_encoders::{
    clip::{ClipImageProcessor, ClipModel, RgbPixels},
    tokenizer::ClipTokenizer,
};
use aigc_examples::Progress;
use sha2::{Digest, Sha256};
use std::{cell::Cell, fs::File, io::Read, path::Path};

/// Values of an image whose pixels are features by default: the cost of a Fréchet distance grows
/// with the third power.
const PIXELS: usize = 1024;
/// Values of an image whose pixels may be features.
const MAX_PIXELS: usize = 4096;

/// A CLIP model with what it needs of its directory.
pub(crate) struct Clip {
    model: ClipModel,
    processor: ClipImageProcessor,
    tokenizer: ClipTokenizer,
    hash: String,
}

enum Network {
    Pixels(usize),
    LeNet(Box<LeNet5>, String),
    Inception(Box<InceptionV3>),
    Clip(Box<Clip>),
}

/// A [`FeatureExtractor`] of the command line.
pub(crate) struct Extractor {
    network: Network,
    device: Device,
    cache: Option<FeatureCache>,
}

impl Extractor {
    /// The extractor for images of `shape`; `None` if none was chosen and the images are too large
    /// for their pixels.
    pub(crate) fn open(
        choice: &FeatureChoice,
        shape: ImageShape,
        cache: Option<&Path>,
        device: &Device,
    ) -> Result<Option<Self>> {
        let values = shape.numel();
        let network = match choice {
            FeatureChoice::Default if values > PIXELS => return Ok(None),
            FeatureChoice::Pixels if values > MAX_PIXELS => {
                return Err(Error::argument(
                    "--features",
                    format!("pixels, for images of {shape}"),
                    format!("lenet, inception or clip above {MAX_PIXELS} values"),
                ));
            }
            FeatureChoice::Default | FeatureChoice::Pixels => Network::Pixels(values),
            FeatureChoice::LeNet(file) => {
                if shape.channels != 1 {
                    return Err(Error::argument(
                        "--features",
                        format!("lenet, for images of {shape}"),
                        "grey images, or inception or clip",
                    ));
                }
                Network::LeNet(Box::new(LeNet5::from_file(file, device)?), file_hash(file)?)
            }
            FeatureChoice::Inception(file) => {
                Network::Inception(Box::new(InceptionV3::from_file(file, device)?))
            }
            FeatureChoice::Clip(dir) => Network::Clip(Box::new(Clip::open(dir, device)?)),
        };
        Ok(Some(Self {
            network,
            device: device.clone(),
            cache: cache.map(FeatureCache::new),
        }))
    }

    /// The features, for the names of measures.
    pub(crate) fn label(&self) -> &'static str {
        match self.network {
            Network::Pixels(_) => "pixels",
            Network::LeNet(..) => "LeNet-5",
            Network::Inception(_) => "InceptionV3",
            Network::Clip(_) => "CLIP",
        }
    }

    pub(crate) fn lenet(&self) -> Option<&LeNet5> {
        match &self.network {
            Network::LeNet(net, _) => Some(net),
            _ => None,
        }
    }

    pub(crate) fn clip(&self) -> Option<&Clip> {
        match &self.network {
            Network::Clip(clip) => Some(clip),
            _ => None,
        }
    }

    /// The features of all images of a set.
    pub(crate) fn features(&self, set: &ImageSet, stop: &CancelToken) -> Result<Features> {
        let progress = Progress::new("features", set.len(), stop);
        let shown = Cell::new(0);
        let mut stream = FeatureStream::<4>::new(self, &self.device)
            .with_cancel(stop.clone())
            .with_progress(|done| {
                // The stream itself stops before its next batch.
                let _ = progress.add(done - shown.replace(done));
            });
        if let Some(cache) = &self.cache {
            stream = stream.with_cache(cache.clone());
        }
        stream.features(set.batches())
    }

    /// The logits of all images, of a network that has classes.
    pub(crate) fn logits(&self, set: &ImageSet, stop: &CancelToken) -> Option<Result<Features>> {
        let logits = |images: Tensor<4>| match &self.network {
            Network::LeNet(net, _) => Ok(net.classify(images).logits),
            Network::Inception(net) => net.logits_unbiased(images),
            Network::Pixels(_) | Network::Clip(_) => Err(Error::argument("logits", 0, "classes")),
        };
        let width = match &self.network {
            Network::LeNet(..) => LeNet5::CLASSES,
            Network::Inception(_) => InceptionV3::CLASSES,
            Network::Pixels(_) | Network::Clip(_) => return None,
        };
        let all = || {
            let progress = Progress::new("logits", set.len(), stop);
            let mut all = Features::empty(width)?;
            for batch in set.batches() {
                let batch = batch?;
                all.extend(&logits(batch.to_tensor(&self.device))?)?;
                progress.add(batch.len())?;
            }
            Ok(all)
        };
        Some(all())
    }
}

impl FeatureExtractor for Extractor {
    fn id(&self) -> String {
        match &self.network {
            Network::Pixels(values) => format!("pixels {values}"),
            Network::LeNet(_, hash) => format!("LeNet-5 {hash}"),
            Network::Inception(net) => net.id(),
            Network::Clip(clip) => format!("CLIP {}", clip.hash),
        }
    }

    fn width(&self) -> usize {
        match &self.network {
            Network::Pixels(values) => *values,
            Network::LeNet(..) => LeNet5::FEATURES,
            Network::Inception(net) => net.width(),
            Network::Clip(clip) => clip.model.config().projection_dim,
        }
    }

    fn extract(&self, samples: Tensor<4>) -> Result<Tensor<2>> {
        match &self.network {
            Network::Pixels(_) => Ok(samples.flatten(1, 3)),
            Network::LeNet(net, _) => Ok(net.classify(samples).features),
            Network::Inception(net) => net.extract(samples),
            Network::Clip(clip) => clip.images(&samples, &self.device),
        }
    }
}

impl Clip {
    fn open(dir: &Path, device: &Device) -> Result<Self> {
        let weights = dir.join("model.safetensors");
        let weights = match weights.is_file() {
            true => weights,
            false => dir.join("config.json"),
        };
        Ok(Self {
            model: ClipModel::from_pretrained(dir, device)?.into_inner(),
            processor: ClipImageProcessor::from_pretrained(dir)?.into_inner(),
            tokenizer: ClipTokenizer::from_pretrained(dir)?,
            hash: file_hash(&weights)?,
        })
    }

    /// Embeddings of images of `[0, 1]`.
    fn images(&self, images: &Tensor<4>, device: &Device) -> Result<Tensor<2>> {
        let [_, channels, height, width] = images.dims();
        let area = height * width;
        // Grey is repeated; the channels of a pixel come side by side.
        let rgb: Vec<Vec<u8>> = bytes(images)
            .chunks_exact(channels * area)
            .map(|planes| {
                let pixel = |i| [0, 1, 2].map(|c| planes[(c % channels) * area + i]);
                (0..area).flat_map(pixel).collect()
            })
            .collect();
        let pixels = |pixels| RgbPixels {
            pixels,
            height,
            width,
        };
        let pixels: Vec<RgbPixels<'_>> = rgb.iter().map(|image| pixels(image.as_slice())).collect();
        let input = self.processor.preprocess(&pixels, device)?;
        Ok(self.model.get_image_features(input))
    }

    /// Embeddings of texts.
    pub(crate) fn texts(&self, texts: &[String], device: &Device) -> Result<Features> {
        let mut all = Features::empty(self.model.config().projection_dim)?;
        for some in texts.chunks(BATCH) {
            let some: Vec<&str> = some.iter().map(String::as_str).collect();
            let tokens = self.tokenizer.encode_padded(&some)?;
            let (ids, mask) = (tokens.input_ids(device), tokens.mask(device));
            all.extend(&self.model.get_text_features(ids, Some(mask)))?;
        }
        Ok(all)
    }
}

/// SHA-256 of a file.
fn file_hash(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let (mut hash, mut part) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut part).map_err(Error::io(path))? {
            0 => break,
            n => hash.update(&part[..n]),
        }
    }
    Ok(hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
