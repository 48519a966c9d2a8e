//! Outputs, files and configurations of Stable Audio's networks.

use super::*;
use aigc_core::{
    device::device,
    rng::{InitWeights, Rng},
};

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

fn small() -> StableAudioDitConfig {
    StableAudioDitConfig {
        sample_size: 10,
        in_channels: 4,
        out_channels: 4,
        num_layers: 2,
        attention_head_dim: 8,
        num_attention_heads: 4,
        num_key_value_attention_heads: 2,
        cross_attention_dim: 12,
        time_proj_dim: 6,
        global_states_input_dim: 10,
        cross_attention_input_dim: 5,
    }
}

struct Inputs {
    x: Tensor<3>,
    time: Tensor<1>,
    tokens: Tensor<3>,
    global: Tensor<2>,
}

fn inputs(device: &Device) -> Inputs {
    let mut rng = Rng::new(7);
    Inputs {
        x: rng.normal([1, 4, 10], device),
        time: Tensor::from_floats([0.4], device),
        tokens: rng.normal([1, 3, 5], device),
        global: rng.normal([1, 10], device),
    }
}

fn output(network: &StableAudioDitModel, inputs: &Inputs) -> Vec<f32> {
    let Inputs {
        x,
        time,
        tokens,
        global,
    } = inputs;
    values(network.forward(x.clone(), time.clone(), tokens.clone(), global.clone()))
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    apart.fold(0.0, f32::max)
}

/// Every input has an effect; the order of the text's tokens, which have no positions, has none.
#[test]
fn output_depends_on_all_conditions() {
    let flex = device("flex").unwrap();
    let network = small().init(&flex).unwrap().init_weights(1);
    let base = output(&network, &inputs(&flex));
    assert_eq!(base.len(), 40);
    let changed = |change: &dyn Fn(&mut Inputs)| {
        let mut inputs = inputs(&flex);
        change(&mut inputs);
        worst(&output(&network, &inputs), &base)
    };
    assert!(changed(&|inputs| inputs.time = Tensor::from_floats([0.6], &flex)) > 1e-4);
    assert!(changed(&|inputs| inputs.global = inputs.global.clone() + 1.0) > 1e-4);
    assert!(changed(&|inputs| inputs.tokens = inputs.tokens.clone() + 1.0) > 1e-4);
    assert!(changed(&|inputs| inputs.tokens = inputs.tokens.clone().flip([1])) < 1e-5);
    assert!(changed(&|inputs| inputs.x = inputs.x.clone().flip([2])) > 1e-4);
}

/// Frames have positions: those of a mirrored sound are not the mirrored ones.
#[test]
fn frames_have_positions() {
    let flex = device("flex").unwrap();
    let network = small().init(&flex).unwrap().init_weights(1);
    let mut all = inputs(&flex);
    let forward = output(&network, &all);
    all.x = all.x.clone().flip([2]);
    let shape = [1, 4, 10];
    let mirrored = Tensor::<1>::from_floats(output(&network, &all).as_slice(), &flex)
        .reshape(shape)
        .flip([2]);
    assert!(worst(&values::<3>(mirrored), &forward) > 1e-5);
}

#[test]
fn gradients_reach_the_latents() {
    let device = device("flex").unwrap().autodiff();
    let network = small().init(&device).unwrap().init_weights(1);
    let Inputs {
        x,
        time,
        tokens,
        global,
    } = inputs(&device);
    let x = x.require_grad();
    let output = network.forward(x.clone(), time, tokens, global);
    let gradients = (output.clone() * output).sum().backward();
    assert!(
        values(x.grad(&gradients).unwrap())
            .iter()
            .any(|g| *g != 0.0)
    );
}

#[test]
fn files_round_trip() {
    let flex = device("flex").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let network = small().init(&flex).unwrap().init_weights(1);
    network.save_pretrained(dir.path()).unwrap();
    let opened = StableAudioDitModel::from_pretrained(dir.path(), &flex).unwrap();
    assert!(opened.warnings().is_empty(), "{:?}", opened.warnings());
    let all = inputs(&flex);
    assert_eq!(output(&network, &all), output(&opened.value, &all));
    let names = WeightReader::from_dir(dir.path(), &["diffusion_pytorch_model"]).unwrap();
    for name in [
        "timestep_proj.2.bias",
        "global_proj.0.weight",
        "transformer_blocks.1.attn2.to_out.0.weight",
        "transformer_blocks.1.ff.net.0.proj.weight",
    ] {
        assert!(names.contains(name), "{name}");
    }

    let config = StableAudioProjectionConfig {
        text_encoder_dim: 6,
        conditioning_dim: 5,
        max_value: 40.0,
        ..StableAudioProjectionConfig::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let projection = config.init(&flex).unwrap().init_weights(2);
    projection.save_pretrained(dir.path()).unwrap();
    let opened = StableAudioProjectionModel::from_pretrained(dir.path(), &flex).unwrap();
    assert_eq!(opened.config(), &config);
    let seconds = |model: &StableAudioProjectionModel, end: f64| {
        let [start, end] = model.seconds(&[1.0], &[end], &flex);
        assert_eq!(start.dims(), [1, 1, 5]);
        [values(start), values(end)].concat()
    };
    assert_eq!(seconds(&projection, 7.5), seconds(&opened.value, 7.5));
    // Beyond the range is its end.
    assert_eq!(seconds(&projection, 41.0), seconds(&projection, 40.0));
    assert_ne!(seconds(&projection, 39.0), seconds(&projection, 40.0));
}

#[test]
fn errors_name_the_field() {
    for (fields, expected) in [
        (
            r#""num_key_value_attention_heads": 5"#,
            "`num_key_value_attention_heads` is 5",
        ),
        (r#""attention_head_dim": 6"#, "`attention_head_dim` is 6"),
        (r#""time_proj_dim": 7"#, "`time_proj_dim` is 7"),
        (r#""out_channels": 3"#, "`out_channels` is 3"),
        (r#""num_layers": 0"#, "`num_layers` is 0"),
        (r#""_class_name": "DiT""#, "`_class_name` is \"DiT\""),
    ] {
        let error = StableAudioDitConfig::from_json(&format!("{{{fields}}}")).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let error = StableAudioProjectionConfig::from_json(r#"{"max_value": -1}"#).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("`max_value` is -1"), "{message}");
    let network = small().init(&device("flex").unwrap()).unwrap();
    let message = network.check_shape(SampleShape::new(&[3, 10]));
    let message = message.unwrap_err().to_string();
    assert!(
        message.contains("`in_channels` is 4, expected 3"),
        "{message}"
    );
}
