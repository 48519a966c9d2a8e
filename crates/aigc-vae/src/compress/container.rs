//! The file format of compressed images.
//!
//! | bytes | content |
//! |---|---|
//! | 4 | `AIGC` |
//! | 1 | version of the format, 1 |
//! | 1 | [`Method`]: 1 bits-back, 2 lossless, 3 lossy |
//! | 1 | bits per latent, 0 for the codes of a codebook |
//! | 4 | [`Fingerprint`] of the weights |
//! | 3 to 9 | channels, height and width of an image, as LEB128 integers |
//! | 1 to 5 | number of images, as LEB128 |
//! | 1 to 5 | bytes of coded symbols, as LEB128 |
//! | … | the coded symbols |
//! | 4 | checksum of the decoded images, little-endian |
//! | 4 | CRC-32 of all bytes before, little-endian |

use aigc_core::{
    DataFault, Error, Result,
    check::ensure_argument,
    data::ImageShape,
    fs::write_atomic,
    params::{ParamVisitor, visit_params},
};
use burn::{
    module::{Module, Param},
    tensor::Tensor,
};
use sha2::{Digest, Sha256};
use std::{
    fmt::{self, Display},
    path::{Path, PathBuf},
};

const MAGIC: [u8; 4] = *b"AIGC";
const VERSION: u8 = 1;
/// Bytes of a file without its integers and its symbols.
const FIXED: usize = 4 + 3 + 4 + CHECKSUMS;
const CHECKSUMS: usize = 8;

/// The most images for each byte of coded symbols. Every image costs a bit, so that a file that is
/// true to its header always has fewer.
const IMAGES_PER_BYTE: usize = 16;

/// The largest side of an image, and the largest number of its channels.
const MAX_SIDE: usize = 1 << 16;
/// The largest number of values of an image.
const MAX_VALUES: usize = 1 << 28;

/// How images are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// Lossless, with latents drawn by the bits of the images before.
    BitsBack,
    /// Lossless: codes, and pixels given the codes.
    Lossless,
    /// Codes only.
    Lossy,
}

impl Method {
    const ALL: [(u8, Self); 3] = [(1, Self::BitsBack), (2, Self::Lossless), (3, Self::Lossy)];

    fn to_byte(self) -> u8 {
        let found = Self::ALL.iter().find(|(_, method)| *method == self);
        found.expect("every method has a number").0
    }

    fn from_byte(byte: u8) -> Option<Self> {
        let found = Self::ALL.iter().find(|(number, _)| *number == byte);
        found.map(|(_, method)| *method)
    }
}

impl Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BitsBack => "bits-back",
            Self::Lossless => "lossless",
            Self::Lossy => "lossy",
        })
    }
}

/// Identifies the weights of a model: the first 4 bytes of a SHA-256 of the paths, shapes and
/// values of all float tensors. Configurations do not count: an activation, a likelihood or the
/// levels of a quantiser can differ between models with the same weights. The checksum of a
/// lossless file notices that; the checksum of a lossy file is that of the codes, which such a
/// model may decode to other images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 4]);

impl Fingerprint {
    /// The fingerprint of the weights of `model`, the same on every device.
    pub fn of<M: Module>(model: &M) -> Self {
        struct Hash(Sha256);

        impl ParamVisitor for Hash {
            fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
                let value = param.val();
                self.0.update(path.as_bytes());
                // The first byte is in no path.
                self.0.update([0xff, D as u8]);
                for side in value.dims() {
                    self.0.update((side as u64).to_le_bytes());
                }
                let values = value.into_data();
                let bytes: Vec<u8> = values.iter::<f32>().flat_map(f32::to_le_bytes).collect();
                self.0.update(&bytes);
            }
        }

        let mut hash = Hash(Sha256::new());
        visit_params(&model.valid(), &mut hash);
        Self::from_digest(hash.0)
    }

    /// The fingerprint of two models that are used together.
    pub fn and(self, other: Self) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(other.0);
        Self::from_digest(hash)
    }

    fn from_digest(hash: Sha256) -> Self {
        let digest: [u8; 32] = hash.finalize().into();
        Self(std::array::from_fn(|i| digest[i]))
    }
}

impl Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Compressed images, as in a file.
#[derive(Clone, Debug)]
pub struct CompressedImages {
    /// How the images are compressed.
    pub method: Method,
    /// Bits per latent; 0 for the codes of a codebook.
    pub latent_bits: u8,
    /// The weights that the images were compressed with.
    pub fingerprint: Fingerprint,
    /// Shape of each image.
    pub shape: ImageShape,
    /// Number of images.
    pub count: usize,
    /// Checksum of the decoded images; for [`Method::Lossy`], of their codes.
    pub checksum: u32,
    /// The coded symbols, [`Rans::to_bytes`](super::Rans::to_bytes).
    pub payload: Vec<u8>,
    /// Where they were read from.
    pub(super) source: PathBuf,
}

