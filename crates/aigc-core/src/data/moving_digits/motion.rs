//! How digits move.

use crate::rng::Rng;

/// The motion of a digit in a clip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DigitMotion {
    /// Number of the image in the data set.
    pub image: usize,
    /// Place of the upper left corner in the first frame, as column and row.
    pub start: [f64; 2],
    /// Columns and rows per frame, before the first bounce.
    pub velocity: [f64; 2],
    /// Room for the upper left corner: 0 to this on each axis.
    pub travel: [f64; 2],
}

impl DigitMotion {
    pub(super) fn random(
        image: usize,
        travel: [f64; 2],
        [slow, fast]: [f32; 2],
        rng: &mut Rng,
    ) -> Self {
        let places = rng.uniform_vec(2, 0.0, 1.0);
        let start = [0, 1].map(|axis| f64::from(places[axis]) * travel[axis]);
        let direction = loop {
            let point = rng.uniform_vec(2, -1.0, 1.0);
            let [x, y] = [f64::from(point[0]), f64::from(point[1])];
            let square = x * x + y * y;
            if square > 0.0 && square <= 1.0 {
                let length = square.sqrt();
                break [x / length, y / length];
            }
        };
        let speed = f64::from(rng.uniform_vec(1, 0.0, 1.0)[0]);
        let speed = f64::from(slow) + (f64::from(fast) - f64::from(slow)) * speed;
        Self {
            image,
            start,
            velocity: direction.map(|part| part * speed),
            travel,
        }
    }

    /// Place of the upper left corner in a frame, as column and row.
    pub fn position(&self, frame: usize) -> [f64; 2] {
        [0, 1].map(|axis| {
            let free = self.start[axis] + frame as f64 * self.velocity[axis];
            fold(free, self.travel[axis])
        })
    }
}

/// The place that a point reaches that is reflected at 0 and at `travel`.
fn fold(place: f64, travel: f64) -> f64 {
    let place = place.rem_euclid(2.0 * travel);
    if place > travel {
        2.0 * travel - place
    } else {
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_reflected_at_the_walls() {
        let motion = DigitMotion {
            image: 0,
            start: [3.0, 1.0],
            velocity: [2.0, -5.0],
            travel: [4.0, 2.0],
        };
        assert_eq!(motion.position(0), [3.0, 1.0]);
        assert_eq!(motion.position(1), [3.0, 0.0]);
        assert_eq!(motion.position(2), [1.0, 1.0]);
        assert_eq!(fold(-1.0, 4.0), 1.0);
    }
}
