//! Compresses images with a variational autoencoder, and compares the sizes with PNG and WebP.
//!
//!     cargo run --release --example compress -- bench --model hierarchical
//!     cargo run --release --example compress -- bench --model vq --data MNIST-DIR
//!     cargo run --release --example compress -- encode IN.png OUT.aigc --model RUN/final
//!     cargo run --release --example compress -- decode OUT.aigc BACK.png --model RUN/final
//!
//! `bench` trains a model; `encode` and `decode` use it. Models with Gaussian latents (`mlp`,
//! `conv`, `hierarchical`) code several images together by bits-back coding; `vq` has discrete
//! codes under a learned prior.

#![forbid(unsafe_code)]

mod bench;
mod model;
mod picture;

use aigc_core::{
    burn::tensor::Device,
    data::{Binarize, Image, ImageShape},
    device::device,
};
use aigc_examples::{ImagesConfig, RunOptions, outln};
use aigc_vae::{
    LikelihoodKind,
    compress::{self, Codec, CompressedImages},
};
use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use model::Model;
use std::path::{Path, PathBuf};

/// Compresses images with a variational autoencoder.
#[derive(Debug, Parser)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compress images of the size and the channels of the model to one file.
    Encode(EncodeOptions),
    /// Restore compressed images.
    Decode(DecodeOptions),
    /// Train a model, and compare the sizes of test images with PNG and WebP.
    Bench(Box<BenchOptions>),
}

#[derive(Debug, Args)]
struct EncodeOptions {
    /// Images to compress.
    #[arg(value_name = "IN", required = true)]
    inputs: Vec<PathBuf>,
    /// File to write.
    out: PathBuf,
    #[command(flatten)]
    model: ModelOptions,
    /// Write only latents or codes, from which images are restored approximately.
    #[arg(long)]
    lossy: bool,
    /// Bits per Gaussian latent, 1 to 12; by default the number with which the file is smallest,
    /// and 4 for --lossy.
    #[arg(long)]
    latent_bits: Option<u8>,
}

#[derive(Debug, Args)]
struct DecodeOptions {
    /// File to read.
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Image to write; several images are numbered.
    out: PathBuf,
    #[command(flatten)]
    model: ModelOptions,
}

#[derive(Debug, Args)]
struct ModelOptions {
    /// Directory of a trained model, such as `final` of a run of `bench`.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Directory of the trained prior over the codes of a VQ-VAE; by default `prior/final` beside
    /// the directory of the model, where `bench` writes it.
    #[arg(long, value_name = "DIR")]
    prior: Option<PathBuf>,
    /// flex, ndarray, libtorch, wgpu, vulkan, metal, cuda:0, rocm or auto; the same for decoding as
    /// for encoding.
    #[arg(long, default_value = "flex")]
    device: String,
}

#[derive(Debug, Args)]
struct BenchOptions {
    /// Model to train.
    #[arg(long, value_enum, default_value = "conv")]
    model: Kind,
    #[command(flatten)]
    data: ImagesConfig,
    /// Make the images black and white, and their likelihood Bernoulli. Without it, the likelihood
    /// is a mixture of logistics over the 256 levels of a pixel.
    #[arg(long)]
    binary: bool,
    /// Number of test images.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    images: u32,
    /// Number of components of the mixture that a pixel is distributed by.
    #[arg(long, default_value_t = 5)]
    components: usize,
    #[command(flatten)]
    run: RunOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Linear layers, and a vector of Gaussian latents.
    Mlp,
    /// Convolutions, and a vector of Gaussian latents.
    Conv,
    /// Groups of maps of Gaussian latents of several sizes.
    Hierarchical,
    /// A map of codes, and then a prior over them; the number of steps applies to each of the two,
    /// and each has half of the time limit.
    Vq,
}

impl BenchOptions {
    /// How the images are made black and white.
    fn binarize(&self) -> Binarize {
        match self.binary {
            true => Binarize::Threshold,
            false => Binarize::None,
        }
    }

    /// The likelihood that fits the images.
    fn likelihood(&self) -> LikelihoodKind {
        match self.binary {
            true => LikelihoodKind::Bernoulli,
            false => LikelihoodKind::LogisticMixture {
                components: self.components,
            },
        }
    }
}

