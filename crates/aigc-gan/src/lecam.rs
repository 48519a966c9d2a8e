//! LeCam regularisation.

use aigc_core::{Result, check};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// LeCam regularisation: the logits of real samples are kept near the running mean of the logits of
/// generated samples, and vice versa (Tseng et al. 2021, <https://arxiv.org/abs/2104.03310>, eq.
/// 5).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeCam {
    /// Factor `λ` of the regularisation.
    pub weight: f64,
    /// Decay of the running means per step.
    pub decay: f64,
}

impl Default for LeCam {
    fn default() -> Self {
        Self {
            weight: 0.3,
            decay: 0.99,
        }
    }
}

/// Running means of the discriminator's logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Anchors {
    real: f64,
    fake: f64,
    begun: bool,
}

impl LeCam {
    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        check::positive("lecam.weight", self.weight)?;
        check::ensure(
            (0.0..1.0).contains(&self.decay),
            "lecam.decay",
            self.decay,
            "0 to below 1",
        )
    }

    /// The term `λ·(E(D(x) − α_F)² + E(D(G) − α_R)²)`, `[1]`, where `α_F` and `α_R` are the running
    /// means of the logits of generated and real samples.
    pub(crate) fn loss(
        &self,
        real: &Tensor<1>,
        fake: &Tensor<1>,
        anchors: &mut Anchors,
    ) -> Tensor<1> {
        let means = Tensor::cat(vec![real.clone().mean(), fake.clone().mean()], 0)
            .detach()
            .into_data();
        let means: Vec<f64> = means.iter::<f64>().collect();
        let keep = if anchors.begun { self.decay } else { 0.0 };
        *anchors = Anchors {
            real: keep * anchors.real + (1.0 - keep) * means[0],
            fake: keep * anchors.fake + (1.0 - keep) * means[1],
            begun: true,
        };
        let square = |x: Tensor<1>| (x.clone() * x).mean();
        (square(real.clone() - anchors.fake) + square(fake.clone() - anchors.real)) * self.weight
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn value(x: Tensor<1>) -> f64 {
        f64::from(x.into_scalar::<f32>())
    }

    #[test]
    fn lecam_decay_of_1_is_rejected() {
        let lecam = LeCam {
            decay: 1.0,
            ..LeCam::default()
        };
        let message = lecam.validate().unwrap_err().to_string();
        assert!(message.contains("`lecam.decay` is 1"), "{message}");
    }

    #[test]
    fn lecam_matches_its_formula() {
        let device = Device::flex();
        let lecam = LeCam {
            weight: 0.5,
            decay: 0.9,
        };
        let mut anchors = Anchors::default();
        let scores = |x: f32| Tensor::<1>::from_floats([x, x + 1.0], &device);
        // After the first batch the running means are its means: 0.5 and −1.5.
        let first = value(lecam.loss(&scores(0.0), &scores(-2.0), &mut anchors));
        let square = |a: f64, b: f64| (a * a + b * b) / 2.0;
        assert!(
            (first - 0.5 * (square(1.5, 2.5) + square(2.5, 1.5))).abs() < 1e-5,
            "{first}"
        );
        let second = value(lecam.loss(&scores(1.0), &scores(0.0), &mut anchors));
        let (real, fake) = (0.9 * 0.5 + 0.1 * 1.5, -0.9 * 1.5 + 0.1 * 0.5);
        let expected = 0.5 * (square(1.0 - fake, 2.0 - fake) + square(-real, 1.0 - real));
        assert!((second - expected).abs() < 1e-5, "{second} {expected}");
    }
}
