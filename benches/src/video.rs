//! Video: a training step of an image network with motion modules.

use crate::{
    Clock,
    clock::{adam_w, train},
};
use aigc_core::{
    data::{
        DataLoader, DataLoaderConfig, ImageShape, InMemory,
        video::{Clip, VideoBatch, collate_clips},
    },
    rng::Rng,
};
use aigc_diffusion::{
    DiffusionObjective, DiffusionObjectiveConfig, MotionAdapterConfig, UNet2dConfig, WithMotion,
    models::HookedUNet,
};
use anyhow::Result;
use burn::{module::Module, tensor::Device};

/// Frames of a clip.
const FRAMES: usize = 16;
/// Classes of clips.
const CLASSES: usize = 10;

/// A step on 4 clips of 16 frames of 32×32 pixels, told a class: a U-net of 32, 64 and 64 channels
/// with a motion module after each layer, all trained.
pub(crate) fn motion_unet_train(device: &Device, clock: Clock) -> Result<()> {
    let shape = ImageShape::new(1, 32, 32);
    let unet = UNet2dConfig::small(shape, Some(CLASSES)).init(device)?;
    let motion = MotionAdapterConfig::for_layout(&unet.layout());
    // The tables of positions of all modules, 544 channels together, are not trained.
    let tables = 544 * motion.motion_max_seq_length;
    let network = WithMotion::new(unet, motion.init(device)?)?;
    assert_eq!(network.num_params() - tables, 1_823_873);
    let mut rng = Rng::new(0);
    let mut clip = || Clip {
        num_frames: FRAMES,
        frame_shape: shape,
        pixels: (0..FRAMES * shape.numel())
            .map(|_| rng.random_index(256) as u8)
            .collect(),
        label: Some(rng.random_index(CLASSES) as u32),
    };
    let clips = InMemory((0..64).map(|_| clip()).collect());
    let loader = DataLoaderConfig {
        batch_size: 4,
        ..DataLoaderConfig::default()
    };
    let config = DiffusionObjectiveConfig::default();
    train(
        DiffusionObjective::<_, VideoBatch, 5>::new(config, &network)?,
        network,
        &DataLoader::new(clips, collate_clips, loader)?,
        adam_w(),
        clock,
    )
}
