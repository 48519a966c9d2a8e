//! Training of the text encoder and the denoising network.

use crate::{
    autoencoder::{self, loader},
    model::{
        EPOCH, GUIDANCE, LAYOUT, Painter, STEPS, network_config, noise, save, scheduler,
        text_config, tokenizer,
    },
    relevance::{held_out, relevance, to_images},
};
use aigc_core::{
    CancelToken,
    burn::tensor::{Device, Tensor},
    data::{
        CaptionedBatch,
        scenes::{Caption, Split},
    },
    encoder::Autoencoder,
    output::{ImageGrid, save_image},
    train::{EmaConfig, LrSchedule, OptimizerConfig, TrainerConfig},
};
use aigc_diffusion::{
    ClassifierFreeGuidance, DiffusionObjective, DiffusionObjectiveConfig, DiffusionSampler,
    ForwardProcess, PredictionType,
};
use aigc_encoders::tokenizer::ClipTokenizer;
use aigc_examples::{RunOptions, after_training, outln, unless_stopped};
use aigc_vae::AutoencoderKl;
use clap::Args;
use std::path::PathBuf;

/// Options of `painter`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Directory of the autoencoder; by default that of the newest run of `autoencoder`.
    #[arg(long)]
    vae: Option<PathBuf>,
    /// Batch size.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Learning rate after warm-up.
    #[arg(long, default_value_t = 1e-3)]
    rate: f64,
    /// Held-out prompts of each evaluation in training.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    prompts: u32,
    /// Steps between evaluations.
    #[arg(long, default_value_t = 2000)]
    eval_steps: usize,
    #[command(flatten)]
    run: RunOptions,
}

/// Name of the runs.
pub(crate) const NAME: &str = "paint";
/// What sampling needs besides the network.
pub(crate) struct Sampling<'a> {
    pub(crate) tokenizer: &'a ClipTokenizer,
    pub(crate) vae: &'a AutoencoderKl,
    pub(crate) device: &'a Device,
    pub(crate) stop: &'a CancelToken,
}

impl Sampling<'_> {
    /// Images of prompts, `[prompts, 3, 64, 64]`; the first `prompts` that were finished.
    pub(crate) fn sample(
        &self,
        model: &Painter,
        prompts: &[String],
        guidance: f64,
        steps: usize,
        seed: u64,
    ) -> aigc_core::Result<Tensor<4>> {
        let embed = |prompts: &[&str]| -> aigc_core::Result<Tensor<3>> {
            let ids = self
                .tokenizer
                .encode_padded(prompts)?
                .input_ids(self.device);
            Ok(model.text_encoder.forward(ids, None).last_hidden_state)
        };
        let texts: Vec<&str> = prompts.iter().map(String::as_str).collect();
        let (embeds, null) = (embed(&texts)?, embed(&vec![""; prompts.len()])?);
        let shape = Autoencoder::latent_shape(self.vae);
        let sampler =
            DiffusionSampler::new(&model.network, &scheduler(), steps, shape, self.device)?
                .with_prompt_embeds(embeds, Some(null))
                .with_guidance(ClassifierFreeGuidance::new(guidance))
                .with_autoencoder(self.vae, 1.0)
                .with_batch_size(64)
                .with_cancel(self.stop.clone());
        aigc_examples::complete(sampler.sample(prompts.len(), seed)?).map(|samples| samples.values)
    }
}

pub(crate) fn open_vae(dir: Option<&PathBuf>, device: &Device) -> anyhow::Result<AutoencoderKl> {
    let dir = match dir {
        Some(dir) => dir.clone(),
        None => {
            let runs = std::path::Path::new("runs").join(autoencoder::NAME);
            aigc_core::checkpoint::RunDir::open_latest(runs)?
                .path()
                .join("vae")
        }
    };
    Ok(AutoencoderKl::from_pretrained(dir, device)?.into_inner())
}

pub(crate) fn run(options: &Options, stop: CancelToken) -> anyhow::Result<()> {
    let device = options.run.device()?;
    let vae = open_vae(options.vae.as_ref(), &device)?;
    let tokenizer = tokenizer()?;
    let (text, network) = (text_config(&tokenizer), network_config());
    let model = Painter::new(text.init(&device)?, network.init(&device)?);
    outln!(
        "{} parameters",
        aigc_core::burn::module::Module::num_params(&model)
    );
    let trainer = options.run.config(TrainerConfig {
        seed: options.run.seed,
        learning_rate: options.rate,
        lr_schedule: LrSchedule::cosine(500),
        optimizer: OptimizerConfig::adam(0.9, 0.99),
        max_grad_norm: Some(1.0),
        ema: Some(EmaConfig::new(0.9995)),
        eval_steps: options.eval_steps,
        preview_steps: options.eval_steps,
        save_steps: 1000,
        ..TrainerConfig::new(15_000)
    })?;
    let config = DiffusionObjectiveConfig {
        process: ForwardProcess::Discrete {
            noise: noise(),
            rescale_betas_zero_snr: false,
        },
        prediction: PredictionType::V,
        conditioning_dropout: 0.1,
        ..DiffusionObjectiveConfig::default()
    };
    let ids = |tokenizer: &ClipTokenizer, prompts: &[&str]| {
        tokenizer.encode_padded(prompts).map(|batch| batch.ids)
    };
    let null = ids(&tokenizer, &[""])?.remove(0);
    let words = tokenizer.clone();
    let objective = DiffusionObjective::<Painter, CaptionedBatch>::new(config, &model)?
        .with_autoencoder(vae.clone(), 1.0)?
        .with_input_ids(
            move |batch: &CaptionedBatch| {
                let prompts: Vec<&str> = batch.captions.iter().map(String::as_str).collect();
                ids(&words, &prompts)
            },
            null,
        );
    let (batch, seed) = (options.batch as usize, options.run.seed);
    let data = loader(Split::Train, LAYOUT, EPOCH, batch, seed)?;
    let sampling = Sampling {
        tokenizer: &tokenizer,
        vae: &vae,
        device: &device,
        stop: &stop,
    };
    let items = held_out(options.prompts as usize)?;
    let captions: Vec<Caption> = items.iter().map(|item| item.caption).collect();
    let prompts: Vec<String> = captions.iter().map(Caption::to_string).collect();
    let run = options.run.run(NAME)?;
    let trained = options
        .run
        .trainer(trainer, stop.clone(), 50)
        .with_evaluation(|model: &Painter| {
            unless_stopped(&stop, || {
                let images = sampling.sample(model, &prompts, GUIDANCE, STEPS, 0)?;
                let [objects, counts, all] = relevance(&captions, &to_images(&images));
                Ok(vec![
                    ("objects".into(), objects),
                    ("counts".into(), counts),
                    ("prompts".into(), all),
                ])
            })
        })
        .with_preview(|model: &Painter, at| {
            unless_stopped(&stop, || {
                let images = sampling.sample(
                    model,
                    &prompts[..32.min(prompts.len())],
                    GUIDANCE,
                    STEPS,
                    0,
                )?;
                save_image(
                    &images,
                    ImageGrid::new(8, 64),
                    &at.run.sample_path(at.step, "png"),
                )
            })
        })
        .fit(objective, model, &data, &run)?;
    after_training(trained, &run, &stop, |trained| {
        let dir = run.path().join("model");
        save(&trained.model, &tokenizer, &vae, &dir, &device)?;
        outln!("the model is in {}", dir.display());
        Ok(())
    })
}
