//! MusicGen against transformers, its pipeline, and training that resumes.

use aigc_core::{
    CancelToken,
    audio::{AudioCodec, Waveform},
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig, InMemory},
    device::device,
    encoder::TextEmbeddings,
    rng::{InitWeights, Rng},
    testing::{assert_close, values},
    train::{Event, StartFrom, Trainer, TrainerConfig},
};
use aigc_pipelines::music::{MusicOptions, MusicRequest, MusicgenPipeline};
use aigc_tests::fixtures::{Case, every};
use aigc_text::{
    GenerationConfig,
    music::{
        CodesBatch, CodesItem, MultiStreamGenerator, MultiStreamLm, MultiStreamObjective,
        MusicgenDecoder, MusicgenDecoderConfig,
    },
};
use burn::tensor::{Device, Int, Tensor};
use std::path::Path;

fn flex() -> Device {
    device("flex").unwrap()
}

fn is_musicgen(case: &Case) -> bool {
    case.text("kind") == "MusicgenForConditionalGeneration"
}

fn open(case: &Case) -> MusicgenPipeline {
    let pipeline = MusicgenPipeline::from_pretrained(case.dir.join("model"), &flex()).unwrap();
    assert!(pipeline.warnings().is_empty(), "{:?}", pipeline.warnings());
    pipeline.into_inner()
}

#[test]
fn musicgen_matches_transformers() {
    every(is_musicgen, check_musicgen);
}

fn check_musicgen(case: &Case) {
    let pipeline = open(case);
    let mask = || case.mask::<2>("attention_mask");
    let states = pipeline
        .text_encoder()
        .forward(case.int::<2>("input_ids"), Some(mask()));
    case.assert_within("text_hidden_states", &states);
    let batch = states.dims()[0];
    let prompts = TextEmbeddings::new(states).with_attention_mask(mask());
    let condition = pipeline.condition(prompts).unwrap();

    let decoder = pipeline.decoder();
    let (codebooks, vocabulary) = (decoder.num_codebooks(), decoder.vocab_size());
    let tokens = case.int::<2>("decoder_input_ids");
    let [rows, steps] = tokens.dims();
    let tokens = tokens.reshape([batch, codebooks, steps]);
    let logits = decoder.forward(tokens, condition.as_ref());
    case.assert_within("logits", &logits.reshape([rows, steps, vocabulary]));

    // The decoder alone, from the same directory.
    let alone = MusicgenDecoder::from_pretrained(case.dir.join("model"), &flex()).unwrap();
    assert!(alone.warnings().is_empty(), "{alone}");
    assert_eq!(alone.config(), decoder.config());

    let runs = case.json["config"]["runs"].as_object().unwrap();
    for (name, run) in runs {
        let config = GenerationConfig {
            max_new_tokens: run["max_new_tokens"].as_u64().map(|n| n as usize),
            ..GenerationConfig::default()
        };
        let generator = MultiStreamGenerator::new(decoder, config).unwrap();
        let scale = run["guidance_scale"].as_f64().unwrap();
        let generator = generator.with_guidance_scale(scale).unwrap();
        let found = generator.generate(batch, condition.as_ref()).unwrap();
        let codes = found.to_tensor(&flex()).unwrap();
        // The codes of the first channel are stored.
        let (channels, frames) = (pipeline.channels(), found.frames());
        let each = codebooks / channels;
        let first = codes.clone().reshape([batch, each, channels, frames]);
        let first = first.narrow(2, 0, 1).reshape([1, batch, each, frames]);
        case.assert_equal_ints::<4>(&format!("{name}.codes"), &first);
        let audio = pipeline.decode(codes).unwrap();
        case.assert_within(&format!("{name}.audio"), &audio);

        // Frame by frame, in pieces.
        let mut stream = pipeline.decode_stream(1e-3).unwrap();
        let mut pieces = vec![];
        for frame in 0..frames {
            let codes = found.codes[0].iter().map(|codes| codes[frame]).collect();
            pieces.extend(stream.push(codes).unwrap());
        }
        pieces.extend(stream.finish().unwrap());
        let whole = values(audio.narrow(0, 0, 1));
        let found = Waveform::concat(&pieces.iter().collect::<Vec<_>>()).unwrap();
        assert_close(&found.channels().concat(), &whole, 1e-4);
    }
}

