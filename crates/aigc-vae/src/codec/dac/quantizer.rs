//! The quantiser of DAC: latents are projected to a few dimensions, where the code of the most
//! similar direction is looked up (Yu et al. 2022, <https://arxiv.org/abs/2110.04627>, §3.2).

use super::DacConfig;
use crate::quantizer::{nearest_rows, straight_through};
use aigc_core::{
    nn::{Conv1d, Conv1dConfig, Initializer},
    rng::Rng,
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor, TensorData},
};

/// Least length of a vector that is normalised.
const LEAST_NORM: f64 = 1e-12;

/// A table of codes, with a field of its own as in transformers.
#[derive(Module, Debug)]
struct Codebook {
    /// `[codebook_size, codebook_dim]`
    weight: Param<Tensor<2>>,
}

/// One stage of a [`DacResidualQuantizer`].
#[derive(Module, Debug)]
pub struct DacQuantizer {
    in_proj: Conv1d,
    out_proj: Conv1d,
    codebook: Codebook,
}

/// What a stage makes of its input.
struct Stage {
    /// With the gradient of the input, `[batch, hidden_size, frames]`.
    values: Tensor<3>,
    /// `[batch, frames]`
    codes: Tensor<2, Int>,
    /// `[batch, codebook_dim, frames]`
    projected: Tensor<3>,
    /// Mean squares of every sample, `[batch]`.
    commitment: Tensor<1>,
    codebook: Tensor<1>,
}

impl DacQuantizer {
    fn new(config: &DacConfig, weight_norm: bool, device: &Device) -> Self {
        let (hidden, dim, size) = (
            config.hidden_size(),
            config.codebook_dim,
            config.codebook_size,
        );
        let project = |channels| {
            Conv1dConfig::new(channels, 1)
                .with_weight_norm(weight_norm)
                .init(device)
        };
        let standard = Initializer::Normal {
            mean: 0.0,
            std: 1.0,
        };
        Self {
            in_proj: project([hidden, dim]),
            out_proj: project([dim, hidden]),
            codebook: Codebook {
                weight: standard.param([size, dim], dim, size, device),
            },
        }
    }

    /// The codes, `[codebook_size, codebook_dim]`.
    pub fn codes(&self) -> Tensor<2> {
        self.codebook.weight.val()
    }

    /// The values of codes in the projected space.
    ///
    /// # Shapes
    /// - codes: `[batch, frames]`
    /// - output: `[batch, codebook_dim, frames]`
    fn look_up(&self, codes: Tensor<2, Int>) -> Tensor<3> {
        let [batch, frames] = codes.dims();
        let rows = self.codes().select(0, codes.reshape([batch * frames]));
        let dim = rows.dims()[1];
        rows.reshape([batch, frames, dim]).swap_dims(1, 2)
    }

    /// The code of the direction that is nearest to each vector's.
    ///
    /// # Shapes
    /// - projected: `[batch, codebook_dim, frames]`
    /// - output: `[batch, frames]`
    fn nearest(&self, projected: Tensor<3>) -> Tensor<2, Int> {
        let [batch, dim, frames] = projected.dims();
        let rows = projected.without_autodiff().swap_dims(1, 2);
        let rows = rows.reshape([batch * frames, dim]);
        let table = directions(self.codes().without_autodiff());
        nearest_rows(directions(rows), table).reshape([batch, frames])
    }

    fn forward(&self, x: Tensor<3>) -> Stage {
        let projected = self.in_proj.forward(x);
        let codes = self.nearest(projected.clone());
        let values = self.look_up(codes.clone());
        let through = straight_through(projected.clone(), values.clone());
        Stage {
            values: self.out_proj.forward(through),
            commitment: mean_squares(projected.clone() - values.clone().detach()),
            codebook: mean_squares(values - projected.clone().detach()),
            codes,
            projected,
        }
    }

    fn fold(self) -> Self {
        Self {
            in_proj: self.in_proj.fold(),
            out_proj: self.out_proj.fold(),
            ..self
        }
    }
}

fn directions(rows: Tensor<2>) -> Tensor<2> {
    let norm = (rows.clone() * rows.clone()).sum_dim(1).sqrt();
    rows / norm.clamp_min(LEAST_NORM)
}

/// The mean square of every sample, `[batch]`.
fn mean_squares(gap: Tensor<3>) -> Tensor<1> {
    let [batch, ..] = gap.dims();
    let squares = gap.clone() * gap;
    squares.flatten::<2>(1, 2).mean_dim(1).reshape([batch])
}

/// Latents as sums of codes: each stage quantises what the stages before it left over.
#[derive(Module, Debug)]
pub struct DacResidualQuantizer {
    quantizers: Vec<DacQuantizer>,
    dropout: f64,
}

