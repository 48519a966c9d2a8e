//! U-nets over frames against diffusers.

use aigc_core::{
    data::{ClassLabels, ImageShape, SampleBatch, SampleShape, ValueRange},
    device::device,
    rng::{InitWeights, Rng},
    testing::values,
    train::{Objective, StepContext},
    weights::Loaded,
};
use aigc_diffusion::{
    Conditioning, DdimScheduler, Denoiser, DiffusionObjective, DiffusionObjectiveConfig,
    DiffusionSampler, MotionAdapter, MotionAdapterConfig, UNet2dConditionModel, UNet2dConfig,
    UNet3dConditionConfig, UNet3dConditionModel, UNetMotionModel,
    UNetSpatioTemporalConditionConfig, UNetSpatioTemporalConditionModel, WithMotion,
    models::{CrossDownBlockType, CrossUpBlockType, HookedUNet, PerBlock},
};
use aigc_tests::fixtures::{Case, every};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// The stored output is that of `network`, for videos with channels before frames.
fn assert_output<N: Denoiser<5>>(case: &Case, network: &N) {
    case.assert_within("output", &output(case, network, case.float("sample")));
}

fn output<N: Denoiser<5>>(case: &Case, network: &N, x: Tensor<5>) -> Tensor<5> {
    let optional = case
        .has("added_time_ids")
        .then(|| case.float("added_time_ids"));
    let condition = Conditioning {
        encoder_hidden_states: Some(case.float("encoder_hidden_states")),
        time_ids: optional,
        ..Conditioning::default()
    };
    network.predict(x, case.float("timestep"), &condition)
}

/// Everything in the files was used.
fn used<T>(loaded: Loaded<T>) -> T {
    assert!(
        loaded.unused_fields.is_empty() && loaded.unused_tensors.is_empty(),
        "{loaded}"
    );
    loaded.into_inner()
}

#[test]
fn motion_unets() {
    every(
        |case| case.text("kind") == "UNetMotionModel",
        |case| {
            let flex = device("flex").unwrap();
            let opened = UNetMotionModel::from_pretrained(case.dir.join("model"), &flex).unwrap();
            let network = used(opened);
            assert_output(case, &network);
            // Saved whole, opened again.
            let dir = tempfile::tempdir().unwrap();
            network.save_pretrained(dir.path()).unwrap();
            let again = UNetMotionModel::from_pretrained(dir.path(), &flex).unwrap();
            assert_output(case, &used(again));
        },
    );
}

#[test]
fn motion_unets_from_parts() {
    every(
        |case| case.text("kind") == "UNetMotionModel-from-parts",
        |case| {
            let flex = device("flex").unwrap();
            let unet = UNet2dConditionModel::from_pretrained(case.dir.join("unet"), &flex);
            let unet = used(unet.unwrap());
            let motion = MotionAdapter::from_pretrained(case.dir.join("motion_adapter"), &flex);
            let motion = used(motion.unwrap());
            let network = WithMotion::new(unet, motion).unwrap();
            assert_output(case, &network);
            // The parts as one directory.
            let dir = tempfile::tempdir().unwrap();
            network.save_pretrained(dir.path()).unwrap();
            let whole = UNetMotionModel::from_pretrained(dir.path(), &flex).unwrap();
            assert_output(case, &used(whole));
        },
    );
}

#[test]
fn unets_3d() {
    every(
        |case| case.text("kind") == "UNet3DConditionModel",
        |case| {
            let flex = device("flex").unwrap();
            let opened = UNet3dConditionModel::from_pretrained(case.dir.join("model"), &flex);
            let network = used(opened.unwrap());
            assert_output(case, &network);
            let dir = tempfile::tempdir().unwrap();
            network.save_pretrained(dir.path()).unwrap();
            let again = UNet3dConditionModel::from_pretrained(dir.path(), &flex).unwrap();
            assert_output(case, &used(again));
        },
    );
}

/// Files of this class have frames before channels.
#[test]
fn spatio_temporal_unets() {
    every(
        |case| case.text("kind") == "UNetSpatioTemporalConditionModel",
        |case| {
            let flex = device("flex").unwrap();
            let folder = case.dir.join("model");
            let opened = UNetSpatioTemporalConditionModel::from_pretrained(folder, &flex);
            let network = used(opened.unwrap());
            let call = |network: &UNetSpatioTemporalConditionModel| {
                let x: Tensor<5> = case.float("sample");
                let found = output(case, network, x.swap_dims(1, 2));
                case.assert_within("output", &found.swap_dims(1, 2));
            };
            call(&network);
            let dir = tempfile::tempdir().unwrap();
            network.save_pretrained(dir.path()).unwrap();
            let again = UNetSpatioTemporalConditionModel::from_pretrained(dir.path(), &flex);
            call(&used(again.unwrap()));
        },
    );
}

const DOWN: [CrossDownBlockType; 2] = [
    CrossDownBlockType::CrossAttnDownBlock2D,
    CrossDownBlockType::DownBlock2D,
];
const UP: [CrossUpBlockType; 2] = [
    CrossUpBlockType::UpBlock2D,
    CrossUpBlockType::CrossAttnUpBlock2D,
];

fn small_3d() -> UNet3dConditionConfig {
    UNet3dConditionConfig {
        in_channels: 2,
        out_channels: 2,
        down_block_types: DOWN.to_vec(),
        up_block_types: UP.to_vec(),
        block_out_channels: vec![8, 16],
        layers_per_block: 1,
        norm_num_groups: 4,
        cross_attention_dim: 6,
        attention_head_dim: 4,
        ..UNet3dConditionConfig::default()
    }
}

