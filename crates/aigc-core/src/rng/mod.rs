//! Seeded random numbers, drawn on the host.
//!
//! The generators of the backends differ in their numbers. All random numbers that affect results
//! therefore come from this module: ChaCha with 12 rounds, keyed by purpose. A seed gives the same
//! samples on every backend, and a resumed run draws the same numbers as an uninterrupted one.
//! [`TorchRng`] draws the numbers of PyTorch instead.

mod torch;

pub use torch::TorchRng;

use crate::{
    params::{ParamVisitor, visit_params},
    weights::RenamedField,
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};
use rand::{Rng as _, RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha12Rng;
use rand_distr::StandardNormal;
use sha2::{Digest, Sha256};
use std::cell::RefCell;

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha12Rng);

impl Rng {
    /// The main stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self::stream(seed, "", 0)
    }

    /// Stream number `index` of `seed` for `purpose`. Streams with different keys are independent.
    pub fn stream(seed: u64, purpose: &str, index: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        hash.update(index.to_le_bytes());
        hash.update(purpose.as_bytes());
        Self(ChaCha12Rng::from_seed(hash.finalize().into()))
    }

    /// Draws 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Draws an integer in `0..n`.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn random_index(&mut self, n: usize) -> usize {
        self.0.random_range(0..n as u64) as usize
    }

    /// The numbers `0..n` in random order.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        order.shuffle(&mut self.0);
        order
    }

    /// `n` samples of the standard normal distribution.
    pub fn normal_vec(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.0.sample(StandardNormal)).collect()
    }

    /// `n` samples of the uniform distribution on `[low, high)`.
    pub fn uniform_vec(&mut self, n: usize, low: f32, high: f32) -> Vec<f32> {
        (0..n)
            .map(|_| low + (high - low) * self.0.random::<f32>())
            .collect()
    }

    /// Standard normal noise of `shape` on `device`.
    pub fn normal<const D: usize>(&mut self, shape: [usize; D], device: &Device) -> Tensor<D> {
        Tensor::from_data(
            TensorData::new(self.normal_vec(shape.iter().product()), shape),
            device,
        )
    }

    /// Uniform noise on `[low, high)` of `shape` on `device`.
    pub fn uniform<const D: usize>(
        &mut self,
        shape: [usize; D],
        low: f32,
        high: f32,
        device: &Device,
    ) -> Tensor<D> {
        Tensor::from_data(
            TensorData::new(self.uniform_vec(shape.iter().product(), low, high), shape),
            device,
        )
    }
}

thread_local! {
    /// The stream that a lazy parameter draws from while [`InitWeights::init_weights`] initialises
    /// it.
    static INITIAL: RefCell<Option<Rng>> = const { RefCell::new(None) };
}

/// Calls `draw` with the stream of the parameter being initialised, or with a fresh unpredictable
/// one if the model is used without [initialisation](InitWeights::init_weights).
pub(crate) fn with_initial_stream<T>(draw: impl FnOnce(&mut Rng) -> T) -> T {
    INITIAL.with_borrow_mut(|stream| match stream {
        Some(rng) => draw(rng),
        None => draw(&mut Rng::new(rand::random())),
    })
}

/// Draws the initial weights of a model.
pub trait InitWeights: Module {
    /// Draws every weight that has no value yet. The value depends only on `seed` and on the path
    /// of the weight in the model: not on the backend, nor on the order of construction or use.
    /// Weights already drawn or loaded keep their values.
    ///
    /// Parameters of burn's own layers are drawn from the backend's generator, reseeded for each:
    /// reproducible on one backend, different on another.
    fn init_weights(self, seed: u64) -> Self {
        init_weights_with(self, seed, &[])
    }
}

/// [`InitWeights::init_weights`] for a model whose fields were renamed: their parameters get the
/// values of their former paths.
pub(crate) fn init_weights_with<M: Module>(model: M, seed: u64, renamed: &[RenamedField]) -> M {
    visit_params(&model, &mut Initialise { seed, renamed });
    model
}

impl<M: Module> InitWeights for M {}

struct Initialise<'a> {
    seed: u64,
    renamed: &'a [RenamedField],
}

impl ParamVisitor for Initialise<'_> {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        if param.is_initialized() {
            return;
        }
        let former = self
            .renamed
            .iter()
            .find_map(|field| field.former_path(path));
        let path = former.as_deref().unwrap_or(path);
        let mut stream = Rng::stream(self.seed, &format!("init/{path}"), 0);
        param.lazy_device().seed(stream.next_u64());
        INITIAL.set(Some(stream));
        param.val();
        INITIAL.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The constants are printed by `tests/reference/rng.py`, an independent ChaCha12: if they
    /// changed, old seeds would no longer give old samples.
    #[test]
    fn draws_match_reference_generator() {
        let mut rng = Rng::new(7);
        assert_eq!(
            [rng.next_u64(), rng.next_u64()],
            [7_525_833_012_303_658_188, 1_565_882_059_152_209_361]
        );
        let mut rng = Rng::stream(7, "noise", 3);
        assert_eq!(
            [rng.next_u64(), rng.next_u64()],
            [11_775_357_753_938_359_203, 1_618_741_409_339_596_601]
        );
        // Samples of the distributions for these bits, recorded once.
        let normals = Rng::stream(7, "noise", 3).normal_vec(2);
        assert_eq!(
            normals.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
            [1_052_260_055, 3_218_926_847]
        );
        assert_eq!(Rng::new(7).permutation(6), [2, 0, 1, 3, 4, 5]);
    }

    #[test]
    fn streams_differ_by_key() {
        let draw = |seed, purpose, index| Rng::stream(seed, purpose, index).next_u64();
        let all = [
            draw(1, "a", 0),
            draw(2, "a", 0),
            draw(1, "b", 0),
            draw(1, "a", 1),
        ];
        for i in 0..4 {
            for j in 0..i {
                assert_ne!(all[i], all[j]);
            }
        }
    }

    #[test]
    fn normals_have_moments_of_normal_distribution() {
        let n = 200_000;
        let draws = Rng::new(1).normal_vec(n);
        let moment = |k: i32| draws.iter().map(|x| (*x as f64).powi(k)).sum::<f64>() / n as f64;
        // Standard errors: 1/√n, √2/√n, √15/√n, √96/√n; five of them each.
        let se = 5.0 / (n as f64).sqrt();
        assert!(moment(1).abs() < se);
        assert!((moment(2) - 1.0).abs() < 1.42 * se);
        assert!(moment(3).abs() < 3.88 * se);
        assert!((moment(4) - 3.0).abs() < 9.8 * se);
    }

    #[test]
    fn random_index_is_uniform() {
        let mut counts = [0usize; 7];
        let mut rng = Rng::new(2);
        for _ in 0..70_000 {
            counts[rng.random_index(7)] += 1;
        }
        // χ² with 6 degrees of freedom: 22.46 is its 99.9 % point.
        let chi2: f64 = counts
            .iter()
            .map(|c| (*c as f64 - 10_000.0).powi(2) / 10_000.0)
            .sum();
        assert!(chi2 < 22.46, "{chi2}");
    }
}
