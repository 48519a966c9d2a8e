//! Tests of the autoencoder.

use super::*;
use aigc_core::{
    Error,
    rng::{InitWeights, Rng},
    testing::{assert_close, values},
};

fn tiny() -> AutoencoderKlWanConfig {
    AutoencoderKlWanConfig {
        base_dim: 4,
        z_dim: 2,
        dim_mult: vec![1, 2, 2],
        num_res_blocks: 1,
        temperal_downsample: vec![true, true],
        latents_mean: vec![0.5, -0.25],
        latents_std: vec![2.0, 0.5],
        scale_factor_temporal: None,
        scale_factor_spatial: None,
        ..AutoencoderKlWanConfig::default()
    }
}

/// The layout of Wan 2.2 with five billion parameters.
fn residual() -> AutoencoderKlWanConfig {
    AutoencoderKlWanConfig {
        is_residual: true,
        in_channels: 12,
        out_channels: 12,
        patch_size: Some(2),
        decoder_base_dim: Some(6),
        ..tiny()
    }
}

fn model(config: &AutoencoderKlWanConfig) -> AutoencoderKlWan {
    config.init(&Device::flex()).unwrap().init_weights(1)
}

fn video(frames: usize) -> Tensor<5> {
    Rng::new(2).uniform([1, 3, frames, 16, 8], 0.0, 1.0, &Device::flex())
}

/// What follows does not change what was encoded or decoded before.
#[test]
fn frames_do_not_see_later_ones() {
    for config in [tiny(), residual()] {
        let model = model(&config);
        let side = config.spatial_factor();
        let whole = model.encode(video(9)).unwrap().mean;
        assert_eq!(whole.dims(), [1, 2, 3, 16 / side, 8 / side]);
        let first = model.encode(video(9).narrow(2, 0, 5)).unwrap().mean;
        assert_close(&values(whole.clone().narrow(2, 0, 2)), &values(first), 1e-5);
        let image = model.encode(video(9).narrow(2, 0, 1)).unwrap().mean;
        assert_close(&values(whole.clone().narrow(2, 0, 1)), &values(image), 1e-5);
        // Incomplete groups are left out.
        let longer = Tensor::cat(vec![video(9), video(3)], 2);
        let longer = model.encode(longer).unwrap().mean;
        assert_close(&values(longer), &values(whole.clone()), 1e-6);

        let frames = model.decode(whole.clone()).unwrap();
        assert_eq!(frames.dims(), [1, 3, 9, 16, 8]);
        let first = model.decode(whole.narrow(2, 0, 2)).unwrap();
        assert_close(&values(frames.narrow(2, 0, 5)), &values(first), 1e-5);
    }
}

/// Frames come as they are decoded, and an error of the receiver ends the work.
#[test]
fn chunks_are_handed_over_one_by_one() {
    let model = model(&tiny());
    let z: Tensor<5> = Rng::new(3).normal([2, 2, 3, 2, 2], &Device::flex());
    let mut counts = vec![];
    let mut all = vec![];
    let collect = |frames: Tensor<5>| {
        counts.push(frames.dims()[2]);
        all.push(frames);
        Ok(())
    };
    model.decode_chunks(z.clone(), collect).unwrap();
    assert_eq!(counts, [1, 4, 4]);
    let together = values(Tensor::cat(all, 2));
    assert_eq!(together, values(model.decode(z.clone()).unwrap()));
    assert!(together.iter().all(|x| (0.0..=1.0).contains(x)));
    let mut calls = 0;
    let stop = |_| {
        calls += 1;
        Err(Error::cancelled("decoding"))
    };
    assert!(model.decode_chunks(z, stop).is_err() && calls == 1);
}

