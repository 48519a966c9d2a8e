//! Images from the embedded digits, MNIST-format files and folders.

use super::set::ImageSet;
use crate::{
    book::{Book, some_of},
    subject::is_digits,
};
use aigc_core::{
    CancelToken, DataFault, Error, Result,
    data::{
        Dataset, Image, ImageShape, digits,
        folder::{ImageFolder, ImageFolderConfig, decode},
        idx::{MnistDataset, Split},
    },
    rng::Rng,
};
use aigc_examples::Progress;
use image::{ImageDecoder, ImageReader};
use std::path::Path;

/// Bytes of images that are kept in memory.
const MAX_BYTES: usize = 2 << 30;
/// Maximum number of images of a set; a random subset of a larger one is read.
const MAX_IMAGES: usize = 60_000;
/// Limit on the decoded size of a file, in bytes.
const MAX_DECODED_BYTES: u64 = 1 << 30;

/// A data set before its images are read.
pub(crate) enum Source {
    Digits,
    Mnist {
        train: MnistDataset,
        test: Option<MnistDataset>,
    },
    Folder(ImageFolder),
}

impl Source {
    /// Opens a data set; `shape` is that of the images of a folder.
    pub(crate) fn open(path: &Path, shape: ImageShape) -> Result<Self> {
        if is_digits(path) {
            return Ok(Self::Digits);
        }
        if MnistDataset::is_in(path) {
            let train = MnistDataset::from_dir(path, Split::Train)?;
            let test = match MnistDataset::from_dir(path, Split::Test) {
                Ok(test) => Some(test),
                Err(
                    Error::Io { .. }
                    | Error::Data {
                        fault: DataFault::Empty(_),
                        ..
                    },
                ) => None,
                // Files that are there and broken are no reason to go on without them.
                Err(error) => return Err(error),
            };
            return Ok(Self::Mnist { train, test });
        }
        Ok(Self::Folder(open_folder(path, shape)?))
    }

    /// The shape of the images of a data set that has only one; `None` for folders.
    pub(crate) fn own_shape(path: &Path) -> Result<Option<ImageShape>> {
        if is_digits(path) {
            Ok(Some(digits::SHAPE))
        } else if MnistDataset::is_in(path) {
            Ok(Some(MnistDataset::from_dir(path, Split::Train)?.shape()))
        } else {
            Ok(None)
        }
    }
}

/// A folder of images, whose subfolders are the classes if every image is in one.
fn open_folder(path: &Path, shape: ImageShape) -> Result<ImageFolder> {
    let config = ImageFolderConfig::new(shape);
    let all = ImageFolder::open(path, config.clone())?;
    let labelled = ImageFolder::open(path, config.with_labels()).ok();
    let is_whole = |folder: &ImageFolder| folder.len() == all.len() && folder.classes().len() > 1;
    Ok(labelled.filter(is_whole).unwrap_or(all))
}

