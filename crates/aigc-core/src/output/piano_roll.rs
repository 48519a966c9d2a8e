//! Pictures of notes.

use super::figure::{
    Figure, INK, PAPER, Place, TEXT_HEIGHT, fill, label, number, text_width, ticks,
};
use crate::{
    Error, Result,
    check::{ensure_argument, in_range},
    music::Note,
};
use image::{Rgb, RgbImage};
use std::ops::RangeInclusive;

/// Limit on the width of a picture in pixels.
const MAX_WIDTH: f64 = 65_536.0;

/// Draws piano rolls: time to the right, pitch upwards, each C named, a colour for every program;
/// hard notes are darker than soft ones.
///
/// ```
/// use aigc_core::{music::Note, output::PianoRollPlot};
///
/// # fn main() -> aigc_core::Result<()> {
/// let chord = [60, 64, 67].map(|pitch| Note::new(0.0, 2.0, pitch));
/// let figure = PianoRollPlot::default().with_bars_every(2.0).draw(&chord)?;
/// assert!(figure.png().starts_with(b"\x89PNG"));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PianoRollPlot {
    /// Width of a second in pixels.
    pub pixels_per_second: f64,
    /// Height of a key in pixels.
    pub key_height: u32,
    /// Length of a bar in seconds, at least a pixel. Bars have lines and numbers from 1 on; without
    /// them, seconds have.
    pub bar: Option<f64>,
}

impl Default for PianoRollPlot {
    fn default() -> Self {
        Self {
            pixels_per_second: 80.0,
            key_height: 6,
            bar: None,
        }
    }
}

/// Colours of programs, in the order in which they occur; then they repeat.
const COLOURS: [[u8; 3]; 6] = [
    [31, 119, 180],
    [214, 95, 14],
    [44, 140, 44],
    [178, 34, 52],
    [120, 80, 170],
    [120, 85, 72],
];
const BLACK_KEY: Rgb<u8> = Rgb([236, 236, 240]);
const LINE: Rgb<u8> = Rgb([196, 196, 204]);
const GAP: u32 = 4;
const TICK: u32 = 6;

impl PianoRollPlot {
    /// Draws and counts bars of this length in seconds.
    pub fn with_bars_every(self, seconds: f64) -> Self {
        Self {
            bar: Some(seconds),
            ..self
        }
    }

    /// Draws notes, on as many octaves as they need.
    ///
    /// # Errors
    /// [`Error::Config`] if a setting is out of range; [`Error::InvalidArgument`] if there are no
    /// notes, one has no pitch of MIDI or no time, or the picture would be wider than 65,536
    /// pixels.
    pub fn draw(&self, notes: &[Note]) -> Result<Figure> {
        self.validate()?;
        check(notes)?;
        let seconds = notes.iter().map(|note| note.end).fold(0.0, f64::max);
        let width = (seconds * self.pixels_per_second).ceil().max(1.0);
        if width > MAX_WIDTH {
            return Err(Error::argument(
                "notes",
                format!("{seconds} seconds"),
                format!("at most {}", MAX_WIDTH / self.pixels_per_second),
            ));
        }
        let keys = octaves(notes);
        let roll = Roll {
            plot: self,
            seconds,
            left: text_width("C-1") + TICK + 2 * GAP,
            width: width as u32,
            height: keys.len() as u32 * self.key_height,
            keys,
        };
        Figure::new(&roll.draw(notes))
    }

    fn validate(&self) -> Result<()> {
        in_range("pixels_per_second", self.pixels_per_second, 1.0..=10_000.0)?;
        in_range("key_height", self.key_height, 2..=64)?;
        match self.bar {
            // Lines of bars that are narrower would fill the picture.
            Some(bar) => in_range("bar", bar, 1.0 / self.pixels_per_second..=1000.0),
            None => Ok(()),
        }
    }
}

