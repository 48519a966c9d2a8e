//! A-law and mu-law of telephony (ITU-T G.711): eight bits for a sign, an exponent of three bits
//! and a fraction of four.

/// What is added before the logarithm of mu-law, in steps of 16 bits.
const MU_LAW_BIAS: i16 = 132;

/// The value of a byte of A-law, in steps of 16 bits.
pub(super) fn a_law(byte: u8) -> i16 {
    // Every other bit is stored inverted.
    let bits = byte ^ 0x55;
    let (exponent, fraction) = ((bits >> 4) & 7, i16::from(bits & 15) << 4);
    let size = match exponent {
        0 => fraction + 8,
        _ => (fraction + 264) << (exponent - 1),
    };
    if bits & 0x80 == 0 { -size } else { size }
}

/// The value of a byte of mu-law, in steps of 16 bits.
pub(super) fn mu_law(byte: u8) -> i16 {
    // All bits are stored inverted.
    let bits = !byte;
    let (exponent, fraction) = ((bits >> 4) & 7, i16::from(bits & 15) << 3);
    let size = ((fraction + MU_LAW_BIAS) << exponent) - MU_LAW_BIAS;
    if bits & 0x80 == 0 { size } else { -size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_middles_are_those_of_the_standard() {
        let cases = [
            (0x00, -32_124),
            (0x80, 32_124),
            (0xff, 0),
            (0x7f, 0),
            (0xfe, 8),
        ];
        for (byte, value) in cases {
            assert_eq!(mu_law(byte), value, "{byte:#x}");
        }
        let cases = [
            (0x2a, -32_256),
            (0xaa, 32_256),
            (0xd5, 8),
            (0x55, -8),
            (0xd4, 24),
        ];
        for (byte, value) in cases {
            assert_eq!(a_law(byte), value, "{byte:#x}");
        }
    }

    #[test]
    fn values_grow_with_their_codes() {
        let (mut a, mut mu): (Vec<i16>, Vec<i16>) = (0..128u8)
            .map(|code| (a_law((code | 0x80) ^ 0x55), mu_law(!code)))
            .unzip();
        assert!(a.is_sorted() && mu.is_sorted());
        a.dedup();
        mu.dedup();
        assert_eq!((a.len(), mu.len()), (128, 128));
    }
}
