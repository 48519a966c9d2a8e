//! Points on paths between latent vectors.

/// Limit of lengths and sines below which directions are not defined, as in torch-fidelity.
const TINY: f64 = 1e-7;

/// The path between two latent vectors; the names are those of torch-fidelity's
/// `ppl_z_interp_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LatentInterpolation {
    /// The straight line.
    #[default]
    Lerp,
    /// The arc, for vectors of any length; the straight line for vectors that are parallel,
    /// opposite or 0.
    SlerpAny,
    /// The arc, for vectors of unit length; the results have unit length.
    SlerpUnit,
}

impl LatentInterpolation {
    /// The vector at `t` between `a`, at 0, and `b`, at 1.
    ///
    /// It is computed in 64 bits: in 32, the angle between vectors has too few digits for the
    /// small steps of a path length.
    pub(super) fn at(self, a: &[f32], b: &[f32], t: f64) -> Vec<f32> {
        let mix = |of_a: f64, of_b: f64| -> Vec<f64> {
            let pairs = a.iter().zip(b);
            pairs
                .map(|(a, b)| of_a * f64::from(*a) + of_b * f64::from(*b))
                .collect()
        };
        let mixed = match self {
            LatentInterpolation::Lerp => mix(1.0 - t, t),
            LatentInterpolation::SlerpAny => arc(a, b, t, mix),
            LatentInterpolation::SlerpUnit => {
                let mixed = arc(a, b, t, mix);
                let norm = mixed.iter().map(|x| x * x).sum::<f64>().sqrt().max(TINY);
                mixed.into_iter().map(|x| x / norm).collect()
            }
        };
        mixed.into_iter().map(|x| x as f32).collect()
    }
}

/// The vector at `t` on the arc; `mix` adds up multiples of `a` and `b`.
fn arc(a: &[f32], b: &[f32], t: f64, mix: impl Fn(f64, f64) -> Vec<f64>) -> Vec<f64> {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let (length_a, length_b) = (dot(a, a).sqrt(), dot(b, b).sqrt());
    let cosine = dot(a, b) / (length_a.max(TINY) * length_b.max(TINY));
    if cosine.abs() > 1.0 - TINY || length_a.min(length_b) < TINY {
        return mix(1.0 - t, t);
    }
    let angle = cosine.acos();
    let weight = |s: f64| (s * angle).sin() / angle.sin();
    mix(weight(1.0 - t), weight(t))
}

/// Scales rows of `width` values to unit length.
pub(super) fn normalize(latents: &mut [f32], width: usize) {
    for row in latents.chunks_exact_mut(width) {
        let square: f64 = row.iter().map(|x| f64::from(*x).powi(2)).sum();
        let norm = square.sqrt().max(TINY);
        row.iter_mut()
            .for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_meet_their_middle() {
        let (a, b, zero) = ([2.0, 0.0], [0.0, 2.0], [0.0, 0.0]);
        let root = 2f32.sqrt();
        for (interpolation, a, b, expected) in [
            (LatentInterpolation::Lerp, a, b, [1.0, 1.0]),
            (LatentInterpolation::SlerpAny, a, b, [root, root]),
            (LatentInterpolation::SlerpUnit, a, b, [root / 2.0; 2]),
            (LatentInterpolation::SlerpAny, a, a, a),
            (LatentInterpolation::SlerpAny, zero, b, [0.0, 1.0]),
            (LatentInterpolation::SlerpUnit, zero, b, [0.0, 1.0]),
        ] {
            let found = interpolation.at(&a, &b, 0.5);
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{interpolation:?} {found}");
            }
        }
    }

    #[test]
    fn rows_get_unit_length() {
        let mut rows = [3.0, 4.0, 0.0, 0.0];
        normalize(&mut rows, 2);
        assert_eq!(rows, [0.6, 0.8, 0.0, 0.0]);
    }
}
