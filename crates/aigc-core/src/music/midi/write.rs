//! Writing.

use super::{MIN_MICROSECONDS, MidiFile, Note, clock::Clock, read::DRUM_CHANNEL};
use crate::{
    Error, Result,
    check::ensure_argument,
    music::note::{MAX_SECONDS, check_notes},
};
use midly::{
    Format, Header, MetaMessage, MidiMessage, Smf, Timing, TrackEvent, TrackEventKind,
    num::{u4, u7, u15, u24, u28},
};
use std::collections::BTreeMap;

/// Channels for instruments: all but that of the drums.
const CHANNELS: usize = 15;

/// An event at a tick. At one tick, ends of notes (order 0) come before beginnings and the changes
/// of program that these need (order 1).
type Timed = (u64, u8, TrackEventKind<'static>);

pub(super) fn encode(music: &MidiFile) -> Result<Vec<u8>> {
    check_notes(&music.notes)?;
    check_notes(&music.drums)?;
    ensure_argument(
        (1..1 << 15).contains(&music.ticks_per_beat),
        "ticks_per_beat",
        music.ticks_per_beat,
        "1 to 32767",
    )?;
    let mut clock = Clock::new(music.ticks_per_beat);
    let conductor = conductor(music, &mut clock)?;
    let mut tracks = vec![track(conductor)?];
    let mut by_program: BTreeMap<u8, Vec<Note>> = BTreeMap::new();
    for note in &music.notes {
        by_program.entry(note.program).or_default().push(*note);
    }
    ensure_argument(
        by_program.len() <= CHANNELS,
        "notes",
        format!("of {} programs", by_program.len()),
        "at most 15 programs in one file",
    )?;
    let channels = (0..16u8).filter(|channel| *channel != DRUM_CHANNEL);
    for (channel, (program, notes)) in channels.zip(&by_program) {
        let mut events = vec![(0, 0, change_of(channel, *program))];
        events.extend(note_events(channel, *program, notes, &clock));
        tracks.push(track(events)?);
    }
    if !music.drums.is_empty() {
        tracks.push(track(note_events(DRUM_CHANNEL, 0, &music.drums, &clock))?);
    }
    let timing = Timing::Metrical(u15::new(music.ticks_per_beat));
    let file = Smf {
        header: Header::new(Format::Parallel, timing),
        tracks,
    };
    let mut bytes = vec![];
    file.write_std(&mut bytes).map_err(Error::other)?;
    Ok(bytes)
}

/// The events of tempi and time signatures; sets the clock to the tempi.
fn conductor(music: &MidiFile, clock: &mut Clock) -> Result<Vec<Timed>> {
    let mut events = vec![];
    let mut previous = 0.0;
    for (index, tempo) in music.tempi.iter().enumerate() {
        check_start(&format!("tempi[{index}].start"), tempo.start, previous)?;
        previous = tempo.start;
        let microseconds = (6e7 / tempo.beats_per_minute).round();
        let range = f64::from(MIN_MICROSECONDS)..=f64::from(u24::max_value().as_int());
        ensure_argument(
            range.contains(&microseconds),
            &format!("tempi[{index}].beats_per_minute"),
            tempo.beats_per_minute,
            "3.58 to 6000",
        )?;
        let (tick, microseconds) = (clock.tick(tempo.start), microseconds as u32);
        clock.set_tempo(tick, microseconds);
        let event = MetaMessage::Tempo(u24::new(microseconds));
        events.push((tick, 0, TrackEventKind::Meta(event)));
    }
    previous = 0.0;
    for (index, signature) in music.time_signatures.iter().enumerate() {
        let name = format!("time_signatures[{index}]");
        check_start(&format!("{name}.start"), signature.start, previous)?;
        previous = signature.start;
        ensure_argument(
            signature.numerator > 0 && signature.denominator.is_power_of_two(),
            &name,
            format!("{}/{}", signature.numerator, signature.denominator),
            "at least one beat, of a power of two",
        )?;
        let exponent = signature.denominator.trailing_zeros() as u8;
        let event = MetaMessage::TimeSignature(signature.numerator, exponent, 24, 8);
        let tick = clock.tick(signature.start);
        events.push((tick, 0, TrackEventKind::Meta(event)));
    }
    Ok(events)
}

fn check_start(name: &str, start: f64, previous: f64) -> Result<()> {
    ensure_argument(
        (previous..=MAX_SECONDS).contains(&start),
        name,
        start,
        &format!("{previous} to {MAX_SECONDS} seconds, in the order of time"),
    )
}

fn midi(channel: u8, message: MidiMessage) -> TrackEventKind<'static> {
    TrackEventKind::Midi {
        channel: u4::new(channel),
        message,
    }
}

fn change_of(channel: u8, program: u8) -> TrackEventKind<'static> {
    let program = u7::new(program);
    midi(channel, MidiMessage::ProgramChange { program })
}

/// The events of the notes of a channel whose program is `program` until a note has another.
fn note_events(channel: u8, mut program: u8, notes: &[Note], clock: &Clock) -> Vec<Timed> {
    // Pitch, first and last tick, velocity, program.
    let mut spans: Vec<(u8, u64, u64, u8, u8)> = notes
        .iter()
        .map(|note| {
            let start = clock.tick(note.start);
            let end = clock.tick(note.end).max(start + 1);
            (note.pitch, start, end, note.velocity, note.program)
        })
        .collect();
    spans.sort_unstable();
    // Of notes that begin together the longest, which is the last one, is kept.
    for i in 1..spans.len() {
        let (pitch, start, ..) = spans[i];
        let before = &mut spans[i - 1];
        if before.0 == pitch {
            before.2 = before.2.min(start);
        }
    }
    spans.retain(|(_, start, end, ..)| end > start);
    let mut events = Vec::with_capacity(2 * spans.len());
    for (pitch, _, end, ..) in &spans {
        let (key, vel) = (u7::new(*pitch), u7::new(64));
        events.push((*end, 0, midi(channel, MidiMessage::NoteOff { key, vel })));
    }
    // A change of program comes just before the note that needs it, in the order of time.
    spans.sort_by_key(|(_, start, ..)| *start);
    for (pitch, start, _, velocity, of_note) in spans {
        if of_note != program {
            program = of_note;
            events.push((start, 1, change_of(channel, program)));
        }
        let (key, vel) = (u7::new(pitch), u7::new(velocity));
        events.push((start, 1, midi(channel, MidiMessage::NoteOn { key, vel })));
    }
    events
}

/// A track of events in the order of time.
fn track(mut events: Vec<Timed>) -> Result<Vec<TrackEvent<'static>>> {
    events.sort_by_key(|(tick, order, _)| (*tick, *order));
    let mut track = Vec::with_capacity(events.len() + 1);
    let mut last = 0;
    for (tick, _, kind) in events {
        let delta = u32::try_from(tick - last).ok().and_then(u28::try_from);
        let delta = delta.ok_or_else(|| {
            Error::argument(
                "notes",
                format!("a pause of {} ticks", tick - last),
                "at most 268435455 ticks between events; use fewer ticks per beat",
            )
        })?;
        track.push(TrackEvent { delta, kind });
        last = tick;
    }
    track.push(TrackEvent {
        delta: u28::new(0),
        kind: TrackEventKind::Meta(MetaMessage::EndOfTrack),
    });
    Ok(track)
}
