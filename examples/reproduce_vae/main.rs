//! The variational autoencoders of `docs/results.md` on MNIST. The settings of `mlp` and `conv` are
//! those of the plain PyTorch loop they are compared with (`tests/reference/vae_mnist.py`).
//!
//!     cargo run --release --example reproduce_vae -- --data DIR [--model conv] [--steps 31000]
//!     cargo run --release --example reproduce_vae -- --data DIR --model iwae-5 --minutes 60
//!     cargo run --release --example reproduce_vae -- --data DIR --model iwae-5 --evaluate-only
//!     cargo run --release --example reproduce_vae -- --data DIR --model vq --classifier LENET

#![forbid(unsafe_code)]

mod experiment;
mod figures;
mod models;
mod table;
mod vq;

use aigc_core::{Error, Result, data::Binarize};
use aigc_examples::{
    DigitClassifier, ImagesConfig, ObserverOptions, Opening, RunOptions, stop_on_ctrl_c,
};
use aigc_vae::GradientEstimator;
use clap::{Parser, ValueEnum};
use experiment::Experiment;
use std::path::PathBuf;

/// Trains a VAE on MNIST, by default for 31,000 steps, and prints its -ELBO on the test set; the
/// models from `iwae-1` on are also compared with published figures.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) data: ImagesConfig,
    /// Model to train.
    #[arg(long, value_enum, default_value = "mlp")]
    pub(crate) model: Kind,
    /// Latents per image in the training of iwae-1 and iwae-5; by default 1 and 5.
    #[arg(long, value_name = "N")]
    pub(crate) k: Option<usize>,
    /// Estimator of the gradient of iwae-1 and iwae-5; by default reparameterised, with the
    /// divergence in closed form for one latent.
    #[arg(long, value_enum)]
    pub(crate) estimator: Option<Estimator>,
    /// Batch size; 128 by default, 100 of iwae-1 and iwae-5, 64 of hierarchical and vq.
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<usize>,
    /// Learning rate after warm-up; 0.001 by default, 0.002 of hierarchical.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Latents per test image for its log-likelihood; 5,000 by default. For mlp and conv, which are
    /// trained on grey images, it is only computed with this option or --evaluate-only.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) importance_samples: Option<u32>,
    /// Number of test images to evaluate with, at equal distances; by default all.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) test_images: Option<u32>,
    /// Weights of a LeNet-5 that classifies digits (`mnist-models/lenet5_csinva.safetensors`);
    /// without it, samples are not evaluated.
    #[arg(long, alias = "judge", value_name = "FILE")]
    pub(crate) classifier: Option<PathBuf>,
    /// Number of samples to evaluate with the classifier.
    #[arg(
        long, value_name = "N", default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(2..)
    )]
    pub(crate) samples: u32,
    /// Evaluate a trained model instead of training one.
    #[arg(long)]
    pub(crate) evaluate_only: bool,
    /// Run directory to evaluate; by default the newest run of the model.
    #[arg(long = "run", value_name = "DIR", requires = "evaluate_only")]
    pub(crate) evaluated: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) observer: ObserverOptions,
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Fully connected, 784-400-20-400-784.
    Mlp,
    /// Convolutional, with 32 and 64 channels and 32 latent dimensions.
    Conv,
    /// The network of Burda et al. 2016 with one stochastic layer, trained with the ELBO; by
    /// default for 60 minutes, like the models after it.
    #[value(name = "iwae-1")]
    Iwae1,
    /// The same with the importance-weighted bound of 5 latents.
    #[value(name = "iwae-5")]
    Iwae5,
    /// Groups of latents on maps of two sizes.
    Hierarchical,
    /// Convolutional and class-conditional; by default for 15,000 steps.
    Conditional,
    /// Quantised latents of 256 codes, and then a prior over the codes; the number of steps applies
    /// to each of the two, and each has half of the time limit.
    Vq,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Estimator {
    /// The derivative of the bound (Burda et al. 2016).
    Reparameterized,
    /// Without the derivative of `log q` by its parameters (Roeder et al. 2017).
    StickingTheLanding,
    /// DReG (Tucker et al. 2019).
    DoublyReparameterized,
}