/// The result of quantising latents.
#[derive(Clone, Debug)]
pub struct DacOutput {
    /// The sum of the values of the codes, with the gradient of the latents,
    /// `[batch, hidden_size, frames]`.
    pub quantized: Tensor<3>,
    /// Codes, `[batch, codebooks, frames]`.
    pub codes: Tensor<3, Int>,
    /// Latents in the space of each codebook before they were quantised,
    /// `[batch, codebooks·codebook_dim, frames]`.
    pub projected: Tensor<3>,
    /// Mean square of the differences of latents to their codes, whose gradient is the latents',
    /// summed over codebooks, `[1]`.
    pub commitment: Tensor<1>,
    /// The same value with the gradient of the codes, `[1]`.
    pub codebook: Tensor<1>,
}

impl DacResidualQuantizer {
    pub(super) fn new(config: &DacConfig, weight_norm: bool, device: &Device) -> Self {
        let stages = 0..config.n_codebooks;
        Self {
            quantizers: stages
                .map(|_| DacQuantizer::new(config, weight_norm, device))
                .collect(),
            dropout: config.quantizer_dropout,
        }
    }

    /// The stages.
    pub fn quantizers(&self) -> &[DacQuantizer] {
        &self.quantizers
    }

    /// Quantises latents by the first stages, without random numbers.
    ///
    /// # Shapes
    /// - latents: `[batch, hidden_size, frames]`
    ///
    /// # Panics
    /// If there are not as many stages, none are asked for, or the latents have other channels.
    pub fn quantize(&self, latents: Tensor<3>, n_quantizers: usize) -> DacOutput {
        self.quantize_masked(latents, n_quantizers, None)
    }

    /// Quantises latents in training: with dropout, some samples by fewer stages.
    pub(super) fn quantize_with(&self, latents: Tensor<3>, rng: &mut Rng) -> DacOutput {
        let [batch, ..] = latents.dims();
        let stages = self.quantizers.len();
        let dropped = (batch as f64 * self.dropout) as usize;
        let active: Vec<usize> = (0..batch)
            .map(|sample| match sample < dropped {
                true => 1 + rng.random_index(stages),
                false => stages,
            })
            .collect();
        let active = (dropped > 0).then_some(active);
        self.quantize_masked(latents, stages, active.as_deref())
    }

    /// All stages quantise; a stage beyond those of a sample adds nothing to it.
    fn quantize_masked(
        &self,
        latents: Tensor<3>,
        count: usize,
        active: Option<&[usize]>,
    ) -> DacOutput {
        let device = latents.device();
        let mut residual = latents;
        let (mut codes, mut projected) = (vec![], vec![]);
        let (mut values, mut losses) = (vec![], vec![]);
        for (index, stage) in self.quantizers[..count].iter().enumerate() {
            let mut found = stage.forward(residual.clone());
            residual = residual - found.values.clone();
            if let Some(active) = active {
                let mask: Vec<f32> = active.iter().map(|of| f32::from(index < *of)).collect();
                let batch = mask.len();
                let mask = Tensor::<1>::from_data(TensorData::new(mask, [batch]), &device);
                found.values = found.values * mask.clone().reshape([batch, 1, 1]);
                found.commitment = found.commitment * mask.clone();
                found.codebook = found.codebook * mask;
            }
            values.push(found.values);
            losses.push([found.commitment.mean(), found.codebook.mean()]);
            codes.push(found.codes);
            projected.push(found.projected);
        }
        let sum = |index: usize| {
            let terms: Vec<Tensor<1>> = losses.iter().map(|pair| pair[index].clone()).collect();
            Tensor::cat(terms, 0).sum()
        };
        let quantized = values.into_iter().reduce(|sum, value| sum + value);
        DacOutput {
            quantized: quantized.expect("at least one stage"),
            codes: Tensor::stack(codes, 1),
            projected: Tensor::cat(projected, 1),
            commitment: sum(0),
            codebook: sum(1),
        }
    }

    /// The latents of codes of the first stages.
    ///
    /// # Shapes
    /// - codes: `[batch, codebooks, frames]`
    /// - output: `[batch, hidden_size, frames]`
    pub(super) fn dequantize(&self, codes: Tensor<3, Int>) -> Tensor<3> {
        let [batch, given, frames] = codes.dims();
        let stages = self.quantizers[..given].iter().enumerate();
        let values = stages.map(|(index, stage)| {
            let codes = codes.clone().narrow(1, index, 1);
            let codes = codes.reshape([batch, frames]);
            stage.out_proj.forward(stage.look_up(codes))
        });
        let sum = values.reduce(|sum, value| sum + value);
        sum.expect("at least one stage")
    }

    pub(super) fn fold(self) -> Self {
        Self {
            quantizers: self
                .quantizers
                .into_iter()
                .map(DacQuantizer::fold)
                .collect(),
            ..self
        }
    }
}
