use super::*;

/// A grey image: a gradient, a disc, and texture in its lower half.
fn drawn(height: usize, width: usize, seed: u64) -> Image {
    let noise = Rng::new(seed).normal_vec(height * width);
    let value = |i: usize| {
        let (y, x) = (
            (i / width) as f32 / height as f32,
            (i % width) as f32 / width as f32,
        );
        let disc = if (y - 0.4).hypot(x - 0.5) < 0.3 {
            70.0
        } else {
            0.0
        };
        let texture = if y > 0.5 { 12.0 * noise[i] } else { 0.0 };
        (60.0 + 60.0 * x + disc + texture).clamp(0.0, 255.0).round() as u8
    };
    Image {
        shape: ImageShape::new(1, height, width),
        pixels: (0..height * width).map(value).collect(),
        label: None,
    }
}

fn psnr(a: &Image, b: &Image) -> f64 {
    let squares = a.pixels.iter().zip(&b.pixels);
    let squares = squares.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    20.0 * 255f64.log10() - 10.0 * (squares.sum::<f64>() / a.pixels.len() as f64).log10()
}

#[test]
fn mark_is_found_by_its_key_only_and_is_as_weak_as_asked() {
    for (height, width) in [(64, 64), (100, 150), (260, 256)] {
        for decibels in [38.0, 42.0, 50.0] {
            let original = drawn(height, width, 3);
            let watermark = Watermark::new(7).with_psnr(decibels);
            let mut image = original.clone();
            let embedded = watermark.embed(&mut image).unwrap();
            assert!(embedded.present);
            assert_eq!(watermark.detect(&image).unwrap(), embedded);
            // What rounding to 8 bits adds is part of the similarity asked for.
            let found = psnr(&original, &image);
            assert!(found > decibels - 0.2, "{height}×{width}: {found}");
            assert!(found < decibels + 0.2, "{height}×{width}: {found}");
            assert!(!watermark.detect(&original).unwrap().present);
            assert!(!Watermark::new(8).detect(&image).unwrap().present);
        }
    }
}

/// In a nearly white image, most of the change is cut off, so that making it smaller takes away
/// less than its share.
#[test]
fn nearly_saturated_images_stay_as_similar_as_asked() {
    let mut image = drawn(96, 96, 0);
    for (i, pixel) in image.pixels.iter_mut().enumerate() {
        let dot = i / 96 < 3 && i % 96 < 3;
        *pixel = if dot { 100 } else { 254 };
    }
    let original = values(&image, 64).unwrap();
    let marked = Watermark::new(1).mark(&original, image.shape).unwrap();
    let squares = marked.iter().zip(&original);
    let squares = squares.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    let found = 10.0 * (255f64.powi(2) * original.len() as f64 / squares).log10();
    assert!(found > 39.99, "{found}");
}

/// A black image with a single white line gets no specks beside the line.
#[test]
fn no_pixel_changes_much_more_than_the_others() {
    let mut image = drawn(96, 96, 0);
    for (i, pixel) in image.pixels.iter_mut().enumerate() {
        *pixel = if i % 96 == 40 { 255 } else { 0 };
    }
    let original = image.clone();
    let _ = Watermark::new(2).embed(&mut image).unwrap();
    let changes = original.pixels.iter().zip(&image.pixels);
    let largest = changes.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    // 3 times the root mean square 2.53 and the texture's weight beside the line, 2.58. Without a
    // limit, changes are up to 27.
    assert!(largest <= 20, "{largest}");
}

/// An image of which all contrast is at the frequencies of the mark, and works against it.
#[test]
fn embedding_tells_that_an_image_holds_no_mark() {
    let watermark = Watermark::new(3);
    let mut coefficients = vec![0.0; SIDE * SIDE];
    for index in ring(32, 64, 64) {
        coefficients[index] = if watermark.signs[index] {
            -100.0
        } else {
            100.0
        };
    }
    let plane = LowFrequencies::new(64, 64).inverse(&coefficients);
    let mut image = drawn(64, 64, 0);
    for (pixel, value) in image.pixels.iter_mut().zip(plane) {
        *pixel = (128.0 + value).round().clamp(0.0, 255.0) as u8;
    }
    let found = watermark.embed(&mut image).unwrap();
    assert!(!found.present, "{found:?}");
    assert_eq!(watermark.detect(&image).unwrap(), found);
}

