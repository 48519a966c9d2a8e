//! A folder of images.

use super::{Dataset, Image, ImageShape};
use crate::{DataFault, Error, Result, check::ensure};
use image::{DynamicImage, ImageDecoder, ImageReader, ImageResult, Limits, imageops::FilterType};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

/// File endings that are taken for images.
const ENDINGS: [&str; 6] = ["png", "jpg", "jpeg", "bmp", "gif", "webp"];

/// How images of all sizes become images of one shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeMode {
    /// Shrink or enlarge until the shorter side fits, then cut the middle out.
    #[default]
    CenterCrop,
    /// Shrink or enlarge each side on its own; proportions change.
    Stretch,
}

/// How to read a folder of images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageFolderConfig {
    /// Shape every image is brought to; one channel for grey, three for RGB.
    pub shape: ImageShape,
    /// How.
    pub resize_mode: ResizeMode,
    /// Whether sub-folders name the classes.
    pub class_labels: bool,
}

impl Default for ImageFolderConfig {
    fn default() -> Self {
        Self {
            shape: ImageShape::new(3, 32, 32),
            resize_mode: ResizeMode::CenterCrop,
            class_labels: false,
        }
    }
}

impl ImageFolderConfig {
    /// Images of `shape`, cropped, without labels.
    pub fn new(shape: ImageShape) -> Self {
        Self {
            shape,
            ..Self::default()
        }
    }

    /// Takes the names of sub-folders, in alphabetical order, for classes.
    pub fn with_labels(self) -> Self {
        Self {
            class_labels: true,
            ..self
        }
    }
}

/// Images of a folder and its sub-folders, decoded when asked for.
#[derive(Clone, Debug)]
pub struct ImageFolder {
    config: ImageFolderConfig,
    files: Vec<(PathBuf, Option<u32>)>,
    classes: Vec<String>,
}

impl ImageFolder {
    /// Lists the images under `folder` in the order of their names.
    ///
    /// # Errors
    /// If the configuration is out of range, the folder cannot be read, or no image is in it.
    pub fn open(folder: &Path, config: ImageFolderConfig) -> Result<Self> {
        let ImageShape {
            channels,
            height,
            width,
        } = config.shape;
        ensure(
            matches!(channels, 1 | 3),
            "shape.channels",
            channels,
            "1 (grey) or 3 (RGB)",
        )?;
        ensure(
            (1..=65_535).contains(&height),
            "shape.height",
            height,
            "1 to 65535",
        )?;
        ensure(
            (1..=65_535).contains(&width),
            "shape.width",
            width,
            "1 to 65535",
        )?;
        ensure(
            height * width <= 1 << 26,
            "shape",
            config.shape,
            "at most 67 million pixels",
        )?;
        let (mut files, mut classes) = (Vec::new(), Vec::new());
        if config.class_labels {
            for sub in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
                let label = classes.len() as u32;
                let mut found = Vec::new();
                collect(&sub, &mut found)?;
                files.extend(found.into_iter().map(|path| (path, Some(label))));
                classes.push(
                    sub.file_name()
                        .unwrap_or_default()
                        .to_string_lossy()
                        .into_owned(),
                );
            }
        } else {
            let mut found = Vec::new();
            collect(folder, &mut found)?;
            files.extend(found.into_iter().map(|path| (path, None)));
        }
        if files.is_empty() {
            let what = if config.class_labels {
                "no image in any sub-folder"
            } else {
                "no image in it"
            };
            let known = ENDINGS.join(", ");
            return Err(Error::data(
                folder,
                DataFault::Empty(format!("{what} (known endings: {known})")),
            ));
        }
        Ok(Self {
            config,
            files,
            classes,
        })
    }

    /// Names of the classes, if sub-folders name them.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Shape of every image.
    pub fn shape(&self) -> ImageShape {
        self.config.shape
    }
}

impl Dataset for ImageFolder {
    type Item = Image;

    fn len(&self) -> usize {
        self.files.len()
    }

