//! Training, and the comparison with PNG and WebP.

use crate::{
    BenchOptions, Kind, bits_per_pixel,
    model::Model,
    picture::{libwebp_size, sizes_of_formats},
    print_row, smallest,
};
use aigc_core::{
    CancelToken,
    burn::tensor::{Device, Tensor, TensorData},
    checkpoint::RunDir,
    data::{DataLoader, Image, ImageBatch, ImageShape},
    rng::Rng,
    train::{EmaConfig, LrSchedule, TrainerConfig},
};
use aigc_examples::{
    Codes, Images, Opening, PriorTraining, Progress, RunOptions, after_training,
    evaluate_binarized, outln, stop_on_ctrl_c, unless_stopped,
};
use aigc_vae::{
    CodePriorConfig, ConvVaeConfig, HierarchicalVaeConfig, KlWeight, LikelihoodKind, MlpVaeConfig,
    Vae, VaeConfig, VaeObjective, VectorQuantizerConfig, VqVae, VqVaeConfig,
    compress::{self, Codec, CompressedImages},
};
use anyhow::{Result, ensure};
use serde::{Serialize, de::DeserializeOwned};
use std::slice::from_ref;

/// Batch size.
const BATCH: usize = 128;

pub(crate) fn run(options: &BenchOptions) -> Result<()> {
    let run = match options.model {
        // The prior has the other half of the time.
        Kind::Vq => options.run.with_share_of_time(0.5),
        _ => options.run.clone(),
    };
    let device = &run.device()?;
    let opening = Opening {
        binarize: options.binarize(),
        ..Opening::new(BATCH, run.seed)
    };
    let images = options.data.open_with(opening)?;
    let (shape, likelihood) = (images.shape, options.likelihood());
    let divisible = shape.height.is_multiple_of(4) && shape.width.is_multiple_of(4);
    ensure!(
        divisible || options.model == Kind::Mlp,
        "images of {shape}: the sides must be multiples of 4; choose another --side, or --model mlp"
    );
    let bench = Bench {
        options,
        run,
        images: &images,
        device,
        stop: stop_on_ctrl_c(),
    };
    let elbo = KlWeight::default();
    match options.model {
        Kind::Mlp => {
            let config = VaeConfig::Mlp(MlpVaeConfig {
                likelihood,
                ..MlpVaeConfig::new(shape)
            });
            let vae = config.init(device)?;
            bench.train(&config, vae, elbo, |vae, _| Ok(Model::Vae(vae)))
        }
        Kind::Conv => {
            let config = VaeConfig::Conv(ConvVaeConfig {
                likelihood,
                ..ConvVaeConfig::new(shape)
            });
            let vae = config.init(device)?;
            bench.train(&config, vae, elbo, |vae, _| Ok(Model::Vae(vae)))
        }
        Kind::Hierarchical => {
            let config = hierarchical(shape, likelihood);
            let (vae, warmup) = (config.init(device)?, elbo.with_warmup(300));
            bench.train(&config, vae, warmup, |vae, _| Ok(Model::Hierarchical(vae)))
        }
        Kind::Vq => {
            let config = VqVaeConfig {
                channels: vec![32, 64],
                quantizer: VectorQuantizerConfig::new(64, 16).into(),
                likelihood,
                ..VqVaeConfig::new(shape)
            };
            let vae = config.init(device)?;
            bench.train(&config, vae, elbo, |vae, run| bench.with_prior(vae, run))
        }
    }
}

/// Few latents, since each costs at least a bit in the file of a single image.
fn hierarchical(shape: ImageShape, likelihood: LikelihoodKind) -> HierarchicalVaeConfig {
    let mut config = HierarchicalVaeConfig {
        likelihood,
        ..HierarchicalVaeConfig::new(shape)
    };
    // Groups and channels of their latents, on the finest level first.
    for (level, (groups, channels)) in config.levels.iter_mut().zip([(1, 1), (2, 2), (2, 8)]) {
        level.groups = groups;
        level.latent_channels = channels;
        level.encoder_blocks = 1;
    }
    config
}

