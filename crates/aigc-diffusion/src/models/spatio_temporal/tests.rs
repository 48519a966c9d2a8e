//! The mixing of frames, and what samples of a batch are conditioned on.

use super::*;
use crate::models::{CrossUpBlockType, PerBlock};
use aigc_core::{
    params::{ParamMapper, map_params},
    rng::{InitWeights, Rng},
    testing::values,
};
use burn::module::Param;

fn small() -> UNetSpatioTemporalConditionConfig {
    UNetSpatioTemporalConditionConfig {
        in_channels: 2,
        out_channels: 2,
        down_block_types: vec![
            CrossDownBlockType::CrossAttnDownBlock2D,
            CrossDownBlockType::DownBlock2D,
        ],
        up_block_types: vec![
            CrossUpBlockType::UpBlock2D,
            CrossUpBlockType::CrossAttnUpBlock2D,
        ],
        block_out_channels: vec![32, 32],
        addition_time_embed_dim: 4,
        projection_class_embeddings_input_dim: 8,
        layers_per_block: 1,
        cross_attention_dim: 6,
        num_attention_heads: PerBlock::One(2),
        ..UNetSpatioTemporalConditionConfig::default()
    }
}

fn network(device: &Device) -> UNetSpatioTemporalConditionModel {
    small().init(device).unwrap().init_weights(1)
}

fn condition(batch: usize, device: &Device) -> Conditioning<5> {
    let mut rng = Rng::new(3);
    Conditioning {
        encoder_hidden_states: Some(rng.normal([batch, 2, 6], device)),
        time_ids: Some(rng.uniform([batch, 2], 0.0, 100.0, device)),
        ..Conditioning::default()
    }
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    apart.fold(0.0, f32::max)
}

/// Where all weight lies on what is computed for frames alone, a video is as its frames one by one.
#[test]
fn frames_are_alone_without_temporal_weight() {
    struct Alone;
    impl ParamMapper for Alone {
        fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            match path.ends_with("mix_factor") {
                // The logistic function of 50 is 1 in 32 bits.
                true => Param::from_tensor(param.val().zeros_like() + 50.0),
                false => param,
            }
        }
    }
    let device = Device::flex();
    let x: Tensor<5> = Rng::new(2).normal([1, 2, 3, 8, 6], &device);
    let condition = condition(1, &device);
    let apart = |network: &UNetSpatioTemporalConditionModel| {
        let run = |x: Tensor<5>| {
            let time = Tensor::from_floats([500.0], &device);
            network.predict(x, time, &condition)
        };
        let video = values(run(x.clone()));
        let frames = (0..3).map(|i| run(x.clone().narrow(2, i, 1)));
        worst(&video, &values(Tensor::cat(frames.collect(), 2)))
    };
    let network = network(&device);
    assert!(apart(&network) > 1e-3);
    assert!(apart(&map_params(network, &mut Alone)) < 1e-4);
}

/// The conditions of a sample have effects on this sample alone.
#[test]
fn conditions_belong_to_their_samples() {
    let device = Device::flex();
    let network = network(&device);
    let x: Tensor<5> = Rng::new(2).normal([2, 2, 2, 8, 6], &device);
    let run = |time: [f32; 2], condition: &Conditioning<5>| {
        values(network.predict(x.clone(), Tensor::from_floats(time, &device), condition))
    };
    let plain = condition(2, &device);
    let base = run([900.0, 30.0], &plain);
    let half = base.len() / 2;
    let second = |x: Tensor<3>| {
        let [first, second] = [0, 1].map(|i| x.clone().narrow(0, i, 1));
        Tensor::cat(vec![first, second * 2.0], 0)
    };
    let states = plain.encoder_hidden_states.clone().map(second);
    let numbers = plain.time_ids.clone().unwrap();
    let numbers = second(numbers.unsqueeze_dim(1)).reshape([2, 2]);
    let other_states = Conditioning {
        encoder_hidden_states: states,
        ..plain.clone()
    };
    let other_numbers = Conditioning {
        time_ids: Some(numbers),
        ..plain.clone()
    };
    for (what, other) in [
        ("time", run([900.0, 300.0], &plain)),
        ("encoder_hidden_states", run([900.0, 30.0], &other_states)),
        ("time_ids", run([900.0, 30.0], &other_numbers)),
    ] {
        let [first, second] =
            [0..half, half..base.len()].map(|range| worst(&base[range.clone()], &other[range]));
        // Untrained, the network hardly depends on the time.
        assert!(first <= 1e-7 && second > 5e-7, "{what}: {first} {second}");
    }
}

#[test]
fn shapes_are_checked() {
    let network = network(&Device::flex());
    let check = |dims: &[usize]| network.check_shape(SampleShape::new(dims));
    check(&[2, 3, 8, 6]).unwrap();
    for (dims, expected) in [
        (&[2, 8, 6][..], "videos"),
        (&[2, 0, 8, 6], "each at least 1"),
        (&[4, 3, 8, 6], "`in_channels` is 2"),
    ] {
        let message = check(dims).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    let error = UNetSpatioTemporalConditionConfig::from_json(r#"{"num_frames": 0}"#).unwrap_err();
    assert!(error.to_string().contains("`num_frames` is 0"), "{error}");
}
