//! Chorales: training, evaluation beside counting, new pieces and their statistics.

use crate::{
    compose::{Commission, Composed, compose},
    corpus::{Corpus, voices_of},
    files::{write_grids, write_pieces},
    model::NoteLm,
    notation::Notation,
    objective::total_nats,
    statistics::{Facts, Reference, table},
    training::{HeldOut, Job},
    windows::Windows,
};
use aigc_core::{
    checkpoint::RunDir,
    music::{ChordTokens, MidiFile, TimeSignature, VOICES, VoiceGrid, VoiceTokens},
    train::TrainOutput,
};
use aigc_examples::{after_training, outln};
use aigc_examples_sound::{SoundGallery, Speed};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::time::Instant;

/// Tempo of new pieces, in quarters per minute.
const TEMPO: f64 = 84.0;
/// Quarters of a bar, in pictures and files; chorales do not say theirs.
const BAR: u8 = 4;
/// Instruments: flute, oboe, clarinet, bassoon; an organ for chords.
const VOICE_PROGRAMS: [u8; VOICES] = [73, 68, 71, 70];
const CHORD_PROGRAM: u8 = 19;
/// Quarters before which no piece ends: the shortest chorale has 25.
const LEAST_BEATS: usize = 24;
/// Quarters after which a piece in sixteenths ends.
const MOST_BEATS: usize = 64;
/// Copies that are longer are counted, in quarters.
const LONG_COPY: f64 = 8.0;

/// How chorales of a notation are measured.
struct Convention {
    /// What nats are counted for.
    unit: &'static str,
    description: &'static str,
    steps_per_beat: f64,
    /// Nats for a unit of test pieces that the model is meant to stay below.
    goal: f64,
}

impl Convention {
    fn of(notation: Notation) -> Self {
        match notation {
            Notation::Quarters => Self {
                unit: "frame",
                description: "convention B: quarters; the joint probability of a frame, whose \
                              notes come in ascending order, then its end",
                steps_per_beat: 1.0,
                goal: 6.2,
            },
            _ => Self {
                unit: "note",
                description: "convention C: sixteenths; four voices in the order S-A-T-B; held \
                              notes and silence count as notes",
                steps_per_beat: 4.0,
                goal: 0.42,
            },
        }
    }
}

/// A new piece.
struct Piece {
    voices: VoiceGrid,
    midi: MidiFile,
    /// In the format of the data set.
    grid: Value,
}

/// Trains on chorales and writes new ones.
///
/// # Errors
/// Errors of settings, training and files.
pub(crate) fn run(mut job: Job<'_>) -> Result<()> {
    let model = job.settings.model.clone();
    let path = job.settings.data.path.clone();
    let path = path.context("--data DIR is missing")?;
    let mut corpus = Corpus::read(&path, model.notation)?;
    job.settings
        .data
        .fingerprint
        .clone_from(&corpus.fingerprint);
    let convention = Convention::of(model.notation);
    outln!("{}", convention.description);
    outln!(
        "{} training pieces in up to 12 keys, {} valid, {} test",
        corpus.train.len(),
        corpus.valid.len(),
        corpus.test.len()
    );
    let train = std::mem::take(&mut corpus.train);
    let seed = job.settings.trainer.seed;
    let windows = Windows::new(model.notation, train, model.n_positions, seed)?;
    let name = format!("valid nats a {}", convention.unit);
    let held_out = HeldOut {
        pieces: &corpus.valid,
        units: corpus.units[0],
        name: &name,
    };
    let (trained, run) = job.train(windows, held_out)?;
    after_training(trained, &run, &job.stop, |trained| {
        finish(&job, &corpus, &convention, trained, &run)
    })
}

