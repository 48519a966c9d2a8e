//! Images that an example trains on.

use crate::{Progress, fingerprint::Fnv, outln};
use aigc_core::{
    CancelToken, DataFault, Error, Result,
    checkpoint::RunDir,
    data::{
        Binarize, Binarized, DataLoader, DataLoaderConfig, Dataset, Image, ImageBatch, ImageShape,
        OnReadError, collate_images, digits,
        folder::{ImageFolder, ImageFolderConfig},
        idx::{MnistDataset, Split},
    },
    rng::Rng,
};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Source of images.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
pub struct ImagesConfig {
    /// Directory with MNIST-format files or with images; `mnist` downloads MNIST (feature
    /// `download`). By default the embedded digits.
    #[arg(long = "data", value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Side that the images of a directory are resized to.
    #[arg(long, value_name = "PIXELS")]
    pub side: Option<usize>,
    /// Keep the colours of the images of a directory.
    #[arg(long)]
    pub rgb: bool,
    /// Skip images that cannot be read, with a warning.
    #[arg(long)]
    #[serde(default)]
    pub skip_unreadable: bool,
    /// Fingerprint of the data, by which they are recognised if their directory is moved.
    #[arg(skip)]
    #[serde(default)]
    pub fingerprint: Option<String>,
}

/// Images to train on and images to evaluate on.
#[derive(Debug)]
pub struct Images {
    /// Training images, in endless shuffled batches.
    pub train: DataLoader<ImageBatch>,
    /// Images for evaluation, which are not trained on.
    pub held_out: DataLoader<ImageBatch>,
    /// Shape of every image.
    pub shape: ImageShape,
    /// Fingerprint of the data, independent of their directory; `None` for the embedded digits.
    pub fingerprint: Option<String>,
    train_watch: Watch,
    held_out_watch: Watch,
}

impl Images {
    /// Prints the number of images and the run directory.
    pub fn print_summary(&self, run: &RunDir) {
        outln!(
            "{} training images of {}, {} held out; run directory: {}",
            self.train.num_items(),
            self.shape,
            self.held_out.num_items(),
            run.path().display()
        );
    }

    /// Calls `evaluate` with the held-out images, which it reads once, and shows how many it has
    /// read.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if `stop` is cancelled meanwhile; errors of `evaluate`.
    pub fn evaluate<T>(
        &self,
        stop: &CancelToken,
        evaluate: impl FnOnce(&DataLoader<ImageBatch>) -> Result<T>,
    ) -> Result<T> {
        let watch = &self.held_out_watch;
        watch.during("evaluation", &self.held_out, stop, evaluate)
    }

    /// Calls `read` with the training images, which it reads once, in order, and shows how many it
    /// has read.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if `stop` is cancelled meanwhile; errors of `read`.
    pub fn read_training<T>(
        &self,
        what: &'static str,
        stop: &CancelToken,
        read: impl FnOnce(&DataLoader<ImageBatch>) -> Result<T>,
    ) -> Result<T> {
        self.train_watch.during(what, &self.train, stop, read)
    }

    /// Number of classes: one more than the largest label.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if an image has no label; errors of reading the images.
    pub fn classes(&self) -> Result<usize> {
        let mut most = 0;
        for batch in self.train.iter_once() {
            let batch = batch?;
            let Some(labels) = batch.labels() else {
                return Err(Error::argument(
                    "--data",
                    "images without labels",
                    "images with labels, for a class-conditional model",
                ));
            };
            most = labels.iter().copied().max().unwrap_or(0).max(most);
        }
        Ok(most as usize + 1)
    }
}

impl ImagesConfig {
    /// This configuration, for a program that needs more than the embedded digits.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] without a path.
    pub fn given(&self) -> Result<&Self> {
        match self.path {
            Some(_) => Ok(self),
            None => Err(Error::argument(
                "--data",
                "missing",
                "a directory with MNIST-format files or with images",
            )),
        }
    }