impl CompressedImages {
    /// Where images are that were not read from a file.
    pub(super) const IN_MEMORY: &str = "compressed images";

    /// Reads the content of a file. Allocates no more than `bytes` has; the images are at most 16
    /// for each byte of coded symbols.
    ///
    /// # Errors
    /// A [`DataFault`] if the bytes are truncated, altered, or those of another format.
    pub fn parse(bytes: &[u8]) -> Result<Self, DataFault> {
        let mut reader = Reader { bytes, at: 0 };
        let magic: [u8; 4] = reader.array()?;
        if magic != MAGIC {
            return Err(DataFault::WrongMagic {
                found: u32::from_be_bytes(magic),
                expected: "0x41494743, the letters AIGC",
            });
        }
        let [version, method, latent_bits] = reader.array()?;
        if version != VERSION {
            let reason = format!("version {version} of the format, expected {VERSION}");
            return Err(DataFault::BadHeader(reason));
        }
        let Some(method) = Method::from_byte(method) else {
            let reason = format!("method {method}, expected 1 to 3");
            return Err(DataFault::BadHeader(reason));
        };
        let fingerprint = Fingerprint(reader.array()?);
        let sides = [reader.integer()?, reader.integer()?, reader.integer()?];
        let count = reader.integer()? as usize;
        let length = reader.integer()? as usize;
        let expected = reader.at as u64 + length as u64 + CHECKSUMS as u64;
        let found = bytes.len() as u64;
        if found < expected {
            return Err(DataFault::Truncated { expected, found });
        }
        if found > expected {
            return Err(DataFault::Oversized { expected });
        }
        let payload = reader.take(length)?;
        let checksum = u32::from_le_bytes(reader.array()?);
        let sealed = crc32(&bytes[..reader.at]);
        let stored = u32::from_le_bytes(reader.array()?);
        if sealed != stored {
            return Err(DataFault::Decode(format!(
                "the bytes have the checksum {sealed:08x} and not {stored:08x}, which the file \
                 ends in: the file was altered"
            )));
        }
        let [channels, height, width] = sides.map(|side| side as usize);
        let shape = ImageShape::new(channels, height, width);
        if !fits(shape) {
            return Err(DataFault::BadHeader(format!("images of {shape}")));
        }
        let most = max_images(length);
        if !(1..=most).contains(&count) {
            let reason = format!("{count} images in {length} bytes, expected 1 to {most}");
            return Err(DataFault::BadHeader(reason));
        }
        Ok(Self {
            method,
            latent_bits,
            fingerprint,
            shape,
            count,
            checksum,
            payload: payload.to_vec(),
            source: Self::IN_MEMORY.into(),
        })
    }