fn finish(
    job: &Job<'_>,
    corpus: &Corpus,
    convention: &Convention,
    trained: TrainOutput<NoteLm>,
    run: &RunDir,
) -> Result<()> {
    let (model, stop) = (&trained.model, &job.stop);
    let config = model.config();
    // Almost every token is predicted from a whole context, or from all that comes before it.
    let stride = (config.n_positions / 8).max(1);
    let unit = convention.unit;
    for (name, pieces, index) in [("valid", &corpus.valid, 0), ("test", &corpus.test, 1)] {
        let nats = total_nats(model, pieces, stride, stop)?;
        outln!(
            "{name}: {:.4} nats a {unit}; a counted n-gram has {:.4}",
            nats / corpus.units[index].max(1) as f64,
            corpus.floors[index]
        );
    }
    outln!(
        "the goal is at most {} nats a {unit} of test pieces",
        convention.goal
    );
    if let Some((step, value)) = trained.best {
        outln!("best model: step {step}, valid {value:.4}");
    }
    outln!(
        "{} steps in {:.0} s",
        trained.steps_run,
        trained.elapsed.as_secs_f64()
    );

    let most_tokens = match config.notation {
        Notation::Sixteenths => VOICES * 4 * MOST_BEATS,
        _ => config.n_positions - 1,
    };
    let commission = Commission {
        pieces: job.args.pieces as usize,
        least_steps: LEAST_BEATS * convention.steps_per_beat as usize,
        most_tokens,
        seed: job.settings.trainer.seed,
    };
    let began = Instant::now();
    let composed = compose(model, commission, &job.args.sampling, stop)?;
    let work = began.elapsed();
    let pieces = decoded(config.notation, &composed)?;
    let sound: f64 = pieces.iter().map(|piece| piece.midi.seconds()).sum();
    outln!(
        "\n{} new pieces, of which {} came to an end; notes: {}",
        pieces.len(),
        composed.ended,
        Speed::new(sound, work)
    );
    print_statistics(&pieces, corpus, convention, commission.seed);

    let gallery = SoundGallery::new("language model", "chorales")
        .with_weights(&[run.final_dir()])?
        .with_seed(commission.seed);
    let dir = run.path().join("pieces");
    std::fs::create_dir_all(&dir)?;
    let bar = f64::from(BAR) * 60.0 / TEMPO;
    let files: Vec<_> = pieces.iter().map(|p| (p.midi.clone(), bar)).collect();
    let speed = write_pieces(&dir, &files, job.args.files, &gallery)?;
    let grids: Vec<Value> = pieces.into_iter().map(|piece| piece.grid).collect();
    write_grids(&dir.join("pieces.json"), &grids)?;
    outln!("synthesiser: {speed}");
    outln!("MIDI files, sounds and pictures are in {}", dir.display());
    Ok(())
}

fn print_statistics(pieces: &[Piece], corpus: &Corpus, convention: &Convention, seed: u64) {
    let reference = Reference::new(&corpus.voices.train, convention.steps_per_beat);
    let held_out = corpus.voices.valid.iter().chain(&corpus.voices.test);
    let held_out: Vec<Facts> = held_out.map(|piece| reference.facts(piece)).collect();
    let new = pieces.iter().map(|piece| reference.facts(&piece.voices));
    let new: Vec<Facts> = new.collect();
    outln!(
        "beside {} valid and test pieces of the corpus, all compared with the training pieces:",
        held_out.len()
    );
    let intervals = reference.intervals(&held_out, seed);
    let (ours, theirs) = (
        reference.summary(new.iter()),
        reference.summary(held_out.iter()),
    );
    outln!("{}", table(&ours, &theirs, &intervals).trim_end());
    let long = |all: &[Facts]| {
        let long = all.iter().filter(|piece| piece.copied_beats() > LONG_COPY);
        100.0 * long.count() as f64 / all.len().max(1) as f64
    };
    outln!(
        "copies of more than {LONG_COPY} beats: in {:.1} % of new pieces, {:.1} % of the corpus",
        long(&new),
        long(&held_out)
    );
}

/// The pieces that tokens stand for.
fn decoded(notation: Notation, composed: &Composed) -> aigc_core::Result<Vec<Piece>> {
    let each = composed
        .pieces
        .iter()
        .map(|tokens| -> aigc_core::Result<Piece> {
            let (voices, notes, grid) = match notation {
                Notation::Quarters => {
                    let chords = ChordTokens::default().decode(tokens)?;
                    let notes = chords.to_notes(TEMPO, 1.0, CHORD_PROGRAM);
                    (voices_of(&chords), notes, json!(chords.frames))
                }
                _ => {
                    let voices = VoiceTokens::default().decode(tokens)?;
                    let notes = voices.to_notes(TEMPO, VOICE_PROGRAMS);
                    let number = |pitch: &Option<u8>| pitch.map_or(-1, i32::from);
                    let steps = voices.steps.iter();
                    let grid: Vec<Vec<i32>> = steps
                        .map(|step| step.iter().map(number).collect())
                        .collect();
                    (voices, notes, json!(grid))
                }
            };
            let mut midi = MidiFile::new(notes, TEMPO);
            midi.time_signatures.push(TimeSignature {
                start: 0.0,
                numerator: BAR,
                denominator: 4,
            });
            Ok(Piece { voices, midi, grid })
        });
    each.collect()
}
