//! Divergence curves of two histograms.

/// The points `(exp(−c·KL(q‖r)), exp(−c·KL(p‖r)))` for mixtures `r = w·p + (1 − w)·q` in the order
/// of `w`, with the ends `(1, 0)` and `(0, 1)` (Pillutla et al. 2021, equation 2).
pub(super) fn divergence_curve(p: &[f64], q: &[f64], points: usize, scaling: f64) -> Vec<[f64; 2]> {
    const MARGIN: f64 = 1e-6;
    let step = (1.0 - 2.0 * MARGIN) / (points - 1) as f64;
    let mut curve = vec![[1.0, 0.0]];
    curve.extend((0..points).map(|i| {
        let w = MARGIN + step * i as f64;
        let r: Vec<f64> = p
            .iter()
            .zip(q)
            .map(|(p, q)| w * p + (1.0 - w) * q)
            .collect();
        [q, p].map(|of| (-scaling * kl_divergence(of, &r)).exp())
    }));
    curve.push([0.0, 1.0]);
    curve
}

/// `Σ p·ln(p/r)`, where `r` is positive wherever `p` is. Never negative: rounding could make it so
/// if both are equal.
fn kl_divergence(p: &[f64], r: &[f64]) -> f64 {
    let terms = p.iter().zip(r).filter(|(p, _)| **p > 0.0);
    terms.map(|(p, r)| p * (p / r).ln()).sum::<f64>().max(0.0)
}

/// The area under a divergence curve by the trapezoidal rule: the mean of those over both axes.
pub(super) fn area(curve: &[[f64; 2]]) -> f64 {
    let over = |axis: usize| {
        let mut points: Vec<(f64, f64)> = curve.iter().map(|c| (c[axis], c[1 - axis])).collect();
        // A curve falls; of points with equal abscissae the higher one comes first.
        points.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
        points
            .windows(2)
            .map(|pair| 0.5 * (pair[1].0 - pair[0].0) * (pair[0].1 + pair[1].1))
            .sum::<f64>()
    };
    0.5 * (over(0) + over(1))
}

/// The frontier integral of two distributions, in `[0, 1]`; 0 if they are equal (Liu et al. 2021,
/// <https://arxiv.org/abs/2106.07898>, proposition 1, scaled by 2).
pub(super) fn frontier_integral(p: &[f64], q: &[f64]) -> f64 {
    let term = |(p, q): (&f64, &f64)| {
        let (p, q) = (*p, *q);
        if p == 0.0 || q == 0.0 {
            // The limit: the logarithmic mean is 0.
            0.5 * (p + q)
        } else if (p - q).abs() <= 1e-8 {
            0.0
        } else {
            0.5 * (p + q) - p * q * (p / q).ln() / (p - q)
        }
    };
    p.iter().zip(q).map(term).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_histograms_have_full_area() {
        let p = [0.1, 0.2, 0.3, 0.4];
        let found = area(&divergence_curve(&p, &p, 25, 5.0));
        assert!((found - 1.0).abs() < 1e-9, "{found}");
        assert_eq!(frontier_integral(&p, &p), 0.0);
    }

    /// For disjoint supports `KL(q‖r) = −ln(1 − w)` and `KL(p‖r) = −ln w`: the curve is
    /// `((1−w)^c, w^c)`, and the integral is 1.
    #[test]
    fn disjoint_histograms_have_closed_form() {
        let (p, q) = ([0.5, 0.5, 0.0], [0.0, 0.0, 1.0]);
        let curve = divergence_curve(&p, &q, 5, 3.0);
        for (i, point) in curve[1..6].iter().enumerate() {
            let w = 1e-6 + (1.0 - 2e-6) * i as f64 / 4.0;
            assert!((point[0] - (1.0 - w).powi(3)).abs() < 1e-12);
            assert!((point[1] - w.powi(3)).abs() < 1e-12);
        }
        assert_eq!((curve[0], curve[6]), ([1.0, 0.0], [0.0, 1.0]));
        assert!((frontier_integral(&p, &q) - 1.0).abs() < 1e-12);
        // ∫ (1 − x^⅓)³ dx = 1/20.
        let fine = area(&divergence_curve(&p, &q, 20_000, 3.0));
        assert!((fine - 0.05).abs() < 1e-4, "{fine}");
    }
}
