//! From noise to samples.
//!
//! Random numbers are drawn on the host, from one stream per sample: a sample depends on the seed
//! and on its own number, and does not depend on how many are sampled at once.

use crate::{
    clip::Clip,
    denoiser::{Denoiser, check_sample_is_input},
    guidance::{ClassifierFreeGuidance, Guide, differentiable},
    plan::SamplingPlan,
    prediction::NoiseLevel,
    scheduler::Scheduler,
};
use aigc_core::{
    CancelToken, Error, Result, check,
    data::{ClassLabels, SampleShape, ValueRange},
    encoder::Autoencoder,
    rng::Rng,
    sampling::SamplingOptions,
};
use burn::tensor::{Device, Tensor, TensorData};
use std::ops::{ControlFlow, Range};

mod carry;
mod modes;
mod repaint;

/// Samples in one pass of the network by default.
const BATCH_SIZE: usize = 64;

/// Progress of sampling. `D` is the rank of a batch of samples.
#[derive(Debug)]
pub struct StepProgress<'a, const D: usize = 4> {
    /// The samples of the current batch, of all that were requested.
    pub images: Range<usize>,
    /// Number of samples requested.
    pub total: usize,
    /// Calls of the network so far, for this batch.
    pub step: usize,
    /// Calls of the network for each batch.
    pub num_steps: usize,
    x: Tensor<D>,
    x0: Tensor<D>,
    level: NoiseLevel,
    space: SampleSpace<'a, D>,
}

impl<const D: usize> StepProgress<'_, D> {
    /// The current predictions of the clean samples.
    ///
    /// # Shapes
    /// - output: `[images, channels, …]` in the range of the data; for images
    ///   `[images, channels, height, width]` in `[0, 1]`
    pub fn preview(&self) -> Tensor<D> {
        self.space.decode(self.x0.clone())
    }

    /// The noisy samples themselves: scaled to the range of the data, beyond which noise is cut
    /// off.
    ///
    /// # Shapes
    /// - output: `[images, channels, …]` in the range of the data; for images
    ///   `[images, channels, height, width]` in `[0, 1]`
    pub fn noisy_images(&self) -> Tensor<D> {
        let size = (self.level.alpha.powi(2) + self.level.sigma.powi(2)).sqrt();
        self.space.decode(self.x.clone() / size)
    }
}

/// The space that the network works in: normalised data (images in `[−1, 1]`), or latent maps times
/// a scale.
#[derive(Clone, Copy, Debug)]
struct SampleSpace<'a, const D: usize> {
    /// Range of the data.
    range: ValueRange,
    latent: Option<(&'a dyn Autoencoder<D, D>, f64)>,
}

impl<const D: usize> SampleSpace<'_, D> {
    /// Maps samples of the network to the data.
    fn decode(&self, x: Tensor<D>) -> Tensor<D> {
        match self.latent {
            None => self.range.denormalize(x),
            Some((autoencoder, scale)) => autoencoder.decode(x / scale),
        }
    }

    /// Maps data to samples of the network.
    fn encode(&self, images: Tensor<D>) -> Tensor<D> {
        match self.latent {
            None => self.range.normalize(images),
            Some((autoencoder, scale)) => autoencoder.encode(images).mode() * scale,
        }
    }
}

