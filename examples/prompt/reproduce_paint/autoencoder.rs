//! Training of the autoencoder.

use crate::relevance::{relevance, to_images};
use aigc_core::{
    CancelToken,
    burn::tensor::{Device, Tensor},
    data::{
        CaptionedBatch, DataLoader, DataLoaderConfig, SampleBatch, collate_captioned,
        scenes::{Caption, Layout, Scenes, Split},
    },
    output::{ImageGrid, save_image},
    train::{EmaConfig, LrSchedule, OptimizerConfig, TrainerConfig},
};
use aigc_examples::{RunOptions, after_training, outln, unless_stopped};
use aigc_vae::{
    AutoencoderKl, AutoencoderKlConfig, DownEncoderBlockType, KlWeight, LikelihoodKind,
    UpDecoderBlockType, Vae, VaeObjective,
};
use clap::Args;

/// Options of `autoencoder`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Batch size.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Learning rate after warm-up.
    #[arg(long, default_value_t = 2e-3)]
    rate: f64,
    /// Held-out images for the final figures and the scaling factor.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    images: u32,
    #[command(flatten)]
    run: RunOptions,
}

/// Name of the runs.
pub(crate) const NAME: &str = "paint-autoencoder";
/// Images in an epoch.
const EPOCH: usize = 65_536;

pub(crate) fn config() -> AutoencoderKlConfig {
    AutoencoderKlConfig {
        sample_size: 64.into(),
        down_block_types: vec![DownEncoderBlockType::DownEncoderBlock2D; 3],
        up_block_types: vec![UpDecoderBlockType::UpDecoderBlock2D; 3],
        block_out_channels: vec![16, 32, 64],
        layers_per_block: 1,
        latent_channels: 4,
        norm_num_groups: 8,
        scaling_factor: 1.0,
        force_upcast: false,
        mid_block_add_attention: false,
        likelihood: LikelihoodKind::Gaussian(0.1),
        ..AutoencoderKlConfig::default()
    }
}

pub(crate) fn loader(
    split: Split,
    layout: Layout,
    len: usize,
    batch: usize,
    seed: u64,
) -> aigc_core::Result<DataLoader<CaptionedBatch>> {
    DataLoader::new(
        Scenes::new(split, len, seed).with_layout(layout),
        collate_captioned,
        DataLoaderConfig {
            batch_size: batch,
            ..DataLoaderConfig::default()
        },
    )
}

pub(crate) fn run(options: &Options, stop: CancelToken) -> anyhow::Result<()> {
    let device = options.run.device()?;
    let config = config();
    let trainer = options.run.config(TrainerConfig {
        seed: options.run.seed,
        learning_rate: options.rate,
        lr_schedule: LrSchedule::cosine(200),
        optimizer: OptimizerConfig::adam(0.9, 0.99),
        max_grad_norm: Some(1e4),
        ema: Some(EmaConfig::new(0.999)),
        preview_steps: 500,
        save_steps: 500,
        ..TrainerConfig::new(4_000)
    })?;
    let data = loader(
        Split::Train,
        Layout::Free,
        EPOCH,
        options.batch as usize,
        options.run.seed,
    )?;
    let shown = loader(Split::HeldOut, Layout::Free, 32, 32, 1)?;
    let shown = shown.iter_once().next().expect("32 images")?;
    let objective = VaeObjective::<AutoencoderKl, CaptionedBatch, 4, 4>::new(KlWeight::new(0.02))?;
    let run = options.run.run(NAME)?;
    let trained = options
        .run
        .trainer(trainer, stop.clone(), 50)
        .with_model_config(&config)?
        .with_preview(|model: &AutoencoderKl, at| {
            unless_stopped(&stop, || {
                let images = shown.to_tensor(&device);
                let again = model
                    .decode(Vae::<4, 4>::encode(model, images.clone()).mode())
                    .mean();
                let rows = Tensor::cat(vec![images, again], 0);
                save_image(
                    &rows,
                    ImageGrid::new(8, 64),
                    &at.run.sample_path(at.step, "png"),
                )
            })
        })
        .fit(objective, config.init(&device)?, &data, &run)?;
    after_training(trained, &run, &stop, |trained| {
        let (model, error, relevance) = scaled(trained.model, options.images as usize, &device)?;
        let dir = run.path().join("vae");
        model.save_pretrained(&dir)?;
        outln!(
            "mean squared error on held-out images {error:.6}, {:.2} % of them read as their \
             caption after decoding, scaling factor {:.4}; the autoencoder is in {}",
            100.0 * relevance,
            model.config().scaling_factor,
            dir.display()
        );
        Ok(())
    })
}

/// The model whose scaling factor brings the latents of `count` images to a mean square of 1, its
/// error, and the share of decoded images that are right in every word of their caption.
fn scaled(
    model: AutoencoderKl,
    count: usize,
    device: &Device,
) -> anyhow::Result<(AutoencoderKl, f64, f64)> {
    let (mut square, mut error, mut right) = (0.0_f64, 0.0, 0.0);
    for batch in loader(Split::HeldOut, Layout::Free, count, 64, 2)?.iter_once() {
        let batch = batch?;
        let images = batch.to_tensor(device);
        let latents = Vae::<4, 4>::encode(&model, images.clone()).mode();
        let decoded = model.decode(latents.clone()).mean();
        let captions = batch.captions.iter().map(|caption| caption.parse());
        let captions: Vec<Caption> = captions.collect::<aigc_core::Result<_>>()?;
        // The last batch may be smaller.
        let share = batch.len() as f64 / count as f64;
        right += share * relevance(&captions, &to_images(&decoded.clone().clamp(0.0, 1.0)))[2];
        square += share * latents.powi_scalar(2).mean().into_scalar::<f64>();
        let gap = (decoded - images).powi_scalar(2);
        error += share * gap.mean().into_scalar::<f64>();
    }
    let model = model.with_latent_scaling(None, 1.0 / square.sqrt())?;
    Ok((model, error, right))
}
