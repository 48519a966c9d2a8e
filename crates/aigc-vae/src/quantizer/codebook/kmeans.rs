//! The codes that a codebook starts with: the k-means of the vectors of a batch.

use super::{
    VectorQuantizer,
    nearest::nearest_rows,
    update::{State, assigned},
};
use aigc_core::rng::Rng;
use burn::tensor::{Int, Tensor, TensorData};
use std::collections::HashSet;

/// Steps of Lloyd's algorithm that start a codebook.
const LLOYD_STEPS: usize = 10;

impl VectorQuantizer {
    /// Clusters of `[n, dim]` vectors by Lloyd's algorithm, started from distinct random vectors.
    pub(super) fn kmeans(&self, vectors: Tensor<2>, rng: &mut Rng) -> State {
        let (k, d) = (self.config.num_codes, self.config.dim);
        let mut codes = distinct_rows(&vectors, k, rng);
        let mut counts = Tensor::zeros([k], &vectors.device());
        for _ in 0..LLOYD_STEPS {
            let indices = nearest_rows(vectors.clone(), self.normalized(codes.clone()));
            let (count, sum) = assigned(vectors.clone(), indices, k);
            let mean = sum / count.clone().clamp_min(1.0).unsqueeze_dim::<2>(1);
            let is_used = count.clone().greater_elem(0.5);
            let is_used = is_used.unsqueeze_dim::<2>(1).expand([k, d]);
            (codes, counts) = (codes.mask_where(is_used, mean), count);
        }
        let counts = counts.clamp_min(1.0);
        State {
            sums: Some(codes.clone() * counts.clone().unsqueeze_dim::<2>(1)),
            codes,
            counts,
        }
    }
}

/// Draws `count` rows with different values; if there are fewer of them, rows are repeated.
fn distinct_rows(vectors: &Tensor<2>, count: usize, rng: &mut Rng) -> Tensor<2> {
    let [n, dim] = vectors.dims();
    let values: Vec<f32> = vectors.to_data().iter::<f32>().collect();
    let bits = |row: usize| -> Vec<u32> {
        let row = &values[row * dim..][..dim];
        row.iter().map(|value| value.to_bits()).collect()
    };
    let order = rng.permutation(n);
    let mut seen = HashSet::new();
    let distinct = order.iter().copied().filter(|row| seen.insert(bits(*row)));
    let mut rows: Vec<usize> = distinct.take(count).collect();
    rows.extend(order.into_iter().cycle().take(count - rows.len()));
    let rows: Vec<i32> = rows.into_iter().map(|row| row as i32).collect();
    let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &vectors.device());
    vectors.clone().select(0, rows)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::super::{VectorQuantizerConfig, testing::config};
    use crate::Quantizer;
    use aigc_core::{
        rng::{InitWeights, Rng},
        testing::{assert_close, values},
    };
    use burn::tensor::{Device, Tensor, TensorData};

    #[test]
    fn kmeans_start_finds_separate_clusters() {
        let device = Device::flex();
        let config = VectorQuantizerConfig {
            kmeans_start: true,
            ..config()
        };
        let quantizer = config.init(&device).unwrap().init_weights(1);
        let centres = [[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0f32]];
        let noise = Rng::new(1).normal_vec(2 * 300);
        let x: Vec<f32> = (0..600)
            .map(|i| centres[i / 2 % 3][i % 2] + 0.1 * noise[i])
            .collect();
        let x = Tensor::<3>::from_data(TensorData::new(x, [3, 100, 2]), &device);
        // Lloyd's algorithm may end in another minimum for some starts, not for all.
        let found = (0..40).any(|seed| {
            let output = quantizer.quantize_with(x.clone(), &mut Rng::new(seed));
            let started = quantizer.clone().update(&[output]);
            let codes = values(started.codes.val());
            centres.iter().all(|centre| {
                codes.chunks(2).any(|code| {
                    // Five standard errors of the mean of 100 vectors.
                    (code[0] - centre[0]).abs() < 0.05 && (code[1] - centre[1]).abs() < 0.05
                })
            })
        });
        assert!(found);
        // The second update follows the moving averages.
        let started = quantizer.clone().update(&[quantizer.quantize(x.clone())]);
        let next = started.clone().update(&[started.quantize(x)]);
        assert_close(
            &values(next.codes.val()),
            &values(started.codes.val()),
            0.01,
        );
    }
}
