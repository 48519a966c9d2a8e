//! IDX files, the format of MNIST: a magic number `00 00 08 rank`, one big-endian 32-bit size per
//! axis, then bytes.
//!
//! Source of the format: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten
//! digits".

use super::{Dataset, Image, ImageShape, entries};
use crate::{DataFault, Error, Result};
use flate2::read::MultiGzDecoder;
use std::{
    fs::File,
    io::{BufReader, Read, Seek},
    path::{Path, PathBuf},
};

/// The largest compression ratio of gzip is 1032:1, so a header that claims more is wrong.
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
    /// Reads `path`, decompressing it if it is gzipped. Allocates no more than the file can hold.
    ///
    /// # Errors
    /// [`Error::Data`] with a [`DataFault`] for a truncated or oversized file or another format;
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
                    DataFault::BadHeader(format!("{expected} bytes cannot be compressed to {size}"))
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
    /// A [`DataFault`] for truncated or oversized content or another format.
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
        // The vector grows with the actual content, so a false header in a gzip file costs no more
        // memory than that.
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

/// One of the two parts of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`.
    Train,
    /// `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`.
    Test,
}

impl MnistDataset {
    /// Reads one part of a data set in the format of MNIST.
    ///
    /// The files may be gzipped, and named as the usual mirrors name them:
    /// `train-images-idx3-ubyte`, `train-images.idx3-ubyte`,
    /// `emnist-letters-train-images-idx3-ubyte`. They may be in `dir`, in torchvision's `MNIST/raw`
    /// or `raw` below it, or each in a directory with the file's name.
    ///
    /// # Errors
    /// [`Error::Data`] if the images are missing, there are several data sets, or a file is broken.
    /// Labels may be missing.
    pub fn from_dir(dir: &Path, split: Split) -> Result<Self> {
        let found = find_parts(dir)?;
        let of = |kind: Kind| -> Vec<&Part> {
            let parts = found.iter().filter(|p| p.split == split && p.kind == kind);
            parts.collect()
        };
        let images = match of(Kind::Images)[..] {
            [one] => one,
            [] => {
                let name = match split {
                    Split::Train => "train",
                    Split::Test => "t10k",
                };
                let missing = format!(
                    "no {name}-images-idx3-ubyte, plain or .gz, in it or in raw/ or MNIST/raw/ \
                     below it"
                );
                return Err(Error::data(dir, DataFault::Empty(missing)));
            }
            ref several => {
                let names: Vec<_> = several
                    .iter()
                    .map(|p| p.path.display().to_string())
                    .collect();
                let reason = format!(
                    "several data sets: {}; move the one to use to a separate directory",
                    names.join(", ")
                );
                return Err(Error::data(dir, DataFault::Mismatch(reason)));
            }
        };
        let labels = of(Kind::Labels).into_iter().find(|p| p.set == images.set);
        Self::from_files(&images.path, labels.map(|p| p.path.as_path()))
    }

    /// Whether `dir` contains training images in the format of MNIST, where
    /// [`from_dir`](Self::from_dir) looks for them.
    pub fn is_in(dir: &Path) -> bool {
        find_parts(dir).is_ok_and(|parts| {
            let mut parts = parts.into_iter();
            parts.any(|p| p.kind == Kind::Images && p.split == Split::Train)
        })
    }

    /// Reads an image file (three axes: grey; four: channels second) and, if given, its labels.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Data`] if a file cannot be read or is broken, or the numbers of
    /// images and labels differ.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Images,
    Labels,
}

/// One file of a data set.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    kind: Kind,
    split: Split,
    /// Identifies the data set in a directory: the rest of the name, and the directory.
    set: String,
}

impl Part {
    /// The part of a data set that a file contains, by its name.
    fn of(path: PathBuf, place: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_lowercase().replace('.', "-");
        let name = name.strip_suffix("-gz").unwrap_or(&name);
        let stem = name.strip_suffix("-ubyte")?;
        let (stem, kind) = ["images-idx3", "images-idx4", "images"]
            .into_iter()
            .find_map(|end| Some((stem.strip_suffix(end)?, Kind::Images)))
            .or_else(|| {
                let mut ends = ["labels-idx1", "labels"].into_iter();
                ends.find_map(|end| Some((stem.strip_suffix(end)?, Kind::Labels)))
            })?;
        let stem = stem.strip_suffix('-')?;
        let (rest, split) = [
            ("train", Split::Train),
            ("t10k", Split::Test),
            ("test", Split::Test),
        ]
        .into_iter()
        .find_map(|(end, split)| Some((stem.strip_suffix(end)?, split)))?;
        if !(rest.is_empty() || rest.ends_with('-')) {
            return None;
        }
        let set = format!("{}/{rest}", place.display());
        Some(Self {
            path,
            kind,
            split,
            set,
        })
    }
}

