//! Losses of discriminator and generator.

use aigc_core::{Error, Result, nn::Activation};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Losses of discriminator and generator, from the logits `D(x)` of real and `D(G)` of generated
/// samples; higher logits mean more real. `sp(x) = ln(1 + eˣ)`, and each term is a mean over the
/// batch:
///
/// | | discriminator | generator |
/// |---|---|---|
/// | minimax | `sp(−D(x)) + sp(D(G))` | `−sp(D(G))`, that is `log(1 − σ(D(G)))` |
/// | non-saturating | the same | `sp(−D(G))` |
/// | least squares | `½(D(x) − 1)² + ½D(G)²` | `½(D(G) − 1)²` |
/// | hinge | `max(0, 1 − D(x)) + max(0, 1 + D(G))` | `−D(G)` |
/// | Wasserstein | `D(G) − D(x)` | `−D(G)` |
/// | relativistic pairing | `sp(D(G) − D(x))` | `sp(D(x) − D(G))` |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GanLoss {
    /// `min_G max_D E[log σ(D(x))] + E[log(1 − σ(D(G(z))))]` (Goodfellow et al. 2014,
    /// <https://arxiv.org/abs/1406.2661>, eq. 1). The generator learns little while the
    /// discriminator is confident.
    Minimax,
    /// The discriminator as for minimax; the generator maximises `log σ(D(G(z)))` (Goodfellow et
    /// al. 2014, §3).
    #[default]
    NonSaturating,
    /// Squared differences between logits and labels 1 and 0 (Mao et al. 2017,
    /// <https://arxiv.org/abs/1611.04076>, eq. 9).
    LeastSquares,
    /// Hinge loss with margin 1 (Lim and Ye 2017, <https://arxiv.org/abs/1705.02894>; Miyato et al.
    /// 2018, eq. 16–17).
    Hinge,
    /// Estimate of the Wasserstein distance (Arjovsky et al. 2017,
    /// <https://arxiv.org/abs/1701.07875>). The discriminator (there *critic*) must be kept
    /// Lipschitz by weight clipping or a penalty.
    Wasserstein,
    /// RpGAN: each generated sample is compared with a real one (Jolicoeur-Martineau 2019,
    /// <https://arxiv.org/abs/1807.00734>; Huang et al. 2024, <https://arxiv.org/abs/2501.05441>,
    /// eq. 2).
    RelativisticPairing,
}

fn softplus(x: Tensor<1>) -> Tensor<1> {
    Activation::Softplus.forward(x)
}

fn square(x: Tensor<1>) -> Tensor<1> {
    x.clone() * x
}

impl GanLoss {
    /// The discriminator's loss.
    ///
    /// With `smoothing` `ε`, the targets of real samples are `1 − ε` (one-sided label smoothing:
    /// Salimans et al. 2016, <https://arxiv.org/abs/1606.03498>, §3.4).
    /// [`validate`](Self::validate) checks which values a loss supports.
    ///
    /// # Shapes
    /// - real and fake: logits, `[batch]`
    /// - output: `[1]`
    pub fn discriminator_loss(self, real: Tensor<1>, fake: Tensor<1>, smoothing: f64) -> Tensor<1> {
        match self {
            GanLoss::Minimax | GanLoss::NonSaturating => {
                let on_real = match smoothing > 0.0 {
                    // (1 − ε)·sp(−x) + ε·sp(x) = sp(−x) + ε·x
                    true => softplus(-real.clone()) + real * smoothing,
                    false => softplus(-real),
                };
                on_real.mean() + softplus(fake).mean()
            }
            GanLoss::LeastSquares => {
                (square(real - (1.0 - smoothing)).mean() + square(fake).mean()) * 0.5
            }
            GanLoss::Hinge => {
                let relu = |x: Tensor<1>| Activation::Relu.forward(x);
                relu(-real + 1.0).mean() + relu(fake + 1.0).mean()
            }
            GanLoss::Wasserstein => fake.mean() - real.mean(),
            GanLoss::RelativisticPairing => softplus(fake - real).mean(),
        }
    }