    fn get(&self, index: usize) -> Result<Image> {
        let (path, label) = &self.files[index];
        let shape = self.config.shape;
        Ok(Image {
            shape,
            pixels: fit(decode(path)?, shape, self.config.resize_mode),
            label: *label,
        })
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = std::fs::read_dir(folder).map_err(Error::io(folder))?;
    let mut paths = read
        .map(|e| e.map(|e| e.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(Error::io(folder))?;
    // The order of a directory is the file system's whim; a seed must mean the same order
    // everywhere.
    paths.sort();
    Ok(paths)
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    for path in entries(folder)? {
        let link = path
            .symlink_metadata()
            .map_err(Error::io(&path))?
            .is_symlink();
        if path.is_dir() {
            if !link {
                collect(&path, into)?; // a link to a folder could lead back here
            }
        } else if path
            .extension()
            .is_some_and(|e| ENDINGS.contains(&e.to_string_lossy().to_lowercase().as_str()))
        {
            into.push(path);
        }
    }
    Ok(())
}

/// One image file, cut to the proportions of `shape` around its middle and brought to its size and
/// channels.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Data`] if it holds no image,
/// [`Error::Config`] for other channels than 1 or 3, or an empty shape.
pub fn read_image(path: &Path, shape: ImageShape) -> Result<Image> {
    if ![1, 3].contains(&shape.channels) || shape.numel() == 0 {
        return Err(Error::config(
            "shape",
            shape,
            "1 or 3 channels, and at least a pixel",
        ));
    }
    Ok(Image {
        shape,
        pixels: fit(decode(path)?, shape, ResizeMode::CenterCrop),
        label: None,
    })
}

/// Decodes `path` by its content, whatever its name says.
fn decode(path: &Path) -> Result<DynamicImage> {
    let size = std::fs::metadata(path).map_err(Error::io(path))?.len();
    let reader = ImageReader::open(path)
        .and_then(|r| r.with_guessed_format())
        .map_err(Error::io(path))?;
    decode_within(reader, size)
        .map_err(|error| Error::data(path, DataFault::Decode(error.to_string())))
}

fn decode_within(mut reader: ImageReader<BufReader<File>>, size: u64) -> ImageResult<DynamicImage> {
    // A picture of one colour packs well, but not a thousandfold and more: what a header may ask
    // for is bounded by the file (16 MiB for the smallest).
    let mut limits = Limits::default();
    limits.max_alloc = Some(size.saturating_mul(2048).clamp(1 << 24, 1 << 30));
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    limits.reserve(decoder.total_bytes())?;
    // Cameras write what the sensor saw and note how they were held.
    let held = decoder.orientation()?;
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(held);
    Ok(picture)
}

fn fit(picture: DynamicImage, shape: ImageShape, fit: ResizeMode) -> Vec<u8> {
    let (width, height) = (shape.width as u32, shape.height as u32);
    let sized = match fit {
        _ if (picture.width(), picture.height()) == (width, height) => picture,
        // Cut before it is scaled: scaled whole, a picture one pixel wide and a million high would
        // become gigabytes.
        ResizeMode::CenterCrop => {
            middle(&picture, width, height).resize_exact(width, height, FilterType::Triangle)
        }
        ResizeMode::Stretch => picture.resize_exact(width, height, FilterType::Triangle),
    };
    if shape.channels == 1 {
        return sized.into_luma8().into_raw();
    }
    let rgb = sized.into_rgb8().into_raw();
    (0..3)
        .flat_map(|channel| rgb.iter().skip(channel).step_by(3).copied())
        .collect()
}

/// The largest part of `picture` around its middle that has the proportions `width : height`.
fn middle(picture: &DynamicImage, width: u32, height: u32) -> DynamicImage {
    let (w, h) = (u64::from(picture.width()), u64::from(picture.height()));
    let (tw, th) = (u64::from(width), u64::from(height));
    let (cut_w, cut_h) = if w * th > h * tw {
        ((h * tw / th).max(1), h)
    } else {
        (w, (w * th / tw).max(1))
    };
    picture.crop_imm(
        ((w - cut_w) / 2) as u32,
        ((h - cut_h) / 2) as u32,
        cut_w as u32,
        cut_h as u32,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Rgb, RgbImage};

    fn picture(width: u32, height: u32) -> DynamicImage {
        // Left half red, right half blue.
        RgbImage::from_fn(width, height, |x, _| {
            if x < width / 2 {
                Rgb([255, 0, 0])
            } else {
                Rgb([0, 0, 255])
            }
        })
        .into()
    }

    #[test]
    fn pixels_come_channel_by_channel() {
        let pixels = fit(
            picture(4, 2),
            ImageShape::new(3, 2, 4),
            ResizeMode::CenterCrop,
        );
        let row = |left: u8, right: u8| [left, left, right, right].repeat(2);
        assert_eq!(pixels, [row(255, 0), row(0, 0), row(0, 255)].concat());
    }

    #[test]
    fn cropping_keeps_proportions_and_takes_the_middle() {
        // 8 wide, 2 high to 2×2: the middle two columns, one of each colour.
        let pixels = fit(
            picture(8, 2),
            ImageShape::new(3, 2, 2),
            ResizeMode::CenterCrop,
        );
        assert_eq!(pixels, [255, 0, 255, 0, 0, 0, 0, 0, 0, 255, 0, 255]);
    }

    #[test]
    fn one_file_is_read_like_those_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one.png");
        picture(8, 2).save(&path).unwrap();
        let image = read_image(&path, ImageShape::new(3, 2, 2)).unwrap();
        assert_eq!(image.pixels, [255, 0, 255, 0, 0, 0, 0, 0, 0, 255, 0, 255]);
        assert!(
            read_image(&path, ImageShape::new(2, 2, 2))
                .unwrap_err()
                .to_string()
                .contains("`shape` is 2×2×2")
        );
        let text = folder.path().join("none.png");
        std::fs::write(&text, "no picture").unwrap();
        assert!(
            read_image(&text, ImageShape::new(1, 2, 2))
                .unwrap_err()
                .to_string()
                .contains("none.png")
        );
    }

    #[test]
    fn pictures_stand_as_the_camera_was_held() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("photo.jpg");
        picture(16, 16).save(&path).unwrap();
        // An EXIF block that says: turn a quarter clockwise (orientation 6), so left becomes top.
        let tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let plain = std::fs::read(&path).unwrap();
        let length = (2 + 6 + tiff.len() as u16).to_be_bytes();
        let turned = [
            &plain[..2],
            b"\xff\xe1",
            &length,
            b"Exif\0\0",
            tiff,
            &plain[2..],
        ]
        .concat();
        std::fs::write(&path, turned).unwrap();
        let image = decode(&path).unwrap().into_rgb8();
        let (top, bottom) = (image.get_pixel(8, 2).0, image.get_pixel(8, 13).0);
        assert!(
            top[0] > 200 && top[2] < 60 && bottom[0] < 60 && bottom[2] > 200,
            "{top:?} {bottom:?}"
        );
    }

    #[test]
    fn grey_is_luma() {
        let pixels = fit(picture(2, 1), ImageShape::new(1, 1, 2), ResizeMode::Stretch);
        assert!(
            (53..=55).contains(&pixels[0]) && (17..=19).contains(&pixels[1]),
            "{pixels:?}"
        );
    }

    #[test]
    fn sub_folders_name_classes_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for (class, name) in [
            ("cat", "b.png"),
            ("ant", "x.png"),
            ("cat", "a.jpg"),
            ("ant", "not-an-image.txt"),
        ] {
            let path = folder.path().join(class).join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            if name.ends_with("txt") {
                std::fs::write(path, "hello").unwrap();
            } else {
                picture(9, 5).save(path).unwrap();
            }
        }
        let config = ImageFolderConfig::new(ImageShape::new(1, 4, 4)).with_labels();
        let data = ImageFolder::open(folder.path(), config).unwrap();
        assert_eq!(data.classes(), ["ant", "cat"]);
        let labels: Vec<_> = (0..data.len())
            .map(|i| data.get(i).unwrap().label.unwrap())
            .collect();
        assert_eq!(labels, [0, 1, 1]);
        assert!(data.files[1].0.ends_with("a.jpg"));
    }
}
