//! Training and held-out images from a directory.

use crate::Context;
use aigc_core::{
    DataFault, Error, Result,
    data::{
        Dataset, Image, ImageShape,
        folder::{ImageFolder, ImageFolderConfig},
        idx::{MnistDataset, Split},
    },
};
use aigc_examples::Progress;
use flate2::read::MultiGzDecoder;
use std::{
    io::Read,
    path::{Path, PathBuf},
};

/// Side of the images of CIFAR-10, and of those of a folder.
const SIDE: usize = 32;
/// Bytes of an image in the files of CIFAR-10: the label and three planes.
const RECORD: usize = 1 + 3 * SIDE * SIDE;

/// Where MNIST can be had.
const MNIST: &str = "MNIST is the four files train-images-idx3-ubyte.gz, \
     train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz; the \
     example `digits` with the feature `download` and `--data mnist` fetches them";

/// Images to compare with, and images that are not among them.
#[derive(Debug)]
pub(crate) struct Collection {
    pub(crate) train: Vec<Image>,
    pub(crate) held_out: Vec<Image>,
}

impl Collection {
    /// Reads files in the format of MNIST.
    ///
    /// # Errors
    /// Errors of reading, which name the file; a missing data set says where it can be had.
    pub(crate) fn mnist(dir: &Path, context: &Context) -> anyhow::Result<Self> {
        let read = |split| {
            let images = MnistDataset::from_dir(dir, split)?;
            all(&images, context)
        };
        let found = read(Split::Train).and_then(|train| {
            let held_out = read(Split::Test)?;
            Ok(Self { train, held_out })
        });
        found.map_err(|error| match error {
            Error::Data {
                fault: DataFault::Empty(_),
                ..
            }
            | Error::Io { .. } => anyhow::Error::from(error).context(MNIST),
            other => other.into(),
        })
    }

    /// Reads files in the format of MNIST, those of the binary version of CIFAR-10, or images in
    /// the folders `train` and `test` of `dir`.
    ///
    /// # Errors
    /// As [`mnist`](Self::mnist).
    pub(crate) fn open(dir: &Path, context: &Context) -> anyhow::Result<Self> {
        if MnistDataset::is_in(dir) {
            return Self::mnist(dir, context);
        }
        let files = binaries(dir)?;
        if !files.train.is_empty() && !files.test.is_empty() {
            let read = |paths: &[PathBuf]| -> Result<Vec<Image>> {
                let parts = paths.iter().map(|path| cifar(path));
                Ok(parts.collect::<Result<Vec<_>>>()?.concat())
            };
            return Ok(Self {
                train: read(&files.train)?,
                held_out: read(&files.test)?,
            });
        }
        let (train, test) = (dir.join("train"), dir.join("test"));
        if train.is_dir() && test.is_dir() {
            let read = |dir: &Path| {
                let config = ImageFolderConfig::new(ImageShape::new(3, SIDE, SIDE));
                all(&ImageFolder::open(dir, config)?, context)
            };
            return Ok(Self {
                train: read(&train)?,
                held_out: read(&test)?,
            });
        }
        let reason = format!(
            "neither files in the format of MNIST, nor data_batch_*.bin and test_batch.bin of the \
             binary version of CIFAR-10 (https://www.cs.toronto.edu/~kriz/cifar.html; .gz is read, \
             too), nor folders `train` and `test` of images; {MNIST}"
        );
        Err(Error::data(dir, DataFault::Empty(reason)).into())
    }
}

/// All images of a data set.
fn all(images: &dyn Dataset<Item = Image>, context: &Context) -> Result<Vec<Image>> {
    let progress = Progress::new("reading images", images.len(), &context.stop);
    let read = |index| {
        progress.add(1)?;
        images.get(index)
    };
    (0..images.len()).map(read).collect()
}

#[derive(Default)]
struct Binaries {
    train: Vec<PathBuf>,
    test: Vec<PathBuf>,
}

/// The files `data_batch*.bin`, `train*.bin` and `test*.bin` of `dir`, by name; also gzipped.
fn binaries(dir: &Path) -> Result<Binaries> {
    let entries = std::fs::read_dir(dir).map_err(Error::io(dir))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths
        .collect::<std::io::Result<Vec<PathBuf>>>()
        .map_err(Error::io(dir))?;
    paths.sort();
    let mut found = Binaries::default();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.ends_with(".bin") && !name.ends_with(".bin.gz") {
            continue;
        }
        if name.starts_with("test") {
            found.test.push(path);
        } else if name.starts_with("train") || name.starts_with("data_batch") {
            found.train.push(path);
        }
    }
    Ok(found)
}

/// The images of a file of CIFAR-10.
fn cifar(path: &Path) -> Result<Vec<Image>> {
    let content = std::fs::read(path).map_err(Error::io(path))?;
    let mut bytes = Vec::new();
    if content.starts_with(&[0x1f, 0x8b]) {
        let mut decoder = MultiGzDecoder::new(&content[..]);
        let read = decoder.read_to_end(&mut bytes);
        read.map_err(|error| Error::data(path, DataFault::Decode(error.to_string())))?;
    } else {
        bytes = content;
    }
    if bytes.is_empty() || !bytes.len().is_multiple_of(RECORD) {
        let reason = format!(
            "{} bytes, expected a multiple of {RECORD}: a label and 3×{SIDE}×{SIDE} values",
            bytes.len()
        );
        return Err(Error::data(path, DataFault::Mismatch(reason)));
    }
    let image = |record: &[u8]| Image {
        shape: ImageShape::new(3, SIDE, SIDE),
        pixels: record[1..].to_vec(),
        label: Some(u32::from(record[0])),
    };
    Ok(bytes.chunks_exact(RECORD).map(image).collect())
}
