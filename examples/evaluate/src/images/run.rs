//! Images drawn from the model of a run.

use super::set::{BATCH, ImageSet};
use crate::{Options, book::Book, subject::Model};
use aigc_core::{
    CancelToken, Error, Result,
    burn::tensor::{Device, Tensor},
    data::{Image, ImageShape},
    sampling::Samples,
    weights::Loaded,
};
use aigc_diffusion::{ClassifierFreeGuidance, Pipeline};
use aigc_examples::{Progress, complete};
use aigc_gan::{AnyGan, GanSampler, Generator};
use aigc_vae::{AnyVae, CodePrior, HierarchicalVae, Vae, VaeSampler, VqSampler, VqVae};

/// The opened model of a run.
pub(crate) enum ImageModel {
    Gan(Box<AnyGan>),
    Vae(Box<AnyVae>),
    Hierarchical(Box<HierarchicalVae>),
    Vq(Box<(VqVae, CodePrior)>),
    Diffusion(Box<Pipeline>),
}

impl ImageModel {
    /// Opens the model; what its files have besides becomes a warning.
    pub(crate) fn open(model: &Model, device: &Device, book: &mut Book) -> Result<Self> {
        Ok(match model {
            Model::Gan(dir) => Self::Gan(Box::new(opened(
                AnyGan::from_pretrained(dir, device)?,
                book,
            ))),
            Model::Vae(dir) => Self::Vae(Box::new(opened(
                AnyVae::from_pretrained(dir, device)?,
                book,
            ))),
            Model::HierarchicalVae(dir) => {
                let loaded = HierarchicalVae::from_pretrained(dir, device)?;
                Self::Hierarchical(Box::new(opened(loaded, book)))
            }
            Model::VqVae(dir, prior) => {
                let vae = opened(VqVae::from_pretrained(dir, device)?, book);
                let prior = opened(CodePrior::from_pretrained(prior, device)?, book);
                Self::Vq(Box::new((vae, prior)))
            }
            Model::Diffusion(dir) => {
                let loaded = Pipeline::from_pretrained(dir, device)?;
                Self::Diffusion(Box::new(opened(loaded, book)))
            }
            Model::Language(dir) => {
                return Err(Error::run(dir, "a language model draws no images"));
            }
        })
    }

