//! From noise to images.
//!
//! Everything random is drawn on the host, by a stream for each image: what an image becomes
//! depends on its seed and its number alone, not on how many are made at once.

use crate::{
    clip::Clip,
    denoiser::Denoiser,
    guidance::{ClassifierFreeGuidance, Guide, differentiable},
    plan::{ModelCall, SamplingPlan},
    prediction::NoiseLevel,
    scheduler::{DdimInverseScheduler, Scheduler},
};
use aigc_core::{
    Error, Result,
    data::{ClassLabels, ImageShape},
    encoder::Autoencoder,
    latent::slerp,
    rng::Rng,
};
use burn::tensor::{Device, Tensor, TensorData};
use std::{
    cell::RefCell,
    ops::{ControlFlow, Range},
};

mod carry;
mod repaint;

/// Images made in one pass of the network, unless it is told otherwise.
const BATCH_SIZE: usize = 64;

/// Where sampling is.
#[derive(Debug)]
pub struct StepProgress<'a> {
    /// The images being made, of all that were asked for.
    pub images: Range<usize>,
    /// All that were asked for.
    pub total: usize,
    /// Calls of the network made for them.
    pub step: usize,
    /// Calls to be made.
    pub num_steps: usize,
    x: &'a Tensor<4>,
    x0: &'a Tensor<4>,
    level: NoiseLevel,
    sampler: &'a dyn Show,
}

impl StepProgress<'_> {
    /// The images as they would be if nothing more were to change,
    /// `[images, channels, height, width]` in `[0, 1]`.
    pub fn preview(&self) -> Tensor<4> {
        self.sampler.show(self.x0.clone())
    }

    /// The noisy samples themselves, as pictures: brought to the images' range, in which the noise
    /// goes beyond black and white.
    ///
    /// # Shapes
    /// - output: `[images, channels, height, width]` in `[0, 1]`
    pub fn noisy_images(&self) -> Tensor<4> {
        let size = (self.level.alpha.powi(2) + self.level.sigma.powi(2)).sqrt();
        self.sampler.show(self.x.clone() / size)
    }
}

/// How samples become images.
trait Show: std::fmt::Debug {
    fn show(&self, x: Tensor<4>) -> Tensor<4>;
}

/// What sampling gives.
#[derive(Clone, Debug)]
pub struct Samples {
    /// `[n, channels, height, width]` in `[0, 1]`. If sampling was stopped: those that were done
    /// and, as far as they had come, those that were being made.
    pub images: Tensor<4>,
    /// The class of each, where the network is told one.
    pub classes: Option<Vec<u32>>,
    /// Whether nothing stopped it.
    pub complete: bool,
}

type Callback<'a> = Box<dyn FnMut(&StepProgress<'_>) -> ControlFlow<()> + 'a>;

/// Makes images with a network and a scheduler.
///
/// ```no_run
/// # use aigc_core::{data::{ClassLabels, ImageShape}, device::device};
/// # use aigc_diffusion::{DpmMultistepScheduler, ClassifierFreeGuidance, Pipeline, DiffusionSampler};
/// # fn main() -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let pipeline = Pipeline::from_dir("runs/digits-diffusion-1/pipeline", &device)?;
/// let sampler = pipeline.sampler(20, &device)?.of(ClassLabels::All(7)).guided(ClassifierFreeGuidance::new(2.0))?;
/// let images = sampler.sample(64, 0)?.images;
/// # Ok(()) }
/// ```
pub struct DiffusionSampler<'a, D> {
    network: &'a D,
    plan: SamplingPlan,
    shape: ImageShape,
    device: Device,
    classes: ClassLabels,
    known: Option<usize>,
    /// The class that stands for none.
    none: Option<u32>,
    tokens: Option<(Tensor<3>, Option<Tensor<3>>)>,
    guidance: Option<ClassifierFreeGuidance>,
    guide: Option<(&'a dyn Guide, D)>,
    latent: Option<(&'a dyn Autoencoder, f64)>,
    batch_size: usize,
    observer: Option<RefCell<Callback<'a>>>,
}

impl<D: Denoiser> std::fmt::Debug for DiffusionSampler<'_, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiffusionSampler")
            .field("shape", &self.shape)
            .field("calls", &self.plan.len())
            .field("classes", &self.classes)
            .field("guidance", &self.guidance)
            .field("guide", &self.guide.as_ref().map(|(guide, _)| guide))
            .field("batch_size", &self.batch_size)
            .finish_non_exhaustive()
    }
}

