//! Which noise goes with which image.

use pathfinding::prelude::{Matrix, kuhn_munkres_min};

/// For each image the noise that goes with it, so that the squared distances of all pairs add up to the least
/// (`images` and `noise`: rows of `width` values). With `labels`, noise is exchanged within a class only.
pub(crate) fn optimal(images: &[f32], noise: &[f32], width: usize, labels: Option<&[u32]>) -> Vec<usize> {
    let n = images.len() / width;
    let mut order: Vec<usize> = (0..n).collect();
    let mut groups: Vec<Vec<usize>> = vec![];
    match labels {
        None => groups.push(order.clone()),
        Some(labels) => {
            for i in 0..n {
                match groups.iter_mut().find(|group| labels[group[0]] == labels[i]) {
                    Some(group) => group.push(i),
                    None => groups.push(vec![i]),
                }
            }
        }
    }
    let row = |values: &'_ [f32], i: usize| -> Vec<f64> {
        values[i * width..(i + 1) * width].iter().map(|value| f64::from(*value)).collect()
    };
    for group in groups.iter().filter(|group| group.len() > 1) {
        let rows: Vec<_> = group.iter().map(|i| (row(images, *i), row(noise, *i))).collect();
        // ‖x − ε‖² without what does not depend on the pairing.
        let cost = |i: usize, j: usize| -rows[i].0.iter().zip(&rows[j].1).map(|(x, e)| x * e).sum::<f64>();
        let costs: Vec<Vec<f64>> = (0..group.len()).map(|i| (0..group.len()).map(|j| cost(i, j)).collect()).collect();
        let largest = costs.iter().flatten().fold(1e-30f64, |most, cost| most.max(cost.abs()));
        // Whole numbers, so that the search ends; their sums stay far from the ends of their range.
        let whole = |(i, j): (usize, usize)| (costs[i][j] / largest * 1e12) as i64;
        let (_, pairs) = kuhn_munkres_min(&Matrix::from_fn(group.len(), group.len(), whole));
        for (i, j) in pairs.into_iter().enumerate() {
            order[group[i]] = group[j];
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_core::rng::Rng;

    /// Against all pairings.
    #[test]
    fn no_other_pairing_is_nearer() {
        let (n, width) = (6, 3);
        let mut rng = Rng::new(4);
        for _ in 0..10 {
            let (images, noise) = (rng.normals(n * width), rng.normals(n * width));
            let cost = |order: &[usize]| -> f64 {
                let of = |i: usize, j: usize| {
                    (0..width).map(|k| f64::from(images[i * width + k] - noise[j * width + k]).powi(2)).sum::<f64>()
                };
                order.iter().enumerate().map(|(i, j)| of(i, *j)).sum()
            };
            let found = optimal(&images, &noise, width, None);
            let mut best = f64::INFINITY;
            let mut order: Vec<usize> = (0..n).collect();
            permute(&mut order, 0, &mut |order| best = best.min(cost(order)));
            assert!((cost(&found) - best).abs() < 1e-6, "{} {best}", cost(&found));
        }
    }

    fn permute(order: &mut Vec<usize>, at: usize, each: &mut impl FnMut(&[usize])) {
        if at == order.len() {
            return each(order);
        }
        for i in at..order.len() {
            order.swap(at, i);
            permute(order, at + 1, each);
            order.swap(at, i);
        }
    }

    #[test]
    fn noise_stays_within_its_class() {
        let mut rng = Rng::new(5);
        let (images, noise) = (rng.normals(20), rng.normals(20));
        let labels: Vec<u32> = (0..20).map(|i| i % 3).collect();
        let order = optimal(&images, &noise, 1, Some(&labels));
        assert!(order.iter().enumerate().all(|(i, j)| labels[i] == labels[*j]));
        let mut all = order.clone();
        all.sort_unstable();
        assert_eq!(all, (0..20).collect::<Vec<_>>());
        assert_ne!(order, all, "something is exchanged");
        // In one dimension the nearest pairing keeps the order of values.
        for class in 0..3 {
            let mut members: Vec<usize> = (0..20).filter(|i| labels[*i] == class).collect();
            members.sort_by(|a, b| images[*a].total_cmp(&images[*b]));
            let partners: Vec<f32> = members.iter().map(|i| noise[order[*i]]).collect();
            assert!(partners.is_sorted(), "{partners:?}");
        }
    }
}
