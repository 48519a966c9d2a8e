//! Generation, from a request to a sound.

use super::{
    GeneratedMusic, MusicDecodeStream, MusicOptions, MusicProgress, MusicRequest, MusicgenPipeline,
};
use crate::seed::random_seed;
use aigc_core::{
    Error, Result,
    audio::{AudioCodec, Waveform},
    check::ensure_argument,
};
use aigc_text::{
    FinishReason, GenerationConfig,
    music::{MultiStreamGenerator, MultiStreamLm},
};

impl MusicgenPipeline {
    /// Makes music.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] or [`Error::Config`] name a field of the request that cannot be
    /// fulfilled, such as more seconds than the model has positions.
    pub fn generate(&self, request: &MusicRequest) -> Result<GeneratedMusic> {
        self.generate_with(request, &mut MusicOptions::default())
    }

    /// [`generate`](Self::generate) with progress, cancellation, and a callback for pieces of the
    /// sound.
    ///
    /// # Errors
    /// As [`generate`](Self::generate); [`Error::Cancelled`] if it was cancelled before the first
    /// frame; those of the callback for sound.
    pub fn generate_with(
        &self,
        request: &MusicRequest,
        options: &mut MusicOptions<'_>,
    ) -> Result<GeneratedMusic> {
        let mut request = request.or(self.defaults());
        let seed = *request.seed.get_or_insert_with(random_seed);
        let beginning = match &options.beginning {
            Some(wave) => self.encode(wave)?,
            None => vec![],
        };
        let given = beginning.first().map_or(0, Vec::len);
        let config = self.config(&request, given)?;
        let has_prompt = !request.prompt.trim().is_empty();
        let mut warnings = vec![];
        let condition = if has_prompt {
            let cut = self.cut(&request.prompt)?;
            warnings.extend(
                cut.map(|cut| format!("the end of `prompt` was cut, it is too long: {cut:?}")),
            );
            self.condition(self.encode_prompts(&[&request.prompt])?)?
        } else {
            None
        };
        let mut generator = MultiStreamGenerator::new(self.decoder(), config)?
            .with_seed(seed)
            .with_cancel(options.cancel.clone());
        let scale = request.guidance_scale.unwrap_or(1.0);
        // Up to 1 there is no guidance. The generator refuses NaN.
        if scale.is_nan() || scale > 1.0 {
            generator = generator.with_guidance_scale(scale)?;
        }
        let mut sound = Sound {
            stream: self.decode_stream(options.chunk_seconds)?,
            pieces: vec![],
        };
        if given > 0 {
            for frame in 0..given {
                let codes = beginning.iter().map(|stream| stream[frame]).collect();
                sound.push(codes, options)?;
            }
            generator = generator.with_beginning(vec![beginning])?;
        }
        let mut sampling = generator.stream(1, condition.as_ref())?;
        let (num_frames, mut frame) = (sampling.num_frames(), given);
        for codes in sampling.by_ref() {
            let codes = codes?.into_iter().next().unwrap_or_default();
            sound.push(codes, options)?;
            frame += 1;
            let seconds = sound.seconds();
            if let Some(progress) = &mut options.progress {
                progress(MusicProgress {
                    frame,
                    num_frames,
                    seconds,
                });
            }
        }
        if frame == 0 {
            return Err(Error::cancelled("making music"));
        }
        let complete = sampling.finish_reason() == Some(FinishReason::Length);
        let codes = sampling.into_codes().codes;
        Ok(GeneratedMusic {
            wave: sound.finish(options)?,
            codes: codes.into_iter().next().unwrap_or_default(),
            complete,
            request,
            warnings,
        })
    }

    /// The options of generation after a beginning of `given` frames.
    fn config(&self, request: &MusicRequest, given: usize) -> Result<GenerationConfig> {
        let seconds = request.seconds.unwrap_or_default();
        let holds = seconds > 0.0 && seconds.is_finite();
        let most = self.max_seconds();
        let expected = format!("above 0, at most {most}");
        ensure_argument(holds, "seconds", seconds, &expected)?;
        let rate = self.codec().frame_rate();
        // A length in whole frames may be rounded up by its last bit.
        let frames = (seconds * rate * (1.0 - 1e-9)).ceil() as usize;
        let pattern = self.decoder().delay_pattern();
        let positions = self.decoder().max_position_embeddings();
        let room = pattern.frames(positions).saturating_sub(given);
        if frames > room {
            let room = room as f64 / rate;
            let expected = match given {
                0 => format!("at most {room}, as the model has {positions} positions"),
                _ => format!("at most {room} after the beginning"),
            };
            return Err(Error::argument("seconds", seconds, expected));
        }
        let usual = GenerationConfig::default();
        Ok(GenerationConfig {
            do_sample: request.do_sample.unwrap_or(usual.do_sample),
            top_k: request.top_k.unwrap_or(usual.top_k),
            top_p: request.top_p.unwrap_or(usual.top_p),
            temperature: request.temperature.unwrap_or(usual.temperature),
            max_new_tokens: Some(pattern.steps(frames)),
            ..usual
        })
    }
}

/// The sound so far.
struct Sound<'a> {
    stream: MusicDecodeStream<'a>,
    pieces: Vec<Waveform>,
}

impl Sound<'_> {
    fn push(&mut self, codes: Vec<u32>, options: &mut MusicOptions<'_>) -> Result<()> {
        let piece = self.stream.push(codes)?;
        keep(&mut self.pieces, piece, options)
    }

    fn seconds(&self) -> f64 {
        self.pieces.iter().map(Waveform::seconds).sum()
    }

    fn finish(mut self, options: &mut MusicOptions<'_>) -> Result<Waveform> {
        let last = self.stream.finish()?;
        keep(&mut self.pieces, last, options)?;
        Waveform::concat(&self.pieces.iter().collect::<Vec<_>>())
    }
}

/// Passes a piece to the callback for sound, and keeps it.
fn keep(
    pieces: &mut Vec<Waveform>,
    piece: Option<Waveform>,
    options: &mut MusicOptions<'_>,
) -> Result<()> {
    let Some(piece) = piece else {
        return Ok(());
    };
    if let Some(audio) = &mut options.audio {
        audio(&piece)?;
    }
    pieces.push(piece);
    Ok(())
}