impl<D: Denoiser> Show for DiffusionSampler<'_, D> {
    fn show(&self, x: Tensor<4>) -> Tensor<4> {
        match self.latent {
            None => ((x + 1.0) * 0.5).clamp(0.0, 1.0),
            Some((autoencoder, scale)) => autoencoder.decode(x / scale),
        }
    }
}

/// Noise for each of some images, from streams of their own.
struct Streams(Vec<Rng>);

impl Streams {
    fn new(seed: u64, purpose: &str, images: Range<usize>) -> Self {
        Self(
            images
                .map(|i| Rng::stream(seed, purpose, i as u64))
                .collect(),
        )
    }

    fn draw(&mut self, shape: ImageShape, device: &Device) -> Tensor<4> {
        let values: Vec<f32> = self
            .0
            .iter_mut()
            .flat_map(|rng| rng.normal_vec(shape.numel()))
            .collect();
        let dims = [self.0.len(), shape.channels, shape.height, shape.width];
        Tensor::from_data(TensorData::new(values, dims), device)
    }
}

impl<'a, D: Denoiser> DiffusionSampler<'a, D> {
    /// A sampler of images of `shape`, in so many steps of a scheduler, of any class and without
    /// guidance.
    ///
    /// # Errors
    /// [`Error::Config`] as the scheduler's [`plan`](Scheduler::plan), or for a shape that the
    /// network cannot make.
    pub fn new(
        network: &'a D,
        scheduler: &impl Scheduler,
        steps: usize,
        shape: ImageShape,
        device: &Device,
    ) -> Result<Self> {
        if shape.numel() == 0 {
            return Err(Error::config("shape", shape, "at least one value"));
        }
        network.check_shape(shape)?;
        Ok(Self {
            network,
            plan: scheduler.plan(steps)?,
            shape,
            device: device.clone(),
            classes: ClassLabels::Random,
            known: network.num_classes(),
            none: network
                .num_classes()
                .filter(|classes| *classes > 1)
                .map(|classes| classes as u32 - 1),
            tokens: None,
            guidance: None,
            guide: None,
            latent: None,
            batch_size: BATCH_SIZE,
            observer: None,
        })
    }

    /// Makes these classes.
    pub fn with_classes(self, classes: ClassLabels) -> Self {
        Self { classes, ..self }
    }

    /// Only the network's first `known` classes are classes. If there are more, the last stands for
    /// none; if not, none does.
    ///
    /// # Errors
    /// [`Error::Config`] unless the network has as many.
    pub fn with_num_classes(self, known: usize) -> Result<Self> {
        match self.network.num_classes() {
            Some(classes) if (1..=classes).contains(&known) => {
                let none = (known < classes).then_some(classes as u32 - 1);
                Ok(Self {
                    known: Some(known),
                    none,
                    ..self
                })
            }
            classes => Err(Error::config(
                "known",
                known,
                format!("1 to {}, the classes", classes.unwrap_or(0)),
            )),
        }
    }

    /// Makes no class in particular: the network is told the class that stands for none, its last,
    /// unless all are [known](Self::with_num_classes).
    ///
    /// # Errors
    /// [`Error::Config`] if no class stands for none.
    pub fn unconditional(self) -> Result<Self> {
        match self.none {
            Some(none) => Ok(Self {
                known: self.network.num_classes(),
                classes: ClassLabels::All(none),
                ..self
            }),
            None => Err(Error::config(
                "classes",
                "none",
                "a network with a class that stands for none",
            )),
        }
    }

