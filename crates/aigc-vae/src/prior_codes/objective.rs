//! Training and evaluation of priors over codes.

use super::{CodeBatch, CodePrior};
use aigc_core::{
    Result,
    data::DataLoader,
    train::{LossOutput, Metrics, Objective, StepContext},
};
use burn::tensor::Device;
use std::f64::consts::LN_2;

/// Minimises the cross-entropy of a [`CodePrior`] over the codes of a level, `−log p(c)`, as the
/// mean over the codes of a sample.
///
/// The metrics are `nll`, the cross-entropy of a sample in nats, and `bits_per_code`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CodePriorObjective {
    level: usize,
}

impl CodePriorObjective {
    /// An objective for the codes of `level`; 0 is the coarsest.
    pub fn new(level: usize) -> Self {
        Self { level }
    }
}

impl Objective for CodePriorObjective {
    type Model = CodePrior;
    type Batch = CodeBatch;

    fn losses(
        &mut self,
        model: &CodePrior,
        batch: &CodeBatch,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        let (config, device) = (model.config(), &context.device);
        let codes = batch.codes(self.level, config.codes, device)?;
        let condition = batch.condition(self.level, config, device)?;
        let nll = -model.log_prob_unchecked(codes, &condition).mean();
        let loss = nll.clone() / config.codes.num_indices() as f64;
        Ok(LossOutput::new(loss.clone())
            .with_metric("nll", nll)
            .with_metric("bits_per_code", loss / LN_2))
    }
}

/// Evaluates a prior over the codes of `level` on every sample of `loader`.
///
/// Returns `nll`, the mean cross-entropy `−log p(c)` of a sample in nats, and `bits_per_code`. The
/// sum of the `nll` of all levels, divided by `ln 2`, is the number of bits per sample.
///
/// # Errors
/// If a sample cannot be read, or its codes are not those of the prior.
pub fn evaluate_codes(
    model: &CodePrior,
    level: usize,
    loader: &DataLoader<CodeBatch>,
    device: &Device,
) -> Result<Metrics> {
    let config = model.config();
    let (mut nats, mut samples) = (0.0, 0.0);
    for batch in loader.iter_once() {
        let batch = batch?;
        let codes = batch.codes(level, config.codes, device)?;
        let condition = batch.condition(level, config, device)?;
        let log_prob = model.log_prob_unchecked(codes, &condition);
        nats -= log_prob.into_data().iter::<f64>().sum::<f64>();
        samples += batch.len() as f64;
    }
    let nll = nats / samples;
    let bits = nll / (config.codes.num_indices() as f64 * LN_2);
    Ok(vec![
        ("nll".to_string(), nll),
        ("bits_per_code".to_string(), bits),
    ])
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{CodePriorConfig, CodeSample, CodeShape, PriorCondition, collate_codes};
    use aigc_core::{
        data::{DataLoaderConfig, InMemory, label_tensor},
        testing::{temp_run, values},
        train::{Trainer, TrainerConfig},
    };
    use burn::tensor::{Int, Tensor, TensorData};

    const TOP: CodeShape = CodeShape {
        height: 1,
        width: 1,
        codebooks: 1,
        num_codes: 3,
    };
    const BOTTOM: CodeShape = CodeShape {
        height: 2,
        width: 2,
        codebooks: 1,
        num_codes: 4,
    };

    /// The top code is one of 3, drawn equally often; the bottom codes are determined by the top
    /// code and the class.
    fn bottom(top: u32, label: u32) -> Vec<u32> {
        (0..4).map(|at| (top + at * (1 + 2 * label)) % 4).collect()
    }

    fn loader() -> DataLoader<CodeBatch> {
        let sample = |index: u32| CodeSample {
            levels: vec![vec![index % 3], bottom(index % 3, index / 3 % 2)],
            label: Some(index / 3 % 2),
        };
        let config = DataLoaderConfig {
            batch_size: 24,
            num_workers: 0,
            ..DataLoaderConfig::default()
        };
        let samples = InMemory((0..48).map(sample).collect());
        DataLoader::new(samples, collate_codes, config).unwrap()
    }

    fn train(config: CodePriorConfig, level: usize, steps: usize) -> CodePrior {
        let config = CodePriorConfig {
            d_model: 32,
            n_layer: 2,
            n_head: 2,
            dropout: 0.0,
            above_blocks: 1,
            ..config
        };
        let model = config.init(&Device::flex()).unwrap();
        let run = temp_run().unwrap();
        let trainer = Trainer::new(TrainerConfig {
            learning_rate: 5e-3,
            ..TrainerConfig::new(steps)
        });
        let objective = CodePriorObjective::new(level);
        trainer
            .fit(objective, model, &loader(), &run)
            .unwrap()
            .model
    }

    fn nll(model: &CodePrior, level: usize) -> f64 {
        let metrics = evaluate_codes(model, level, &loader(), &Device::flex()).unwrap();
        assert_eq!(metrics[0].0, "nll");
        let n = model.config().codes.num_indices() as f64;
        assert!((metrics[1].1 * n * LN_2 - metrics[0].1).abs() < 1e-9);
        metrics[0].1
    }

    /// The cross-entropy approaches the entropy of the data: `ln 3` of the top codes, and 0 of the
    /// bottom codes under both conditions.
    #[test]
    fn priors_reach_the_entropy_of_the_codes() {
        let device = Device::flex();
        let top = train(CodePriorConfig::new(TOP), 0, 60);
        assert!((nll(&top, 0) - 3f64.ln()).abs() < 0.02, "{}", nll(&top, 0));

        let config = CodePriorConfig {
            above: Some(TOP),
            num_classes: Some(2),
            ..CodePriorConfig::new(BOTTOM)
        };
        let conditional = train(config, 1, 150);
        let found = nll(&conditional, 1);
        assert!(found < 0.1, "{found}");
        // The most probable codes are those of the condition.
        let condition = PriorCondition {
            class_labels: Some(label_tensor(&[0, 1], &device)),
            above: Some(Tensor::from_data(
                TensorData::new(vec![2, 1], [2, 1, 1]),
                &device,
            )),
        };
        let codes = [bottom(2, 0), bottom(1, 1)].concat();
        let codes: Vec<i32> = codes.into_iter().map(|code| code as i32).collect();
        let codes = Tensor::<3, Int>::from_data(TensorData::new(codes, [2, 4, 1]), &device);
        let nats = values(conditional.log_prob(codes, &condition));
        assert!(nats.iter().all(|nats| *nats > -0.3), "{nats:?}");

        // Without conditions, the 6 sequences are equally probable.
        let plain = train(CodePriorConfig::new(BOTTOM), 1, 300);
        let found = nll(&plain, 1);
        assert!(found > 5f64.ln() && found < 6f64.ln() + 0.2, "{found}");
    }

    #[test]
    fn codes_of_another_shape_are_named() {
        let device = Device::flex();
        let model = CodePriorConfig::new(TOP).init(&device).unwrap();
        let error = evaluate_codes(&model, 1, &loader(), &device).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("`codes` is 4, expected 1 codes of a sample"),
            "{message}"
        );
    }
}