#[test]
fn latents_are_scaled_by_their_statistics() {
    let model = model(&tiny());
    let z: Tensor<5> = Rng::new(4).normal([1, 2, 1, 1, 2], &Device::flex());
    let scaled = model.scale_latents(z.clone());
    let z = values(z);
    let expected = [
        (z[0] - 0.5) / 2.0,
        (z[1] - 0.5) / 2.0,
        (z[2] + 0.25) / 0.5,
        (z[3] + 0.25) / 0.5,
    ];
    assert_close(&values(scaled.clone()), &expected, 1e-6);
    assert_close(&values(model.unscale_latents(scaled)), &z, 1e-5);
}

/// Pixels of a square become channels, columns first, and return to their places.
#[test]
fn squares_become_channels() {
    let device = Device::flex();
    let pixels: Vec<f32> = (0..8).map(|i| i as f32).collect();
    let x = Tensor::<1>::from_floats(&pixels[..], &device).reshape([1, 1, 1, 2, 4]);
    let channels = patched(x.clone(), 2);
    assert_eq!(channels.dims(), [1, 4, 1, 1, 2]);
    assert_eq!(
        values(channels.clone()),
        [0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]
    );
    assert_eq!(values(unpatched(channels, 2)), pixels);
}

#[test]
fn directories_are_written_and_opened() {
    for config in [tiny(), residual()] {
        let model = model(&config);
        let dir = tempfile::tempdir().unwrap();
        model.save_pretrained(dir.path()).unwrap();
        let opened = AutoencoderKlWan::from_pretrained(dir.path(), &Device::flex()).unwrap();
        assert!(opened.warnings().is_empty(), "{opened}");
        assert_eq!(opened.config(), &config);
        let mean = |model: &AutoencoderKlWan| values(model.encode(video(1)).unwrap().mean);
        assert_eq!(mean(&opened), mean(&model));
    }
}

#[test]
fn wrong_values_are_named() {
    let model = model(&tiny());
    let message = |found: Result<Tensor<5>>| found.unwrap_err().to_string();
    let encode = |video: Tensor<5>| model.encode(video).map(|posterior| posterior.mean);
    assert!(message(encode(video(1).narrow(1, 0, 2))).contains("`video` is [1, 2, 1, 16, 8]"));
    assert!(message(encode(video(1).narrow(3, 0, 6))).contains("multiples of 4"));
    assert!(message(model.decode(video(1))).contains("`z` is [1, 3, 1, 16, 8]"));
    for (text, expected) in [
        (r#"{"attn_scales": [1.0]}"#, "`attn_scales` is [1.0]"),
        (r#"{"dim_mult": []}"#, "`dim_mult` is 0"),
        (
            r#"{"dim_mult": [1, 2]}"#,
            "`temperal_downsample` is 3 values",
        ),
        (
            r#"{"temperal_downsample": [true, true, true]}"#,
            "`temperal_downsample` is [true, true, true]",
        ),
        (r#"{"z_dim": 4}"#, "`latents_mean` is 16 numbers"),
        (
            r#"{"scale_factor_spatial": 16}"#,
            "`scale_factor_spatial` is 16",
        ),
        (r#"{"out_channels": 4}"#, "`out_channels` is 4"),
        (r#"{"patch_size": 2}"#, "`in_channels` is 3"),
        (
            r#"{"base_dim": 3, "dim_mult": [1, 1, 1, 1]}"#,
            "`dim_mult` is 3",
        ),
        (
            r#"{"is_residual": true, "dim_mult": [1, 3, 4, 4]}"#,
            "`dim_mult` is ",
        ),
        (
            r#"{"base_dim": 4096, "dim_mult": [64, 64, 64, 64]}"#,
            "`num_res_blocks` is ",
        ),
        (r#"{"_class_name": "AutoencoderKL"}"#, "`_class_name` is "),
    ] {
        let error = AutoencoderKlWanConfig::from_json(text).unwrap_err();
        assert!(error.to_string().contains(expected), "{text}: {error}");
    }
    let config = residual();
    let read = AutoencoderKlWanConfig::from_json(&config.to_json()).unwrap();
    assert_eq!(read, Loaded::new(config));
}