/// Samples with a network and a scheduler.
///
/// `D` is the rank of a batch of samples, as in [`Denoiser`]: 4 for images, 2 for points, 3 for
/// sound, 5 for video. It follows from the network. Samples are in the range of the data: by
/// default `[0, 1]` for images, and unbounded for other samples
/// ([`with_value_range`](Self::with_value_range)). The documentation of the methods uses “images”
/// for samples of any rank; only [`repaint`](Self::repaint) requires images.
///
/// Settings are collected in any order and validated when samples are requested.
///
/// ```no_run
/// # use aigc_core::{data::{ClassLabels, ImageShape}, device::device};
/// # use aigc_diffusion::{ClassifierFreeGuidance, DiffusionSampler, DpmMultistepScheduler};
/// # use aigc_diffusion::Pipeline;
/// # fn main() -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let pipeline = Pipeline::from_pretrained("runs/digits-diffusion-1/pipeline", &device)?;
/// let sampler = pipeline
///     .sampler(20, &device)?
///     .with_classes(ClassLabels::All(7))
///     .with_guidance(ClassifierFreeGuidance::new(2.0));
/// let images = sampler.sample(64, 0)?.values;
/// # Ok(()) }
/// ```
pub struct DiffusionSampler<'a, N, const D: usize = 4> {
    network: &'a N,
    plan: SamplingPlan,
    late_plan: LatePlan,
    shape: SampleShape,
    device: Device,
    classes: ClassLabels,
    num_classes: Option<usize>,
    unconditional: bool,
    class_embeddings: Option<Tensor<2>>,
    prompt: Option<(Tensor<3>, Option<Tensor<3>>)>,
    guidance: Option<ClassifierFreeGuidance>,
    guide: Option<(&'a dyn Guide<D>, N)>,
    space: SampleSpace<'a, D>,
    options: SamplingOptions<'a, StepProgress<'a, D>>,
}

impl<N: Denoiser<D>, const D: usize> std::fmt::Debug for DiffusionSampler<'_, N, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiffusionSampler")
            .field("shape", &self.shape)
            .field("calls", &self.plan.len())
            .field("classes", &self.classes)
            .field("guidance", &self.guidance)
            .field("guide", &self.guide.as_ref().map(|(guide, _)| guide))
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// The scheduler's plan [from a call on](Scheduler::plan_from).
type LatePlan = Box<dyn Fn(usize) -> Result<SamplingPlan>>;

/// What a call samples: all batches share it.
struct Job<'a> {
    plan: &'a SamplingPlan,
    /// The class of each sample.
    classes: Option<Vec<u32>>,
    /// The class of unconditional predictions.
    null_class: Option<u32>,
    /// Number of samples.
    total: usize,
    seed: u64,
}

/// One random stream for each of some samples.
struct Streams(Vec<Rng>);

impl Streams {
    fn new(seed: u64, purpose: &str, images: Range<usize>) -> Self {
        Self(
            images
                .map(|i| Rng::stream(seed, purpose, i as u64))
                .collect(),
        )
    }

    fn draw<const D: usize>(&mut self, shape: SampleShape, device: &Device) -> Tensor<D> {
        let values: Vec<f32> = self
            .0
            .iter_mut()
            .flat_map(|rng| rng.normal_vec(shape.numel()))
            .collect();
        let dims = shape.batched::<D>(self.0.len());
        Tensor::from_data(TensorData::new(values, dims), device)
    }
}

impl<'a, N: Denoiser<D>, const D: usize> DiffusionSampler<'a, N, D> {
    /// A sampler of samples of `shape` (an [`ImageShape`](aigc_core::data::ImageShape) or a
    /// [`SampleShape`]), in `steps` steps of a scheduler, of random classes and without guidance.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a shape without values, or whose batches are not of rank
    /// `D`, and for a network that needs [more input channels](Denoiser::extra_input_channels),
    /// [more conditions](Denoiser::needs_from_pipeline) or [token ids](Denoiser::takes_input_ids);
    /// [`Error::Config`] for a shape or times that the network does not process; errors of the
    /// scheduler's [`plan`](Scheduler::plan).
    pub fn new(
        network: &'a N,
        scheduler: &impl Scheduler,
        steps: usize,
        shape: impl Into<SampleShape>,
        device: &Device,
    ) -> Result<Self> {
        let shape = shape.into();
        if shape.numel() == 0 {
            return Err(Error::argument("shape", shape, "at least one value"));
        }
        if shape.rank() + 1 != D {
            let expected = format!("{} axes; the network processes batches of rank {D}", D - 1);
            return Err(Error::argument("shape", shape, expected));
        }
        network.check_shape(shape)?;
        check_sample_is_input(network)?;
        let range = match shape.as_image() {
            Some(_) => ValueRange::Unit,
            None => ValueRange::Unbounded,
        };
        let plan = scheduler.plan(steps)?;
        network.check_min_time(plan.times().into_iter().fold(f64::INFINITY, f64::min))?;
        let scheduler = scheduler.clone();
        Ok(Self {
            network,
            plan,
            late_plan: Box::new(move |at| scheduler.plan_from(steps, at)),
            shape,
            device: device.clone(),
            classes: ClassLabels::Random,
            num_classes: None,
            unconditional: false,
            class_embeddings: None,
            prompt: None,
            guidance: None,
            guide: None,
            space: SampleSpace {
                range,
                latent: None,
            },
            options: SamplingOptions::new(BATCH_SIZE),
        })
    }

