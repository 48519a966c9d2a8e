//! A network and its scheduler in one directory, as diffusers keeps them.
//!
//! ```text
//! model_index.json                          which components there are, of which classes
//! unet/ or transformer/                     config.json, diffusion_pytorch_model.safetensors
//! scheduler/scheduler_config.json
//! ```
//!
//! Flat directories open too: the same files beside each other, with or without the index.

use crate::{
    denoiser::{Denoiser, real_classes},
    json,
    models::{
        AnyDenoiser,
        any::{CONFIG, listing},
    },
    sampler::DiffusionSampler,
    scheduler::AnyScheduler,
};
use aigc_core::{
    DataFault, Error, Result, checkpoint::write_atomic, data::ImageShape, weights::Loaded,
};
use burn::tensor::Device;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

const INDEX: &str = "model_index.json";
const SCHEDULER_CONFIG: &str = "scheduler_config.json";

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
    /// Its directory.
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
    /// for fewer classes, else what the [network](Denoiser::null_class) says.
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
    /// [`Error::Config`] for a name that no class has, with names that there are, or that several
    /// have (ImageNet has two cranes).
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
                Err(Error::config(
                    "class",
                    name,
                    format!("one of {}{more}", some.join(", ")),
                ))
            }
            _ => Err(Error::config(
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
        let dir = dir.as_ref();
        let path = dir.join(INDEX);
        let flat = !path.exists() && dir.join(CONFIG).exists();
        let index = if flat {
            Index::default()
        } else {
            json::read_file(&path, Index::read)?
        };
        let mut report = Loaded::new(());
        report.unused_fields = prefixed(INDEX, index.unused);

        let (name, class) = index.network.unzip();
        let name = name.as_deref().unwrap_or("network");
        let found = find(dir, name, CONFIG)?;
        report.notes.extend(found.note);
        let mut network = AnyDenoiser::open(&found.dir, class.as_deref(), device)?;
        network.unused_fields = prefixed(name, network.unused_fields);
        let network = report.merge(network);

        let scheduler = find(dir, "scheduler", SCHEDULER_CONFIG)?
            .dir
            .join(SCHEDULER_CONFIG);
        let mut scheduler = AnyScheduler::open(&scheduler, index.scheduler.as_deref())?;
        scheduler.unused_fields = prefixed("scheduler", scheduler.unused_fields);
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
            .map_err(|error| wrong(path.clone(), error))?;
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
    /// [`Error::Config`] for samples of another size than the network's configuration says;
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
            &dir.join("scheduler").join(SCHEDULER_CONFIG),
            self.scheduler.to_json().as_bytes(),
        )?;
        let mut index = Map::new();
        index.insert("_class_name".into(), class.into());
        index.insert(component.into(), json!(["diffusers", self.network.class()]));
        index.insert(
            "scheduler".into(),
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

    /// Whether diffusers' `DDPMPipeline` computes the same: it passes the network the time alone,
    /// starts from noise of unit variance, does not scale inputs, and passes every step a
    /// generator, which not all schedulers take.
    fn is_ddpm_pipeline(&self) -> bool {
        use AnyScheduler::{Ddim, Ddpm, DpmMultistep, DpmSinglestep, Lcm, Tcd};
        let AnyDenoiser::UNet2d(network) = &self.network else {
            return false;
        };
        let conditional = network.num_classes().is_some()
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
    /// [`Error::Config`] as the scheduler's plan.
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

/// Where a component's files are.
#[derive(Debug)]
struct Found {
    dir: PathBuf,
    note: Option<String>,
}

/// The directory that has a component's `file`: its own, that of its moving average, or the
/// pipeline's.
fn find(dir: &Path, name: &str, file: &str) -> Result<Found> {
    let own = dir.join(name);
    let averaged = dir.join(format!("{name}_ema"));
    if own.exists() {
        let note = averaged
            .exists()
            .then(|| format!("{name} was opened; {name}_ema beside it is not used"));
        return Ok(Found { dir: own, note });
    }
    if averaged.exists() {
        let note = Some(format!("{name}_ema was opened, there is no {name}"));
        return Ok(Found {
            dir: averaged,
            note,
        });
    }
    if dir.join(file).exists() {
        return Ok(Found {
            dir: dir.into(),
            note: None,
        });
    }
    let reason = format!("missing; the directory has {}", listing(dir));
    Err(Error::data(own, DataFault::Mismatch(reason)))
}

/// The contents of `model_index.json`.
#[derive(Debug, Default)]
struct Index {
    /// Name and class.
    network: Option<(String, String)>,
    scheduler: Option<String>,
    /// Name, library and class.
    others: Vec<(String, String, String)>,
    labels: Vec<String>,
    unused: Vec<String>,
}

impl Index {
    fn read(text: &str) -> Result<Self> {
        let mut index = Self::default();
        for (name, value) in &json::parse_object(text)? {
            let part = |i: usize| value.get(i).and_then(Value::as_str).map(str::to_owned);
            match (name.as_str(), part(0), part(1)) {
                ("id2label", ..) => index.labels = read_labels(value)?,
                (name, ..) if name.starts_with('_') => {}
                ("scheduler", _, class) => {
                    index.scheduler = Some(known(name, value, class, AnyScheduler::CLASSES)?);
                }
                ("unet" | "transformer", _, class) => {
                    let class = known(name, value, class, AnyDenoiser::CLASSES)?;
                    index.network = Some((name.clone(), class));
                }
                (_, Some(library), Some(class)) => {
                    index.others.push((name.clone(), library, class));
                }
                // A component that the pipeline goes without.
                _ if *value == json!([null, null]) => {}
                _ => index.unused.push(name.clone()),
            }
        }
        if index.network.is_none() {
            return Err(Error::config("unet", "missing", "a unet or transformer"));
        }
        if index.scheduler.is_none() {
            return Err(Error::config("scheduler", "missing", "a scheduler"));
        }
        Ok(index)
    }
}

fn known(field: &str, value: &Value, class: Option<String>, classes: &[&str]) -> Result<String> {
    match class {
        Some(class) if classes.contains(&class.as_str()) => Ok(class),
        Some(class) => Err(Error::config(
            field,
            class,
            format!("one of {}", classes.join(", ")),
        )),
        None => Err(Error::config(field, value, "a library and a class")),
    }
}

/// Names by number, from 0 on.
fn read_labels(value: &Value) -> Result<Vec<String>> {
    let wrong = || Error::config("id2label", value, "a name for each number from 0 on");
    let Value::Object(named) = value else {
        return Err(wrong());
    };
    (0..named.len())
        .map(|class| {
            named
                .get(&class.to_string())
                .and_then(Value::as_str)
                .map(str::to_owned)
                .ok_or_else(wrong)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DdimScheduler, DdpmScheduler, UNet2dConfig, models};
    use aigc_core::{
        data::ClassLabels,
        device::device,
        rng::InitWeights,
        weights::{WeightReader, save_tensors},
    };
    use burn::tensor::TensorData;
    use std::{collections::BTreeMap, fs};

    fn tiny(classes: Option<usize>) -> UNet2dConfig {
        UNet2dConfig {
            sample_size: Some(8.into()),
            in_channels: 1,
            out_channels: 1,
            down_block_types: vec![models::DownBlockType::DownBlock2D; 2],
            up_block_types: vec![models::UpBlockType::UpBlock2D; 2],
            block_out_channels: vec![8, 8],
            layers_per_block: 1,
            norm_num_groups: 4,
            num_class_embeds: classes,
            ..UNet2dConfig::default()
        }
    }

    fn pipeline(classes: Option<usize>) -> Pipeline {
        let network = tiny(classes)
            .init(&device("flex").unwrap())
            .unwrap()
            .init_weights(3);
        Pipeline::new(network, DdimScheduler::default(), ImageShape::new(1, 8, 8)).unwrap()
    }

    #[test]
    fn saved_pipeline_opens_and_generates_the_same_images() {
        let flex = device("flex").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let labels = ["cat", "dog, hound"].map(String::from).to_vec();
        let saved = pipeline(Some(3)).with_labels(labels).unwrap();
        saved.save_pretrained(folder.path()).unwrap();
        let opened = Pipeline::from_pretrained(folder.path(), &flex).unwrap();
        assert!(opened.warnings().is_empty(), "{opened}");
        assert_eq!(
            (opened.class("cat").unwrap(), opened.class("hound").unwrap()),
            (0, 1)
        );
        assert_eq!(opened.scheduler, saved.scheduler);
        let images = |pipeline: &Pipeline| {
            pipeline
                .sampler(3, &flex)
                .unwrap()
                .with_classes(ClassLabels::All(1))
                .sample(2, 5)
                .unwrap()
                .values
                .into_data()
        };
        assert_eq!(images(&saved), images(&opened));
        // The third class is the null class, which is not drawn.
        assert_eq!(
            (opened.num_classes(), opened.null_class()),
            (Some(2), Some(2))
        );
        let classes = opened
            .sampler(1, &flex)
            .unwrap()
            .sample(60, 0)
            .unwrap()
            .labels
            .unwrap();
        assert!(
            classes.contains(&0) && classes.contains(&1) && !classes.contains(&2),
            "{classes:?}"
        );
    }

    #[test]
    fn broken_directory_names_file_and_field() {
        let flex = device("flex").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let message = || {
            Pipeline::from_pretrained(folder.path(), &flex)
                .unwrap_err()
                .to_string()
        };
        assert!(message().contains("model_index.json"), "{}", message());
        pipeline(None).save_pretrained(folder.path()).unwrap();
        let index = fs::read_to_string(at(INDEX)).unwrap();
        let spoilt = |from: &str, to: &str| fs::write(at(INDEX), index.replace(from, to)).unwrap();
        for (from, to, expected) in [
            (
                "UNet2DModel",
                "UNet3DModel",
                "`unet` is UNet3DModel, expected one of UNet2DModel",
            ),
            (
                "DDIMScheduler",
                "MagicScheduler",
                "`scheduler` is MagicScheduler",
            ),
            ("\"unet\"", "\"_unet\"", "`unet` is missing"),
            (
                "\"unet\"",
                "\"id2label\": {\"1\": \"a\"}, \"unet\"",
                "`id2label`",
            ),
            (
                "\"unet\"",
                "\"id2label\": {\"0\": \"a\"}, \"unet\"",
                "`labels` is 1, expected at most 0",
            ),
            ("\"unet\"", "\"transformer\"", "transformer"),
            ("{", "[", "not JSON: "),
        ] {
            spoilt(from, to);
            let message = message();
            assert!(message.contains(expected), "{from} as {to}: {message}");
        }
        // What newer versions add is listed.
        spoilt("\"unet\"", "\"of_tomorrow\": 1, \"unet\"");
        assert_eq!(
            Pipeline::from_pretrained(folder.path(), &flex)
                .unwrap()
                .unused_fields,
            ["model_index.json: of_tomorrow"]
        );
        spoilt("", "");
        // One file after the other is removed, or truncated.
        let weights = "unet/diffusion_pytorch_model.safetensors";
        let whole = fs::read(at(weights)).unwrap();
        fs::write(at(weights), &whole[..whole.len() - 5]).unwrap();
        assert!(
            message().contains("diffusion_pytorch_model.safetensors"),
            "{}",
            message()
        );
        let mut other = tiny(None);
        other.block_out_channels = vec![8, 16];
        let network = other.init(&flex).unwrap().init_weights(0);
        AnyDenoiser::from(network)
            .save_pretrained(at("unet"))
            .unwrap();
        let config = AnyDenoiser::from(tiny(None).init(&flex).unwrap()).to_json();
        fs::write(at("unet/config.json"), config).unwrap();
        assert!(
            message().contains("size mismatch") && message().contains("down_blocks.1"),
            "{}",
            message()
        );
        // Sizes that fit nothing.
        let config = fs::read_to_string(at("unet/config.json")).unwrap();
        for (from, to, expected) in [
            (
                "\"in_channels\": 1",
                "\"in_channels\": 3",
                "`in_channels` is 3",
            ),
            (
                "\"out_channels\": 1",
                "\"out_channels\": 3",
                "`out_channels` is 3",
            ),
            ("\"sample_size\": 8", "\"sample_size\": 9", "multiples of 2"),
            (
                "\"sample_size\": 8",
                "\"sample_size\": 4294967296",
                "`sample_size` is 4294967296",
            ),
            (
                "\"sample_size\": 8",
                "\"sample_size\": [8, 9]",
                "multiples of 2",
            ),
            (
                "\"freq_shift\": 0.0",
                "\"freq_shift\": 4.0",
                "`freq_shift` is 4",
            ),
        ] {
            let spoilt = config.replace(from, to);
            assert_ne!(spoilt, config);
            fs::write(at("unet/config.json"), &spoilt).unwrap();
            // With weights that fit, so that they are not what is complained of.
            if let Ok(network) = AnyDenoiser::from_json(&spoilt, &flex) {
                let network = network.into_inner().init_weights(0);
                network.save_pretrained(at("unet")).unwrap();
            }
            let message = message();
            assert!(
                message.contains("config.json") && message.contains(expected),
                "{to}: {message}"
            );
        }
        fs::write(at("unet/config.json"), config).unwrap();
        let scheduler = fs::read_to_string(at("scheduler/scheduler_config.json")).unwrap();
        fs::write(
            at("scheduler/scheduler_config.json"),
            scheduler.replace("0.02", "2.0"),
        )
        .unwrap();
        assert!(
            message().contains("scheduler_config.json") && message().contains("`beta_end` is 2"),
            "{}",
            message()
        );
        fs::write(at("scheduler/scheduler_config.json"), scheduler).unwrap();
        for file in [
            weights,
            "unet/config.json",
            "scheduler/scheduler_config.json",
        ] {
            let held = fs::read(at(file)).unwrap();
            fs::remove_file(at(file)).unwrap();
            let message = message();
            assert!(
                message.contains(file.rsplit('/').next().unwrap()),
                "{file}: {message}"
            );
            fs::write(at(file), held).unwrap();
        }
    }

    #[test]
    fn labels_and_shapes_are_checked() {
        let two = pipeline(Some(2));
        let cranes = two
            .clone()
            .with_labels(vec!["crane".into(), "crane, lifting".into()])
            .unwrap();
        let message = cranes.class("crane").unwrap_err().to_string();
        assert!(
            message.contains("`class` is crane, expected the name of one class; [0, 1] have it"),
            "{message}"
        );
        assert_eq!(cranes.class("lifting").unwrap(), 1);
        let named = two.with_labels(vec!["a".into(), "b".into()]).unwrap();
        let message = named.class("c").unwrap_err().to_string();
        assert!(
            message.contains("`class` is c, expected one of a, b"),
            "{message}"
        );
        let network = tiny(None).init(&device("flex").unwrap()).unwrap();
        let message = Pipeline::new(
            network.clone(),
            DdpmScheduler::default(),
            ImageShape::new(3, 8, 8),
        )
        .unwrap_err();
        assert!(
            message.to_string().contains("`in_channels` is 1"),
            "{message}"
        );
        let wide = ImageShape::new(1, 8, 10);
        let other = Pipeline::new(network, DdpmScheduler::default(), wide).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let message = other
            .save_pretrained(folder.path())
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("`sample_size` is 1×8×8, expected 1×8×10"),
            "{message}"
        );
        let flex = device("flex").unwrap();
        let config = UNet2dConfig {
            sample_size: Some(wide.into()),
            ..tiny(None)
        };
        let fits =
            Pipeline::new(config.init(&flex).unwrap(), DdpmScheduler::default(), wide).unwrap();
        fits.save_pretrained(folder.path()).unwrap();
        assert_eq!(
            Pipeline::from_pretrained(folder.path(), &flex)
                .unwrap()
                .shape,
            wide
        );
    }

    #[test]
    fn missing_learned_variance_is_an_error() {
        let flex = device("flex").unwrap();
        let learned = DdpmScheduler {
            variance_type: crate::VarianceType::LearnedRange,
            ..DdpmScheduler::default()
        };
        let pipeline = Pipeline {
            scheduler: learned.into(),
            ..pipeline(None)
        };
        let message = pipeline
            .sampler(3, &flex)
            .unwrap()
            .sample(1, 0)
            .unwrap_err()
            .to_string();
        assert!(message.contains("`variance_type` is learned"), "{message}");
    }

    fn images(pipeline: &Pipeline) -> TensorData {
        let sampler = pipeline.sampler(3, &device("flex").unwrap()).unwrap();
        sampler.sample(2, 5).unwrap().values.into_data()
    }

    /// The same files in the layouts that are in circulation.
    #[test]
    fn pipeline_opens_in_every_layout() {
        let flex = device("flex").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let saved = pipeline(None);
        let expected = images(&saved);
        let case = |name: &str, moves: &[(&str, &str)], removed: &[&str]| {
            let root = dir.path().join(name);
            saved.save_pretrained(&root).unwrap();
            for (from, to) in moves {
                fs::rename(root.join(from), root.join(to)).unwrap();
            }
            for file in removed {
                fs::remove_file(root.join(file)).unwrap();
            }
            let opened = Pipeline::from_pretrained(&root, &flex).unwrap();
            assert_eq!(images(&opened), expected, "{name}");
            opened.notes.clone()
        };
        let weights = "diffusion_pytorch_model.safetensors";
        let to_root = [
            ("unet/config.json", "config.json"),
            ("unet/diffusion_pytorch_model.safetensors", weights),
            ("scheduler/scheduler_config.json", SCHEDULER_CONFIG),
            ("unet", "old_unet"),
            ("scheduler", "old_scheduler"),
        ];
        assert!(case("flat", &to_root, &[]).is_empty());
        assert!(case("without_index", &to_root, &[INDEX]).is_empty());
        let notes = case("averaged", &[("unet", "unet_ema")], &[]);
        assert_eq!(notes, ["unet_ema was opened, there is no unet"]);
        let variant = "unet/diffusion_pytorch_model.fp16.safetensors";
        let notes = case("variant", &[(to_root[1].0, variant)], &[]);
        assert!(notes.len() == 1 && notes[0].contains("fp16"), "{notes:?}");
        // Shards without an index.
        let root = dir.path().join("shards");
        saved.save_pretrained(&root).unwrap();
        let unet = root.join("unet");
        let mut shards = [BTreeMap::new(), BTreeMap::new()];
        let reader = WeightReader::open(&unet.join(weights)).unwrap();
        for (i, name) in reader.names().enumerate() {
            let shape = reader.shape(name).unwrap().to_vec();
            let data = TensorData::new(reader.read(name).unwrap(), shape);
            shards[i % 2].insert(name.to_owned(), data);
        }
        drop(reader);
        fs::remove_file(unet.join(weights)).unwrap();
        for (i, tensors) in shards.iter().enumerate() {
            let name = format!("diffusion_pytorch_model-0000{}-of-00002.safetensors", i + 1);
            save_tensors(tensors, &unet.join(name)).unwrap();
        }
        let opened = Pipeline::from_pretrained(&root, &flex).unwrap();
        assert_eq!(images(&opened), expected);
    }

    /// What the index has besides network and scheduler.
    #[test]
    fn unknown_components_are_listed() {
        let flex = device("flex").unwrap();
        let dir = tempfile::tempdir().unwrap();
        pipeline(None).save_pretrained(dir.path()).unwrap();
        let index = fs::read_to_string(dir.path().join(INDEX)).unwrap();
        let more =
            r#""vae": ["diffusers", "AutoencoderKL"], "safety_checker": [null, null], "unet""#;
        fs::write(dir.path().join(INDEX), index.replace("\"unet\"", more)).unwrap();
        let opened = Pipeline::from_pretrained(dir.path(), &flex).unwrap();
        assert_eq!(
            opened.notes,
            ["component vae (AutoencoderKL) was not opened"]
        );
        assert!(opened.unused_fields.is_empty());
        let [vae] = opened.components() else {
            panic!("{:?}", opened.components())
        };
        assert_eq!(
            (vae.class.as_str(), vae.dir.as_path()),
            ("AutoencoderKL", dir.path().join("vae").as_path())
        );
    }

    /// As in diffusers, the index says which scheduler it is; networks have to agree.
    #[test]
    fn index_names_the_classes() {
        let flex = device("flex").unwrap();
        let dir = tempfile::tempdir().unwrap();
        pipeline(None).save_pretrained(dir.path()).unwrap();
        let index = fs::read_to_string(dir.path().join(INDEX)).unwrap();
        let spoil = |from, to| fs::write(dir.path().join(INDEX), index.replace(from, to)).unwrap();
        spoil("DDIMScheduler", "PNDMScheduler");
        let opened = Pipeline::from_pretrained(dir.path(), &flex).unwrap();
        assert_eq!(opened.scheduler.class(), "PNDMScheduler");
        assert!(
            opened.notes[0].contains("PNDMScheduler and scheduler_config.json DDIMScheduler"),
            "{:?}",
            opened.notes
        );
        spoil("UNet2DModel", "UNet2DConditionModel");
        let message = Pipeline::from_pretrained(dir.path(), &flex)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("`_class_name` is UNet2DModel, expected UNet2DConditionModel"),
            "{message}"
        );
    }
}
