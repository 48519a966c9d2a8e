//! Compression of images with latent-variable models.
//!
//! | codec | method | use |
//! |---|---|---|
//! | [`BitsBack`] | lossless, bits-back coding with Gaussian latents | many images in one file |
//! | [`CodeCodec::lossless`] | lossless, codes and pixels given the codes | single images |
//! | [`CodeCodec::lossy`] | lossy, codes only | smallest files |
//!
//! The codes of the last two are those of any [`CodeModel`]: [`GaussianCodes`] for models with
//! Gaussian latents, [`DiscreteCodes`] for models with codebooks.
//!
//! | file | content |
//! |---|---|
//! | `rans` | the entropy coder, a stack |
//! | `tables` | integer frequencies: of alphabets, of latents in bins, of pixels |
//! | `bits_back` | bits-back coding |
//! | `codes` | coding of discrete latents |
//! | `container` | the file format |
//!
//! ```
//! use aigc_core::{data::digits, device::device, rng::InitWeights};
//! use aigc_vae::{LikelihoodKind, MlpVaeConfig};
//! use aigc_vae::compress::{self, BitsBack};
//!
//! # fn main() -> aigc_core::Result<()> {
//! let device = device("flex")?;
//! let config = MlpVaeConfig {
//!     likelihood: LikelihoodKind::LogisticMixture { components: 2 },
//!     ..MlpVaeConfig::new(digits::SHAPE)
//! };
//! // An untrained model compresses nothing.
//! let model = config.init(&device)?.init_weights(0);
//! let codec = BitsBack::new(&model, &device)?;
//! let images = &digits::load().0[..3];
//! let file = compress::encode(&codec, images)?;
//! let decoded = compress::decode(&codec, &file)?;
//! assert_eq!(decoded[2].pixels, images[2].pixels);
//! # Ok(()) }
//! ```
//!
//! # Determinism
//!
//! The decoder has to compute the same integer frequencies as the encoder. A network's outputs are
//! only reproducible with the same weights, backend, kind of machine and number of threads: sums of
//! floating-point numbers depend on their order. Therefore
//!
//! - encoder and decoder evaluate a network for one image at a time, with the same inputs;
//! - outputs are rounded to a coarse grid, and all that follows is computed on the host in a way
//!   that is the same everywhere. Most differences in the last digits vanish. An output close to
//!   the middle between two grid points can still be rounded to either: about one output in 16,000,
//!   for differences of 1e-6 and a grid of 1/32;
//! - a file contains a fingerprint of the weights and a checksum of the decoded images. A decoder
//!   with other weights, or whose frequencies differ, returns an error that says so, and never a
//!   wrong image;
//! - the checksum of a lossy file is that of the codes, so that the last digits of a reconstruction
//!   may differ. A model with the same weights and another configuration (an activation, a
//!   likelihood, levels of a quantiser) is not noticed if it reads the same codes.
//!
//! To archive images, keep the program and the machine together with the weights, or another copy
//! of the images.

mod bits_back;
mod codes;
mod container;
mod rans;
mod tables;

pub use bits_back::{BitsBack, ChooseLatents, GaussianLatents};
pub use codes::{
    CodeCodec, CodeFrequencies, CodeModel, DiscreteCodes, GaussianCodes, NextCode, PriorCodes,
    UniformCodes,
};
pub use container::{CompressedImages, Fingerprint, Method, crc32};
pub use rans::{Interval, MAX_PRECISION, Rans};
pub use tables::{
    FrequencyTable, LatentBins, MAX_LATENT_BITS, MAX_SYMBOLS, PRECISION, PixelTables,
};

use crate::Vae;
use aigc_core::{
    DataFault, Error, Result,
    check::ensure_argument,
    data::{Image, ImageShape},
};
use burn::tensor::{Device, Tensor, TensorData};

/// A way to compress images of one shape.
pub trait Codec {
    /// The method, which a file names.
    fn method(&self) -> Method;

    /// Bits per latent, which a file names; 0 for the codes of codebooks.
    fn latent_bits(&self) -> u8;

    /// Shape of the images.
    fn image_shape(&self) -> ImageShape;

    /// Identifies the weights of the model.
    fn fingerprint(&self) -> Fingerprint;

