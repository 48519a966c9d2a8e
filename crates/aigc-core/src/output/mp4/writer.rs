//! Encodes frames and writes them as they come.

use super::{
    Mp4Config,
    boxes::{self, Track},
    units,
};
use crate::output::y4m::{Y4mConfig, planes};
use image::RgbImage;
use rav1e::{
    Config, Context, EncoderConfig, EncoderStatus,
    color::{ColorDescription, ColorPrimaries, MatrixCoefficients, TransferCharacteristics},
};
use std::{
    io::{Error, Result, Seek, SeekFrom, Write},
    ops::RangeInclusive,
};

/// Colours of pictures on screens, with the matrix of [`planes`].
const COLOURS: ColorDescription = ColorDescription {
    color_primaries: ColorPrimaries::BT709,
    transfer_characteristics: TransferCharacteristics::SRGB,
    matrix_coefficients: MatrixCoefficients::BT601,
};

/// Most frames of a file: its tables stay far below 4 GiB.
const MAX_FRAMES: usize = 1 << 28;

/// Fewest ticks in a second: some players round the times of files with few.
const MIN_TIMESCALE: u32 = 10_000;

/// Sides of a frame: from what the encoder takes to the widest of AV1's levels.
pub(in crate::output) const SIDES: RangeInclusive<u32> = 16..=16_384;

/// Writes frames one at a time. The encoder keeps those that it looks ahead at; of the others, four
/// bytes each stay in memory.
pub(in crate::output) struct Mp4Writer<W> {
    out: W,
    encoder: Context<u8>,
    shown: (u32, u32),
    coded: (u32, u32),
    /// Ticks in a second and ticks that a frame lasts.
    times: (u32, u32),
    frames: usize,
    /// Bytes of every frame that is written.
    sizes: Vec<u32>,
    /// Numbers of the key frames, from 1.
    keys: Vec<u32>,
    bytes: u64,
    /// The unit that describes the stream.
    sequence: Vec<u8>,
}

impl<W: Write + Seek> Mp4Writer<W> {
    /// Writes what stands before the frames.
    pub(in crate::output) fn new(
        mut out: W,
        config: Mp4Config,
        (width, height): (u32, u32),
        (numerator, denominator): (u32, u32),
    ) -> Result<Self> {
        let coded = (width.next_multiple_of(2), height.next_multiple_of(2));
        // The time base stays the encoder's own: without a target of bits per second, it changes
        // the number of tiles only, and few tiles are the smaller file.
        let settings = EncoderConfig {
            width: coded.0 as usize,
            height: coded.1 as usize,
            quantizer: usize::from(config.quantizer),
            color_description: Some(COLOURS),
            ..EncoderConfig::with_speed_preset(config.speed)
        };
        let encoder = Config::new()
            .with_encoder_config(settings)
            .new_context()
            .map_err(Error::other)?;
        out.write_all(&boxes::file_type())?;
        out.write_all(&boxes::data_header(0))?;
        let factor = MIN_TIMESCALE.div_ceil(numerator);
        Ok(Self {
            out,
            encoder,
            shown: (width, height),
            coded,
            times: (numerator * factor, denominator * factor),
            frames: 0,
            sizes: vec![],
            keys: vec![],
            bytes: 0,
            sequence: vec![],
        })
    }

    pub(in crate::output) fn push(&mut self, frame: &RgbImage) -> Result<()> {
        if self.frames == MAX_FRAMES {
            return Err(Error::other(format!("more than {MAX_FRAMES} frames")));
        }
        let (width, height) = self.coded;
        let padded;
        let frame = if self.shown == self.coded {
            frame
        } else {
            let (right, bottom) = (self.shown.0 - 1, self.shown.1 - 1);
            padded = RgbImage::from_fn(width, height, |x, y| {
                *frame.get_pixel(x.min(right), y.min(bottom))
            });
            &padded
        };
        let bytes = planes(frame, Y4mConfig::default());
        let (width, height) = (width as usize, height as usize);
        let (luma, colours) = bytes.split_at(width * height);
        let (blue, red) = colours.split_at(colours.len() / 2);
        let parts = [(luma, width), (blue, width / 2), (red, width / 2)];
        let mut picture = self.encoder.new_frame();
        for (plane, (bytes, width)) in picture.planes.iter_mut().zip(parts) {
            plane.copy_from_raw_u8(bytes, width, 1);
        }
        self.encoder.send_frame(picture).map_err(Error::other)?;
        self.frames += 1;
        self.write_encoded()
    }

    /// Writes the frames that the encoder has finished.
    fn write_encoded(&mut self) -> Result<()> {
        loop {
            match self.encoder.receive_packet() {
                Ok(packet) => self.write(&packet.data)?,
                // A frame for later ones to refer to.
                Err(EncoderStatus::Encoded) => {}
                Err(EncoderStatus::NeedMoreData | EncoderStatus::LimitReached) => return Ok(()),
                Err(fault) => return Err(Error::other(fault)),
            }
        }
    }

    /// Writes the units of a frame.
    fn write(&mut self, packet: &[u8]) -> Result<()> {
        let mut size = 0;
        for (kind, unit) in units::units(packet)? {
            match kind {
                units::TEMPORAL_DELIMITER => continue,
                units::SEQUENCE_HEADER => {
                    self.keys.push(self.sizes.len() as u32 + 1);
                    self.sequence = unit.to_vec();
                }
                _ => {}
            }
            self.out.write_all(unit)?;
            size += unit.len();
        }
        self.sizes.push(u32::try_from(size).map_err(Error::other)?);
        self.bytes += size as u64;
        Ok(())
    }

    /// Writes the last frames and the tables, and how long the data are.
    pub(in crate::output) fn finish(mut self) -> Result<W> {
        self.encoder.send_frame(None).map_err(Error::other)?;
        self.write_encoded()?;
        if self.sizes.len() != self.frames {
            let (found, expected) = (self.sizes.len(), self.frames);
            let fault = format!("the encoder returned {found} frames of {expected}");
            return Err(Error::other(fault));
        }
        let before = boxes::file_type().len() as u64;
        let data_header = boxes::data_header(self.bytes);
        let mut decoder = self.encoder.container_sequence_header();
        decoder.extend(&self.sequence);
        let (timescale, ticks) = self.times;
        let tables = boxes::movie(&Track {
            shown: self.shown,
            coded: self.coded,
            timescale,
            ticks,
            sizes: &self.sizes,
            keys: &self.keys,
            start: before as u32 + data_header.len() as u32,
            decoder: &decoder,
            colours: [
                COLOURS.color_primaries as u16,
                COLOURS.transfer_characteristics as u16,
                COLOURS.matrix_coefficients as u16,
            ],
        });
        self.out.write_all(&tables)?;
        self.out.seek(SeekFrom::Start(before))?;
        self.out.write_all(&data_header)?;
        self.out.flush()?;
        Ok(self.out)
    }
}
