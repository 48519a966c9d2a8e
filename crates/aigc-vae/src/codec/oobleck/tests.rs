//! Oobleck: posterior, shapes, files.

use super::*;
use aigc_core::{
    rng::{InitWeights, Rng},
    testing::{assert_close, values},
};

fn tiny() -> AutoencoderOobleckConfig {
    AutoencoderOobleckConfig {
        encoder_hidden_size: 8,
        downsampling_ratios: vec![2, 3],
        channel_multiples: vec![1, 2],
        decoder_channels: 4,
        decoder_input_channels: 4,
        audio_channels: 1,
        sampling_rate: 800,
        sample_size: 48,
    }
}

#[test]
fn shapes_are_those_of_the_configuration() {
    let device = Device::flex();
    let model = tiny().init(&device).unwrap().init_weights(1);
    let first_stage: &dyn Autoencoder<3, 3> = &model;
    let wave: Tensor<3> = Rng::new(2).normal([2, 1, 48], &device);
    let z = first_stage.encode(wave.clone()).mode();
    assert_eq!(z.dims(), first_stage.latent_shape().batched::<3>(2));
    let posterior = model.posterior(wave).unwrap();
    let least = values(posterior.logvar)
        .into_iter()
        .fold(f32::INFINITY, f32::min);
    assert!(f64::from(least) >= 2.0 * LEAST_STD.ln() - 1e-3);
    // The decoder makes 46 samples of the 8 frames.
    assert_eq!(model.decode_latents(z.clone()).dims(), [2, 1, 46]);
    assert_eq!(first_stage.decode(z).dims(), [2, 1, 48]);
    assert!(!Vae::<3, 3>::accepts(&model, SampleShape::new(&[2, 48])));
    let short = Tensor::<3>::zeros([1, 1, 2], &device);
    let message = model.posterior(short).unwrap_err().to_string();
    assert!(message.contains("`wave` is 1 of 2 samples"), "{message}");
}

#[test]
fn files_and_folding_keep_the_outputs() {
    let device = Device::flex();
    let model = tiny().init(&device).unwrap().init_weights(1);
    let wave: Tensor<3> = Rng::new(2).normal([1, 1, 48], &device);
    let dir = tempfile::tempdir().unwrap();
    let outputs = |model: &AutoencoderOobleck| {
        let mean = model.posterior(wave.clone()).unwrap().mode();
        [values(mean.clone()), values(model.decode_latents(mean))].concat()
    };
    let expected = outputs(&model);
    let folded = model.clone().fold_weight_norm();
    for model in [model, folded] {
        model.save_pretrained(dir.path()).unwrap();
        let loaded = AutoencoderOobleck::from_pretrained(dir.path(), &device).unwrap();
        assert!(loaded.warnings().is_empty(), "{loaded}");
        assert_eq!(loaded.config(), &tiny());
        assert_close(&outputs(&loaded), &expected, 1e-5);
    }
}

/// A shape is accepted if a sound of it keeps its length.
#[test]
fn accepted_sounds_keep_their_length() {
    let device = Device::flex();
    let model = tiny().init(&device).unwrap().init_weights(1);
    let mut accepted = vec![];
    for time in 4..=64 {
        let wave: Tensor<3> = Rng::new(2).normal([1, 1, time], &device);
        let z = model.posterior(wave).unwrap().mode();
        let decoded = Vae::<3, 3>::decode(&model, z).mean();
        let accepts = Vae::<3, 3>::accepts(&model, SampleShape::new(&[1, time]));
        assert_eq!(accepts, decoded.dims() == [1, 1, time], "{time} samples");
        accepted.extend(accepts.then_some(time));
    }
    assert!(
        accepted.contains(&48) && accepted.contains(&58),
        "{accepted:?}"
    );
    assert!(
        !accepted.contains(&46) && !accepted.contains(&60),
        "{accepted:?}"
    );
    for dims in [&[1][..], &[1, 1], &[1, 48, 1]] {
        assert!(!Vae::<3, 3>::accepts(&model, SampleShape::new(dims)));
    }
}