    /// The saved configuration of a resumed run, with the directory of this configuration if it has
    /// one.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming an option that differs from the saved one.
    pub fn resumed(&self, saved: &Self) -> Result<Self> {
        let began = |value: String| format!("{value}, with which the run began");
        let saved_side = saved.side.unwrap_or(SIDE);
        if let Some(side) = self.side.filter(|side| *side != saved_side) {
            let expected = began(saved_side.to_string());
            return Err(Error::argument("--side", side, expected));
        }
        for (option, ours, theirs) in [
            ("--rgb", self.rgb, saved.rgb),
            (
                "--skip-unreadable",
                self.skip_unreadable,
                saved.skip_unreadable,
            ),
        ] {
            if ours && !theirs {
                return Err(Error::argument(option, "given", began("not given".into())));
            }
        }
        let mut resumed = saved.clone();
        match (&self.path, &saved.path) {
            (None, _) => {}
            (Some(path), None) => {
                let expected = began("the embedded digits".into());
                return Err(Error::argument("--data", path.display(), expected));
            }
            // The same directory may be written in two ways.
            (Some(path), Some(old)) if absolute(path) == absolute(old) => {}
            (Some(path), Some(_)) => resumed.path = Some(absolute(path)),
        }
        Ok(resumed)
    }

    /// The configuration to save: with an absolute path, which is valid in any working directory,
    /// and the fingerprint of the images.
    pub fn recorded(&self, images: &Images) -> Self {
        Self {
            path: self.path.as_deref().map(absolute),
            fingerprint: images.fingerprint.clone(),
            ..self.clone()
        }
    }

    /// Opens the images. `seed` determines the order of the batches.
    ///
    /// # Errors
    /// Errors of reading, which name the file.
    pub fn open(&self, batch_size: usize, seed: u64) -> Result<Images> {
        self.open_with(Opening::new(batch_size, seed))
    }

    /// Opens the images as `opening` describes.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(&self, opening: Opening) -> Result<Images> {
        let mut loaders = Loaders {
            opening,
            on_read_error: if self.skip_unreadable {
                OnReadError::Skip
            } else {
                OnReadError::Fail
            },
            fingerprint: None,
        };
        match self.dir()? {
            None => {
                let (train, held_out) = digits::train_test_split();
                loaders.make(train, held_out, digits::SHAPE)
            }
            Some(dir) if MnistDataset::is_in(&dir) => {
                let train = MnistDataset::from_dir(&dir, Split::Train)?;
                let held_out = MnistDataset::from_dir(&dir, Split::Test)?;
                let shape = train.shape();
                loaders.fingerprint = Some(content_fingerprint(&train)?);
                loaders.make(train, held_out, shape)
            }
            Some(dir) => {
                let (side, channels) = (self.side.unwrap_or(SIDE), if self.rgb { 3 } else { 1 });
                let shape = ImageShape::new(channels, side, side);
                let images = ImageFolder::open(&dir, ImageFolderConfig::new(shape))?;
                loaders.fingerprint = Some(file_fingerprint(&dir, &images)?);
                let (train, held_out) = split(&dir, images)?;
                loaders.make(train, held_out, shape)
            }
        }
    }

    fn dir(&self) -> Result<Option<PathBuf>> {
        match &self.path {
            #[cfg(feature = "download")]
            Some(path) if path.as_os_str() == "mnist" && !path.exists() => {
                aigc_core::data::download::mnist(&mut aigc_core::data::download::progress_bar())
                    .map(Some)
            }
            other => Ok(other.clone()),
        }
    }
}

/// Default side of the images of a directory.
const SIDE: usize = 32;

/// The absolute path; `mnist`, which is downloaded, is not changed.
fn absolute(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

/// Fingerprint of the names and sizes of all files below `dir`.
fn file_fingerprint(dir: &Path, images: &ImageFolder) -> Result<String> {
    let mut hash = Fnv::new();
    for file in images.files() {
        let name = file.strip_prefix(dir).unwrap_or(file);
        let parts = name.components().map(|c| c.as_os_str().to_string_lossy());
        hash.write(parts.collect::<Vec<_>>().join("/").as_bytes());
        let size = std::fs::metadata(file).map_err(Error::io(file))?.len();
        hash.write(&[&[0][..], &size.to_le_bytes()].concat());
    }
    Ok(hash.finish())
}

/// Fingerprint of the number of items, and of pixels and labels of up to 1,000 of them.
fn content_fingerprint(data: &impl Dataset<Item = Image>) -> Result<String> {
    let mut hash = Fnv::new();
    hash.write(&(data.len() as u64).to_le_bytes());
    for index in (0..data.len()).step_by(data.len().div_ceil(1000).max(1)) {
        let image = data.get(index)?;
        hash.write(&image.pixels);
        hash.write(&image.label.map_or([255; 4], u32::to_le_bytes));
    }
    Ok(hash.finish())
}

/// How images are opened.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// Number of training images in a batch.
    pub batch_size: usize,
    /// Seed of the order of the batches, and of binary images.
    pub seed: u64,
    /// How training images become black and white. Held-out images stay grey.
    pub binarize: Binarize,
    /// Number of held-out images, taken at equal distances from all; all if `None`.
    pub held_out: Option<usize>,
}

