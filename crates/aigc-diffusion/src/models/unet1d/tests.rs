//! Outputs, gradients, files and configurations of the U-net over time.

use super::*;
use aigc_core::{
    device::device,
    params::{ParamVisitor, visit_params},
    rng::{InitWeights, Rng},
};
use burn::module::Param;

fn values(x: Tensor<3>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    apart.fold(0.0, f32::max)
}

/// One level without attention, and the middle.
fn shallow() -> UNet1dConfig {
    UNet1dConfig {
        block_out_channels: vec![8, 32],
        down_block_types: vec![
            UNet1dDownBlock::DownBlock1DNoSkip,
            UNet1dDownBlock::DownBlock1D,
        ],
        up_block_types: vec![UNet1dUpBlock::UpBlock1D, UNet1dUpBlock::UpBlock1DNoSkip],
        ..UNet1dConfig::small(1, 32)
    }
}

#[test]
fn output_keeps_shape_and_depends_on_time() {
    let flex = device("flex").unwrap();
    for time_embedding_type in [
        UNet1dTimeEmbedding::Fourier,
        UNet1dTimeEmbedding::Positional,
    ] {
        let config = UNet1dConfig {
            time_embedding_type,
            extra_in_channels: match time_embedding_type {
                UNet1dTimeEmbedding::Fourier => 16,
                UNet1dTimeEmbedding::Positional => 8,
            },
            ..shallow()
        };
        let network = config.init(&flex).unwrap().init_weights(1);
        let x = Rng::new(2).normal::<3>([1, 1, 32], &flex).repeat_dim(0, 2);
        let output = network.forward(x, Tensor::from_floats([0.1, 0.7], &flex));
        assert_eq!(output.dims(), [2, 1, 32]);
        let all = values(output);
        assert!(worst(&all[..32], &all[32..]) > 1e-4);
    }
}

/// Sounds without high frequencies pass both filters.
#[test]
fn filters_keep_constants_and_cosines_of_low_frequency() {
    let flex = device("flex").unwrap();
    let ones = Tensor::<3>::ones([2, 3, 16], &flex);
    let halved = resample::Lowpass::halving(&flex).halve(ones.clone());
    assert_eq!(halved.dims(), [2, 3, 8]);
    assert!(values(halved).iter().all(|x| (x - 1.0).abs() < 1e-6));
    let doubled = resample::Lowpass::doubling(&flex).double(ones);
    assert_eq!(doubled.dims(), [2, 3, 32]);
    assert!(values(doubled).iter().all(|x| (x - 1.0).abs() < 1e-6));
    // Sample `i` of the halved sound lies between samples 2i and 2i + 1.
    let wave = |at: f64| (0.2 * at).cos() as f32;
    let sound: Vec<f32> = (0..64).map(|i| wave(f64::from(i))).collect();
    let x = Tensor::<1>::from_floats(sound.as_slice(), &flex).reshape([1, 1, 64]);
    let halved = values(resample::Lowpass::halving(&flex).halve(x.clone()));
    let doubled = values(resample::Lowpass::doubling(&flex).double(x));
    for i in 4..28 {
        let at = f64::from(i as u32);
        assert!((halved[i] - wave(2.0 * at + 0.5)).abs() < 2e-2, "{i}");
        assert!((doubled[2 * i] - wave(at - 0.25)).abs() < 2e-2, "{i}");
        assert!((doubled[2 * i + 1] - wave(at + 0.25)).abs() < 2e-2, "{i}");
    }
}

/// Filters and frequencies of the time are in files, but are not trained.
#[test]
fn filters_and_frequencies_are_not_trained() {
    struct Fixed(Vec<String>);
    impl ParamVisitor for Fixed {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            if !param.val().is_require_grad() {
                self.0.push(path.to_owned());
            }
        }
    }
    let device = device("flex").unwrap().autodiff();
    let network = shallow().init(&device).unwrap().init_weights(1);
    let mut fixed = Fixed(vec![]);
    visit_params(&network, &mut fixed);
    fixed.0.sort();
    let expected = [
        "down_blocks.1.down.kernel",
        "mid_block.down.kernel",
        "mid_block.up.kernel",
        "time_proj.weight",
        "up_blocks.0.up.kernel",
    ];
    assert_eq!(fixed.0, expected);
}