#[test]
fn requests_are_fulfilled() {
    every(is_musicgen, |case| {
        let pipeline = open(case);
        let rate = pipeline.codec().frame_rate();
        let request = MusicRequest::new("a soft bell rings")
            .with_seconds(20.0 / rate)
            .with_seed(7);
        let (mut pieces, mut frames) = (vec![], vec![]);
        let mut options = MusicOptions::default()
            .with_chunk_seconds(4.0 / rate)
            .with_audio(|piece| {
                pieces.push(piece.clone());
                Ok(())
            })
            .with_progress(|progress| frames.push(progress.frame));
        let music = pipeline.generate_with(&request, &mut options).unwrap();
        drop(options);
        assert!(music.complete && music.warnings.is_empty());
        assert_eq!(frames, (1..=20).collect::<Vec<_>>());
        assert!(pieces.len() > 1, "{} pieces", pieces.len());
        let together = Waveform::concat(&pieces.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(together, music.wave);
        assert_eq!(music.wave.num_channels(), pipeline.channels());
        assert_eq!(music.wave.len(), 20 * pipeline.codec().hop_length());
        assert_eq!(
            (music.request.top_k, music.request.guidance_scale),
            (Some(250), Some(3.0))
        );

        // The result names what makes it again; another seed or prompt makes something else.
        let again = pipeline.generate(&music.request).unwrap();
        assert_eq!(again.codes, music.codes);
        let other = pipeline.generate(&request.clone().with_seed(8)).unwrap();
        assert_ne!(other.codes, music.codes);
        let untold = MusicRequest::new("").with_seed(7).with_seconds(20.0 / rate);
        let untold = pipeline.generate(&untold).unwrap();
        assert_ne!(untold.codes, music.codes);

        // A sound is continued: its codes are the first ones.
        let codes = pipeline.encode(&music.wave).unwrap();
        let mut options = MusicOptions::default().with_beginning(music.wave.clone());
        let request = request.with_seconds(5.0 / rate);
        let longer = pipeline.generate_with(&request, &mut options).unwrap();
        for (stream, first) in longer.codes.iter().zip(&codes) {
            assert_eq!(stream.len(), 25);
            assert_eq!(stream[..20], first[..]);
        }
        assert_eq!(longer.wave.len(), 25 * pipeline.codec().hop_length());
    });
}

#[test]
fn requests_stop_and_faults_are_named() {
    every(is_musicgen, |case| {
        let pipeline = open(case);
        let request = MusicRequest::new("rain").with_seconds(0.1).with_seed(1);
        let cancel = CancelToken::new();
        let raise = cancel.clone();
        let mut options =
            MusicOptions::default()
                .with_cancel(cancel)
                .with_progress(move |progress| {
                    if progress.frame == 3 {
                        raise.cancel();
                    }
                });
        let music = pipeline.generate_with(&request, &mut options).unwrap();
        assert!(!music.complete);
        assert!(music.codes.iter().all(|stream| stream.len() == 3));
        let error = pipeline.generate_with(&request, &mut options);
        let message = error.unwrap_err().to_string();
        assert!(message.contains("cancelled"), "{message}");
        let fails = |request: MusicRequest, expected: &str| {
            let message = pipeline.generate(&request).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        let new = || MusicRequest::new("rain").with_seconds(0.1);
        fails(
            MusicRequest::new("rain"),
            "`seconds` is 10, expected at most",
        );
        fails(new().with_seconds(-1.0), "`seconds` is -1");
        fails(new().with_seconds(f64::NAN), "`seconds` is NaN");
        fails(new().with_temperature(0.0), "`temperature` is 0");
        fails(
            new().with_guidance_scale(f64::NAN),
            "`guidance_scale` is NaN",
        );
    });
}

/// Directories whose files do not fit name the file and the field.
#[test]
fn broken_directories_are_refused() {
    every(is_musicgen, |case| {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(case.dir.join("model")).unwrap().flatten() {
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let text = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_str(&text).unwrap();
        let fails = |field: &[&str], value: serde_json::Value, expected: &str| {
            let mut config = config.clone();
            let mut place = &mut config;
            for name in field {
                place = &mut place[*name];
            }
            *place = value;
            // Copies of read-only files are read-only.
            let path = folder.path().join("config.json");
            std::fs::remove_file(&path).unwrap();
            std::fs::write(path, config.to_string()).unwrap();
            let opened = MusicgenPipeline::from_pretrained(folder.path(), &flex());
            let message = opened.unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        fails(&["model_type"], "t5".into(), "`model_type`");
        fails(&["decoder"], 3.into(), "`decoder` is 3");
        fails(
            &["text_encoder", "model_type"],
            "umt5".into(),
            "`text_encoder.model_type`",
        );
        fails(&["decoder", "layerdrop"], 0.5.into(), "`layerdrop` is 0.5");
        fails(&["decoder", "hidden_size"], 64.into(), "size mismatch");
        fails(
            &["audio_encoder", "normalize"],
            true.into(),
            "`audio_encoder: normalize` is true",
        );
        fails(&["decoder", "pad_token_id"], 31.into(), "_token_id");
    });
}

/// Codes that follow from their class.
fn items() -> InMemory<CodesItem> {
    let mut rng = Rng::new(2);
    let item = |index: usize| {
        let (class, frames) = (index as u32 % 3, 5 + rng.random_index(4));
        let stream = |book: u32| {
            (0..frames as u32)
                .map(|at| (class + book * at) % 7)
                .collect()
        };
        CodesItem::new((1..4).map(stream).collect()).with_classes(vec![class])
    };
    InMemory((0..18).map(item).collect())
}

/// Trains eight steps, with a stop after `stop` of them; returns the final weights and the newest
/// state, as bytes.
fn train(folder: &Path, stop: Option<usize>) -> [Vec<u8>; 2] {
    let config = MusicgenDecoderConfig {
        vocab_size: 7,
        max_position_embeddings: 16,
        num_hidden_layers: 2,
        ffn_dim: 16,
        num_attention_heads: 2,
        hidden_size: 8,
        dropout: 0.1,
        activation_dropout: 0.1,
        num_codebooks: 3,
        class_sizes: vec![3],
        ..MusicgenDecoderConfig::default()
    };
    let loader = DataLoaderConfig {
        batch_size: 4,
        num_workers: 0,
        ..DataLoaderConfig::default()
    };
    let loader = DataLoader::new(items(), CodesBatch::collate, loader).unwrap();
    let run = RunDir::create(folder.join("run")).unwrap();
    for (attempt, stop) in [stop, Some(usize::MAX)].into_iter().flatten().enumerate() {
        let model: MusicgenDecoder = config.init(&flex()).unwrap().init_weights(1);
        let objective = MultiStreamObjective::new(0.3).unwrap();
        let flag = CancelToken::new();
        let raise = flag.clone();
        let start = match attempt {
            0 => StartFrom::Fresh,
            _ => StartFrom::Resume,
        };
        let trainer = TrainerConfig {
            learning_rate: 3e-3,
            gradient_accumulation_steps: 2,
            save_steps: 4,
            ..TrainerConfig::new(8)
        };
        Trainer::new(trainer)
            .with_start(start)
            .with_cancel(flag)
            .with_callback(move |event: &Event<'_>| {
                if let Event::Step(report) = event
                    && report.step == stop
                {
                    raise.cancel();
                }
            })
            .fit(objective, model, &loader, &run)
            .unwrap();
    }
    let state = run.latest_checkpoint().unwrap().path("state.json");
    let files = [run.final_dir().join("model.safetensors"), state];
    files.map(|path| std::fs::read(path).unwrap())
}

/// Dropout, and which items are told their class, continue bit for bit.
#[test]
fn training_of_a_model_of_codes_resumes_exactly() {
    let [whole, stopped] = [None, Some(3)].map(|stop| {
        let folder = tempfile::tempdir().unwrap();
        train(folder.path(), stop)
    });
    assert!(whole == stopped);
}

/// The codes of a codec are what a model of streams is trained on.
#[test]
fn codes_of_a_codec_are_items() {
    every(is_musicgen, |case| {
        let pipeline = open(case);
        let (codec, rate) = (pipeline.codec(), pipeline.sample_rate());
        let samples = Rng::new(1).uniform_vec(80, -0.5, 0.5);
        let wave = Waveform::mono(samples, rate).unwrap();
        let codes = codec.encode(wave.to_tensor(&flex()).unsqueeze()).unwrap();
        let [_, codebooks, frames] = codes.dims();
        let item = CodesItem::from_tensor(codes.clone().squeeze_dim(0));
        assert_eq!((item.codes.len(), item.frames()), (codebooks, frames));
        let flat: Vec<u32> = item.codes.concat();
        let codes: Tensor<1, Int> = codes.reshape([codebooks * frames]);
        let expected: Vec<i64> = codes.into_data().iter().collect();
        assert!(flat.iter().zip(&expected).all(|(a, b)| i64::from(*a) == *b));
    });
}
