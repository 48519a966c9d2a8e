//! Codecs against transformers and diffusers, and training that resumes.

use aigc_core::{
    CancelToken,
    audio::AudioCodec,
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig, InMemory, SampleBatch, SampleShape},
    device::device,
    rng::{InitWeights, Rng},
    train::{Event, Objective, StartFrom, Trainer, TrainerConfig},
};
use aigc_tests::fixtures::{Case, every};
use aigc_vae::{
    KlWeight, VaeObjective,
    codec::{
        AutoencoderOobleck, AutoencoderOobleckConfig, CodecLossConfig, CodecObjective, DacModel,
        EncodecConfig, EncodecFrames, EncodecModel,
    },
};
use burn::tensor::{Device, Int, Tensor, TensorData};
use std::{path::Path, sync::Mutex};

fn flex() -> Device {
    device("flex").unwrap()
}

/// The ends of the names of tensors that begin with `prefix`.
fn kinds(case: &Case, prefix: &str) -> Vec<String> {
    let names = case.names().into_iter();
    let ends = names.filter_map(|name| name.strip_prefix(prefix).map(str::to_owned));
    ends.collect()
}

#[test]
fn encodec_matches_transformers() {
    every(|case| case.text("kind") == "EncodecModel", check_encodec);
}

fn check_encodec(case: &Case) {
    let model = EncodecModel::from_pretrained(case.dir.join("model"), &flex()).unwrap();
    assert!(model.warnings().is_empty(), "{model}");
    let audio: Tensor<3> = case.float("audio");
    let padding = case.values("last_frame_pad_length").1[0];
    let mut last = None;
    let rate = |bandwidth: &String| bandwidth.parse::<f64>().unwrap();
    let mut bandwidths = kinds(case, "codes.");
    bandwidths.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
    for bandwidth in bandwidths {
        let rate = rate(&bandwidth);
        let frames = model.encode_frames(audio.clone(), Some(rate)).unwrap();
        case.assert_equal_ints(&format!("codes.{bandwidth}"), &frames.codes);
        assert_eq!(frames.last_frame_pad_length as f64, padding);
        assert_eq!(frames.scales.is_some(), case.has("scales"));
        if let Some(scales) = &frames.scales {
            case.assert_within("scales", scales);
        }
        let decoded = model.decode_frames(&frames).unwrap();
        case.assert_within(&format!("decoded.{bandwidth}"), &decoded);
        last = Some(frames);
    }
    let EncodecFrames { codes, .. } = last.expect("a case has codes");
    let [chunks, batch, codebooks, frames] = codes.dims();
    if case.has("embeddings") {
        assert_eq!(chunks, 1);
        case.assert_within("embeddings", &model.embeddings(audio.clone()).unwrap());
        // Those of the largest bandwidth.
        let codes = codes.reshape([batch, codebooks, frames]);
        let quantized = model.dequantize(codes.clone()).unwrap();
        case.assert_within("quantized", &quantized);
        if !model.config().normalize {
            let found = model.encode(audio.clone()).unwrap();
            assert_eq!(ints(&found), ints(&codes));
        }
    }
    let config = model.config();
    if config.use_causal_conv && config.trim_right_ratio == 1.0 {
        let mut stream = model.encode_stream().unwrap();
        let mut pieces = vec![];
        for start in (0..audio.dims()[2]).step_by(37) {
            let size = 37.min(audio.dims()[2] - start);
            pieces.extend(stream.push(audio.clone().narrow(2, start, size)).unwrap());
        }
        pieces.extend(stream.finish());
        let whole = model.encode(audio).unwrap();
        assert_eq!(ints(&Tensor::cat(pieces, 2)), ints(&whole));
    }
}

fn ints<const D: usize>(codes: &Tensor<D, Int>) -> Vec<i64> {
    codes.to_data().iter::<i64>().collect()
}

#[test]
fn dac_matches_transformers() {
    every(|case| case.text("kind") == "DacModel", check_dac);
}

fn check_dac(case: &Case) {
    let model = DacModel::from_pretrained(case.dir.join("model"), &flex()).unwrap();
    assert!(model.warnings().is_empty(), "{model}");
    let audio: Tensor<3> = case.float("audio");
    let latents = model.embeddings(audio).unwrap();
    case.assert_within("encoded", &latents);
    for count in kinds(case, "codes.") {
        let number: usize = count.parse().unwrap();
        let output = model.quantizer().quantize(latents.clone(), number);
        case.assert_equal_ints(&format!("codes.{count}"), &output.codes);
        case.assert_within(&format!("projected.{count}"), &output.projected);
        case.assert_within(&format!("quantized.{count}"), &output.quantized);
        let config = model.config();
        let loss = output.commitment * config.commitment_loss_weight
            + output.codebook * config.codebook_loss_weight;
        // The same for every sound of the batch.
        let batch = latents.dims()[0];
        case.assert_within(&format!("loss.{count}"), &loss.repeat_dim(0, batch));
        let decoded = model.decode(output.codes).unwrap().squeeze_dim::<2>(1);
        case.assert_within(&format!("decoded.{count}"), &decoded);
    }
}

#[test]
fn oobleck_matches_diffusers() {
    every(
        |case| case.text("kind") == "AutoencoderOobleck",
        check_oobleck,
    );
}

