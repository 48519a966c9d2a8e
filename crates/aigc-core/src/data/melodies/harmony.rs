//! Keys, chords, and voices that follow them.

/// Semitones of the steps of the major scale above its tonic.
const MAJOR: [u8; 7] = [0, 2, 4, 5, 7, 9, 11];
/// The same of the natural minor scale.
const MINOR: [u8; 7] = [0, 2, 3, 5, 7, 8, 10];

/// Lowest pitch of the bass.
const BASS: u8 = 40;
/// Lowest pitch of the two voices between bass and melody.
const MIDDLE: u8 = 50;

/// A key: its tonic and its scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Pitch class of the tonic: 0 is C.
    pub tonic: u8,
    /// Whether the scale is minor.
    pub minor: bool,
}

/// A triad on a step of the scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Chord {
    /// The step of its root, from 0 for the tonic; 4 is the dominant.
    pub degree: u8,
}

impl Chord {
    /// On the first step.
    pub const TONIC: Self = Self { degree: 0 };
    /// On the fifth step.
    pub const DOMINANT: Self = Self { degree: 4 };

    /// The steps of its root, third and fifth, 0 to 6.
    pub fn degrees(self) -> [u8; 3] {
        [0, 2, 4].map(|above| (self.degree % 7 + above) % 7)
    }
}

impl Key {
    /// The pitch of a step of the scale; step 0 is the tonic between 58 and 69. Under the dominant
    /// of a minor key, the seventh step is raised.
    pub(super) fn pitch(self, step: i32, chord: Chord) -> u8 {
        let scale = if self.minor { MINOR } else { MAJOR };
        let within = step.rem_euclid(7) as usize;
        let raised = self.minor && within == 6 && chord == Chord::DOMINANT;
        let tonic = 58 + (self.tonic % 12 + 2) % 12;
        let pitch = i32::from(tonic)
            + 12 * step.div_euclid(7)
            + i32::from(scale[within])
            + i32::from(raised);
        u8::try_from(pitch).expect("melodies stay within two octaves")
    }

    /// Pitch classes of a chord: root, third, fifth.
    pub fn pitch_classes(self, chord: Chord) -> [u8; 3] {
        chord
            .degrees()
            .map(|step| self.pitch(i32::from(step), chord) % 12)
    }
}

/// Alto, tenor and bass of each chord. The bass has the root; the two others have third and fifth,
/// in the order that moves them least.
pub(super) fn voicings(key: Key, chords: &[Chord]) -> Vec<[u8; 3]> {
    let mut before: Option<[u8; 2]> = None;
    let each = chords.iter().map(|chord| {
        let [root, third, fifth] = key.pitch_classes(*chord);
        let (third, fifth) = (above(MIDDLE, third), above(MIDDLE, fifth));
        let mut pair = [third.max(fifth), third.min(fifth)];
        if let Some([alto, tenor]) = before {
            // The higher one may also go below the lower one, or the other way round.
            let others = [pair, [pair[0] - 12, pair[1]], [pair[0], pair[1] + 12]];
            let moved = |[a, b]: [u8; 2]| {
                let (high, low) = (a.max(b), a.min(b));
                high.abs_diff(alto) + low.abs_diff(tenor)
            };
            let sounding = others
                .into_iter()
                .filter(|pair| pair.iter().all(|p| *p >= 48));
            pair = sounding.min_by_key(|pair| moved(*pair)).unwrap_or(pair);
            pair = [pair[0].max(pair[1]), pair[0].min(pair[1])];
        }
        before = Some(pair);
        [pair[0], pair[1], above(BASS, root)]
    });
    each.collect()
}

/// The lowest pitch of a class that is not below `lowest`.
fn above(lowest: u8, class: u8) -> u8 {
    lowest + (class + 12 - lowest % 12) % 12
}
