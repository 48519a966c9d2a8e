//! Pixels of a scene.

use super::{Background, Color, Object, SHAPE, SIDE, Scene, Shape};
use crate::data::Image;
use std::f64::consts::TAU;

/// Samples of a pixel along each side.
const SAMPLES: usize = 4;

impl Color {
    /// Red, green and blue.
    pub const fn rgb(self) -> [u8; 3] {
        match self {
            Color::Red => [215, 35, 40],
            Color::Orange => [245, 140, 20],
            Color::Yellow => [245, 225, 50],
            Color::Green => [35, 160, 70],
            Color::Blue => [35, 85, 215],
            Color::Purple => [145, 45, 175],
        }
    }
}

impl Background {
    /// Red, green and blue.
    pub const fn rgb(self) -> [u8; 3] {
        match self {
            Background::White => [255, 255, 255],
            Background::Gray => [160, 160, 160],
            Background::Black => [0, 0, 0],
        }
    }
}

/// Whether a point is inside a shape that fills the square from −1 to 1; `v` points down.
fn contains(shape: Shape, u: f64, v: f64) -> bool {
    match shape {
        Shape::Circle => u * u + v * v <= 1.0,
        Shape::Square => u.abs().max(v.abs()) <= 0.92,
        Shape::Triangle => v <= 0.9 && 2.0 * u.abs() <= v + 1.0,
        Shape::Star => {
            // The edge between a point and the next notch, in polar coordinates.
            let (outer, inner) = (1.0, 0.45);
            let tenth = TAU / 10.0;
            let angle = u.atan2(-v).rem_euclid(2.0 * tenth);
            let angle = angle.min(2.0 * tenth - angle);
            let across =
                outer * inner * tenth.sin() / (inner * (tenth - angle).sin() + outer * angle.sin());
            u.hypot(v) <= across
        }
    }
}

/// Draws a scene. Pixels at edges have the mean of 4×4 samples.
pub fn render(scene: &Scene) -> Image {
    let background = scene.background.rgb();
    let mut pixels = vec![0; SHAPE.numel()];
    for (channel, plane) in pixels.chunks_exact_mut(SIDE * SIDE).enumerate() {
        plane.fill(background[channel]);
    }
    for object in &scene.objects {
        let range = |axis: usize| {
            let (low, high) = (
                (object.center[axis] - object.radius).floor().max(0.0),
                (object.center[axis] + object.radius)
                    .ceil()
                    .min(SIDE as f64),
            );
            low as usize..high as usize
        };
        for y in range(1) {
            for x in range(0) {
                let share = coverage(object, x, y);
                for (channel, of) in object.color.rgb().into_iter().enumerate() {
                    let pixel = &mut pixels[(channel * SIDE + y) * SIDE + x];
                    let mixed = f64::from(*pixel) * (1.0 - share) + f64::from(of) * share;
                    *pixel = mixed.round() as u8;
                }
            }
        }
    }
    Image {
        shape: SHAPE,
        pixels,
        label: None,
    }
}

/// The part of a pixel that a shape covers.
pub(super) fn coverage(object: &Object, x: usize, y: usize) -> f64 {
    let outside = |pixel: usize, axis: usize| {
        (pixel as f64 + 0.5 - object.center[axis]).abs() > object.radius + 0.5
    };
    if outside(x, 0) || outside(y, 1) {
        return 0.0;
    }
    let at = |pixel: usize, sample: usize, axis: usize| {
        let sample = (sample as f64 + 0.5) / SAMPLES as f64;
        (pixel as f64 + sample - object.center[axis]) / object.radius
    };
    let inside = (0..SAMPLES * SAMPLES).filter(|sample| {
        let (u, v) = (at(x, sample % SAMPLES, 0), at(y, sample / SAMPLES, 1));
        contains(object.shape, u, v)
    });
    inside.count() as f64 / (SAMPLES * SAMPLES) as f64
}
