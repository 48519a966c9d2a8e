//! The loss balancer of Encodec (Défossez et al. 2022, <https://arxiv.org/abs/2210.13438>, §3.4).

use super::point::{Judge, Point};
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
    Box<dyn FnOnce(&Point<'_>) -> Result<Tensor<1>> + 'a>,
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
    ///
    /// Terms do not share a pass of the discriminators: a graph is freed with the first of the
    /// gradients that are computed from it.
    pub(super) fn combine(
        &mut self,
        decoded: Tensor<3>,
        judge: Judge<'_>,
        terms: Vec<Term<'_>>,
    ) -> Result<(Tensor<1>, Named)> {
        let total: f64 = terms.iter().map(|(_, weight, _)| weight).sum();
        let mut value: Option<Tensor<1>> = None;
        let mut values = Vec::with_capacity(terms.len());
        let mut gradients = Vec::with_capacity(terms.len());
        for (name, weight, function) in terms {
            let point = decoded.clone().detach().require_grad();
            let term = function(&Point::new(point.clone(), judge))?;
            let found = term.clone().detach();
            let weighted = found.clone() * weight;
            value = Some(match value {
                Some(value) => value + weighted,
                None => weighted,
            });
            values.push((name, found));
            // A term that ignores the sounds is not tracked.
            if weight > 0.0
                && term.is_tracked()
                && let Some(gradient) = point.grad(&term.backward())
            {
                gradients.push((name, weight, gradient));
            }
        }
        let value = value.unwrap_or_else(|| Tensor::zeros([1], &decoded.device()));
        let norms = gradients.iter();
        let norms = mean_norms(norms.map(|(_, _, gradient)| gradient.clone()).collect());
        let balanced = gradients.into_iter().zip(norms);
        let balanced = balanced.map(|((name, weight, gradient), norm)| {
            let norm = self.average(name, norm);
            gradient * (weight / (total * (norm + LEAST_NORM)))
        });
        let Some(whole) = balanced.reduce(|sum, gradient| sum + gradient) else {
            return Ok((value, values));
        };
        let product = (decoded * Tensor::from_inner(whole)).sum();
        Ok((product.clone() - product.detach() + value, values))
    }

    /// The moving average of the norms of a term with a new norm. The averages are divided by the
    /// sum of their weights, so that the first average is the first norm.
    fn average(&mut self, name: &str, norm: f64) -> f64 {
        // Training stops at a value that is not finite. It must not enter an average.
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

/// For each gradient of a batch, the norm of the gradient of a sound, averaged over the batch. All
/// are read from the device at once.
fn mean_norms(gradients: Vec<Tensor<3>>) -> Vec<f64> {
    if gradients.is_empty() {
        return vec![];
    }
    let norms = gradients.into_iter().map(|gradient| {
        let squares = (gradient.clone() * gradient).flatten::<2>(1, 2).sum_dim(1);
        squares.sqrt().mean()
    });
    let norms: Tensor<1> = Tensor::cat(norms.collect(), 0);
    norms.into_data().iter::<f32>().map(f64::from).collect()
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
                Box::new(|at: &Point<'_>| Ok(at.wave().narrow(2, 0, 1).sum() * 1e-4)),
            ),
            (
                "second",
                1.0,
                Box::new(|at: &Point<'_>| Ok(at.wave().narrow(2, 1, 1).sum() * 1e3)),
            ),
            (
                "constant",
                1.0,
                Box::new(|at: &Point<'_>| Ok(at.wave().detach().sum())),
            ),
            (
                "unused",
                0.0,
                Box::new(|at: &Point<'_>| Ok(at.wave().sum() * 7.0)),
            ),
        ];
        let (loss, found) = balancer.combine(x.clone(), &|_| vec![], terms).unwrap();
        let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["first", "second", "constant", "unused"]);
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
    fn the_first_average_is_the_first_norm() {
        let mut balancer = LossBalancer::default();
        assert_eq!(balancer.average("term", 4.0), 4.0);
        let second = balancer.average("term", 2.0);
        assert!((second - (0.999 * 4.0 + 2.0) / 1.999).abs() < 1e-12);
        assert_eq!(balancer.average("term", f64::NAN), 1.0);
    }
}
