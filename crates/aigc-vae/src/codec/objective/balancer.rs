//! The loss balancer of Encodec (Défossez et al. 2022, <https://arxiv.org/abs/2210.13438>, §3.4).

use aigc_core::{Error, Result};
use burn::tensor::Tensor;
use std::collections::BTreeMap;

/// Weight of the past in the moving averages of norms.
const DECAY: f64 = 0.999;
/// Added to the averages, so that a term without a gradient has none.
const LEAST_NORM: f64 = 1e-12;

/// A term of a loss: its name, its weight, and its value for decoded sounds.
pub(super) type Term<'a> = (
    &'static str,
    f64,
    Box<dyn FnOnce(Tensor<3>) -> Result<Tensor<1>> + 'a>,
);

/// Values by name, each `[1]`.
pub(super) type Named = Vec<(&'static str, Tensor<1>)>;

/// Weighs terms by their gradients with respect to the decoded sound: the gradient of every term is
/// divided by a moving average of its norm, so that its weight is its share of the whole gradient
/// whatever its scale, and the whole has a norm of about 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct LossBalancer {
    /// Sums of norms, and of their weights.
    norms: BTreeMap<String, [f64; 2]>,
}

impl LossBalancer {
    /// The loss of all terms, whose gradient is the balanced one, and the values of the terms. The
    /// value of the loss is the sum of the terms with their weights.
    pub(super) fn combine(
        &mut self,
        decoded: Tensor<3>,
        terms: Vec<Term<'_>>,
    ) -> Result<(Tensor<1>, Named)> {
        let total: f64 = terms.iter().map(|(_, weight, _)| weight).sum();
        let mut value: Option<Tensor<1>> = None;
        let mut whole: Option<Tensor<3>> = None;
        let mut values = Vec::with_capacity(terms.len());
        for (name, weight, function) in terms {
            let point = decoded.clone().detach().require_grad();
            let term = function(point.clone())?;
            let found = term.clone().detach();
            let weighted = found.clone() * weight;
            value = Some(match value {
                Some(value) => value + weighted,
                None => weighted,
            });
            values.push((name, found));
            let gradient = match term.is_tracked() {
                true => point.grad(&term.backward()),
                // A term that ignores the sounds.
                false => None,
            };
            let Some(gradient) = gradient.filter(|_| weight > 0.0) else {
                continue;
            };
            let norm = self.average(name, mean_norm(gradient.clone()));
            let gradient = gradient * (weight / (total * (norm + LEAST_NORM)));
            whole = Some(match whole {
                Some(whole) => whole + gradient,
                None => gradient,
            });
        }
        let value = value.unwrap_or_else(|| Tensor::zeros([1], &decoded.device()));
        let Some(whole) = whole else {
            return Ok((value, values));
        };
        let product = (decoded * Tensor::from_inner(whole)).sum();
        Ok((product.clone() - product.detach() + value, values))
    }

    /// The moving average of a norm with a new one. The first averages are those of what there is.
    fn average(&mut self, name: &str, norm: f64) -> f64 {
        // Training stops at values that are not numbers; they do not belong into averages.
        if !norm.is_finite() {
            return 1.0;
        }
        let [sum, count] = self.norms.entry(name.into()).or_default();
        *sum = DECAY * *sum + norm;
        *count = DECAY * *count + 1.0;
        *sum / *count
    }

    /// The averages, bit for bit.
    pub(super) fn state(&self) -> serde_json::Value {
        let bits = self.norms.iter();
        let bits: BTreeMap<&String, [u64; 2]> = bits
            .map(|(name, pair)| (name, pair.map(f64::to_bits)))
            .collect();
        serde_json::to_value(bits).expect("plain values")
    }

    pub(super) fn load_state(&mut self, state: serde_json::Value) -> Result<()> {
        let bits: BTreeMap<String, [u64; 2]> = serde_json::from_value(state)
            .map_err(|error| Error::config("state.balancer", error, "averages of norms"))?;
        let norms = bits.into_iter();
        self.norms = norms
            .map(|(name, pair)| (name, pair.map(f64::from_bits)))
            .collect();
        Ok(())
    }
}

/// The norm of the gradient of a sound, averaged over the batch.
fn mean_norm(gradient: Tensor<3>) -> f64 {
    let squares = (gradient.clone() * gradient).flatten::<2>(1, 2).sum_dim(1);
    f64::from(squares.sqrt().mean().into_scalar::<f32>())
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::{assert_close, values};
    use burn::tensor::Device;

    /// Terms of very different scales contribute by their weights.
    #[test]
    fn gradients_have_the_shares_of_their_weights() {
        let device = Device::flex().autodiff();
        let x = Tensor::<3>::from_floats([[[3.0, -1.0]], [[0.5, 2.0]]], &device).require_grad();
        let mut balancer = LossBalancer::default();
        let terms: Vec<Term<'_>> = vec![
            (
                "first",
                3.0,
                Box::new(|x: Tensor<3>| Ok(x.narrow(2, 0, 1).sum() * 1e-4)),
            ),
            (
                "second",
                1.0,
                Box::new(|x: Tensor<3>| Ok(x.narrow(2, 1, 1).sum() * 1e3)),
            ),
            (
                "constant",
                1.0,
                Box::new(|x: Tensor<3>| Ok(x.detach().sum())),
            ),
        ];
        let (loss, found) = balancer.combine(x.clone(), terms).unwrap();
        let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["first", "second", "constant"]);
        let expected = 3.0 * 3.5e-4 + 1e3 + 4.5;
        assert_close(&values(loss.clone()), &[expected], 1e-2);
        let gradients = loss.backward();
        let expected = [0.6, 0.2, 0.6, 0.2];
        assert_close(&values(x.grad(&gradients).unwrap()), &expected, 1e-5);

        let mut other = LossBalancer::default();
        other.load_state(balancer.state()).unwrap();
        assert_eq!(other, balancer);
        assert!(other.load_state("text".into()).is_err());
    }

    #[test]
    fn averages_start_with_what_there_is() {
        let mut balancer = LossBalancer::default();
        assert_eq!(balancer.average("term", 4.0), 4.0);
        let second = balancer.average("term", 2.0);
        assert!((second - (0.999 * 4.0 + 2.0) / 1.999).abs() < 1e-12);
        assert_eq!(balancer.average("term", f64::NAN), 1.0);
    }
}