impl Opening {
    /// Grey images, and all held-out ones.
    pub fn new(batch_size: usize, seed: u64) -> Self {
        Self {
            batch_size,
            seed,
            binarize: Binarize::None,
            held_out: None,
        }
    }
}

struct Loaders {
    opening: Opening,
    on_read_error: OnReadError,
    fingerprint: Option<String>,
}

impl Loaders {
    fn make<D: Dataset<Item = Image> + 'static>(
        &self,
        train: D,
        held_out: D,
        shape: ImageShape,
    ) -> Result<Images> {
        let Opening {
            batch_size,
            seed,
            binarize,
            held_out: most,
        } = self.opening;
        let config = DataLoaderConfig {
            batch_size,
            shuffle_seed: Some(seed),
            on_read_error: self.on_read_error,
            ..DataLoaderConfig::default()
        };
        let in_order = DataLoaderConfig {
            batch_size: 256,
            shuffle_seed: None,
            num_workers: 0,
            on_read_error: self.on_read_error,
            ..DataLoaderConfig::default()
        };
        let (train_watch, held_out_watch) = (Watch::default(), Watch::default());
        let train = Watched {
            of: Binarized::new(train, binarize, seed),
            watch: train_watch.clone(),
        };
        let held_out = Watched {
            of: Subset {
                indices: spread(held_out.len(), most),
                of: held_out,
            },
            watch: held_out_watch.clone(),
        };
        Ok(Images {
            train: DataLoader::new(train, collate_images, config)?,
            held_out: DataLoader::new(held_out, collate_images, in_order)?,
            shape,
            fingerprint: self.fingerprint.clone(),
            train_watch,
            held_out_watch,
        })
    }
}

/// Holds out every tenth image, always the same ones.
fn split(dir: &Path, images: ImageFolder) -> Result<(Subset<ImageFolder>, Subset<ImageFolder>)> {
    if images.len() < 2 {
        let fault = DataFault::Empty(
            "training needs at least two images: one to train on and one to evaluate on".into(),
        );
        return Err(Error::data(dir, fault));
    }
    let mut order = Rng::stream(0, "held-out", 0).permutation(images.len());
    let held_out = order.split_off(images.len() - images.len().div_ceil(10));
    Ok((
        Subset {
            of: images.clone(),
            indices: order,
        },
        Subset {
            of: images,
            indices: held_out,
        },
    ))
}

/// The indices of `most` of `len` items at equal distances, or of all.
fn spread(len: usize, most: Option<usize>) -> Vec<usize> {
    let n = most.map_or(len, |most| most.min(len));
    (0..n).map(|i| i * len / n).collect()
}

/// A subset of a data set.
struct Subset<D> {
    of: D,
    indices: Vec<usize>,
}

impl<D: Dataset> Dataset for Subset<D> {
    type Item = D::Item;

    fn len(&self) -> usize {
        self.indices.len()
    }

    fn get(&self, index: usize) -> Result<D::Item> {
        self.of.get(self.indices[index])
    }

    fn get_in_epoch(&self, index: usize, epoch: usize) -> Result<D::Item> {
        self.of.get_in_epoch(self.indices[index], epoch)
    }
}

/// The progress of the pass that reads the images, if there is one.
#[derive(Clone, Debug, Default)]
struct Watch(Arc<Mutex<Option<Progress>>>);

