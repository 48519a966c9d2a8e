//! Sound: a stack of convolutions, a loss and a codec in training; a vocoder, a voice and a model
//! of music of random weights.

use crate::{
    Clock, Work,
    clock::{adam_w, train},
    kernels::{draw, kernel, repeat},
};
use aigc_core::{
    audio::Waveform,
    data::{
        DataLoader, DataLoaderConfig, InMemory,
        sound::{Sound, SoundBatch, collate_sounds},
    },
    dsp::StftLoss,
    encoder::TextEmbeddings,
    nn::{Activation, Conv1dConfig},
    rng::{InitWeights, Rng},
};
use aigc_gan::vocoder::{HifiGanConfig, HifiGanResidualBlock};
use aigc_pipelines::speech::{VitsDecoder, VitsVoice};
use aigc_text::{
    GenerationConfig,
    music::{ConditionInputs, MultiStreamGenerator, MultiStreamLm, MusicgenDecoderConfig},
};
use aigc_vae::{
    codec::{CodecLossConfig, CodecObjective, EncodecConfig},
    speech::{VitsConfig, VitsOptions},
};
use anyhow::{Context, Result};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};

/// Frames of [`hifigan_infer`]: a second of sound.
const MEL_FRAMES: usize = 63;
/// Symbols of [`vits_speak`], and the frames of each.
const SYMBOLS: [usize; 2] = [63, 3];
/// Steps of [`musicgen_small`].
const STEPS: usize = 24;

/// A stage of HiFi-GAN on 8 signals of 128 channels and 4,000 samples: the mean of three residual
/// blocks with kernels of 3, 7 and 11 and dilations of 1, 3 and 5. Forward, and the gradients of
/// the mean square with respect to signals and weights.
pub(crate) fn conv1d_stack(device: &Device, clock: Clock) -> Result<()> {
    let device = device.clone().autodiff();
    let blocks = [3, 7, 11].map(|kernel| residual_block(128, kernel, &device).init_weights(0));
    let params: usize = blocks.iter().map(|block| block.num_params()).sum();
    assert_eq!(params, 2_066_688);
    let x = draw(0, [8, 128, 4000], &device).require_grad();
    let step = move || {
        let [first, second, third] = &blocks;
        let [first, second, third] = [first, second, third]
            .map(|block| block.forward(x.clone(), Activation::LeakyRelu(0.1)));
        let mean = (first + second + third) / 3.0;
        let loss = (mean.clone() * mean).mean();
        let grads = loss.backward();
        (loss.into_scalar::<f32>(), grads)
    };
    repeat(kernel(&device, step), clock)
}

fn residual_block(channels: usize, kernel: usize, device: &Device) -> HifiGanResidualBlock {
    let conv = |dilation: usize| {
        Conv1dConfig::new([channels, channels], kernel)
            .with_dilation(dilation)
            .with_padding((kernel - 1) / 2 * dilation)
            .init(device)
    };
    HifiGanResidualBlock {
        convs1: vec![conv(1), conv(3), conv(5)],
        convs2: vec![conv(1), conv(1), conv(1)],
    }
}

/// The distance of 16 signals of 8,000 samples over three resolutions of the short-time Fourier
/// transform. Forward, and the gradient with respect to the estimates.
pub(crate) fn stft_loss(device: &Device, clock: Clock) -> Result<()> {
    let device = device.clone().autodiff();
    let distance = StftLoss::multi_resolution()?;
    let [estimates, targets] = [1, 2].map(|seed| draw(seed, [16, 8000], &device));
    let estimates: Tensor<2> = estimates.require_grad();
    let step = move || {
        let loss = distance.forward(estimates.clone(), targets.clone());
        let grads = loss.backward();
        (loss.into_scalar::<f32>(), grads)
    };
    repeat(kernel(&device, step), clock)
}

/// A step of a small Encodec of 8 kHz without critics: 16 sounds of half a second. It goes through
/// the trainer as a user's does, which also watches the use of the codes.
pub(crate) fn codec_train(device: &Device, clock: Clock) -> Result<()> {
    let config = EncodecConfig::speech_8khz();
    let codec = config.init(device)?;
    // Codes, sums, counts and a flag are state of each codebook, and not trained.
    let (rows, dim) = (config.codebook_size, config.hidden_size);
    let state = config.num_quantizers() * (2 * rows * dim + rows + 1);
    assert_eq!(codec.num_params() - state, 724_978);
    let (mut rng, rate) = (Rng::new(0), config.sampling_rate);
    let len = rate as usize / 2;
    let mut noise = || -> Result<Sound> {
        Ok(Sound {
            wave: Waveform::mono(rng.uniform_vec(len, -1.0, 1.0), rate)?,
            len,
            label: None,
        })
    };
    let sounds: Vec<Sound> = (0..256).map(|_| noise()).collect::<Result<_>>()?;
    let loader = DataLoaderConfig {
        batch_size: 16,
        ..DataLoaderConfig::default()
    };
    train(
        CodecObjective::<_, SoundBatch>::new(CodecLossConfig::new(rate), &codec)?,
        codec,
        &DataLoader::new(InMemory(sounds), collate_sounds, loader)?,
        adam_w(),
        clock,
    )
}

