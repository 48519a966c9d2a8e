//! How the frames of a video depend on each other, and values that configurations refuse.

use super::*;
use crate::models::{CrossDownBlockType, CrossUpBlockType};
use aigc_core::{
    rng::{InitWeights, Rng},
    testing::values,
};

fn small() -> UNet3dConditionConfig {
    UNet3dConditionConfig {
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
        block_out_channels: vec![8, 16],
        layers_per_block: 1,
        norm_num_groups: 4,
        cross_attention_dim: 6,
        attention_head_dim: 4,
        ..UNet3dConditionConfig::default()
    }
}

/// The last convolutions over time are zero at first, and attention over time has no positions: an
/// untrained network gives reversed frames for reversed frames. It mixes frames all the same.
#[test]
fn untrained_frames_have_no_order() {
    let device = Device::flex();
    let network = small().init(&device).unwrap().init_weights(1);
    let mut rng = Rng::new(2);
    let x: Tensor<5> = rng.normal([1, 2, 3, 8, 6], &device);
    let condition = Conditioning {
        encoder_hidden_states: Some(rng.normal([1, 2, 6], &device)),
        ..Conditioning::default()
    };
    let run = |x: Tensor<5>| {
        let time = Tensor::from_floats([500.0], &device);
        network.predict(x, time, &condition)
    };
    let forward = run(x.clone());
    let backward = run(x.clone().flip([2])).flip([2]);
    let apart = (forward.clone() - backward).abs().max();
    assert!(apart.into_scalar::<f32>() < 1e-4);
    let changed = Tensor::cat(vec![x.clone().narrow(2, 0, 2), x.narrow(2, 2, 1) * 2.0], 2);
    let [a, b] = [forward, run(changed)].map(|output| values(output.narrow(2, 0, 1)));
    assert_ne!(a, b);
}

#[test]
fn errors_name_the_field() {
    for (fields, expected) in [
        (r#""norm_num_groups": 7"#, "`norm_num_groups` is 7"),
        (r#""layers_per_block": 0"#, "`layers_per_block` is 0"),
        (r#""block_out_channels": []"#, "`block_out_channels` is 0"),
        (
            r#""up_block_types": ["UpBlock3D"]"#,
            "`up_block_types` is 1 blocks, expected 4",
        ),
    ] {
        let error = UNet3dConditionConfig::from_json(&format!("{{{fields}}}")).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let network = small().init(&Device::flex()).unwrap();
    let error = network.check_shape(SampleShape::new(&[2, 0, 8, 8]));
    let message = error.unwrap_err().to_string();
    assert!(message.contains("each at least 1"), "{message}");
}