/// The parts in `dir`, or else in the first known subdirectory that contains any. A plain file is
/// preferred to a gzipped one.
fn find_parts(dir: &Path) -> Result<Vec<Part>> {
    let mut places = vec![dir.to_path_buf(), dir.join("raw")];
    let below = entries(dir)?.into_iter().filter(|path| path.is_dir());
    places.extend(below.map(|path| path.join("raw")));
    for place in places.iter().filter(|place| place.is_dir()) {
        let mut parts: Vec<Part> = Vec::new();
        for path in entries(place)? {
            // Kaggle extracts each file into a directory of the file's name.
            let files = if path.is_dir() {
                let inside = path.join(path.file_name().unwrap_or_default());
                vec![inside.with_extension(""), inside]
            } else {
                vec![path]
            };
            for path in files.into_iter().filter(|path| path.is_file()) {
                let Some(part) = Part::of(path, place) else {
                    continue;
                };
                let same =
                    |p: &Part| (p.kind, p.split, &p.set) == (part.kind, part.split, &part.set);
                // Sorted by name, a plain file comes before its gzipped copy.
                if !parts.iter().any(same) {
                    parts.push(part);
                }
            }
        }
        if !parts.is_empty() {
            return Ok(parts);
        }
    }
    Ok(Vec::new())
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// `n` images of 1×2 whose pixels are `first`, or their labels, all `label`.
    fn write(path: &Path, images: Option<u8>, label: u8, n: u8) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let bytes = match images {
            Some(first) => [
                &[0, 0, 8, 3, 0, 0, 0, n, 0, 0, 0, 1, 0, 0, 0, 2][..],
                &vec![first; 2 * usize::from(n)],
            ]
            .concat(),
            None => [&[0, 0, 8, 1, 0, 0, 0, n][..], &vec![label; usize::from(n)]].concat(),
        };
        let bytes = if path.extension().is_some_and(|e| e == "gz") {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            packed.write_all(&bytes).unwrap();
            packed.finish().unwrap()
        } else {
            bytes
        };
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn mirror_file_names_are_found() {
        for [images, labels, test] in [
            [
                "train-images-idx3-ubyte",
                "train-labels-idx1-ubyte",
                "t10k-images-idx3-ubyte",
            ],
            [
                "train-images-idx3-ubyte.gz",
                "train-labels-idx1-ubyte.gz",
                "t10k-images-idx3-ubyte.gz",
            ],
            [
                "train-images.idx3-ubyte",
                "train-labels.idx1-ubyte",
                "t10k-images.idx3-ubyte",
            ],
            [
                "MNIST/raw/train-images-idx3-ubyte",
                "MNIST/raw/train-labels-idx1-ubyte",
                "MNIST/raw/t10k-images-idx3-ubyte",
            ],
            [
                "raw/train-images-idx3-ubyte",
                "raw/train-labels-idx1-ubyte.gz",
                "raw/t10k-images-idx3-ubyte.gz",
            ],
            [
                "train-images-idx3-ubyte/train-images-idx3-ubyte",
                "train-labels-idx1-ubyte/train-labels-idx1-ubyte",
                "t10k-images-idx3-ubyte/t10k-images-idx3-ubyte",
            ],
            [
                "train-images.idx3-ubyte/train-images.idx3-ubyte",
                "train-labels.idx1-ubyte/train-labels.idx1-ubyte",
                "t10k-images.idx3-ubyte/t10k-images.idx3-ubyte",
            ],
            [
                "emnist-letters-train-images-idx3-ubyte.gz",
                "emnist-letters-train-labels-idx1-ubyte.gz",
                "emnist-letters-test-images-idx3-ubyte.gz",
            ],
        ] {
            let dir = tempfile::tempdir().unwrap();
            assert!(!MnistDataset::is_in(dir.path()));
            write(&dir.path().join(images), Some(3), 0, 5);
            write(&dir.path().join(labels), None, 200, 5);
            write(&dir.path().join(test), Some(7), 0, 4);
            assert!(MnistDataset::is_in(dir.path()), "{images}");
            let train = MnistDataset::from_dir(dir.path(), Split::Train).unwrap();
            let item = train.get(4).unwrap();
            assert_eq!(
                (train.len(), &item.pixels[..], item.label),
                (5, &[3, 3][..], Some(200))
            );
            let test = MnistDataset::from_dir(dir.path(), Split::Test).unwrap();
            let item = test.get(0).unwrap();
            assert_eq!(
                (test.len(), &item.pixels[..], item.label),
                (4, &[7, 7][..], None)
            );
        }
    }

    #[test]
    fn plain_files_come_before_gzipped_copies() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("train-images-idx3-ubyte"), Some(1), 0, 2);
        write(
            &dir.path().join("train-images-idx3-ubyte.gz"),
            Some(2),
            0,
            3,
        );
        let train = MnistDataset::from_dir(dir.path(), Split::Train).unwrap();
        assert_eq!((train.len(), train.get(0).unwrap().pixels[0]), (2, 1));
    }

    #[test]
    fn several_sets_and_missing_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = |split| {
            let error = MnistDataset::from_dir(dir.path(), split).unwrap_err();
            error.to_string()
        };
        assert!(error(Split::Train).contains("no train-images-idx3-ubyte"));
        for set in ["digits", "letters"] {
            let name = format!("emnist-{set}-train-images-idx3-ubyte");
            write(&dir.path().join(name), Some(1), 0, 1);
        }
        let several = error(Split::Train);
        assert!(several.contains("emnist-digits") && several.contains("emnist-letters"));
        assert!(error(Split::Test).contains("no t10k-images-idx3-ubyte"));
    }
}
