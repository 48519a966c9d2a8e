//! The codes of a model with quantised latents, and the training of a prior over them.

use crate::{Images, RunOptions, fingerprint::Fnv, outln, unless_stopped};
use aigc_core::{
    CancelToken, Error, Result,
    burn::tensor::Device,
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig, InMemory},
    train::{StartFrom, StopReason, TrainOutput, TrainerConfig},
};
use aigc_vae::{
    CodeBatch, CodePrior, CodePriorConfig, CodePriorObjective, CodeSample, CodeShape, CodeUsage,
    DiscreteVae, VqVae, collate_codes, encode_dataset, evaluate_codes,
};
use serde::{Deserialize, Serialize};
use std::{
    f64::consts::LN_2,
    path::{Path, PathBuf},
};

/// The codes of images under a model with one map of codes.
#[derive(Debug)]
pub struct Codes {
    /// The codes, in batches.
    pub loader: DataLoader<CodeBatch>,
    /// How often each code occurs.
    pub usage: CodeUsage,
    /// The codes of an image.
    pub shape: CodeShape,
    fingerprint: String,
}

impl Codes {
    /// The codes of the training images, in shuffled batches.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if `stop` is cancelled; errors of reading.
    pub fn of_training(
        vae: &VqVae,
        images: &Images,
        batch_size: usize,
        seed: u64,
        device: &Device,
        stop: &CancelToken,
    ) -> Result<Self> {
        let samples =
            images.read_training("codes", stop, |train| encode_dataset(vae, train, device))?;
        Self::new(vae, samples, batch_size, Some(seed))
    }

    /// The codes of the held-out images, in order.
    ///
    /// # Errors
    /// As [`of_training`](Self::of_training).
    pub fn of_held_out(
        vae: &VqVae,
        images: &Images,
        device: &Device,
        stop: &CancelToken,
    ) -> Result<Self> {
        let samples = images.evaluate(stop, |held_out| encode_dataset(vae, held_out, device))?;
        Self::new(vae, samples, 256, None)
    }

    fn new(
        vae: &VqVae,
        samples: InMemory<CodeSample>,
        batch_size: usize,
        shuffle_seed: Option<u64>,
    ) -> Result<Self> {
        let shape = vae.code_shapes()[0];
        let mut usage = CodeUsage::new(shape.codebooks, shape.num_codes)?;
        let mut hash = Fnv::new();
        for sample in &samples.0 {
            let codes: Vec<i64> = sample.levels[0].iter().copied().map(i64::from).collect();
            usage.add_indices(&codes)?;
            for code in &sample.levels[0] {
                hash.write(&code.to_le_bytes());
            }
        }
        let config = DataLoaderConfig {
            batch_size,
            shuffle_seed,
            num_workers: 0,
            ..DataLoaderConfig::default()
        };
        Ok(Self {
            loader: DataLoader::new(samples, collate_codes, config)?,
            usage,
            shape,
            fingerprint: hash.finish(),
        })
    }

    /// Bits per image if all codes were equally probable.
    pub fn uniform_bits(&self) -> f64 {
        self.shape.max_entropy() / LN_2
    }

    /// Mean number of bits that the codes of an image need under a prior.
    ///
    /// # Errors
    /// [`Error::Config`] if the codes are not those of the prior.
    pub fn bits(&self, prior: &CodePrior, device: &Device) -> Result<f64> {
        let metrics = evaluate_codes(prior, 0, &self.loader, device)?;
        let nll = metrics.iter().find(|(name, _)| name == "nll");
        Ok(nll.map_or(f64::NAN, |(_, nats)| nats / LN_2))
    }
}

/// Training of a prior over codes.
#[derive(Debug)]
pub struct PriorTraining<'a> {
    /// Lengths and intervals of the command line.
    pub options: &'a RunOptions,
    /// The prior.
    pub model: CodePriorConfig,
    /// Training without those options.
    pub trainer: TrainerConfig,
    /// The device.
    pub device: &'a Device,
    /// Stops training.
    pub stop: &'a CancelToken,
}

/// The codes in the `config.json` of the run of a prior.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CodesConfig {
    fingerprint: String,
}

/// The part of such a `config.json` that is read.
#[derive(Deserialize)]
struct PriorRun {
    data: CodesConfig,
}

impl PriorTraining<'_> {
    /// Directory of the prior of the model of `run`.
    pub fn dir(run: &RunDir) -> PathBuf {
        run.path().join("prior")
    }

    /// Trains a prior over the codes `train` in a directory of `run`, evaluated with the codes
    /// `held_out`. Training that was interrupted continues; if the codes have changed since, the
    /// prior is trained anew.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if training was interrupted; errors of training.
    pub fn fit(
        &self,
        train: &Codes,
        held_out: &Codes,
        run: &RunDir,
    ) -> Result<TrainOutput<CodePrior>> {
        let codes = CodesConfig {
            fingerprint: train.fingerprint.clone(),
        };
        let config = self.options.config(self.trainer.clone())?;
        let model = self.model.init(self.device)?;
        let (run, start) = open(&Self::dir(run), &codes)?;
        outln!("prior over the codes, in {}", run.path().display());
        let trained = self
            .options
            .trainer(config, self.stop.clone(), 10)
            .with_start(start)
            .with_model_config(&self.model)?
            .with_data_config(&codes)?
            .with_evaluation(|prior: &CodePrior| {
                unless_stopped(self.stop, || {
                    evaluate_codes(prior, 0, &held_out.loader, self.device)
                })
            })
            .fit(CodePriorObjective::new(0), model, &train.loader, &run)?;
        if trained.stop_reason == StopReason::Interrupted || self.stop.is_cancelled() {
            return Err(Error::cancelled("training of the prior"));
        }
        Ok(trained)
    }
}

/// The first of `dir-old-1`, `dir-old-2`, … that does not exist.
fn unused(dir: &Path) -> PathBuf {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let numbered = |n: usize| dir.with_file_name(format!("{name}-old-{n}"));
    let mut free = (1..).map(numbered).filter(|path| !path.exists());
    free.next().expect("numbers do not end")
}

/// The run of a prior over `codes` in `dir`, and whether it is resumed.
fn open(dir: &Path, codes: &CodesConfig) -> Result<(RunDir, StartFrom)> {
    if dir.join("config.json").is_file() {
        let run = RunDir::open(dir)?;
        if run.config::<PriorRun>()?.data == *codes {
            return Ok((run, StartFrom::Resume));
        }
        let old = unused(dir);
        outln!(
            "the codes have changed: the prior in {} is trained anew; the old one is in {}",
            dir.display(),
            old.display()
        );
        std::fs::rename(dir, &old).map_err(Error::io(dir))?;
    }
    Ok((RunDir::create(dir)?, StartFrom::Fresh))
}