    /// Sets the range of the data that the network was trained on, which samples are
    /// [mapped](ValueRange::denormalize) to: by default `[0, 1]` for images, and unbounded for
    /// other samples. With an autoencoder, its output determines the range.
    pub fn with_value_range(mut self, range: ValueRange) -> Self {
        self.space.range = range;
        self
    }

    /// Samples these classes.
    pub fn with_classes(mut self, classes: ClassLabels) -> Self {
        self.classes = classes;
        self
    }

    /// Sets the number of real classes. If the network has more class embeddings, its last one is
    /// the null class; if it has as many, there is none. By default the null class is that of the
    /// [network](Denoiser::null_class).
    pub fn with_num_classes(mut self, num_classes: usize) -> Self {
        self.num_classes = Some(num_classes);
        self
    }

    /// Samples the null class of a class-conditional network.
    pub fn unconditional(mut self) -> Self {
        self.unconditional = true;
        self
    }

    /// Conditions a network that takes [class embeddings](Denoiser::class_embedding_dim) on these
    /// vectors, `[1 or n, width]`. Classifier-free guidance compares with zeros.
    pub fn with_class_embeddings(mut self, class_embeddings: Tensor<2>) -> Self {
        self.class_embeddings = Some(class_embeddings);
        self
    }

    /// Conditions a network with cross-attention on these vectors, of a text encoder for instance,
    /// `[1 or n, tokens, width]`. Classifier-free guidance compares with `negative_prompt_embeds`,
    /// of the same tokens and width.
    pub fn with_prompt_embeds(
        mut self,
        prompt_embeds: Tensor<3>,
        negative_prompt_embeds: Option<Tensor<3>>,
    ) -> Self {
        self.prompt = Some((prompt_embeds, negative_prompt_embeds));
        self
    }

    /// Adds classifier-free guidance: away from the prediction for the negative prompt embeddings,
    /// else for the null class and for class embeddings of zeros.
    pub fn with_guidance(mut self, guidance: ClassifierFreeGuidance) -> Self {
        self.guidance = Some(guidance);
        self
    }

    /// Adds a guide that supplies `∇ ln p(y | x)`. If the scheduler clips x̂₀, ε is recomputed from
    /// the clipped x̂₀, because guided predictions can leave the data range and the mismatch would
    /// accumulate.
    pub fn with_guide(mut self, guide: &'a dyn Guide<D>) -> Self {
        self.guide = Some((guide, differentiable(self.network)));
        self.plan.use_clipped_model_output = true;
        self
    }

    /// Samples are latent maps times `scaling_factor`, which the autoencoder decodes to images.
    pub fn with_autoencoder(
        mut self,
        autoencoder: &'a dyn Autoencoder<D, D>,
        scaling_factor: f64,
    ) -> Self {
        self.space.latent = Some((autoencoder, scaling_factor));
        self
    }

