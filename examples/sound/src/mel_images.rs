//! Log-mel spectra as grey images, which models of images learn.

use aigc_core::{
    CancelToken, Error, Result,
    burn::tensor::{Device, Tensor, TensorData},
    check::{ensure, in_range},
    data::{Dataset, ImageShape, InMemory, SampleBatch, SampleShape, sound::Sound},
    dsp::{MelConfig, MelSpectrogram},
};
use serde::{Deserialize, Serialize};
use std::{num::NonZero, ops::Range, thread};

/// How sounds become images of `n_mels` rows, the lowest frequency first, and `frames` columns.
/// Everything that is needed to turn such images into sounds again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MelImageConfig {
    /// The spectra.
    pub mel_config: MelConfig,
    /// Frames of an image.
    pub frames: usize,
    /// The logarithm that is 0 in an image; smaller ones are 0, too.
    pub low: f64,
    /// The logarithm that is 1 in an image; larger ones are 1, too.
    pub high: f64,
}

impl MelImageConfig {
    /// Images from `low` to `high` of `frames` frames.
    pub fn new(mel_config: MelConfig, frames: usize, low: f64, high: f64) -> Self {
        Self {
            mel_config,
            frames,
            low,
            high,
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] if the mels are invalid, there are no frames, more than 4,096, or others
    /// than the transform has of [`samples`](Self::samples), or the range is empty or not finite.
    pub fn validate(&self) -> Result<()> {
        self.mel_config.validate()?;
        in_range("frames", self.frames, 1..=4096)?;
        let transform = self.mel_config.stft().init()?;
        let found = transform.frames(self.samples()).unwrap_or(0);
        let expected = format!("{found}, those of {} samples", self.samples());
        ensure(found == self.frames, "frames", self.frames, &expected)?;
        let (low, high) = (self.low, self.high);
        ensure(
            low < high && (high - low).is_finite(),
            "low",
            low,
            &format!("finite, and below high = {high}"),
        )
    }

    /// Samples of the sound of an image: a hop for each frame.
    pub fn samples(&self) -> usize {
        self.frames.saturating_mul(self.mel_config.hop_length)
    }

    /// Shape of an image.
    pub fn shape(&self) -> ImageShape {
        ImageShape::new(1, self.mel_config.n_mels, self.frames)
    }

    /// Plans the transforms.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn init(&self) -> Result<MelImages> {
        self.validate()?;
        Ok(MelImages {
            config: *self,
            mel: self.mel_config.init()?,
        })
    }
}

/// Makes images of sounds, and spectra of images.
#[derive(Clone, Debug)]
pub struct MelImages {
    config: MelImageConfig,
    mel: MelSpectrogram,
}

impl MelImages {
    /// The settings.
    pub fn config(&self) -> &MelImageConfig {
        &self.config
    }

    /// The image of a sound, whose channels are averaged, and which is cut or padded with silence
    /// at its end.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the sound has another sample rate.
    pub fn image(&self, sound: &Sound) -> Result<MelSample> {
        let (rate, expected) = (sound.wave.sample_rate(), self.config.mel_config.sample_rate);
        if rate != expected {
            let expected = format!("{expected}, that of the spectra");
            return Err(Error::argument("sample_rate", rate, expected));
        }
        let mut samples = sound.wave.to_mono().channel(0).to_vec();
        samples.resize(self.config.samples(), 0.0);
        let log_mel = self.mel.log_mel(&samples)?;
        let (low, high) = (self.config.low, self.config.high);
        let unit = |value: &f64| ((value - low) / (high - low)).clamp(0.0, 1.0) as f32;
        Ok(MelSample {
            shape: self.config.shape(),
            values: log_mel.transposed().iter().map(unit).collect(),
            label: sound.label,
        })
    }

    /// The images of all sounds of a data set, computed by as many threads as there are processors.
    ///
    /// # Errors
    /// As [`image`](Self::image); errors of the data set; [`Error::Cancelled`] if `stop` is
    /// cancelled.
    pub fn dataset(
        &self,
        sounds: &impl Dataset<Item = Sound>,
        stop: &CancelToken,
    ) -> Result<InMemory<MelSample>> {
        let (config, count) = (self.config, sounds.len());
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let each = count.div_ceil(threads).max(1);
        // Every thread plans transforms of its own.
        let part = |indices: Range<usize>| -> Result<Vec<MelSample>> {
            let images = config.init()?;
            let image = |index| {
                if stop.is_cancelled() {
                    return Err(Error::cancelled("the computation of mel spectra"));
                }
                images.image(&sounds.get(index)?)
            };
            indices.map(image).collect()
        };
        let part = &part;
        let parts = thread::scope(|scope| {
            let ranges = (0..count)
                .step_by(each)
                .map(|first| first..(first + each).min(count));
            let workers: Vec<_> = ranges
                .map(|indices| scope.spawn(move || part(indices)))
                .collect();
            let results = workers.into_iter().map(|worker| worker.join());
            results
                .map(|result| {
                    result.unwrap_or_else(|_| {
                        Err(Error::other("a thread that computes mel spectra panicked"))
                    })
                })
                .collect::<Result<Vec<_>>>()
        })?;
        Ok(InMemory(parts.concat()))
    }