/// The training of a model.
struct Bench<'a> {
    options: &'a BenchOptions,
    run: RunOptions,
    images: &'a Images,
    device: &'a Device,
    stop: CancelToken,
}

impl Bench<'_> {
    fn trainer(&self) -> TrainerConfig {
        let kind = self.options.model;
        TrainerConfig {
            seed: self.run.seed,
            learning_rate: 2e-3,
            lr_schedule: LrSchedule::cosine(100),
            max_grad_norm: Some(if kind == Kind::Hierarchical {
                200.0
            } else {
                10.0
            }),
            // The codes of a VQ-VAE are moving averages already.
            ema: (kind != Kind::Vq).then(|| EmaConfig::new(0.999)),
            save_steps: 500,
            ..TrainerConfig::new(4000)
        }
    }

    /// Trains `vae`, unless the run is complete, makes a model of it by `finish`, and compares.
    fn train<V, C, const Z: usize>(
        &self,
        config: &C,
        vae: V,
        weight: KlWeight,
        finish: impl FnOnce(V, &RunDir) -> Result<Model>,
    ) -> Result<()>
    where
        V: Vae<4, Z> + 'static,
        C: Serialize + DeserializeOwned,
    {
        let (images, stop) = (self.images, &self.stop);
        let binarize = self.options.binarize();
        let trainer = self.run.config(self.trainer())?;
        let run = self.run.run("compress")?;
        images.print_summary(&run);
        let trained = self
            .run
            .trainer(trainer, stop.clone(), 50)
            .with_model_config(config)?
            .with_objective_config(&weight)?
            .with_data_config(&self.options.data)?
            .with_evaluation(|vae: &V| {
                unless_stopped(stop, || {
                    images.evaluate(stop, |held_out| {
                        evaluate_binarized(vae, held_out, binarize, self.device)
                    })
                })
            })
            .fit(
                VaeObjective::<V, ImageBatch, 4, Z>::new(weight)?,
                vae,
                &images.train,
                &run,
            )?;
        after_training(trained, &run, stop, |trained| {
            let model = finish(trained.model, &run)?;
            self.compare(&model, &self.test_images()?)
        })
    }

    /// Trains the prior over the codes of a model.
    fn with_prior(&self, vae: VqVae, run: &RunDir) -> Result<Model> {
        let (images, device, stop) = (self.images, self.device, &self.stop);
        let codes = Codes::of_training(&vae, images, BATCH, self.run.seed, device, stop)?;
        let held_out = Codes::of_held_out(&vae, images, device, stop)?;
        let training = PriorTraining {
            options: &self.run,
            model: CodePriorConfig {
                d_model: 64,
                n_layer: 3,
                ..CodePriorConfig::new(codes.shape)
            },
            trainer: TrainerConfig {
                max_grad_norm: Some(1.0),
                ema: Some(EmaConfig::new(0.998)),
                ..self.trainer()
            },
            device,
            stop,
        };
        let prior = training.fit(&codes, &held_out, run)?.model;
        Ok(Model::Vq(vae, prior))
    }

    /// The first held-out images.
    fn test_images(&self) -> Result<Vec<Image>> {
        let n = self.options.images as usize;
        let mut images = first_images(&self.images.held_out, n, self.device)?;
        if self.options.binary {
            for pixel in images.iter_mut().flat_map(|image| &mut image.pixels) {
                *pixel = if *pixel < 128 { 0 } else { 255 };
            }
        }
        Ok(images)
    }

    /// Prints bits per pixel of each way to compress `images`, and checks that they are restored.
    fn compare(&self, model: &Model, images: &[Image]) -> Result<()> {
        let (device, count, shape) = (self.device, images.len(), images[0].shape);
        let progress = Progress::new("compression", count, &self.stop);
        let (lossless, lossy) = (model.lossless(None, device)?, [model.lossy(None, device)?]);
        let (mut exact, mut short, mut squares) = (0, 0, 0.0);
        for image in images {
            let (file, restored) = there_and_back(&lossless, from_ref(image))?;
            ensure!(restored[0].pixels == image.pixels, "an image differs");
            exact += file.to_bytes().len();
            let (file, restored) = there_and_back(&lossy, from_ref(image))?;
            squares += square_error(&restored[0], image);
            short += file.to_bytes().len();
            progress.add(1)?;
        }
        let many = [model.lossless_of_many(None, device)?];
        let (chain, restored) = there_and_back(&many, images)?;
        let same = restored
            .iter()
            .zip(images)
            .all(|(a, b)| a.pixels == b.pixels);
        ensure!(
            same && restored.len() == count,
            "an image of the file of all differs"
        );
        let bound = bound(model, images, device);
        drop(progress);
        let name = model.name();
        outln!("\n{count} test images of {shape}:");
        let formats = sizes_of_formats(images)?.into_iter();
        for (format, bytes) in formats.chain(libwebp_size(images)?) {
            let what = format!("{format}, one file each");
            print_row(&what, bits_per_pixel(bytes, count, shape));
        }
        for (what, bytes) in [
            (format!("{name}, one file each"), exact),
            (
                format!("{name}, one file of all, {}", chain.method),
                chain.to_bytes().len(),
            ),
            (format!("{name}, lossy, one file each"), short),
        ] {
            print_row(&what, bits_per_pixel(bytes, count, shape));
        }
        print_row(&format!("-ELBO of the {name}"), bound);
        let mean_square = squares / (count * shape.numel()) as f64;
        let psnr = 10.0 * (255.0 * 255.0 / mean_square).log10();
        outln!("peak signal-to-noise ratio of the lossy files: {psnr:.1} dB");
        outln!("all images of the other files were restored bit for bit");
        Ok(())
    }
}

