//! Tests of the pipeline of VITS.

use super::{SentenceOptions, Speech, VitsDecoder, VitsPipeline, VitsVoice};
use aigc_core::{
    Result,
    audio::Waveform,
    rng::{InitWeights, Rng},
};
use aigc_vae::speech::{VitsConfig, VitsOptions, VitsTokenizer};
use burn::tensor::Device;

/// A small voice of `symbols` symbols, with 8 samples in a frame.
pub(super) fn tiny(symbols: usize) -> VitsConfig {
    VitsConfig {
        vocab_size: symbols,
        hidden_size: 8,
        num_hidden_layers: 1,
        ffn_dim: 8,
        flow_size: 4,
        spectrogram_bins: 5,
        use_stochastic_duration_prediction: false,
        num_speakers: 2,
        speaker_embedding_size: 3,
        upsample_initial_channel: 16,
        upsample_rates: vec![4, 2],
        upsample_kernel_sizes: vec![8, 4],
        resblock_kernel_sizes: vec![3],
        resblock_dilation_sizes: vec![vec![1, 3]],
        duration_predictor_filter_channels: 6,
        prior_encoder_num_flows: 2,
        prior_encoder_num_wavenet_layers: 1,
        posterior_encoder_num_wavenet_layers: 1,
        sampling_rate: 4000,
        ..VitsConfig::default()
    }
}

fn pipeline() -> VitsPipeline {
    let (device, tokenizer) = (Device::flex(), VitsTokenizer::from_texts(&[TEXT]).unwrap());
    let config = tiny(tokenizer.vocab_size());
    let voice = VitsVoice {
        model: config.init(&device).unwrap().init_weights(1),
        decoder: VitsDecoder::new(&config, &device).unwrap().init_weights(2),
    };
    VitsPipeline::new(voice, tokenizer, &device).unwrap()
}

const TEXT: &str = "one two. \"three!\" four";

/// The result, and the pieces that were received.
fn speak(
    voice: &VitsPipeline,
    text: &str,
    sentences: SentenceOptions,
) -> Result<(Speech, Vec<Waveform>)> {
    let (mut pieces, options) = (vec![], VitsOptions::default());
    let keep = |piece: &Waveform| {
        pieces.push(piece.clone());
        Ok(())
    };
    let speech = voice.speak_sentences(text, &options, &sentences, &mut Rng::new(5), keep)?;
    Ok((speech, pieces))
}

#[test]
fn sentences_are_spoken_one_after_the_other() {
    let voice = pipeline();
    let each = SentenceOptions {
        whole: 0,
        pause: 0.1,
    };
    let (speech, pieces) = speak(&voice, TEXT, each).unwrap();
    assert_eq!(pieces.len(), 3);
    // The same random numbers in the same order; 0.1 s are 50 frames of 8 samples.
    let mut rng = Rng::new(5);
    let mut expected = vec![];
    for (index, text) in ["one two.", "\"three!\"", "four"].into_iter().enumerate() {
        let alone = voice.speak(text, &VitsOptions::default(), &mut rng);
        let mut alone = alone.unwrap().wave.channel(0).to_vec();
        if index < 2 {
            alone.resize(alone.len() + 400, 0.0);
        }
        assert_eq!(pieces[index].channel(0), alone);
        expected.extend(alone);
    }
    assert_eq!(speech.wave.channel(0), expected);
    assert_eq!(speech.durations.iter().sum::<usize>() * 8, expected.len());
}

/// A text that is not long is one forward pass, as in transformers, and one piece.
#[test]
fn short_texts_are_spoken_at_once() {
    let voice = pipeline();
    let whole = voice.speak(TEXT, &VitsOptions::default(), &mut Rng::new(5));
    let whole = whole.unwrap();
    assert_eq!(whole.durations.len(), 2 * TEXT.len() + 1);
    let (speech, pieces) = speak(&voice, TEXT, SentenceOptions::default()).unwrap();
    assert_eq!(speech.wave, whole.wave);
    assert_eq!(pieces, [whole.wave]);
    let limit = SentenceOptions {
        whole: TEXT.len(),
        ..SentenceOptions::default()
    };
    assert_eq!(speak(&voice, TEXT, limit).unwrap().1.len(), 1);
    let below = SentenceOptions {
        whole: TEXT.len() - 1,
        ..limit
    };
    assert_eq!(speak(&voice, TEXT, below).unwrap().1.len(), 3);
    // By default, long texts are spoken sentence by sentence.
    let long = "one two. ".repeat(120);
    let (speech, pieces) = speak(&voice, &long, SentenceOptions::default()).unwrap();
    assert_eq!(pieces.len(), 120);
    let again = voice.speak(&long, &VitsOptions::default(), &mut Rng::new(5));
    assert_eq!(again.unwrap().wave, speech.wave);
}

/// What cannot be spoken is named before anything is, wherever it stands.
#[test]
fn faults_come_before_the_first_sentence() {
    let voice = pipeline();
    let each = SentenceOptions {
        whole: 0,
        pause: 0.0,
    };
    let refused = |text: &str, sentences: SentenceOptions| {
        let mut received = 0;
        let count = |_: &Waveform| {
            received += 1;
            Ok(())
        };
        let (options, rng) = (VitsOptions::default(), &mut Rng::new(5));
        let found = voice.speak_sentences(text, &options, &sentences, rng, count);
        let message = found.unwrap_err().to_string();
        assert_eq!(received, 0, "{message}");
        message
    };
    assert!(refused("one two. five? 7!", each).contains("'i', 'v', '?', '7'"));
    assert!(refused("  ", each).contains("`text`"));
    for pause in [-1.0, 61.0, f64::NAN] {
        let message = refused(TEXT, SentenceOptions { pause, ..each });
        assert!(message.contains("`pause` is"), "{message}");
    }
}