fn check(notes: &[Note]) -> Result<()> {
    ensure_argument(!notes.is_empty(), "notes", "empty", "at least one note")?;
    for (index, note) in notes.iter().enumerate() {
        ensure_argument(
            note.start >= 0.0 && note.end > note.start && note.end.is_finite(),
            &format!("notes[{index}]"),
            format!("from {} to {} seconds", note.start, note.end),
            "0 or later, and an end after the start",
        )?;
        let name = format!("notes[{index}].pitch");
        ensure_argument(note.pitch < 128, &name, note.pitch, "0 to 127")?;
    }
    Ok(())
}

/// Whole octaves, from C to the next C, that hold all notes.
fn octaves(notes: &[Note]) -> RangeInclusive<u8> {
    let lowest = notes.iter().map(|note| note.pitch).min().unwrap_or(60);
    let highest = notes.iter().map(|note| note.pitch).max().unwrap_or(60);
    let first = lowest / 12 * 12;
    first..=(highest.div_ceil(12) * 12).max(first + 12).min(127)
}

struct Roll<'a> {
    plot: &'a PianoRollPlot,
    seconds: f64,
    left: u32,
    width: u32,
    height: u32,
    keys: RangeInclusive<u8>,
}

/// Space above the keys: half of the uppermost label.
const TOP: u32 = TEXT_HEIGHT / 2 + GAP;

impl Roll<'_> {
    fn draw(&self, notes: &[Note]) -> RgbImage {
        let right = self.left + self.width;
        let total = (
            right + text_width("100"),
            TOP + self.height + TICK + 2 * GAP + TEXT_HEIGHT,
        );
        let mut picture = RgbImage::from_pixel(total.0, total.1, PAPER);
        for key in self.keys.clone() {
            let top = self.top(key);
            let bottom = top + self.plot.key_height;
            if matches!(key % 12, 1 | 3 | 6 | 8 | 10) {
                fill(&mut picture, self.left..right, top..bottom, BLACK_KEY);
            }
            if key % 12 == 0 {
                fill(
                    &mut picture,
                    self.left - TICK..right,
                    bottom - 1..bottom,
                    LINE,
                );
                let name = format!("C{}", i32::from(key) / 12 - 1);
                let centre = (top + bottom) / 2;
                label(
                    &mut picture,
                    (self.left - TICK - GAP, centre),
                    &name,
                    Place::Left,
                );
            }
        }
        self.draw_time(&mut picture);
        let mut programs: Vec<u8> = vec![];
        for note in notes {
            let known = programs.iter().position(|program| *program == note.program);
            let program = known.unwrap_or_else(|| {
                programs.push(note.program);
                programs.len() - 1
            });
            let (start, end) = (self.x(note.start), self.x(note.end));
            let top = self.top(note.pitch);
            let rows = top..top + self.plot.key_height - 1;
            // A pixel between notes that follow each other.
            let end = end.saturating_sub(1).max(start + 1);
            fill(
                &mut picture,
                start..end,
                rows,
                shade(program, note.velocity),
            );
        }
        picture
    }

    /// Lines and numbers of bars, or of seconds.
    fn draw_time(&self, picture: &mut RgbImage) {
        let bottom = TOP + self.height;
        let times: Vec<(f64, String)> = match self.plot.bar {
            Some(bar) => {
                let count = (self.seconds / bar).ceil() as usize;
                let numbers = 0..count;
                numbers
                    .map(|n| (n as f64 * bar, (n + 1).to_string()))
                    .collect()
            }
            None => {
                let most = (self.width / 80).clamp(2, 400) as usize;
                let seconds = ticks(0.0, self.seconds, most).into_iter();
                seconds.map(|at| (at, number(at))).collect()
            }
        };
        let mut free = 0;
        for (at, text) in times {
            let x = self.x(at);
            fill(picture, x..x + 1, TOP..bottom + TICK, LINE);
            // A label that would touch the one before is left out.
            let half = text_width(&text) / 2;
            if x >= free + half {
                label(picture, (x, bottom + TICK + GAP), &text, Place::Below);
                free = x + half + 2 * GAP;
            }
        }
        fill(
            picture,
            self.left..self.left + self.width,
            bottom..bottom + 1,
            INK,
        );
    }

    fn x(&self, seconds: f64) -> u32 {
        self.left + (seconds * self.plot.pixels_per_second).round() as u32
    }

    fn top(&self, key: u8) -> u32 {
        TOP + u32::from(self.keys.end() - key) * self.plot.key_height
    }
}

