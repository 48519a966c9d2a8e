//! The trained model in its directory.
//!
//! ```text
//! effects.json           the spectra, the length of a sound, and what the classifier reads
//! model_index.json, unet/, scheduler/       the diffusion model, which diffusers opens
//! classifier/            the classifier
//! ```

use crate::spectra::LENGTH;
use aigc_core::{
    DataFault, Error, Result,
    audio::{Vocoder, Waveform},
    burn::tensor::{Device, Tensor},
    check::{ensure, in_range},
    checkpoint::{RunDir, write_atomic},
    data::effects::EffectKind,
    eval::{Proportion, sound_classifier::SoundClassifier},
    json,
};
use aigc_diffusion::{Pipeline, UNet2dModel};
use aigc_examples_sound::{MelImageConfig, MelImages, reported, spectrum_scheduler};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The directory of the model in a run.
pub(crate) const FOLDER: &str = "model";
/// The file that makes it one, written last.
pub(crate) const DESCRIPTION: &str = "effects.json";
const CLASSIFIER: &str = "classifier";
/// Peak of a sound that would be clipped otherwise.
const PEAK: f32 = 0.99;

/// The model's directory in a run.
pub(crate) fn dir(run: &RunDir) -> PathBuf {
    run.path().join(FOLDER)
}

/// Whether a directory has all files of a model.
pub(crate) fn is_complete(dir: &Path) -> bool {
    dir.join(DESCRIPTION).is_file()
}

/// Makes the model of a run incomplete while it is trained further, so that an interrupted training
/// goes on instead of being taken for a finished one.
pub(crate) fn invalidate(dir: &Path) -> Result<()> {
    let path = dir.join(DESCRIPTION);
    match path.exists() {
        true => std::fs::remove_file(&path).map_err(Error::io(&path)),
        false => Ok(()),
    }
}

/// A number of sounds that are read as what they are, and of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Right {
    pub(crate) count: usize,
    pub(crate) total: usize,
}

impl Right {
    pub(crate) fn share(self) -> Result<Proportion> {
        Proportion::new(self.count, self.total)
    }
}

/// The content of `effects.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Description {
    /// The spectra.
    pub(crate) spectra: MelImageConfig,
    /// Samples of a sound; those of the frames beyond it are dropped.
    pub(crate) length: usize,
    /// What the classifier reads in computed effects that it has not learned.
    pub(crate) held_out: Right,
    /// The same effects, made of their spectra by Griffin-Lim: the best that can be reached.
    pub(crate) from_spectra: Right,
}

impl Description {
    /// Sounds of one second.
    pub(crate) fn new(spectra: MelImageConfig, held_out: Right, from_spectra: Right) -> Self {
        Self {
            spectra,
            length: LENGTH,
            held_out,
            from_spectra,
        }
    }

    fn validate(&self) -> Result<()> {
        self.spectra.validate()?;
        in_range("length", self.length, 1..=self.spectra.samples())?;
        self.held_out.share()?;
        self.from_spectra.share()?;
        Ok(())
    }

    fn read(dir: &Path) -> Result<Self> {
        json::read_file(&dir.join(DESCRIPTION), |text| {
            let found: Self = serde_json::from_str(text).map_err(Error::other)?;
            found.validate()?;
            Ok(found)
        })
    }
}

/// A trained model.
#[derive(Debug)]
pub(crate) struct EffectsModel {
    pub(crate) description: Description,
    pub(crate) images: MelImages,
    pub(crate) pipeline: Pipeline,
    pub(crate) classifier: SoundClassifier,
}

impl EffectsModel {
    /// Opens a directory. What was not used of it goes to standard error.
    pub(crate) fn open(dir: &Path, device: &Device) -> Result<Self> {
        let description = Description::read(dir)?;
        let images = description.spectra.init()?;
        let pipeline = reported(Pipeline::from_pretrained(dir, device)?);
        let classifier = SoundClassifier::from_pretrained(dir.join(CLASSIFIER), device)?;
        let model = Self {
            description,
            images,
            pipeline,
            classifier: reported(classifier),
        };
        model.check().map_err(|error| {
            let fault = DataFault::Mismatch(error.to_string());
            Error::data(dir.join(DESCRIPTION), fault)
        })?;
        Ok(model)
    }

    /// Fails unless the parts fit each other.
    fn check(&self) -> Result<()> {
        let (spectra, pipeline) = (&self.description.spectra, &self.pipeline);
        let expected = format!("{}, the samples of the diffusion model", pipeline.shape);
        let shape = spectra.shape();
        ensure(shape == pipeline.shape, "spectra", shape, &expected)?;
        let classifier = self.classifier.config();
        let (rate, heard) = (spectra.mel_config.sample_rate, classifier.mel.sample_rate);
        let expected = format!("{heard}, as the classifier has it");
        ensure(rate == heard, "sample_rate", rate, &expected)?;
        let (classes, kinds) = (classifier.num_classes, EffectKind::ALL.len());
        let expected = format!("{kinds}, the kinds of effects");
        ensure(classes == kinds, "num_classes", classes, &expected)
    }

    /// Writes a network, its classifier and their description to a directory.
    pub(crate) fn save(
        dir: &Path,
        network: UNet2dModel,
        classifier: &SoundClassifier,
        description: &Description,
    ) -> Result<()> {
        let labels = EffectKind::ALL.map(|kind| kind.name().to_string());
        Pipeline::new(network, spectrum_scheduler(), description.spectra.shape())?
            .with_labels(labels.to_vec())?
            .save_pretrained(dir)?;
        classifier.save_pretrained(dir.join(CLASSIFIER))?;
        let text = serde_json::to_string_pretty(description).map_err(Error::other)?;
        write_atomic(&dir.join(DESCRIPTION), text.as_bytes())
    }
}

/// The sounds of spectra, each of `length` samples. What would be clipped is made quieter.
///
/// # Shapes
/// - values: `[batch, 1, n_mels, frames]` in `[0, 1]`
pub(crate) fn waves(
    images: &MelImages,
    values: Tensor<4>,
    length: usize,
    vocoder: &dyn Vocoder,
) -> Result<Vec<Waveform>> {
    let samples = vocoder.vocode(images.log_mel(values))?;
    let [_, time] = samples.dims();
    let samples: Vec<f32> = samples.into_data().iter::<f32>().collect();
    let rate = images.config().mel_config.sample_rate;
    let wave = |samples: &[f32]| {
        let wave = Waveform::mono(samples[..time.min(length)].to_vec(), rate)?;
        Ok(match wave.peak() > PEAK {
            true => wave.normalize_peak(PEAK),
            false => wave,
        })
    };
    samples.chunks_exact(time).map(wave).collect()
}
