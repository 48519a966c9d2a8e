//! Melodies of the grammar: training, new pieces, and how well they follow the grammar.

use crate::{
    compose::{Commission, compose},
    files::write_pieces,
    melody::{self, BARS},
    model::NoteLm,
    training::{HeldOut, Job},
    windows::{Windows, with_ends},
};
use aigc_core::{
    checkpoint::RunDir,
    data::{
        Dataset,
        melodies::{Chord, Melodies, Melody},
    },
    music::{pitch_class_distance, pitch_classes},
    train::TrainOutput,
};
use aigc_examples::{after_training, outln};
use aigc_examples_sound::{SoundGallery, Speed};
use anyhow::Result;
use std::{collections::HashSet, ops::Range, time::Instant};

/// Pieces of the grammar for training.
const PIECES: usize = 10_000;
/// Pieces of the grammar to compare with.
const HELD_OUT: usize = 200;
/// Instruments of the new melodies in turn: piano, vibraphone, violin, clarinet, flute.
const PROGRAMS: [u8; 5] = [0, 11, 40, 71, 73];
/// Sixteenths of a beat.
const BEAT: usize = 4;

/// Names of the figures of pieces.
const NAMES: [&str; 9] = [
    "first tones that belong to the chord, %",
    "cadences as in the grammar, %",
    "answers that begin as the statement, %",
    "answers that come again, %",
    "last tones on the tonic, %",
    "repeated tones, %",
    "tones of a bar",
    "semitones between tones",
    "pitch-class distance",
];

/// Trains on melodies and writes new ones.
///
/// # Errors
/// Errors of settings, training and files.
pub(crate) fn run(mut job: Job<'_>) -> Result<()> {
    let seed = job.settings.trainer.seed;
    let model = job.settings.model.clone();
    job.settings.data.fingerprint = format!("grammar of melodies, {PIECES} pieces of seed {seed}");
    let grammar = Melodies::new(PIECES + HELD_OUT, seed)?;
    let all = (0..grammar.len()).map(|index| grammar.get(index));
    let mut learned = all.collect::<aigc_core::Result<Vec<Melody>>>()?;
    let held_out = learned.split_off(PIECES);
    let tokens = |piece: &Melody| with_ends(model.notation, melody::encode(piece));
    let known: Vec<Vec<Vec<u32>>> = learned.iter().map(|piece| vec![tokens(piece)]).collect();
    let titles: HashSet<Vec<u32>> = known.iter().flatten().cloned().collect();
    let evaluated: Vec<Vec<u32>> = held_out.iter().map(tokens).collect();
    let windows = Windows::new(model.notation, known, model.n_positions, seed)?;
    let units = HeldOut {
        pieces: &evaluated,
        units: evaluated.iter().map(|piece| piece.len() - 2).sum(),
        name: "nats a token of held-out melodies",
    };
    let (trained, run) = job.train(windows, units)?;
    after_training(trained, &run, &job.stop, |trained| {
        finish(&job, &held_out, &titles, trained, &run)
    })
}

fn finish(
    job: &Job<'_>,
    held_out: &[Melody],
    known: &HashSet<Vec<u32>>,
    trained: TrainOutput<NoteLm>,
    run: &RunDir,
) -> Result<()> {
    for (name, value) in &trained.metrics {
        outln!("{name}: {value:.4}");
    }
    outln!(
        "{} steps in {:.0} s",
        trained.steps_run,
        trained.elapsed.as_secs_f64()
    );
    let (model, seed) = (&trained.model, job.settings.trainer.seed);
    let commission = Commission {
        pieces: job.args.pieces as usize,
        least_steps: 0,
        most_tokens: model.config().n_positions - 1,
        seed,
    };
    let began = Instant::now();
    let composed = compose(model, commission, &job.args.sampling, &job.stop)?;
    let work = began.elapsed();
    let written = composed.pieces.iter().enumerate();
    let pieces: Vec<Melody> = written
        .filter_map(|(index, tokens)| melody::decode(tokens, PROGRAMS[index % PROGRAMS.len()]))
        .collect();
    let files: Vec<_> = pieces
        .iter()
        .map(|piece| {
            let bar = piece.beats_per_bar as f64 * 60.0 / piece.beats_per_minute;
            (piece.to_midi(), bar)
        })
        .collect();
    let sound: f64 = files.iter().map(|(file, _)| file.seconds()).sum();
    outln!(
        "\n{} new melodies, of which {} are whole; notes: {}",
        pieces.len(),
        composed.ended,
        Speed::new(sound, work)
    );
    let copied = composed.pieces.iter();
    let notation = model.config().notation;
    let copied = copied.filter(|piece| known.contains(&with_ends(notation, piece.to_vec())));
    outln!("{} of them are training pieces", copied.count());
    print_figures(&pieces, held_out);

    let gallery = SoundGallery::new("language model", "melodies")
        .with_weights(&[run.final_dir()])?
        .with_seed(seed);
    let dir = run.path().join("pieces");
    std::fs::create_dir_all(&dir)?;
    let speed = write_pieces(&dir, &files, job.args.files, &gallery)?;
    outln!("synthesiser: {speed}");
    outln!("MIDI files, sounds and pictures are in {}", dir.display());
    Ok(())
}

