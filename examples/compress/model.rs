//! The models that images are compressed with.

use crate::name;
use aigc_core::{
    burn::tensor::{Device, Tensor},
    data::ImageShape,
    rng::Rng,
    weights::Loaded,
};
use aigc_vae::{
    AnyVae, CodePrior, Condition, DiscreteVae, HierarchicalVae, PriorCondition, Vae, VqVae,
    compress::{
        CodeCodec, Codec, DiscreteCodes, GaussianCodes, GaussianLatents, Method, PriorCodes,
        gaussian_codec,
    },
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use std::{ops::RangeInclusive, path::Path};

/// Bits per latent of bits-back coding.
const BITS_BACK: u8 = 10;
/// Bits per latent of lossy files.
const LOSSY: u8 = 4;

/// A trained model.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // There is one.
pub(crate) enum Model {
    /// One vector of Gaussian latents.
    Vae(AnyVae),
    /// Groups of Gaussian latents.
    Hierarchical(HierarchicalVae),
    /// Codes, and the prior over them.
    Vq(VqVae, CodePrior),
}

impl Model {
    /// Opens a model. Its `config.json` tells which one it is: an MLP or convolutional VAE by
    /// `kind`, a hierarchical one by `levels`, a VQ-VAE by `quantizer`. The prior of a VQ-VAE is
    /// in the directory `prior`, by default where `bench` has written it.
    pub(crate) fn open(dir: &Path, prior: Option<&Path>, device: &Device) -> Result<Self> {
        let path = dir.join("config.json");
        let text = std::fs::read_to_string(&path).with_context(|| name(&path))?;
        let config: Map<String, Value> =
            serde_json::from_str(&text).with_context(|| name(&path))?;
        if config.contains_key("quantizer") {
            let prior = prior.map_or_else(|| dir.join("../prior/final"), Path::to_path_buf);
            let vae = with_warnings(VqVae::from_pretrained(dir, device)?);
            let prior = CodePrior::from_pretrained(&prior, device)
                .with_context(|| format!("{}: no prior over the codes", prior.display()))?;
            return Ok(Self::Vq(vae, with_warnings(prior)));
        }
        ensure!(prior.is_none(), "--prior: the model has no codes");
        if config.contains_key("levels") {
            let model = HierarchicalVae::from_pretrained(dir, device)?;
            return Ok(Self::Hierarchical(with_warnings(model)));
        }
        ensure!(
            config.contains_key("kind"),
            "{}: not an MLP, convolutional or hierarchical VAE, and not a VQ-VAE",
            path.display()
        );
        Ok(Self::Vae(with_warnings(AnyVae::from_pretrained(
            dir, device,
        )?)))
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Vae(_) => "VAE",
            Self::Hierarchical(_) => "hierarchical VAE",
            Self::Vq(..) => "VQ-VAE",
        }
    }

    /// The shape of its images.
    pub(crate) fn shape(&self) -> Result<ImageShape> {
        let shape = match self {
            Self::Vae(model) => model.sample_shape(),
            Self::Hierarchical(model) => model.sample_shape(),
            Self::Vq(model, _) => model.input_shape(),
        };
        shape
            .as_image()
            .context("the samples of the model are not images")
    }

    /// The codec of a method; codes have no `latent_bits`.
    pub(crate) fn codec(
        &self,
        method: Method,
        latent_bits: u8,
        device: &Device,
    ) -> Result<Box<dyn Codec>> {
        Ok(match self {
            Self::Vae(model) => gaussian_codec::<_, 2>(model, device, method, latent_bits)?,
            Self::Hierarchical(model) => {
                gaussian_codec::<_, 2>(model, device, method, latent_bits)?
            }
            Self::Vq(vae, prior) => {
                let codes = DiscreteCodes::new(vae)?.with_prior(PriorCodes::new(&[prior])?)?;
                match method {
                    Method::Lossless => Box::new(CodeCodec::lossless(codes, device)),
                    Method::Lossy => Box::new(CodeCodec::lossy(codes, device)),
                    _ => bail!("a {method} file, which needs a model with Gaussian latents"),
                }
            }
        })
    }

    /// The codec of files of latents or codes alone.
    pub(crate) fn lossy(&self, latent_bits: Option<u8>, device: &Device) -> Result<Box<dyn Codec>> {
        self.codec(Method::Lossy, latent_bits.unwrap_or(LOSSY), device)
    }

    /// Lossless codecs of single images; which has the smallest file depends on the image.
    pub(crate) fn lossless(
        &self,
        latent_bits: Option<u8>,
        device: &Device,
    ) -> Result<Vec<Box<dyn Codec>>> {
        let bits = latent_bits.map_or(1..=8, |bits| bits..=bits);
        match self {
            Self::Vae(model) => candidates(model, bits, device),
            Self::Hierarchical(model) => candidates(model, bits, device),
            Self::Vq(..) => Ok(vec![self.codec(Method::Lossless, 0, device)?]),
        }
    }

    /// The lossless codec of many images: bits-back coding, if the latents are Gaussian.
    pub(crate) fn lossless_of_many(
        &self,
        latent_bits: Option<u8>,
        device: &Device,
    ) -> Result<Box<dyn Codec>> {
        match self {
            Self::Vq(..) => self.codec(Method::Lossless, 0, device),
            _ => self.codec(Method::BitsBack, latent_bits.unwrap_or(BITS_BACK), device),
        }
    }

    /// −ELBO of images, with one draw of the latents for each: the nats that they need.
    ///
    /// # Shapes
    /// - x: `[batch, channels, height, width]`, in `[0, 1]`
    /// - output: `[batch]`
    pub(crate) fn nats(&self, x: Tensor<4>, rng: &mut Rng) -> Tensor<1> {
        match self {
            Self::Vae(model) => nelbo(model, x, rng),
            Self::Hierarchical(model) => nelbo(model, x, rng),
            Self::Vq(vae, prior) => {
                let codes = vae.encode_codes(x.clone());
                let of_pixels = vae.decode_codes(&codes).log_prob(x);
                let of_codes = prior.log_prob(codes[0].clone(), &PriorCondition::default());
                -(of_pixels + of_codes)
            }
        }
    }
}

/// Lossless codecs with these numbers of bits per latent; the weights are hashed once.
fn candidates<M>(
    model: &M,
    bits: RangeInclusive<u8>,
    device: &Device,
) -> Result<Vec<Box<dyn Codec>>>
where
    M: GaussianLatents<2> + 'static,
{
    let codes = GaussianCodes::<M, 2>::new(model)?;
    let codec = |bits| -> Result<Box<dyn Codec>> {
        let codes = codes.clone().with_latent_bits(bits)?;
        Ok(Box::new(CodeCodec::lossless(codes, device)))
    };
    bits.map(codec).collect()
}

fn nelbo<V: Vae>(model: &V, x: Tensor<4>, rng: &mut Rng) -> Tensor<1> {
    let bound = model.forward(x.clone(), &Condition::none(), rng).elbo(x);
    bound.kl - bound.log_likelihood
}

/// Prints the warnings of a model that was opened.
fn with_warnings<T>(loaded: Loaded<T>) -> T {
    for warning in loaded.warnings() {
        eprintln!("{warning}");
    }
    loaded.into_inner()
}
