//! Reading.

use super::{MIN_MICROSECONDS, MidiFile, Note, Tempo, TimeSignature, clock::Clock};
use crate::{
    DataFault,
    music::{note::MAX_SECONDS, sort_notes},
};
use midly::{Format, MetaMessage, MidiMessage, Smf, Timing, TrackEvent, TrackEventKind};
use std::collections::HashMap;

/// Channels count from 0.
pub(super) const DRUM_CHANNEL: u8 = 9;

/// Ticks per beat of the result if the file measures time without beats.
const DEFAULT_TICKS: u16 = 480;

/// A note that has not ended: first tick, velocity, program.
type Open = (u64, u8, u8);

pub(super) fn parse(bytes: &[u8]) -> Result<MidiFile, DataFault> {
    let magic: [u8; 4] = match bytes.get(..4).map(<[u8; 4]>::try_from) {
        Some(Ok(magic)) => magic,
        _ => {
            return Err(DataFault::Truncated {
                expected: 14,
                found: bytes.len() as u64,
            });
        }
    };
    if !matches!(&magic, b"MThd" | b"RIFF") {
        return Err(DataFault::WrongMagic {
            found: u32::from_be_bytes(magic),
            expected: "`MThd` (MIDI) or `RIFF` (MIDI in RIFF)",
        });
    }
    // midly negates this byte, and −128 has no negative.
    let overflows = |window: &[u8]| window.starts_with(b"MThd") && window[12] == 0x80;
    if bytes.windows(13).any(overflows) {
        return Err(DataFault::BadHeader("-128 frames per second".into()));
    }
    let file = Smf::parse(bytes).map_err(|error| DataFault::Decode(error.to_string()))?;
    if file.header.format == Format::Sequential && file.tracks.len() > 1 {
        let songs = file.tracks.len();
        let reason = format!("{songs} songs in one file (format 2), expected one song");
        return Err(DataFault::Decode(reason));
    }
    let (mut clock, ticks_per_beat) = start_clock(file.header.timing)?;
    let mut music = MidiFile {
        notes: vec![],
        drums: vec![],
        tempi: vec![],
        time_signatures: vec![],
        ticks_per_beat: ticks_per_beat.unwrap_or(DEFAULT_TICKS),
        hanging_notes: 0,
    };
    let mut tempi: Vec<(u64, u32)> = file.tracks.iter().flat_map(|track| tempi(track)).collect();
    tempi.sort_by_key(|(tick, _)| *tick);
    for (tick, microseconds) in tempi {
        if microseconds < MIN_MICROSECONDS {
            return Err(DataFault::Decode(format!(
                "a tempo of {microseconds} microseconds per beat, expected at least \
                 {MIN_MICROSECONDS} (6000 beats per minute)"
            )));
        }
        if ticks_per_beat.is_some() {
            clock.set_tempo(tick, microseconds);
            music.tempi.push(Tempo {
                start: clock.seconds(tick),
                beats_per_minute: 6e7 / f64::from(microseconds),
            });
        }
    }
    for track in &file.tracks {
        read_track(track, &clock, &mut music)?;
    }
    sort_notes(&mut music.notes);
    sort_notes(&mut music.drums);
    let signatures = &mut music.time_signatures;
    signatures.sort_by(|a, b| a.start.total_cmp(&b.start));
    Ok(music)
}

/// The clock before any tempo, and the ticks per beat if time is measured in beats.
fn start_clock(timing: Timing) -> Result<(Clock, Option<u16>), DataFault> {
    match timing {
        Timing::Metrical(ticks) if ticks.as_int() > 0 => {
            let ticks = ticks.as_int();
            Ok((Clock::new(ticks), Some(ticks)))
        }
        Timing::Timecode(frames, ticks) if ticks > 0 => {
            let frames = match frames.as_int() {
                29 => 30.0 / 1.001,
                whole => f64::from(whole),
            };
            Ok((Clock::constant(1.0 / (frames * f64::from(ticks))), None))
        }
        _ => Err(DataFault::BadHeader(
            "0 ticks, expected at least 1 per beat or frame".into(),
        )),
    }
}

