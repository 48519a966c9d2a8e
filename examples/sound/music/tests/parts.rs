//! The parts of `music`: tokens, windows, the model, new pieces.

use crate::{
    compose::{Commission, SamplingOptions, compose},
    corpus::voices_of,
    layers::Rotation,
    melody,
    model::{NoteLm, NoteLmConfig, ids},
    notation::{Cursor, Notation, Place},
    statistics::Reference,
    windows::{NoteBatch, Windows, evaluation_windows, with_ends},
};
use aigc_core::{
    CancelToken,
    burn::tensor::Tensor,
    data::{
        Dataset,
        melodies::{Melodies, Melody},
    },
    device::device,
    music::{ChordGrid, ChordTokens, VoiceGrid, VoiceTokens},
    rng::{InitWeights, Rng},
};
use aigc_text::CausalLm;

pub(crate) fn melodies(count: usize) -> Vec<Melody> {
    let grammar = Melodies::new(count, 5).unwrap();
    (0..count)
        .map(|index| grammar.get(index).unwrap())
        .collect()
}

#[test]
fn melodies_return_from_tokens() {
    for piece in melodies(60) {
        let tokens = melody::encode(&piece);
        assert!(tokens.len() < 191, "{}", tokens.len());
        let expected = Melody {
            beats_per_minute: melody::TEMPO,
            program: 40,
            ..piece
        };
        assert_eq!(melody::decode(&tokens, 40).unwrap(), expected);
        let mut cursor = Cursor::new(Notation::Melodies, 0);
        for token in &tokens {
            assert!((*token as usize) < melody::VOCABULARY);
            assert!(cursor.allows(*token, 0));
            cursor.push(*token);
        }
        let next = (0..melody::VOCABULARY as u32).filter(|token| cursor.allows(*token, 0));
        assert_eq!(next.collect::<Vec<_>>(), [melody::START]);
        // Bars that are not complete are left out.
        let cut = melody::decode(&tokens[..tokens.len() - 1], 40).unwrap();
        assert_eq!(cut.chords.len(), 15);
        assert_eq!(cut.tones[..], expected.tones[..cut.tones.len()]);
        assert!(melody::decode(&tokens[1..], 40).is_none());
        assert!(melody::decode(&tokens[..3], 40).is_none());
    }
}

#[test]
fn places_tell_voice_and_metre() {
    let place = |slot, beat| Place { slot, beat };
    let start = Notation::Sixteenths.start_token();
    let tokens: Vec<u32> = [vec![start], vec![7; 66]].concat();
    let places = Notation::Sixteenths.places(&tokens);
    assert_eq!(places[..2], [place(0, 0), place(1, 0)]);
    assert_eq!(places[3..6], [place(3, 0), place(0, 1), place(1, 1)]);
    // A bar of sixteenths later, all is as in the beginning.
    assert_eq!(places[64..], places[..3]);
    assert_eq!(Notation::Sixteenths.places(&tokens[64..]), places[64..]);

    let start = Notation::Quarters.start_token();
    let places = Notation::Quarters.places(&[start, 40, 44, 0, 0, 1]);
    let expected = [(0, 0), (1, 0), (2, 0), (0, 1), (0, 2), (1, 2)];
    assert_eq!(places, expected.map(|(slot, beat)| place(slot, beat)));
    let mut cursor = Cursor::new(Notation::Quarters, 0);
    assert!(cursor.allows(start, 0) && !cursor.allows(start, 1));
    cursor.push(40);
    assert!(!cursor.allows(start, 0) && !cursor.allows(40, 0) && !cursor.allows(39, 0));
    assert!(cursor.allows(0, 0) && cursor.allows(41, 0));
    cursor.push(0);
    assert!(cursor.allows(start, 1) && cursor.allows(3, 0));
}

