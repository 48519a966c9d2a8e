//! A directory of images.

use super::{
    Dataset, Image, ImageShape, entries,
    image_format::{Format, decode_without_end, has_end_of_image},
};
use crate::{DataFault, Error, Result, check::in_range};
use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, imageops::FilterType,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    io::{BufRead, Cursor, Seek},
    path::{Path, PathBuf},
};

/// File extensions of images. A file with another extension is an image if its content is.
const EXTENSIONS: [&str; 14] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "bmp", "gif", "webp", "tif", "tiff", "avif", "heic",
    "heif", "jxl",
];

/// Files and directories that operating systems create; they are skipped, as are hidden ones, whose
/// names begin with a dot.
const SYSTEM_NAMES: [&str; 8] = [
    "__macosx",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "@eadir",
    "lost+found",
    "$recycle.bin",
    "system volume information",
];

/// Default limit on the decoded size of an image, in bytes.
const MAX_DECODED_BYTES: u64 = 1 << 30;

/// How images of different sizes are brought to one shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeMode {
    /// Scale until the shorter side fits, then cut the middle out.
    #[default]
    #[serde(alias = "crop")]
    CenterCrop,
    /// Scale each side by its own factor; proportions change.
    Stretch,
}

/// How to read a directory of images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageFolderConfig {
    /// Shape of the images after resizing; one channel for grey, three for RGB.
    pub shape: ImageShape,
    /// How images are resized to that shape.
    #[serde(alias = "fit")]
    pub resize_mode: ResizeMode,
    /// Whether the names of subdirectories are the classes.
    #[serde(alias = "labels")]
    pub class_labels: bool,
    /// Limit on the decoded size of one image, in bytes. Protects against files that claim
    /// gigapixels.
    pub max_decoded_bytes: u64,
}

impl Default for ImageFolderConfig {
    fn default() -> Self {
        Self {
            shape: ImageShape::new(3, 32, 32),
            resize_mode: ResizeMode::CenterCrop,
            class_labels: false,
            max_decoded_bytes: MAX_DECODED_BYTES,
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

    /// Uses the names of subdirectories, in alphabetical order, as classes.
    pub fn with_labels(self) -> Self {
        Self {
            class_labels: true,
            ..self
        }
    }

    fn validate(&self) -> Result<()> {
        let ImageShape {
            channels,
            height,
            width,
        } = self.shape;
        check_channels(channels)?;
        in_range("shape.height", height, 1..=65_535)?;
        in_range("shape.width", width, 1..=65_535)?;
        if height * width > 1 << 26 {
            return Err(Error::config(
                "shape",
                self.shape,
                "at most 67 million pixels",
            ));
        }
        Ok(())
    }
}

fn check_channels(channels: usize) -> Result<()> {
    crate::check::ensure(
        matches!(channels, 1 | 3),
        "shape.channels",
        channels,
        "1 (grey) or 3 (RGB)",
    )
}

/// Images of a directory and its subdirectories, decoded when they are read.
///
/// A file is an image if its extension or its content is that of an image. Hidden files and
/// directories, and those that operating systems create (`__MACOSX`, `Thumbs.db`, …), are skipped.
/// Links to directories are followed, each directory once.
#[derive(Clone, Debug)]
pub struct ImageFolder {
    config: ImageFolderConfig,
    files: Vec<(PathBuf, Option<u32>)>,
    classes: Vec<String>,
}

impl ImageFolder {
    /// Lists the images under `dir` in the order of their names.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is out of range, [`Error::Io`] if a directory cannot
    /// be read, [`Error::Data`] if there is no image.
    pub fn open(dir: &Path, config: ImageFolderConfig) -> Result<Self> {
        config.validate()?;
        let (mut files, mut classes) = (Vec::new(), Vec::new());
        if config.class_labels {
            for sub in visible(dir)?.into_iter().filter(|path| path.is_dir()) {
                let label = classes.len() as u32;
                let mut listing = Listing::default();
                listing.visit(dir)?;
                if !listing.collect(&sub)? {
                    continue; // a link back to `dir` is a loop, not a class
                }
                files.extend(listing.files.into_iter().map(|path| (path, Some(label))));
                let name = sub.file_name().unwrap_or_default();
                classes.push(name.to_string_lossy().into_owned());
            }
        } else {
            let mut listing = Listing::default();
            listing.collect(dir)?;
            files.extend(listing.files.into_iter().map(|path| (path, None)));
        }
        if files.is_empty() {
            let what = if config.class_labels {
                "no image in any subdirectory"
            } else {
                "no image in it"
            };
            let known = EXTENSIONS.join(", ");
            return Err(Error::data(
                dir,
                DataFault::Empty(format!("{what} (known extensions: {known})")),
            ));
        }
        Ok(Self {
            config,
            files,
            classes,
        })
    }

    /// Names of the classes; empty without class labels.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Shape of every image.
    pub fn shape(&self) -> ImageShape {
        self.config.shape
    }

    /// The files in order.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }
}

impl Dataset for ImageFolder {
    type Item = Image;

    fn len(&self) -> usize {
        self.files.len()
    }

    fn get(&self, index: usize) -> Result<Image> {
        let (path, label) = &self.files[index];
        let ImageFolderConfig {
            shape,
            resize_mode,
            max_decoded_bytes,
            ..
        } = self.config;
        Ok(Image {
            shape,
            pixels: fit(decode(path, max_decoded_bytes)?, shape, resize_mode),
            label: *label,
        })
    }
}

/// The visible entries of a directory in the order of their names.
fn visible(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = entries(dir)?;
    paths.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !name.starts_with('.') && !SYSTEM_NAMES.contains(&name.to_lowercase().as_str())
    });
    Ok(paths)
}

