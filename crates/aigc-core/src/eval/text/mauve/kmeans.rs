//! k-means clustering.

use crate::{
    Result,
    eval::{
        Features,
        features::pairwise::{for_each_block, squared_norms},
    },
    rng::Rng,
};

/// How to cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct KMeans {
    pub(super) clusters: usize,
    pub(super) restarts: usize,
    pub(super) max_iterations: usize,
    pub(super) seed: u64,
}

impl KMeans {
    /// The cluster of each point, of the restart with the smallest sum of squared distances:
    /// Lloyd's iterations from the seeds of k-means++ (Arthur and Vassilvitskii 2007). There must
    /// be at least as many points as clusters.
    pub(super) fn labels(&self, points: &Features) -> Result<Vec<usize>> {
        let mut best: Option<State> = None;
        for restart in 0..self.restarts {
            let mut rng = Rng::stream(self.seed, "kmeans", restart as u64);
            let state = self.run(points, &mut rng)?;
            if best.as_ref().is_none_or(|best| state.sum() < best.sum()) {
                best = Some(state);
            }
        }
        Ok(best.map_or_else(Vec::new, |state| state.labels))
    }

    fn run(&self, points: &Features, rng: &mut Rng) -> Result<State> {
        let norms = squared_norms(points);
        let mut centres = points.select(&plus_plus(points, &norms, self.clusters, rng));
        let mut state = State {
            labels: vec![usize::MAX; points.len()],
            distances: vec![0.0; points.len()],
        };
        for iteration in 0.. {
            let changed = state.assign(points, &norms, &centres);
            if !changed || iteration == self.max_iterations {
                break;
            }
            centres = state.update(points, &centres)?;
        }
        Ok(state)
    }
}

/// The nearest centre of each point, and the squared distance from it.
struct State {
    labels: Vec<usize>,
    distances: Vec<f64>,
}

impl State {
    fn sum(&self) -> f64 {
        self.distances.iter().sum()
    }

    /// Assigns the points to the nearest centres; returns whether a label changed.
    fn assign(&mut self, points: &Features, norms: &[f64], centres: &Features) -> bool {
        let centre_norms = squared_norms(centres);
        let mut changed = false;
        for_each_block(points, centres, |first, _, products| {
            for (i, row) in products.chunks_exact(centres.len()).enumerate() {
                let point = first + i;
                let (mut label, mut least) = (0, f64::INFINITY);
                for (k, (product, norm)) in row.iter().zip(&centre_norms).enumerate() {
                    let relative = norm - 2.0 * product;
                    if relative < least {
                        (label, least) = (k, relative);
                    }
                }
                changed |= self.labels[point] != label;
                self.labels[point] = label;
                self.distances[point] = (norms[point] + least).max(0.0);
            }
        });
        changed
    }

    /// The means of the clusters. An empty cluster moves to the point that is farthest from its own
    /// centre.
    fn update(&mut self, points: &Features, centres: &Features) -> Result<Features> {
        let width = points.width();
        let mut counts = vec![0usize; centres.len()];
        let mut sums = vec![0.0; centres.values().len()];
        for (row, label) in points.rows().zip(&self.labels) {
            counts[*label] += 1;
            let sum = &mut sums[label * width..][..width];
            for (sum, x) in sum.iter_mut().zip(row) {
                *sum += f64::from(*x);
            }
        }
        let mut means = Vec::with_capacity(sums.len());
        for (k, count) in counts.iter().enumerate() {
            if *count > 0 {
                let sum = &sums[k * width..][..width];
                means.extend(sum.iter().map(|sum| (sum / *count as f64) as f32));
                continue;
            }
            let farthest = (0..points.len())
                .filter(|point| self.distances[*point] > 0.0)
                .max_by(|a, b| self.distances[*a].total_cmp(&self.distances[*b]));
            match farthest {
                Some(point) => {
                    self.distances[point] = 0.0;
                    means.extend(points.row(point));
                }
                // Every point lies on a centre.
                None => means.extend(centres.row(k)),
            }
        }
        Features::new(means, width)
    }
}

/// Points for the first centres: each drawn with a probability proportional to its squared distance
/// from the nearest one before.
fn plus_plus(points: &Features, norms: &[f64], clusters: usize, rng: &mut Rng) -> Vec<usize> {
    let mut chosen = vec![rng.random_index(points.len())];
    let mut distances = vec![f64::INFINITY; points.len()];
    while chosen.len() < clusters {
        let last = chosen[chosen.len() - 1];
        for_each_block(points, &points.select(&[last]), |first, _, products| {
            for (i, product) in products.iter().enumerate() {
                let point = first + i;
                let distance = norms[point] + norms[last] - 2.0 * product;
                distances[point] = distances[point].min(distance.max(0.0));
            }
        });
        // Rounding may leave a distance from itself.
        distances[last] = 0.0;
        chosen.push(draw(&distances, rng));
    }
    chosen
}

/// An index with a probability proportional to its weight; uniform if all weights are zero.
fn draw(weights: &[f64], rng: &mut Rng) -> usize {
    let total: f64 = weights.iter().sum();
    if total <= 0.0 {
        return rng.random_index(weights.len());
    }
    let mut left = total * ((rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64);
    let mut last = 0;
    for (i, weight) in weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
        last = i;
        left -= weight;
        if left < 0.0 {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(points: &Features, clusters: usize) -> Vec<usize> {
        let kmeans = KMeans {
            clusters,
            restarts: 3,
            max_iterations: 100,
            seed: 1,
        };
        kmeans.labels(points).unwrap()
    }

    #[test]
    fn separated_clusters_are_found() {
        let mut values = Rng::new(5).normal_vec(2 * 200);
        for (i, row) in values.chunks_exact_mut(2).enumerate() {
            row[0] += 100.0 * (i % 2) as f32;
            row[1] += 100.0 * (i % 4 / 2) as f32;
        }
        let labels = cluster(&Features::new(values, 2).unwrap(), 4);
        let mut names = labels[..4].to_vec();
        for (i, label) in labels.iter().enumerate() {
            assert_eq!(*label, names[i % 4]);
        }
        names.sort_unstable();
        assert_eq!(names, [0, 1, 2, 3]);
    }

    #[test]
    fn equal_points_share_a_cluster() {
        let points = Features::new(vec![2.0; 10], 1).unwrap();
        assert_eq!(cluster(&points, 3), [0; 10]);
        let points = Features::new(vec![1.0, 1.0, 7.0], 1).unwrap();
        let labels = cluster(&points, 3);
        assert_eq!(labels[0], labels[1]);
        assert_ne!(labels[0], labels[2]);
    }

    #[test]
    fn weights_are_drawn_in_proportion() {
        let mut rng = Rng::new(9);
        let mut counts = [0; 4];
        for _ in 0..4000 {
            counts[draw(&[0.0, 1.0, 3.0, 0.0], &mut rng)] += 1;
        }
        assert_eq!((counts[0], counts[3]), (0, 0));
        // Four standard deviations of a binomial count.
        assert!((counts[1] - 1000i32).abs() < 110, "{counts:?}");
    }
}
