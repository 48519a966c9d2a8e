//! Autoencoders of videos against diffusers, whose frames are in `[−1, 1]`.

use aigc_core::{device::device, weights::Loaded};
use aigc_tests::fixtures::{Case, every};
use aigc_vae::{AutoencoderKlTemporalDecoder, AutoencoderKlWan};
use burn::tensor::Tensor;

/// Everything in the files was used.
fn used<T>(loaded: Loaded<T>) -> T {
    assert!(loaded.warnings().is_empty(), "{loaded}");
    loaded.into_inner()
}

/// Frames of diffusers as they are here, in `[0, 1]`.
fn unit(frames: Tensor<5>) -> Tensor<5> {
    (frames + 1.0) * 0.5
}

/// The inverse of [`unit`].
fn signed(frames: Tensor<5>) -> Tensor<5> {
    frames * 2.0 - 1.0
}

/// Frames of all videos, `[batch·frames, …]`, as videos, and back.
fn videos(frames: Tensor<4>, count: usize) -> Tensor<5> {
    let [rows, channels, height, width] = frames.dims();
    frames
        .reshape([rows / count, count, channels, height, width])
        .swap_dims(1, 2)
}

fn frames(videos: Tensor<5>) -> Tensor<4> {
    let [batch, channels, count, height, width] = videos.dims();
    videos
        .swap_dims(1, 2)
        .reshape([batch * count, channels, height, width])
}

#[test]
fn temporal_decoders() {
    every(
        |case| case.text("kind") == "AutoencoderKLTemporalDecoder",
        |case| {
            let flex = device("flex").unwrap();
            let count = case.json["config"]["num_frames"].as_u64().unwrap() as usize;
            let check = |vae: &AutoencoderKlTemporalDecoder| {
                let x = unit(videos(case.float("frames"), count));
                let posterior = vae.encode(x).unwrap();
                case.assert_within("mean", &frames(posterior.mean.clone()));
                case.assert_within("logvar", &frames(posterior.logvar));
                let decoded = vae.decode(posterior.mean).unwrap();
                case.assert_within("decoded", &frames(signed(decoded)));
            };
            let folder = case.dir.join("model");
            let vae = AutoencoderKlTemporalDecoder::from_pretrained(folder, &flex);
            let vae = used(vae.unwrap());
            check(&vae);
            let dir = tempfile::tempdir().unwrap();
            vae.save_pretrained(dir.path()).unwrap();
            let again = AutoencoderKlTemporalDecoder::from_pretrained(dir.path(), &flex);
            check(&used(again.unwrap()));
        },
    );
}

fn check_wan(case: &Case, vae: &AutoencoderKlWan) {
    let video: Tensor<5> = unit(case.float("video"));
    let posterior = vae.encode(video.clone()).unwrap();
    case.assert_within("mean", &posterior.mean);
    case.assert_within("logvar", &posterior.logvar);
    let mut parts = vec![];
    let collect = |frames: Tensor<5>| {
        parts.push(frames);
        Ok(())
    };
    vae.decode_chunks(posterior.mean, collect).unwrap();
    case.assert_within("decoded", &signed(Tensor::cat(parts, 2)));
    // The first frame alone is an image.
    let image = vae.encode(video.narrow(2, 0, 1)).unwrap().mode();
    case.assert_within("image.mean", &image);
    let decoded = vae.decode(image).unwrap();
    case.assert_within("image.decoded", &signed(decoded));
}

#[test]
fn wan() {
    every(
        |case| case.text("kind") == "AutoencoderKLWan",
        |case| {
            let flex = device("flex").unwrap();
            let vae = AutoencoderKlWan::from_pretrained(case.dir.join("model"), &flex).unwrap();
            let vae = used(vae);
            check_wan(case, &vae);
            let dir = tempfile::tempdir().unwrap();
            vae.save_pretrained(dir.path()).unwrap();
            let again = AutoencoderKlWan::from_pretrained(dir.path(), &flex).unwrap();
            check_wan(case, &used(again));
        },
    );
}