    /// Tells a network with cross-attention these tokens, `[1 or n, tokens, width]`; `none`, of the
    /// same shape, is what guidance goes away from.
    ///
    /// # Errors
    /// [`Error::Config`] if the network looks at no tokens, or tokens of another width, or the two
    /// are not of one shape.
    pub fn with_prompt_embeds(self, tokens: Tensor<3>, none: Option<Tensor<3>>) -> Result<Self> {
        let [_, count, width] = tokens.dims();
        match self.network.cross_attention_dim() {
            Some(expected) if expected == width && count > 0 => {}
            Some(expected) => {
                let value = format!("{count} of width {width}");
                return Err(Error::config(
                    "tokens",
                    value,
                    format!("at least one, of width {expected}"),
                ));
            }
            None => {
                return Err(Error::config(
                    "tokens",
                    "given",
                    "none; the network looks at no tokens",
                ));
            }
        }
        if let Some(none) = none
            .as_ref()
            .filter(|none| none.dims()[1..] != [count, width])
        {
            let expected = format!("[1 or n, {count}, {width}], like the tokens");
            return Err(Error::config(
                "none",
                format!("{:?}", none.dims()),
                expected,
            ));
        }
        Ok(Self {
            tokens: Some((tokens, none)),
            ..self
        })
    }

    /// Classifier-free guidance, away from the class that stands for none (the last, unless all are
    /// [known](Self::with_num_classes)), or from the tokens that do.
    ///
    /// # Errors
    /// [`Error::Config`] for a value out of range, or a network that cannot be asked without a
    /// class.
    pub fn with_guidance(self, guidance: ClassifierFreeGuidance) -> Result<Self> {
        guidance.validate()?;
        let by_tokens = self.tokens.as_ref().is_some_and(|(_, none)| none.is_some());
        if !by_tokens && self.none.is_none() {
            let expected = "nothing; the network has no class that stands for none, and no other tokens were told";
            return Err(Error::config("guidance", guidance.guidance_scale, expected));
        }
        // What stands for none is no class to ask for.
        let known = self
            .known
            .zip(self.none)
            .map(|(known, none)| known.min(none as usize))
            .or(self.known);
        Ok(Self {
            guidance: Some(guidance),
            known,
            ..self
        })
    }

    /// Leads samples by a likelihood. Where the scheduler clips clean samples, the noise is that of
    /// the clipped ones: what leads may go far beyond the range, and noise of other samples than
    /// those would pile up from step to step.
    pub fn with_guide(self, guide: &'a dyn Guide) -> Self {
        let live = differentiable(self.network);
        let plan = SamplingPlan {
            use_clipped_model_output: true,
            ..self.plan
        };
        Self {
            guide: Some((guide, live)),
            plan,
            ..self
        }
    }

    /// Samples are latent maps times `scale`; images are what the autoencoder makes of them.
    ///
    /// # Errors
    /// [`Error::Config`] unless the scale is more than 0 and the latent maps are of the sampler's
    /// shape; for a scheduler that keeps samples within the range of images, which latent maps are
    /// not in.
    pub fn with_autoencoder(self, autoencoder: &'a dyn Autoencoder, scale: f64) -> Result<Self> {
        if !(scale > 0.0 && scale.is_finite()) {
            return Err(Error::config("scale", scale, "more than 0"));
        }
        if autoencoder.latent_shape() != self.shape {
            let expected = format!(
                "{}, the autoencoder's latent maps",
                autoencoder.latent_shape()
            );
            return Err(Error::config("shape", self.shape, expected));
        }
        unclipped(&self.plan)?;
        Ok(Self {
            latent: Some((autoencoder, scale)),
            ..self
        })
    }

    /// Makes so many images at once, 64 by default (the network sees twice as many with
    /// classifier-free guidance): this bounds the memory that the network needs, however many are
    /// asked for.
    ///
    /// # Errors
    /// [`Error::Config`] for 0.
    pub fn with_batch_size(self, images: usize) -> Result<Self> {
        if images == 0 {
            return Err(Error::config("batch_size", images, "at least 1"));
        }
        Ok(Self {
            batch_size: images,
            ..self
        })
    }

