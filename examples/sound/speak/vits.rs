//! Speaking with a voice of VITS, such as those of MMS.

use crate::{Args, picture, sound::SoundFile, text};
use aigc_core::{
    Error, Result,
    burn::tensor::{Device, Int, Tensor, TensorData},
    dsp::MelConfig,
    rng::Rng,
};
use aigc_examples::outln;
use aigc_examples_sound::SoundGallery;
use aigc_gan::vocoder::HifiGanConfig;
use aigc_pipelines::speech::{VitsPipeline, VitsVoice};
use aigc_vae::speech::{VitsConfig, VitsLatents, VitsOptions};
use std::{ops::Range, path::Path};

/// Frames that are decoded at once with `--stream`: about a second.
const PIECE: usize = 64;

/// Speaks into a WAV file, with a picture beside it.
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
    let opened = VitsPipeline::from_pretrained(dir, device)?;
    for line in opened.warnings() {
        eprintln!("{line}");
    }
    let pipeline = opened.into_inner();
    let voice = pipeline.voice();
    let config = voice.model.config();
    let tokenizer = text::tokenizer(pipeline.tokenizer().clone(), args)?;
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
    let path = args.run.out.clone().unwrap_or_else(|| "speech.wav".into());

    let mut file = SoundFile::new(&path, config.sampling_rate);
    let ids = text::symbols(&tokenizer, &args.text)?;
    let values: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
    let values = TensorData::new(values, [1, ids.len()]);
    let values = Tensor::<2, Int>::from_data(values, device);
    let mut rng = Rng::new(args.run.seed);
    let latents = voice.model.latents(values, None, &options, &mut rng)?;
    let frames = latents.frames[0];
    let (piece, context) = match args.stream {
        true => (PIECE, context_frames(config)),
        false => (frames, 0),
    };
    for start in (0..frames).step_by(piece) {
        let part = start..(start + piece).min(frames);
        file.push(decode(voice, &latents, part, context)?)?;
    }
    let speech = file.finish(record)?;

    let durations = &latents.durations[0];
    let words = text::words(&args.text, &ids, durations, tokenizer.config());
    let mel = mel(config);
    let drawn = path.with_extension("png");
    picture::save(&speech, &mel, (&words, durations), record, &drawn)?;
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

/// Frames before and after a frame on which its samples depend.
fn context_frames(config: &VitsConfig) -> usize {
    let generator = HifiGanConfig {
        upsample_rates: config.upsample_rates.clone(),
        upsample_kernel_sizes: config.upsample_kernel_sizes.clone(),
        resblock_kernel_sizes: config.resblock_kernel_sizes.clone(),
        resblock_dilation_sizes: config.resblock_dilation_sizes.clone(),
        ..HifiGanConfig::default()
    };
    generator.context_frames()
}

/// The samples of some frames, `[1, time]`, decoded with those around them on which they depend.
fn decode(
    voice: &VitsVoice,
    latents: &VitsLatents,
    part: Range<usize>,
    context: usize,
) -> Result<Tensor<2>> {
    let (frames, hop) = (latents.frames[0], voice.model.config().hop_length());
    let first = part.start.saturating_sub(context);
    let last = (part.end + context).min(frames);
    let wanted = latents.latents.clone().narrow(2, first, last - first);
    let samples = voice.decoder.decode(wanted, latents.speaker.as_ref())?;
    let start = (part.start - first) * hop;
    let len = match part.end == frames {
        // Some kernels give a few samples behind the last frame.
        true => samples.dims()[1] - start,
        false => part.len() * hop,
    };
    Ok(samples.narrow(1, start, len))
}

/// The spectrum of the picture: a frame for each of the voice.
fn mel(config: &VitsConfig) -> MelConfig {
    let hop = config.hop_length();
    let n_fft = (4 * hop).max(256);
    MelConfig::hifi_gan(config.sampling_rate, n_fft, hop, (n_fft / 8).min(80))
}