/// Events with their ticks from the beginning of the track.
fn timed<'a>(
    track: &'a [TrackEvent<'a>],
) -> impl Iterator<Item = (u64, &'a TrackEventKind<'a>)> + 'a {
    track.iter().scan(0u64, |tick, event| {
        *tick += u64::from(event.delta.as_int());
        Some((*tick, &event.kind))
    })
}

fn tempi<'a>(track: &'a [TrackEvent<'a>]) -> impl Iterator<Item = (u64, u32)> + 'a {
    timed(track).filter_map(|(tick, kind)| match kind {
        TrackEventKind::Meta(MetaMessage::Tempo(microseconds)) => {
            Some((tick, microseconds.as_int()))
        }
        _ => None,
    })
}

fn read_track(
    track: &[TrackEvent<'_>],
    clock: &Clock,
    music: &mut MidiFile,
) -> Result<(), DataFault> {
    let mut programs = [0u8; 16];
    let mut open: HashMap<(u8, u8), Vec<Open>> = HashMap::new();
    let mut last = 0;
    for (tick, kind) in timed(track) {
        last = tick;
        let seconds = clock.seconds(tick);
        if seconds > MAX_SECONDS {
            return Err(DataFault::Decode(format!(
                "an event at {seconds:.0} seconds, expected at most {MAX_SECONDS}"
            )));
        }
        match kind {
            TrackEventKind::Meta(MetaMessage::TimeSignature(numerator, exponent, ..)) => {
                if *numerator == 0 || *exponent > 15 {
                    return Err(DataFault::Decode(format!(
                        "a time signature of {numerator}/2^{exponent}, expected at least one \
                         beat, and an exponent of at most 15"
                    )));
                }
                music.time_signatures.push(TimeSignature {
                    start: seconds,
                    numerator: *numerator,
                    denominator: 1u16 << exponent,
                });
            }
            TrackEventKind::Midi { channel, message } => {
                let channel = channel.as_int();
                match message {
                    MidiMessage::ProgramChange { program } => {
                        programs[usize::from(channel)] = program.as_int();
                    }
                    MidiMessage::NoteOn { key, vel } if vel.as_int() > 0 => {
                        let note = (tick, vel.as_int(), programs[usize::from(channel)]);
                        open.entry((channel, key.as_int())).or_default().push(note);
                    }
                    MidiMessage::NoteOn { key, .. } | MidiMessage::NoteOff { key, .. } => {
                        let key = (channel, key.as_int());
                        if let Some(notes) = open.get_mut(&key) {
                            end_notes(notes, key, tick, clock, music);
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
    // In an order that does not depend on the hash.
    let mut hanging: Vec<_> = open.into_iter().collect();
    hanging.sort_by_key(|(key, _)| *key);
    for (key, mut notes) in hanging {
        music.hanging_notes += notes.len();
        end_notes(&mut notes, key, last, clock, music);
    }
    Ok(())
}

/// Ends all notes of a key. Where one ended and another began at the same tick, in whichever order
/// their events come, the later one goes on.
fn end_notes(
    notes: &mut Vec<Open>,
    (channel, pitch): (u8, u8),
    tick: u64,
    clock: &Clock,
    music: &mut MidiFile,
) {
    let earlier = notes.iter().filter(|(start, ..)| *start < tick).count();
    let ended = notes.iter().filter(|(start, ..)| *start < tick);
    let target = if channel == DRUM_CHANNEL {
        &mut music.drums
    } else {
        &mut music.notes
    };
    target.extend(ended.map(|&(start, velocity, program)| Note {
        start: clock.seconds(start),
        end: clock.seconds(tick),
        pitch,
        velocity,
        program,
    }));
    if earlier > 0 {
        notes.retain(|(start, ..)| *start == tick);
    } else {
        notes.clear();
    }
}
