//! The features that images are compared in.

use super::set::ImageSet;
use crate::options::FeatureChoice;
use aigc_core::{
    CancelToken, Error, Result,
    burn::tensor::{Device, Tensor},
    data::ImageShape,
    eval::{
        Classifier, FeatureCache, FeatureExtractor, FeatureStream, Features, InceptionV3, LeNet5,
    },
};
use aigc_encoders::clip::ClipFeatures;
use aigc_examples::Progress;
use std::{cell::Cell, path::Path};

/// Values of an image whose pixels are features by default: the cost of a Fréchet distance grows
/// with the third power.
const PIXELS: usize = 1024;
/// Values of an image whose pixels may be features.
const MAX_PIXELS: usize = 4096;

enum Network {
    Pixels(usize),
    LeNet(Box<LeNet5>),
    Inception(Box<InceptionV3>),
    Clip(Box<ClipFeatures>),
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
                Network::LeNet(Box::new(LeNet5::from_file(file, device)?))
            }
            FeatureChoice::Inception(file) => {
                Network::Inception(Box::new(InceptionV3::from_file(file, device)?))
            }
            FeatureChoice::Clip(dir) => {
                let clip = ClipFeatures::from_pretrained(dir, device)?.into_inner();
                Network::Clip(Box::new(clip))
            }
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
            Network::LeNet(_) => "LeNet-5",
            Network::Inception(_) => "InceptionV3",
            Network::Clip(_) => "CLIP",
        }
    }

    pub(crate) fn lenet(&self) -> Option<&LeNet5> {
        match &self.network {
            Network::LeNet(net) => Some(net),
            _ => None,
        }
    }

    pub(crate) fn clip(&self) -> Option<&ClipFeatures> {
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
            Network::LeNet(net) => Ok(net.classify(images).logits),
            Network::Inception(net) => net.logits_unbiased(images),
            Network::Pixels(_) | Network::Clip(_) => Err(Error::argument("logits", 0, "classes")),
        };
        let width = match &self.network {
            Network::LeNet(_) => LeNet5::CLASSES,
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
            Network::LeNet(net) => net.id(),
            Network::Inception(net) => net.id(),
            Network::Clip(clip) => clip.id(),
        }
    }

    fn width(&self) -> usize {
        match &self.network {
            Network::Pixels(values) => *values,
            Network::LeNet(net) => net.width(),
            Network::Inception(net) => net.width(),
            Network::Clip(clip) => clip.width(),
        }
    }

    fn extract(&self, samples: Tensor<4>) -> Result<Tensor<2>> {
        match &self.network {
            Network::Pixels(_) => Ok(samples.flatten(1, 3)),
            Network::LeNet(net) => net.extract(samples),
            Network::Inception(net) => net.extract(samples),
            Network::Clip(clip) => clip.extract(samples),
        }
    }
}
