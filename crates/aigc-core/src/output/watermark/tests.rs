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
fn mark_is_found_by_its_key_only_and_is_invisible() {
    for (height, width) in [(64, 64), (100, 150), (260, 256)] {
        for decibels in [38.0, 42.0] {
            let original = drawn(height, width, 3);
            let watermark = Watermark::new(7).with_psnr(decibels);
            let mut image = original.clone();
            watermark.embed(&mut image).unwrap();
            // Rounding to 8 bits adds 1/12 to the mean squared error.
            let found = psnr(&original, &image);
            assert!(found > decibels - 0.3, "{height}×{width}: {found}");
            assert!(watermark.detect(&image).unwrap().present);
            assert!(!watermark.detect(&original).unwrap().present);
            assert!(!Watermark::new(8).detect(&image).unwrap().present);
        }
    }
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
    Watermark::from_phrase("0").embed(&mut image).unwrap();
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
        "argument `image` is 4096 values, expected 12288, as its shape says"
    );
    image.shape.channels = 1;
    for decibels in [29.0, f64::NAN] {
        let error = Watermark::new(0).with_psnr(decibels).embed(&mut image);
        assert!(error.unwrap_err().to_string().contains("`psnr`"));
    }
    let error = Watermark::new(0)
        .with_false_positive_rate(0.0)
        .detect(&image);
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("`false_positive_rate`")
    );
}
