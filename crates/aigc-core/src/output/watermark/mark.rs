//! Marking the values of an image.

use super::{
    Watermark,
    goals::goals,
    pixels::luma,
    ring,
    texture::texture,
    transform::{LowFrequencies, SIDE},
};
use crate::{Result, check::ensure_argument, data::ImageShape};

/// Rounds of marking: each makes up for what the texture and the range of values took before.
const ROUNDS: usize = 3;

/// How often the change of a round is made smaller at most, until it is within its energy. Where
/// values are cut off at 0 or 255, once is not enough.
const SCALINGS: usize = 8;

/// Largest change of a pixel, as a multiple of the root mean square that its texture allows.
/// Without a limit, the few edges of a flat image get specks.
const LARGEST: f64 = 3.0;

/// What rounding to whole numbers adds to the mean squared error.
const ROUNDING: f64 = 1.0 / 12.0;

impl Watermark {
    /// The marked image of `original`, with values from 0 to 255.
    pub(super) fn mark(&self, original: &[f32], shape: ImageShape) -> Result<Vec<f32>> {
        ensure_argument(
            (30.0..=50.0).contains(&self.psnr),
            "psnr",
            self.psnr,
            "30 to 50 decibels",
        )?;
        let ImageShape { height, width, .. } = shape;
        let radius = match height.min(width) {
            512.. => 128,
            256.. => 64,
            _ => 32,
        };
        let plane = luma(original, shape);
        let texture = texture(&plane, width);
        let transform = LowFrequencies::new(height, width);
        let mean_square = 255f64.powi(2) / 10f64.powf(self.psnr / 10.0) - ROUNDING;
        let energy = (height * width) as f64 * mean_square;
        let largest = (LARGEST * mean_square.sqrt()) as f32;

        let mut coefficients = transform.forward(&plane);
        let ring = ring(radius, height, width);
        let sign = |index: usize| if self.signs[index] { 1.0 } else { -1.0 };
        let aligned: Vec<f64> = ring
            .iter()
            .map(|index| sign(*index) * f64::from(coefficients[*index]))
            .collect();
        let moves: Vec<(usize, f64)> = ring
            .iter()
            .zip(goals(&aligned, energy).into_iter().zip(&aligned))
            .filter(|(_, (goal, value))| goal > *value)
            .map(|(index, (goal, _))| (*index, goal))
            .collect();

        let mut change = vec![0.0f32; height * width];
        let mut marked = original.to_vec();
        for round in 0..ROUNDS {
            let mut missing = vec![0.0; SIDE * SIDE];
            for (index, goal) in &moves {
                let lack = goal - sign(*index) * f64::from(coefficients[*index]);
                missing[*index] = (sign(*index) * lack.max(0.0)) as f32;
            }
            let step = transform.inverse(&missing);
            for ((change, step), texture) in change.iter_mut().zip(&step).zip(&texture) {
                let limit = largest * texture;
                *change = (*change + step * texture).clamp(-limit, limit);
            }
            let mut spent = add_clamped(&mut marked, original, &change);
            for _ in 0..SCALINGS {
                if spent <= 1.0001 * energy {
                    break;
                }
                let factor = (energy / spent).sqrt() as f32;
                change.iter_mut().for_each(|x| *x *= factor);
                spent = add_clamped(&mut marked, original, &change);
            }
            if round + 1 < ROUNDS {
                coefficients = transform.forward(&luma(&marked, shape));
            }
        }
        Ok(marked)
    }
}

/// Sets `marked` to `original` with `change` added to each channel, within 0 to 255. Returns the
/// mean over channels of the sum of squared changes.
fn add_clamped(marked: &mut [f32], original: &[f32], change: &[f32]) -> f64 {
    let mut spent = 0.0;
    let planes = marked.chunks_exact_mut(change.len());
    for (marked, original) in planes.zip(original.chunks_exact(change.len())) {
        for ((marked, original), change) in marked.iter_mut().zip(original).zip(change) {
            *marked = (original + change).clamp(0.0, 255.0);
            spent += f64::from(*marked - original).powi(2);
        }
    }
    spent * change.len() as f64 / original.len() as f64
}
