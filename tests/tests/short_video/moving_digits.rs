//! Class-conditional videos of moving digits: an image network and motion modules are trained
//! together.

use crate::{
    clips::{FRAMES, SIDE, held_out, in_motion, loader, moving, unet},
    scheduler, train, trainer,
};
use aigc_core::{
    data::{
        Dataset, Image, SampleBatch, SampleShape, ValueRange, digits,
        video::{VideoBatch, collate_clips},
    },
    eval::{
        NearestNeighbors,
        video::{FrameReadings, centred_frames, flicker},
    },
    testing::{flex, values},
};
use aigc_diffusion::{ClassifierFreeGuidance, DiffusionSampler};
use burn::tensor::Tensor;
use std::ops::RangeInclusive;

/// Training: steps, clips of a batch, learning rate.
const STEPS: usize = 400;
const BATCH: usize = 8;
const RATE: f64 = 3e-3;

/// Clips that are drawn of each class, and how.
const EACH: usize = 8;
const SAMPLING_STEPS: usize = 12;
const GUIDANCE: f64 = 2.0;
/// Clips of held-out images.
const HELD_OUT: usize = 48;
/// Frames of training images that frames are compared with.
const KNOWN: usize = 600;

/// The least share of frames that is read right, in held-out clips and in drawn ones. Chance is one
/// of four.
const LEAST_HELD_OUT: f64 = 0.85;
const LEAST_DRAWN: f64 = 0.5;
/// The flicker of drawn clips over that of held-out ones; 2.3 after 160 steps, and falling.
const FLICKER_RATIO: RangeInclusive<f64> = 0.5..=2.0;

/// What is darker than this is background.
const FLOOR: f64 = 0.1;

/// Squares around the digits, which are as large as the images.
fn centred(clips: &Tensor<5>) -> Tensor<4> {
    centred_frames(clips, digits::SHAPE.height, FLOOR).unwrap()
}

/// Reads the class of the nearest of training frames.
fn reader() -> NearestNeighbors {
    let frames = moving(digits::train_test_split().0, 1, 2);
    let frames: VideoBatch =
        collate_clips((0..KNOWN).map(|index| frames.get(index).unwrap()).collect());
    let pixels: Vec<u8> = values(centred(&frames.to_tensor(&flex())))
        .iter()
        .map(|value| (255.0 * value).round() as u8)
        .collect();
    let image = |(pixels, label): (&[u8], &u32)| Image {
        shape: digits::SHAPE,
        pixels: pixels.to_vec(),
        label: Some(*label),
    };
    let pixels = pixels.chunks_exact(digits::SHAPE.numel());
    let known: Vec<Image> = pixels.zip(frames.labels().unwrap()).map(image).collect();
    NearestNeighbors::new(&known, &flex()).unwrap()
}

/// Mean flicker of clips.
fn mean_flicker(clips: &Tensor<5>) -> f64 {
    let found = flicker(clips).unwrap();
    found.iter().sum::<f64>() / found.len() as f64
}

#[test]
fn clips_show_the_digit_that_was_asked_for_and_do_not_flicker() {
    let reader = reader();
    let read = |clips: &Tensor<5>| {
        let readings = FrameReadings::of_images(&reader, centred(clips), FRAMES);
        readings.unwrap()
    };
    let real = held_out(HELD_OUT);
    let real_clips = real.to_tensor(&flex());
    let of_real = read(&real_clips).right(real.labels().unwrap()).unwrap();
    assert!(
        of_real.value() >= LEAST_HELD_OUT,
        "of held-out frames {of_real} are read right"
    );

    let clips = loader(FRAMES, BATCH, collate_clips);
    let network = train::<_, _, 5>(in_motion(unet()), &clips, trainer(STEPS, RATE));
    let shape = SampleShape::new(&[1, FRAMES, SIDE, SIDE]);
    let samples =
        DiffusionSampler::<_, 5>::new(&network, &scheduler(), SAMPLING_STEPS, shape, &flex())
            .unwrap()
            .with_value_range(ValueRange::Unit)
            .with_guidance(ClassifierFreeGuidance::new(GUIDANCE))
            .class_grid(EACH, 0)
            .unwrap();
    let readings = read(&samples.values);
    let right = readings.right(&samples.labels.unwrap()).unwrap();
    let (drawn, data) = (mean_flicker(&samples.values), mean_flicker(&real_clips));
    let ratio = drawn / data;
    let figures = format!(
        "of drawn frames {right} are read as asked, of held-out ones {of_real}; clips of one \
         class: {}; flicker {drawn:.4}, of held-out clips {data:.4}, ratio {ratio:.3}",
        readings.constant()
    );
    assert!(right.value() >= LEAST_DRAWN, "{figures}");
    assert!(FLICKER_RATIO.contains(&ratio), "{figures}");
}