    /// Samples at most `batch_size` images at once, 64 by default (with classifier-free guidance
    /// the network processes twice as many): this bounds the memory that the network needs.
    pub fn with_batch_size(mut self, batch_size: usize) -> Self {
        self.options.batch_size = batch_size;
        self
    }

    /// Stops between two calls of the network when `token` is cancelled. The samples up to then are
    /// returned, as [`sample`](Self::sample) describes; with a token that was cancelled before the
    /// first call, sampling returns [`Error::Cancelled`].
    pub fn with_cancel(mut self, token: CancelToken) -> Self {
        self.options.cancel = token;
        self
    }

    /// Calls `callback` with the progress after every call of the network. `ControlFlow::Break`
    /// stops sampling; the samples up to then are returned, as [`sample`](Self::sample) describes.
    pub fn with_callback(
        mut self,
        callback: impl FnMut(&StepProgress<'a, D>) -> ControlFlow<()> + 'a,
    ) -> Self {
        self.options = self.options.on_progress(callback);
        self
    }

    /// Calls of the network for each image.
    pub fn num_model_calls(&self) -> usize {
        self.plan.len()
    }

    /// The plan that is followed.
    pub fn plan(&self) -> &SamplingPlan {
        &self.plan
    }

    /// The plan from call `at` on.
    fn plan_from(&self, at: usize) -> Result<SamplingPlan> {
        Ok(SamplingPlan {
            use_clipped_model_output: self.plan.use_clipped_model_output,
            ..(self.late_plan)(at)?
        })
    }

    /// Shape of a sample.
    pub fn shape(&self) -> SampleShape {
        self.shape
    }

    /// Number of real classes, and the null class.
    fn class_counts(&self) -> Result<(Option<usize>, Option<u32>)> {
        let Some(count) = self.network.num_classes() else {
            return match self.num_classes {
                None => Ok((None, None)),
                Some(given) => Err(Error::argument(
                    "num_classes",
                    given,
                    "none set; the network has no classes",
                )),
            };
        };
        let last = count as u32 - 1;
        match (self.num_classes, self.network.null_class()) {
            (Some(real), _) if real == 0 || real > count => Err(Error::argument(
                "num_classes",
                real,
                format!("1 to {count}, the network's classes"),
            )),
            (Some(real), _) => Ok((Some(real), (real < count).then_some(last))),
            (None, Some(null)) if null == last => Ok((Some(count - 1), Some(null))),
            (None, null) => Ok((Some(count), null)),
        }
    }

    /// Validates the settings for `n` samples by a plan, and draws their classes.
    fn job<'p>(&self, n: usize, plan: &'p SamplingPlan, seed: u64) -> Result<Job<'p>> {
        let (real, null_class) = self.class_counts()?;
        self.validate(plan, null_class)?;
        let mut rng = Rng::stream(seed, "classes", 0);
        let classes = match (self.unconditional, null_class) {
            (false, _) => self.classes.resolve(real, n, &mut rng)?,
            (true, Some(null)) => Some(vec![null; n]),
            (true, None) => {
                return Err(Error::argument(
                    "unconditional",
                    "set",
                    "a network with a null class",
                ));
            }
        };
        Ok(Job {
            plan,
            classes,
            null_class,
            total: n,
            seed,
        })
    }

    fn validate(&self, plan: &SamplingPlan, null_class: Option<u32>) -> Result<()> {
        match (&self.prompt, self.network.cross_attention_dim()) {
            (None, None) => {}
            (Some(_), None) => {
                return Err(Error::argument(
                    "prompt_embeds",
                    "given",
                    "none; the network has no cross-attention",
                ));
            }
            (None, Some(width)) => {
                return Err(Error::argument(
                    "prompt_embeds",
                    "missing",
                    format!("vectors of width {width}: call `with_prompt_embeds`"),
                ));
            }
            (Some((embeds, negative)), Some(width)) => {
                let [_, tokens, found] = embeds.dims();
                if tokens == 0 || found != width {
                    let expected = format!("[1 or n, tokens, {width}], at least one token");
                    let value = format!("{:?}", embeds.dims());
                    return Err(Error::argument("prompt_embeds", value, expected));
                }
                let other = negative
                    .as_ref()
                    .filter(|negative| negative.dims()[1..] != embeds.dims()[1..]);
                if let Some(other) = other {
                    let value = format!("{:?}", other.dims());
                    let expected = format!("[1 or n, {tokens}, {width}], as the prompt's");
                    return Err(Error::argument("negative_prompt_embeds", value, expected));
                }
            }
        }
        match (&self.class_embeddings, self.network.class_embedding_dim()) {
            (None, None) => {}
            (Some(_), None) => {
                return Err(Error::argument(
                    "class_embeddings",
                    "given",
                    "none; the network takes no class embeddings",
                ));
            }
            (None, Some(width)) => {
                return Err(Error::argument(
                    "class_embeddings",
                    "missing",
                    format!("vectors of width {width}: call `with_class_embeddings`"),
                ));
            }
            (Some(vectors), Some(width)) => {
                if vectors.dims()[1] != width {
                    let expected = format!("[1 or n, {width}]");
                    let value = format!("{:?}", vectors.dims());
                    return Err(Error::argument("class_embeddings", value, expected));
                }
            }
        }
        if let Some(guidance) = self.guidance {
            guidance.validate()?;
            let negative = self.prompt.as_ref().is_some_and(|(_, none)| none.is_some());
            if !negative && null_class.is_none() && self.class_embeddings.is_none() {
                return Err(Error::argument(
                    "guidance",
                    guidance.guidance_scale,
                    "a network with a null class or class embeddings, or negative prompt \
                     embeddings, to compare with",
                ));
            }
        }
        let Some((autoencoder, scale)) = self.space.latent else {
            return Ok(());
        };
        check::positive("scaling_factor", scale)?;
        let latent = autoencoder.latent_shape();
        if latent != self.shape {
            let expected = format!("{latent}, the autoencoder's latent maps");
            return Err(Error::argument("shape", self.shape, expected));
        }
        if plan.clip != Clip::None {
            let expected = "no clipping or thresholding; latent maps have another range than \
                            images";
            let value = format!("{:?}", plan.clip);
            return Err(Error::config("clip_sample", value, expected));
        }
        Ok(())
    }

    /// Number of samples in a tensor of them.
    fn check_samples(&self, x: &Tensor<D>, argument: &str) -> Result<usize> {
        let shape = SampleShape::of_batch(x);
        if shape != self.shape {
            let expected = format!("{}, the sampler's", self.shape);
            return Err(Error::argument(argument, shape, expected));
        }
        Ok(x.dims()[0])
    }

    /// Number of images, if they are of the shape that the sampler generates.
    fn check_images(&self, images: &Tensor<D>) -> Result<usize> {
        if images.dims()[0] == 0 {
            return Err(Error::argument("images", "none", "at least one"));
        }
        let shape = SampleShape::of_batch(images);
        let expected = match self.space.latent {
            None => self.shape,
            Some((autoencoder, _)) => autoencoder.sample_shape(),
        };
        if shape != expected {
            let expected = format!("{expected}, as the sampler generates them");
            return Err(Error::argument("images", shape, expected));
        }
        Ok(images.dims()[0])
    }

    /// Some of the images in the space that the network works in.
    fn encode(&self, images: &Tensor<D>, part: Range<usize>) -> Tensor<D> {
        let images = images.clone().narrow(0, part.start, part.len());
        self.space.encode(images)
    }

    /// The noise that some samples start from.
    fn start(&self, seed: u64, images: Range<usize>) -> Tensor<D> {
        Streams::new(seed, "start", images).draw(self.shape, &self.device)
    }
}

#[cfg(test)]
mod tests;
