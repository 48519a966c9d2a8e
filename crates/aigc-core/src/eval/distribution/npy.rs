//! Arrays in numpy's `.npy` format, versions 1 to 3, little-endian
//! (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).

use crate::DataFault;
use std::io::{self, Read};

/// Longest header of an array.
const LONGEST_HEADER: usize = 65_536;

/// Type of the elements of an array.
#[derive(Clone, Copy)]
enum Element {
    F32,
    F64,
    I64,
}

/// What the header of an array says.
pub(super) struct Header {
    element: Element,
    pub(super) shape: Vec<usize>,
}

impl Header {
    pub(super) fn read(input: &mut impl Read) -> std::result::Result<Self, DataFault> {
        let broken = |error: io::Error| DataFault::BadHeader(error.to_string());
        let mut start = [0; 8];
        input.read_exact(&mut start).map_err(broken)?;
        if !start.starts_with(b"\x93NUMPY") {
            return Err(DataFault::WrongMagic {
                found: u32::from_be_bytes([start[0], start[1], start[2], start[3]]),
                expected: "0x93 \"NUMPY\"",
            });
        }
        let length = match start[6] {
            1 => {
                let mut bytes = [0; 2];
                input.read_exact(&mut bytes).map_err(broken)?;
                usize::from(u16::from_le_bytes(bytes))
            }
            2 | 3 => {
                let mut bytes = [0; 4];
                input.read_exact(&mut bytes).map_err(broken)?;
                u32::from_le_bytes(bytes) as usize
            }
            version => {
                let fault = format!("version {version} of the .npy format");
                return Err(DataFault::BadHeader(fault));
            }
        };
        if length > LONGEST_HEADER {
            return Err(DataFault::BadHeader(format!("{length} bytes long")));
        }
        let mut text = vec![0; length];
        input.read_exact(&mut text).map_err(broken)?;
        let text = String::from_utf8_lossy(&text);
        Self::parse(&text).ok_or_else(|| DataFault::BadHeader(text.trim_end().to_owned()))
    }

    /// Of a Python dictionary like `{'descr': '<f8', 'fortran_order': False, 'shape': (3, 3), }`.
    fn parse(text: &str) -> Option<Self> {
        let field = |key: &str| {
            let (_, rest) = text.split_once(&format!("'{key}'"))?;
            Some(rest.trim_start().strip_prefix(':')?.trim_start())
        };
        let (element, _) = field("descr")?.strip_prefix('\'')?.split_once('\'')?;
        let element = match element {
            "<f4" => Element::F32,
            "<f8" => Element::F64,
            "<i8" => Element::I64,
            _ => return None,
        };
        let (sizes, _) = field("shape")?.strip_prefix('(')?.split_once(')')?;
        let sizes = sizes.split(',').map(str::trim);
        let sizes = sizes.filter(|size| !size.is_empty());
        let shape = sizes
            .map(|size| size.parse::<usize>().ok())
            .collect::<Option<Vec<_>>>()?;
        Some(Self { element, shape })
    }

    pub(super) fn read_values(
        &self,
        input: &mut impl Read,
    ) -> std::result::Result<Vec<f64>, DataFault> {
        let size = match self.element {
            Element::F32 => 4,
            Element::F64 | Element::I64 => 8,
        };
        let expected = self.shape.iter().product::<usize>() * size;
        // The vector grows with what is read, as the header may promise more than there is.
        let (mut values, mut buffer, mut found) = (Vec::new(), [0; 8192], 0);
        while found < expected {
            let part = &mut buffer[..(expected - found).min(8192)];
            input.read_exact(part).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => DataFault::Truncated {
                    expected: expected as u64,
                    found: found as u64,
                },
                _ => DataFault::Decode(error.to_string()),
            })?;
            match self.element {
                Element::F32 => values.extend(
                    part.as_chunks::<4>()
                        .0
                        .iter()
                        .map(|bytes| f64::from(f32::from_le_bytes(*bytes))),
                ),
                Element::F64 => {
                    values.extend(
                        part.as_chunks::<8>()
                            .0
                            .iter()
                            .map(|b| f64::from_le_bytes(*b)),
                    );
                }
                Element::I64 => values.extend(
                    part.as_chunks::<8>()
                        .0
                        .iter()
                        .map(|bytes| i64::from_le_bytes(*bytes) as f64),
                ),
            }
            found += part.len();
        }
        // At the end of an entry, its checksum is compared.
        match input.read(&mut [0]) {
            Ok(0) => Ok(values),
            Ok(_) => Err(DataFault::Oversized {
                expected: expected as u64,
            }),
            Err(error) => Err(DataFault::Decode(error.to_string())),
        }
    }
}

/// The start of an array, padded so that its values start at a multiple of 64 bytes.
pub(super) fn header(element: &str, shape: &str) -> Vec<u8> {
    let text = format!("{{'descr': '{element}', 'fortran_order': False, 'shape': {shape}, }}");
    // Ten bytes before the text, and the end of the line after it.
    let padded = (10 + text.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((padded as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.resize(10 + padded - 1, b' ');
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_padded_like_numpys() {
        let bytes = header("<f8", "(2048, 2048)");
        assert_eq!((bytes.len() % 64, bytes.last()), (0, Some(&b'\n')));
        assert_eq!(usize::from(bytes[8]), bytes.len() - 10);
        let version_2 = [
            &b"\x93NUMPY\x02\x00\x40\x00\x00\x00"[..],
            format!(
                "{:<64}",
                "{'shape': (), 'fortran_order': True, 'descr': '<i8'}"
            )
            .as_bytes(),
        ]
        .concat();
        let found = Header::read(&mut &version_2[..]).unwrap();
        assert!(found.shape.is_empty() && matches!(found.element, Element::I64));
    }
}
