//! SentencePiece's model file: the protocol-buffer message `ModelProto`.
//!
//! Every length is checked against the bytes that are left, and values are borrowed from the file,
//! so reading takes no more memory than the pieces.

use std::str::from_utf8;

/// Limit on the number of pieces; the largest published models have 256,000.
const MOST_PIECES: usize = 1 << 21;

/// The parts of a model file that a tokenizer needs.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ModelProto<'a> {
    pub(super) pieces: Vec<Piece<'a>>,
    pub(super) trainer: Option<TrainerSpec>,
    pub(super) normalizer: Option<NormalizerSpec<'a>>,
}

/// A token, and its log-probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Piece<'a> {
    pub(super) text: &'a str,
    pub(super) score: f32,
    pub(super) kind: PieceKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceKind {
    /// A piece of text; also unused pieces and single bytes.
    Normal,
    Unknown,
    Control,
    UserDefined,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TrainerSpec {
    /// 1 for the unigram model.
    pub(super) model_type: u64,
    pub(super) byte_fallback: bool,
    pub(super) unk_id: i32,
    /// −1 if there is no token for padding.
    pub(super) pad_id: i32,
    pub(super) eos_id: i32,
}

/// The defaults of SentencePiece.
impl Default for TrainerSpec {
    fn default() -> Self {
        Self {
            model_type: 1,
            byte_fallback: false,
            unk_id: 0,
            pad_id: -1,
            eos_id: 2,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NormalizerSpec<'a> {
    pub(super) precompiled_charsmap: &'a [u8],
}

impl<'a> ModelProto<'a> {
    /// Reads a file. The error says what is wrong, and at which byte.
    pub(super) fn read(file: &'a [u8]) -> Result<Self, String> {
        let mut model = Self::default();
        let mut fields = Fields::new(file);
        while let Some(field) = fields.next()? {
            match field.number {
                1 if model.pieces.len() == MOST_PIECES => {
                    return Err(format!("more than {MOST_PIECES} pieces"));
                }
                1 => {
                    let piece = Piece::read(field.message()?)?;
                    model.pieces.push(piece);
                }
                2 => {
                    let spec = model.trainer.get_or_insert_default();
                    spec.read(field.message()?)?;
                }
                3 => {
                    let spec = model.normalizer.get_or_insert_default();
                    spec.read(field.message()?)?;
                }
                _ => {}
            }
        }
        Ok(model)
    }
}

impl<'a> Piece<'a> {
    fn read(mut fields: Fields<'a>) -> Result<Self, String> {
        let at = fields.at;
        let mut piece = Self {
            text: "",
            score: 0.0,
            kind: PieceKind::Normal,
        };
        while let Some(field) = fields.next()? {
            match field.number {
                1 => {
                    piece.text = from_utf8(field.bytes()?)
                        .map_err(|error| format!("a piece at byte {at}: {error}"))?;
                }
                2 => piece.score = f32::from_bits(field.fixed32()?),
                3 => {
                    piece.kind = match field.varint()? {
                        2 => PieceKind::Unknown,
                        3 => PieceKind::Control,
                        4 => PieceKind::UserDefined,
                        _ => PieceKind::Normal,
                    }
                }
                _ => {}
            }
        }
        if piece.text.is_empty() || !piece.score.is_finite() {
            return Err(format!(
                "the piece at byte {at} is {:?} with the score {}",
                piece.text, piece.score
            ));
        }
        Ok(piece)
    }
}

impl TrainerSpec {
    fn read(&mut self, mut fields: Fields<'_>) -> Result<(), String> {
        while let Some(field) = fields.next()? {
            match field.number {
                3 => self.model_type = field.varint()?,
                35 => self.byte_fallback = field.varint()? != 0,
                // Negative numbers are 64-bit varints, of which the lower half counts.
                40 => self.unk_id = field.varint()? as i32,
                42 => self.eos_id = field.varint()? as i32,
                43 => self.pad_id = field.varint()? as i32,
                _ => {}
            }
        }
        Ok(())
    }
}

impl<'a> NormalizerSpec<'a> {
    fn read(&mut self, mut fields: Fields<'a>) -> Result<(), String> {
        while let Some(field) = fields.next()? {
            if field.number == 2 {
                self.precompiled_charsmap = field.bytes()?;
            }
        }
        Ok(())
    }
}

/// The fields of a message, one after the other.
struct Fields<'a> {
    rest: &'a [u8],
    /// Position of `rest` in the file, for errors.
    at: usize,
}

/// A field of a message.
struct Field<'a> {
    number: u64,
    value: Value<'a>,
    /// Position of the value in the file.
    at: usize,
}

enum Value<'a> {
    Varint(u64),
    Fixed64,
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Fields<'a> {
    fn new(file: &'a [u8]) -> Self {
        Self { rest: file, at: 0 }
    }

    fn next(&mut self) -> Result<Option<Field<'a>>, String> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = tag >> 3;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Value::Fixed32(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
            }
            other => {
                return Err(format!(
                    "field {number} at byte {} has the unknown type {other}",
                    self.at
                ));
            }
        };
        let at = match value {
            Value::Bytes(bytes) => self.at - bytes.len(),
            _ => self.at,
        };
        Ok(Some(Field { number, value, at }))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], String> {
        let left = self.rest.len();
        let Some(length) = usize::try_from(length).ok().filter(|n| *n <= left) else {
            return Err(format!(
                "truncated: {length} bytes expected at byte {}, {left} are left",
                self.at
            ));
        };
        let (bytes, rest) = self.rest.split_at(length);
        self.rest = rest;
        self.at += length;
        Ok(bytes)
    }

    /// A number of up to 64 bits, seven in each byte, the lowest first.
    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(format!("a number of more than 64 bits at byte {}", self.at))
    }
}