/// Images found so far.
#[derive(Default)]
struct Listing {
    files: Vec<PathBuf>,
    /// Canonical paths of the directories visited so far: links may lead back to them.
    visited: HashSet<PathBuf>,
}

impl Listing {
    /// Whether `dir` is visited for the first time.
    fn visit(&mut self, dir: &Path) -> Result<bool> {
        Ok(self
            .visited
            .insert(dir.canonicalize().map_err(Error::io(dir))?))
    }

    /// Adds the images in `dir`; `false` if it was visited before.
    fn collect(&mut self, dir: &Path) -> Result<bool> {
        if !self.visit(dir)? {
            return Ok(false);
        }
        for path in visible(dir)? {
            if path.is_dir() {
                self.collect(&path)?;
            } else if is_image(&path) {
                self.files.push(path);
            }
        }
        Ok(true)
    }
}

/// Whether the extension or the content of a file is that of an image. A file that cannot be read
/// is one by its extension only.
fn is_image(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    if EXTENSIONS.contains(&ending.to_lowercase().as_str()) {
        return true;
    }
    // Pipes and sockets would wait for a writer.
    path.is_file() && matches!(Format::of_file(path), Ok(Some(_)))
}

/// Reads one image file, crops it to the proportions of `shape` around its centre and resizes it.
/// The image has the channels of `shape`.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Data`] if it holds no image,
/// [`Error::Config`] for channels other than 1 or 3, or an empty shape.
pub fn read_image(path: &Path, shape: ImageShape) -> Result<Image> {
    ImageFolderConfig::new(shape).validate()?;
    Ok(Image {
        shape,
        pixels: fit(
            decode(path, MAX_DECODED_BYTES)?,
            shape,
            ResizeMode::CenterCrop,
        ),
        label: None,
    })
}

