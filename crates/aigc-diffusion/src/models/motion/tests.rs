//! Image networks with motion modules: on, off, untrained, frozen, in files.

use super::{super::unet2d_condition::testing, *};
use crate::{
    Conditioning, Denoiser, UNet2dConfig, UNet2dModel,
    models::{UNet2dConditionModel, motion::frames::into_batch},
};
use aigc_core::{
    data::{ImageShape, SampleShape},
    params::{ParamVisitor, visit_params},
    rng::{InitWeights, Rng},
    testing::{assert_close, values},
    weights::WeightReader,
};
use burn::{
    module::Param,
    tensor::{Device, Tensor},
};

/// A class-conditional network of images of 8×8 pixels.
fn images(device: &Device) -> UNet2dModel {
    let config = UNet2dConfig::small(ImageShape::new(1, 8, 8), Some(3));
    config.init(device).unwrap().init_weights(1)
}

fn untrained<N: HookedUNet>(unet: N, device: &Device) -> WithMotion<N> {
    let config = MotionAdapterConfig::for_layout(&unet.layout());
    let motion = config.init(device).unwrap().init_weights(2);
    WithMotion::new(unet, motion).unwrap()
}

/// All weights of motion modules moved by noise, so that none is zero.
fn trained<N: HookedUNet>(network: WithMotion<N>) -> WithMotion<N> {
    struct Noise(Rng);
    impl aigc_core::params::ParamMapper for Noise {
        fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if path.ends_with("pos_embed.pe") {
                return param;
            }
            let value = param.val();
            let noise = self.0.normal(value.dims(), &value.device()) * 0.3;
            Param::from_tensor(value + noise)
        }
    }
    let (unet, motion) = network.into_parts();
    let motion = aigc_core::params::map_params(motion, &mut Noise(Rng::new(9)));
    WithMotion::new(unet, motion).unwrap()
}

fn videos(device: &Device) -> Tensor<5> {
    Rng::new(3).normal([2, 1, 3, 8, 8], device)
}

fn classes(device: &Device) -> Conditioning<5> {
    Conditioning {
        class_labels: Some(Tensor::from_ints([0, 2], device)),
        ..Conditioning::default()
    }
}

fn output(network: &WithMotion<UNet2dModel>, device: &Device) -> Vec<f32> {
    let time = Tensor::from_floats([3.0, 500.0], device);
    values(network.predict(videos(device), time, &classes(device)))
}

/// What the image network makes of each frame, in the order of videos.
fn of_frames(unet: &UNet2dModel, device: &Device) -> Vec<f32> {
    let (x, count) = into_batch(videos(device));
    let condition = frames::conditions(&classes(device), count);
    let time = frames::times(Tensor::from_floats([3.0, 500.0], device), count);
    values(frames::out_of_batch(
        unet.predict(x, time, &condition),
        count,
    ))
}

#[test]
fn motion_that_is_off_or_untrained_changes_no_bit() {
    let device = Device::flex();
    let network = untrained(images(&device), &device);
    let expected = of_frames(network.unet(), &device);
    assert_eq!(output(&network, &device), expected);
    let network = trained(network);
    assert_ne!(output(&network, &device), expected);
    let network = network.with_motion_enabled(false);
    assert_eq!(output(&network, &device), expected);
    // Without motion modules, their positions are no limit.
    assert!(
        network
            .check_shape(SampleShape::new(&[1, 100, 8, 8]))
            .is_ok()
    );
}

/// With motion, a frame depends on the others.
#[test]
fn frames_see_each_other() {
    let device = Device::flex();
    let network = trained(untrained(images(&device), &device));
    let call = |x: Tensor<5>| {
        let time = Tensor::from_floats([3.0, 500.0], &device);
        network.predict(x, time, &classes(&device)).narrow(2, 0, 1)
    };
    let x = videos(&device);
    let [first, rest] = [x.clone().narrow(2, 0, 1), x.clone().narrow(2, 1, 2)];
    let changed = Tensor::cat(vec![first, rest * 2.0], 2);
    assert_ne!(values(call(x)), values(call(changed)));
}

#[test]
fn only_motion_modules_are_trained() {
    struct Trained(Vec<String>);
    impl ParamVisitor for Trained {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            if param.val().is_require_grad() {
                self.0.push(path.to_owned());
            }
        }
    }
    let device = Device::flex().autodiff();
    let network = untrained(images(&device), &device).freeze_unet();
    let mut found = Trained(vec![]);
    visit_params(&network, &mut found);
    assert!(!found.0.is_empty());
    for path in &found.0 {
        assert!(
            path.starts_with("motion.") && !path.ends_with(".pe"),
            "{path}"
        );
    }
    // Zero at first, the last layers are what learns.
    let time = Tensor::from_floats([3.0, 500.0], &device);
    let output = network.predict(videos(&device), time, &classes(&device));
    let loss = (output.clone() * output).mean();
    let gradients = loss.backward();
    let (_, motion) = network.into_parts();
    struct Learns<'a>(&'a burn::tensor::Gradients, usize);
    impl ParamVisitor for Learns<'_> {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            if !path.ends_with("proj_out.weight") {
                return;
            }
            let gradient = param.val().grad(self.0).expect("a gradient");
            assert!(gradient.abs().max().into_scalar::<f32>() > 0.0, "{path}");
            self.1 += 1;
        }
    }
    let mut learns = Learns(&gradients, 0);
    visit_params(&motion, &mut learns);
    assert!(learns.1 > 0);
}