fn model(notation: Notation, n_positions: usize) -> NoteLm {
    let config = NoteLmConfig {
        notation,
        n_positions,
        n_embd: 16,
        n_layer: 2,
        n_head: 2,
        // Large enough for logits that differ.
        initializer_range: 0.3,
        place_range: 0.3,
        ..NoteLmConfig::default()
    };
    let device = device("flex").unwrap();
    config.init(&device).unwrap().init_weights(3)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// A start and random tokens below `limit`.
fn random(notation: Notation, limit: usize, len: usize) -> Vec<u32> {
    let mut rng = Rng::new(8);
    let mut tokens = vec![notation.start_token()];
    tokens.extend((1..len).map(|_| rng.random_index(limit) as u32));
    tokens
}

/// Pairs of channels are complex numbers that are multiplied by `exp(i·position·frequency)`.
#[test]
fn positions_turn_queries_and_keys() {
    let config = NoteLmConfig {
        n_embd: 8,
        n_head: 2,
        ..NoteLmConfig::default()
    };
    let device = device("flex").unwrap();
    let ones = Tensor::<3>::ones([1, 3, 24], &device);
    let found = values(Rotation::new(&config, 5, 3, &device).apply(ones));
    for (at, row) in found.chunks_exact(24).enumerate() {
        let turned = [1.0, 0.01].map(|frequency: f32| {
            let angle = (5 + at) as f32 * frequency;
            [angle.cos() - angle.sin(), angle.cos() + angle.sin()]
        });
        let [[a, c], [b, d]] = turned;
        // Two heads of queries, of keys and of values.
        for (head, channels) in row.chunks_exact(4).enumerate() {
            let expected = if head < 4 { [a, b, c, d] } else { [1.0; 4] };
            for (found, expected) in channels.iter().zip(expected) {
                assert!(
                    (found - expected).abs() < 1e-5,
                    "{at}, {head}: {channels:?}"
                );
            }
        }
    }
}

#[test]
fn cached_tokens_have_the_same_logits() {
    for notation in [Notation::Sixteenths, Notation::Quarters] {
        let model = model(notation, 96);
        let (time, device) = (70, device("flex").unwrap());
        let tokens = [random(notation, 20, time), random(notation, 5, time)].concat();
        let tokens: Vec<usize> = tokens.iter().map(|token| *token as usize).collect();
        let tokens = ids(&tokens, 2, &device);
        let expected = values(model.forward(tokens.clone()));
        let mut cache = model.new_cache(2, 8);
        let parts = [(0, 30), (30, 1), (31, 38), (69, 1)].map(|(first, count)| {
            model.logits(tokens.clone().narrow(1, first, count), &mut *cache)
        });
        let found = values(Tensor::cat(parts.to_vec(), 1));
        let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        assert!(apart.fold(0.0, f32::max) < 1e-3);
        assert!(expected.iter().any(|logit| logit.abs() > 0.1));
    }
}

#[test]
fn every_token_is_evaluated_once() {
    let device = device("flex").unwrap();
    for notation in [Notation::Sixteenths, Notation::Quarters] {
        let notes = random(notation, 9, 101)[1..].to_vec();
        let piece = with_ends(notation, notes.clone());
        for (context, stride) in [(16, 5), (16, 16), (128, 1), (3, 1)] {
            let pieces = std::slice::from_ref(&piece);
            let windows = evaluation_windows(notation, pieces, context, stride);
            let batch = NoteBatch::collate(windows).to_tensors(&device);
            let weights = values(batch.weights);
            let targets = batch.targets.into_data();
            let targets = targets.iter::<i64>().zip(weights);
            let counted = targets.filter(|(_, weight)| *weight > 0.0);
            let counted: Vec<u32> = counted.map(|(token, _)| token as u32).collect();
            assert_eq!(counted, notes, "{context}, {stride}");
            assert_eq!(batch.count, notes.len());
        }
    }
}

#[test]
fn training_windows_follow_from_index_and_epoch() {
    let notation = Notation::Sixteenths;
    let long = with_ends(notation, random(notation, 50, 401)[1..].to_vec());
    let short = with_ends(notation, vec![1, 2, 3, 4]);
    let pieces = vec![vec![short], vec![long.clone()]];
    let windows = Windows::new(notation, pieces, 64, 1).unwrap();
    assert_eq!(windows.len(), 1 + 7);
    let device = device("flex").unwrap();
    let read = |index: usize, epoch: usize| {
        let window = windows.get_in_epoch(index, epoch).unwrap();
        let batch = NoteBatch::collate(vec![window]).to_tensors(&device);
        let inputs = batch.inputs.into_data();
        let inputs: Vec<u32> = inputs.iter::<i64>().map(|token| token as u32).collect();
        (inputs, batch.places, batch.count)
    };
    // Four notes and the end; the rest is filled up and does not count.
    let (inputs, _, count) = read(0, 3);
    assert_eq!((inputs.len(), count), (64, 5));
    assert_eq!(read(4, 2), read(4, 2));
    let (mut first, mut last) = (false, false);
    for epoch in 0..150 {
        let (inputs, places, count) = read(3, epoch);
        assert_eq!(count, 64);
        let at = long.windows(64).position(|part| part == inputs).unwrap();
        // The place follows from the whole piece, and a step begins.
        assert_eq!((places[0].slot, places[0].beat), (at % 4, at / 4 % 16));
        assert_eq!(at % 4, 0);
        first |= at == 0;
        last |= at + 64 + 4 > long.len() - 1;
    }
    assert!(first && last);
    assert!(Windows::new(notation, vec![], 64, 1).is_err());
}

#[test]
fn new_pieces_follow_their_notation() {
    let options = SamplingOptions {
        temperature: None,
        top_p: Some(1.0),
        top_k: None,
    };
    let commission = Commission {
        pieces: 3,
        least_steps: 1000,
        most_tokens: 300,
        seed: 6,
    };
    let stop = CancelToken::new();
    // Longer than the context.
    let voices = model(Notation::Sixteenths, 128);
    let long = compose(&voices, commission, &options, &stop).unwrap();
    assert_eq!((long.pieces.len(), long.ended), (3, 0));
    for piece in &long.pieces {
        assert_eq!(piece.len(), 300);
        let grid = VoiceTokens::default().decode(piece).unwrap();
        assert_eq!(grid.steps.len(), 75);
    }
    let again = compose(&voices, commission, &options, &stop).unwrap();
    assert_eq!(again.pieces, long.pieces);
    let free = Commission {
        least_steps: 0,
        pieces: 20,
        ..commission
    };
    let free = compose(&voices, free, &options, &stop).unwrap();
    let whole = free.pieces.iter().filter(|piece| piece.len() % 4 == 0);
    assert!(free.ended > 0 && whole.count() == 20);

    let chords = compose(&model(Notation::Quarters, 64), commission, &options, &stop).unwrap();
    for piece in &chords.pieces {
        assert!(piece.len() <= 63);
        let frames = piece.split(|token| *token == 0);
        frames.for_each(|frame| assert!(frame.is_sorted_by(|a, b| a < b), "{frame:?}"));
        assert!(ChordTokens::default().decode(piece).is_ok());
    }
    stop.cancel();
    assert!(compose(&voices, commission, &options, &stop).is_err());
}

#[test]
fn chords_become_voices() {
    let frames = vec![
        vec![],
        vec![60],
        vec![50, 60],
        vec![50, 55, 60],
        vec![50, 55, 60, 65],
        vec![40, 50, 55, 60, 65],
    ];
    let some = |pitches: [u8; 4]| pitches.map(|pitch| (pitch > 0).then_some(pitch));
    let expected = [
        [0; 4],
        [60, 0, 0, 0],
        [60, 0, 0, 50],
        [60, 55, 0, 50],
        [65, 60, 55, 50],
        [65, 60, 55, 40],
    ];
    let found = voices_of(&ChordGrid { frames });
    assert_eq!(found.steps, expected.map(some));
}

/// Statistics do not depend on the key, and a copy is found in any.
#[test]
fn statistics_do_not_depend_on_the_key() {
    let grids: Vec<VoiceGrid> = melodies(12).iter().map(Melody::to_grid).collect();
    let (training, others) = grids.split_at(6);
    let reference = Reference::new(training, 4.0);
    let facts = |pieces: &[VoiceGrid], semitones: i32| -> Vec<_> {
        let moved = pieces.iter().map(|piece| piece.transposed(semitones));
        moved
            .map(|piece| reference.facts(&piece.unwrap()))
            .collect()
    };
    let own = reference.summary(facts(training, 3).iter());
    // Whole pieces: the longest has 16 bars of four quarters.
    let longest = training.iter().map(|piece| piece.steps.len()).max();
    assert_eq!(own[4], longest.unwrap() as f64 / 4.0);
    assert!(own[0] < 0.2, "{}", own[0]);
    let [as_is, moved] =
        [0, -4].map(|semitones| reference.summary(facts(others, semitones).iter()));
    for (a, b) in as_is.iter().zip(moved) {
        assert!((a - b).abs() < 1e-9, "{as_is:?} {moved:?}");
    }
    assert!(as_is[4] < own[4]);
    let all = facts(others, 0);
    for (value, (low, high)) in as_is.iter().zip(reference.intervals(&all, 1)).skip(1) {
        assert!(low <= high && low <= *value && *value <= high);
    }
}
