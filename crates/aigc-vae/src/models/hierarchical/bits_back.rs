//! Bits-back coding with the model: latents in units of the prior.

use super::{HierarchicalVae, top_down::Source};
use crate::{
    Condition, Likelihood,
    compress::{ChooseLatents, GaussianLatents},
};
use aigc_core::Result;
use burn::tensor::{Device, Tensor, TensorData};

impl GaussianLatents for HierarchicalVae {
    fn encode_latents(&self, x: Tensor<4>, choose: &mut ChooseLatents<'_>) -> Result<()> {
        let features = self.features(x);
        let mut failed = None;
        let mut each = |mean: &[f32], log_var: &[f32]| match choose(mean, log_var) {
            Ok(noise) if failed.is_none() => noise,
            result => {
                failed = failed.take().or(result.err());
                vec![0.0; mean.len()]
            }
        };
        let source = Source::Chosen(&features, &mut each);
        self.top_down(1, &Condition::none(), source);
        failed.map_or(Ok(()), Err)
    }

    fn decode_latents(&self, latents: &[f32], device: &Device) -> Likelihood {
        let noise = TensorData::new(latents.to_vec(), [1, latents.len()]);
        let source = Source::Prior(Tensor::from_data(noise, device));
        let pass = self.top_down(1, &Condition::none(), source);
        self.likelihood(pass.hidden)
    }
}
