use super::*;
use crate::data::{InMemory, digits};

fn square(side: usize) -> InMemory<Image> {
    InMemory(vec![Image {
        shape: ImageShape::new(1, side, side),
        pixels: vec![200; side * side],
        label: Some(4),
    }])
}

/// The centre of mass is the middle of the image, wherever it is drawn.
#[test]
fn images_are_where_their_motion_says() {
    let config = MovingDigitsConfig {
        len: 5,
        num_frames: 20,
        canvas: 20,
        speed: [0.5, 3.0],
        ..MovingDigitsConfig::default()
    };
    let clips = MovingDigits::new(square(6), config).unwrap();
    for index in 0..5 {
        let clip = clips.get_in_epoch(index, 3).unwrap();
        assert_eq!(clip.label, Some(4));
        let motion = clips.motions(index, 3)[0];
        let speed = motion.velocity[0].hypot(motion.velocity[1]);
        assert!((0.5..=3.0).contains(&speed));
        for frame in 0..20 {
            let pixels = clip.frame(frame).pixels;
            let mass: f64 = pixels.iter().map(|p| f64::from(*p)).sum();
            assert!((mass / (200.0 * 36.0) - 1.0).abs() < 0.01);
            let along = |place: fn(usize) -> usize| {
                let weights = pixels.iter().enumerate();
                weights
                    .map(|(at, p)| place(at) as f64 * f64::from(*p))
                    .sum::<f64>()
                    / mass
            };
            let [x, y] = motion.position(frame);
            assert!((along(|at| at % 20) - (x + 2.5)).abs() < 0.02);
            assert!((along(|at| at / 20) - (y + 2.5)).abs() < 0.02);
        }
    }
}

#[test]
fn clips_follow_from_seed_index_and_epoch() {
    let config = MovingDigitsConfig {
        len: 8,
        num_frames: 3,
        digit_size: Some(14),
        num_digits: 2,
        ..MovingDigitsConfig::default()
    };
    let clips =
        |seed| MovingDigits::new(digits::load(), MovingDigitsConfig { seed, ..config }).unwrap();
    let first = clips(1).get(2).unwrap();
    assert_eq!(first, clips(1).get_in_epoch(2, 0).unwrap());
    assert_eq!(first.label, None);
    for other in [
        clips(2).get(2),
        clips(1).get(3),
        clips(1).get_in_epoch(2, 1),
    ] {
        assert_ne!(first, other.unwrap());
    }
}

#[test]
fn bad_settings_and_images_are_named() {
    let good = MovingDigitsConfig::default();
    let of = |images, config| MovingDigits::new(images, config).map(|_| ());
    let error = |result: Result<()>| result.unwrap_err().to_string();
    type Change = fn(&mut MovingDigitsConfig);
    let cases: [(&str, Change); 7] = [
        ("len", |config| config.len = 0),
        ("num_frames", |config| config.num_frames = 0),
        ("num_frames", |config| config.num_frames = usize::MAX),
        ("canvas", |config| config.canvas = 1),
        ("digit_size", |config| config.digit_size = Some(32)),
        ("num_digits", |config| config.num_digits = 0),
        ("speed", |config| config.speed = [2.0, f32::NAN]),
    ];
    for (field, change) in cases {
        let mut config = good;
        change(&mut config);
        assert!(error(of(square(6), config)).contains(&format!("`{field}`")));
    }
    assert!(error(of(InMemory(vec![]), good)).contains("`images` is empty"));
    assert!(error(of(square(32), good)).contains("`images[0]` is 1×32×32"));
    assert!(error(of(square(0), good)).contains("`images[0]` is 1×0×0"));
    let mut mixed = square(6);
    mixed.0[0].pixels.pop();
    let broken = MovingDigits::new(mixed, good).unwrap().get(0);
    assert!(error(broken.map(|_| ())).contains("`images[0]` is 35 pixels"));
    // A later image without pixels, where images are resized.
    let images = InMemory(vec![square(6).0.remove(0), square(0).0.remove(0)]);
    let resized = MovingDigitsConfig {
        len: 40,
        digit_size: Some(8),
        ..good
    };
    let clips = MovingDigits::new(images, resized).unwrap();
    let found = (0..40).find_map(|index| clips.get(index).err());
    assert!(error(Err(found.unwrap())).contains("`images[1]` is 0 pixels"));
}