/// The smallest file of `images`, and the images decoded from it.
fn there_and_back(
    codecs: &[Box<dyn Codec>],
    images: &[Image],
) -> Result<(CompressedImages, Vec<Image>)> {
    let (codec, file) = smallest(codecs, images)?;
    let restored = compress::decode(codec, &file)?;
    Ok((file, restored))
}

/// The sum of the squared differences of the values of two images.
fn square_error(a: &Image, b: &Image) -> f64 {
    let pairs = a.pixels.iter().zip(&b.pixels);
    pairs
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
        .sum()
}

/// The first `n` images of a data set.
fn first_images(loader: &DataLoader<ImageBatch>, n: usize, device: &Device) -> Result<Vec<Image>> {
    let mut images: Vec<Image> = Vec::new();
    for batch in loader.iter_once() {
        let batch = batch?.take(n - images.len());
        let shape = batch.shape();
        let values = batch.to_tensor(device).into_data();
        let pixels: Vec<u8> = values
            .iter::<f32>()
            .map(|x| (x * 255.0).round() as u8)
            .collect();
        images.extend(pixels.chunks_exact(shape.numel()).map(|pixels| Image {
            shape,
            pixels: pixels.to_vec(),
            label: None,
        }));
        if images.len() == n {
            break;
        }
    }
    Ok(images)
}

/// −ELBO in bits per pixel.
fn bound(model: &Model, images: &[Image], device: &Device) -> f64 {
    let shape = images[0].shape;
    let mut rng = Rng::stream(0, "compress/bound", 0);
    let mut nats = 0.0;
    for batch in images.chunks(100) {
        let values = batch.iter().flat_map(|image| &image.pixels);
        let values: Vec<f32> = values.map(|pixel| f32::from(*pixel) / 255.0).collect();
        let dims = [batch.len(), shape.channels, shape.height, shape.width];
        let x = Tensor::<4>::from_data(TensorData::new(values, dims), device);
        nats += f64::from(model.nats(x, &mut rng).sum().into_scalar::<f32>());
    }
    let pixels = images.len() * shape.height * shape.width;
    nats / std::f64::consts::LN_2 / pixels as f64
}
