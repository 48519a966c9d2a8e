//! Several discriminators together.

use super::{
    MultiPeriodDiscriminator, MultiPeriodDiscriminatorConfig, MultiResolutionDiscriminator,
    MultiResolutionDiscriminatorConfig, MultiScaleDiscriminator, MultiScaleDiscriminatorConfig,
    WaveDiscriminator,
};
use aigc_core::{Error, Result, adversarial::Verdict};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};

/// Configuration to create [`WaveDiscriminators`]. The default is that of HiFi-GAN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WaveDiscriminatorsConfig {
    /// Discriminators by period.
    pub multi_period: Option<MultiPeriodDiscriminatorConfig>,
    /// Discriminators by scale.
    pub multi_scale: Option<MultiScaleDiscriminatorConfig>,
    /// Discriminators by resolution of spectra.
    pub multi_resolution: Option<MultiResolutionDiscriminatorConfig>,
}

impl Default for WaveDiscriminatorsConfig {
    fn default() -> Self {
        Self::hifi_gan()
    }
}

impl WaveDiscriminatorsConfig {
    /// By period and by scale (Kong et al. 2020, <https://arxiv.org/abs/2010.05646>).
    pub fn hifi_gan() -> Self {
        Self {
            multi_period: Some(MultiPeriodDiscriminatorConfig::default()),
            multi_scale: Some(MultiScaleDiscriminatorConfig::default()),
            multi_resolution: None,
        }
    }

    /// By period and by resolution (Jang et al. 2021, <https://arxiv.org/abs/2106.07889>).
    pub fn univnet() -> Self {
        let multi_period = MultiPeriodDiscriminatorConfig {
            leaky_relu_slope: 0.2,
            ..MultiPeriodDiscriminatorConfig::default()
        };
        Self {
            multi_period: Some(multi_period),
            multi_scale: None,
            multi_resolution: Some(MultiResolutionDiscriminatorConfig::default()),
        }
    }

    /// By period and by resolution, small enough for a CPU and sound of 8,000 samples per second:
    /// periods 2, 3 and 5, up to 32 channels, windows of 10, 25 and 50 ms.
    pub fn light() -> Self {
        Self {
            multi_period: Some(MultiPeriodDiscriminatorConfig {
                periods: vec![2, 3, 5],
                channels: vec![8, 16, 32, 32],
                ..MultiPeriodDiscriminatorConfig::default()
            }),
            multi_scale: None,
            multi_resolution: Some(MultiResolutionDiscriminatorConfig {
                resolutions: vec![[128, 20, 80], [256, 50, 200], [512, 100, 400]],
                channels: 4,
                ..MultiResolutionDiscriminatorConfig::default()
            }),
        }
    }

    /// Fails unless there is a discriminator, and every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        let Self {
            multi_period,
            multi_scale,
            multi_resolution,
        } = self;
        if multi_period.is_none() && multi_scale.is_none() && multi_resolution.is_none() {
            let expected = "a discriminator by period, by scale or by resolution";
            return Err(Error::config(
                "multi_period",
                "none, as the others",
                expected,
            ));
        }
        let periods = multi_period.iter();
        periods
            .map(MultiPeriodDiscriminatorConfig::validate)
            .chain(
                multi_scale
                    .iter()
                    .map(MultiScaleDiscriminatorConfig::validate),
            )
            .chain(
                multi_resolution
                    .iter()
                    .map(MultiResolutionDiscriminatorConfig::validate),
            )
            .collect()
    }

    /// Creates the discriminators on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn init(&self, device: &Device) -> Result<WaveDiscriminators> {
        self.validate()?;
        let (period, scale, resolution) = (
            &self.multi_period,
            &self.multi_scale,
            &self.multi_resolution,
        );
        Ok(WaveDiscriminators {
            multi_period: period.as_ref().map(|c| c.init(device)).transpose()?,
            multi_scale: scale.as_ref().map(|c| c.init(device)).transpose()?,
            multi_resolution: resolution.as_ref().map(|c| c.init(device)).transpose()?,
        })
    }
}

/// Discriminators of several kinds.
#[derive(Module, Debug)]
pub struct WaveDiscriminators {
    /// Discriminators by period.
    pub multi_period: Option<MultiPeriodDiscriminator>,
    /// Discriminators by scale.
    pub multi_scale: Option<MultiScaleDiscriminator>,
    /// Discriminators by resolution of spectra.
    pub multi_resolution: Option<MultiResolutionDiscriminator>,
}

impl WaveDiscriminator for WaveDiscriminators {
    fn judge(&self, wave: Tensor<3>) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        if let Some(judge) = &self.multi_period {
            verdicts.extend(judge.judge(wave.clone()));
        }
        if let Some(judge) = &self.multi_scale {
            verdicts.extend(judge.judge(wave.clone()));
        }
        if let Some(judge) = &self.multi_resolution {
            verdicts.extend(judge.judge(wave));
        }
        verdicts
    }

    fn check_len(&self, time: usize) -> Result<()> {
        let (period, scale) = (self.multi_period.iter(), self.multi_scale.iter());
        period
            .map(|judge| judge.check_len(time))
            .chain(scale.map(|judge| judge.check_len(time)))
            .chain(
                self.multi_resolution
                    .iter()
                    .map(|judge| judge.check_len(time)),
            )
            .collect()
    }
}