    /// The generator's loss. A [relativistic](Self::is_relativistic) loss also needs the logits of
    /// real samples.
    ///
    /// # Shapes
    /// - real and fake: logits, `[batch]`
    /// - output: `[1]`
    ///
    /// # Panics
    /// If the loss is relativistic and `real` is `None`.
    pub fn generator_loss(self, fake: Tensor<1>, real: Option<Tensor<1>>) -> Tensor<1> {
        match self {
            GanLoss::Minimax => -softplus(fake).mean(),
            GanLoss::NonSaturating => softplus(-fake).mean(),
            GanLoss::LeastSquares => square(fake - 1.0).mean() * 0.5,
            GanLoss::Hinge | GanLoss::Wasserstein => -fake.mean(),
            GanLoss::RelativisticPairing => {
                softplus(real.expect("relativistic pairing compares with real samples") - fake)
                    .mean()
            }
        }
    }

    /// Whether the generator's loss depends on the logits of real samples.
    pub fn is_relativistic(self) -> bool {
        self == GanLoss::RelativisticPairing
    }

    /// Accuracy of the discriminator, from 0 to 1: the fraction of real samples above its decision
    /// boundary and generated ones below. For losses that only compare logits (Wasserstein and
    /// relativistic pairing), the fraction of pairs in which the real sample has the higher logit.
    ///
    /// # Shapes
    /// - real and fake: logits, `[batch]`
    /// - output: `[1]`
    pub fn accuracy(self, real: Tensor<1>, fake: Tensor<1>) -> Tensor<1> {
        let share = |right: Tensor<1>| right.greater_elem(0.0).float().mean();
        match self {
            GanLoss::Wasserstein | GanLoss::RelativisticPairing => share(real - fake),
            GanLoss::LeastSquares => (share(real - 0.5) + share(-fake + 0.5)) * 0.5,
            _ => (share(real) + share(-fake)) * 0.5,
        }
    }

    /// ADA's overfitting measure `r_t`, from −1 to 1: the mean sign of the logits of real samples,
    /// relative to the decision boundary. For losses that only compare logits, the mean sign of the
    /// differences between real and generated samples.
    ///
    /// # Shapes
    /// - real and fake: logits, `[batch]`
    /// - output: `[1]`
    pub fn real_sign(self, real: Tensor<1>, fake: Tensor<1>) -> Tensor<1> {
        match self {
            GanLoss::Wasserstein | GanLoss::RelativisticPairing => real - fake,
            GanLoss::LeastSquares => real - 0.5,
            _ => real,
        }
        .sign()
        .mean()
    }