    /// Pushes an image, so that [`pop`](Self::pop) returns it. Returns a checksum of what is
    /// decoded exactly: the pixels, or the codes of a lossy codec.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the image cannot be coded by the likelihood of the model, or
    /// the outputs of the model are not finite.
    ///
    /// # Panics
    /// If the number of pixels is not that of the shape.
    fn push(&self, pixels: &[u8], rans: &mut Rans) -> Result<u32>;

    /// Pops an image. Returns it and the checksum of [`push`](Self::push).
    ///
    /// # Errors
    /// If the outputs of the model are not finite.
    fn pop(&self, rans: &mut Rans) -> Result<(Vec<u8>, u32)>;

    /// The stack that the first image is pushed onto, by default an empty one.
    fn stack(&self) -> Rans {
        Rans::new()
    }
}

/// Compresses images.
///
/// # Errors
/// [`Error::InvalidArgument`] if there are no images, one does not have the codec's shape, or a
/// file cannot hold them: a side has at most 2¹⁶ pixels, an image 2²⁸ values, and all coded symbols
/// together less than 2³² bytes; errors of [`Codec::push`].
pub fn encode(codec: &dyn Codec, images: &[Image]) -> Result<CompressedImages> {
    let shape = codec.image_shape();
    container::check_shape(shape)?;
    ensure_argument(
        (1..=u32::MAX as usize).contains(&images.len()),
        "number of images",
        images.len(),
        "1 to 4294967295",
    )?;
    for image in images {
        let expected = format!("{shape}, the shape of the model's samples");
        ensure_argument(
            image.shape == shape,
            "shape of an image",
            image.shape,
            &expected,
        )?;
        let values = image.pixels.len();
        let expected = format!("{}, for an image of {shape}", shape.numel());
        ensure_argument(
            values == shape.numel(),
            "number of pixels",
            values,
            &expected,
        )?;
    }
    let mut rans = codec.stack();
    let mut checksums = vec![0; images.len()];
    // The last image comes first, so that they are popped in order.
    for (image, checksum) in images.iter().zip(&mut checksums).rev() {
        *checksum = codec.push(&image.pixels, &mut rans)?;
        rans.push_bits(MARK, 1);
    }
    let payload = rans.to_bytes();
    container::check_length(payload.len() as u64)?;
    let most = container::max_images(payload.len());
    let expected = format!("at most {most} in {} bytes", payload.len());
    ensure_argument(
        images.len() <= most,
        "number of images",
        images.len(),
        &expected,
    )?;
    Ok(CompressedImages {
        method: codec.method(),
        latent_bits: codec.latent_bits(),
        fingerprint: codec.fingerprint(),
        shape,
        count: images.len(),
        checksum: combined(&checksums),
        payload,
        source: CompressedImages::IN_MEMORY.into(),
    })
}

/// Decompresses images. They have no labels.
///
/// # Errors
/// [`Error::Data`] with the file if it was written by another codec or with other weights, if its
/// symbols are damaged, or if the model computes other frequencies here than at the time of
/// compression; errors of [`Codec::pop`].
pub fn decode(codec: &dyn Codec, file: &CompressedImages) -> Result<Vec<Image>> {
    let fault = |fault: DataFault| Error::data(&file.source, fault);
    let mismatch = |reason: String| fault(DataFault::Mismatch(reason));
    let (method, bits) = (codec.method(), codec.latent_bits());
    if (file.method, file.latent_bits) != (method, bits) {
        return Err(mismatch(format!(
            "{} with {} bits per latent; the decoder is for {method} files with {bits}",
            file.method, file.latent_bits
        )));
    }
    if file.shape != codec.image_shape() {
        return Err(mismatch(format!(
            "images of {}; those of the model have {}",
            file.shape,
            codec.image_shape()
        )));
    }
    if file.fingerprint != codec.fingerprint() {
        return Err(mismatch(format!(
            "compressed with weights of fingerprint {}, this model has {}; open the model that the \
             images were compressed with",
            file.fingerprint,
            codec.fingerprint()
        )));
    }
    let mut rans = Rans::from_bytes(&file.payload).map_err(fault)?;
    // The images grow one by one, so that a false number costs no more than those before the error.
    let (mut images, mut checksums) = (Vec::new(), Vec::new());
    for index in 0..file.count {
        if rans.pop_bits(1) != MARK {
            let reason = format!("damaged before image {index}{DIFFERENT}");
            return Err(fault(DataFault::Decode(reason)));
        }
        let (pixels, checksum) = codec.pop(&mut rans)?;
        checksums.push(checksum);
        images.push(Image {
            shape: file.shape,
            pixels,
            label: None,
        });
    }
    let found = combined(&checksums);
    if found != file.checksum {
        let reason = format!(
            "the decoded images have the checksum {found:08x} and not {:08x}{DIFFERENT}",
            file.checksum
        );
        return Err(fault(DataFault::Decode(reason)));
    }
    Ok(images)
}