/// With random keys, unmarked images have p-values below a rate at most as often as the rate says:
/// also constant images, and such with a single frequency.
#[test]
fn false_positives_are_at_most_the_nominal_rate() {
    let mut constant = drawn(64, 64, 0);
    constant.pixels.fill(255);
    let mut stripes = drawn(96, 64, 0);
    for (i, pixel) in stripes.pixels.iter_mut().enumerate() {
        *pixel = if i % 64 % 8 < 4 { 20 } else { 200 };
    }
    let images = [constant, stripes, drawn(64, 64, 1), drawn(100, 80, 2)];
    let coefficients = images.map(|image| {
        let ImageShape { height, width, .. } = image.shape;
        let plane = luma(&values(&image, 64).unwrap(), image.shape);
        let coefficients = LowFrequencies::new(height, width).forward(&plane);
        (coefficients, height, width)
    });
    let keys = 1_000;
    let mut below = [0.0; 3];
    let rates = [0.1, 0.01, 0.001];
    for key in 0..keys {
        let watermark = Watermark::new(key);
        for (coefficients, height, width) in &coefficients {
            let found = watermark.search_coefficients(coefficients, *height, *width);
            let p_value = found.unwrap().p_value;
            for (below, rate) in below.iter_mut().zip(rates) {
                *below += f64::from(u8::from(p_value <= rate));
            }
        }
    }
    let pairs = (keys * 4) as f64;
    for (below, rate) in below.iter().zip(rates) {
        let limit = pairs * rate + 4.0 * (pairs * rate).sqrt();
        assert!(*below <= limit, "{below} of {pairs} at {rate}");
    }
    // The correction for several rings must not make the test much stricter than it says.
    assert!(below[0] > 0.03 * pairs, "{} of {pairs}", below[0]);
}

#[test]
fn phrases_and_numbers_are_different_keys() {
    let mut image = drawn(128, 128, 4);
    let embedded = Watermark::from_phrase("0").embed(&mut image).unwrap();
    assert!(embedded.present);
    assert!(Watermark::from_phrase("0").detect(&image).unwrap().present);
    assert!(!Watermark::new(0).detect(&image).unwrap().present);
    assert!(!format!("{:?}", Watermark::new(0)).contains("true"));
}

#[test]
fn invalid_images_and_settings_are_errors() {
    let watermark = Watermark::new(0);
    let mut image = drawn(64, 63, 0);
    assert_eq!(
        watermark.embed(&mut image).unwrap_err().to_string(),
        "argument `image` is 64×63, expected at least 64×64 pixels"
    );
    let mut image = drawn(64, 64, 0);
    image.shape.channels = 2;
    assert_eq!(
        watermark.detect(&image).unwrap_err().to_string(),
        "argument `channels` is 2, expected 1 (grey) or 3 (RGB)"
    );
    image.shape.channels = 3;
    assert_eq!(
        watermark.detect(&image).unwrap_err().to_string(),
        "argument `image` is 4096 values, expected as many as its shape 3×64×64 has"
    );
    image.shape = ImageShape::new(1, usize::MAX, 64);
    assert!(
        watermark
            .detect(&image)
            .unwrap_err()
            .to_string()
            .contains("is 4096 values")
    );
    image.shape = ImageShape::new(1, 64, 64);
    for decibels in [29.0, f64::NAN] {
        let error = Watermark::new(0).with_psnr(decibels).embed(&mut image);
        assert!(error.unwrap_err().to_string().contains("`psnr`"));
    }
    let watermark = Watermark::new(0).with_false_positive_rate(0.0);
    let before = image.pixels.clone();
    for found in [watermark.detect(&image), watermark.embed(&mut image)] {
        let error = found.unwrap_err().to_string();
        assert!(error.contains("`false_positive_rate`"), "{error}");
    }
    assert_eq!(image.pixels, before);
}