    /// The content of a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED + 19 + self.payload.len());
        bytes.extend(MAGIC);
        bytes.extend([VERSION, self.method.to_byte(), self.latent_bits]);
        bytes.extend(self.fingerprint.0);
        let ImageShape {
            channels,
            height,
            width,
        } = self.shape;
        for number in [channels, height, width, self.count, self.payload.len()] {
            push_integer(&mut bytes, number);
        }
        bytes.extend(&self.payload);
        bytes.extend(self.checksum.to_le_bytes());
        let sealed = crc32(&bytes);
        bytes.extend(sealed.to_le_bytes());
        bytes
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Data`] if [`parse`](Self::parse) fails.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let images = Self::parse(&bytes).map_err(|fault| Error::data(path, fault))?;
        Ok(Self {
            source: path.into(),
            ..images
        })
    }

    /// Writes a file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        write_atomic(path.as_ref(), &self.to_bytes())
    }
}

/// The largest number of images that `length` bytes of coded symbols are believed to hold.
pub(super) fn max_images(length: usize) -> usize {
    length.saturating_mul(IMAGES_PER_BYTE)
}

/// Whether files hold images of this shape.
fn fits(shape: ImageShape) -> bool {
    let sides = [shape.channels, shape.height, shape.width];
    let values = (sides.iter()).try_fold(1usize, |values, side| values.checked_mul(*side));
    sides.iter().all(|side| (1..=MAX_SIDE).contains(side))
        && values.is_some_and(|values| values <= MAX_VALUES)
}

/// Fails unless files hold images of this shape.
pub(super) fn check_shape(shape: ImageShape) -> Result<()> {
    let expected = format!("sides of 1 to {MAX_SIDE}, and at most {MAX_VALUES} values");
    ensure_argument(fits(shape), "shape of the images", shape, &expected)
}

/// Fails unless a file holds this number of bytes of coded symbols.
pub(super) fn check_length(length: u64) -> Result<()> {
    let most = u64::from(u32::MAX);
    let expected = format!("at most {most}: divide the images among several files");
    ensure_argument(length <= most, "bytes of coded symbols", length, &expected)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], DataFault> {
        let rest = &self.bytes[self.at..];
        if rest.len() < length {
            return Err(DataFault::Truncated {
                expected: (self.at as u64).saturating_add(length as u64),
                found: self.bytes.len() as u64,
            });
        }
        self.at += length;
        Ok(&rest[..length])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DataFault> {
        let bytes = self.take(N)?;
        Ok(std::array::from_fn(|i| bytes[i]))
    }

    /// An integer of up to 32 bits as LEB128, in its shortest form.
    fn integer(&mut self) -> Result<u32, DataFault> {
        let mut value = 0u64;
        for index in 0..5 {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                if byte == 0 && index > 0 {
                    break;
                }
                return u32::try_from(value)
                    .map_err(|_| DataFault::BadHeader(format!("the integer {value}")));
            }
        }
        let reason = format!("no integer of 32 bits before byte {}", self.at);
        Err(DataFault::BadHeader(reason))
    }
}

/// Appends an integer as LEB128.
fn push_integer(bytes: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// CRC-32 with the polynomial of gzip and PNG (ISO 3309). It detects every alteration of up to 32
/// neighbouring bits.
pub fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let (mut crc, mut bit) = (byte as u32, 0);
            while bit < 8 {
                crc = if crc & 1 == 1 {
                    0xedb8_8320 ^ (crc >> 1)
                } else {
                    crc >> 1
                };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    let update = |crc: u32, byte: &u8| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
    !bytes.iter().fold(u32::MAX, update)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        nn::{Linear, LinearConfig},
        rng::{InitWeights, Rng},
    };
    use burn::tensor::Device;

    fn images() -> CompressedImages {
        CompressedImages {
            method: Method::Lossless,
            latent_bits: 5,
            fingerprint: Fingerprint([1, 2, 3, 200]),
            shape: ImageShape::new(3, 300, 17),
            count: 130,
            checksum: 0xdead_beef,
            payload: (1..=40).collect(),
            source: CompressedImages::IN_MEMORY.into(),
        }
    }

    #[test]
    fn crc32_matches_published_values() {
        assert_eq!(crc32(b""), 0);
        // The check value of the catalogue of parametrised CRC algorithms.
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(
            crc32(b"The quick brown fox jumps over the lazy dog"),
            0x414f_a339
        );
    }

    #[test]
    fn files_are_read_as_written() {
        let images = images();
        let bytes = images.to_bytes();
        // 3 and 17 take one byte each, 300 and 130 two, 40 one.
        assert_eq!(bytes.len(), FIXED + 7 + 40);
        let read = CompressedImages::parse(&bytes).unwrap();
        assert_eq!(
            (read.method, read.latent_bits, read.fingerprint, read.shape),
            (
                images.method,
                images.latent_bits,
                images.fingerprint,
                images.shape
            )
        );
        assert_eq!(
            (read.count, read.checksum, &read.payload),
            (images.count, images.checksum, &images.payload)
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images.aigc");
        images.write(&path).unwrap();
        let read = CompressedImages::read(&path).unwrap();
        assert_eq!((read.to_bytes(), read.source), (bytes, path.clone()));
        std::fs::write(&path, b"no images").unwrap();
        let message = CompressedImages::read(&path).unwrap_err().to_string();
        assert!(
            message.contains("images.aigc: wrong magic number"),
            "{message}"
        );
    }

    #[test]
    fn every_alteration_and_every_truncation_is_an_error() {
        let bytes = images().to_bytes();
        for end in 0..bytes.len() {
            let fault = CompressedImages::parse(&bytes[..end]).unwrap_err();
            assert!(
                matches!(fault, DataFault::Truncated { .. }),
                "{end}: {fault}"
            );
        }
        let longer = CompressedImages::parse(&[&bytes[..], &[0]].concat()).unwrap_err();
        assert!(matches!(longer, DataFault::Oversized { .. }));
        for at in 0..bytes.len() {
            for change in 1..=255 {
                let mut altered = bytes.clone();
                altered[at] ^= change;
                assert!(CompressedImages::parse(&altered).is_err(), "{at} {change}");
            }
        }
    }

    /// Replaces the checksum at the end, as a hostile writer would.
    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let content = bytes.len() - 4;
        let crc = crc32(&bytes[..content]);
        bytes[content..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn hostile_headers_are_errors_before_anything_is_allocated() {
        let fault = |edit: fn(&mut CompressedImages)| {
            let mut images = images();
            edit(&mut images);
            CompressedImages::parse(&images.to_bytes())
                .unwrap_err()
                .to_string()
        };
        let huge = u32::MAX as usize;
        for (message, expected) in [
            (fault(|i| i.count = u32::MAX as usize), "images in 40 bytes"),
            (fault(|i| i.count = 16 * 40 + 1), "641 images in 40 bytes"),
            (fault(|i| i.count = 0), "0 images"),
            (fault(|i| i.shape.width = 0), "images of 3×300×0"),
            (fault(|i| i.shape.width = 1 << 17), "images of 3×300×131072"),
            (
                fault(|i| i.shape = ImageShape::new(1, 1 << 16, 1 << 16)),
                "images of 1×65536×65536",
            ),
            (fault(|i| i.payload.clear()), "images in 0 bytes"),
        ] {
            assert!(message.contains(expected), "{message}");
        }
        // A length of the symbols beyond the end of the file.
        let bytes = images().to_bytes();
        let before = bytes.len() - 40 - CHECKSUMS - 1;
        let mut long = bytes[..before].to_vec();
        push_integer(&mut long, huge);
        long.extend(&bytes[before + 1..]);
        let fault = CompressedImages::parse(&sealed(long)).unwrap_err();
        let expected = (bytes.len() + 4 - 40 + huge) as u64;
        let found = (bytes.len() + 4) as u64;
        assert_eq!(fault, DataFault::Truncated { expected, found });
        // Integers of more than 32 bits, without an end, and not in their shortest form.
        for integer in [
            &[0xff, 0xff, 0xff, 0xff, 0x7f][..],
            &[0xff; 6],
            &[0xa8, 0x80, 0x00],
        ] {
            let file = [&bytes[..before], integer, &bytes[before + 1..]].concat();
            let fault = CompressedImages::parse(&sealed(file)).unwrap_err();
            assert!(matches!(fault, DataFault::BadHeader(_)), "{fault}");
        }
        for (at, value, expected) in [(4, 2, "version 2"), (5, 0, "method 0"), (5, 9, "method 9")] {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            let fault = CompressedImages::parse(&sealed(bytes)).unwrap_err();
            assert!(fault.to_string().contains(expected), "{fault}");
        }
    }

    /// The writer refuses what the reader refuses.
    #[test]
    fn limits_of_the_reader_are_those_of_the_writer() {
        for (shape, fits) in [
            (ImageShape::new(1, 1 << 16, 1 << 12), true),
            (ImageShape::new(1, 1 << 16, (1 << 12) + 1), false),
            (ImageShape::new(1, (1 << 16) + 1, 1), false),
            (ImageShape::new(1, 8, 0), false),
            (ImageShape::new(usize::MAX, 2, 2), false),
        ] {
            assert_eq!(check_shape(shape).is_ok(), fits, "{shape}");
            if shape.channels == 1 {
                let file = CompressedImages { shape, ..images() };
                let parsed = CompressedImages::parse(&file.to_bytes());
                assert_eq!(parsed.is_ok(), fits, "{shape}");
            }
        }
        assert!(check_length(u64::from(u32::MAX)).is_ok());
        let message = check_length(1 << 32).unwrap_err().to_string();
        let expected = "`bytes of coded symbols` is 4294967296, expected at most 4294967295";
        assert!(message.contains(expected), "{message}");
    }

    /// Bytes after the magic number and the version, with a right checksum, are never a panic.
    #[test]
    fn any_bytes_are_images_or_an_error() {
        let mut rng = Rng::new(1);
        for _ in 0..2000 {
            let length = rng.random_index(60);
            let random = (0..length).map(|_| match rng.random_index(3) {
                0 => rng.random_index(4) as u8,
                _ => rng.next_u64() as u8,
            });
            let bytes = [&b"AIGC\x01"[..], &random.collect::<Vec<_>>(), &[0; 4]].concat();
            if let Ok(images) = CompressedImages::parse(&sealed(bytes.clone())) {
                assert_eq!(images.to_bytes(), sealed(bytes));
            }
        }
    }

    #[test]
    fn fingerprints_identify_weights() {
        let linear = |seed| -> Linear {
            LinearConfig::new(3, 2)
                .init(&Device::flex())
                .init_weights(seed)
        };
        let of = |model: &Linear| Fingerprint::of(model);
        assert_eq!(of(&linear(1)), of(&linear(1)));
        assert_ne!(of(&linear(1)), of(&linear(2)));
        assert_eq!(of(&linear(1).train()), of(&linear(1)));
        let one_changed = Linear {
            bias: linear(1).bias.map(|bias| bias.map(|b| b + 1e-3)),
            ..linear(1)
        };
        assert_ne!(of(&linear(1)), of(&one_changed));
        let (a, b) = (of(&linear(1)), of(&linear(2)));
        assert_ne!(a.and(b), b.and(a));
        assert_eq!(a.to_string().len(), 8);
    }
}
