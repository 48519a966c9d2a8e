//! A network and its scheduler in one directory, as diffusers keeps them.
//!
//! ```text
//! model_index.json                          which components there are, of which classes
//! unet/ or transformer/                     config.json, diffusion_pytorch_model.safetensors
//! scheduler/scheduler_config.json
//! ```
//!
//! Flat directories open too: the same files beside each other, with or without the index.

#[cfg(feature = "download")]
mod download;
mod index;
#[cfg(test)]
mod tests;

use crate::{
    denoiser::{Denoiser, real_classes},
    models::{AnyDenoiser, any::CONFIG},
    sampler::DiffusionSampler,
    scheduler::AnyScheduler,
};
use aigc_core::{
    DataFault, Error, Result,
    checkpoint::write_atomic,
    data::ImageShape,
    weights::{Loaded, OpenOptions},
};
use burn::tensor::Device;
use index::{Index, find};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

const INDEX: &str = "model_index.json";
const SCHEDULER_CONFIG: &str = "scheduler_config.json";
const SCHEDULER: &str = "scheduler";
/// Name of a network that no index names.
const NETWORK: &str = "network";

/// A component of a pipeline that was not opened, such as a text encoder or an autoencoder: this
/// crate has no class for it, and sampling takes its results ([prompt
/// embeddings](DiffusionSampler::with_prompt_embeds), [an
/// autoencoder](DiffusionSampler::with_autoencoder)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Its name in the index, such as `vae`.
    pub name: String,
    /// The library that has its class, such as `diffusers`.
    pub library: String,
    /// Its class, such as `AutoencoderKL`.
    pub class: String,
    /// Its directory. The hub's methods (`from_hub`, …) do not download it.
    pub dir: PathBuf,
}

/// A trained network and the scheduler that samples from it.
///
/// ```no_run
/// # use aigc_core::device::device;
/// # use aigc_diffusion::Pipeline;
/// # fn main() -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let pipeline = Pipeline::from_pretrained("ddpm-digits", &device)?;
/// for warning in pipeline.warnings() {
///     eprintln!("{warning}");
/// }
/// let images = pipeline.sampler(20, &device)?.sample(16, 0)?.values;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// The network.
    pub network: AnyDenoiser,
    /// The scheduler; any other may take its place.
    pub scheduler: AnyScheduler,
    /// Shape of a sample.
    pub shape: ImageShape,
    labels: Vec<String>,
    components: Vec<Component>,
}

impl Pipeline {
    /// A pipeline of samples of `shape`.
    ///
    /// # Errors
    /// [`Error::Config`] if the network does not process them.
    pub fn new(
        network: impl Into<AnyDenoiser>,
        scheduler: impl Into<AnyScheduler>,
        shape: ImageShape,
    ) -> Result<Self> {
        let network = network.into();
        network.check_shape(shape.into())?;
        Ok(Self {
            network,
            scheduler: scheduler.into(),
            shape,
            labels: vec![],
            components: vec![],
        })
    }

    /// Names the classes, in order. If the network has more class embeddings than names, its last
    /// one is the null class.
    ///
    /// # Errors
    /// [`Error::Config`] if there are more names than classes.
    pub fn with_labels(self, labels: Vec<String>) -> Result<Self> {
        let classes = self.network.num_classes().unwrap_or(0);
        if labels.len() > classes {
            return Err(Error::config(
                "labels",
                labels.len(),
                format!("at most {classes}, the network's classes"),
            ));
        }
        Ok(Self { labels, ..self })
    }

    /// Names of the classes, if they have any.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The components of the directory that were not opened.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// Number of classes without the null class, if the network is class-conditional.
    pub fn num_classes(&self) -> Option<usize> {
        match self.labels.len() {
            0 => real_classes(&self.network),
            named => Some(named),
        }
    }

    /// The class of unconditional samples: the network's last class embedding if there are labels
    /// for fewer classes, else the null class of the [network](Denoiser::null_class).
    pub fn null_class(&self) -> Option<u32> {
        match (self.labels.len(), self.network.num_classes()) {
            (0, _) | (_, None) => self.network.null_class(),
            (named, Some(count)) => (named < count).then_some(count as u32 - 1),
        }
    }

