//! How many digits are heard as asked: alone, and in sequences longer than any in training.

use crate::{data::DIGITS, voice::Voice};
use aigc_core::{
    CancelToken, Error, Result, audio::Waveform, burn::tensor::Device, checkpoint::write_atomic,
    eval::Proportion, rng::Rng,
};
use aigc_examples::{Progress, outln};
use aigc_vae::speech::SpeakerOptions;
use serde_json::{Value, json};
use std::path::Path;

/// The share of digits that are meant to be heard as asked, in percent.
const GOAL: f64 = 95.0;

/// Lengths of the longer texts, which are above that of all texts in training.
const LENGTHS: [usize; 3] = [4, 5, 6];

/// Speaks `count` texts in turn with all speakers, half of them single digits, half longer than any
/// in training, prints how many digits are heard as asked, and writes it to `path`.
/// `of_recordings` is the share of held-out recordings that the reader reads right, which bounds
/// the others.
///
/// # Errors
/// [`Error::Cancelled`] if `stop` is cancelled; errors of the models; [`Error::Io`].
pub(crate) fn run(
    voice: &Voice,
    count: usize,
    seed: u64,
    of_recordings: Option<&Proportion>,
    (device, stop): (&Device, &CancelToken),
    path: &Path,
) -> Result<()> {
    let progress = Progress::new("texts for the check", count, stop);
    let sample_rate = voice.speaker.config().mel.sample_rate;
    let mut found = [(0usize, 0usize); 2];
    for index in 0..count {
        let mut rng = Rng::stream(seed, "checked texts", index as u64);
        let is_long = index % 2 == 1;
        let length = match is_long {
            true => LENGTHS[rng.random_index(LENGTHS.len())],
            false => 1,
        };
        let digits: Vec<&str> = (0..length)
            .map(|_| DIGITS[rng.random_index(DIGITS.len())])
            .collect();
        let options = SpeakerOptions {
            speaker: index / 2 % voice.names.len(),
            ..SpeakerOptions::default()
        };
        let (sound, words) = voice.sound_of(&digits.join(" "), &options, rng.next_u64())?;
        let wave = Waveform::from_tensor(sound, sample_rate)?;
        if let Some((right, asked)) = voice.heard(&words, wave.channel(0), device)? {
            let (sum, total) = &mut found[usize::from(is_long)];
            (*sum, *total) = (*sum + right, *total + asked);
        }
        progress.add(1)?;
    }
    drop(progress);

    outln!();
    let mut report = serde_json::Map::new();
    let mut add = |name: &str, what: &str, share: &Proportion| {
        let (count, total) = (share.count(), share.total());
        outln!("{count} of {total} digits are heard as asked {what}: {share}");
        let value = json!({ "right": count, "of": total, "interval": share.interval() });
        report.insert(name.to_owned(), value);
    };
    let [single, long] = found.map(|(right, asked)| Proportion::new(right, asked).ok());
    if let Some(share) = &single {
        add("single", "alone", share);
    }
    if let Some(share) = &long {
        add(
            "sequences",
            "in sequences longer than any in training",
            share,
        );
    }
    outln!("the goal is {GOAL} % of both");
    if let Some(share) = of_recordings {
        add("recordings", "in held-out recordings", share);
    }
    let text = serde_json::to_string_pretty(&Value::Object(report)).map_err(Error::other)?;
    write_atomic(path, text.as_bytes())
}