/// SpeechT5's HiFi-GAN: a second of 16 kHz.
pub(crate) fn hifigan_infer(device: &Device, clock: Clock) -> Result<()> {
    let config = HifiGanConfig::default();
    let (bands, samples) = (config.model_in_dim, MEL_FRAMES * config.hop_length());
    let generator = config.init(device)?.init_weights(0);
    // Mean and scale of each band are not trained.
    assert_eq!(generator.num_params() - 2 * bands, 12_656_257);
    let mel: Tensor<3> = draw(0, [1, bands, MEL_FRAMES], device);
    let mut clock = clock.with_work(Work::of_sound(samples, config.sampling_rate));
    loop {
        let wave = generator.forward(mel.clone());
        assert_eq!(wave.dims(), [1, samples]);
        wave.mean().into_scalar::<f32>();
        if !clock.tick() {
            return Ok(());
        }
    }
}

/// A voice of MMS: three seconds of 16 kHz from 63 symbols. Its splines are the identity until they
/// are trained, so that without noise every symbol has ⌈exp(0) / 0.4⌉ frames.
pub(crate) fn vits_speak(device: &Device, clock: Clock) -> Result<()> {
    let config = VitsConfig::default();
    let voice = VitsVoice {
        model: config.init(device)?.init_weights(0),
        decoder: VitsDecoder::new(&config, device)?.init_weights(0),
    };
    let [symbols, frames] = SYMBOLS;
    let samples = symbols * frames * config.hop_length();
    // The generator's mean and scale of each channel are not there in PyTorch.
    let params = voice.model.num_params() + voice.decoder.num_params() - 2 * config.flow_size;
    assert_eq!(params, 36_284_592);
    let ids: Vec<i32> = (0..symbols)
        .map(|at| (at % config.vocab_size) as i32)
        .collect();
    let ids: Tensor<2, Int> = Tensor::from_data(TensorData::new(ids, [1, symbols]), device);
    let options = VitsOptions {
        speaking_rate: Some(0.4),
        noise_scale_duration: Some(0.0),
        ..VitsOptions::default()
    };
    let mut rng = Rng::new(0);
    let mut clock = clock.with_work(Work::of_sound(samples, config.sampling_rate));
    loop {
        let speech = voice.forward(ids.clone(), None, &options, &mut rng)?;
        assert_eq!(speech.waveform.dims(), [1, samples]);
        speech.waveform.mean().into_scalar::<f32>();
        if !clock.tick() {
            return Ok(());
        }
    }
}

/// The decoder of MusicGen small, told a text of 16 vectors: 24 steps of 4 codebooks, with a cache
/// and guidance of 3, greedy.
pub(crate) fn musicgen_small(device: &Device, clock: Clock) -> Result<()> {
    let config = MusicgenDecoderConfig::small();
    let model = config.init(device)?.init_weights(0);
    let width = config.text_hidden_size.context("a model that reads text")?;
    // In PyTorch, the projection of the text, with a bias, is no part of the decoder.
    let projection = (width + 1) * config.hidden_size;
    assert_eq!(model.num_params() - projection, 419_584_000);
    let text = TextEmbeddings::new(draw(0, [1, 16, width], device));
    let condition = model.encode_condition(&ConditionInputs::text(text))?;
    let options = GenerationConfig {
        max_new_tokens: Some(STEPS),
        ..GenerationConfig::default()
    };
    let frames = model.delay_pattern().frames(STEPS);
    let bytes = STEPS * weights_of_step(&config) * size_of::<f32>();
    let mut clock = clock.with_work(Work {
        steps: Some(STEPS as u64),
        read_bytes: Some(bytes as u64),
        ..Work::default()
    });
    loop {
        let generator = MultiStreamGenerator::new(&model, options.clone())?;
        let generator = generator.with_guidance_scale(3.0)?;
        let codes = generator.generate(1, condition.as_ref())?;
        assert_eq!(codes.frames(), frames);
        if !clock.tick() {
            return Ok(());
        }
    }
}

/// Weights that a step has to read: all but the embeddings, of which it reads single rows, and the
/// projections of the text to keys and values, which a run reads once. Norms are left out.
fn weights_of_step(config: &MusicgenDecoderConfig) -> usize {
    let d = config.hidden_size;
    let block = 6 * d * d + 2 * d * config.ffn_dim;
    config.num_hidden_layers * block + config.num_codebooks * d * config.vocab_size
}
