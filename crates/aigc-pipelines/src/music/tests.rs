//! Sound in pieces, and parts that do not fit.

use super::*;
use aigc_core::{
    Result,
    audio::{AudioCodec, Waveform},
    rng::{InitWeights, Rng},
    testing::{assert_close, flex},
};
use aigc_vae::codec::{EncodecConfig, EncodecModel, EncodecNorm};
use burn::tensor::{Tensor, TensorData};

fn codec(use_causal_conv: bool, norm_type: EncodecNorm) -> EncodecModel {
    config(use_causal_conv, norm_type)
        .init(&flex())
        .unwrap()
        .init_weights(3)
}

fn config(use_causal_conv: bool, norm_type: EncodecNorm) -> EncodecConfig {
    EncodecConfig {
        target_bandwidths: vec![1.6],
        sampling_rate: 800,
        hidden_size: 8,
        num_filters: 4,
        upsampling_ratios: vec![4, 2],
        norm_type,
        num_residual_layers: 2,
        use_causal_conv,
        num_lstm_layers: 1,
        codebook_size: 16,
        ..EncodecConfig::default()
    }
}

/// Codes of `count` frames, for each frame those of all codebooks.
fn frames(count: usize, codebooks: usize) -> Vec<Vec<u32>> {
    let mut rng = Rng::new(4);
    let mut code = |_| rng.random_index(16) as u32;
    (0..count)
        .map(|_| (0..codebooks).map(&mut code).collect())
        .collect()
}

/// A first layer that reflects many frames at the start, before layers that look ahead by little.
#[test]
fn the_start_is_certain_before_it_is_returned() {
    let config = EncodecConfig {
        kernel_size: 17,
        trim_right_ratio: 0.5,
        ..config(true, EncodecNorm::WeightNorm)
    };
    let codec: EncodecModel = config.init(&flex()).unwrap().init_weights(3);
    let frames = frames(40, codec.num_codebooks());
    let found = pieces(&codec, 1, &frames).unwrap();
    assert!(found.len() > 1, "{} pieces", found.len());
    let found = Waveform::concat(&found.iter().collect::<Vec<_>>()).unwrap();
    let of_book = |book: usize| frames.iter().map(move |frame| frame[book] as i32);
    let codes: Vec<i32> = (0..codec.num_codebooks()).flat_map(of_book).collect();
    let codes = TensorData::new(codes, [1, codec.num_codebooks(), frames.len()]);
    let whole = codec.decode(Tensor::from_data(codes, &flex())).unwrap();
    let whole: Vec<f32> = whole.into_data().iter().collect();
    assert_close(found.channel(0), &whole, 1e-4);
}

/// All pieces of a stream.
fn pieces(codec: &EncodecModel, channels: usize, frames: &[Vec<u32>]) -> Result<Vec<Waveform>> {
    let mut stream = MusicDecodeStream::new(codec, channels, 3, &flex());
    let mut pieces = vec![];
    for frame in frames {
        pieces.extend(stream.push(frame.clone())?);
    }
    pieces.extend(stream.finish()?);
    Ok(pieces)
}

#[test]
fn pieces_are_the_whole_sound() {
    let norms = [
        (true, EncodecNorm::WeightNorm, true),
        (false, EncodecNorm::WeightNorm, true),
        (false, EncodecNorm::TimeGroupNorm, false),
    ];
    for (causal, norm, streams) in norms {
        let codec = codec(causal, norm);
        let count = codec.num_codebooks();
        for channels in [1, 2] {
            let frames = frames(41, channels * count);
            let found = pieces(&codec, channels, &frames).unwrap();
            assert_eq!(found.len() > 2, streams, "{causal}: {}", found.len());
            let found = Waveform::concat(&found.iter().collect::<Vec<_>>()).unwrap();
            for channel in 0..channels {
                let of_channel = |book: usize| {
                    let place = book * channels + channel;
                    frames.iter().map(move |frame| frame[place] as i32)
                };
                let codes: Vec<i32> = (0..count).flat_map(of_channel).collect();
                let codes = TensorData::new(codes, [1, count, frames.len()]);
                let whole = codec.decode(Tensor::from_data(codes, &flex())).unwrap();
                let whole: Vec<f32> = whole.into_data().iter().collect();
                assert_close(found.channel(channel), &whole, 1e-4);
            }
        }
    }
}

#[test]
fn frames_are_checked() {
    let codec = codec(true, EncodecNorm::WeightNorm);
    let count = codec.num_codebooks();
    let mut stream = MusicDecodeStream::new(&codec, 1, 1, &flex());
    for frame in [vec![0; count + 1], vec![16; count], vec![]] {
        let message = stream.push(frame).unwrap_err().to_string();
        assert!(message.contains("codes below 16"), "{message}");
    }
    assert!(stream.finish().unwrap().is_none());
}

#[test]
fn requests_take_the_defaults_that_they_lack() {
    let request = MusicRequest::new("a bell").with_top_k(5);
    let folder = MusicRequest::default()
        .with_top_k(9)
        .with_guidance_scale(2.0);
    let found = request.or(&folder.or(&MusicRequest::usual()));
    let expected = MusicRequest {
        prompt: "a bell".into(),
        top_k: Some(5),
        guidance_scale: Some(2.0),
        ..MusicRequest::usual()
    };
    assert_eq!(found, expected);
}
