//! The watermark after what happens to images on their way: files, compression, resizing, changes
//! of brightness and contrast, blur.

use aigc_core::{
    data::{
        Dataset, Image, ImageShape, collate_images,
        scenes::{Scenes, Split},
        transforms,
    },
    device::device,
    eval::{psnr, ssim},
    output::Watermark,
    rng::Rng,
};
use image::{
    ImageFormat, RgbImage,
    imageops::{self, FilterType::CatmullRom},
};
use std::io::Cursor;

fn interleaved(image: &Image) -> RgbImage {
    let ImageShape { height, width, .. } = image.shape;
    RgbImage::from_raw(width as u32, height as u32, image.interleaved().unwrap()).unwrap()
}

fn planar(image: &RgbImage) -> Image {
    let (width, height) = image.dimensions();
    let shape = ImageShape::new(3, height as usize, width as usize);
    Image::from_interleaved(image.as_raw(), shape).unwrap()
}

fn resized(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    imageops::resize(image, width, height, CatmullRom)
}

fn jpeg(image: &RgbImage) -> RgbImage {
    interleaved(&transforms::jpeg(&planar(image), 75).unwrap())
}

fn png(image: &RgbImage) -> RgbImage {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    image::load_from_memory(bytes.get_ref())
        .unwrap()
        .into_rgb8()
}

/// `factor · (value − around) + around`
fn stretched(image: &RgbImage, factor: f32, around: f32) -> RgbImage {
    let mut image = image.clone();
    for value in image.iter_mut() {
        let stretched = (f32::from(*value) - around) * factor + around;
        *value = stretched.round().clamp(0.0, 255.0) as u8;
    }
    image
}

fn halved(image: &RgbImage) -> RgbImage {
    resized(image, image.width() / 2, image.height() / 2)
}

type Change = (&'static str, fn(&RgbImage) -> RgbImage);

/// What a mark survives from 64 pixels on.
const MILD: [Change; 8] = [
    ("nothing", RgbImage::clone),
    ("PNG", png),
    ("JPEG", jpeg),
    ("half the size", halved),
    ("half the size and back", |x| {
        resized(&halved(x), x.width(), x.height())
    }),
    ("double the size", |x| {
        resized(x, 2 * x.width(), 2 * x.height())
    }),
    ("another aspect", |x| {
        resized(x, x.width() * 3 / 4, x.height() * 5 / 4)
    }),
    ("blur", |x| imageops::blur(x, 1.0)),
];

/// What it survives from 256 pixels on.
const STRONG: [Change; 6] = [
    ("JPEG, then half the size", |x| halved(&jpeg(x))),
    ("half the size, then JPEG", |x| jpeg(&halved(x))),
    ("brighter", |x| stretched(x, 1.1, 0.0)),
    ("darker", |x| stretched(x, 0.9, 0.0)),
    ("more contrast", |x| stretched(x, 1.1, 128.0)),
    ("less contrast", |x| stretched(x, 0.9, 128.0)),
];

/// Noise of all scales, as in photographs of foliage or clouds.
fn texture(side: u32, seed: u64) -> RgbImage {
    let mut rng = Rng::new(seed);
    let scales = [4usize, 8, 16, 32, 64, 128].map(|cells| {
        let weight = 80.0 / (cells as f32).sqrt();
        (cells, weight, rng.normal_vec((cells + 1) * (cells + 1) * 3))
    });
    RgbImage::from_fn(side, side, |x, y| {
        image::Rgb([0, 1, 2].map(|channel| {
            let layers = scales.iter().map(|(cells, weight, noise)| {
                let at =
                    |row: usize, column: usize| noise[(row * (cells + 1) + column) * 3 + channel];
                let place = |pixel: u32| (pixel as f32 + 0.5) * *cells as f32 / side as f32;
                let (row, column) = (place(y), place(x));
                let (top, left) = (row as usize, column as usize);
                let (down, right) = (row.fract(), column.fract());
                let mix = |a: f32, b: f32| a + right * (b - a);
                let upper = mix(at(top, left), at(top, left + 1));
                let lower = mix(at(top + 1, left), at(top + 1, left + 1));
                weight * (upper + down * (lower - upper))
            });
            (128.0 + layers.sum::<f32>()).clamp(0.0, 255.0) as u8
        }))
    })
}

fn scene(index: usize) -> RgbImage {
    let scenes = Scenes::new(Split::Train, 16, 0);
    interleaved(&scenes.get(index).unwrap().image)
}

/// The least structural similarity of a marked scene to its original. In flat areas the mark is all
/// the structure there is, which counts most where they are black.
fn least_similarity(scene: &RgbImage) -> f64 {
    match scene.get_pixel(0, 0).0[0] {
        0..16 => 0.65,
        _ => 0.8,
    }
}

/// Marks an image, which stays similar to its original, and finds the mark after every change, but
/// not without the mark, nor with another key.
fn survives(name: &str, image: &RgbImage, decibels: f64, similarity: f64, changes: &[Change]) {
    let watermark = Watermark::from_phrase("a secret").with_psnr(decibels);
    let other = Watermark::from_phrase("another secret");
    let original = planar(image);
    let mut marked = original.clone();
    let embedded = watermark.embed(&mut marked).unwrap();
    assert!(embedded.present, "{name}: {embedded:?}");
    let [after, before] = [&marked, &original].map(|image| {
        let batch = collate_images(vec![image.clone()]);
        batch.to_tensor(&device("flex").unwrap())
    });
    let found = psnr(&after, &before).unwrap()[0];
    assert!(found > decibels - 0.2, "{name}: {found} decibels");
    let found = ssim(&after, &before).unwrap()[0];
    assert!(found > similarity, "{name}: {found}");
    let marked = interleaved(&marked);
    for (change, apply) in changes {
        let changed = planar(&apply(&marked));
        let found = watermark.detect(&changed).unwrap();
        assert!(found.present, "{name} after {change}: {found:?}");
        let found = other.detect(&changed).unwrap();
        assert!(
            !found.present,
            "{name} after {change}, other key: {found:?}"
        );
        let found = watermark.detect(&planar(&apply(image))).unwrap();
        assert!(!found.present, "{name} after {change}, unmarked: {found:?}");
    }
}

/// In images of pure white background there is no room for more brightness, so that they are left
/// out of the strong changes.
#[test]
fn watermark_survives_files_compression_and_resizing() {
    for index in 0..3 {
        let large = resized(&scene(index), 256, 256);
        let (name, similarity) = (format!("scene {index}"), least_similarity(&large));
        survives(&name, &large, 40.0, similarity, &MILD);
        survives(&name, &large, 40.0, similarity, &STRONG[..2]);
    }
    let large = texture(256, 1);
    survives("texture", &large, 40.0, 0.95, &MILD);
    survives("texture", &large, 40.0, 0.95, &STRONG);
}

/// Where the background is neither white nor black: only there is room for both signs of the mark.
#[test]
fn watermark_of_small_images_survives_mild_changes() {
    let scenes = (0..16).map(|index| (index, scene(index)));
    let grey = scenes.filter(|(_, image)| (16..240).contains(&image.get_pixel(0, 0).0[0]));
    let grey: Vec<_> = grey.take(4).collect();
    assert!(grey.len() > 1);
    for (index, image) in grey {
        let (name, similarity) = (format!("scene {index}"), least_similarity(&image));
        survives(&name, &image, 38.0, similarity, &MILD);
    }
    let small = texture(128, 2);
    survives("texture of 128 pixels", &small, 38.0, 0.95, &MILD);
}
