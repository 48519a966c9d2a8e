//! IDX files, the format of MNIST: a magic number `00 00 08 rank`, one big-endian 32-bit size per
//! axis, then bytes.
//!
//! Source of the format: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten
//! digits".

use super::{Dataset, Image, ImageShape};
use crate::{DataFault, Error, Result};
use flate2::read::MultiGzDecoder;
use std::{
    fs::File,
    io::{BufReader, Read, Seek},
    path::{Path, PathBuf},
};

/// Gzip cannot pack tighter than this (the format's limit is 1032:1), so a header that asks for
/// more lies.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// The content of an IDX file of unsigned bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdxArray {
    /// Size of each axis.
    pub shape: Vec<usize>,
    /// The bytes, last axis fastest.
    pub bytes: Vec<u8>,
}

impl IdxArray {
    /// Reads `path`, unpacking it if it is gzipped. Allocates no more than the file can hold.
    ///
    /// # Errors
    /// [`Error::Data`] with a [`DataFault`] for truncated, oversized or foreign content;
    /// [`Error::Io`] if the file cannot be opened.
    pub fn read(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::io(path))?;
        let size = file.metadata().map_err(Error::io(path))?.len();
        let mut head = Vec::new();
        (&mut file)
            .take(2)
            .read_to_end(&mut head)
            .map_err(Error::io(path))?;
        file.rewind().map_err(Error::io(path))?;
        let reader = BufReader::new(file);
        if head == [0x1f, 0x8b] {
            let limit = size.saturating_mul(MAX_DEFLATE_RATIO);
            Self::parse(MultiGzDecoder::new(reader), limit).map_err(|fault| match fault {
                DataFault::Truncated { expected, found } if found == limit => {
                    DataFault::BadHeader(format!("{expected} bytes cannot be packed into {size}"))
                }
                other => other,
            })
        } else {
            Self::parse(reader, size)
        }
        .map_err(|fault| Error::data(path, fault))
    }

    /// Reads an IDX stream that can yield at most `limit` bytes.
    ///
    /// # Errors
    /// A [`DataFault`] that says what is wrong.
    pub fn parse(mut reader: impl Read, limit: u64) -> Result<Self, DataFault> {
        let mut magic = [0; 4];
        read_exactly(&mut reader, &mut magic, 4)?;
        if magic[..3] != [0, 0, 8] || !(1..=4).contains(&magic[3]) {
            let found = u32::from_be_bytes(magic);
            return Err(DataFault::WrongMagic {
                found,
                expected: "0x000008NN with NN from 1 to 4 axes",
            });
        }
        let rank = usize::from(magic[3]);
        let mut sizes = vec![0; 4 * rank];
        read_exactly(&mut reader, &mut sizes, 4 + 4 * rank as u64)?;
        let sizes: Vec<u64> = sizes
            .chunks_exact(4)
            .map(|b| u64::from(u32::from_be_bytes([b[0], b[1], b[2], b[3]])))
            .collect();
        let header = 4 + 4 * rank as u64;
        let count = sizes
            .iter()
            .try_fold(1u64, |product, size| product.checked_mul(*size));
        let Some(count) = count.filter(|count| *count <= isize::MAX as u64 - header) else {
            return Err(DataFault::BadHeader(format!(
                "{sizes:?} values are more than a machine can hold"
            )));
        };
        if header + count > limit {
            return Err(DataFault::Truncated {
                expected: header + count,
                found: limit,
            });
        }
        // The vector grows with what is really there, so a lying header inside a gzip costs no more
        // than its content.
        let mut bytes = Vec::new();
        reader
            .by_ref()
            .take(count)
            .read_to_end(&mut bytes)
            .map_err(decode)?;
        if (bytes.len() as u64) < count {
            return Err(DataFault::Truncated {
                expected: header + count,
                found: header + bytes.len() as u64,
            });
        }
        if reader.read(&mut [0]).map_err(decode)? != 0 {
            return Err(DataFault::Oversized {
                expected: header + count,
            });
        }
        Ok(Self {
            shape: sizes.into_iter().map(|s| s as usize).collect(),
            bytes,
        })
    }
}

fn decode(error: std::io::Error) -> DataFault {
    DataFault::Decode(error.to_string())
}

fn read_exactly(reader: &mut impl Read, into: &mut [u8], expected: u64) -> Result<(), DataFault> {
    reader.read_exact(into).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => DataFault::Truncated {
            expected,
            found: expected - into.len() as u64,
        },
        _ => decode(error),
    })
}

/// Images, and labels if there are any, in the format of MNIST.
#[derive(Clone, Debug)]
pub struct MnistDataset {
    images: IdxArray,
    labels: Option<IdxArray>,
    shape: ImageShape,
}

/// Which of a data set's two parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`.
    Train,
    /// `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`.
    Test,
}

impl MnistDataset {
    /// Reads one part of an MNIST-format folder; the files may end in `.gz`.
    ///
    /// # Errors
    /// If the images are missing, or anything is broken. Labels may be absent.
    pub fn from_dir(folder: &Path, part: Split) -> Result<Self> {
        let prefix = if part == Split::Train {
            "train"
        } else {
            "t10k"
        };
        let images = find(folder, &format!("{prefix}-images-idx3-ubyte"));
        let images = images.ok_or_else(|| {
            let missing =
                format!("no {prefix}-images-idx3-ubyte or {prefix}-images-idx3-ubyte.gz in it");
            Error::data(folder, DataFault::Empty(missing))
        })?;
        Self::from_files(
            &images,
            find(folder, &format!("{prefix}-labels-idx1-ubyte")).as_deref(),
        )
    }

    /// Reads an image file (three axes: grey; four: channels second) and, if given, its labels.
    ///
    /// # Errors
    /// If a file is broken or the two do not belong together.
    pub fn from_files(images: &Path, labels: Option<&Path>) -> Result<Self> {
        let pixels = IdxArray::read(images)?;
        let shape = match pixels.shape[..] {
            [_, height, width] => ImageShape::new(1, height, width),
            [_, channels, height, width] => ImageShape::new(channels, height, width),
            _ => {
                let reason = format!("images have 3 or 4 axes, these have {}", pixels.shape.len());
                return Err(Error::data(images, DataFault::Mismatch(reason)));
            }
        };
        if pixels.bytes.is_empty() {
            return Err(Error::data(
                images,
                DataFault::Empty("it holds no image".into()),
            ));
        }
        let labels = labels.map(|path| {
            let labels = IdxArray::read(path)?;
            if labels.shape != pixels.shape[..1] {
                let reason = format!("{:?} labels for {} images", labels.shape, pixels.shape[0]);
                return Err(Error::data(path, DataFault::Mismatch(reason)));
            }
            Ok(labels)
        });
        Ok(Self {
            images: pixels,
            labels: labels.transpose()?,
            shape,
        })
    }

    /// Shape of every image.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    [folder.join(name), folder.join(format!("{name}.gz"))]
        .into_iter()
        .find(|path| path.is_file())
}

impl Dataset for MnistDataset {
    type Item = Image;

    fn len(&self) -> usize {
        self.images.shape[0]
    }

    fn get(&self, index: usize) -> Result<Image> {
        let n = self.shape.numel();
        Ok(Image {
            shape: self.shape,
            pixels: self.images.bytes[index * n..(index + 1) * n].to_vec(),
            label: self
                .labels
                .as_ref()
                .map(|labels| u32::from(labels.bytes[index])),
        })
    }
}
