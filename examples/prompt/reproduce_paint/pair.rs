//! Training of a pair of encoders that finds the caption of an image.

use crate::model::{EPOCH, LAYOUT, text_config, tokenizer};
use aigc_core::{
    CancelToken, Error,
    burn::tensor::{Device, Int, Tensor},
    data::{
        CaptionedBatch, DataLoader, DataLoaderConfig, Dataset, SampleBatch, collate_captioned,
        scenes::{CaptionedImage, SHAPE, Scene, Scenes, Split, render},
    },
    rng::Rng,
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
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Scenes of a batch with shapes of the same kinds, so that their captions differ in numbers,
    /// sizes, relation and background only.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    same_kinds: u32,
    /// Learning rate after warm-up.
    #[arg(long, default_value_t = 1e-3)]
    rate: f64,
    /// Held-out images for the final figure; evaluations in training have at most 1,000.
    #[arg(
        long, default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(CANDIDATES as i64..)
    )]
    images: u32,
    #[command(flatten)]
    run: RunOptions,
}

/// Name of the runs.
const NAME: &str = "paint-pair";
/// Width of the space that both encoders share.
const PROJECTION: usize = 64;
/// Captions among which an image finds its own.
const CANDIDATES: usize = 100;

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

/// Sets of scenes whose captions differ in numbers, sizes, relation, background and order of the
/// groups, but not in the kinds of their shapes. Captions with other kinds are soon told apart, and
/// few captions of a random batch have the same.
struct SameKinds {
    scenes: Scenes,
    /// Scenes in a set.
    count: usize,
    seed: u64,
}

impl Dataset for SameKinds {
    type Item = Vec<CaptionedImage>;

    fn len(&self) -> usize {
        self.scenes.len() / self.count
    }

    fn get(&self, index: usize) -> aigc_core::Result<Self::Item> {
        self.get_in_epoch(index, 0)
    }

    fn get_in_epoch(&self, index: usize, epoch: usize) -> aigc_core::Result<Self::Item> {
        let mut items = (0..self.count)
            .map(|k| self.scenes.get_in_epoch(self.count * index + k, epoch))
            .collect::<aigc_core::Result<Vec<_>>>()?;
        let kinds = items.iter().find_map(|item| {
            let (_, second) = item.caption.second?;
            let first = item.caption.first;
            Some([first, second].map(|group| (group.color, group.shape)))
        });
        let Some(kinds) = kinds else {
            return Ok(items);
        };
        let number = (epoch * self.len() + index) as u64;
        let mut rng = Rng::stream(self.seed, "scenes of the same kinds", number);
        for CaptionedImage { image, caption } in &mut items {
            let mut kinds = kinds;
            if rng.random_index(2) == 0 {
                kinds.reverse();
            }
            (caption.first.color, caption.first.shape) = kinds[0];
            if let Some((_, second)) = &mut caption.second {
                (second.color, second.shape) = kinds[1];
            }
            let scene = Scene::random(caption, LAYOUT, &mut rng);
            *image = render(&scene.expect("rows have places for all shapes"));
        }
        Ok(items)
    }
}

fn collate(items: Vec<CaptionedImage>, tokenizer: &ClipTokenizer) -> Pairs {
    let images = collate_captioned(items);
    let captions: Vec<&str> = images.captions.iter().map(String::as_str).collect();
    let tokens = tokenizer
        .encode_padded(&captions)
        .expect("words of the vocabulary");
    Pairs { images, tokens }
}

/// Batches of sets of `same_kinds` training scenes.
fn training_loader(
    options: &Options,
    tokenizer: &ClipTokenizer,
) -> aigc_core::Result<DataLoader<Pairs>> {
    let (batch, count) = (options.batch as usize, options.same_kinds as usize);
    if !batch.is_multiple_of(count) {
        let expected = format!("a divisor of the batch size {batch}");
        return Err(Error::argument("--same-kinds", count, expected));
    }
    let seed = options.run.seed;
    let sets = SameKinds {
        scenes: Scenes::new(Split::Train, EPOCH, seed).with_layout(LAYOUT),
        count,
        seed,
    };
    let tokenizer = tokenizer.clone();
    let config = DataLoaderConfig {
        batch_size: batch / count,
        ..DataLoaderConfig::default()
    };
    let collate = move |sets: Vec<_>| collate(sets.into_iter().flatten().collect(), &tokenizer);
    DataLoader::new(sets, collate, config)
}

/// Batches of a hundred held-out scenes.
fn held_out_loader(
    len: usize,
    seed: u64,
    tokenizer: &ClipTokenizer,
) -> aigc_core::Result<DataLoader<Pairs>> {
    let tokenizer = tokenizer.clone();
    let config = DataLoaderConfig {
        batch_size: CANDIDATES,
        ..DataLoaderConfig::default()
    };
    let scenes = Scenes::new(Split::HeldOut, len, seed).with_layout(LAYOUT);
    DataLoader::new(scenes, move |items| collate(items, &tokenizer), config)
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
        ..TrainerConfig::new(6_000)
    })?;
    let data = training_loader(options, &tokenizer)?;
    let images = options.images as usize;
    let accuracy = |model: &ClipModel, images: usize, seed: u64| {
        let held_out = held_out_loader(images, seed, &tokenizer)?;
        retrieval_accuracy(model, held_out.iter_once(), CANDIDATES)
    };
    let run = options.run.run(NAME)?;
    let trained = options
        .run
        .trainer(trainer, stop.clone(), 50)
        .with_model_config(&config)?
        .with_evaluation(|model: &ClipModel| {
            unless_stopped(&stop, || {
                let found = accuracy(model, images.min(1_000), 1)?;
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
        let dir = run.path().join("clip");
        trained.model.save_pretrained(&dir)?;
        tokenizer.save_pretrained(&dir)?;
        let found = accuracy(&trained.model, images, 2)?;
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
