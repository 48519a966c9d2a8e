//! Losses over several discriminators.

use crate::GanLoss;
use aigc_core::adversarial::Verdict;
use burn::tensor::Tensor;

/// How far the hidden layers of discriminators are apart for real and for generated waveforms: the
/// mean absolute difference of the values of a layer, summed over layers and discriminators (Larsen
/// et al. 2016, <https://arxiv.org/abs/1512.09300>; Kumar et al. 2019,
/// <https://arxiv.org/abs/1910.06711>, eq. 4). The real waveforms' values are constants.
///
/// # Shapes
/// - output: `[1]`
///
/// # Panics
/// If the numbers of discriminators, their layers or the shapes differ, or there are none.
pub fn feature_matching_loss(real: &[Verdict], fake: &[Verdict]) -> Tensor<1> {
    assert_eq!(real.len(), fake.len(), "numbers of discriminators");
    let layers = real.iter().zip(fake).flat_map(|(real, fake)| {
        assert_eq!(
            real.features.len(),
            fake.features.len(),
            "numbers of layers"
        );
        real.features.iter().zip(&fake.features)
    });
    let distances = layers.map(|(real, fake)| (fake.clone() - real.clone().detach()).abs().mean());
    total(distances)
}

/// The discriminators' loss, summed over them.
pub(super) fn discriminator_loss(loss: GanLoss, real: &[Verdict], fake: &[Verdict]) -> Tensor<1> {
    let pairs = real.iter().zip(fake);
    total(pairs.map(|(real, fake)| loss.discriminator_loss(logits(real), logits(fake), 0.0)))
}

/// The generator's loss, summed over the discriminators.
pub(super) fn generator_loss(loss: GanLoss, real: &[Verdict], fake: &[Verdict]) -> Tensor<1> {
    let pairs = real.iter().zip(fake);
    total(pairs.map(|(real, fake)| {
        let real = loss.is_relativistic().then(|| logits(real).detach());
        loss.generator_loss(logits(fake), real)
    }))
}

/// Accuracy, averaged over the discriminators.
pub(super) fn accuracy(loss: GanLoss, real: &[Verdict], fake: &[Verdict]) -> Tensor<1> {
    let pairs = real.iter().zip(fake);
    let sum = total(
        pairs.map(|(real, fake)| loss.accuracy(logits(real).detach(), logits(fake).detach())),
    );
    sum / real.len() as f64
}

/// The mean logit, averaged over the discriminators, without gradients.
pub(super) fn mean_logit(verdicts: &[Verdict]) -> Tensor<1> {
    let sum = total(
        verdicts
            .iter()
            .map(|verdict| logits(verdict).detach().mean()),
    );
    sum / verdicts.len() as f64
}

fn logits(verdict: &Verdict) -> Tensor<1> {
    let count = verdict.logits.shape().num_elements();
    verdict.logits.clone().reshape([count])
}

fn total(terms: impl Iterator<Item = Tensor<1>>) -> Tensor<1> {
    terms
        .reduce(|sum, term| sum + term)
        .expect("there is at least one discriminator with a layer")
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::{assert_close, values};
    use burn::tensor::Device;

    fn verdict(logits: &[f32], features: &[&[f32]], device: &Device) -> Verdict {
        let row = |values: &[f32]| Tensor::<1>::from_floats(values, device).unsqueeze_dim::<2>(0);
        Verdict {
            logits: row(logits),
            features: features.iter().map(|values| row(values)).collect(),
        }
    }

    #[test]
    fn losses_are_sums_over_discriminators() {
        let device = Device::flex();
        let real = [
            verdict(&[1.0, 0.0], &[&[1.0, 2.0], &[3.0]], &device),
            verdict(&[2.0], &[&[0.0]], &device),
        ];
        let fake = [
            verdict(&[0.0, 1.0], &[&[2.0, 4.0], &[3.0]], &device),
            verdict(&[-1.0], &[&[-3.0]], &device),
        ];
        let check = |found: Tensor<1>, expected: f32| {
            assert_close(&values(found), &[expected], 1e-6);
        };
        check(feature_matching_loss(&real, &fake), 1.5 + 0.0 + 3.0);
        // Half of (0 + 1)/2 + (0 + 1)/2, and of 1 + 1.
        let loss = GanLoss::LeastSquares;
        check(discriminator_loss(loss, &real, &fake), 0.5 + 1.0);
        check(generator_loss(loss, &real, &fake), 0.25 + 2.0);
        check(accuracy(loss, &real, &fake), 0.5 * (0.5 + 1.0));
        check(mean_logit(&real), 0.5 * (0.5 + 2.0));
    }

    /// The features of real waveforms get no gradient.
    #[test]
    fn real_features_are_constants() {
        let device = Device::flex().autodiff();
        let leaf = |value: f32| Tensor::<2>::from_floats([[value]], &device).require_grad();
        let (real, fake) = (leaf(1.0), leaf(3.0));
        let with = |features: &Tensor<2>| Verdict {
            logits: features.clone(),
            features: vec![features.clone()],
        };
        let grads = feature_matching_loss(&[with(&real)], &[with(&fake)]).backward();
        assert!(real.grad(&grads).is_none());
        assert_eq!(values(fake.grad(&grads).unwrap()), [1.0]);
    }
}
