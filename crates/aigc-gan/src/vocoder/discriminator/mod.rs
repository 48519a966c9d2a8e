//! Discriminators of waveforms.
//!
//! | file | content |
//! |---|---|
//! | `stack` | convolutions along time with a layer of logits behind them |
//! | `multi_period` | every p-th sample |
//! | `multi_scale` | the waveform and its averages |
//! | `multi_resolution` | magnitudes of spectra |
//! | `joint` | several of them together |

mod joint;
mod multi_period;
mod multi_resolution;
mod multi_scale;
mod stack;

pub use joint::{WaveDiscriminators, WaveDiscriminatorsConfig};
pub use multi_period::{MultiPeriodDiscriminator, MultiPeriodDiscriminatorConfig};
pub use multi_resolution::{MultiResolutionDiscriminator, MultiResolutionDiscriminatorConfig};
pub use multi_scale::{MultiScaleDiscriminator, MultiScaleDiscriminatorConfig};

use aigc_core::{Result, adversarial::Verdict};
use burn::{
    module::{Module, ModuleDisplay},
    tensor::Tensor,
};

/// Discriminators of waveforms, one or several. The losses of several are added.
pub trait WaveDiscriminator: Module + ModuleDisplay {
    /// The verdict of every discriminator.
    ///
    /// Channels are judged one by one: their logits are patches of the same sound.
    ///
    /// # Shapes
    /// - wave: `[batch, channels, time]`, in `[−1, 1]`
    ///
    /// # Panics
    /// If the waveforms are too short, which [`check_len`](Self::check_len) tells before.
    fn judge(&self, wave: Tensor<3>) -> Vec<Verdict>;

    /// Fails if waveforms of `time` samples are too short.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument).
    fn check_len(&self, time: usize) -> Result<()>;
}

/// Makes a [`WaveDiscriminator`] a discriminator for models of other families, such as codecs. Its
/// logits and features are those of all its discriminators, one behind the other.
macro_rules! sample_discriminator {
    ($network:ty) => {
        impl aigc_core::adversarial::SampleDiscriminator<3> for $network {
            fn logits(
                &self,
                x: burn::tensor::Tensor<3>,
                _class: Option<burn::tensor::Tensor<1, burn::tensor::Int>>,
            ) -> burn::tensor::Tensor<2> {
                let verdicts = $crate::vocoder::WaveDiscriminator::judge(self, x);
                let logits = verdicts.into_iter().map(|verdict| verdict.logits);
                burn::tensor::Tensor::cat(logits.collect(), 1)
            }

            fn features(
                &self,
                x: burn::tensor::Tensor<3>,
                _class: Option<burn::tensor::Tensor<1, burn::tensor::Int>>,
            ) -> Vec<burn::tensor::Tensor<2>> {
                let verdicts = $crate::vocoder::WaveDiscriminator::judge(self, x);
                verdicts
                    .into_iter()
                    .flat_map(|verdict| verdict.features)
                    .collect()
            }

            fn verdicts(
                &self,
                x: burn::tensor::Tensor<3>,
                _class: Option<burn::tensor::Tensor<1, burn::tensor::Int>>,
            ) -> Vec<aigc_core::adversarial::Verdict> {
                $crate::vocoder::WaveDiscriminator::judge(self, x)
            }

            fn check_sample(&self, shape: aigc_core::data::SampleShape) -> aigc_core::Result<()> {
                match *shape.dims() {
                    [_, time] => $crate::vocoder::WaveDiscriminator::check_len(self, time),
                    _ => Err(aigc_core::Error::argument("wave", shape, "channels×time")),
                }
            }
        }
    };
}
use sample_discriminator;

/// The channels of waveforms as waveforms of their own, `[batch·channels, 1, time]`.
fn channels_apart(wave: Tensor<3>) -> Tensor<3> {
    let [batch, channels, time] = wave.dims();
    wave.reshape([batch * channels, 1, time])
}

/// The values of a layer for each of `batch` sounds, `[batch, values]`.
fn per_sound<const D: usize>(layer: Tensor<D>, batch: usize) -> Tensor<2> {
    let values = layer.shape().num_elements() / batch.max(1);
    layer.reshape([batch, values])
}
