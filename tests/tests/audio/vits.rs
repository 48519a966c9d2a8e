//! VITS, its training parts, its tokenizer and the alignment search against other implementations.

use aigc_core::{Result, device::device, rng::Rng};
use aigc_pipelines::speech::{VitsPipeline, VitsSpeech, VitsVoice};
use aigc_tests::fixtures::{Case, every};
use aigc_vae::speech::{
    UnknownCharacters, VitsModel, VitsOptions, VitsTokenizer, monotonic_alignment,
};
use burn::tensor::{Int, Tensor, TensorData};

/// Rows of numbers as a tensor.
fn ints<const D: usize>(values: Vec<usize>, shape: [usize; D]) -> Tensor<D, Int> {
    let values: Vec<i32> = values.into_iter().map(|value| value as i32).collect();
    Tensor::from_data(TensorData::new(values, shape), &device("flex").unwrap())
}

fn durations(rows: &[Vec<usize>]) -> Tensor<2, Int> {
    ints(rows.concat(), [rows.len(), rows[0].len()])
}

/// Lengths of a tensor of the case.
fn lengths(case: &Case, name: &str) -> Vec<usize> {
    let (_, values) = case.values(name);
    values.into_iter().map(|value| value as usize).collect()
}

fn options(case: &Case) -> VitsOptions {
    let config = &case.json["config"];
    VitsOptions {
        speaker: config["speaker_id"].as_u64().map(|id| id as usize),
        speaking_rate: config["speaking_rate"].as_f64(),
        noise_scale: config["noise_scale"].as_f64(),
        noise_scale_duration: config["noise_scale_duration"].as_f64(),
    }
}

/// Speaks with the noise of the case, in the order in which it is drawn.
fn speak(voice: &VitsVoice, case: &Case, options: &VitsOptions) -> Result<VitsSpeech> {
    let names = ["noise.duration", "noise.prior"];
    let mut noise = names.into_iter().filter(|name| case.has(name));
    let mut draw = |shape: [usize; 3]| {
        let noise = case.float::<3>(noise.next().expect("no more noise is drawn"));
        assert_eq!(noise.dims(), shape, "shape of the noise");
        noise
    };
    let mask = case
        .has("attention_mask")
        .then(|| case.mask("attention_mask"));
    let ids = case.int("input_ids");
    voice.decode(voice.model.latents_with(ids, mask, options, &mut draw)?)
}

#[test]
fn vits_is_that_of_transformers() {
    every(
        |case| case.text("kind") == "VitsModel",
        |case| {
            let flex = device("flex").unwrap();
            let voice = VitsVoice::from_pretrained(case.dir.join("model"), &flex).unwrap();
            assert!(voice.warnings().is_empty(), "{voice}");
            let speech = speak(&voice, case, &options(case)).unwrap();
            let text = &speech.latents.text;
            case.assert_within("hidden", &text.hidden);
            case.assert_within("prior_mean", &text.prior_mean);
            case.assert_within("prior_log_variance", &text.prior_log_variance);
            case.assert_within("log_duration", &speech.latents.log_duration);
            case.assert_equal_ints("durations", &durations(&speech.latents.durations));
            case.assert_within("latents", &speech.latents.latents);
            case.assert_within("waveform", &speech.waveform);
            let (latents, mut parts) = (&speech.latents, vec![]);
            let collect = |samples: Tensor<2>| {
                parts.push(samples);
                Ok(())
            };
            let (decoder, speaker) = (&voice.decoder, latents.speaker.as_ref());
            decoder
                .decode_chunks(latents.latents.clone(), speaker, 3, collect)
                .unwrap();
            case.assert_within("waveform", &Tensor::cat(parts, 1));
            let found = ints(speech.lengths.clone(), [speech.lengths.len()]);
            case.assert_equal_ints("sequence_lengths", &found);

            let noiseless = VitsOptions {
                noise_scale: Some(0.0),
                noise_scale_duration: Some(0.0),
                ..options(case)
            };
            let speech = speak(&voice, case, &noiseless).unwrap();
            let latents = &speech.latents;
            case.assert_within("noiseless.log_duration", &latents.log_duration);
            case.assert_equal_ints("noiseless.durations", &durations(&latents.durations));
            case.assert_within("noiseless.latents", &latents.latents);
            case.assert_within("noiseless.waveform", &speech.waveform);
            let found = ints(speech.lengths.clone(), [speech.lengths.len()]);
            case.assert_equal_ints("noiseless.sequence_lengths", &found);
        },
    );
}

