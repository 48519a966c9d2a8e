//! A network and its scheduler in one folder, as diffusers keeps them.
//!
//! ```text
//! model_index.json                          which components there are, of which classes
//! unet/ or transformer/                     config.json, diffusion_pytorch_model.safetensors
//! scheduler/scheduler_config.json
//! ```

use crate::{
    denoiser::Denoiser,
    json,
    models::{AnyDenoiser, any::listing},
    sampler::DiffusionSampler,
    scheduler::AnyScheduler,
};
use aigc_core::{DataFault, Error, Result, checkpoint::write_atomic, data::ImageShape};
use burn::tensor::Device;
use serde_json::{Map, Value, json};
use std::path::Path;

const INDEX: &str = "model_index.json";

/// A trained network and what samples from it.
///
/// ```no_run
/// # use aigc_core::device::device;
/// # use aigc_diffusion::Pipeline;
/// # fn main() -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let pipeline = Pipeline::from_dir("ddpm-digits", &device)?;
/// for field in pipeline.ignored() {
///     eprintln!("not known here: {field}");
/// }
/// let images = pipeline.sampler(20, &device)?.sample(16, 0)?.images;
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
    ignored: Vec<String>,
}

impl Pipeline {
    /// A pipeline of samples of `shape`.
    ///
    /// # Errors
    /// [`Error::Config`] if the network cannot make them.
    pub fn new(
        network: impl Into<AnyDenoiser>,
        scheduler: impl Into<AnyScheduler>,
        shape: ImageShape,
    ) -> Result<Self> {
        let network = network.into();
        network.check_shape(shape)?;
        Ok(Self {
            network,
            scheduler: scheduler.into(),
            shape,
            labels: vec![],
            ignored: vec![],
        })
    }

    /// Names its classes, in order. A network may have one more, which stands for none.
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

    /// Fields of its files that are not known here and change nothing, each with its component
    /// before it.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// Opens a folder that diffusers or [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Weights`] for a missing file, [`Error::Data`] names file and
    /// field, [`Error::Weights`] the tensors that do not fit.
    pub fn from_dir(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let folder = folder.as_ref();
        let index = json::read_file(&folder.join(INDEX), Index::read)?;
        let missing = |path: &Path| {
            let fault = DataFault::Mismatch(format!(
                "missing; the folder has {}",
                listing(path.parent().unwrap_or(folder))
            ));
            Error::Data {
                path: path.to_path_buf(),
                fault,
            }
        };
        let scheduler = folder.join("scheduler/scheduler_config.json");
        for path in [
            folder.join(index.network),
            folder.join("scheduler"),
            scheduler.clone(),
        ] {
            if !path.exists() {
                return Err(missing(&path));
            }
        }
        let opened = AnyScheduler::open(scheduler)?;
        let (network, unknown) = AnyDenoiser::open(folder.join(index.network), device)?;
        let of = |component: &'static str| move |field: String| format!("{component}: {field}");
        let mut ignored: Vec<String> = index.ignored.into_iter().map(of(INDEX)).collect();
        ignored.extend(unknown.into_iter().map(of(index.network)));
        ignored.extend(opened.ignored.into_iter().map(of("scheduler")));
        let Some(shape) = network.sample_shape() else {
            let path = folder.join(index.network).join("config.json");
            let reason = Error::config("sample_size", "missing", "the side of the images");
            return Err(Error::Data {
                path,
                fault: DataFault::Mismatch(reason.to_string()),
            });
        };
        network.check_shape(shape).map_err(|error| Error::Data {
            path: folder.join(index.network).join("config.json"),
            fault: DataFault::Mismatch(error.to_string()),
        })?;
        let pipeline = Self {
            network,
            scheduler: opened.scheduler,
            shape,
            labels: vec![],
            ignored,
        };
        pipeline
            .with_labels(index.labels)
            .map_err(|error| Error::Data {
                path: folder.join(INDEX),
                fault: DataFault::Mismatch(error.to_string()),
            })
    }

    /// Writes a folder whose components diffusers opens, each by its class; and all of it as a
    /// `DDPMPipeline`, where that would make the same images: a U-net that is told nothing but the
    /// time, and a scheduler of DDPM, DDIM, DPM-Solver++ or consistency models. The index is
    /// written last.
    ///
    /// # Errors
    /// [`Error::Config`] for samples of another size than the network's configuration says;
    /// [`Error::Io`] or [`Error::Weights`] if a file cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        if self.network.sample_shape() != Some(self.shape) {
            let made = self
                .network
                .sample_shape()
                .map_or("no size".into(), |shape| shape.to_string());
            return Err(Error::config(
                "sample_size",
                made,
                format!("{}, the pipeline's samples", self.shape),
            ));
        }
        let component = match &self.network {
            AnyDenoiser::UNet2d(_) | AnyDenoiser::UNet2dCondition(_) => "unet",
            AnyDenoiser::Dit(_) => "transformer",
        };
        let class = if self.is_plain() {
            "DDPMPipeline"
        } else {
            "DiffusionPipeline"
        };
        self.network.save(folder.join(component))?;
        write_atomic(
            &folder.join("scheduler/scheduler_config.json"),
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
        write_atomic(&folder.join(INDEX), text.as_bytes())
    }

    /// Whether it is what diffusers' `DDPMPipeline` carries out: it tells the network the time
    /// alone, starts from noise of unit variance, shows the network samples as they are, and hands
    /// every step a source of noise, which not all schedulers take.
    fn is_plain(&self) -> bool {
        use AnyScheduler::{Ddim, Ddpm, DpmMultistep, DpmSinglestep, Lcm, Tcd};
        let AnyDenoiser::UNet2d(network) = &self.network else {
            return false;
        };
        let told = network.num_classes().is_some()
            || network.supports_self_conditioning(self.shape.channels);
        !told
            && matches!(
                self.scheduler,
                Ddpm(_) | Ddim(_) | DpmMultistep(_) | DpmSinglestep(_) | Lcm(_) | Tcd(_)
            )
    }

    /// Samples in so many steps of its scheduler.
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
        match (&self.network, self.labels.len()) {
            (_, 1..) => sampler.with_num_classes(self.labels.len()),
            // Its last class always stands for none.
            (AnyDenoiser::Dit(network), 0) => {
                sampler.with_num_classes(network.config().num_embeds_ada_norm)
            }
            _ => Ok(sampler),
        }
    }
}

