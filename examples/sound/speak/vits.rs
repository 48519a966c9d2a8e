//! Speaking with a voice of VITS, such as those of MMS.

use crate::{Args, picture, sound::SoundFile, text};
use aigc_core::{
    Error,
    audio::Waveform,
    burn::tensor::{Device, Int, Tensor, TensorData},
    dsp::MelConfig,
    rng::Rng,
};
use aigc_examples::outln;
use aigc_examples_sound::{SoundGallery, reported, wav_path};
use aigc_pipelines::speech::{SentenceOptions, VitsPipeline};
use aigc_vae::speech::{VitsConfig, VitsOptions};
use std::path::Path;

/// Frames that are decoded at once with `--stream`: about a second.
const PIECE: usize = 64;

/// Speaks into a WAV file, with a picture beside it. Long texts are spoken sentence by sentence;
/// their words are not marked.
///
/// # Errors
/// If the folder has no voice of VITS; naming characters, the speaker or the line of the lexicon
/// that the voice does not know; errors of files.
pub(crate) fn speak(args: &Args, dir: &Path, device: &Device) -> anyhow::Result<()> {
    for (option, is_given) in [
        ("--check", args.check.is_some()),
        ("--vocoder", args.vocoder.is_some()),
    ] {
        if is_given {
            let expected = "left out: it is for voices of digits";
            return Err(Error::argument(option, "given", expected).into());
        }
    }
    let path = wav_path(&args.run, "speech.wav")?;
    let pipeline = reported(VitsPipeline::from_pretrained(dir, device)?);
    let tokenizer = text::tokenizer(pipeline.tokenizer().clone(), args)?;
    let pipeline = pipeline.with_tokenizer(tokenizer)?;
    let (voice, tokenizer) = (pipeline.voice(), pipeline.tokenizer());
    let config = voice.model.config();
    // Models with several speakers can do without one.
    let number = |given: &String| {
        given.parse::<usize>().map_err(|_| {
            let expected = format!("a number below {}", config.num_speakers);
            Error::argument("--speaker", given, expected)
        })
    };
    let options = VitsOptions {
        speaker: args.speaker.as_ref().map(number).transpose()?,
        speaking_rate: args.rate,
        ..VitsOptions::default()
    };
    let rate = args.rate.unwrap_or(config.speaking_rate);
    let mut gallery = SoundGallery::new("VITS", "vits")
        .with_weights(&[dir])?
        .with_prompt(&args.text)
        .with_seed(args.run.seed)
        .with_setting("speaking_rate", rate);
    if let Some(speaker) = options.speaker {
        gallery = gallery.with_setting("speaker", speaker);
    }
    let record = gallery.record();

    let mut file = SoundFile::new(&path, config.sampling_rate);
    let ids = text::symbols(tokenizer, &args.text)?;
    let mut rng = Rng::new(args.run.seed);
    let by_sentence = SentenceOptions::default();
    let (words, durations) = if args.text.chars().count() > by_sentence.whole {
        let push = |piece: &Waveform| file.push_wave(piece);
        let spoken =
            pipeline.speak_sentences(&args.text, &options, &by_sentence, &mut rng, push)?;
        (vec![], spoken.durations)
    } else {
        let values: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let values = TensorData::new(values, [1, ids.len()]);
        let values = Tensor::<2, Int>::from_data(values, device);
        let latents = voice.model.latents(values, None, &options, &mut rng)?;
        let (decoder, speaker) = (&voice.decoder, latents.speaker.as_ref());
        let of_text = latents.latents.clone();
        match args.stream {
            true => decoder.decode_chunks(of_text, speaker, PIECE, |samples| file.push(samples))?,
            false => file.push(decoder.decode(of_text, speaker)?)?,
        }
        let durations = latents.durations.concat();
        let words = text::words(&args.text, &ids, &durations, tokenizer.config());
        (words, durations)
    };
    let speech = file.finish(record)?;

    let mel = mel(config);
    let drawn = path.with_extension("png");
    picture::save(&speech, &mel, (&words, &durations), record, &drawn)?;
    picture::print_words(&words, &mel);
    speech.print_speed(args.stream);
    outln!("  {:<60} the sound", path.display());
    if drawn.is_file() {
        outln!(
            "  {:<60} its spectrum with words and symbols",
            drawn.display()
        );
    }
    Ok(())
}

/// The spectrum of the picture: a frame for each of the voice.
fn mel(config: &VitsConfig) -> MelConfig {
    let hop = config.hop_length();
    let n_fft = (4 * hop).max(256);
    MelConfig::hifi_gan(config.sampling_rate, n_fft, hop, (n_fft / 8).min(80))
}
