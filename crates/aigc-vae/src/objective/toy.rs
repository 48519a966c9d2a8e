//! A model whose terms have closed forms, for tests.

use crate::{Condition, DiagonalGaussian, Likelihood, LikelihoodKind, Vae};
use aigc_core::data::{SampleBatch, SampleShape};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};

/// Samples of two values.
pub(crate) const POINTS: [[f32; 2]; 4] = [[0.5, 2.0], [-1.0, 1.0], [0.25, -3.0], [0.0, 1.5]];

/// A batch of samples of two values without bounds.
#[derive(Debug)]
pub(crate) struct Points(pub(crate) Vec<[f32; 2]>);

impl SampleBatch<2> for Points {
    fn to_tensor(&self, device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(self.0.concat(), [self.0.len(), 2]), device)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn sample_shape(&self) -> SampleShape {
        SampleShape::new(&[2])
    }
}

/// The posterior of `x` is `N(scale·x, I)`, with a scale of 1 at first, and the decoder is the
/// identity. The dimensions are one group of latents, or two.
#[derive(Module, Debug)]
pub(crate) struct Toy {
    pub(crate) scale: Param<Tensor<1>>,
    #[module(skip)]
    likelihood: LikelihoodKind,
    groups: usize,
}

impl Toy {
    /// A model with 1 or 2 groups, on the device with autodiff.
    pub(crate) fn new(likelihood: LikelihoodKind, groups: usize) -> Self {
        let one = Tensor::from_floats([1.0], &Device::flex().autodiff());
        Self {
            scale: Param::from_tensor(one),
            likelihood,
            groups,
        }
    }

    /// The mean divergence of each dimension for [`POINTS`]: the mean of `½·x²`.
    pub(crate) fn group_kl() -> [f64; 2] {
        [0, 1].map(|axis| {
            let squares = POINTS.iter().map(|x| f64::from(x[axis]).powi(2));
            0.5 * squares.sum::<f64>() / POINTS.len() as f64
        })
    }
}

impl Vae<2, 2> for Toy {
    type Posterior = DiagonalGaussian;

    fn encode(&self, x: Tensor<2>) -> DiagonalGaussian {
        let mean = x * self.scale.val().unsqueeze::<2>();
        DiagonalGaussian {
            logvar: mean.zeros_like(),
            mean,
        }
    }

    fn decode(&self, z: Tensor<2>) -> Likelihood<2> {
        Likelihood::new(self.likelihood, z)
    }

    fn latent_shape(&self) -> SampleShape {
        SampleShape::new(&[2])
    }

    fn sample_shape(&self) -> SampleShape {
        SampleShape::new(&[2])
    }

    fn kl(&self, posterior: &DiagonalGaussian, _: Tensor<2>, _: &Condition) -> Vec<Tensor<1>> {
        if self.groups == 1 {
            return vec![posterior.kl()];
        }
        let part = |axis| DiagonalGaussian {
            mean: posterior.mean.clone().narrow(1, axis, 1),
            logvar: posterior.logvar.clone().narrow(1, axis, 1),
        };
        (0..2).map(|axis| part(axis).kl()).collect()
    }
}