fn print_figures(new: &[Melody], held_out: &[Melody]) {
    let reference = classes(held_out);
    let [new, grammar] = [new, held_out].map(|pieces| figures(pieces, &reference));
    outln!("{:40} {:>8} {:>8}", "", "new", "grammar");
    for (index, name) in NAMES.iter().enumerate() {
        outln!("{name:40} {:8.3} {:8.3}", new[index], grammar[index]);
    }
}

/// Shares of the pitch classes above the tonic.
fn classes(pieces: &[Melody]) -> [f64; 12] {
    let above = |piece: &Melody| {
        let tonic = piece.key.tonic;
        let pitches: Vec<u8> = piece.tones.iter().map(|tone| tone.pitch).collect();
        pitches.into_iter().map(move |pitch| pitch + 12 - tonic)
    };
    pitch_classes(pieces.iter().flat_map(above))
}

/// The tones of bars, from the beginning of the first one.
fn tones(piece: &Melody, bars: Range<usize>) -> Vec<(usize, usize, u8)> {
    let bar = BEAT * piece.beats_per_bar;
    let steps = bars.start * bar..bars.end * bar;
    let inside = piece.tones.iter().filter(|t| steps.contains(&t.start));
    inside
        .map(|tone| (tone.start - steps.start, tone.len, tone.pitch))
        .collect()
}

/// A value for each of [`NAMES`].
fn figures(pieces: &[Melody], reference: &[f64; 12]) -> [f64; NAMES.len()] {
    let percent = |counts: (usize, usize)| 100.0 * counts.0 as f64 / counts.1.max(1) as f64;
    let whole = |piece: &&Melody| piece.chords.len() == BARS;
    let share = |holds: &dyn Fn(&Melody) -> bool| {
        percent((
            pieces.iter().filter(whole).filter(|p| holds(p)).count(),
            pieces.len(),
        ))
    };
    let firsts = pieces.iter().flat_map(|piece| {
        piece.chords.iter().enumerate().map(move |(bar, chord)| {
            let first = tones(piece, bar..bar + 1).first().copied();
            let classes = piece.key.pitch_classes(*chord);
            first.is_some_and(|(start, _, pitch)| start == 0 && classes.contains(&(pitch % 12)))
        })
    });
    let firsts: Vec<bool> = firsts.collect();
    let cadences = |piece: &Melody| {
        let ends = [3, 7, 11, 15].map(|bar| piece.chords[bar]);
        let (tonic, dominant) = (Chord::TONIC, Chord::DOMINANT);
        piece.chords[0] == tonic && ends == [dominant, tonic, dominant, tonic]
    };
    let last = |piece: &Melody| {
        let bar = BEAT * piece.beats_per_bar;
        let tonic = piece.key.tonic % 12;
        piece
            .tones
            .last()
            .is_some_and(|t| (t.pitch % 12, t.len) == (tonic, bar))
    };
    let moves = pieces.iter().flat_map(|piece| piece.tones.windows(2));
    let moves: Vec<u8> = moves
        .map(|pair| pair[0].pitch.abs_diff(pair[1].pitch))
        .collect();
    let bars: usize = pieces.iter().map(|piece| piece.chords.len()).sum();
    let count: usize = pieces.iter().map(|piece| piece.tones.len()).sum();
    let semitones: f64 = moves.iter().map(|step| f64::from(*step)).sum();
    [
        percent((firsts.iter().filter(|holds| **holds).count(), firsts.len())),
        share(&cadences),
        share(&|piece| tones(piece, 0..2) == tones(piece, 4..6)),
        share(&|piece| tones(piece, 4..8) == tones(piece, 12..16)),
        share(&last),
        percent((moves.iter().filter(|step| **step == 0).count(), moves.len())),
        count as f64 / bars.max(1) as f64,
        semitones / moves.len().max(1) as f64,
        pitch_class_distance(&classes(pieces), reference),
    ]
}
