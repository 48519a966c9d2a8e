//! How visible changes of pixels are.

/// Side of the square around a pixel that its texture is measured in.
const TEXTURE_SIDE: usize = 9;

/// How much each pixel may change: the root of the local standard deviation, within limits, with a
/// mean square of 1.
pub(super) fn texture(plane: &[f32], width: usize) -> Vec<f32> {
    let squares: Vec<f32> = plane.iter().map(|x| x * x).collect();
    let (mean, square) = (local_mean(plane, width), local_mean(&squares, width));
    let deviation = mean
        .iter()
        .zip(&square)
        .map(|(m, s)| (s - m * m).max(0.0).sqrt());
    let mut weights: Vec<f32> = deviation
        .map(|d| (d + 1.0).sqrt().clamp(1.0, 4.0))
        .collect();
    let total: f64 = weights.iter().map(|w| f64::from(*w).powi(2)).sum();
    let norm = (weights.len() as f64 / total).sqrt() as f32;
    weights.iter_mut().for_each(|weight| *weight *= norm);
    weights
}

/// Means over squares of [`TEXTURE_SIDE`], cut off at the borders.
fn local_mean(plane: &[f32], width: usize) -> Vec<f32> {
    let (height, half) = (plane.len() / width, TEXTURE_SIDE / 2);
    // Sums of all values above and to the left, with a row and a column of zeros before.
    let stride = width + 1;
    let mut sums = vec![0.0f64; stride * (height + 1)];
    for (row, values) in plane.chunks_exact(width).enumerate() {
        let mut sum = 0.0;
        for (column, value) in values.iter().enumerate() {
            sum += f64::from(*value);
            sums[(row + 1) * stride + column + 1] = sums[row * stride + column + 1] + sum;
        }
    }
    let window = |i: usize, len: usize| (i.saturating_sub(half), (i + half + 1).min(len));
    let mean = |i: usize| {
        let ((top, bottom), (left, right)) = (window(i / width, height), window(i % width, width));
        let at = |row: usize, column: usize| sums[row * stride + column];
        let sum = at(bottom, right) - at(top, right) - at(bottom, left) + at(top, left);
        (sum / ((bottom - top) * (right - left)) as f64) as f32
    };
    (0..plane.len()).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A third of the image has texture: it gets larger weights, and the mean square is 1.
    #[test]
    fn texture_gets_larger_weights() {
        let (height, width) = (30, 60);
        let value = |i: usize| {
            let checker = if (i / width + i % width).is_multiple_of(2) {
                50.0
            } else {
                -50.0
            };
            if i % width < 20 { checker } else { 7.0 }
        };
        let plane: Vec<f32> = (0..height * width).map(value).collect();
        let weights = texture(&plane, width);
        let square = weights.iter().map(|w| w * w).sum::<f32>() / weights.len() as f32;
        assert!((square - 1.0).abs() < 1e-4, "{square}");
        assert!((weights[5] / weights[50] - 4.0).abs() < 1e-3);
        let mean = local_mean(&plane, width);
        assert!((mean[15 * width + 40] - 7.0).abs() < 1e-4);
        // A window of 81 pixels has one more of one sort.
        assert!((mean[15 * width + 10].abs() - 50.0 / 81.0).abs() < 1e-3);
    }
}