fn check_oobleck(case: &Case) {
    let model = AutoencoderOobleck::from_pretrained(case.dir.join("model"), &flex()).unwrap();
    assert!(model.warnings().is_empty(), "{model}");
    let posterior = model.posterior(case.float("audio")).unwrap();
    case.assert_within("mean", &posterior.mean);
    let std = (posterior.logvar.clone() * 0.5).exp();
    case.assert_within("std", &std);
    let [_, scale] = model.moments(case.float("audio"));
    case.assert_within("scale", &scale);
    // In diffusers, twice the divergence, averaged over time.
    let frames = posterior.mean.dims()[2] as f64;
    let kl = posterior.kl().mean() * (2.0 / frames);
    case.assert_within("kl", &kl);
    case.assert_within("decoded", &model.decode_latents(posterior.mode()));
}

const TIME: usize = 160;

/// Sines, one after the other in frequency.
struct Sounds(Vec<Vec<f32>>);

impl SampleBatch<3> for Sounds {
    fn to_tensor(&self, device: &Device) -> Tensor<3> {
        let data = TensorData::new(self.0.concat(), [self.0.len(), 1, TIME]);
        Tensor::from_data(data, device)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn sample_shape(&self) -> SampleShape {
        SampleShape::new(&[1, TIME])
    }
}

fn sines() -> InMemory<Vec<f32>> {
    let mut rng = Rng::new(3);
    let sine = |index: usize| {
        let phase = rng.uniform_vec(1, 0.0, 6.3)[0];
        let frequency = 0.05 + 0.02 * index as f32;
        (0..TIME)
            .map(|at| 0.5 * (frequency * at as f32 + phase).sin())
            .collect()
    };
    InMemory((0..24).map(sine).collect())
}

/// Trains `steps` steps, with a stop after `stop` of them; returns the final weights and the newest
/// state, as bytes, and the losses.
fn train<O: Objective<Batch = Sounds>>(
    folder: &Path,
    [steps, stop]: [usize; 2],
    begin: &dyn Fn() -> (O, O::Model),
) -> ([Vec<u8>; 2], Vec<f64>) {
    let loader = DataLoader::new(
        sines(),
        Sounds,
        DataLoaderConfig {
            batch_size: 4,
            num_workers: 0,
            ..DataLoaderConfig::default()
        },
    )
    .unwrap();
    let run = RunDir::create(folder.join("run")).unwrap();
    let losses = Mutex::new(Vec::new());
    let attempts = if stop < steps { 2 } else { 1 };
    for start in [StartFrom::Fresh, StartFrom::Resume]
        .into_iter()
        .take(attempts)
    {
        let (objective, model) = begin();
        let flag = CancelToken::new();
        let raise = flag.clone();
        let trainer = TrainerConfig {
            learning_rate: 3e-3,
            gradient_accumulation_steps: 2,
            save_steps: 4,
            ..TrainerConfig::new(steps)
        };
        Trainer::new(trainer)
            .with_start(start)
            .with_cancel(flag)
            .with_callback(|event: &Event<'_>| {
                if let Event::Step(report) = event {
                    losses.lock().unwrap().push(report.losses[0].1);
                    if report.step == stop {
                        raise.cancel();
                    }
                }
            })
            .fit(objective, model, &loader, &run)
            .unwrap();
    }
    let state = run.latest_checkpoint().unwrap().path("state.json");
    let files = [run.final_dir().join("model.safetensors"), state];
    let files = files.map(|path| std::fs::read(path).unwrap());
    (files, losses.into_inner().unwrap())
}

fn encodec() -> (CodecObjective<EncodecModel, Sounds>, EncodecModel) {
    let config = EncodecConfig {
        target_bandwidths: vec![0.4, 0.8],
        sampling_rate: 800,
        hidden_size: 8,
        num_filters: 4,
        upsampling_ratios: vec![4, 2],
        num_lstm_layers: 1,
        codebook_size: 16,
        quantizer_dropout: 0.5,
        revive_below: 0.3,
        ..EncodecConfig::default()
    };
    let loss = CodecLossConfig {
        balance: true,
        ..CodecLossConfig::new(800)
    };
    let codec: EncodecModel = config.init(&flex()).unwrap().init_weights(1);
    (CodecObjective::new(loss, &codec).unwrap(), codec)
}

fn oobleck() -> (
    VaeObjective<AutoencoderOobleck, Sounds, 3, 3>,
    AutoencoderOobleck,
) {
    let config = AutoencoderOobleckConfig {
        encoder_hidden_size: 8,
        downsampling_ratios: vec![4, 2],
        channel_multiples: vec![1, 2],
        decoder_channels: 4,
        decoder_input_channels: 4,
        audio_channels: 1,
        sampling_rate: 800,
        sample_size: TIME,
    };
    let model = config.init(&flex()).unwrap().init_weights(1);
    (VaeObjective::new(KlWeight::new(0.1)).unwrap(), model)
}

/// Trains with a stop and without one: the same weights, state and losses.
fn assert_resumes_exactly<O: Objective<Batch = Sounds>>(
    steps: usize,
    begin: &dyn Fn() -> (O, O::Model),
) -> Vec<f64> {
    let [whole, stopped] = [usize::MAX, 3].map(|stop| {
        let folder = tempfile::tempdir().unwrap();
        train(folder.path(), [steps, stop], begin)
    });
    assert!(whole == stopped);
    whole.1
}

/// Codebooks, dropout of codebooks, balanced gradients and usage continue bit for bit.
#[test]
fn training_of_a_codec_resumes_exactly() {
    assert_resumes_exactly(8, &encodec);
}

#[test]
fn training_of_oobleck_lowers_the_loss_and_resumes_exactly() {
    let losses = assert_resumes_exactly(16, &oobleck);
    assert_eq!(losses.len(), 16);
    let [first, last] = [losses[0], losses[15]];
    assert!(last < 0.9 * first, "{first} {last}");
}