    /// Is told of every call of the network; may look at the images so far, and may stop.
    pub fn with_callback(
        self,
        observer: impl FnMut(&StepProgress<'_>) -> ControlFlow<()> + 'a,
    ) -> Self {
        Self {
            observer: Some(RefCell::new(Box::new(observer))),
            ..self
        }
    }

    /// Calls of the network for each image.
    pub fn num_model_calls(&self) -> usize {
        self.plan.len()
    }

    /// The plan being carried out.
    pub fn plan(&self) -> &SamplingPlan {
        &self.plan
    }

    /// Shape of a sample.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// Standard normal noise, as [`sample`](Self::sample) starts from it.
    ///
    /// # Shapes
    /// - output: `[n, channels, height, width]`
    pub fn noise(&self, n: usize, seed: u64) -> Tensor<4> {
        Streams::new(seed, "start", 0..n).draw(self.shape, &self.device)
    }

    /// `n` images.
    ///
    /// # Errors
    /// [`Error::Config`] if `n` is 0 or a class is not one of the network's; what a [`Guide`]
    /// reports.
    pub fn sample(&self, n: usize, seed: u64) -> Result<Samples> {
        let classes = self.draw_classes(n, seed)?;
        let start = |images: Range<usize>| {
            Ok(
                Streams::new(seed, "start", images).draw(self.shape, &self.device)
                    * self.plan.init_noise_sigma,
            )
        };
        self.in_parts(n, &self.plan, classes, seed, start)
    }

    /// Images of given noise, `[n, channels, height, width]`, standard normal. `seed` is for the
    /// noise that a scheduler adds on the way, and for the classes.
    ///
    /// # Errors
    /// [`Error::Config`] as [`sample`](Self::sample), or if the noise is not of the sampler's
    /// shape.
    pub fn sample_from_noise(&self, noise: &Tensor<4>, seed: u64) -> Result<Samples> {
        let n = self.fits(noise, "noise")?;
        let classes = self.draw_classes(n, seed)?;
        let start = |images: Range<usize>| {
            Ok(noise.clone().narrow(0, images.start, images.len()) * self.plan.init_noise_sigma)
        };
        self.in_parts(n, &self.plan, classes, seed, start)
    }

    /// Image to image (Meng et al. 2022, <https://arxiv.org/abs/2108.01073>): noise is added to
    /// images, and they are cleaned again. `strength` is the share of the calls that are made, from
    /// above 0, which changes next to nothing, to 1.
    ///
    /// # Shapes
    /// - images: `[n, channels, height, width]` in `[0, 1]`
    ///
    /// # Errors
    /// [`Error::Config`] as [`sample`](Self::sample), for a strength out of range, or images of
    /// another shape.
    pub fn img2img(&self, images: &Tensor<4>, strength: f64, seed: u64) -> Result<Samples> {
        if !(strength > 0.0 && strength <= 1.0) {
            return Err(Error::config("strength", strength, "above 0, at most 1"));
        }
        let n = self.images_fit(images)?;
        let made = ((self.plan.len() as f64 * strength) as usize).max(1);
        let plan = self.plan.starting_at(self.plan.len() - made)?;
        let classes = self.draw_classes(n, seed)?;
        let originals = images;
        let start = |images: Range<usize>| {
            let noise = Streams::new(seed, "start", images.clone()).draw(self.shape, &self.device);
            Ok(plan.add_noise(0, self.hide(originals, images), noise))
        };
        self.in_parts(n, &plan, classes, seed, start)
    }

    /// Takes noise of a known standard deviation (of values in `[0, 1]`) from images: a noisy image
    /// is a sample on its way. With a scheduler that adds fresh noise (DDPM, DDIM with `eta` 1),
    /// what comes out is drawn from all clean images that it may have been. It is made as noisy as
    /// at the next call before it; with many steps that is next to nothing.
    ///
    /// # Shapes
    /// - images: `[n, channels, height, width]` in `[0, 1]`, but for the noise
    ///
    /// # Errors
    /// [`Error::Config`] as [`sample`](Self::sample), for an autoencoder, whose latent maps have
    /// other noise, for no noise or more than sampling begins with, and for images of another
    /// shape.
    pub fn denoise(&self, images: &Tensor<4>, deviation: f64, seed: u64) -> Result<Samples> {
        if self.latent.is_some() {
            return Err(Error::config(
                "autoencoder",
                "given",
                "none; the noise is in the images",
            ));
        }
        let n = self.images_fit(images)?;
        let ratio = |call: &ModelCall| call.level.sigma / call.level.alpha;
        // Images are in [−1, 1] here.
        let noise = 2.0 * deviation;
        let at = self
            .plan
            .calls
            .iter()
            .rposition(|call| ratio(call) >= noise);
        let Some(at) = at.filter(|_| noise > 0.0) else {
            let most = ratio(&self.plan.calls[0]) / 2.0;
            return Err(Error::config(
                "deviation",
                deviation,
                format!("above 0, at most {most:.4}"),
            ));
        };
        let plan = self.plan.starting_at(at)?;
        let NoiseLevel { alpha, sigma } = plan.calls[0].level;
        let more = (sigma.powi(2) - (alpha * noise).powi(2)).max(0.0).sqrt();
        let classes = self.draw_classes(n, seed)?;
        let noisy = images;
        let start = |images: Range<usize>| {
            let added =
                Streams::new(seed, "start", images.clone()).draw(self.shape, &self.device) * more;
            Ok(self.hide(noisy, images) * alpha + added)
        };
        self.in_parts(n, &plan, classes, seed, start)
    }

    /// The noise that DDIM makes these images from (Song et al. 2021, section 5.4), for
    /// [`sample_from_noise`](Self::sample_from_noise) of a sampler with the
    /// [`DdimScheduler`](crate::DdimScheduler) that the inverse was made
    /// [from](DdimInverseScheduler::from), and the same seed, which draws the same classes.
    ///
    /// # Shapes
    /// - images and output: `[n, channels, height, width]`; images in `[0, 1]`
    ///
    /// # Errors
    /// [`Error::Config`] as [`sample`](Self::sample), as the scheduler's plan, for images of
    /// another shape, for guidance or a [`Guide`], for a scheduler that clips beside an
    /// autoencoder, or if an observer stops it.
    pub fn invert(
        &self,
        images: &Tensor<4>,
        scheduler: &DdimInverseScheduler,
        steps: usize,
        seed: u64,
    ) -> Result<Tensor<4>> {
        for (field, given) in [
            ("guide", self.guide.is_some()),
            ("guidance", self.guidance.is_some()),
        ] {
            if given {
                return Err(Error::config(
                    field,
                    "given",
                    "none; images are taken to their noise as they are",
                ));
            }
        }
        let n = self.images_fit(images)?;
        let plan = scheduler.plan(steps)?;
        if self.latent.is_some() {
            unclipped(&plan)?;
        }
        let classes = self.draw_classes(n, seed)?;
        let mut parts = Vec::new();
        for part in self.parts(n) {
            let carried = self.carry(
                self.hide(images, part.clone()),
                &plan,
                classes.as_deref(),
                part,
                n,
                seed,
            )?;
            if carried.stopped {
                return Err(Error::config(
                    "observer",
                    "a stop",
                    "none; there is no noise halfway",
                ));
            }
            parts.push(carried.x);
        }
        Ok(Tensor::cat(parts, 0))
    }

    /// `frames` images on the way from noise to noise: along the great arc between them, ends
    /// included (Song et al. 2021, section 5.3). One class for all frames of a pair.
    ///
    /// # Shapes
    /// - from and to: `[pairs, channels, height, width]`, standard normal
    /// - output: `frames` of `[pairs, channels, height, width]` in `[0, 1]`
    ///
    /// # Errors
    /// [`Error::Config`] as [`sample_from_noise`](Self::sample_from_noise), for fewer than two
    /// frames, or if an observer stops it.
    pub fn interpolate(
        &self,
        from: &Tensor<4>,
        to: &Tensor<4>,
        frames: usize,
        seed: u64,
    ) -> Result<Vec<Tensor<4>>> {
        if frames < 2 {
            return Err(Error::config("frames", frames, "at least 2"));
        }
        self.fits(from, "from")?;
        if from.dims() != to.dims() {
            return Err(Error::config(
                "to",
                format!("{:?}", to.dims()),
                format!("{:?}, like `from`", from.dims()),
            ));
        }
        let flat = |x: &Tensor<4>| x.clone().flatten::<2>(1, 3);
        let at = |k: usize| k as f64 / (frames - 1) as f64;
        let frame = |k: usize| {
            let noise = slerp(flat(from), flat(to), at(k)).reshape(from.dims());
            let samples = self.sample_from_noise(&noise, seed)?;
            if !samples.complete {
                return Err(Error::config(
                    "observer",
                    "a stop",
                    "none; frames are made one after the other",
                ));
            }
            Ok(samples.images)
        };
        (0..frames).map(frame).collect()
    }

    /// A row for each class, each of `columns` images that start from the same noise.
    ///
    /// # Errors
    /// [`Error::Config`] if there are no columns, or the network has no classes.
    pub fn class_grid(&self, columns: usize, seed: u64) -> Result<Samples> {
        let Some(known) = self.known else {
            return Err(Error::config(
                "classes",
                "a grid",
                "nothing; the network has no classes",
            ));
        };
        let classes: Vec<u32> = (0..known as u32)
            .flat_map(|class| vec![class; columns])
            .collect();
        let noise = self.noise(columns, seed);
        let start = |images: Range<usize>| {
            let rows = images
                .map(|i| noise.clone().narrow(0, i % columns, 1))
                .collect();
            Ok(Tensor::cat(rows, 0) * self.plan.init_noise_sigma)
        };
        self.in_parts(classes.len(), &self.plan, Some(classes), seed, start)
    }

    fn draw_classes(&self, n: usize, seed: u64) -> Result<Option<Vec<u32>>> {
        self.classes
            .resolve(self.known, n, &mut Rng::stream(seed, "classes", 0))
    }

    /// Number of samples in a tensor of them.
    fn fits(&self, x: &Tensor<4>, field: &str) -> Result<usize> {
        let [n, channels, height, width] = x.dims();
        let shape = ImageShape::new(channels, height, width);
        if shape != self.shape {
            return Err(Error::config(
                field,
                shape,
                format!("{}, the sampler's", self.shape),
            ));
        }
        Ok(n)
    }

    /// Number of images, if they are of the shape that the sampler makes.
    fn images_fit(&self, images: &Tensor<4>) -> Result<usize> {
        let [n, channels, height, width] = images.dims();
        if n == 0 {
            return Err(Error::config("images", "none", "at least one"));
        }
        let shape = ImageShape::new(channels, height, width);
        let expected = self.latent.map_or(self.shape.into(), |(autoencoder, _)| {
            autoencoder.sample_shape()
        });
        if expected != shape {
            return Err(Error::config(
                "images",
                shape,
                format!("{expected}, as the sampler makes them"),
            ));
        }
        Ok(n)
    }

    /// Some of the images as the network works on them; the opposite of [`Show::show`].
    fn hide(&self, images: &Tensor<4>, part: Range<usize>) -> Tensor<4> {
        let images = images.clone().narrow(0, part.start, part.len());
        match self.latent {
            None => images * 2.0 - 1.0,
            Some((autoencoder, scale)) => autoencoder.encode(images).mode() * scale,
        }
    }

    fn parts(&self, n: usize) -> impl Iterator<Item = Range<usize>> + use<D> {
        let batch_size = self.batch_size;
        (0..n)
            .step_by(batch_size)
            .map(move |start| start..(start + batch_size).min(n))
    }

    fn in_parts(
        &self,
        n: usize,
        plan: &SamplingPlan,
        classes: Option<Vec<u32>>,
        seed: u64,
        start: impl Fn(Range<usize>) -> Result<Tensor<4>>,
    ) -> Result<Samples> {
        if n == 0 {
            return Err(Error::config("n", n, "at least 1"));
        }
        let (mut made, mut complete, mut count) = (Vec::new(), true, 0);
        for images in self.parts(n) {
            count = images.end;
            let carried = self.carry(
                start(images.clone())?,
                plan,
                classes.as_deref(),
                images,
                n,
                seed,
            )?;
            made.push(self.show(carried.x));
            if carried.stopped {
                complete = false;
                break;
            }
        }
        let classes = classes.map(|mut classes| {
            classes.truncate(count);
            classes
        });
        Ok(Samples {
            images: Tensor::cat(made, 0),
            classes,
            complete,
        })
    }
}

/// Whether a plan is one for latent maps.
fn unclipped(plan: &SamplingPlan) -> Result<()> {
    if plan.clip == Clip::None {
        return Ok(());
    }
    let expected = "no clipping or thresholding; latent maps have another range than images";
    Err(Error::config(
        "clip_sample",
        format!("{:?}", plan.clip),
        expected,
    ))
}

#[cfg(test)]
mod tests;