/// The codec for files of this method and number of bits per latent, with a model with Gaussian
/// latents.
///
/// # Errors
/// [`Error::InvalidArgument`] unless `latent_bits` is 1 to [`MAX_LATENT_BITS`];
/// [`Error::Config`] if the samples of the model are not images, or it has a condition.
pub fn gaussian_codec<M, const Z: usize>(
    model: &M,
    device: &Device,
    method: Method,
    latent_bits: u8,
) -> Result<Box<dyn Codec>>
where
    M: GaussianLatents<Z> + 'static,
{
    let codes = || GaussianCodes::<M, Z>::new(model)?.with_latent_bits(latent_bits);
    Ok(match method {
        Method::BitsBack => {
            Box::new(BitsBack::<M, Z>::new(model, device)?.with_latent_bits(latent_bits)?)
        }
        Method::Lossless => Box::new(CodeCodec::lossless(codes()?, device)),
        Method::Lossy => Box::new(CodeCodec::lossy(codes()?, device)),
    })
}

/// Precedes every image, so that each costs at least a bit.
const MARK: u32 = 1;

/// The second cause of damaged images.
const DIFFERENT: &str = ": the file was altered, or the model computes other frequencies here than \
                         at the time of compression; decode on the same kind of machine, with the \
                         same backend and number of threads";

/// One checksum of the checksums of all images.
fn combined(checksums: &[u32]) -> u32 {
    let bytes: Vec<u8> = checksums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
    crc32(&bytes)
}

/// The shape of the images of a model that codecs work with: its samples are images, and it has no
/// condition, without which it would work with its null condition.
fn shape_of_images<V: Vae<4, Z>, const Z: usize>(model: &V) -> Result<ImageShape> {
    let condition = model.condition_kind();
    condition.ensure_none("images are compressed without a condition")?;
    let samples = model.sample_shape();
    let expected = "channels, height and width: only images are compressed";
    let shape = samples.as_image();
    shape.ok_or_else(|| Error::config("shape of the samples", samples, expected))
}