super::sample_discriminator!(WaveDiscriminators);

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        adversarial::SampleDiscriminator,
        data::SampleShape,
        rng::{InitWeights, Rng},
        testing::{assert_close, values},
    };

    fn small() -> WaveDiscriminatorsConfig {
        WaveDiscriminatorsConfig {
            multi_scale: Some(MultiScaleDiscriminatorConfig {
                scales: 2,
                channels: vec![4, 8],
                kernel_sizes: vec![5, 9],
                strides: vec![1, 2],
                groups: vec![1, 2],
                ..MultiScaleDiscriminatorConfig::default()
            }),
            ..WaveDiscriminatorsConfig::light()
        }
    }

    /// Sounds are judged on their own, and channels are patches of their sound.
    #[test]
    fn verdicts_are_those_of_each_sound() {
        let device = Device::flex();
        let judges = small().init(&device).unwrap().init_weights(1);
        let wave: Tensor<3> = Rng::new(2).uniform([2, 2, 701], -1.0, 1.0, &device);
        judges.check_len(701).unwrap();
        let together = judges.judge(wave.clone());
        assert_eq!(together.len(), 3 + 2 + 3);
        for sound in 0..2 {
            let alone = judges.judge(wave.clone().narrow(0, sound, 1));
            for (together, alone) in together.iter().zip(alone) {
                let row = |x: &Tensor<2>| values(x.clone().narrow(0, sound, 1));
                assert_close(&row(&together.logits), &values(alone.logits), 1e-5);
                for (together, alone) in together.features.iter().zip(alone.features) {
                    assert_close(&row(together), &values(alone), 1e-4);
                }
            }
        }
        let first = judges.judge(wave.clone().narrow(1, 0, 1));
        let patches = together[0].logits.dims()[1];
        assert_eq!(first[0].logits.dims(), [2, patches / 2]);
        let all: usize = together
            .iter()
            .map(|verdict| verdict.logits.dims()[1])
            .sum();
        assert_eq!(judges.logits(wave.clone(), None).dims(), [2, all]);
        let layers: usize = together.iter().map(|verdict| verdict.features.len()).sum();
        assert_eq!(judges.features(wave.clone(), None).len(), layers);
        assert_eq!(judges.verdicts(wave, None).len(), together.len());
    }

    /// A discriminator of period 3 does not mix samples of different remainders.
    #[test]
    fn periods_are_apart() {
        let device = Device::flex();
        let config = MultiPeriodDiscriminatorConfig {
            periods: vec![3],
            channels: vec![4],
            ..MultiPeriodDiscriminatorConfig::default()
        };
        let judge = config.init(&device).unwrap().init_weights(3);
        let wave: Tensor<3> = Rng::new(4).normal([1, 1, 30], &device);
        let mut changed = values(wave.clone());
        changed
            .iter_mut()
            .skip(1)
            .step_by(3)
            .for_each(|x| *x += 1.0);
        let changed = Tensor::<1>::from_floats(&changed[..], &device).reshape([1, 1, 30]);
        let (before, after) = (judge.judge(wave), judge.judge(changed));
        let (before, after) = (
            values(before[0].logits.clone()),
            values(after[0].logits.clone()),
        );
        // Logits of one remainder, then those of the next.
        let each = before.len() / 3;
        assert_eq!(before[..each], after[..each]);
        assert_ne!(before[each..2 * each], after[each..2 * each]);
        assert_eq!(before[2 * each..], after[2 * each..]);
    }

    #[test]
    fn short_waveforms_and_bad_values_are_errors() {
        let device = Device::flex();
        let judges = small().init(&device).unwrap();
        assert!(judges.check_len(0).is_err() && judges.check_len(100).is_err());
        let check = |dims: &[usize]| judges.check_sample(SampleShape::new(dims));
        assert!(check(&[2, 701]).is_ok());
        assert!(check(&[2, 100]).is_err() && check(&[1, 26, 27]).is_err());
        let none = WaveDiscriminatorsConfig {
            multi_period: None,
            multi_scale: None,
            multi_resolution: None,
        };
        assert!(none.init(&device).is_err());
        type Change = fn(&mut WaveDiscriminatorsConfig);
        let changes: [(&str, Change); 6] = [
            ("periods", |c| {
                c.multi_period.as_mut().unwrap().periods[0] = 0
            }),
            ("kernel_sizes", |c| {
                c.multi_period.as_mut().unwrap().kernel_size = 4
            }),
            ("groups", |c| c.multi_scale.as_mut().unwrap().groups[1] = 3),
            ("strides", |c| {
                c.multi_scale.as_mut().unwrap().strides = vec![1]
            }),
            ("resolutions", |c| {
                c.multi_resolution.as_mut().unwrap().resolutions[0] = [64, 65, 32];
            }),
            ("win_length", |c| {
                c.multi_resolution.as_mut().unwrap().resolutions[0] = [64, 16, 65];
            }),
        ];
        for (field, change) in changes {
            let mut config = small();
            change(&mut config);
            let error = config.init(&device).unwrap_err().to_string();
            assert!(error.contains(&format!("`{field}`")), "{field}: {error}");
        }
    }
}
