//! Boxes of MP4 files (ISO/IEC 14496-12) with AV1 (AV1 Codec ISO Media File Format Binding).

/// What the tables at the end of a file say about it.
#[derive(Debug)]
pub(super) struct Track<'a> {
    /// Width and height that are shown.
    pub(super) shown: (u32, u32),
    /// Width and height of the encoded frames.
    pub(super) coded: (u32, u32),
    /// Ticks in a second.
    pub(super) timescale: u32,
    /// Ticks that a frame lasts.
    pub(super) ticks: u32,
    /// Bytes of every frame.
    pub(super) sizes: &'a [u32],
    /// Numbers of the key frames, from 1.
    pub(super) keys: &'a [u32],
    /// Where the first frame begins in the file.
    pub(super) start: u32,
    /// The decoder's configuration.
    pub(super) decoder: &'a [u8],
    /// Codes of primaries, transfer function and matrix (ITU-T H.273).
    pub(super) colours: [u16; 3],
}

/// Units of the three axes.
const MATRIX: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];

/// What kind of file it is.
pub(super) fn file_type() -> Vec<u8> {
    let version = 512u32.to_be_bytes();
    let brands = [*b"isom", version, *b"isom", *b"iso6", *b"av01", *b"mp41"];
    boxed(b"ftyp", &brands.concat())
}

/// What stands before `bytes` bytes of frames. Its length does not depend on theirs.
pub(super) fn data_header(bytes: u64) -> Vec<u8> {
    let mut header = words(&[1]);
    header.extend(b"mdat");
    header.extend((16 + bytes).to_be_bytes());
    header
}

/// The tables.
pub(super) fn movie(track: &Track<'_>) -> Vec<u8> {
    let header = [
        longs(&[0, 0]),
        words(&[track.timescale]),
        longs(&[track.duration()]),
        // Normal speed, full volume.
        words(&[0x1_0000, 0x100_0000, 0, 0]),
        words(&MATRIX),
        words(&[0; 6]),
        // The number of the next track.
        words(&[2]),
    ];
    let header = versioned(b"mvhd", 1, 0, &header.concat());
    let tracks = boxed(b"trak", &[track.header(), track.media()].concat());
    boxed(b"moov", &[header, tracks].concat())
}

impl Track<'_> {
    fn duration(&self) -> u64 {
        self.sizes.len() as u64 * u64::from(self.ticks)
    }

    fn header(&self) -> Vec<u8> {
        let (width, height) = self.shown;
        let content = [
            longs(&[0, 0]),
            // The number of the track.
            words(&[1, 0]),
            longs(&[self.duration(), 0, 0]),
            words(&MATRIX),
            words(&[width << 16, height << 16]),
        ];
        // The track is enabled, and part of the presentation.
        versioned(b"tkhd", 1, 3, &content.concat())
    }

    fn media(&self) -> Vec<u8> {
        let times = [
            longs(&[0, 0]),
            words(&[self.timescale]),
            longs(&[self.duration()]),
            // "und": no language.
            shorts(&[0x55c4, 0]),
        ];
        let handler = [
            words(&[0]),
            b"vide".to_vec(),
            words(&[0; 3]),
            b"video\0".to_vec(),
        ];
        // The frames are in this file.
        let location = versioned(b"url ", 0, 1, &[]);
        let locations = versioned(b"dref", 0, 0, &[words(&[1]), location].concat());
        let information = [
            versioned(b"vmhd", 0, 1, &[0; 8]),
            boxed(b"dinf", &locations),
            self.samples(),
        ];
        let content = [
            versioned(b"mdhd", 1, 0, &times.concat()),
            versioned(b"hdlr", 0, 0, &handler.concat()),
            boxed(b"minf", &information.concat()),
        ];
        boxed(b"mdia", &content.concat())
    }

    /// Where frames are, and how long each lasts. All of them are one chunk.
    fn samples(&self) -> Vec<u8> {
        let count = self.sizes.len() as u32;
        let keys = [words(&[self.keys.len() as u32]), words(self.keys)];
        let sizes = [words(&[0, count]), words(self.sizes)];
        let description = [words(&[1]), self.description()];
        let content = [
            versioned(b"stsd", 0, 0, &description.concat()),
            versioned(b"stts", 0, 0, &words(&[1, count, self.ticks])),
            versioned(b"stss", 0, 0, &keys.concat()),
            versioned(b"stsc", 0, 0, &words(&[1, 1, count, 1])),
            versioned(b"stsz", 0, 0, &sizes.concat()),
            versioned(b"stco", 0, 0, &words(&[1, self.start])),
        ];
        boxed(b"stbl", &content.concat())
    }

    /// How frames are encoded.
    fn description(&self) -> Vec<u8> {
        let (width, height) = self.coded;
        let mut name = [0u8; 32];
        name[..11].copy_from_slice(b"\x0aAOM Coding");
        let mut content = [
            // The first location.
            shorts(&[0, 0, 0, 1, 0, 0]),
            words(&[0; 3]),
            shorts(&[width as u16, height as u16]),
            // 72 pixels an inch.
            words(&[0x48_0000, 0x48_0000, 0]),
            shorts(&[1]),
            name.to_vec(),
            // 24 bits a pixel, no table of colours.
            shorts(&[24, 0xffff]),
        ]
        .concat();
        content.extend(boxed(b"av1C", self.decoder));
        let mut colours = b"nclx".to_vec();
        colours.extend(shorts(&self.colours));
        // Limited range.
        colours.push(0);
        content.extend(boxed(b"colr", &colours));
        if self.shown != self.coded {
            content.extend(boxed(b"clap", &self.aperture()));
        }
        // Square pixels.
        content.extend(boxed(b"pasp", &words(&[1, 1])));
        boxed(b"av01", &content)
    }

    /// The part of the encoded frames that is shown: its size, and how far its centre is from
    /// theirs, as fractions.
    fn aperture(&self) -> Vec<u8> {
        let (width, height) = self.shown;
        let right = width.wrapping_sub(self.coded.0);
        let down = height.wrapping_sub(self.coded.1);
        words(&[width, 1, height, 1, right, 2, down, 2])
    }
}

/// A box. With fewer than 2²⁸ frames, none that is built here has 4 GiB.
fn boxed(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let mut bytes = words(&[8 + content.len() as u32]);
    bytes.extend(kind);
    bytes.extend(content);
    bytes
}

/// A box with a version and flags.
fn versioned(kind: &[u8; 4], version: u8, flags: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![version, 0, 0, flags];
    bytes.extend(content);
    boxed(kind, &bytes)
}

fn shorts(values: &[u16]) -> Vec<u8> {
    values.iter().copied().flat_map(u16::to_be_bytes).collect()
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().copied().flat_map(u32::to_be_bytes).collect()
}

fn longs(values: &[u64]) -> Vec<u8> {
    values.iter().copied().flat_map(u64::to_be_bytes).collect()
}