#[test]
fn misfits_are_errors_with_both_values() {
    let device = Device::flex();
    let network = untrained(images(&device), &device);
    let message = |shape: &[usize]| {
        let error = network.check_shape(SampleShape::new(shape)).unwrap_err();
        error.to_string()
    };
    let found = message(&[1, 33, 8, 8]);
    assert!(
        found.contains("`num_frames` is 33") && found.contains("motion_max_seq_length is 32"),
        "{found}"
    );
    assert!(message(&[1, 8, 8]).contains("videos"));
    for empty in [[1, 0, 8, 8], [1, 4, 0, 8]] {
        assert!(message(&empty).contains("each at least 1"), "{empty:?}");
    }
    assert!(message(&[3, 4, 8, 8]).contains("in_channels"));

    let (unet, _) = network.into_parts();
    let mut config = MotionAdapterConfig::for_layout(&unet.layout());
    config.motion_layers_per_block += 1;
    let error = WithMotion::new(unet, config.init(&device).unwrap()).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("motion_layers_per_block"), "{error}");
    for (field, config) in [
        (
            "motion_max_seq_length",
            MotionAdapterConfig {
                motion_max_seq_length: 0,
                ..MotionAdapterConfig::default()
            },
        ),
        (
            "motion_norm_num_groups",
            MotionAdapterConfig {
                motion_norm_num_groups: 7,
                ..MotionAdapterConfig::default()
            },
        ),
        (
            "block_out_channels",
            MotionAdapterConfig {
                block_out_channels: vec![],
                ..MotionAdapterConfig::default()
            },
        ),
    ] {
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
    let error = MotionAdapterConfig::from_json("{\"conv_in_channels\": 9}").unwrap_err();
    assert!(error.to_string().contains("conv_in_channels"), "{error}");
}

/// One directory of both parts has the names of diffusers, and gives the same network.
#[test]
fn whole_network_round_trips() {
    let device = Device::flex();
    let unet: UNet2dConditionModel = testing::network(testing::small());
    let network: UNetMotionModel = trained(untrained(unet, &device));
    let config = network.config();
    let read = UNetMotionConfig::from_json(&config.to_json().unwrap()).unwrap();
    assert!(read.unused_fields.is_empty(), "{:?}", read.unused_fields);
    assert_eq!(read.into_inner(), config);

    let dir = tempfile::tempdir().unwrap();
    network.save_pretrained(dir.path()).unwrap();
    let files = WeightReader::from_dir(dir.path(), &["diffusion_pytorch_model"]).unwrap();
    for name in [
        "conv_in.weight",
        "down_blocks.0.attentions.0.proj_in.weight",
        "down_blocks.0.motion_modules.0.transformer_blocks.0.pos_embed.pe",
        "mid_block.motion_modules.0.proj_out.bias",
        "up_blocks.1.motion_modules.1.norm.weight",
    ] {
        assert!(files.contains(name), "{name}");
    }
    let again = UNetMotionModel::from_pretrained(dir.path(), &device).unwrap();
    assert!(
        again.unused_tensors.is_empty(),
        "{:?}",
        again.unused_tensors
    );
    let call = |network: &UNetMotionModel| {
        let condition = Conditioning {
            encoder_hidden_states: testing::condition().encoder_hidden_states,
            ..Conditioning::default()
        };
        let x = testing::random(5, [2, 2, 3, 8, 6]);
        values(network.predict(x, testing::time(), &condition))
    };
    assert_close(&call(&again), &call(&network), 1e-6);

    // The motion modules alone.
    let dir = tempfile::tempdir().unwrap();
    network
        .motion_adapter()
        .save_pretrained(dir.path())
        .unwrap();
    let motion = MotionAdapter::from_pretrained(dir.path(), &device).unwrap();
    let (unet, _) = network.clone().into_parts();
    let joined = WithMotion::new(unet, motion.into_inner()).unwrap();
    assert_close(&call(&joined), &call(&network), 1e-6);
}

#[test]
fn files_of_other_classes_and_options_are_refused() {
    for (text, field) in [
        ("{\"_class_name\": \"UNet2DConditionModel\"}", "_class_name"),
        ("{\"mid_block_layers\": 2}", "mid_block_layers"),
        ("{\"act_fn\": \"gelu\"}", "act_fn"),
        (
            "{\"down_block_types\": [\"DownBlock2D\"]}",
            "down_block_types",
        ),
        ("{\"motion_max_seq_length\": 0}", "motion_max_seq_length"),
    ] {
        let error = UNetMotionConfig::from_json(text).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
    // An image network that diffusers' class does not have.
    let mut config = UNetMotionConfig::default();
    config.unet.center_input_sample = true;
    let error = config.to_json().unwrap_err().to_string();
    assert!(error.contains("center_input_sample"), "{error}");
}