#[test]
fn training_parts_of_vits_are_those_of_transformers() {
    every(
        |case| case.text("kind") == "VitsModel-training-parts",
        |case| {
            let flex = device("flex").unwrap();
            let model = VitsModel::from_pretrained(case.path("model"), &flex).unwrap();
            let speaker = match case.has("speaker") {
                true => model
                    .speaker_embeddings(&lengths(case, "speaker"), &flex)
                    .unwrap(),
                false => None,
            };
            let speaker = speaker.as_ref();
            let mask = case.float::<3>("spectrogram_mask");
            let posterior = model.posterior(case.float("spectrogram"), mask.clone(), speaker);
            case.assert_within("posterior.mean", &posterior.mean);
            case.assert_within("posterior.log_std", &posterior.log_std);
            let z = posterior.sample(case.float("noise.posterior"));
            case.assert_within("posterior.sample", &z);
            let there = model.flow_forward(z, &mask, speaker);
            case.assert_within("flow.forward", &there);
            case.assert_within("flow.back", &model.flow_inverse(there, &mask, speaker));

            let (hidden, text_mask) = (case.float::<3>("hidden"), case.float::<3>("text_mask"));
            if case.has("duration.log") {
                let found = model.log_durations(hidden, &text_mask, speaker, None);
                case.assert_within("duration.log", &found);
                return;
            }
            let (durations, noise) = (case.float("durations"), case.float("noise.duration"));
            let found = model
                .duration_negative_log_likelihood(hidden, &text_mask, speaker, durations, noise)
                .unwrap();
            case.assert_within("duration.negative_log_likelihood", &found);
        },
    );
}

#[test]
fn vits_tokenizer_is_that_of_transformers() {
    every(
        |case| case.text("kind") == "VitsTokenizer",
        |case| {
            let tokenizer = VitsTokenizer::from_pretrained(case.path("folder"))
                .unwrap()
                .with_unknown(UnknownCharacters::Replace);
            let texts: Vec<&str> = case.json["texts"]
                .as_array()
                .unwrap()
                .iter()
                .map(|text| text.as_str().unwrap())
                .collect();
            for (index, text) in texts.iter().enumerate() {
                let ids = tokenizer.encode(text).unwrap();
                let ids: Vec<usize> = ids.into_iter().map(|id| id as usize).collect();
                let found = ints(ids.clone(), [ids.len()]);
                case.assert_equal_ints(&format!("ids.{index}"), &found);
            }
            let batch = tokenizer.encode_batch(&texts).unwrap();
            let (ids, mask) = batch.to_tensors(&device("flex").unwrap());
            case.assert_equal_ints("batch.input_ids", &ids);
            case.assert_equal_ints("batch.attention_mask", &mask.int());
        },
    );
}

#[test]
fn monotonic_alignment_is_the_best_path() {
    every(
        |case| case.text("kind") == "monotonic_alignment",
        |case| {
            let tokens = lengths(case, "token_lengths");
            let frames = lengths(case, "frame_lengths");
            let found = monotonic_alignment(case.float("value"), &tokens, &frames).unwrap();
            case.assert_equal_ints("durations", &durations(&found.durations));
            let path = found.path(&device("flex").unwrap());
            case.assert_equal_ints("path", &path);
            case.assert_values_within("sum", &[found.sums.len()], &found.sums);
        },
    );
}

/// A folder with a model and a tokenizer opens with one call. The fixtures have them apart.
#[test]
fn a_folder_of_vits_speaks_text() {
    let model = |case: &Case| case.text("kind") == "VitsModel";
    every(model, |case| {
        let dir = tempfile::tempdir().unwrap();
        let copy = |from: &std::path::Path| {
            for entry in std::fs::read_dir(from).unwrap().flatten() {
                std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
            }
        };
        copy(&case.dir.join("model"));
        copy(&case.dir.join("../vits-tokenizer/tokenizer"));
        let flex = device("flex").unwrap();
        let voice = VitsPipeline::from_pretrained(dir.path(), &flex)
            .unwrap()
            .into_inner();
        let options = VitsOptions::default();
        let speech = voice
            .speak("a small bell", &options, &mut Rng::new(1))
            .unwrap();
        let hop = voice.voice().model.config().hop_length();
        assert_eq!(speech.durations.len(), 2 * "a small bell".len() + 1);
        assert_eq!(
            speech.wave.len(),
            speech.durations.iter().sum::<usize>() * hop
        );
        let again = voice
            .speak("a small bell", &options, &mut Rng::new(1))
            .unwrap();
        assert_eq!(speech.wave, again.wave);

        let error = voice
            .speak("7 bells!", &options, &mut Rng::new(1))
            .unwrap_err();
        assert!(error.to_string().contains("'7', '!'"), "{error}");
        let lax = voice
            .tokenizer()
            .clone()
            .with_unknown(UnknownCharacters::Replace);
        let voice = voice.with_tokenizer(lax).unwrap();
        let speech = voice.speak("7 bells!", &options, &mut Rng::new(1)).unwrap();
        assert_eq!(speech.unknown, ['7', '!']);
        let error = voice.speak("77", &options, &mut Rng::new(1)).unwrap_err();
        assert!(error.to_string().contains("`text` is \"77\""), "{error}");
    });
}
