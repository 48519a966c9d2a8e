//! Moving digits: their generator, and what the measures of clips say about them.

use aigc_core::{
    data::{
        DataLoader, DataLoaderConfig, Dataset, SampleBatch, digits,
        idx::{MnistDataset, Split},
        moving_digits::{MovingDigits, MovingDigitsConfig},
        video::{VideoBatch, collate_clips},
    },
    device::device,
    eval::{
        LeNet5,
        video::{
            ClipMotion, FrameReadings, centred_frames, clip_motions, compensated_flicker, flicker,
            frame_differences,
        },
    },
    rng::Rng,
};
use aigc_tests::folder_from;
use burn::tensor::Tensor;

fn batch<D: Dataset<Item = aigc_core::data::Image>>(
    images: D,
    config: MovingDigitsConfig,
) -> VideoBatch {
    let clips = MovingDigits::new(images, config).unwrap();
    let clips = (0..config.len).map(|index| clips.get(index).unwrap());
    collate_clips(clips.collect())
}

/// The bytes of a seed are those of other machines and of later versions: the draws are those of
/// the generator as it is documented, computed again here.
#[test]
fn generator_is_as_documented() {
    let config = MovingDigitsConfig {
        len: 3,
        num_frames: 6,
        canvas: 12,
        num_digits: 2,
        speed: [0.5, 4.0],
        seed: 9,
        ..MovingDigitsConfig::default()
    };
    let images = digits::load();
    let clips = MovingDigits::new(images.clone(), config).unwrap();
    for (index, epoch) in [(0, 0), (2, 5)] {
        let mut rng = Rng::stream(9, "moving digits", epoch * 3 + index);
        let mut expected = vec![0u8; 6 * 144];
        for _ in 0..2 {
            let digit = &images.0[rng.random_index(images.0.len())].pixels;
            let start = rng.uniform_vec(2, 0.0, 1.0);
            let direction = loop {
                let point = rng.uniform_vec(2, -1.0, 1.0);
                let [x, y] = [f64::from(point[0]), f64::from(point[1])];
                let square = x * x + y * y;
                if square > 0.0 && square <= 1.0 {
                    break [x / square.sqrt(), y / square.sqrt()];
                }
            };
            let speed = 0.5 + 3.5 * f64::from(rng.uniform_vec(1, 0.0, 1.0)[0]);
            for (frame, pixels) in expected.chunks_exact_mut(144).enumerate() {
                // The canvas is wider than a digit by four pixels.
                let [x, y] = [0, 1].map(|axis| {
                    let start = f64::from(start[axis]) * 4.0;
                    let free = start + frame as f64 * (direction[axis] * speed);
                    let place = free.rem_euclid(8.0);
                    place.min(8.0 - place)
                });
                for (at, pixel) in pixels.iter_mut().enumerate() {
                    let mut value = 0.0;
                    for (from, level) in digit.iter().enumerate() {
                        let near = |a: usize, b: usize, place: f64| {
                            (1.0 - (a as f64 - b as f64 - place).abs()).max(0.0)
                        };
                        let weight = near(at % 12, from % 8, x) * near(at / 12, from / 8, y);
                        value += weight * f64::from(*level);
                    }
                    *pixel = (*pixel).max(value.round() as u8);
                }
            }
        }
        let found = clips.get_in_epoch(index as usize, epoch as usize).unwrap();
        let differing = found.pixels.iter().zip(&expected).filter(|(a, b)| a != b);
        // The order of sums decides on halves.
        assert!(differing.clone().all(|(a, b)| a.abs_diff(*b) <= 1));
        assert!(differing.count() < 5);
    }
}

#[test]
fn loader_makes_batches_with_classes() {
    let config = MovingDigitsConfig {
        len: 10,
        num_frames: 5,
        canvas: 16,
        ..MovingDigitsConfig::default()
    };
    let loading = DataLoaderConfig {
        batch_size: 4,
        num_workers: 2,
        shuffle_seed: Some(3),
        ..DataLoaderConfig::default()
    };
    let clips = MovingDigits::new(digits::load(), config).unwrap();
    let loader = DataLoader::new(clips, collate_clips, loading).unwrap();
    let mut count = 0;
    for batch in loader.iter_once() {
        let batch = batch.unwrap();
        assert_eq!(batch.sample_shape().dims(), [1, 5, 16, 16]);
        assert!(batch.labels().unwrap().iter().all(|label| *label < 10));
        count += batch.len();
    }
    assert_eq!(count, 10);
}

/// Clips whose frames are shuffled flicker, and do not move along lines.
#[test]
fn measures_tell_moving_digits_from_shuffled_ones() {
    let flex = device("flex").unwrap();
    let config = MovingDigitsConfig {
        len: 20,
        digit_size: Some(16),
        ..MovingDigitsConfig::default()
    };
    let clips = batch(digits::load(), config).to_tensor(&flex);
    let order = Rng::new(1).permutation(16);
    let frames = order.iter().map(|frame| clips.clone().narrow(2, *frame, 1));
    let shuffled = Tensor::cat(frames.collect(), 2);
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    let motion = |clips: &Tensor<5>| {
        let motions = clip_motions(clips, 0.1).unwrap().into_iter();
        let motions: Vec<ClipMotion> = motions.map(Option::unwrap).collect();
        let deviation = mean(motions.iter().map(|motion| motion.deviation).collect());
        (
            deviation,
            mean(motions.iter().map(|m| m.bounces as f64).collect()),
        )
    };
    let (deviation, bounces) = motion(&clips);
    assert!(deviation < 0.15 && bounces < 4.0, "{deviation} {bounces}");
    assert!(motion(&shuffled).1 > 10.0);
    let real = mean(flicker(&clips).unwrap());
    assert!(mean(flicker(&shuffled).unwrap()) > 1.5 * real);
    assert!(mean(compensated_flicker(&clips, 2).unwrap()) < 0.7 * real);
    let differences = frame_differences(clips).unwrap();
    assert_eq!(differences.dims(), [20 * 15, 1, 32, 32]);
}

/// A classifier of centred digits reads what moves if its frames are centred, and not otherwise.
#[test]
fn moving_mnist_is_read() {
    let Some(folder) = folder_from("AIGC_DATA") else {
        return;
    };
    let flex = device("flex").unwrap();
    let file = folder.join("mnist-models/lenet5_csinva.safetensors");
    let lenet = LeNet5::from_file(&file, &flex).unwrap();
    let images = MnistDataset::from_dir(&folder.join("mnist"), Split::Test).unwrap();
    let config = MovingDigitsConfig {
        len: 60,
        digit_size: Some(20),
        ..MovingDigitsConfig::default()
    };
    let batch = batch(images, config);
    let asked = batch.labels().unwrap().to_vec();
    let clips = batch.to_tensor(&flex);
    let centred = centred_frames(&clips, 20, 0.1).unwrap();
    let centred = FrameReadings::of_images(&lenet, centred, 16).unwrap();
    let (right, constant) = (centred.right(&asked).unwrap(), centred.constant());
    println!("right {right}, constant {constant}");
    assert!(right.value() > 0.9 && constant.value() > 0.8);
    let whole = FrameReadings::of_clips(&lenet, clips).unwrap();
    assert!(whole.right(&asked).unwrap().value() < 0.6);
}