/// Decodes `path` by its content; its name does not matter. The image is turned as its EXIF data
/// say, and allocates at most `max_bytes`.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Data`] if it holds no image, is truncated, or
/// needs more memory.
pub fn decode(path: &Path, max_bytes: u64) -> Result<DynamicImage> {
    let size = std::fs::metadata(path).map_err(Error::io(path))?.len();
    let fault = |reason: String| Error::data(path, DataFault::Decode(reason));
    let format = Format::of_file(path)?;
    if let Some(reason) = format.and_then(Format::unsupported) {
        return Err(fault(reason));
    }
    // Compression beyond this ratio is not credible, so the size of the file bounds the size that
    // its header may claim (16 MiB for the smallest files).
    let credible = size.saturating_mul(2048).max(1 << 24);
    let mut limits = Limits::default();
    limits.max_alloc = Some(credible.min(max_bytes));
    let open = || {
        ImageReader::open(path)
            .and_then(|reader| reader.with_guessed_format())
            .map_err(Error::io(path))
    };
    let decoded = if format == Some(Format::Jpeg) {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let jpeg = |bytes: &[u8]| {
            let reader = ImageReader::with_format(Cursor::new(bytes), ImageFormat::Jpeg);
            decode_within(reader, &limits)
        };
        if has_end_of_image(&bytes) {
            jpeg(&bytes)
        } else {
            match decode_without_end(&bytes, jpeg) {
                Ok(Some(picture)) => Ok(picture),
                Err(error @ ImageError::Limits(_)) => Err(error),
                Ok(None) | Err(_) => {
                    return Err(fault(format!(
                        "truncated JPEG: no end-of-image marker in its {size} bytes, and part of \
                         the image is missing; copy the file again or remove it"
                    )));
                }
            }
        }
    } else {
        decode_within(open()?, &limits)
    };
    decoded.map_err(|error| match error {
        ImageError::Limits(_) => {
            let dimensions = open().ok().and_then(|r| r.into_dimensions().ok());
            let what = match dimensions {
                Some((width, height)) => format!("{width}×{height} pixels"),
                None => "its pixels".into(),
            };
            fault(if credible < max_bytes {
                format!("{what} are more than a file of {size} bytes can hold; it is damaged")
            } else {
                format!(
                    "{what} need more than the limit of {max_bytes} bytes; make the image \
                     smaller, or raise `max_decoded_bytes`"
                )
            })
        }
        other => fault(other.to_string()),
    })
}