impl<'a> Field<'a> {
    fn wrong<T>(&self, expected: &str) -> Result<T, String> {
        let found = match self.value {
            Value::Varint(_) => "an integer",
            Value::Fixed64 => "64 bits",
            Value::Bytes(_) => "bytes",
            Value::Fixed32(_) => "32 bits",
        };
        Err(format!(
            "field {} at byte {} is {found}, expected {expected}",
            self.number, self.at
        ))
    }

    fn varint(&self) -> Result<u64, String> {
        match self.value {
            Value::Varint(value) => Ok(value),
            _ => self.wrong("an integer"),
        }
    }

    fn fixed32(&self) -> Result<u32, String> {
        match self.value {
            Value::Fixed32(value) => Ok(value),
            _ => self.wrong("32 bits"),
        }
    }

    fn bytes(&self) -> Result<&'a [u8], String> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => self.wrong("bytes"),
        }
    }

    fn message(&self) -> Result<Fields<'a>, String> {
        Ok(Fields {
            rest: self.bytes()?,
            at: self.at,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A field of bytes.
    pub(in super::super) fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
        let mut field = vec![number << 3 | 2];
        let mut length = value.len();
        while length > 0x7f {
            field.push(length as u8 | 0x80);
            length >>= 7;
        }
        field.push(length as u8);
        field.extend(value);
        field
    }

    /// A piece: 1 for a normal one, 2 unknown, 3 control, 4 user-defined, 6 a byte.
    pub(in super::super) fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
        let score = [&[2 << 3 | 5][..], &score.to_le_bytes()].concat();
        bytes(
            1,
            &[bytes(1, text.as_bytes()), score, vec![3 << 3, kind]].concat(),
        )
    }

    /// A model with the table `charsmap`: padding, end, unknown, a mark and letters.
    pub(in super::super) fn model(charsmap: &[u8]) -> Vec<u8> {
        let trainer = [3 << 3, 1, 0xc0, 2, 2, 0xd0, 2, 1, 0xd8, 2, 0];
        let pieces = [
            piece("<pad>", 0.0, 3),
            piece("</s>", 0.0, 3),
            piece("<unk>", 0.0, 2),
            piece("▁", -3.0, 1),
            piece("a", -2.0, 1),
            piece("▁a", -1.0, 1),
            piece("é", -2.5, 1),
            piece("<new>", 0.0, 4),
        ];
        let normalizer = [bytes(1, b"identity"), bytes(2, charsmap)].concat();
        [pieces.concat(), bytes(2, &trainer), bytes(3, &normalizer)].concat()
    }

    #[test]
    fn fields_are_read_and_unknown_ones_skipped() {
        let mut file = model(b"table");
        let unknown = [
            bytes(9, b"later"),
            vec![10 << 3, 0x96, 1],
            vec![11 << 3 | 1, 0, 1, 2, 3, 4, 5, 6, 7],
        ];
        file.extend(unknown.concat());
        let read = ModelProto::read(&file).unwrap();
        assert_eq!(read.pieces.len(), 8);
        let expected = Piece {
            text: "▁a",
            score: -1.0,
            kind: PieceKind::Normal,
        };
        assert_eq!(read.pieces[5], expected);
        assert_eq!(read.pieces[1].kind, PieceKind::Control);
        let trainer = read.trainer.unwrap();
        assert_eq!((trainer.unk_id, trainer.eos_id, trainer.pad_id), (2, 1, 0));
        assert_eq!(read.normalizer.unwrap().precompiled_charsmap, b"table");
        // −1 as ten bytes.
        let minus = [&[0xd8, 2][..], &[0xff; 9], &[1]].concat();
        let read = bytes(2, &minus);
        let read = ModelProto::read(&read).unwrap().trainer.unwrap();
        assert_eq!(read.pad_id, -1);
    }

    /// Every file cut short either ends between two fields, or is an error that says so.
    #[test]
    fn truncated_files_are_refused() {
        let file = model(b"table");
        let whole = ModelProto::read(&file).unwrap();
        let mut between = 0;
        for length in 0..file.len() {
            match ModelProto::read(&file[..length]) {
                Err(reason) => assert!(reason.contains("at byte"), "{length}: {reason}"),
                Ok(part) => {
                    between += 1;
                    assert!(part.normalizer.is_none(), "{length}");
                    assert!(whole.pieces.starts_with(&part.pieces), "{length}");
                }
            }
        }
        // No field, then after each of eight pieces and the trainer's.
        assert_eq!(between, 10);
    }

    #[test]
    fn lying_files_are_refused() {
        let error = |file: &[u8]| ModelProto::read(file).unwrap_err();
        let huge = [&[1 << 3 | 2][..], &[0xff; 9], &[1]].concat();
        let message = error(&huge);
        let expected = "truncated: 18446744073709551615 bytes expected at byte 11, 0 are left";
        assert_eq!(message, expected);
        assert!(error(&[0xff; 11]).contains("more than 64 bits"));
        // Groups, which protocol buffers no longer have.
        assert!(error(&[1 << 3 | 3]).contains("unknown type 3"));
        assert!(error(&[1 << 3, 5]).contains("is an integer, expected bytes"));
        let inner = bytes(1, &[1 << 3 | 2, 9, b'a']);
        assert!(error(&inner).contains("9 bytes expected at byte 4, 1 are left"));
        let wrong = bytes(1, &bytes(1, &[0xff]));
        assert!(error(&wrong).contains("a piece at byte 2: invalid utf-8"));
        assert!(error(&bytes(1, &[])).contains("is \"\" with the score 0"));
        assert!(error(&piece("a", f32::NAN, 1)).contains("with the score NaN"));
    }
}