/// The colour of a program, paler for soft notes.
fn shade(program: usize, velocity: u8) -> Rgb<u8> {
    let strength = 0.35 + 0.65 * f64::from(velocity.min(127)) / 127.0;
    let mix = |value: u8| 255.0 - strength * (255.0 - f64::from(value));
    Rgb(COLOURS[program % COLOURS.len()].map(|value| mix(value).round() as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(figure: &Figure) -> RgbImage {
        image::load_from_memory(figure.png()).unwrap().into_rgb8()
    }

    #[test]
    fn notes_are_rectangles() {
        let plot = PianoRollPlot {
            pixels_per_second: 10.0,
            key_height: 4,
            bar: Some(1.0),
        };
        let notes = [
            Note::new(0.0, 1.0, 60).with_velocity(127),
            Note::new(1.0, 3.0, 64).with_velocity(127).with_program(5),
        ];
        let picture = picture(&plot.draw(&notes).unwrap());
        let left = text_width("C-1") + TICK + 2 * GAP;
        let row = |key: u32| TOP + (72 - key) * 4 + 1;
        let at = |x: u32, key: u32| picture.get_pixel(left + x, row(key)).0;
        assert_eq!([at(0, 60), at(8, 60)], [COLOURS[0]; 2]);
        assert_eq!([at(10, 64), at(28, 64)], [COLOURS[1]; 2]);
        assert_eq!(at(9, 60), PAPER.0);
        assert_eq!((at(5, 61), at(5, 62)), (BLACK_KEY.0, PAPER.0));
        // The line of the second bar.
        assert_eq!(at(10, 71), LINE.0);
        assert_eq!(shade(0, 0), shade(6, 0));
    }

    #[test]
    fn keys_are_whole_octaves() {
        let of = |pitches: &[u8]| {
            let notes: Vec<Note> = pitches.iter().map(|p| Note::new(0.0, 1.0, *p)).collect();
            octaves(&notes)
        };
        assert_eq!(of(&[60]), 60..=72);
        assert_eq!(of(&[59, 61]), 48..=72);
        assert_eq!(of(&[127]), 120..=127);
        assert_eq!(of(&[0]), 0..=12);
    }

    #[test]
    fn bad_notes_and_settings_are_named() {
        let plot = PianoRollPlot::default();
        let good = Note::new(0.0, 1.0, 60);
        let error = |result: Result<Figure>| result.unwrap_err().to_string();
        assert!(error(plot.draw(&[])).contains("`notes` is empty"));
        for (bad, field) in [
            (Note::new(1.0, 1.0, 60), "`notes[1]`"),
            (Note::new(0.0, f64::NAN, 60), "`notes[1]`"),
            (Note::new(0.0, 1.0, 128), "`notes[1].pitch`"),
            (Note::new(0.0, 1e9, 60), "`notes`"),
        ] {
            assert!(error(plot.draw(&[good, bad])).contains(field));
        }
        let flat = PianoRollPlot {
            key_height: 0,
            ..plot
        };
        assert!(error(flat.draw(&[good])).contains("`key_height` is 0"));
        let endless = plot.with_bars_every(0.0);
        assert!(error(endless.draw(&[good])).contains("`bar` is 0"));
        assert!(plot.with_bars_every(0.02).draw(&[good]).is_ok());
    }
}