    /// The log-mel spectra of images, as a [`Vocoder`](aigc_core::audio::Vocoder) reads them.
    ///
    /// # Shapes
    /// - images: `[batch, 1, n_mels, frames]` in `[0, 1]`
    /// - output: `[batch, n_mels, frames]`
    pub fn log_mel(&self, images: Tensor<4>) -> Tensor<3> {
        let (low, high) = (self.config.low, self.config.high);
        images.squeeze_dim::<3>(1) * (high - low) + low
    }
}

/// The image of a sound.
#[derive(Clone, Debug, PartialEq)]
pub struct MelSample {
    /// `[1, n_mels, frames]`
    pub shape: ImageShape,
    /// The values in `[0, 1]`, row by row.
    pub values: Vec<f32>,
    /// Class, if the data set has classes.
    pub label: Option<u32>,
}

/// A batch of images of sounds on the host. Values are in `[0, 1]`, as those of other images, but
/// they are not rounded to 8 bits.
#[derive(Clone, Debug)]
pub struct MelBatch {
    values: Vec<f32>,
    count: usize,
    shape: ImageShape,
    labels: Option<Vec<u32>>,
}

impl SampleBatch for MelBatch {
    fn to_tensor(&self, device: &Device) -> Tensor<4> {
        let dims = SampleShape::from(self.shape).batched::<4>(self.count);
        Tensor::from_data(TensorData::new(self.values.clone(), dims), device)
    }

    fn len(&self) -> usize {
        self.count
    }

    fn sample_shape(&self) -> SampleShape {
        self.shape.into()
    }

    fn labels(&self) -> Option<&[u32]> {
        self.labels.as_deref()
    }
}

/// Collates images into a batch.
///
/// # Panics
/// If there are no images, or their shapes differ.
pub fn collate_mels(images: Vec<MelSample>) -> MelBatch {
    let shape = images.first().expect("a batch has images").shape;
    for image in &images {
        assert_eq!(image.shape, shape, "images of a batch differ in shape");
    }
    MelBatch {
        count: images.len(),
        shape,
        labels: images.iter().map(|image| image.label).collect(),
        values: images.into_iter().flat_map(|image| image.values).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_core::{data::effects::Effects, device::device};

    fn config() -> MelImageConfig {
        let mel = MelConfig::hifi_gan(8000, 1024, 512, 16);
        MelImageConfig::new(mel, 16, mel.floor.ln(), 2.0)
    }

    #[test]
    fn images_hold_the_spectra_of_sounds() {
        let images = config().init().unwrap();
        let effects = Effects::new(9, 8000, 1).unwrap();
        let made = images.dataset(&effects, &CancelToken::new()).unwrap();
        assert_eq!(made.len(), 9);
        for (index, sample) in made.0.iter().enumerate() {
            let sound = effects.get(index).unwrap();
            assert_eq!(sample, &images.image(&sound).unwrap());
            assert_eq!(sample.label, Some(index as u32 % 8));
        }
        let batch = collate_mels(made.0.clone());
        let device = device("flex").unwrap();
        let tensor = batch.to_tensor(&device);
        assert_eq!(tensor.dims(), [9, 1, 16, 16]);
        let found = images.log_mel(tensor).into_data();
        let found: Vec<f64> = found.iter::<f64>().collect();
        let mut samples = effects.get(8).unwrap().wave.channel(0).to_vec();
        samples.resize(8192, 0.0);
        let mel = config().mel_config.init().unwrap();
        let expected = mel.log_mel(&samples).unwrap().transposed();
        for (found, expected) in found[8 * 256..].iter().zip(&expected) {
            assert!((found - expected.clamp(config().low, 2.0)).abs() < 1e-4);
        }

        let stop = CancelToken::new();
        stop.cancel();
        let stopped = images.dataset(&effects, &stop);
        assert!(matches!(stopped, Err(Error::Cancelled { .. })));
    }

    #[test]
    fn bad_settings_and_sounds_are_named() {
        type Change = fn(&mut MelImageConfig);
        let cases: [(&str, Change); 5] = [
            ("frames", |config| config.frames = 0),
            ("frames", |config| config.frames = 1 << 40),
            ("low", |config| config.low = 3.0),
            ("low", |config| config.high = f64::NAN),
            ("n_mels", |config| config.mel_config.n_mels = 0),
        ];
        for (field, change) in cases {
            let mut config = config();
            change(&mut config);
            let error = config.init().unwrap_err().to_string();
            assert!(error.contains(&format!("`{field}`")), "{error}");
        }
        let other = Effects::new(1, 16_000, 0).unwrap().get(0).unwrap();
        let error = config().init().unwrap().image(&other).unwrap_err();
        assert!(
            error.to_string().contains("`sample_rate` is 16000"),
            "{error}"
        );
        let fields = serde_json::to_string(&config()).unwrap();
        assert_eq!(
            serde_json::from_str::<MelImageConfig>(&fields).unwrap(),
            config()
        );
    }
}