/// One image as a batch, in `[0, 1]`.
///
/// # Panics
/// If the number of pixels is not that of the shape.
fn image_tensor(pixels: &[u8], shape: ImageShape, device: &Device) -> Tensor<4> {
    let values: Vec<f32> = pixels.iter().map(|p| f32::from(*p) / 255.0).collect();
    let dims = [1, shape.channels, shape.height, shape.width];
    Tensor::from_data(TensorData::new(values, dims), device)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{ConditionKind, HierarchicalVaeConfig, LikelihoodKind, MlpVae, MlpVaeConfig};
    use aigc_core::{data::digits, rng::InitWeights};

    fn vae(seed: u64) -> MlpVae {
        let config = MlpVaeConfig {
            hidden_dim: 16,
            latent_dim: 3,
            likelihood: LikelihoodKind::Bernoulli,
            ..MlpVaeConfig::new(digits::SHAPE)
        };
        config.init(&Device::flex()).unwrap().init_weights(seed)
    }

    fn codec(seed: u64, method: Method) -> Box<dyn Codec> {
        gaussian_codec(&vae(seed), &Device::flex(), method, 5).unwrap()
    }

    fn images(n: usize) -> Vec<Image> {
        let mut images: Vec<Image> = digits::load().0.into_iter().take(n).collect();
        for pixel in images.iter_mut().flat_map(|image| &mut image.pixels) {
            *pixel = if *pixel < 128 { 0 } else { 255 };
        }
        images
    }

    const METHODS: [Method; 3] = [Method::BitsBack, Method::Lossless, Method::Lossy];

    #[test]
    fn files_are_restored_in_order() {
        for method in METHODS {
            let codec = codec(1, method);
            let images = images(6);
            let file = encode(&*codec, &images).unwrap();
            let read = CompressedImages::parse(&file.to_bytes()).unwrap();
            let decoded = decode(&*codec, &read).unwrap();
            assert_eq!(decoded.len(), 6);
            for (image, decoded) in images.iter().zip(&decoded) {
                let same = decoded.pixels == image.pixels;
                assert!(same || method == Method::Lossy, "{method}");
                assert_eq!((decoded.shape, decoded.label), (image.shape, None));
            }
            // The same file every time.
            assert_eq!(
                encode(&*codec, &images).unwrap().to_bytes(),
                file.to_bytes()
            );
        }
    }

    /// Every change of a byte and every truncation of a file is noticed before anything is decoded.
    #[test]
    fn every_altered_or_truncated_file_is_an_error() {
        for method in METHODS {
            let bytes = encode(&*codec(1, method), &images(2)).unwrap().to_bytes();
            for end in 0..bytes.len() {
                assert!(
                    CompressedImages::parse(&bytes[..end]).is_err(),
                    "{method} {end}"
                );
            }
            for at in 0..bytes.len() {
                for change in 1..=255 {
                    let mut altered = bytes.clone();
                    altered[at] ^= change;
                    let parsed = CompressedImages::parse(&altered);
                    assert!(parsed.is_err(), "{method} {at} {change}");
                }
            }
        }
    }

    /// Altered symbols in a file whose checksum was corrected. Some bits at the bottom of the stack
    /// have no meaning: initial random bits, and those that choose one of the numbers of a symbol.
    #[test]
    fn altered_symbols_are_an_error_or_without_effect() {
        for method in METHODS {
            let codec = codec(1, method);
            let file = encode(&*codec, &images(2)).unwrap();
            let expected: Vec<Vec<u8>> = decode(&*codec, &file)
                .unwrap()
                .into_iter()
                .map(|image| image.pixels)
                .collect();
            let mut errors = 0;
            for at in 0..file.payload.len() {
                for change in [1, 0x10, 0x80] {
                    let mut altered = file.clone();
                    altered.payload[at] ^= change;
                    match decode(&*codec, &altered) {
                        Err(_) => errors += 1,
                        Ok(images) => {
                            assert!(images.iter().map(|image| &image.pixels).eq(&expected));
                        }
                    }
                }
            }
            assert!(2 * errors > file.payload.len(), "{method}: {errors}");
            // More images than the file has, and other symbols.
            let mut more = file.clone();
            more.count = 9;
            assert!(decode(&*codec, &more).is_err());
            more.count = container::max_images(file.payload.len());
            assert!(decode(&*codec, &more).is_err());
            for length in 1..20 {
                let mut other = file.clone();
                other.payload = (0..length).map(|i| (i * 89 + 7) as u8 | 1).collect();
                assert!(decode(&*codec, &other).is_err(), "{method} {length}");
            }
        }
    }

    #[test]
    fn files_of_other_models_are_refused_with_the_reason() {
        let file = encode(&*codec(1, Method::Lossless), &images(1)).unwrap();
        let message = |codec: &dyn Codec, file: &CompressedImages| {
            decode(codec, file).unwrap_err().to_string()
        };
        let other = codec(2, Method::Lossless);
        let refused = message(&*other, &file);
        assert!(
            refused.contains("compressed images: compressed with weights"),
            "{refused}"
        );
        // The checksum notices other frequencies even if the fingerprint does not.
        let mut forged = file.clone();
        forged.fingerprint = other.fingerprint();
        let refused = message(&*other, &forged);
        assert!(
            refused.contains("same backend and number of threads"),
            "{refused}"
        );
        let refused = message(&*codec(1, Method::Lossy), &file);
        assert!(
            refused.contains("lossless with 5 bits per latent"),
            "{refused}"
        );
        let finer = gaussian_codec(&vae(1), &Device::flex(), Method::Lossless, 6).unwrap();
        let refused = message(&*finer, &file);
        assert!(
            refused.contains("the decoder is for lossless files with 6"),
            "{refused}"
        );
        let mut wide = file.clone();
        wide.shape.width = 9;
        let refused = message(&*codec(1, Method::Lossless), &wide);
        assert!(refused.contains("images of 1×8×9"), "{refused}");
    }

    #[test]
    fn unusable_images_are_refused() {
        let codec = codec(1, Method::BitsBack);
        let refused = |images: &[Image]| encode(&*codec, images).unwrap_err().to_string();
        let message = refused(&[]);
        assert!(message.contains("`number of images` is 0"), "{message}");
        let mut image = images(1).remove(0);
        image.pixels[3] = 100;
        let message = refused(std::slice::from_ref(&image));
        assert!(message.contains("`pixels` is 100"), "{message}");
        image.pixels.pop();
        let message = refused(std::slice::from_ref(&image));
        assert!(
            message.contains("`number of pixels` is 63, expected 64"),
            "{message}"
        );
        image.shape = ImageShape::new(1, 7, 9);
        let message = refused(&[image]);
        assert!(message.contains("expected 1×8×8"), "{message}");
        for bits in [0, 13] {
            let model = vae(1);
            let wrong = gaussian_codec(&model, &Device::flex(), Method::Lossy, bits);
            assert!(wrong.is_err());
        }
    }

    /// Without a condition, these models would work with their null condition.
    #[test]
    fn conditional_models_are_refused() {
        fn check<M: GaussianLatents + 'static>(model: &M, device: &Device) {
            for method in METHODS {
                let Err(error) = gaussian_codec::<M, 2>(model, device, method, 5) else {
                    panic!("{method}");
                };
                let message = error.to_string();
                assert!(
                    message.contains("`condition` is ConditionKind")
                        && message.contains("expected none"),
                    "{message}"
                );
            }
        }

        let device = Device::flex();
        let classes = ConditionKind {
            num_classes: Some(3),
            ..ConditionKind::default()
        };
        let vectors = ConditionKind {
            cross_attention_dim: Some(3),
            ..ConditionKind::default()
        };
        for condition in [classes, vectors] {
            let config = MlpVaeConfig {
                condition,
                hidden_dim: 16,
                ..MlpVaeConfig::new(digits::SHAPE)
            };
            check(&config.init(&device).unwrap(), &device);
        }
        let hierarchical = HierarchicalVaeConfig {
            num_classes: Some(3),
            ..HierarchicalVaeConfig::new(digits::SHAPE)
        };
        check(&hierarchical.init(&device).unwrap(), &device);
    }

    /// A codec of black images of this shape, without a single bit.
    struct Black(ImageShape);

    impl Codec for Black {
        fn method(&self) -> Method {
            Method::Lossless
        }

        fn latent_bits(&self) -> u8 {
            0
        }

        fn image_shape(&self) -> ImageShape {
            self.0
        }

        fn fingerprint(&self) -> Fingerprint {
            Fingerprint::of(&vae(1))
        }

        fn push(&self, _pixels: &[u8], _rans: &mut Rans) -> Result<u32> {
            Ok(0)
        }

        fn pop(&self, _rans: &mut Rans) -> Result<(Vec<u8>, u32)> {
            Ok((vec![0; self.0.numel()], 0))
        }
    }

    fn black(shape: ImageShape) -> Image {
        Image {
            shape,
            pixels: vec![0; shape.numel()],
            label: None,
        }
    }

    /// The reader would refuse their files.
    #[test]
    fn shapes_beyond_the_limits_of_files_are_refused() {
        for shape in [
            ImageShape::new(1, 1, (1 << 16) + 1),
            ImageShape::new(1, 8, 0),
        ] {
            let image = black(shape);
            let message = encode(&Black(shape), &[image]).unwrap_err().to_string();
            let expected = format!(
                "`shape of the images` is {shape}, expected sides of 1 to 65536, and at most \
                 268435456 values"
            );
            assert!(message.contains(&expected), "{message}");
        }
        // The largest side.
        let shape = ImageShape::new(1, 1, 1 << 16);
        let file = encode(&Black(shape), &[black(shape)]).unwrap();
        let read = CompressedImages::parse(&file.to_bytes()).unwrap();
        assert_eq!(decode(&Black(shape), &read).unwrap()[0].shape, shape);
    }

    /// Images that cost nothing still have a bit each, so that a file cannot claim any number.
    #[test]
    fn images_without_information_cost_a_bit_each() {
        let image = black(digits::SHAPE);
        let codec = Black(digits::SHAPE);
        let mut file = encode(&codec, &vec![image; 4000]).unwrap();
        assert!(
            (500..=504).contains(&file.payload.len()),
            "{}",
            file.payload.len()
        );
        let read = CompressedImages::parse(&file.to_bytes()).unwrap();
        assert_eq!(decode(&codec, &read).unwrap().len(), 4000);
        file.count = 4002;
        assert!(decode(&codec, &file).is_err());
    }
}