/// The shape of the first image of a folder that can be read.
pub(crate) fn first_shape(path: &Path) -> Result<ImageShape> {
    let folder = open_folder(path, ImageShape::new(1, 1, 1))?;
    let mut failed = None;
    for file in folder.files() {
        match decode(file, MAX_DECODED_BYTES) {
            Ok(image) => {
                let channels = if image.color().has_color() { 3 } else { 1 };
                let (height, width) = (image.height() as usize, image.width() as usize);
                return Ok(ImageShape::new(channels, height, width));
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(nothing_readable(path, folder.len(), failed))
}

fn nothing_readable(path: &Path, files: usize, first: Option<Error>) -> Error {
    let first = first.map_or(String::new(), |error| format!("; the first: {error}"));
    let reason = format!("none of its {files} images can be read{first}");
    Error::data(path, DataFault::Empty(reason))
}

/// How images are read.
pub(crate) struct Reader<'a> {
    pub(crate) seed: u64,
    pub(crate) stop: &'a CancelToken,
    /// Most images; the others are left out at random.
    pub(crate) most: Option<usize>,
}

impl Reader<'_> {
    /// The training images and the held-out ones of a data set.
    pub(crate) fn split(
        &self,
        source: &Source,
        path: &Path,
        book: &mut Book,
    ) -> Result<(ImageSet, Option<ImageSet>)> {
        let name = |part: &str| format!("{}, {part} images", path.display());
        match source {
            Source::Digits => {
                let (train, test) = digits::train_test_split();
                let train = self.set(&train, name("training"), book)?;
                Ok((train, Some(self.set(&test, name("test"), book)?)))
            }
            Source::Mnist { train, test } => {
                let test = test.as_ref().map(|test| self.set(test, name("test"), book));
                let test = test.transpose()?;
                Ok((self.set(train, name("training"), book)?, test))
            }
            Source::Folder(folder) => {
                // The tenth that the programs of this repository hold out.
                let n = folder.len();
                let mut order = Rng::stream(0, "held-out", 0).permutation(n);
                let held_out = order.split_off(n - n.div_ceil(10));
                order.sort_unstable();
                let train = match order.is_empty() {
                    true => &held_out,
                    false => &order,
                };
                let train = self.files(folder, path, train, name("training"), book)?;
                if n < 2 {
                    return Ok((train, None));
                }
                match self.files(folder, path, &held_out, name("held-out"), book) {
                    Ok(held_out) => Ok((train, Some(held_out))),
                    // Without readable held-out images, some measures are left out.
                    Err(Error::Data { .. }) => Ok((train, None)),
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// The images of a data set that a model trained on `against` has not seen.
    pub(crate) fn held_out(
        &self,
        source: &Source,
        path: &Path,
        against: &Path,
        book: &mut Book,
    ) -> Result<ImageSet> {
        let name = path.display().to_string();
        match source {
            Source::Digits => self.set(&digits::train_test_split().1, name, book),
            Source::Mnist { test: None, .. } if path == against => {
                let expected = "data with test images; these have training images alone";
                Err(Error::argument("--held-out", name, expected))
            }
            _ => self.whole(source, path, book),
        }
    }

    /// All images of a data set; of files in the format of MNIST, the test images.
    pub(crate) fn whole(&self, source: &Source, path: &Path, book: &mut Book) -> Result<ImageSet> {
        let name = path.display().to_string();
        match source {
            Source::Digits => self.set(&digits::load(), name, book),
            Source::Mnist { train, test } => self.set(test.as_ref().unwrap_or(train), name, book),
            Source::Folder(folder) => {
                let all: Vec<usize> = (0..folder.len()).collect();
                self.files(folder, path, &all, name, book)
            }
        }
    }

    /// At most as many of `rows` as memory allows, in order.
    fn limited(
        &self,
        rows: &[usize],
        shape: ImageShape,
        name: &str,
        book: &mut Book,
    ) -> Vec<usize> {
        let fit = (MAX_BYTES / shape.numel().max(1)).clamp(2, MAX_IMAGES);
        let wanted = self.most.unwrap_or(rows.len()).min(rows.len());
        if wanted > fit {
            book.warn(format!(
                "{name}: only {fit} of {} images of {shape} were read, at random; copies of the \
                 others are not found.",
                rows.len()
            ));
        }
        let most = wanted.min(fit);
        if rows.len() <= most {
            return rows.to_vec();
        }
        let drawn = drawn(rows.len(), most, self.seed);
        drawn.into_iter().map(|row| rows[row]).collect()
    }

    /// Images that are all readable.
    fn set(
        &self,
        data: &impl Dataset<Item = Image>,
        name: String,
        book: &mut Book,
    ) -> Result<ImageSet> {
        if data.is_empty() {
            return Err(Error::argument("images", 0, "at least 1 image"));
        }
        let rows: Vec<usize> = (0..data.len()).collect();
        let rows = self.limited(&rows, data.get(0)?.shape, &name, book);
        let images = rows.iter().map(|row| data.get(*row));
        let images = images.collect::<Result<Vec<Image>>>()?;
        let last = images.iter().filter_map(|image| image.label).max();
        Ok(ImageSet {
            name,
            names: rows.iter().map(|row| format!("image {row}")).collect(),
            files: vec![],
            classes: last.map_or(vec![], |last| (0..=last).map(|c| c.to_string()).collect()),
            images,
        })
    }

    /// Images of files. Those that cannot be read are left out, with a warning that names them;
    /// those of another size or in colour are changed, with a warning, too.
    fn files(
        &self,
        folder: &ImageFolder,
        path: &Path,
        rows: &[usize],
        name: String,
        book: &mut Book,
    ) -> Result<ImageSet> {
        let shape = folder.shape();
        let files: Vec<&Path> = folder.files().collect();
        let rows = self.limited(rows, shape, &name, book);
        let progress = Progress::new("reading images", rows.len(), self.stop);
        let mut set = ImageSet {
            name,
            images: vec![],
            names: vec![],
            files: vec![],
            classes: folder.classes().to_vec(),
        };
        let (mut broken, mut failed) = (Vec::new(), None);
        let (mut other_sizes, mut colours) = (0, 0);
        for row in &rows {
            progress.add(1)?;
            let file = files[*row];
            let relative = file.strip_prefix(path).unwrap_or(file);
            let shown = relative.display().to_string();
            match folder.get(*row) {
                Ok(image) => {
                    if let Some((size, has_colour)) = header(file) {
                        other_sizes += usize::from(size != (shape.width, shape.height));
                        colours += usize::from(has_colour && shape.channels == 1);
                    }
                    set.images.push(image);
                    set.names.push(shown);
                    set.files.push(file.to_path_buf());
                }
                Err(error) => {
                    broken.push(shown);
                    failed = failed.or(Some(error));
                }
            }
        }
        if set.images.is_empty() {
            return Err(nothing_readable(path, rows.len(), failed));
        }
        if other_sizes > 0 {
            book.warn(format!(
                "{}: {other_sizes} of {} images are not {shape}; they were cropped to its \
                 proportions and resized, which changes every measure.",
                set.name,
                set.len()
            ));
        }
        if colours > 0 {
            book.warn(format!(
                "{}: {colours} of {} images are stored in colour and were made grey, like the \
                 images that they are compared with.",
                set.name,
                set.len()
            ));
        }
        if let Some(first) = failed {
            book.warn(format!(
                "{} of {} files in {} cannot be read and were skipped: {}. The first: {first}.",
                broken.len(),
                rows.len(),
                path.display(),
                some_of(&broken)
            ));
        }
        Ok(set)
    }
}

/// `most` of so many rows at random, in order.
pub(crate) fn drawn(count: usize, most: usize, seed: u64) -> Vec<usize> {
    let mut rows = Rng::stream(seed, "images", 0).permutation(count);
    rows.truncate(most);
    rows.sort_unstable();
    rows
}

/// Width and height of a file, and whether it is stored in colour.
fn header(file: &Path) -> Option<((usize, usize), bool)> {
    let reader = ImageReader::open(file).and_then(ImageReader::with_guessed_format);
    let decoder = reader.ok()?.into_decoder().ok()?;
    let (width, height) = decoder.dimensions();
    let has_colour = decoder.color_type().has_color();
    Some(((width as usize, height as usize), has_colour))
}
