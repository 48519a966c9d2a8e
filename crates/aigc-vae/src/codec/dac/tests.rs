//! DAC: quantiser, files, bad input.

use super::*;
use aigc_core::{
    rng::InitWeights,
    testing::{assert_close, values},
};

fn tiny() -> DacConfig {
    DacConfig {
        encoder_hidden_size: 4,
        downsampling_ratios: vec![2, 3],
        decoder_hidden_size: 8,
        n_codebooks: 3,
        codebook_size: 16,
        codebook_dim: 2,
        sampling_rate: 800,
        ..DacConfig::default()
    }
}

fn sound(batch: usize, time: usize) -> Tensor<3> {
    Rng::new(5).normal([batch, 1, time], &Device::flex())
}

fn ints(codes: &Tensor<3, Int>) -> Vec<i64> {
    codes.to_data().iter::<i64>().collect()
}

#[test]
fn codes_decode_to_the_quantized_latents() {
    let model = tiny().init(&Device::flex()).unwrap().init_weights(1);
    let latents = model.embeddings(sound(2, 61)).unwrap();
    assert_eq!(Some(latents.dims()[2]), model.num_frames(61));
    for count in 1..=3 {
        let output = model.quantizer().quantize(latents.clone(), count);
        assert_eq!(output.codes.dims()[1], count);
        assert_eq!(output.projected.dims()[1], 2 * count);
        let decoded = model.dequantize(output.codes).unwrap();
        assert_close(&values(output.quantized), &values(decoded), 1e-5);
    }
}

/// A code is that of the nearest direction, whatever the lengths.
#[test]
fn directions_are_compared() {
    let model = tiny().init(&Device::flex()).unwrap().init_weights(1);
    let latents = model.embeddings(sound(1, 61)).unwrap();
    let output = model.quantizer().quantize(latents, 1);
    let table = values(model.quantizer().quantizers()[0].codes());
    let frames = output.codes.dims()[2];
    let projected = values(output.projected);
    let cosine = |a: [f32; 2], b: &[f32]| {
        let norm = |x: &[f32]| x[0].hypot(x[1]).max(1e-12);
        (a[0] * b[0] + a[1] * b[1]) / (norm(&a) * norm(b))
    };
    for (frame, code) in ints(&output.codes).into_iter().enumerate() {
        let x = [projected[frame], projected[frames + frame]];
        let best = table
            .chunks(2)
            .map(|row| cosine(x, row))
            .fold(f32::MIN, f32::max);
        let found = cosine(x, &table[2 * code as usize..][..2]);
        assert!(found >= best - 1e-5, "frame {frame}: {found}, best {best}");
    }
}

/// With dropout, the first samples of a batch have fewer codebooks, and gradients reach all parts.
#[test]
fn dropout_leaves_out_last_codebooks() {
    let device = Device::flex().autodiff();
    let config = DacConfig {
        quantizer_dropout: 0.5,
        ..tiny()
    };
    let model = config.init(&device).unwrap().init_weights(1);
    let wave: Tensor<3> = Rng::new(5).normal([8, 1, 61], &device);
    let latents = model.encoder.forward(wave.clone());
    let whole = values(model.quantizer.quantize(latents.clone(), 3).quantized);
    let dropped = model.quantizer.quantize_with(latents, &mut Rng::new(2));
    let dropped = values(dropped.quantized);
    let half = whole.len() / 2;
    assert_close(&dropped[half..], &whole[half..], 1e-5);
    let apart = dropped[..half].iter().zip(&whole[..half]);
    assert!(apart.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) > 1e-3);

    let pass = model.reconstruct(wave, &mut Rng::new(2));
    assert_eq!(pass.codes.dims()[..2], [8, 3]);
    let losses = pass.losses.into_iter().map(|(_, loss)| loss);
    let loss = losses.fold((pass.wave.clone() * pass.wave).mean(), |sum, loss| {
        sum + loss
    });
    let gradients = loss.backward();
    let table = model.quantizer.quantizers()[0].codes();
    let size = |gradient: Tensor<2>| values(gradient.abs().sum())[0];
    assert!(
        table
            .grad(&gradients)
            .is_some_and(|gradient| size(gradient) > 0.0)
    );
}

#[test]
fn files_and_folding_keep_the_outputs() {
    let device = Device::flex();
    let model = tiny().init(&device).unwrap().init_weights(1);
    let wave = sound(1, 61);
    let codes = model.encode(wave.clone()).unwrap();
    let decoded = values(model.decode(codes.clone()).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let check = |dir: &Path| {
        let loaded = DacModel::from_pretrained(dir, &device).unwrap();
        assert!(loaded.warnings().is_empty(), "{loaded}");
        assert_eq!(loaded.config(), &tiny());
        assert_eq!(ints(&loaded.encode(wave.clone()).unwrap()), ints(&codes));
        assert_close(
            &values(loaded.decode(codes.clone()).unwrap()),
            &decoded,
            1e-5,
        );
    };
    model.save_pretrained(dir.path()).unwrap();
    let files = WeightReader::from_dir(dir.path(), &["model"]).unwrap();
    assert!(files.contains("encoder.conv1.weight"));
    check(dir.path());
    // The names of both kinds of weight norm, and of a run.
    let config = model.config().to_json();
    files::save(&model, &config, dir.path()).unwrap();
    let files = WeightReader::from_dir(dir.path(), &["model"]).unwrap();
    assert_eq!(files.shape("encoder.conv1.weight_g"), Some(&[4, 1, 1][..]));
    check(dir.path());
    aigc_core::weights::save_pretrained(&model, model.config(), dir.path()).unwrap();
    check(dir.path());
}

#[test]
fn bad_input_is_named() {
    let model = tiny().init(&Device::flex()).unwrap().init_weights(1);
    let stereo = Tensor::<3>::zeros([1, 2, 60], &Device::flex());
    for (error, expected) in [
        (model.encode(stereo).err(), "`wave` is 2 channels"),
        (
            model.encode(sound(1, 3)).err(),
            "`wave` is 1 of 3 samples, expected at least one",
        ),
        (
            model
                .decode(Tensor::zeros([1, 4, 2], &Device::flex()))
                .err(),
            "`codes` is 4 codebooks, expected 1 to 3",
        ),
    ] {
        let message = error.unwrap().to_string();
        assert!(message.contains(expected), "{message}");
    }
}