    /// The family, for the report.
    pub(crate) fn family(&self) -> &'static str {
        match self {
            Self::Gan(_) => "GAN",
            Self::Vae(_) => "VAE",
            Self::Hierarchical(_) => "hierarchical VAE",
            Self::Vq(_) => "VQ-VAE with a prior over its codes",
            Self::Diffusion(_) => "diffusion model",
        }
    }

    /// The shape of a sample.
    pub(crate) fn shape(&self) -> Result<ImageShape> {
        let shape = match self {
            Self::Gan(gan) => gan.generator.sample_shape().as_image(),
            Self::Vae(vae) => vae.sample_shape().as_image(),
            Self::Hierarchical(vae) => Some(vae.config().shape),
            Self::Vq(both) => Some(both.0.config().shape),
            Self::Diffusion(pipeline) => Some(pipeline.shape),
        };
        shape.ok_or_else(|| Error::argument("RUN", "a model of other samples", "images"))
    }

    /// The class of the model that the class `name` of the data is: by its name if the classes of
    /// the model have names, and else by its place among `known`, the classes of the data.
    pub(crate) fn class_of(&self, name: &str, known: &[String]) -> Option<u32> {
        match self {
            Self::Diffusion(pipeline) => class_of_pipeline(pipeline, name, known),
            _ => place_of(name, known),
        }
    }

    /// Draws `n` samples. Classes are drawn at random where the model has them.
    pub(crate) fn draw(
        &self,
        n: usize,
        options: &Options,
        device: &Device,
        stop: &CancelToken,
    ) -> Result<ImageSet> {
        let seed = options.seed;
        let progress = Progress::new("samples", n, stop);
        let samples = match self {
            Self::Gan(gan) => GanSampler::new(&gan.generator, device)
                .with_cancel(stop.clone())
                .with_callback(|at| progress.on_batch(at))
                .sample(n, seed)?,
            Self::Vae(vae) => VaeSampler::new(&**vae, device)
                .with_cancel(stop.clone())
                .with_callback(|at| progress.on_batch(at))
                .sample(n, seed)?,
            Self::Hierarchical(vae) => VaeSampler::new(&**vae, device)
                .with_cancel(stop.clone())
                .with_callback(|at| progress.on_batch(at))
                .sample(n, seed)?,
            Self::Vq(both) => VqSampler::new(&both.0, &[&both.1], device)?
                .with_batch_size(BATCH)
                .with_cancel(stop.clone())
                .with_callback(|at| progress.on_batch(at))
                .sample(n, seed)?,
            Self::Diffusion(pipeline) => {
                let sampler = pipeline
                    .sampler(options.sampling_steps as usize, device)?
                    .with_batch_size(BATCH)
                    .with_cancel(stop.clone())
                    .with_callback(|at| progress.on_step(at));
                let sampler = if options.guidance == 1.0 {
                    sampler
                } else {
                    sampler.with_guidance(ClassifierFreeGuidance::new(options.guidance))
                };
                sampler.sample(n, seed)?
            }
        };
        drop(progress);
        let names: &[String] = match self {
            Self::Diffusion(pipeline) => pipeline.labels(),
            _ => &[],
        };
        to_set(complete(samples)?, names, self.shape()?)
    }
}

/// See [`ImageModel::class_of`].
pub(crate) fn class_of_pipeline(pipeline: &Pipeline, name: &str, known: &[String]) -> Option<u32> {
    match pipeline.labels().is_empty() {
        true => place_of(name, known),
        false => pipeline.class(name).ok(),
    }
}

/// The place of a class among `known`.
pub(crate) fn place_of(name: &str, known: &[String]) -> Option<u32> {
    let place = known.iter().position(|class| class == name)?;
    Some(place as u32)
}

fn opened<T>(loaded: Loaded<T>, book: &mut Book) -> T {
    for line in loaded.warnings() {
        book.warn(line);
    }
    loaded.into_inner()
}

/// Samples as images of 8 bits, as they would be saved. `names` are those of the classes, if they
/// have some.
fn to_set(samples: Samples<4>, names: &[String], shape: ImageShape) -> Result<ImageSet> {
    let [n, channels, height, width] = samples.values.dims();
    if ImageShape::new(channels, height, width) != shape {
        let found = ImageShape::new(channels, height, width);
        return Err(Error::argument(
            "samples",
            found,
            format!("{shape}, as the model says"),
        ));
    }
    let values = bytes(&samples.values);
    let label = |i: usize| samples.labels.as_ref().map(|labels| labels[i]);
    let images = values.chunks_exact(shape.numel()).enumerate();
    let images = images.map(|(i, pixels)| Image {
        shape,
        pixels: pixels.to_vec(),
        label: label(i),
    });
    let last = samples.labels.iter().flatten().max().copied();
    Ok(ImageSet {
        name: "samples".into(),
        images: images.collect(),
        names: (0..n).map(|i| format!("sample {i}")).collect(),
        files: vec![],
        classes: match (last, names.is_empty()) {
            (None, _) => vec![],
            (Some(last), true) => (0..=last).map(|c| c.to_string()).collect(),
            (Some(_), false) => names.to_vec(),
        },
    })
}

/// Values in `[0, 1]` as bytes.
fn bytes(values: &Tensor<4>) -> Vec<u8> {
    let data = values.to_data();
    let byte = |value: f32| (value.clamp(0.0, 1.0) * 255.0).round() as u8;
    data.iter::<f32>().map(byte).collect()
}
