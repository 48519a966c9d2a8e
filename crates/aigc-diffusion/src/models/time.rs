//! The encoding of the time.

use aigc_core::nn::{Activation, Linear, LinearConfig};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// Sines and cosines of a time (Vaswani et al. 2017, section 3.5), half and half.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sinusoids {
    /// Number of sines and cosines.
    pub(crate) width: usize,
    /// Cosines before sines.
    pub(crate) cosines_first: bool,
    /// How much lower the last frequency is than 1 / 10,000 of the first would have it.
    pub(crate) shift: f64,
}

impl Sinusoids {
    /// # Shapes
    /// - time: `[batch]`
    /// - output: `[batch, width]`
    pub(crate) fn of(self, time: Tensor<1>) -> Tensor<2> {
        let half = self.width / 2;
        // In 32 bits, as networks in circulation were trained: at late times a last digit differs.
        let frequency = |i: usize| {
            (-(10_000f64.ln()) as f32 * i as f32 / (half as f32 - self.shift as f32)).exp()
        };
        let frequencies: Vec<f32> = (0..half).map(frequency).collect();
        let frequencies =
            Tensor::<1>::from_floats(frequencies.as_slice(), &time.device()).reshape([1, half]);
        let angles = time.reshape([-1, 1]) * frequencies;
        let (sines, cosines) = (angles.clone().sin(), angles.cos());
        let pair = if self.cosines_first {
            vec![cosines, sines]
        } else {
            vec![sines, cosines]
        };
        Tensor::cat(pair, 1)
    }
}

/// Two layers from the encoded time to its embedding.
#[derive(Module, Debug)]
pub(crate) struct TimeEmbedding {
    linear_1: Linear,
    /// From a second condition to the input of the first layer, for a network that has one.
    cond_proj: Option<Linear>,
    linear_2: Linear,
    #[module(skip)]
    activation: Activation,
}

impl TimeEmbedding {
    pub(crate) fn new(
        input: usize,
        output: usize,
        activation: Activation,
        device: &Device,
    ) -> Self {
        Self {
            linear_1: LinearConfig::new(input, output).init(device),
            cond_proj: None,
            linear_2: LinearConfig::new(output, output).init(device),
            activation,
        }
    }

    /// Adds a second condition of this width; `input` as for [`new`](Self::new).
    pub(crate) fn with_condition(mut self, width: usize, input: usize, device: &Device) -> Self {
        let config = LinearConfig::new(width, input).with_bias(false);
        self.cond_proj = Some(config.init(device));
        self
    }

    /// The embedding of the time alone.
    pub(crate) fn without_condition(self) -> Self {
        Self {
            cond_proj: None,
            ..self
        }
    }

    /// [`forward`](Self::forward) with a second condition, `[batch, width]`.
    ///
    /// # Panics
    /// If the network has none.
    pub(crate) fn forward_with_condition(
        &self,
        sinusoids: Tensor<2>,
        condition: Tensor<2>,
    ) -> Tensor<2> {
        let projection = self.cond_proj.as_ref();
        let projection = projection.expect("a network without time_cond_proj_dim");
        self.forward(sinusoids + projection.forward(condition))
    }

    pub(crate) fn forward(&self, sinusoids: Tensor<2>) -> Tensor<2> {
        self.linear_2
            .forward(self.activation.forward(self.linear_1.forward(sinusoids)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_core::device::device;

    #[test]
    fn sinusoids_match_their_formula() {
        let flex = device("flex").unwrap();
        for (cosines_first, shift) in [(true, 0.0), (false, 1.0)] {
            let sinusoids = Sinusoids {
                width: 8,
                cosines_first,
                shift,
            };
            let found = sinusoids
                .of(Tensor::from_floats([3.0, 871.0], &flex))
                .into_data()
                .iter::<f32>()
                .collect::<Vec<_>>();
            for (row, time) in [3.0f64, 871.0].into_iter().enumerate() {
                for i in 0..4 {
                    let angle = time * 10_000f64.powf(-(i as f64) / (4.0 - shift));
                    let (sine, cosine) = (
                        found[8 * row + i + 4 * usize::from(cosines_first)],
                        found[8 * row + i + 4 * usize::from(!cosines_first)],
                    );
                    assert!(
                        (f64::from(sine) - angle.sin()).abs() < 1e-4
                            && (f64::from(cosine) - angle.cos()).abs() < 1e-4
                    );
                }
            }
        }
    }
}
