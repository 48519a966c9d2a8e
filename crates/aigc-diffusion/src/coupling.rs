//! Which noise goes with which image.

use pathfinding::prelude::{Matrix, kuhn_munkres_min};

/// For each of `n` images the noise that goes with it, so that the costs of all pairs add up to the
/// least: `costs` has `n` rows, one for each image, of `n` noises. With `labels`, noise is
/// exchanged within a class only.
pub(crate) fn optimal(costs: &[f64], labels: Option<&[u32]>) -> Vec<usize> {
    let n = costs.len().isqrt();
    let mut order: Vec<usize> = (0..n).collect();
    let mut groups: Vec<Vec<usize>> = vec![];
    match labels {
        None => groups.push(order.clone()),
        Some(labels) => {
            for i in 0..n {
                match groups
                    .iter_mut()
                    .find(|group| labels[group[0]] == labels[i])
                {
                    Some(group) => group.push(i),
                    None => groups.push(vec![i]),
                }
            }
        }
    }
    for group in groups.iter().filter(|group| group.len() > 1) {
        let cost = |i: usize, j: usize| costs[group[i] * n + group[j]];
        let all = (0..group.len()).flat_map(|i| (0..group.len()).map(move |j| cost(i, j)));
        let largest = all.fold(1e-30f64, |most, cost| most.max(cost.abs()));
        // Whole numbers, so that the search ends; their sums stay far from the ends of their range.
        let whole = |(i, j): (usize, usize)| (cost(i, j) / largest * 1e12) as i64;
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

    fn costs(images: &[f32], noise: &[f32], width: usize) -> Vec<f64> {
        let rows = |values: &[f32]| {
            values
                .chunks_exact(width)
                .map(<[f32]>::to_vec)
                .collect::<Vec<_>>()
        };
        let square = |x: &[f32], e: &[f32]| {
            x.iter()
                .zip(e)
                .map(|(x, e)| f64::from(x - e).powi(2))
                .sum::<f64>()
        };
        let noise = rows(noise);
        rows(images)
            .iter()
            .flat_map(|x| noise.iter().map(|e| square(x, e)).collect::<Vec<_>>())
            .collect()
    }

    /// Against all pairings.
    #[test]
    fn coupling_is_optimal() {
        let (n, width) = (6, 3);
        let mut rng = Rng::new(4);
        for _ in 0..10 {
            let costs = costs(
                &rng.normal_vec(n * width),
                &rng.normal_vec(n * width),
                width,
            );
            let cost = |order: &[usize]| -> f64 {
                order
                    .iter()
                    .enumerate()
                    .map(|(i, j)| costs[i * n + j])
                    .sum()
            };
            let found = optimal(&costs, None);
            let mut best = f64::INFINITY;
            let mut order: Vec<usize> = (0..n).collect();
            permute(&mut order, 0, &mut |order| best = best.min(cost(order)));
            assert!(
                (cost(&found) - best).abs() < 1e-6,
                "{} {best}",
                cost(&found)
            );
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
    fn coupling_stays_within_classes() {
        let mut rng = Rng::new(5);
        let (images, noise) = (rng.normal_vec(20), rng.normal_vec(20));
        let labels: Vec<u32> = (0..20).map(|i| i % 3).collect();
        let order = optimal(&costs(&images, &noise, 1), Some(&labels));
        assert!(
            order
                .iter()
                .enumerate()
                .all(|(i, j)| labels[i] == labels[*j])
        );
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
