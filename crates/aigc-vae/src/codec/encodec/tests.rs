//! Encodec: pieces, chunks, files, bad input.

use super::*;
use aigc_core::{
    nn::PaddingMode,
    rng::InitWeights,
    testing::{assert_close, values},
};
use burn::tensor::TensorData;

fn tiny() -> EncodecConfig {
    EncodecConfig {
        target_bandwidths: vec![0.4, 0.8],
        sampling_rate: 800,
        hidden_size: 6,
        num_filters: 4,
        upsampling_ratios: vec![4, 2],
        kernel_size: 5,
        last_kernel_size: 3,
        num_lstm_layers: 2,
        codebook_size: 16,
        ..EncodecConfig::default()
    }
}

fn model(config: &EncodecConfig) -> EncodecModel {
    config.init(&Device::flex()).unwrap().init_weights(3)
}

fn sound(batch: usize, channels: usize, time: usize) -> Tensor<3> {
    Rng::new(5).normal([batch, channels, time], &Device::flex())
}

fn ints(codes: &Tensor<3, Int>) -> Vec<i64> {
    codes.to_data().iter::<i64>().collect()
}

/// Sizes of pieces of a signal.
const PIECES: [&[usize]; 4] = [&[1, 1, 1, 2, 3, 50], &[7, 20, 31], &[40, 3], &[100]];

/// Pieces of any length give what the whole signal gives.
#[test]
fn streams_have_no_seams() {
    let modes = [
        PaddingMode::Reflect,
        PaddingMode::Zeros,
        PaddingMode::Replicate,
    ];
    for pad_mode in modes {
        for (residuals, shortcut) in [(1, true), (2, false)] {
            let config = EncodecConfig {
                pad_mode,
                num_residual_layers: residuals,
                use_conv_shortcut: shortcut,
                dilation_growth_rate: 3,
                ..tiny()
            };
            let model = model(&config);
            for sizes in PIECES {
                for time in [1, 2, 3, 5, 9, 11, sizes.iter().sum::<usize>(), 101] {
                    check_stream(&model, time, sizes);
                }
            }
        }
    }
}

fn check_stream(model: &EncodecModel, time: usize, sizes: &[usize]) {
    let wave = sound(2, 1, time);
    let whole = model.encode(wave.clone()).unwrap();
    let mut stream = model.encode_stream().unwrap();
    let mut pieces = vec![];
    for (start, size) in pieces_of(time, sizes) {
        let piece = wave.clone().narrow(2, start, size);
        pieces.extend(stream.push(piece).unwrap());
    }
    pieces.extend(stream.finish());
    let codes = Tensor::cat(pieces, 2);
    let what = format!("{:?}, {time} samples in {sizes:?}", model.config.pad_mode);
    assert_eq!(ints(&codes), ints(&whole), "{what}");

    let decoded = model.decode(whole.clone()).unwrap();
    let mut stream = model.decode_stream().unwrap();
    let mut pieces = vec![];
    for (start, size) in pieces_of(whole.dims()[2], sizes) {
        let piece = whole.clone().narrow(2, start, size);
        pieces.extend(stream.push(piece).unwrap());
    }
    pieces.extend(stream.finish());
    let found = Tensor::cat(pieces, 2);
    assert_eq!(found.dims(), decoded.dims(), "{what}");
    assert_close(&values(found), &values(decoded), 1e-5);
}

/// Starts and sizes of pieces of `time` steps; the last size is repeated.
fn pieces_of(time: usize, sizes: &[usize]) -> Vec<(usize, usize)> {
    let (mut pieces, mut start, mut index) = (vec![], 0, 0);
    while start < time {
        let size = sizes[index.min(sizes.len() - 1)].min(time - start);
        pieces.push((start, size));
        (start, index) = (start + size, index + 1);
    }
    pieces
}

#[test]
fn models_that_look_ahead_cannot_be_streamed() {
    let causal = tiny();
    let acausal = EncodecConfig {
        use_causal_conv: false,
        ..tiny()
    };
    let normed = EncodecConfig {
        norm_type: EncodecNorm::TimeGroupNorm,
        ..tiny()
    };
    let trimmed = EncodecConfig {
        trim_right_ratio: 0.5,
        ..tiny()
    };
    assert!(model(&causal).decode_stream().is_ok());
    for (config, feature) in [
        (acausal, "use_causal_conv = false"),
        (normed, "norm_type = time_group_norm"),
        (trimmed, "trim_right_ratio below 1"),
    ] {
        let model = model(&config);
        let message = model.encode_stream().unwrap_err().to_string();
        assert!(message.contains(feature), "{message}");
        assert!(model.decode_stream().is_err());
    }
    let model = model(&causal);
    let mut stream = model.encode_stream().unwrap();
    stream.push(sound(2, 1, 9)).unwrap();
    let message = stream.push(sound(1, 1, 9)).unwrap_err().to_string();
    assert!(
        message.contains("`wave` is 1, expected 2, the sizes of the first"),
        "{message}"
    );
}