/// What `model_index.json` says.
struct Index {
    /// Folder of the network.
    network: &'static str,
    labels: Vec<String>,
    ignored: Vec<String>,
}

impl Index {
    fn read(text: &str) -> Result<Self> {
        let fields = json::parse_object(text)?;
        let (mut network, mut scheduler, mut labels, mut ignored) = (None, false, vec![], vec![]);
        for (name, value) in &fields {
            let class = value.get(1).and_then(Value::as_str);
            match name.as_str() {
                "scheduler" => {
                    known("scheduler", value, class, AnyScheduler::CLASSES)?;
                    scheduler = true;
                }
                "unet" | "transformer" => {
                    known(name, value, class, AnyDenoiser::CLASSES)?;
                    network = Some(if name == "unet" {
                        "unet"
                    } else {
                        "transformer"
                    });
                }
                "id2label" => labels = read_labels(value)?,
                _ if name.starts_with('_') => {}
                // A component that is there would be needed.
                _ if class.is_some() => {
                    let expected = "no other components than unet or transformer, and scheduler";
                    return Err(Error::config(name, class.unwrap_or_default(), expected));
                }
                _ => ignored.push(name.clone()),
            }
        }
        let Some(network) = network else {
            return Err(Error::config("unet", "missing", "a unet or transformer"));
        };
        if !scheduler {
            return Err(Error::config("scheduler", "missing", "a scheduler"));
        }
        Ok(Self {
            network,
            labels,
            ignored,
        })
    }
}

fn known(field: &str, value: &Value, class: Option<&str>, classes: &[&str]) -> Result<()> {
    match class {
        Some(class) if classes.contains(&class) => Ok(()),
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
    use aigc_core::{data::ClassLabels, device::device, rng::InitWeights};
    use std::fs;

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
    fn what_is_saved_is_opened_again_and_makes_the_same_images() {
        let flex = device("flex").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let labels = ["cat", "dog, hound"].map(String::from).to_vec();
        let saved = pipeline(Some(3)).with_labels(labels).unwrap();
        saved.save(folder.path()).unwrap();
        let opened = Pipeline::from_dir(folder.path(), &flex).unwrap();
        assert!(opened.ignored().is_empty(), "{:?}", opened.ignored());
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
                .images
                .into_data()
        };
        assert_eq!(images(&saved), images(&opened));
        // The third class stands for none, and is not asked for.
        let classes = opened
            .sampler(1, &flex)
            .unwrap()
            .sample(60, 0)
            .unwrap()
            .classes
            .unwrap();
        assert!(
            classes.contains(&0) && classes.contains(&1) && !classes.contains(&2),
            "{classes:?}"
        );
    }

    #[test]
    fn a_folder_that_is_not_whole_says_what_is_missing() {
        let flex = device("flex").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let message = || {
            Pipeline::from_dir(folder.path(), &flex)
                .unwrap_err()
                .to_string()
        };
        assert!(message().contains("model_index.json"), "{}", message());
        pipeline(None).save(folder.path()).unwrap();
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
                "\"unet\": [",
                "\"vae\": [\"diffusers\", \"AutoencoderKL\"], \"unet\": [",
                "`vae` is AutoencoderKL",
            ),
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
            ("{", "[", "an object of fields"),
        ] {
            spoilt(from, to);
            let message = message();
            assert!(message.contains(expected), "{from} as {to}: {message}");
        }
        // What newer versions add is listed.
        spoilt("\"unet\"", "\"of_tomorrow\": 1, \"unet\"");
        assert_eq!(
            Pipeline::from_dir(folder.path(), &flex).unwrap().ignored(),
            ["model_index.json: of_tomorrow"]
        );
        spoilt("", "");
        // One file after the other is taken away, or cut short.
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
        AnyDenoiser::from(network).save(at("unet")).unwrap();
        let config = AnyDenoiser::from(tiny(None).init(&flex).unwrap()).to_json();
        fs::write(at("unet/config.json"), config).unwrap();
        assert!(
            message().contains("does not fit") && message().contains("down_blocks.1"),
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
            if let Ok((network, _)) = AnyDenoiser::from_json(&spoilt, &flex) {
                network.init_weights(0).save(at("unet")).unwrap();
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
            fs::remove_file(at(file)).unwrap();
            let message = message();
            assert!(
                message.contains(file.rsplit('/').next().unwrap()),
                "{file}: {message}"
            );
        }
    }

    #[test]
    fn names_and_shapes_are_checked() {
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
        let message = other.save(folder.path()).unwrap_err().to_string();
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
        fits.save(folder.path()).unwrap();
        assert_eq!(
            Pipeline::from_dir(folder.path(), &flex).unwrap().shape,
            wide
        );
    }

    #[test]
    fn a_variance_that_is_not_there_is_missed() {
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
}
