//! The loss of diffusion models.

use super::{Job, Losses, classes::Classes};
use crate::images::set::BATCH;
use aigc_core::{
    Result,
    burn::tensor::{Tensor, TensorData},
    data::{ValueRange, label_tensor},
    rng::Rng,
};
use aigc_diffusion::{Conditioning, Denoiser, Pipeline, Scheduler};

/// Steps of the plan whose noise levels a loss is a mean over.
const STEPS: usize = 8;

impl Job<'_> {
    /// The error of the predicted noise, averaged over the levels of a plan (the loss that Carlini
    /// et al. 2023, <https://arxiv.org/abs/2301.13188>, section 5.1, compare); none for a network
    /// with other conditions than classes.
    pub(super) fn denoising(&self, pipeline: &Pipeline) -> Result<Option<Vec<Losses>>> {
        let network = &pipeline.network;
        let has_others = network.needs_from_pipeline().is_some()
            || network.takes_input_ids()
            || network.extra_input_channels() > 0
            || network.cross_attention_dim().is_some()
            || network.class_embedding_dim().is_some();
        if has_others {
            return Ok(None);
        }
        let classes = Classes::of_pipeline(pipeline, self.known);
        let plan = pipeline.scheduler.plan(STEPS)?;
        let pixels = self.images.shape().numel();
        let rows: Vec<usize> = (0..self.images.len()).collect();
        let mut values = Vec::with_capacity(rows.len());
        for rows in rows.chunks(BATCH) {
            let x0 = ValueRange::Unit.normalize(self.images.tensor(rows, self.device));
            let labels = classes.as_ref().map(|known| known.of(self.images, rows));
            let labels = labels.transpose()?;
            let condition = Conditioning {
                class_labels: labels.map(|labels| label_tensor(&labels, self.device)),
                ..Conditioning::default()
            };
            let mut draws: Vec<Rng> = rows
                .iter()
                .map(|row| Rng::stream(0, "denoising", *row as u64))
                .collect();
            let mut sums = vec![0.0; rows.len()];
            for call in &plan.calls {
                self.progress.add(0)?;
                let noise: Vec<f32> = draws
                    .iter_mut()
                    .flat_map(|rng| rng.normal_vec(pixels))
                    .collect();
                let noise = TensorData::new(noise, x0.dims());
                let noise = Tensor::<4>::from_data(noise, self.device);
                let x = x0.clone() * call.level.alpha + noise.clone() * call.level.sigma;
                let time = Tensor::full([rows.len()], call.time, self.device);
                let input = x.clone() * call.input_scale;
                let channels = x.dims()[1];
                // A variance may be beside the prediction.
                let output = network.predict(input, time, &condition);
                let output = output.narrow(1, 0, channels);
                let (of_sample, of_output) = call.coefficients.epsilon;
                let error = x * of_sample + output * of_output - noise;
                let errors = error.square().flatten::<2>(1, 3).mean_dim(1).to_data();
                for (sum, error) in sums.iter_mut().zip(errors.iter::<f64>()) {
                    *sum += error / plan.len() as f64;
                }
            }
            values.extend(sums);
            self.progress.add(rows.len())?;
        }
        Ok(Some(vec![Losses {
            values,
            name: format!(
                "the mean squared error of the predicted noise at the levels of a sampler of \
                 {STEPS} steps, with the same noise for both sets"
            ),
            part: None,
        }]))
    }
}
