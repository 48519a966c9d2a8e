//! What surrounds a spectrum: ticks, labels, and the scale of colours.

use super::Content;
use crate::output::figure::{
    INK, Place, TEXT_HEIGHT, fill, heat, label, number, text_width, ticks,
};
use image::RgbImage;

/// Length of the small lines at labels.
pub(super) const TICK: u32 = 6;
pub(super) const GAP: u32 = 4;
/// Width of the scale of colours.
const BAR: u32 = 16;

/// What surrounds the spectrum.
pub(super) struct Axes {
    pub(super) corner: (u32, u32),
    pub(super) total: (u32, u32),
    /// Frequencies of labels, and their divisor and unit.
    hertz: Vec<f64>,
    divisor: f64,
    seconds: Vec<f64>,
    levels: Vec<f64>,
}

impl Axes {
    pub(super) fn new(content: &Content<'_>, width: u32, height: u32) -> Self {
        let most = |pixels: u32, each: u32| (pixels / each).clamp(2, 12) as usize;
        let hertz = ticks(content.hertz.0, content.hertz.1, most(height, 40));
        let divisor = if content.hertz.1 >= 2000.0 {
            1000.0
        } else {
            1.0
        };
        let levels = ticks(content.range.0, content.range.1, most(height, 40));
        let widest = |texts: Vec<String>| texts.iter().map(|text| text_width(text)).max();
        let at_left = hertz.iter().map(|hertz| number(hertz / divisor));
        let at_left = widest(at_left.chain(["kHz".into()]).collect()).unwrap_or(0);
        let at_right = levels.iter().map(|level| number(*level));
        let at_right = widest(at_right.chain([content.unit.into()]).collect()).unwrap_or(0);
        let corner = (at_left + TICK + 2 * GAP, TEXT_HEIGHT + 2 * GAP);
        let right = 4 * GAP + BAR + TICK + GAP + at_right;
        let below = TICK + 3 * GAP + TEXT_HEIGHT;
        Self {
            corner,
            total: (corner.0 + width + right, corner.1 + height + below),
            hertz,
            divisor,
            seconds: ticks(0.0, content.seconds, most(width, 80)),
            levels,
        }
    }

    pub(super) fn draw(
        &self,
        picture: &mut RgbImage,
        content: &Content<'_>,
        width: u32,
        height: u32,
    ) {
        let (left, top) = self.corner;
        let (right, bottom) = (left + width, top + height);
        for hertz in &self.hertz {
            let share = (content.row)(*hertz) / content.values.width() as f64;
            let y = bottom - (share.clamp(0.0, 1.0) * f64::from(height - 1)).round() as u32 - 1;
            fill(picture, left - TICK..left, y..y + 1, INK);
            let text = number(hertz / self.divisor);
            label(picture, (left - TICK - GAP, y), &text, Place::Left);
        }
        let unit = if self.divisor > 1.0 { "kHz" } else { "Hz" };
        label(picture, (left - GAP, TEXT_HEIGHT / 2), unit, Place::Left);
        for seconds in &self.seconds {
            let x = left + (seconds / content.seconds * f64::from(width - 1)).round() as u32;
            fill(picture, x..x + 1, bottom..bottom + TICK, INK);
            label(
                picture,
                (x, bottom + TICK + GAP),
                &number(*seconds),
                Place::Below,
            );
        }
        label(picture, (right + GAP, bottom + TICK), "s", Place::Right);
        let bar = right + 4 * GAP;
        for y in 0..height {
            let share = f64::from(height - 1 - y) / f64::from(height - 1);
            fill(picture, bar..bar + BAR, top + y..top + y + 1, heat(share));
        }
        let (low, high) = content.range;
        for level in &self.levels {
            let share = (level - low) / (high - low);
            let y = bottom - (share * f64::from(height - 1)).round() as u32 - 1;
            fill(picture, bar + BAR..bar + BAR + TICK, y..y + 1, INK);
            label(
                picture,
                (bar + BAR + TICK + GAP, y),
                &number(*level),
                Place::Right,
            );
        }
        label(picture, (bar, TEXT_HEIGHT / 2), content.unit, Place::Right);
    }
}
