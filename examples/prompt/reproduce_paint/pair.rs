//! Training of a pair of encoders that finds the caption of an image.

use crate::model::{EPOCH, text_config, tokenizer};
use aigc_core::{
    CancelToken,
    burn::tensor::{Device, Int, Tensor},
    data::{
        CaptionedBatch, DataLoader, DataLoaderConfig, SampleBatch, collate_captioned,
        scenes::{CaptionedImage, SHAPE, Scenes, Split},
    },
    train::{LrSchedule, OptimizerConfig, TrainerConfig},
};
use aigc_encoders::{
    clip::{
        CaptionedImages, ClipConfig, ClipModel, ClipTextConfig, ClipVisionConfig,
        ContrastiveObjective, HiddenAct, retrieval_accuracy,
    },
    tokenizer::{ClipTokenizer, TokenBatch},
};
use aigc_examples::{RunOptions, after_training, outln, unless_stopped};
use clap::Args;

/// Options of `pair`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Batch size; all other captions of a batch are wrong ones.
    #[arg(long, default_value_t = 128)]
    batch: usize,
    /// Learning rate after warm-up.
    #[arg(long, default_value_t = 1e-3)]
    rate: f64,
    /// Held-out images for the final figure.
    #[arg(long, default_value_t = 10_000)]
    images: usize,
    #[command(flatten)]
    run: RunOptions,
}

/// Name of the runs.
const NAME: &str = "paint-pair";
/// Width of the space that both encoders share.
const PROJECTION: usize = 64;

/// Images and the tokens of their captions.
#[derive(Debug)]
struct Pairs {
    images: CaptionedBatch,
    tokens: TokenBatch,
}

impl CaptionedImages for Pairs {
    fn pixel_values(&self, device: &Device) -> Tensor<4> {
        self.images.to_tensor(device) * 2.0 - 1.0
    }

    fn input_ids(&self, device: &Device) -> Tensor<2, Int> {
        self.tokens.input_ids(device)
    }
}

fn config(tokenizer: &ClipTokenizer) -> ClipConfig {
    ClipConfig {
        text_config: ClipTextConfig {
            projection_dim: PROJECTION,
            ..text_config(tokenizer)
        },
        vision_config: ClipVisionConfig {
            hidden_size: 128,
            intermediate_size: 256,
            projection_dim: PROJECTION,
            num_hidden_layers: 3,
            num_attention_heads: 4,
            num_channels: SHAPE.channels,
            image_size: SHAPE.height,
            patch_size: 8,
            hidden_act: HiddenAct::QuickGelu,
            ..ClipVisionConfig::default()
        },
        projection_dim: PROJECTION,
        ..ClipConfig::default()
    }
}

fn loader(
    split: Split,
    len: usize,
    batch: usize,
    seed: u64,
    tokenizer: &ClipTokenizer,
) -> aigc_core::Result<DataLoader<Pairs>> {
    let tokenizer = tokenizer.clone();
    let collate = move |items: Vec<CaptionedImage>| {
        let images = collate_captioned(items);
        let captions: Vec<&str> = images.captions.iter().map(String::as_str).collect();
        let tokens = tokenizer
            .encode_padded(&captions)
            .expect("words of the vocabulary");
        Pairs { images, tokens }
    };
    let config = DataLoaderConfig {
        batch_size: batch,
        ..DataLoaderConfig::default()
    };
    DataLoader::new(Scenes::new(split, len, seed), collate, config)
}

pub(crate) fn run(options: &Options, stop: CancelToken) -> anyhow::Result<()> {
    let device = options.run.device()?;
    let tokenizer = tokenizer()?;
    let config = config(&tokenizer);
    let trainer = options.run.config(TrainerConfig {
        seed: options.run.seed,
        learning_rate: options.rate,
        lr_schedule: LrSchedule::cosine(200),
        optimizer: OptimizerConfig::adam_w(0.9, 0.98, 0.1),
        max_grad_norm: Some(1.0),
        eval_steps: 500,
        save_steps: 500,
        ..TrainerConfig::new(3_000)
    })?;
    let (batch, seed) = (options.batch, options.run.seed);
    let data = loader(Split::Train, EPOCH, batch, seed, &tokenizer)?;
    let accuracy = |model: &ClipModel, images: usize, seed: u64| {
        let held_out = loader(Split::HeldOut, images, 100, seed, &tokenizer)?;
        retrieval_accuracy(model, held_out.iter_once(), 100)
    };
    let run = options.run.run(NAME)?;
    let trained = options
        .run
        .trainer(trainer, stop.clone(), 50)
        .with_model_config(&config)?
        .with_evaluation(|model: &ClipModel| {
            unless_stopped(&stop, || {
                let found = accuracy(model, 1_000, 1)?;
                Ok(vec![
                    ("caption".into(), found.caption),
                    ("image".into(), found.image),
                ])
            })
        })
        .fit(
            ContrastiveObjective::<Pairs>::new(),
            config.init(&device)?,
            &data,
            &run,
        )?;
    after_training(trained, &run, &stop, |trained| {
        let found = accuracy(&trained.model, options.images, 2)?;
        let dir = run.path().join("clip");
        trained.model.save_pretrained(&dir)?;
        tokenizer.save_pretrained(&dir)?;
        outln!(
            "of {} held-out images, {:.2} % find their caption among 100, and {:.2} % of the \
             captions their image; the pair is in {}",
            found.pairs,
            100.0 * found.caption,
            100.0 * found.image,
            dir.display()
        );
        Ok(())
    })
}
