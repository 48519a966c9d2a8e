//! Training of the text encoder and the denoising network.

use crate::autoencoder::{self, loader};
use aigc_core::{
    CancelToken,
    burn::tensor::{Device, Tensor},
    data::{
        CaptionedBatch, Dataset, Image,
        scenes::{self, Caption, CaptionedImage, Scenes, Split, detect, judge},
    },
    encoder::Autoencoder,
    output::{ImageGrid, save_image},
    train::{EmaConfig, LrSchedule, OptimizerConfig, TrainerConfig},
};
use aigc_diffusion::{
    BetaSchedule, ClassifierFreeGuidance, DiffusionObjective, DiffusionObjectiveConfig,
    DiffusionSampler, DpmMultistepScheduler, ForwardProcess, LossWeighting, NoiseScheduleConfig,
    PredictionType, SigmaScheduleFlags, UNet2dConditionConfig, UNet2dConditionModel,
    models::{CrossDownBlockType, CrossUpBlockType, PerBlock},
};
use aigc_encoders::{
    clip::{ClipTextConfig, HiddenAct},
    tokenizer::ClipTokenizer,
};
use aigc_examples::{RunOptions, after_training, outln, unless_stopped};
use aigc_pipelines::training::PromptDenoiser;
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
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Learning rate after warm-up.
    #[arg(long, default_value_t = 1e-3)]
    rate: f64,
    /// Held-out prompts of each evaluation in training.
    #[arg(long, default_value_t = 64)]
    prompts: usize,
    /// Steps between evaluations.
    #[arg(long, default_value_t = 2000)]
    eval_steps: usize,
    #[command(flatten)]
    run: RunOptions,
}

/// Name of the runs.
pub(crate) const NAME: &str = "paint";
/// Images in an epoch.
const EPOCH: usize = 1 << 20;
/// Tokens of a prompt.
const TOKENS: usize = 20;

pub(crate) type Painter = PromptDenoiser<UNet2dConditionModel>;

pub(crate) fn tokenizer() -> aigc_core::Result<ClipTokenizer> {
    ClipTokenizer::from_words(scenes::WORDS.iter().copied())?.with_max_length(TOKENS)
}

pub(crate) fn text_config(tokenizer: &ClipTokenizer) -> ClipTextConfig {
    ClipTextConfig {
        vocab_size: tokenizer.vocab_size(),
        hidden_size: 128,
        intermediate_size: 512,
        projection_dim: 128,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        max_position_embeddings: TOKENS,
        hidden_act: HiddenAct::QuickGelu,
        bos_token_id: Some(tokenizer.bos_token_id()),
        eos_token_id: tokenizer.eos_token_id(),
        pad_token_id: Some(tokenizer.pad_token_id()),
        ..ClipTextConfig::default()
    }
}

pub(crate) fn network_config() -> UNet2dConditionConfig {
    use {CrossDownBlockType::CrossAttnDownBlock2D, CrossUpBlockType::CrossAttnUpBlock2D};
    UNet2dConditionConfig {
        sample_size: Some(16.into()),
        down_block_types: vec![CrossAttnDownBlock2D; 2],
        up_block_types: vec![CrossAttnUpBlock2D; 2],
        block_out_channels: vec![64, 96],
        layers_per_block: 1,
        cross_attention_dim: 128,
        attention_head_dim: PerBlock::One(4),
        norm_num_groups: 16,
        ..UNet2dConditionConfig::default()
    }
}

fn noise() -> NoiseScheduleConfig {
    NoiseScheduleConfig {
        beta_start: 0.00085,
        beta_end: 0.012,
        beta_schedule: BetaSchedule::ScaledLinear,
        ..NoiseScheduleConfig::default()
    }
}

pub(crate) fn scheduler() -> DpmMultistepScheduler {
    DpmMultistepScheduler {
        noise: noise(),
        prediction_type: PredictionType::V,
        sigmas: SigmaScheduleFlags {
            use_karras_sigmas: true,
            ..SigmaScheduleFlags::default()
        },
        ..DpmMultistepScheduler::default()
    }
}

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

/// Images on the host, of `[batch, 3, 64, 64]` in `[0, 1]`.
pub(crate) fn to_images(x: &Tensor<4>) -> Vec<Image> {
    let values: Vec<f32> = x.to_data().iter::<f32>().collect();
    let image = |values: &[f32]| Image {
        shape: scenes::SHAPE,
        pixels: values.iter().map(|v| (v * 255.0).round() as u8).collect(),
        label: None,
    };
    values
        .chunks_exact(scenes::SHAPE.numel())
        .map(image)
        .collect()
}

/// Shares of right objects, right counts, and prompts that are right in every word.
pub(crate) fn relevance(captions: &[Caption], images: &[Image]) -> [f64; 3] {
    let (mut objects, mut right, mut counts, mut all) = (0, 0, 0, 0);
    for (caption, image) in captions.iter().zip(images) {
        let judged = judge(caption, &detect(image));
        objects += judged.objects;
        right += judged.right_objects;
        counts += usize::from(judged.counts);
        all += usize::from(judged.is_right());
    }
    let n = captions.len() as f64;
    [
        right as f64 / objects as f64,
        counts as f64 / n,
        all as f64 / n,
    ]
}

/// The first captions of the held-out split.
pub(crate) fn held_out(n: usize) -> aigc_core::Result<Vec<CaptionedImage>> {
    let scenes = Scenes::new(Split::HeldOut, n, 7);
    (0..n).map(|index| scenes.get(index)).collect()
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
        ..TrainerConfig::new(60_000)
    })?;
    let config = DiffusionObjectiveConfig {
        process: ForwardProcess::Discrete {
            noise: noise(),
            rescale_betas_zero_snr: false,
        },
        prediction: PredictionType::V,
        weighting: LossWeighting::MinSnr { gamma: 5.0 },
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
    let data = loader(Split::Train, EPOCH, options.batch, options.run.seed)?;
    let sampling = Sampling {
        tokenizer: &tokenizer,
        vae: &vae,
        device: &device,
        stop: &stop,
    };
    let items = held_out(options.prompts)?;
    let captions: Vec<Caption> = items.iter().map(|item| item.caption).collect();
    let prompts: Vec<String> = captions.iter().map(Caption::to_string).collect();
    let run = options.run.run(NAME)?;
    let trained = options
        .run
        .trainer(trainer, stop.clone(), 50)
        .with_evaluation(|model: &Painter| {
            unless_stopped(&stop, || {
                let images = sampling.sample(model, &prompts, 3.0, 20, 0)?;
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
                let images =
                    sampling.sample(model, &prompts[..32.min(prompts.len())], 3.0, 20, 0)?;
                save_image(
                    &images,
                    ImageGrid::new(8, 64),
                    &at.run.sample_path(at.step, "png"),
                )
            })
        })
        .fit(objective, model, &data, &run)?;
    after_training(trained, &run, &stop, |trained| {
        outln!("{:?}", trained.metrics);
        Ok(())
    })
}
