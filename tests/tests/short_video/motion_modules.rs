//! Motion modules for a frozen image model: they learn motion, and the image model stays as it is.

use crate::{
    clips::{FRAMES, SIDE, held_out, in_motion, loader, unet},
    objective, scheduler, train, trainer,
};
use aigc_core::{
    data::{
        ImageBatch, SampleShape, ValueRange, collate_images,
        video::{Clip, VideoBatch, collate_clips},
    },
    rng::Rng,
    testing::{flex, values},
    train::{Objective, StepContext},
};
use aigc_diffusion::{
    ClassifierFreeGuidance, Denoiser, DiffusionObjective, DiffusionSampler, UNet2dModel, WithMotion,
};
use aigc_tests::bits;

/// Training of the image model: steps, frames of a batch.
const IMAGE_STEPS: usize = 120;
const IMAGE_BATCH: usize = 32;
/// Training of the motion modules: steps, clips of a batch.
const STEPS: usize = 80;
const BATCH: usize = 8;
/// Learning rate of both.
const RATE: f64 = 3e-3;

/// Clips of held-out images, and how often noise is drawn for them.
const HELD_OUT: usize = 32;
const DRAWS: u64 = 4;
/// The largest loss with motion modules over that of the image model frame by frame.
const LARGEST_RATIO: f64 = 0.97;

/// Images that are compared for each class, and how they are drawn.
const EACH: usize = 2;
const SAMPLING_STEPS: usize = 4;
const GUIDANCE: f64 = 2.0;

/// The first frames of clips.
fn first_frames(clips: Vec<Clip>) -> ImageBatch {
    collate_images(clips.iter().map(|clip| clip.frame(0)).collect())
}

/// Bits of the samples that a network draws of all classes.
fn drawn<N: Denoiser<D>, const D: usize>(network: &N, shape: &[usize]) -> Vec<u32> {
    let shape = SampleShape::new(shape);
    let samples =
        DiffusionSampler::<N, D>::new(network, &scheduler(), SAMPLING_STEPS, shape, &flex())
            .unwrap()
            .with_value_range(ValueRange::Unit)
            .with_guidance(ClassifierFreeGuidance::new(GUIDANCE))
            .class_grid(EACH, 0)
            .unwrap();
    let found = values(samples.values);
    found.into_iter().map(f32::to_bits).collect()
}

/// Bits of clips of one frame without motion modules.
fn still(network: &WithMotion<UNet2dModel>) -> Vec<u32> {
    let network = network.clone().with_motion_enabled(false);
    drawn::<_, 5>(&network, &[1, 1, SIDE, SIDE])
}

/// The loss of clips, with the same noise for every network.
fn loss(network: &WithMotion<UNet2dModel>, clips: &VideoBatch) -> f64 {
    let learning = DiffusionObjective::<_, VideoBatch, 5>::new(objective(), network);
    let mut learning = learning.unwrap();
    let losses = (0..DRAWS).map(|seed| {
        let mut context = StepContext::new(0, 1, flex(), Rng::new(seed));
        let output = learning.losses(network, clips, &mut context).unwrap();
        f64::from(output.loss.into_scalar::<f32>())
    });
    losses.sum::<f64>() / DRAWS as f64
}

#[test]
fn motion_is_learned_and_the_image_model_stays_as_it_is() {
    let frames = loader(1, IMAGE_BATCH, first_frames);
    let image_model = train::<_, _, 4>(unet(), &frames, trainer(IMAGE_STEPS, RATE));
    let weights = bits(&image_model);
    let images = drawn::<_, 4>(&image_model, &[1, SIDE, SIDE]);

    let network = in_motion(image_model).freeze_unet();
    assert!(
        still(&network) == images,
        "before training, frames differ from those of the image model"
    );
    let untrained = bits(network.motion_adapter());
    let clips = loader(FRAMES, BATCH, collate_clips);
    let network = train::<_, _, 5>(network, &clips, trainer(STEPS, RATE));
    assert!(
        bits(network.unet()) == weights,
        "training has changed weights of the image model"
    );
    assert!(
        bits(network.motion_adapter()) != untrained,
        "training has changed nothing"
    );
    assert!(
        still(&network) == images,
        "after training, frames differ from those of the image model"
    );

    let clips = held_out(HELD_OUT);
    let with_motion = loss(&network, &clips);
    let frame_by_frame = loss(&network.with_motion_enabled(false), &clips);
    let ratio = with_motion / frame_by_frame;
    assert!(
        ratio <= LARGEST_RATIO,
        "loss {with_motion:.4}, of the image model frame by frame {frame_by_frame:.4}, ratio \
         {ratio:.3}"
    );
}
