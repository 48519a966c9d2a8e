//! FLAC, MP3, Ogg Vorbis and AIFF, by the crate symphonia.

use super::Waveform;
use std::io::Cursor;
use symphonia::core::{
    codecs::audio::{
        AudioDecoder, AudioDecoderOptions,
        well_known::{CODEC_ID_MP3, CODEC_ID_VORBIS},
    },
    errors::Error,
    formats::{FormatOptions, FormatReader, TrackType, probe::Hint},
    io::MediaSourceStream,
    meta::MetadataOptions,
};

/// Limit on the number of samples of all channels. Silence takes few bytes in FLAC: a small file
/// must not fill the memory.
const MAX_SAMPLES: usize = 1 << 29;

/// The sound of a file.
///
/// # Errors
/// Why it cannot be decoded.
pub(super) fn decode(bytes: Vec<u8>) -> Result<Waveform, String> {
    let stream = MediaSourceStream::new(Box::new(Cursor::new(bytes)), Default::default());
    // Without a hint: names say little about content.
    let mut format = symphonia::default::get_probe()
        .probe(
            &Hint::new(),
            stream,
            FormatOptions::default(),
            MetadataOptions::default(),
        )
        .map_err(text)?;
    let track = format
        .default_track(TrackType::Audio)
        .ok_or("it has no sound")?;
    let (id, expected) = (track.id, track.num_frames);
    let parameters = track
        .codec_params
        .as_ref()
        .and_then(|parameters| parameters.audio())
        .ok_or("its sound has no parameters")?;
    // That of an MP3 is a guess of the program that wrote it, that of Vorbis is counted here.
    let counted = [CODEC_ID_MP3, CODEC_ID_VORBIS].contains(&parameters.codec);
    let expected = expected.filter(|_| !counted);
    let mut decoder = symphonia::default::get_codecs()
        .make_audio_decoder(parameters, &AudioDecoderOptions::default())
        .map_err(text)?;
    let (channels, rate) = packets(&mut *format, &mut *decoder, id)?;
    let found = channels.first().map_or(0, Vec::len);
    if found == 0 {
        return Err("it has no samples".into());
    }
    if let Some(expected) = expected.filter(|expected| *expected > found as u64) {
        return Err(format!("it ends after {found} of {expected} samples"));
    }
    if channels.iter().flatten().any(|x| !x.is_finite()) {
        return Err("a sample is not finite".into());
    }
    Waveform::new(channels, rate).map_err(|error| error.to_string())
}

/// The channels of the track `id`, and its rate.
fn packets(
    format: &mut dyn FormatReader,
    decoder: &mut dyn AudioDecoder,
    id: u32,
) -> Result<(Vec<Vec<f32>>, u32), String> {
    let (mut channels, mut rate): (Vec<Vec<f32>>, u32) = (vec![], 0);
    let mut piece: Vec<Vec<f32>> = vec![];
    while let Some(packet) = format.next_packet().map_err(text)? {
        if packet.track_id != id {
            continue;
        }
        let decoded = decoder.decode(&packet).map_err(text)?;
        if decoded.is_empty() {
            continue;
        }
        decoded.copy_to_vecs_planar(&mut piece);
        if channels.is_empty() {
            (channels, rate) = (vec![vec![]; piece.len()], decoded.spec().rate());
        }
        if piece.len() != channels.len() || decoded.spec().rate() != rate {
            return Err("channels or sample rate change within the sound".into());
        }
        for (channel, piece) in channels.iter_mut().zip(&piece) {
            channel.extend(piece);
        }
        if channels.len() * channels[0].len() > MAX_SAMPLES {
            return Err(format!("more than {MAX_SAMPLES} samples"));
        }
    }
    Ok((channels, rate))
}

fn text(error: Error) -> String {
    error.to_string()
}