impl Watch {
    /// Calls `read` with `images`, whose data set counts the items that are read, and shows their
    /// number.
    fn during<T>(
        &self,
        what: &'static str,
        images: &DataLoader<ImageBatch>,
        stop: &CancelToken,
        read: impl FnOnce(&DataLoader<ImageBatch>) -> Result<T>,
    ) -> Result<T> {
        self.set(Some(Progress::new(what, images.num_items(), stop)));
        let result = read(images);
        self.set(None);
        match result {
            // A loader that skips unreadable images replaces the error.
            Err(_) if stop.is_cancelled() => Err(Error::cancelled("reading images")),
            result => result,
        }
    }

    fn set(&self, progress: Option<Progress>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }

    /// Counts one more image.
    fn count(&self) -> Result<()> {
        let progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        progress.as_ref().map_or(Ok(()), |progress| progress.add(1))
    }
}

/// A data set that counts the items that are read.
struct Watched<D> {
    of: D,
    watch: Watch,
}

impl<D: Dataset> Dataset for Watched<D> {
    type Item = D::Item;

    fn len(&self) -> usize {
        self.of.len()
    }

    fn get(&self, index: usize) -> Result<D::Item> {
        let item = self.of.get(index)?;
        self.watch.count()?;
        Ok(item)
    }

    /// Training reads ahead in epochs, of which no pass is shown.
    fn get_in_epoch(&self, index: usize, epoch: usize) -> Result<D::Item> {
        self.of.get_in_epoch(index, epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_held_out_images_are_spread_over_all() {
        assert_eq!(spread(10, Some(4)), [0, 2, 5, 7]);
        assert_eq!(spread(3, Some(9)), [0, 1, 2]);
        assert_eq!(spread(2, None), [0, 1]);
        assert!(spread(2, Some(0)).is_empty());
    }

    #[test]
    fn subsets_read_items_in_their_epoch() {
        /// Items with the epoch in which they are read.
        struct Epochs;

        impl Dataset for Epochs {
            type Item = (usize, Option<usize>);

            fn len(&self) -> usize {
                5
            }

            fn get(&self, index: usize) -> Result<Self::Item> {
                Ok((index, None))
            }

            fn get_in_epoch(&self, index: usize, epoch: usize) -> Result<Self::Item> {
                Ok((index, Some(epoch)))
            }
        }

        let subset = Subset {
            of: Epochs,
            indices: vec![4, 2],
        };
        assert_eq!(subset.get(1).unwrap(), (2, None));
        assert_eq!(subset.get_in_epoch(0, 3).unwrap(), (4, Some(3)));
    }

    /// Only training images become black and white.
    #[test]
    fn training_images_are_binarised() {
        let opening = Opening {
            binarize: Binarize::Dynamic,
            held_out: Some(20),
            ..Opening::new(64, 0)
        };
        let images = ImagesConfig::default().open_with(opening).unwrap();
        assert_eq!(images.held_out.num_items(), 20);
        let is_binary = |batch: Result<ImageBatch>| {
            let device = aigc_core::device::device("flex").unwrap();
            let values = batch.unwrap().to_tensor(&device).into_data();
            values
                .iter::<f32>()
                .all(|value| value == 0.0 || value == 1.0)
        };
        let mut training = images.train.iter_from(0);
        assert!(is_binary(training.next_batch()));
        assert!(!images.held_out.iter_once().all(is_binary));
    }

    #[test]
    fn evaluation_of_held_out_images_stops() {
        for skip_unreadable in [false, true] {
            let images = ImagesConfig {
                skip_unreadable,
                ..ImagesConfig::default()
            };
            let images = images.open(64, 0).unwrap();
            let stop = CancelToken::new();
            // Number of images; `stop` is cancelled after the first batch.
            let read = |cancel: bool| {
                images.evaluate(&stop, |held_out| {
                    let mut count = 0;
                    for batch in held_out.iter_once() {
                        count += batch?.len();
                        if cancel {
                            stop.cancel();
                        }
                    }
                    Ok(count)
                })
            };
            let total = images.held_out.num_items();
            assert_eq!(read(false).unwrap(), total);
            // There is a second batch.
            assert!(total > 256);
            assert!(matches!(read(true), Err(Error::Cancelled { .. })));
            // Outside an evaluation the images can be read.
            assert!(images.held_out.iter_once().all(|batch| batch.is_ok()));
        }
    }
}