    /// The class of a name; names of several words and commas are found by any of their parts, as
    /// diffusers does it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a name that no class has, with names that there are, or that
    /// several have (ImageNet has two cranes).
    pub fn class(&self, name: &str) -> Result<u32> {
        let is = |label: &String| label == name || label.split(',').any(|part| part.trim() == name);
        let found: Vec<usize> = (0..self.labels.len())
            .filter(|class| is(&self.labels[*class]))
            .collect();
        match found[..] {
            [class] => Ok(class as u32),
            [] => {
                let some: Vec<&str> = self.labels.iter().take(20).map(String::as_str).collect();
                let more = if self.labels.len() > some.len() {
                    ", …"
                } else {
                    ""
                };
                Err(Error::argument(
                    "class",
                    name,
                    format!("one of {}{more}", some.join(", ")),
                ))
            }
            _ => Err(Error::argument(
                "class",
                name,
                format!("the name of one class; {found:?} have it"),
            )),
        }
    }

    /// Opens a directory that diffusers or [`save_pretrained`](Self::save_pretrained) wrote, in any
    /// layout: components in directories of their own or flat, with or without `model_index.json`,
    /// `unet_ema` where there is no `unet`, weights as safetensors or pickles, in shards, as a
    /// variant.
    ///
    /// Classes are those of the index, as in diffusers, where a component's own file names another.
    /// Components that this crate has no class for are [listed](Self::components).
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Weights`] for a missing file, [`Error::Data`] names file and
    /// field, [`Error::Weights`] the tensors that do not fit.
    pub fn from_pretrained(dir: impl AsRef<Path>, device: &Device) -> Result<Loaded<Self>> {
        Self::open(dir.as_ref(), &OpenOptions::default(), device)
    }

    /// [`from_pretrained`](Self::from_pretrained) for a variant of the network's weights: `fp16`
    /// opens `diffusion_pytorch_model.fp16.safetensors`.
    ///
    /// # Errors
    /// As [`from_pretrained`](Self::from_pretrained); [`Error::Weights`] if the variant is missing.
    pub fn from_pretrained_with_variant(
        dir: impl AsRef<Path>,
        variant: &str,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        let options = OpenOptions::default().with_variant(variant);
        Self::open(dir.as_ref(), &options, device)
    }

    #[cfg(feature = "download")]
    aigc_core::hub_methods!(pub download::download);

    fn open(dir: &Path, options: &OpenOptions, device: &Device) -> Result<Loaded<Self>> {
        let index = Index::open(dir)?;
        let mut report = Loaded::new(());
        report.unused_fields = prefixed(INDEX, index.unused);

        let (name, class) = index.network.unzip();
        let name = name.as_deref().unwrap_or(NETWORK);
        let found = find(dir, name, CONFIG)?;
        report.notes.extend(found.note);
        let mut network = AnyDenoiser::open_class(&found.dir, class.as_deref(), options, device)?;
        network.unused_fields = prefixed(name, network.unused_fields);
        let network = report.merge(network);

        let scheduler = find(dir, SCHEDULER, SCHEDULER_CONFIG)?
            .dir
            .join(SCHEDULER_CONFIG);
        let mut scheduler = AnyScheduler::open(&scheduler, index.scheduler.as_deref())?;
        scheduler.unused_fields = prefixed(SCHEDULER, scheduler.unused_fields);
        let scheduler = report.merge(scheduler);

        let wrong = |file: PathBuf, reason: Error| {
            Error::data(file, DataFault::Mismatch(reason.to_string()))
        };
        let config = || found.dir.join(CONFIG);
        let Some(shape) = network.sample_shape().and_then(|shape| shape.as_image()) else {
            let reason = Error::config("sample_size", "missing", "the side of the images");
            return Err(wrong(config(), reason));
        };
        let mut pipeline = Self::new(network, scheduler, shape)
            .map_err(|error| wrong(config(), error))?
            .with_labels(index.labels)
            .map_err(|error| wrong(dir.join(INDEX), error))?;
        for (name, library, class) in index.others {
            report
                .notes
                .push(format!("component {name} ({class}) was not opened"));
            let dir = dir.join(&name);
            pipeline.components.push(Component {
                name,
                library,
                class,
                dir,
            });
        }
        Ok(report.map(|()| pipeline))
    }

    /// Writes a directory whose components diffusers opens, each by its class; and all of it as a
    /// `DDPMPipeline`, where that would generate the same images: a U-net that is conditioned on
    /// the time alone, and a scheduler of DDPM, DDIM, DPM-Solver++ or consistency models. The index
    /// is written last. Components that were [not opened](Self::components) are not copied.
    ///
    /// # Errors
    /// [`Error::Config`] for samples of another size than in the network's configuration;
    /// [`Error::Io`] or [`Error::Weights`] if a file cannot be written.
    pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        let configured = self.network.sample_shape();
        if configured.is_none_or(|shape| shape != self.shape) {
            let configured = configured.map_or("no size".into(), |shape| shape.to_string());
            return Err(Error::config(
                "sample_size",
                configured,
                format!("{}, the pipeline's samples", self.shape),
            ));
        }
        let component = self.network.component();
        let class = if self.is_ddpm_pipeline() {
            "DDPMPipeline"
        } else {
            "DiffusionPipeline"
        };
        self.network.save_pretrained(dir.join(component))?;
        write_atomic(
            &dir.join(SCHEDULER).join(SCHEDULER_CONFIG),
            self.scheduler.to_json().as_bytes(),
        )?;
        let mut index = Map::new();
        index.insert("_class_name".into(), class.into());
        index.insert(component.into(), json!(["diffusers", self.network.class()]));
        index.insert(
            SCHEDULER.into(),
            json!(["diffusers", self.scheduler.class()]),
        );
        if !self.labels.is_empty() {
            let labels = self
                .labels
                .iter()
                .enumerate()
                .map(|(class, name)| (class.to_string(), json!(name)));
            index.insert("id2label".into(), Value::Object(labels.collect()));
        }
        let text = serde_json::to_string_pretty(&index).expect("plain values");
        write_atomic(&dir.join(INDEX), text.as_bytes())
    }

    /// Whether diffusers' `DDPMPipeline` generates the same images. That pipeline conditions the
    /// network on the time alone, starts from noise of unit variance, does not scale the network's
    /// input, and passes `generator` to every `step`, which not all schedulers accept.
    fn is_ddpm_pipeline(&self) -> bool {
        use AnyScheduler::{Ddim, Ddpm, DpmMultistep, DpmSinglestep, Lcm, Tcd};
        let AnyDenoiser::UNet2d(network) = &self.network else {
            return false;
        };
        let conditional = network.num_classes().is_some()
            || network.class_embedding_dim().is_some()
            || network.supports_self_conditioning(self.shape.channels);
        !conditional
            && matches!(
                self.scheduler,
                Ddpm(_) | Ddim(_) | DpmMultistep(_) | DpmSinglestep(_) | Lcm(_) | Tcd(_)
            )
    }

    /// A sampler with `steps` steps of the pipeline's scheduler.
    ///
    /// # Errors
    /// As the scheduler's [`plan`](crate::Scheduler::plan).
    pub fn sampler(
        &self,
        steps: usize,
        device: &Device,
    ) -> Result<DiffusionSampler<'_, AnyDenoiser>> {
        let sampler =
            DiffusionSampler::new(&self.network, &self.scheduler, steps, self.shape, device)?;
        Ok(match self.labels.len() {
            0 => sampler,
            named => sampler.with_num_classes(named),
        })
    }
}

fn prefixed(component: &str, fields: Vec<String>) -> Vec<String> {
    let named = |field| format!("{component}: {field}");
    fields.into_iter().map(named).collect()
}
