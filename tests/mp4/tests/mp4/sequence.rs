//! A reader of the units of an AV1 stream, and of the one that describes it (AV1 specification,
//! sections 5.3 and 5.5).

/// Kinds and bytes of the units of a frame.
pub(crate) fn units(sample: &[u8]) -> Vec<(u8, &[u8])> {
    let mut rest = sample;
    let mut units = vec![];
    while !rest.is_empty() {
        let (start, length) = content(rest);
        let (unit, behind) = rest.split_at(start + length);
        units.push(((unit[0] >> 3) & 15, unit));
        rest = behind;
    }
    units
}

/// Where the content of the first unit begins, and its length.
fn content(unit: &[u8]) -> (usize, usize) {
    // Neither forbidden bit nor extension, but a length.
    assert_eq!(unit[0] & 0b1000_0111, 0b010);
    let digits = unit[1..].iter().take_while(|byte| **byte >= 128).count() + 1;
    let length = unit[1..=digits]
        .iter()
        .rev()
        .fold(0, |length, byte| (length << 7) | usize::from(byte & 127));
    (1 + digits, length)
}

/// What a stream is.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) profile: u8,
    pub(crate) level: u8,
    pub(crate) tier: u8,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) high_bit_depth: u8,
    pub(crate) monochrome: u8,
    /// Primaries, transfer function, matrix.
    pub(crate) colours: [u8; 3],
    pub(crate) full_range: u8,
    pub(crate) chroma_position: u8,
}

impl Sequence {
    /// Reads a unit. Of the choices that a stream has, those are read that this encoder makes.
    pub(crate) fn read(unit: &[u8]) -> Self {
        let (start, length) = content(unit);
        assert_eq!(unit.len(), start + length);
        let mut bits = Bits {
            bytes: &unit[start..],
            at: 0,
        };
        let profile = bits.byte(3);
        assert_eq!(profile, 0);
        // Neither a still picture, nor times, nor delays, one operating point.
        assert_eq!(bits.read(2 + 1 + 1 + 5 + 12), 0);
        let level = bits.byte(5);
        let tier = if level > 7 { bits.byte(1) } else { 0 };
        let (width, height) = (bits.read(4) + 1, bits.read(4) + 1);
        let (width, height) = (bits.read(width) + 1, bits.read(height) + 1);
        // No numbers of frames; superblocks, two filters, four tools of prediction.
        assert_eq!(bits.read(1), 0);
        bits.read(1 + 2 + 4);
        let has_order = bits.read(1) == 1;
        if has_order {
            bits.read(2);
        }
        let screen_content = bits.read(1) == 1 || bits.read(1) == 1;
        if screen_content && bits.read(1) == 0 {
            bits.read(1);
        }
        if has_order {
            bits.read(3);
        }
        // Resolution, two filters.
        bits.read(3);
        let (high_bit_depth, monochrome) = (bits.byte(1), bits.byte(1));
        assert_eq!(bits.read(1), 1, "no description of colours");
        let colours = [bits.byte(8), bits.byte(8), bits.byte(8)];
        let (full_range, chroma_position) = (bits.byte(1), bits.byte(2));
        // Quantizers of colours; no film grain; the bit that ends the unit.
        bits.read(1);
        assert_eq!(bits.read(2), 0b01);
        Self {
            profile,
            level,
            tier,
            width,
            height,
            high_bit_depth,
            monochrome,
            colours,
            full_range,
            chroma_position,
        }
    }
}

/// Bits, the highest of a byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn read(&mut self, count: u32) -> u32 {
        (0..count).fold(0, |value, _| {
            let bit = (self.bytes[self.at / 8] >> (7 - self.at % 8)) & 1;
            self.at += 1;
            (value << 1) | u32::from(bit)
        })
    }

    fn byte(&mut self, count: u32) -> u8 {
        self.read(count) as u8
    }
}