    /// Fails unless `smoothing` is at least 0 and below 0.5, and 0 for a loss without labels.
    ///
    /// # Errors
    /// [`Error::Config`] naming `label_smoothing`.
    pub fn validate(self, smoothing: f64) -> Result<()> {
        let labelled = matches!(
            self,
            GanLoss::Minimax | GanLoss::NonSaturating | GanLoss::LeastSquares
        );
        if smoothing != 0.0 && !labelled {
            return Err(Error::config(
                "label_smoothing",
                smoothing,
                format!("0 for {self:?}, which has no labels"),
            ));
        }
        if !(0.0..0.5).contains(&smoothing) {
            return Err(Error::config(
                "label_smoothing",
                smoothing,
                "from 0 to below 0.5",
            ));
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::Device;

    const LOSSES: [GanLoss; 6] = [
        GanLoss::Minimax,
        GanLoss::NonSaturating,
        GanLoss::LeastSquares,
        GanLoss::Hinge,
        GanLoss::Wasserstein,
        GanLoss::RelativisticPairing,
    ];

    fn value(x: Tensor<1>) -> f64 {
        f64::from(x.into_scalar::<f32>())
    }

    /// The table of [`GanLoss`] in 64 bits, with probabilities instead of softplus.
    #[test]
    fn losses_match_their_formulas() {
        let device = Device::flex();
        let (real, fake, smoothing) = ([0.7f32, -1.2, 2.0], [-0.4f32, 0.9, -3.0], 0.1);
        let tensor = |x: [f32; 3]| Tensor::<1>::from_floats(x, &device);
        let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
        let mean = |f: &dyn Fn(f64, f64) -> f64| {
            real.iter()
                .zip(&fake)
                .map(|(r, g)| f(f64::from(*r), f64::from(*g)))
                .sum::<f64>()
                / 3.0
        };
        for loss in LOSSES {
            let epsilon = if loss.validate(smoothing).is_ok() {
                smoothing
            } else {
                0.0
            };
            let bce = |r: f64, g: f64| {
                -(1.0 - epsilon) * sigma(r).ln()
                    - epsilon * (1.0 - sigma(r)).ln()
                    - (1.0 - sigma(g)).ln()
            };
            let (discriminator, generator) = match loss {
                GanLoss::Minimax => (mean(&bce), mean(&|_, g| (1.0 - sigma(g)).ln())),
                GanLoss::NonSaturating => (mean(&bce), mean(&|_, g| -sigma(g).ln())),
                GanLoss::LeastSquares => (
                    mean(&|r, g| 0.5 * (r - 1.0 + epsilon).powi(2) + 0.5 * g * g),
                    mean(&|_, g| 0.5 * (g - 1.0).powi(2)),
                ),
                GanLoss::Hinge => (
                    mean(&|r, g| (1.0 - r).max(0.0) + (1.0 + g).max(0.0)),
                    mean(&|_, g| -g),
                ),
                GanLoss::Wasserstein => (mean(&|r, g| g - r), mean(&|_, g| -g)),
                GanLoss::RelativisticPairing => (
                    mean(&|r, g| -sigma(r - g).ln()),
                    mean(&|r, g| -sigma(g - r).ln()),
                ),
            };
            let got = value(loss.discriminator_loss(tensor(real), tensor(fake), epsilon));
            assert!(
                (got - discriminator).abs() < 1e-5,
                "{loss:?}: {got} {discriminator}"
            );
            let got = value(
                loss.generator_loss(tensor(fake), loss.is_relativistic().then(|| tensor(real))),
            );
            assert!(
                (got - generator).abs() < 1e-5,
                "{loss:?}: {got} {generator}"
            );
        }
    }

    #[test]
    fn losses_of_large_logits_are_finite() {
        let device = Device::flex();
        let far = |x: f32| Tensor::<1>::from_floats([x, -x], &device);
        for loss in LOSSES {
            assert!(value(loss.discriminator_loss(far(300.0), far(-300.0), 0.0)).is_finite());
            assert!(value(loss.generator_loss(far(300.0), Some(far(-300.0)))).is_finite());
        }
    }

    #[test]
    fn accuracy_counts_correct_samples() {
        let device = Device::flex();
        let (real, fake) = ([2.0f32, -1.0], [0.2f32, -3.0]);
        for (loss, expected) in [
            (GanLoss::NonSaturating, 0.5),
            (GanLoss::LeastSquares, 0.75),
            (GanLoss::Wasserstein, 1.0),
            (GanLoss::RelativisticPairing, 1.0),
        ] {
            let got = value(loss.accuracy(
                Tensor::from_floats(real, &device),
                Tensor::from_floats(fake, &device),
            ));
            assert_eq!(got, expected, "{loss:?}");
        }
    }

    #[test]
    fn real_sign_is_relative_to_the_decision_boundary() {
        let device = Device::flex();
        let (real, fake) = ([0.4f32, 0.9, -0.1, 2.0], [0.6f32, 0.1, -0.2, 1.0]);
        for (loss, expected) in [
            (GanLoss::NonSaturating, 0.5),
            (GanLoss::Hinge, 0.5),
            (GanLoss::LeastSquares, 0.0),
            (GanLoss::Wasserstein, 0.5),
            (GanLoss::RelativisticPairing, 0.5),
        ] {
            let got = value(loss.real_sign(
                Tensor::from_floats(real, &device),
                Tensor::from_floats(fake, &device),
            ));
            assert_eq!(got, expected, "{loss:?}");
        }
    }

    #[test]
    fn label_smoothing_is_validated() {
        assert!(
            GanLoss::NonSaturating.validate(0.1).is_ok() && GanLoss::Hinge.validate(0.0).is_ok()
        );
        for (loss, smoothing) in [
            (GanLoss::Hinge, 0.1),
            (GanLoss::Minimax, -0.1),
            (GanLoss::LeastSquares, f64::NAN),
        ] {
            assert!(
                loss.validate(smoothing)
                    .unwrap_err()
                    .to_string()
                    .contains("label_smoothing")
            );
        }
    }
}