fn main() -> Result<()> {
    match Program::parse().command {
        Command::Encode(options) => encode(&options),
        Command::Decode(options) => decode(&options),
        Command::Bench(options) => bench::run(&options),
    }
}

impl ModelOptions {
    fn open(&self) -> Result<(Model, Device)> {
        let device = device(&self.device)?;
        let model = Model::open(&self.model, self.prior.as_deref(), &device)?;
        Ok((model, device))
    }
}

fn encode(options: &EncodeOptions) -> Result<()> {
    let (model, device) = options.model.open()?;
    let bits = options.latent_bits;
    ensure!(
        bits.is_none() || !matches!(model, Model::Vq(..)),
        "--latent-bits: the model has codes in place of Gaussian latents"
    );
    let shape = model.shape()?;
    let images = options.inputs.iter().map(|path| picture::read(path, shape));
    let images: Vec<Image> = images.collect::<Result<_>>()?;
    let codecs = match options.lossy {
        true => vec![model.lossy(bits, &device)?],
        false => {
            let mut codecs = model.lossless(bits, &device)?;
            if images.len() > 1 {
                codecs.push(model.lossless_of_many(bits, &device)?);
            }
            codecs
        }
    };
    let (_, file) = smallest(&codecs, &images).with_context(|| {
        let inputs: Vec<String> = options.inputs.iter().map(|path| name(path)).collect();
        inputs.join(", ")
    })?;
    file.write(&options.out)?;
    let bytes = file.to_bytes().len();
    let latents = match file.latent_bits {
        0 => String::new(),
        bits => format!(", {bits} bits per latent"),
    };
    outln!(
        "{}: {bytes} bytes, {}{latents}",
        options.out.display(),
        file.method
    );
    let each = match images.len() {
        1 => "",
        _ => ", one file each",
    };
    print_row("this file", bits_per_pixel(bytes, images.len(), shape));
    for (format, bytes) in picture::sizes_of_formats(&images)? {
        let what = format!("{format}{each}");
        print_row(&what, bits_per_pixel(bytes, images.len(), shape));
    }
    Ok(())
}

fn decode(options: &DecodeOptions) -> Result<()> {
    let file = CompressedImages::read(&options.input)?;
    let (model, device) = options.model.open()?;
    ensure!(
        (file.latent_bits == 0) == matches!(model, Model::Vq(..)),
        "{}: compressed with another kind of model",
        options.input.display()
    );
    let codec = model
        .codec(file.method, file.latent_bits, &device)
        .with_context(|| name(&options.input))?;
    let images = compress::decode(&*codec, &file)?;
    for (index, image) in images.iter().enumerate() {
        let out = match images.len() {
            1 => options.out.clone(),
            _ => numbered(&options.out, index),
        };
        picture::write(image, &out)?;
        outln!("{}", out.display());
    }
    Ok(())
}

/// The path with a number before its extension.
fn numbered(path: &Path, index: usize) -> PathBuf {
    let part =
        |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let (stem, extension) = (part(path.file_stem()), part(path.extension()));
    path.with_file_name(format!("{stem}-{index}.{extension}"))
}

/// The codec whose file of `images` is the smallest, and the file.
fn smallest<'a>(
    codecs: &'a [Box<dyn Codec>],
    images: &[Image],
) -> Result<(&'a dyn Codec, CompressedImages)> {
    let files = codecs.iter().map(|codec| {
        let file = compress::encode(&**codec, images)?;
        Ok((&**codec, file))
    });
    let files: Vec<(&dyn Codec, CompressedImages)> = files.collect::<Result<_>>()?;
    let smallest = files.into_iter().min_by_key(|(_, file)| file.payload.len());
    smallest.context("there is at least one codec")
}

fn bits_per_pixel(bytes: usize, images: usize, shape: ImageShape) -> f64 {
    8.0 * bytes as f64 / (images * shape.height * shape.width) as f64
}

fn print_row(what: &str, bits_per_pixel: f64) {
    outln!("  {what:<50} {bits_per_pixel:.3} bits per pixel");
}

/// The name of a file for messages.
fn name(path: &Path) -> String {
    path.display().to_string()
}