fn decode_within<R: BufRead + Seek>(
    mut reader: ImageReader<R>,
    limits: &Limits,
) -> Result<DynamicImage, ImageError> {
    let mut limits = limits.clone();
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    limits.reserve(decoder.total_bytes())?;
    // The orientation of the camera, from EXIF.
    let orientation = decoder.orientation()?;
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

fn fit(picture: DynamicImage, shape: ImageShape, fit: ResizeMode) -> Vec<u8> {
    let (width, height) = (shape.width as u32, shape.height as u32);
    let sized = match fit {
        _ if (picture.width(), picture.height()) == (width, height) => picture,
        // Cropped before scaling: a scaled image one pixel wide and a million high would take
        // gigabytes.
        ResizeMode::CenterCrop => {
            center_crop(&picture, width, height).resize_exact(width, height, FilterType::Triangle)
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

/// The largest crop of `picture` around its centre with the proportions `width : height`.
fn center_crop(picture: &DynamicImage, width: u32, height: u32) -> DynamicImage {
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
    fn fit_orders_pixels_by_channel() {
        let pixels = fit(
            picture(4, 2),
            ImageShape::new(3, 2, 4),
            ResizeMode::CenterCrop,
        );
        let row = |left: u8, right: u8| [left, left, right, right].repeat(2);
        assert_eq!(pixels, [row(255, 0), row(0, 0), row(0, 255)].concat());
    }

    #[test]
    fn fit_crops_the_center() {
        // 8 wide, 2 high to 2×2: the middle two columns, one of each colour.
        let pixels = fit(
            picture(8, 2),
            ImageShape::new(3, 2, 2),
            ResizeMode::CenterCrop,
        );
        assert_eq!(pixels, [255, 0, 255, 0, 0, 0, 0, 0, 0, 255, 0, 255]);
    }

    #[test]
    fn read_image_matches_image_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one.png");
        picture(8, 2).save(&path).unwrap();
        let image = read_image(&path, ImageShape::new(3, 2, 2)).unwrap();
        assert_eq!(image.pixels, [255, 0, 255, 0, 0, 0, 0, 0, 0, 255, 0, 255]);
        assert!(
            read_image(&path, ImageShape::new(2, 2, 2))
                .unwrap_err()
                .to_string()
                .contains("`shape.channels` is 2")
        );
        let text = folder.path().join("none.png");
        std::fs::write(&text, "no image").unwrap();
        assert!(
            read_image(&text, ImageShape::new(1, 2, 2))
                .unwrap_err()
                .to_string()
                .contains("none.png")
        );
    }

    #[test]
    fn decode_applies_exif_orientation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("photo.jpg");
        picture(16, 16).save(&path).unwrap();
        // An EXIF block with orientation 6 (turn a quarter clockwise), so left becomes top.
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
        let image = decode(&path, MAX_DECODED_BYTES).unwrap().into_rgb8();
        let (top, bottom) = (image.get_pixel(8, 2).0, image.get_pixel(8, 13).0);
        assert!(
            top[0] > 200 && top[2] < 60 && bottom[0] < 60 && bottom[2] > 200,
            "{top:?} {bottom:?}"
        );
    }

    #[test]
    fn fit_converts_to_luma() {
        let pixels = fit(picture(2, 1), ImageShape::new(1, 1, 2), ResizeMode::Stretch);
        assert!(
            (53..=55).contains(&pixels[0]) && (17..=19).contains(&pixels[1]),
            "{pixels:?}"
        );
    }

    #[test]
    fn sub_directories_name_classes_in_order() {
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

    fn names(dir: &Path, config: ImageFolderConfig) -> Vec<String> {
        let images = ImageFolder::open(dir, config).unwrap();
        images
            .files()
            .map(|file| {
                let file = file.strip_prefix(dir).unwrap().to_string_lossy();
                file.replace('\\', "/")
            })
            .collect()
    }

    fn config() -> ImageFolderConfig {
        ImageFolderConfig::new(ImageShape::new(3, 4, 4))
    }

    #[test]
    fn listing_leaves_out_hidden_and_system_files() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "cat/a.png",
            ".ipynb_checkpoints/a-checkpoint.png",
            "cat/.ipynb_checkpoints/a-checkpoint.png",
            "cat/._a.png",
            "__MACOSX/cat/._a.png",
            "__MACOSX/cat/b.png",
            "cat/.hidden.png",
            "cat/Thumbs.db",
            "cat/desktop.ini",
        ] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            picture(4, 4)
                .save_with_format(path, image::ImageFormat::Png)
                .unwrap();
        }
        assert_eq!(names(dir.path(), config()), ["cat/a.png"]);
        let labelled = ImageFolder::open(dir.path(), config().with_labels()).unwrap();
        assert_eq!(
            (labelled.classes(), labelled.len()),
            (&["cat".to_string()][..], 1)
        );
    }

    #[test]
    fn listing_goes_by_content_and_by_ending() {
        use image::ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
        let dir = tempfile::tempdir().unwrap();
        for (name, format) in [
            ("a.jfif", Jpeg),
            ("b.jpe", Jpeg),
            ("c", Png),
            ("d.dat", WebP),
            ("e.tif", Tiff),
            ("f.TIFF", Tiff),
            ("g", Bmp),
            ("h.PNG", Gif),
        ] {
            picture(8, 8)
                .save_with_format(dir.path().join(name), format)
                .unwrap();
        }
        std::fs::write(dir.path().join("labels.csv"), "a,0\n").unwrap();
        std::fs::write(dir.path().join("README"), "BM is no bitmap").unwrap();
        let images = ImageFolder::open(dir.path(), config()).unwrap();
        assert_eq!(images.len(), 8);
        for index in 0..8 {
            let pixels = images.get(index).unwrap().pixels;
            // Left red, right blue.
            assert!(pixels[0] > 200 && pixels[3] < 60, "{index}: {pixels:?}");
            assert!(pixels[32] < 60 && pixels[35] > 200, "{index}: {pixels:?}");
        }
    }

    #[test]
    fn unsupported_formats_are_named() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes, format) in [
            ("a.avif", &b"\0\0\0\x20ftypavif\0\0\0\0"[..], "AVIF"),
            ("b.jpg", b"\0\0\0\x20ftypheic\0\0\0\0", "HEIC"),
            ("c", b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        ] {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let error = read_image(&path, ImageShape::new(1, 2, 2))
                .unwrap_err()
                .to_string();
            assert!(error.contains(name) && error.contains(format), "{error}");
            assert!(error.contains("convert"), "{error}");
        }
        assert_eq!(names(dir.path(), config()), ["a.avif", "b.jpg", "c"]);
    }

    #[test]
    #[cfg(unix)]
    fn listing_follows_links_and_detects_loops() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let (data, links) = (dir.path().join("data"), dir.path().join("links"));
        for class in ["ant", "cat"] {
            std::fs::create_dir_all(data.join(class)).unwrap();
            picture(4, 4).save(data.join(class).join("a.png")).unwrap();
        }
        std::fs::create_dir(&links).unwrap();
        symlink(data.join("ant"), links.join("ant")).unwrap();
        symlink(data.join("cat"), links.join("cat")).unwrap();
        symlink(&links, data.join("cat/loop")).unwrap();
        symlink(&links, links.join("loop")).unwrap();
        assert_eq!(names(&links, config()), ["ant/a.png", "cat/a.png"]);
        let labelled = names(&links, config().with_labels());
        assert_eq!(labelled, ["ant/a.png", "cat/a.png"]);
        let labelled = ImageFolder::open(&links, config().with_labels()).unwrap();
        assert_eq!(labelled.classes(), ["ant", "cat"]);
    }

    #[test]
    #[cfg(unix)]
    fn unreadable_files_without_extension_are_skipped() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        picture(4, 4).save(dir.path().join("a.png")).unwrap();
        for name in ["lock", "secret.jpg"] {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).unwrap();
        }
        assert_eq!(names(dir.path(), config()), ["a.png", "secret.jpg"]);
    }

    /// Noise, so that the file is large for its number of pixels.
    fn noise(width: u32, height: u32) -> RgbImage {
        let mut state = 1u32;
        RgbImage::from_fn(width, height, |_, _| {
            Rgb(std::array::from_fn(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            }))
        })
    }

    #[test]
    fn truncated_jpegs_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("photo.jpg");
        for picture in [picture(64, 64), noise(64, 64).into()] {
            picture.save(&path).unwrap();
            let whole = std::fs::read(&path).unwrap();
            let read = || read_image(&path, ImageShape::new(3, 8, 8)).map_err(|e| e.to_string());
            let expected = read().unwrap();
            // Bytes after the end are common and harmless.
            std::fs::write(&path, [&whole[..], b"\0\0trailer"].concat()).unwrap();
            assert_eq!(read().unwrap(), expected);
            // So is a missing end marker, or half of it.
            for cut in [1, 2] {
                std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
                assert_eq!(read().unwrap(), expected);
            }
            for kept in [20, whole.len() / 2, whole.len() * 3 / 4] {
                std::fs::write(&path, &whole[..kept]).unwrap();
                let error = read().unwrap_err();
                assert!(
                    error.contains("photo.jpg") && error.contains("truncated"),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn large_images_name_size_limit_and_remedy() {
        let dir = tempfile::tempdir().unwrap();
        // Noise, so that the file is large enough for its size to be credible.
        noise(100, 80).save(dir.path().join("scan.png")).unwrap();
        let open = |max_decoded_bytes| {
            let config = ImageFolderConfig {
                max_decoded_bytes,
                ..config()
            };
            ImageFolder::open(dir.path(), config).unwrap().get(0)
        };
        let error = open(20_000).unwrap_err().to_string();
        for part in ["scan.png", "100×80", "20000 bytes", "max_decoded_bytes"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(open(1 << 20).is_ok());
    }
}
