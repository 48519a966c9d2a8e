//! The losses of autoencoders.

use super::{Job, Losses, classes::Classes};
use crate::images::set::BATCH;
use aigc_core::{Error, Result, burn::tensor::Tensor, data::label_tensor};
use aigc_vae::{
    CodePrior, Condition, DiscreteVae, Likelihood, Posterior, PriorCondition, Vae, VaeOutput, VqVae,
};

impl Job<'_> {
    /// The negative ELBO of each image, at the most probable latents, so that it has no noise.
    pub(super) fn bounds<V: Vae>(&self, vae: &V) -> Result<Vec<Losses>> {
        let classes = vae.condition_kind().num_classes;
        let classes = classes.map(|count| Classes::numbered(count, self.known));
        let mut values = Vec::with_capacity(self.images.len());
        self.for_each(|x, rows| {
            let condition = match &classes {
                Some(classes) => Condition::classes(&classes.of(self.images, rows)?, self.device),
                None => Condition::none(),
            };
            let posterior = vae.encode_with(x.clone(), &condition);
            let z = posterior.mode();
            let likelihood = vae.decode_with(z.clone(), &condition);
            if matches!(likelihood, Likelihood::OptimalGaussian { .. }) {
                return Err(Error::unsupported(
                    "a loss for each image",
                    "the optimal Gaussian",
                    "its variance, and so the loss of an image, depends on the other images; train \
                     with another likelihood",
                ));
            }
            let output = VaeOutput {
                kl: vae.kl(&posterior, z.clone(), &condition),
                posterior,
                z,
                likelihood,
            };
            let terms = output.elbo(x);
            extend(&mut values, terms.kl - terms.log_likelihood);
            Ok(())
        })?;
        Ok(vec![Losses {
            values,
            name: "the negative ELBO at the posterior's mean, in nats".into(),
            part: None,
        }])
    }

    /// The error of the reconstruction of each image, and the cross-entropy of its codes under the
    /// prior. The second is what samples are drawn from.
    pub(super) fn codes(&self, vae: &VqVae, prior: &CodePrior) -> Result<Vec<Losses>> {
        let classes = prior.config().num_classes;
        let classes = classes.map(|count| Classes::numbered(count, self.known));
        let (mut errors, mut nats) = (Vec::new(), Vec::new());
        self.for_each(|x, rows| {
            let labels = classes.as_ref().map(|known| known.of(self.images, rows));
            let labels = labels.transpose()?;
            let condition = PriorCondition {
                class_labels: labels.map(|labels| label_tensor(&labels, self.device)),
                above: None,
            };
            let codes = vae.encode_codes(x.clone());
            let restored = vae.decode_codes(&codes).mean();
            let error = (restored - x).square().flatten::<2>(1, 3);
            extend(&mut errors, error.mean_dim(1).squeeze_dim::<1>(1));
            for codes in codes {
                extend(&mut nats, -prior.log_prob(codes, &condition));
            }
            Ok(())
        })?;
        Ok(vec![
            Losses {
                values: errors,
                name: "the mean squared error of the reconstruction".into(),
                part: None,
            },
            Losses {
                values: nats,
                name: "the cross-entropy of the codes under the prior, in nats".into(),
                part: Some("the prior"),
            },
        ])
    }

    /// Calls `work` with the images of each batch and their rows.
    fn for_each(&self, mut work: impl FnMut(Tensor<4>, &[usize]) -> Result<()>) -> Result<()> {
        let rows: Vec<usize> = (0..self.images.len()).collect();
        for rows in rows.chunks(BATCH) {
            work(self.images.tensor(rows, self.device), rows)?;
            self.progress.add(rows.len())?;
        }
        Ok(())
    }
}

/// Adds the losses of a batch.
fn extend(all: &mut Vec<f64>, losses: Tensor<1>) {
    all.extend(losses.to_data().iter::<f64>());
}
