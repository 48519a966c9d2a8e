//! Labels in names of files.

use std::path::Path;

/// What a name of the Free Spoken Digit Dataset tells: `7_jackson_32.wav`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DigitName {
    /// The digit that is spoken, 0 to 9.
    pub digit: u8,
    /// Who speaks.
    pub speaker: String,
    /// Number of the recording.
    pub index: usize,
}

impl DigitName {
    /// Whether the recording belongs to the test set: by the rule of the data set, those with
    /// indices below 5 do.
    pub fn is_test(&self) -> bool {
        self.index < 5
    }
}

/// The parts of a name `digit_speaker_index` with any ending; `None` if it is of another form.
pub fn digit_of_name(path: &Path) -> Option<DigitName> {
    let stem = path.file_stem()?.to_str()?;
    let (digit, rest) = stem.split_once('_')?;
    let (speaker, index) = rest.rsplit_once('_')?;
    let digit = digit.parse().ok().filter(|digit| *digit < 10)?;
    Some(DigitName {
        digit,
        speaker: (!speaker.is_empty()).then(|| speaker.to_string())?,
        index: index.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_three_parts() {
        let name = |text: &str| digit_of_name(Path::new(text));
        let found = name("recordings/7_jackson_32.wav").unwrap();
        assert_eq!((found.digit, found.index, found.is_test()), (7, 32, false));
        assert_eq!(found.speaker, "jackson");
        let found = name("0_van_der_a_4.flac").unwrap();
        assert_eq!((&found.speaker[..], found.is_test()), ("van_der_a", true));
        for bad in [
            "7.wav",
            "7_jackson.wav",
            "12_a_0.wav",
            "x_a_0.wav",
            "1__0.wav",
            "1_a_b",
            "",
        ] {
            assert_eq!(name(bad), None, "{bad}");
        }
    }
}