/// A model that cuts and normalises sounds decodes chunks of their volumes, and fades them.
#[test]
fn chunks_overlap() {
    let config = EncodecConfig {
        normalize: true,
        chunk_length_s: Some(0.1),
        overlap: Some(0.1),
        use_causal_conv: false,
        norm_type: EncodecNorm::TimeGroupNorm,
        audio_channels: 2,
        ..tiny()
    };
    assert_eq!(
        (config.chunk_length(), config.chunk_stride()),
        (Some(80), Some(72))
    );
    let model = model(&config);
    let wave = sound(2, 2, 200);
    let frames = model.encode_frames(wave.clone(), Some(0.8)).unwrap();
    assert_eq!(frames.codes.dims(), [3, 2, 2, 10]);
    assert_eq!(frames.scales.as_ref().unwrap().dims(), [3, 2, 1]);
    // 56 samples in the last chunk.
    assert_eq!(frames.last_frame_pad_length, 3);
    let decoded = model.decode_frames(&frames).unwrap();
    assert_eq!(decoded.dims(), [2, 2, 200]);

    // Samples that one chunk alone covers are those of the chunk.
    let first = EncodecFrames {
        codes: frames.codes.clone().narrow(0, 0, 1),
        scales: frames.scales.clone().map(|scales| scales.narrow(0, 0, 1)),
        last_frame_pad_length: 0,
    };
    let alone = model.decode_frames(&first).unwrap();
    let part = |x: Tensor<3>| values(x.narrow(2, 0, 72));
    assert_close(&part(decoded), &part(alone), 1e-5);

    // 32 samples of a chunk, and the next chunk 72 samples after its start.
    let gaps = EncodecFrames {
        codes: frames.codes.clone().narrow(3, 0, 4),
        last_frame_pad_length: 0,
        ..frames.clone()
    };
    let message = model.decode_frames(&gaps).unwrap_err().to_string();
    assert!(
        message.contains("`codes` is chunks of 4 frames, expected at least 9 frames"),
        "{message}"
    );

    let without = EncodecFrames {
        scales: None,
        ..frames
    };
    let message = model.decode_frames(&without).unwrap_err().to_string();
    assert!(message.contains("`scales` is None"), "{message}");
    let codes = model.encode(wave).unwrap_err().to_string();
    assert!(
        codes.contains("normalize is not supported; use encode_frames"),
        "{codes}"
    );
}

/// The commitment loss is the mean square of what the stages leave over, summed over stages.
#[test]
fn commitment_is_a_mean_over_values() {
    let device = Device::flex().autodiff();
    let model = tiny().init(&device).unwrap().init_weights(3);
    let wave = Rng::new(5).normal([2, 1, 83], &device);
    let pass = model.reconstruct(wave, &mut Rng::new(1));
    assert_eq!(pass.wave.dims(), [2, 1, 88]);

    let plain = model.valid();
    let embeddings = plain.embeddings(sound(2, 1, 83)).unwrap();
    let codes = plain.quantize(embeddings.clone(), 2);
    assert_eq!(ints(&pass.codes), ints(&codes));
    let left_over = |count: usize| {
        let latents = plain.dequantize(codes.clone().narrow(1, 0, count));
        let gap = values(embeddings.clone() - latents.unwrap());
        gap.iter().map(|x| x * x).sum::<f32>() / gap.len() as f32
    };
    let (name, loss) = &pass.losses[0];
    assert_eq!((*name, pass.losses.len()), ("commitment", 1));
    let expected = left_over(1) + left_over(2);
    assert_close(&values(loss.clone()), &[expected], 1e-4);
}

#[test]
fn files_and_folding_keep_the_outputs() {
    let device = Device::flex();
    let normed = EncodecConfig {
        norm_type: EncodecNorm::TimeGroupNorm,
        pad_mode: PaddingMode::Zeros,
        ..tiny()
    };
    for config in [tiny(), normed] {
        let model = model(&config);
        let wave = sound(1, 1, 83);
        let codes = model.encode(wave.clone()).unwrap();
        let decoded = values(model.decode(codes.clone()).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let folded = model.clone().fold_weight_norm();
        for saved in [model, folded] {
            saved.save_pretrained(dir.path()).unwrap();
            let loaded = EncodecModel::from_pretrained(dir.path(), &device).unwrap();
            assert!(loaded.warnings().is_empty(), "{loaded}");
            assert_eq!(loaded.config(), &config);
            assert_eq!(ints(&loaded.encode(wave.clone()).unwrap()), ints(&codes));
            assert_close(
                &values(loaded.decode(codes.clone()).unwrap()),
                &decoded,
                1e-5,
            );
        }
    }
}

/// The files that training writes have the names of this library.
#[test]
fn weights_of_a_run_open() {
    let device = Device::flex();
    let model = model(&tiny());
    let dir = tempfile::tempdir().unwrap();
    aigc_core::weights::save_pretrained(&model, &tiny(), dir.path()).unwrap();
    let loaded = EncodecModel::from_pretrained(dir.path(), &device).unwrap();
    assert!(loaded.warnings().is_empty(), "{loaded}");
    let codes = |model: &EncodecModel| ints(&model.encode(sound(1, 1, 60)).unwrap());
    assert_eq!(codes(&loaded), codes(&model));
}

#[test]
fn bad_input_is_named() {
    let model = model(&tiny());
    let device = Device::flex();
    let codes = |values: Vec<i32>, shape: [usize; 3]| {
        Tensor::<3, Int>::from_data(TensorData::new(values, shape), &device)
    };
    for (error, expected) in [
        (
            model.encode(sound(1, 2, 9)).err(),
            "`wave` is 2 channels, expected 1 channels",
        ),
        (
            model.encode_frames(sound(1, 1, 9), Some(0.5)).err(),
            "`bandwidth` is 0.5",
        ),
        (
            model.decode(codes(vec![0; 3], [1, 3, 1])).err(),
            "`codes` is 3 codebooks",
        ),
        (
            model.decode(codes(vec![0, 16], [1, 2, 1])).err(),
            "`codes` is 16, expected 0 to 15",
        ),
        (
            model.decode(codes(vec![-1, 0], [1, 2, 1])).err(),
            "`codes` is -1",
        ),
    ] {
        let message = error.unwrap().to_string();
        assert!(message.contains(expected), "{message}");
    }
}
