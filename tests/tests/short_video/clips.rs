//! Small clips of digits that move, and a small network for them.

use aigc_core::{
    data::{
        DataLoader, DataLoaderConfig, Dataset, Image, ImageShape, InMemory, digits,
        moving_digits::{MovingDigits, MovingDigitsConfig},
        video::{Clip, VideoBatch, collate_clips},
    },
    rng::InitWeights,
    testing::flex,
};
use aigc_diffusion::{
    MotionAdapterConfig, UNet2dConfig, UNet2dModel, WithMotion,
    models::{HookedUNet, PerBlock},
};

/// Digits from 0 to one less than this: few classes are learned in few steps.
pub(crate) const CLASSES: usize = 4;
/// Height and width of a frame.
pub(crate) const SIDE: usize = 12;
/// Frames of a clip.
pub(crate) const FRAMES: usize = 6;

/// Clips of images of the classes.
pub(crate) fn moving(
    images: InMemory<Image>,
    num_frames: usize,
    seed: u64,
) -> MovingDigits<InMemory<Image>> {
    let known = |image: &Image| image.label.is_some_and(|label| (label as usize) < CLASSES);
    let config = MovingDigitsConfig {
        num_frames,
        canvas: SIDE,
        speed: [0.4, 0.8],
        seed,
        ..MovingDigitsConfig::default()
    };
    let images = images.0.into_iter().filter(known).collect();
    MovingDigits::new(InMemory(images), config).unwrap()
}

/// Endless batches of clips of training images, or of what `collate` makes of them.
pub(crate) fn loader<B: Send + 'static>(
    num_frames: usize,
    batch_size: usize,
    collate: fn(Vec<Clip>) -> B,
) -> DataLoader<B> {
    let config = DataLoaderConfig {
        batch_size,
        ..DataLoaderConfig::default()
    };
    let clips = moving(digits::train_test_split().0, num_frames, 0);
    DataLoader::new(clips, collate, config).unwrap()
}

/// `count` clips of images that are not trained on.
pub(crate) fn held_out(count: usize) -> VideoBatch {
    let clips = moving(digits::train_test_split().1, FRAMES, 1);
    collate_clips((0..count).map(|index| clips.get(index).unwrap()).collect())
}

/// A network of frames, untrained.
pub(crate) fn unet() -> UNet2dModel {
    let frame = ImageShape::new(1, SIDE, SIDE);
    let config = UNet2dConfig {
        block_out_channels: vec![16, 32],
        ..UNet2dConfig::small(frame, Some(CLASSES)).with_null_class()
    };
    config.init(&flex()).unwrap().init_weights(0)
}

/// A network of frames with untrained motion modules.
pub(crate) fn in_motion(unet: UNet2dModel) -> WithMotion<UNet2dModel> {
    let config = MotionAdapterConfig {
        motion_num_attention_heads: PerBlock::One(2),
        motion_max_seq_length: FRAMES,
        ..MotionAdapterConfig::for_layout(&unet.layout())
    };
    let motion = config.init(&flex()).unwrap().init_weights(1);
    WithMotion::new(unet, motion).unwrap()
}