fn small_spatio_temporal() -> UNetSpatioTemporalConditionConfig {
    UNetSpatioTemporalConditionConfig {
        in_channels: 4,
        out_channels: 2,
        down_block_types: DOWN.to_vec(),
        up_block_types: UP.to_vec(),
        block_out_channels: vec![32, 32],
        addition_time_embed_dim: 4,
        projection_class_embeddings_input_dim: 12,
        layers_per_block: 1,
        cross_attention_dim: 6,
        num_attention_heads: PerBlock::One(2),
        ..UNetSpatioTemporalConditionConfig::default()
    }
}

/// Sides that are odd at a size, and any number of frames, keep their shape.
#[test]
fn any_size_keeps_its_shape() {
    let flex = device("flex").unwrap();
    let condition = Conditioning {
        encoder_hidden_states: Some(Tensor::ones([1, 3, 6], &flex)),
        time_ids: Some(Tensor::ones([1, 3], &flex)),
        ..Conditioning::default()
    };
    let time = || Tensor::from_floats([500.0], &flex);
    for frames in [1, 5] {
        let network = small_3d().init(&flex).unwrap().init_weights(1);
        let x: Tensor<5> = Tensor::ones([1, 2, frames, 7, 6], &flex);
        let found = network.predict(x, time(), &condition);
        assert_eq!(found.dims(), [1, 2, frames, 7, 6]);
        let network = small_spatio_temporal().init(&flex).unwrap().init_weights(1);
        let x: Tensor<5> = Tensor::ones([1, 4, frames, 7, 6], &flex);
        let found = network.predict(x, time(), &condition);
        assert_eq!(found.dims(), [1, 2, frames, 7, 6]);
    }
}

#[test]
fn configurations_round_trip_and_name_what_is_wrong() {
    let config = small_3d();
    let read = UNet3dConditionConfig::from_json(&config.to_json()).unwrap();
    assert_eq!(read.into_inner(), config);
    let config = small_spatio_temporal();
    let read = UNetSpatioTemporalConditionConfig::from_json(&config.to_json()).unwrap();
    assert_eq!(read.into_inner(), config);

    for (text, field) in [
        ("{\"num_attention_heads\": 4}", "num_attention_heads"),
        ("{\"attention_head_dim\": 7}", "attention_head_dim"),
        ("{\"up_block_types\": [\"UpBlock2D\"]}", "up_block_types"),
        ("{\"act_fn\": \"relu\"}", "act_fn"),
    ] {
        let error = UNet3dConditionConfig::from_json(text).unwrap_err();
        assert!(error.to_string().contains(field), "{error}");
    }
    for (text, field) in [
        ("{\"block_out_channels\": []}", "block_out_channels"),
        (
            "{\"block_out_channels\": [40, 80, 80, 80]}",
            "block_out_channels",
        ),
        ("{\"num_attention_heads\": [1, 2]}", "num_attention_heads"),
        (
            "{\"addition_time_embed_dim\": 7}",
            "addition_time_embed_dim",
        ),
        ("{\"_class_name\": \"UNetMotionModel\"}", "_class_name"),
    ] {
        let error = UNetSpatioTemporalConditionConfig::from_json(text).unwrap_err();
        assert!(error.to_string().contains(field), "{error}");
    }
}

/// Two videos of a class each.
struct Videos;

impl SampleBatch<5> for Videos {
    fn to_tensor(&self, device: &Device) -> Tensor<5> {
        Rng::new(4).uniform([2, 1, 3, 8, 8], 0.0, 1.0, device)
    }

    fn len(&self) -> usize {
        2
    }

    fn sample_shape(&self) -> SampleShape {
        SampleShape::new(&[1, 3, 8, 8])
    }

    fn value_range(&self) -> ValueRange {
        ValueRange::Unit
    }

    fn labels(&self) -> Option<&[u32]> {
        Some(&[0, 2])
    }
}

/// An image network that is set in motion is trained and sampled from as any network.
#[test]
fn image_networks_are_set_in_motion() {
    let auto = device("flex").unwrap().autodiff();
    let images = UNet2dConfig::small(ImageShape::new(1, 8, 8), Some(3));
    let images = images.init(&auto).unwrap().init_weights(1);
    let motion = MotionAdapterConfig::for_layout(&images.layout());
    let motion = motion.init(&auto).unwrap().init_weights(2);
    let network = WithMotion::new(images, motion).unwrap().freeze_unet();

    let config = DiffusionObjectiveConfig::default();
    let objective = DiffusionObjective::<_, Videos, 5>::new(config, &network);
    let mut objective = objective.unwrap();
    let mut context = StepContext::new(0, 1, auto, Rng::new(1));
    let losses = objective.losses(&network, &Videos, &mut context).unwrap();
    assert!(values(losses.loss.clone())[0].is_finite());
    drop(losses.loss.backward());

    let (network, flex) = (network.valid(), device("flex").unwrap());
    let sampler = |frames: usize| {
        let shape = SampleShape::new(&[1, frames, 8, 8]);
        DiffusionSampler::new(&network, &DdimScheduler::default(), 2, shape, &flex)
    };
    let sampler_of_three = sampler(3).unwrap().with_classes(ClassLabels::All(1));
    let samples = sampler_of_three.sample(2, 0).unwrap();
    assert_eq!(samples.values.dims(), [2, 1, 3, 8, 8]);
    let message = sampler(33).unwrap_err().to_string();
    assert!(message.contains("`num_frames` is 33"), "{message}");
}
