//! The images an example trains on.

use aigc_core::{
    DataFault, Error, Result,
    checkpoint::RunDir,
    data::{
        DataLoader, DataLoaderConfig, Dataset, Image, ImageBatch, ImageShape, collate_images,
        digits,
        folder::{ImageFolder, ImageFolderConfig},
        idx::{MnistDataset, Split},
    },
    rng::Rng,
};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where images come from.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
pub struct ImagesConfig {
    /// A folder with MNIST-format files or with images; `mnist` downloads MNIST (feature
    /// `download`). Without it, the digits inside the program.
    #[arg(long = "data", value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Side that a folder's images are brought to.
    #[arg(long, value_name = "PIXELS")]
    pub side: Option<usize>,
    /// Keep the colours of a folder's images.
    #[arg(long)]
    pub rgb: bool,
}

/// Images to train on and images to judge by.
#[derive(Debug)]
pub struct Images {
    /// Endless shuffled batches.
    pub train: DataLoader<ImageBatch>,
    /// Images that no step has seen.
    pub held_out: DataLoader<ImageBatch>,
    /// Shape of every image.
    pub shape: ImageShape,
}

impl Images {
    /// Says what there is, and where everything goes.
    pub fn say(&self, run: &RunDir) {
        println!(
            "{} images of {} to learn from, {} held out; everything goes to {}",
            self.train.num_items(),
            self.shape,
            self.held_out.num_items(),
            run.path().display()
        );
    }

    /// Number of classes: one more than the largest label.
    ///
    /// # Errors
    /// [`Error::Config`] if an image has none, and what cannot be read.
    pub fn classes(&self) -> Result<usize> {
        let mut most = 0;
        for batch in self.train.iter_once() {
            let batch = batch?;
            let Some(labels) = batch.labels() else {
                return Err(Error::config(
                    "data",
                    "images without labels",
                    "labelled ones, to make classes",
                ));
            };
            most = labels.iter().copied().max().unwrap_or(0).max(most);
        }
        Ok(most as usize + 1)
    }
}

impl ImagesConfig {
    /// The same, for a program that needs more than the embedded digits.
    ///
    /// # Errors
    /// [`Error::Config`] where no path is given.
    pub fn given(&self) -> Result<&Self> {
        match self.path {
            Some(_) => Ok(self),
            None => Err(Error::config(
                "--data",
                "missing",
                "a folder with MNIST-format files or with images",
            )),
        }
    }

    /// Opens the images. `seed` orders the batches.
    ///
    /// # Errors
    /// Names what cannot be read.
    pub fn open(&self, batch_size: usize, seed: u64) -> Result<Images> {
        let loaders = Loaders { batch_size, seed };
        match self.folder()? {
            None => {
                let (train, held_out) = digits::train_test_split();
                loaders.make(train, held_out, digits::SHAPE)
            }
            Some(folder) if is_idx(&folder) => {
                let train = MnistDataset::from_dir(&folder, Split::Train)?;
                let held_out = MnistDataset::from_dir(&folder, Split::Test)?;
                let shape = train.shape();
                loaders.make(train, held_out, shape)
            }
            Some(folder) => {
                let (side, channels) = (self.side.unwrap_or(32), if self.rgb { 3 } else { 1 });
                let shape = ImageShape::new(channels, side, side);
                let images = ImageFolder::open(&folder, ImageFolderConfig::new(shape))?;
                let (train, held_out) = part(&folder, images)?;
                loaders.make(train, held_out, shape)
            }
        }
    }

    fn folder(&self) -> Result<Option<PathBuf>> {
        match &self.path {
            #[cfg(feature = "download")]
            Some(path) if path.as_os_str() == "mnist" && !path.exists() => {
                aigc_core::data::download::mnist(&mut aigc_core::data::download::bar()).map(Some)
            }
            other => Ok(other.clone()),
        }
    }
}

fn is_idx(folder: &Path) -> bool {
    ["train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"]
        .iter()
        .any(|name| folder.join(name).is_file())
}

struct Loaders {
    batch_size: usize,
    seed: u64,
}

impl Loaders {
    fn make<D: Dataset<Item = Image> + 'static>(
        &self,
        train: D,
        held_out: D,
        shape: ImageShape,
    ) -> Result<Images> {
        let config = DataLoaderConfig {
            batch_size: self.batch_size,
            shuffle_seed: Some(self.seed),
            ..DataLoaderConfig::default()
        };
        let in_order = DataLoaderConfig {
            batch_size: 256,
            shuffle_seed: None,
            num_workers: 0,
            ..DataLoaderConfig::default()
        };
        Ok(Images {
            train: DataLoader::new(train, collate_images, config)?,
            held_out: DataLoader::new(held_out, collate_images, in_order)?,
            shape,
        })
    }
}

/// Holds every tenth image out, in an order that is always the same.
fn part(folder: &Path, images: ImageFolder) -> Result<(Subset<ImageFolder>, Subset<ImageFolder>)> {
    if images.len() < 2 {
        let fault = DataFault::Empty(
            "training needs two images at least, one to learn from and one to judge by".into(),
        );
        return Err(Error::Data {
            path: folder.to_path_buf(),
            fault,
        });
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

/// Some items of a data set.
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
}
