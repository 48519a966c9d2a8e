//! Tests of the autoencoder.

use super::*;
use aigc_core::{
    rng::{InitWeights, Rng},
    testing::{assert_close, values},
};

fn tiny(layers_per_block: usize) -> AutoencoderKlTemporalDecoder {
    let block = AutoencoderKlTemporalDecoderConfig::default().down_block_types[0];
    let config = AutoencoderKlTemporalDecoderConfig {
        down_block_types: vec![block; 2],
        block_out_channels: vec![32, 32],
        layers_per_block,
        latent_channels: 2,
        ..AutoencoderKlTemporalDecoderConfig::default()
    };
    config.init(&Device::flex()).unwrap().init_weights(1)
}

fn video(frames: usize) -> Tensor<5> {
    Rng::new(2).uniform([2, 3, frames, 8, 6], 0.0, 1.0, &Device::flex())
}

/// The encoder sees each frame alone; the decoder does not.
#[test]
fn frames_are_encoded_alone_and_decoded_together() {
    for layers in [1, 2, 3] {
        let (model, video) = (tiny(layers), video(3));
        let whole = model.encode(video.clone()).unwrap();
        assert_eq!(whole.mean.dims(), [2, 2, 3, 4, 3]);
        assert_eq!(whole.logvar.dims(), [2, 2, 3, 4, 3]);
        let first = model.encode(video.narrow(2, 0, 1)).unwrap();
        let z = whole.mean;
        assert_close(
            &values(z.clone().narrow(2, 0, 1)),
            &values(first.mean),
            1e-5,
        );
        let decoded = model.decode(z.clone()).unwrap();
        assert_eq!(decoded.dims(), [2, 3, 3, 8, 6]);
        let alone = values(model.decode(z.narrow(2, 0, 1)).unwrap());
        let together = values(decoded.narrow(2, 0, 1));
        let apart = alone.iter().zip(&together).map(|(a, b)| (a - b).abs());
        assert!(apart.fold(0.0, f32::max) > 1e-4);
    }
}

/// Each chunk is a video of its own, as with the `decode_chunk_size` of diffusers; encoding does
/// not see chunks at all.
#[test]
fn chunks_are_videos_of_their_own() {
    let (model, video) = (tiny(1), video(5));
    let whole = model.encode(video.clone()).unwrap();
    for (chunk, sizes) in [
        (1, vec![1; 5]),
        (2, vec![2, 2, 1]),
        (5, vec![5]),
        (8, vec![5]),
    ] {
        let posterior = model.encode_in_chunks(video.clone(), chunk).unwrap();
        assert_close(&values(posterior.mean), &values(whole.mean.clone()), 1e-5);
        let logvar = values(whole.logvar.clone());
        assert_close(&values(posterior.logvar), &logvar, 1e-5);

        let (mut start, mut found) = (0, vec![]);
        let z = whole.mean.clone();
        let collect = |frames: Tensor<5>| {
            let size = frames.dims()[2];
            let alone = model.decode(z.clone().narrow(2, start, size)).unwrap();
            assert_close(&values(frames), &values(alone), 1e-5);
            start += size;
            found.push(size);
            Ok(())
        };
        model.decode_chunks(z.clone(), chunk, collect).unwrap();
        assert_eq!(found, sizes);
    }
    let z = whole.mean;
    let error = model.decode_chunks(z.clone(), 0, |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("`chunk` is 0"), "{error}");
    assert!(model.encode_in_chunks(video, 0).is_err());
    let stop = |_| Err(aigc_core::Error::cancelled("decoding"));
    assert!(model.decode_chunks(z, 1, stop).is_err());
}

#[test]
fn latents_are_scaled_and_shapes_checked() {
    let model = tiny(1);
    let z = model.encode(video(1)).unwrap().mode();
    let scaled = values(model.scale_latents(z.clone()));
    let expected: Vec<f32> = values(z.clone()).iter().map(|z| z * 0.18215).collect();
    assert_close(&scaled, &expected, 1e-6);
    let back = model.unscale_latents(model.scale_latents(z.clone()));
    assert_close(&values(back), &values(z.clone()), 1e-5);
    let message = |found: Result<Tensor<5>>| found.unwrap_err().to_string();
    assert!(message(model.decode(video(1))).contains("`z` is [2, 3, 1, 8, 6]"));
    let encoded = model.encode(z).map(|posterior| posterior.mean);
    assert!(message(encoded).contains("`frames` is [2, 2, 1, 4, 3]"));
    let small = model.encode(video(1).narrow(3, 0, 1));
    assert!(small.is_err());
}

#[test]
fn directories_and_configurations() {
    let model = tiny(1);
    let dir = tempfile::tempdir().unwrap();
    model.save_pretrained(dir.path()).unwrap();
    let opened = AutoencoderKlTemporalDecoder::from_pretrained(dir.path(), &Device::flex());
    let opened = opened.unwrap();
    assert!(opened.warnings().is_empty(), "{opened}");
    assert_eq!(opened.config(), model.config());
    let z = || model.encode(video(2)).unwrap().mean;
    let decoded = |model: &AutoencoderKlTemporalDecoder| values(model.decode(z()).unwrap());
    assert_eq!(decoded(&opened), decoded(&model));
    for (text, field) in [
        (r#"{"block_out_channels": [48]}"#, "block_out_channels"),
        (r#"{"block_out_channels": []}"#, "block_out_channels"),
        (r#"{"block_out_channels": [32, 32]}"#, "down_block_types"),
        (r#"{"scaling_factor": 0}"#, "scaling_factor"),
        (r#"{"_class_name": "AutoencoderKL"}"#, "_class_name"),
    ] {
        let error = AutoencoderKlTemporalDecoderConfig::from_json(text).unwrap_err();
        assert!(error.to_string().contains(field), "{text}: {error}");
    }
}