/// The gradients of the input, against finite differences.
#[test]
fn gradients_match_finite_differences() {
    let flex = device("flex").unwrap();
    let network = shallow().init(&flex).unwrap().init_weights(3);
    let x = Rng::new(4).normal::<3>([1, 1, 16], &flex);
    let weights = Rng::new(5).normal::<3>([1, 1, 16], &flex);
    let time = Tensor::<1>::from_floats([0.4], &flex);
    let loss = |x: Tensor<3>| {
        let output = network.forward(x, time.clone());
        values((output * weights.clone()).sum().reshape([1, 1, 1]))[0]
    };
    let autodiff = flex.clone().autodiff();
    let trained = shallow().init(&autodiff).unwrap().init_weights(3);
    let input = Tensor::<3>::from_data(x.to_data(), &autodiff).require_grad();
    let time_there = Tensor::<1>::from_floats([0.4], &autodiff);
    let weights_there = Tensor::<3>::from_data(weights.to_data(), &autodiff);
    let output = trained.forward(input.clone(), time_there) * weights_there;
    let gradients = output.sum().backward();
    let found = values(input.grad(&gradients).unwrap());
    for at in [0usize, 3, 15] {
        let mut step = vec![0.0f32; 16];
        step[at] = 1e-2;
        let step = Tensor::<1>::from_floats(step.as_slice(), &flex).reshape([1, 1, 16]);
        let slope = (loss(x.clone() + step.clone()) - loss(x.clone() - step)) / 2e-2;
        let allowed = 2e-2 * slope.abs().max(1.0);
        assert!(
            (found[at] - slope).abs() < allowed,
            "{at}: {} {slope}",
            found[at]
        );
    }
}

#[test]
fn files_round_trip() {
    let flex = device("flex").unwrap();
    let config = UNet1dConfig::small(2, 64);
    let network = config.init(&flex).unwrap().init_weights(1);
    let dir = tempfile::tempdir().unwrap();
    network.save_pretrained(dir.path()).unwrap();
    let opened = UNet1dModel::from_pretrained(dir.path(), &flex).unwrap();
    assert!(opened.warnings().is_empty(), "{:?}", opened.warnings());
    assert_eq!(opened.config(), &config);
    let x = Rng::new(2).normal::<3>([1, 2, 64], &flex);
    let time = Tensor::<1>::from_floats([0.3], &flex);
    let [a, b] = [&network, &opened.value].map(|net| values(net.forward(x.clone(), time.clone())));
    assert_eq!(a, b);
}

#[test]
fn shapes_are_checked() {
    let flex = device("flex").unwrap();
    let network = UNet1dConfig::small(2, 64).init(&flex).unwrap();
    let check = |dims: &[usize]| network.check_shape(SampleShape::new(dims));
    assert!(check(&[2, 24]).is_ok() && check(&[2, 64]).is_ok());
    for (dims, expected) in [
        (&[1, 64][..], "`in_channels` is 2, expected 1"),
        (&[2, 60], "a multiple of 8 samples"),
        (&[2, 16], "at least 24"),
        (&[2, 8, 8], "channels and samples"),
    ] {
        let message = check(dims).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn errors_name_the_field() {
    for (fields, expected) in [
        (
            r#""act_fn": "mish""#,
            "`extra_in_channels` is 0, expected 64",
        ),
        (
            r#""down_block_types": ["DownResnetBlock1D", "DownBlock1D", "AttnDownBlock1D"]"#,
            "DownResnetBlock1D",
        ),
        (
            r#""down_block_types": ["DownBlock1D", "DownBlock1D", "AttnDownBlock1D"]"#,
            "`down_block_types`",
        ),
        (
            r#""up_block_types": ["AttnUpBlock1D", "UpBlock1DNoSkip", "UpBlock1D"]"#,
            "`up_block_types` is UpBlock1DNoSkip (block 1)",
        ),
        (
            r#""mid_block_type": "MidResTemporalBlock1D""#,
            "`mid_block_type` is \"MidResTemporalBlock1D\"",
        ),
        (
            r#""out_block_type": "OutConv1DBlock""#,
            "`out_block_type` is \"OutConv1DBlock\"",
        ),
        (
            r#""use_timestep_embedding": true"#,
            "`use_timestep_embedding` is true",
        ),
        (
            r#""extra_in_channels": 16, "time_embedding_dim": 16,
                "block_out_channels": [32, 32, 24]"#,
            "`block_out_channels` is 24",
        ),
        (
            r#""block_out_channels": [32, 64]"#,
            "`down_block_types` is 3 blocks, expected 2",
        ),
        (r#""block_out_channels": []"#, "`block_out_channels` is 0"),
        (r#""time_embedding_dim": 15"#, "`time_embedding_dim` is 15"),
        (r#""sample_rate": 0"#, "`sample_rate` is 0"),
    ] {
        let error = UNet1dConfig::from_json(&format!("{{{fields}}}")).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let opened = UNet1dConfig::from_json(
        r#"{"_class_name": "UNet1DModel", "extra_in_channels": 16, "time_embedding_dim": 16,
            "layers_per_block": 1, "norm_num_groups": 8, "an_option_of_tomorrow": 1}"#,
    )
    .unwrap();
    assert_eq!(opened.unused_fields, ["an_option_of_tomorrow"]);
    // Files of older versions do not name the width; those written here do.
    let older = UNet1dConfig::from_json(r#"{"extra_in_channels": 16}"#).unwrap();
    assert_eq!(older.time_width(), 16);
    let written = UNet1dConfig::from_json(&older.to_json()).unwrap();
    assert_eq!(written.time_embedding_dim, Some(16));
}
