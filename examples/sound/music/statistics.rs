//! Statistics of chorales beside those of the corpus.

use aigc_core::{
    music::{
        CopyIndex, Parallels, VOICES, VoiceGrid, parallels, pitch_class_distance, pitch_classes,
        repeats,
    },
    rng::Rng,
};

/// Draws of the bootstrap.
const DRAWS: usize = 2000;

/// Names of the statistics of a [`Summary`].
pub(crate) const NAMES: [&str; 5] = [
    "pitch-class distance",
    "repeated notes, %",
    "parallel fifths per 100 chords",
    "parallel octaves per 100 chords",
    "longest copy, beats",
];

/// A value for each of [`NAMES`].
pub(crate) type Summary = [f64; NAMES.len()];

/// The training pieces, which all pieces are compared with.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    /// Shares of the pitch classes above the last note of the bass.
    classes: [f64; 12],
    copies: CopyIndex,
    steps_per_beat: f64,
}

/// What is counted of a piece.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Number of notes of each pitch class, in the key that fits the reference best.
    classes: [f64; 12],
    /// Notes from the second step on, and how many of them repeat the one before.
    notes: f64,
    repeated: f64,
    parallels: Parallels,
    copied_beats: f64,
}

impl Facts {
    /// Length of the longest copy of a training piece, in quarters.
    pub(crate) fn copied_beats(&self) -> f64 {
        self.copied_beats
    }
}

fn pitches(piece: &VoiceGrid) -> impl Iterator<Item = u8> {
    piece.steps.iter().flatten().flatten().copied()
}

fn rotated(classes: &[f64; 12], by: usize) -> [f64; 12] {
    std::array::from_fn(|class| classes[(class + by) % 12])
}

fn shares(counts: &[f64; 12]) -> [f64; 12] {
    let sum: f64 = counts.iter().sum();
    counts.map(|count| if sum > 0.0 { count / sum } else { 0.0 })
}

impl Reference {
    /// The reference of training pieces with so many steps per quarter.
    pub(crate) fn new(training: &[VoiceGrid], steps_per_beat: f64) -> Self {
        let mut classes = [0.0; 12];
        for piece in training {
            let last = piece.steps.iter().rev().find_map(|step| step[VOICES - 1]);
            let by = usize::from(last.unwrap_or(0) % 12);
            for pitch in pitches(piece) {
                classes[(usize::from(pitch % 12) + 12 - by) % 12] += 1.0;
            }
        }
        Self {
            classes: shares(&classes),
            copies: CopyIndex::new(training),
            steps_per_beat,
        }
    }

    /// Counts a piece. Copies are looked for in all transpositions.
    pub(crate) fn facts(&self, piece: &VoiceGrid) -> Facts {
        let own = pitch_classes(pitches(piece));
        let distance = |by: &usize| pitch_class_distance(&rotated(&own, *by), &self.classes);
        let best = (0..12).min_by(|a, b| distance(a).total_cmp(&distance(b)));
        let count = pitches(piece).count() as f64;
        let later = piece.steps.iter().skip(1).flatten().flatten().count() as f64;
        let copied = self.copies.longest_transposed(piece).len as f64;
        Facts {
            classes: rotated(&own, best.unwrap_or(0)).map(|share| share * count),
            notes: later,
            repeated: repeats(std::slice::from_ref(piece)) * later,
            parallels: parallels(std::slice::from_ref(piece)),
            copied_beats: copied / self.steps_per_beat,
        }
    }

    /// The statistics of several pieces together.
    pub(crate) fn summary<'a>(&self, pieces: impl Iterator<Item = &'a Facts>) -> Summary {
        let mut classes = [0.0; 12];
        let (mut notes, mut repeated, mut copied) = (0.0, 0.0, 0f64);
        let mut found = Parallels::default();
        for piece in pieces {
            for (sum, count) in classes.iter_mut().zip(piece.classes) {
                *sum += count;
            }
            notes += piece.notes;
            repeated += piece.repeated;
            copied = copied.max(piece.copied_beats);
            found.changes += piece.parallels.changes;
            found.fifths += piece.parallels.fifths;
            found.octaves += piece.parallels.octaves;
        }
        let [fifths, octaves] = found.per_100();
        [
            pitch_class_distance(&shares(&classes), &self.classes),
            100.0 * repeated / notes.max(1.0),
            fifths,
            octaves,
            copied,
        ]
    }

    /// For each statistic the interval that 95 % of bootstrap samples of the pieces lie in.
    pub(crate) fn intervals(&self, pieces: &[Facts], seed: u64) -> [(f64, f64); NAMES.len()] {
        let mut rng = Rng::stream(seed, "music/bootstrap", 0);
        let mut draw = || {
            let chosen = (0..pieces.len()).map(|_| &pieces[rng.random_index(pieces.len())]);
            self.summary(chosen)
        };
        let drawn: Vec<Summary> = (0..DRAWS).map(|_| draw()).collect();
        std::array::from_fn(|index| {
            let mut values: Vec<f64> = drawn.iter().map(|summary| summary[index]).collect();
            values.sort_by(f64::total_cmp);
            let at = |share: f64| values[(share * (DRAWS - 1) as f64).round() as usize];
            (at(0.025), at(0.975))
        })
    }
}

/// A table of the statistics of new pieces, beside those of the corpus and their intervals.
pub(crate) fn table(
    new: &Summary,
    corpus: &Summary,
    intervals: &[(f64, f64); NAMES.len()],
) -> String {
    let mut lines = format!(
        "{:34} {:>8} {:>8}   {}\n",
        "", "new", "corpus", "95 % interval of the corpus"
    );
    for (index, name) in NAMES.iter().enumerate() {
        let (low, high) = intervals[index];
        let value = new[index];
        let within = (low..=high).contains(&value);
        lines += &format!(
            "{name:34} {value:8.3} {:8.3}   {low:.3} to {high:.3}{}\n",
            corpus[index],
            if within { "" } else { "  (outside)" }
        );
    }
    lines
}
