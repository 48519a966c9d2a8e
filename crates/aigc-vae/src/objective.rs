//! A step of training.

use crate::{KlWeight, Vae, elbo};
use aigc_core::{
    Error, Result,
    data::ImageBatch,
    train::{LossOutput, Objective, StepContext},
};
use std::marker::PhantomData;

/// Minimises `−E_q[log p(x|z)] + β·KL(q(z|x) ‖ p(z))` for any [`Vae`].
#[derive(Clone, Debug)]
pub struct VaeObjective<V> {
    /// The weight of the divergence.
    pub beta: KlWeight,
    model: PhantomData<V>,
}

impl<V> VaeObjective<V> {
    /// The objective with this weight of the divergence.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) if the weight is out of range.
    pub fn new(beta: KlWeight) -> Result<Self> {
        beta.validate()?;
        Ok(Self {
            beta,
            model: PhantomData,
        })
    }
}

/// Fails unless the images of `batch` are those `model` is made for.
pub(crate) fn same_shape<V: Vae>(model: &V, batch: &ImageBatch) -> Result<()> {
    if batch.shape() == model.sample_shape() {
        return Ok(());
    }
    Err(Error::config(
        "images",
        batch.shape(),
        format!("{}, for which the model is made", model.sample_shape()),
    ))
}

impl<V: Vae + 'static> Objective for VaeObjective<V> {
    type Model = V;
    type Batch = ImageBatch;

    fn losses(
        &mut self,
        model: &V,
        batch: &ImageBatch,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        same_shape(model, batch)?;
        let x = batch.to_tensor(&context.device);
        let posterior = model.encode(x.clone());
        let z = posterior.sample(&mut context.rng);
        let likelihood = model.decode(z);
        let bound = elbo(x, &posterior, &likelihood);
        let loss = bound.loss(self.beta.at_step(context.step));
        Ok(LossOutput::new(loss)
            .with_metric("reconstruction", -bound.log_likelihood.mean())
            .with_metric("kl", bound.kl.mean()))
    }
}