impl From<Estimator> for GradientEstimator {
    fn from(estimator: Estimator) -> Self {
        match estimator {
            Estimator::Reparameterized => Self::Reparameterized,
            Estimator::StickingTheLanding => Self::StickingTheLanding,
            Estimator::DoublyReparameterized => Self::DoublyReparameterized,
        }
    }
}

impl Kind {
    /// Name of the runs.
    pub(crate) fn run_name(self) -> &'static str {
        match self {
            Kind::Mlp | Kind::Conv => "mnist-vae",
            Kind::Iwae1 => "mnist-iwae-1",
            Kind::Iwae5 => "mnist-iwae-5",
            Kind::Hierarchical => "mnist-hierarchical",
            Kind::Conditional => "mnist-conditional",
            Kind::Vq => "mnist-vq",
        }
    }

    /// How the images become black and white. Published log-likelihoods are those of binary
    /// images.
    pub(crate) fn binarize(self) -> Binarize {
        match self {
            Kind::Mlp | Kind::Conv | Kind::Vq => Binarize::None,
            _ => Binarize::Dynamic,
        }
    }

    /// Whether the program prints the -ELBO after training, where no option requests other figures.
    pub(crate) fn is_plain(self) -> bool {
        matches!(self, Kind::Mlp | Kind::Conv)
    }

    fn batch(self) -> usize {
        match self {
            Kind::Mlp | Kind::Conv | Kind::Conditional => 128,
            Kind::Iwae1 | Kind::Iwae5 => 100,
            Kind::Hierarchical | Kind::Vq => 64,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = self.to_possible_value().expect("no model is hidden");
        f.write_str(value.get_name())
    }
}

impl Args {
    fn check(&self) -> Result<()> {
        if let (Kind::Vq, Some(n)) = (self.model, self.importance_samples) {
            let expected = "a --model with Gaussian latents, not vq";
            return Err(Error::argument("--importance-samples", n, expected));
        }
        let is_iwae = matches!(self.model, Kind::Iwae1 | Kind::Iwae5);
        let expected = format!("--model iwae-1 or iwae-5, not {}", self.model);
        match (self.k, self.estimator) {
            (Some(k), _) if !is_iwae => Err(Error::argument("--k", k, expected)),
            (_, Some(estimator)) if !is_iwae => {
                let name = estimator.to_possible_value();
                let name = name.expect("no estimator is hidden");
                Err(Error::argument("--estimator", name.get_name(), expected))
            }
            _ => Ok(()),
        }
    }

    fn opening(&self) -> Opening {
        let batch = self.batch.unwrap_or(self.model.batch());
        Opening {
            binarize: self.model.binarize(),
            held_out: self.test_images.map(|n| n as usize),
            ..Opening::new(batch, self.run.seed)
        }
    }

    /// The time limit `minutes`, unless a number of steps is given.
    pub(crate) fn default_minutes(&self, minutes: f64) -> Option<f64> {
        self.run.steps.is_none().then_some(minutes)
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    args.check()?;
    let device = args.run.device()?;
    let images = args.data.given()?.open_with(args.opening())?;
    let classifier = args.classifier.as_deref();
    let classifier = classifier.map(|path| DigitClassifier::from_file(path, images.shape, &device));
    let experiment = Experiment {
        args: &args,
        images: &images,
        classifier: classifier.transpose()?,
        device: &device,
        stop: &stop_on_ctrl_c(),
    };
    match args.model {
        Kind::Mlp => models::mlp(&experiment),
        Kind::Conv => models::conv(&experiment),
        Kind::Iwae1 | Kind::Iwae5 => models::iwae(&experiment),
        Kind::Hierarchical => models::hierarchical(&experiment),
        Kind::Conditional => models::conditional(&experiment),
        Kind::Vq => vq::run(&experiment),
    }
}
