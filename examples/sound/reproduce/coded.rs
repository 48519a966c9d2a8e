//! The codes of clips, computed once.

use crate::{
    codec::batch_of,
    fsdd::{BATCH, SpokenDigit},
};
use aigc_core::{
    CancelToken, Result,
    audio::{AudioCodec, Waveform},
    burn::tensor::Device,
    data::sound::Sound,
    rng::Rng,
};
use aigc_examples::Progress;
use aigc_text::music::CodesItem;
use aigc_vae::codec::EncodecModel;

/// Longest delay of a version, in samples.
const DELAY: usize = 800;
/// Largest factor of loudness of a version, and the inverse of the smallest.
const GAIN: f64 = 1.5;

/// The codes of clips in several versions, the first of which is the clip itself. They are computed
/// once, so that training reads them from memory.
pub(crate) fn versions(
    codec: &EncodecModel,
    clips: &[SpokenDigit],
    versions: u64,
    seed: u64,
    device: &Device,
    stop: &CancelToken,
) -> Result<Vec<CodesItem>> {
    let progress = Progress::new("codes", clips.len() * versions as usize, stop);
    let mut items = Vec::with_capacity(clips.len() * versions as usize);
    for version in 0..versions {
        let mut rng = Rng::stream(seed, "versions of clips", version);
        for part in clips.chunks(BATCH) {
            let part: Vec<SpokenDigit> = match version {
                0 => part.to_vec(),
                _ => part
                    .iter()
                    .map(|clip| changed(clip, &mut rng))
                    .collect::<Result<_>>()?,
            };
            items.extend(encode(codec, &part, device)?);
            progress.add(part.len())?;
        }
    }
    Ok(items)
}

/// A clip that begins later, and is louder or quieter.
fn changed(clip: &SpokenDigit, rng: &mut Rng) -> Result<SpokenDigit> {
    let delay = rng.random_index(DELAY);
    let power = 2.0 * f64::from(rng.uniform_vec(1, 0.0, 1.0)[0]) - 1.0;
    let gain = GAIN.powf(power) as f32;
    let (wave, length) = (&clip.sound.wave, clip.sound.wave.len());
    let delay = delay.min(length);
    let mut samples = vec![0.0; delay];
    samples.extend(
        wave.channel(0)[..length - delay]
            .iter()
            .map(|sample| gain * sample),
    );
    Ok(SpokenDigit {
        sound: Sound {
            wave: Waveform::mono(samples, wave.sample_rate())?,
            len: (clip.sound.len + delay).min(length),
            label: clip.sound.label,
        },
        digit: clip.digit,
        speaker: clip.speaker,
        path: clip.path.clone(),
    })
}

/// The codes of clips, with their digits and speakers.
pub(crate) fn encode(
    codec: &EncodecModel,
    clips: &[SpokenDigit],
    device: &Device,
) -> Result<Vec<CodesItem>> {
    let codes = codec.encode(batch_of(clips, device))?;
    let item = |(row, clip): (usize, &SpokenDigit)| {
        let codes = codes.clone().narrow(0, row, 1).squeeze_dim::<2>(0);
        CodesItem::from_tensor(codes).with_classes(vec![clip.digit, clip.speaker])
    };
    Ok(clips.iter().enumerate().map(item).collect())
}
