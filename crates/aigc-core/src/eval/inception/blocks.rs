//! The blocks of the network (Szegedy et al. 2016, figures 5 to 7 and 10), in the form of the FID's
//! weights: means leave out padding, and the last block takes a maximum in place of a mean.
//!
//! A mean over pixels and a convolution of one pixel may change places. The mean comes second here:
//! it then has fewer channels.

use super::layers::{BasicConv2d, max_around, max_pool, mean_around};
use crate::nn::Activation;
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

#[derive(Module, Debug)]
pub(super) struct InceptionA {
    branch1x1: BasicConv2d,
    branch5x5_1: BasicConv2d,
    branch5x5_2: BasicConv2d,
    branch3x3dbl_1: BasicConv2d,
    branch3x3dbl_2: BasicConv2d,
    branch3x3dbl_3: BasicConv2d,
    branch_pool: BasicConv2d,
}

impl InceptionA {
    pub(super) fn new(channels: usize, pooled: usize, device: &Device) -> Self {
        let pointwise = |out| BasicConv2d::pointwise([channels, out], device);
        let same = |channels, side| BasicConv2d::same(channels, [side; 2], device);
        Self {
            branch1x1: pointwise(64),
            branch5x5_1: pointwise(48),
            branch5x5_2: same([48, 64], 5),
            branch3x3dbl_1: pointwise(64),
            branch3x3dbl_2: same([64, 96], 3),
            branch3x3dbl_3: same([96, 96], 3),
            branch_pool: pointwise(pooled),
        }
    }

    pub(super) fn fold(self) -> Self {
        Self {
            branch1x1: self.branch1x1.fold(),
            branch5x5_1: self.branch5x5_1.fold(),
            branch5x5_2: self.branch5x5_2.fold(),
            branch3x3dbl_1: self.branch3x3dbl_1.fold(),
            branch3x3dbl_2: self.branch3x3dbl_2.fold(),
            branch3x3dbl_3: self.branch3x3dbl_3.fold(),
            branch_pool: self.branch_pool.fold(),
        }
    }

    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let single = self.branch1x1.forward(x.clone());
        let five = chain(x.clone(), &[&self.branch5x5_1, &self.branch5x5_2]);
        let double = [
            &self.branch3x3dbl_1,
            &self.branch3x3dbl_2,
            &self.branch3x3dbl_3,
        ];
        let double = chain(x.clone(), &double);
        Tensor::cat(vec![single, five, double, pooled(&self.branch_pool, x)], 1)
    }
}

#[derive(Module, Debug)]
pub(super) struct InceptionB {
    branch3x3: BasicConv2d,
    branch3x3dbl_1: BasicConv2d,
    branch3x3dbl_2: BasicConv2d,
    branch3x3dbl_3: BasicConv2d,
}

impl InceptionB {
    pub(super) fn new(channels: usize, device: &Device) -> Self {
        Self {
            branch3x3: BasicConv2d::valid([channels, 384], 2, device),
            branch3x3dbl_1: BasicConv2d::pointwise([channels, 64], device),
            branch3x3dbl_2: BasicConv2d::same([64, 96], [3, 3], device),
            branch3x3dbl_3: BasicConv2d::valid([96, 96], 2, device),
        }
    }

    pub(super) fn fold(self) -> Self {
        Self {
            branch3x3: self.branch3x3.fold(),
            branch3x3dbl_1: self.branch3x3dbl_1.fold(),
            branch3x3dbl_2: self.branch3x3dbl_2.fold(),
            branch3x3dbl_3: self.branch3x3dbl_3.fold(),
        }
    }

    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let double = [
            &self.branch3x3dbl_1,
            &self.branch3x3dbl_2,
            &self.branch3x3dbl_3,
        ];
        let (single, double) = (self.branch3x3.forward(x.clone()), chain(x.clone(), &double));
        Tensor::cat(vec![single, double, max_pool(x)], 1)
    }
}

#[derive(Module, Debug)]
pub(super) struct InceptionC {
    branch1x1: BasicConv2d,
    branch7x7_1: BasicConv2d,
    branch7x7_2: BasicConv2d,
    branch7x7_3: BasicConv2d,
    branch7x7dbl_1: BasicConv2d,
    branch7x7dbl_2: BasicConv2d,
    branch7x7dbl_3: BasicConv2d,
    branch7x7dbl_4: BasicConv2d,
    branch7x7dbl_5: BasicConv2d,
    branch_pool: BasicConv2d,
}

impl InceptionC {
    pub(super) fn new(channels: usize, inner: usize, device: &Device) -> Self {
        let pointwise = |out| BasicConv2d::pointwise([channels, out], device);
        let row = |channels| BasicConv2d::same(channels, [1, 7], device);
        let column = |channels| BasicConv2d::same(channels, [7, 1], device);
        Self {
            branch1x1: pointwise(192),
            branch7x7_1: pointwise(inner),
            branch7x7_2: row([inner, inner]),
            branch7x7_3: column([inner, 192]),
            branch7x7dbl_1: pointwise(inner),
            branch7x7dbl_2: column([inner, inner]),
            branch7x7dbl_3: row([inner, inner]),
            branch7x7dbl_4: column([inner, inner]),
            branch7x7dbl_5: row([inner, 192]),
            branch_pool: pointwise(192),
        }
    }

    pub(super) fn fold(self) -> Self {
        Self {
            branch1x1: self.branch1x1.fold(),
            branch7x7_1: self.branch7x7_1.fold(),
            branch7x7_2: self.branch7x7_2.fold(),
            branch7x7_3: self.branch7x7_3.fold(),
            branch7x7dbl_1: self.branch7x7dbl_1.fold(),
            branch7x7dbl_2: self.branch7x7dbl_2.fold(),
            branch7x7dbl_3: self.branch7x7dbl_3.fold(),
            branch7x7dbl_4: self.branch7x7dbl_4.fold(),
            branch7x7dbl_5: self.branch7x7dbl_5.fold(),
            branch_pool: self.branch_pool.fold(),
        }
    }

    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let single = self.branch1x1.forward(x.clone());
        let seven = [&self.branch7x7_1, &self.branch7x7_2, &self.branch7x7_3];
        let double = [
            &self.branch7x7dbl_1,
            &self.branch7x7dbl_2,
            &self.branch7x7dbl_3,
            &self.branch7x7dbl_4,
            &self.branch7x7dbl_5,
        ];
        let (seven, double) = (chain(x.clone(), &seven), chain(x.clone(), &double));
        Tensor::cat(vec![single, seven, double, pooled(&self.branch_pool, x)], 1)
    }
}

#[derive(Module, Debug)]
pub(super) struct InceptionD {
    branch3x3_1: BasicConv2d,
    branch3x3_2: BasicConv2d,
    branch7x7x3_1: BasicConv2d,
    branch7x7x3_2: BasicConv2d,
    branch7x7x3_3: BasicConv2d,
    branch7x7x3_4: BasicConv2d,
}

impl InceptionD {
    pub(super) fn new(channels: usize, device: &Device) -> Self {
        Self {
            branch3x3_1: BasicConv2d::pointwise([channels, 192], device),
            branch3x3_2: BasicConv2d::valid([192, 320], 2, device),
            branch7x7x3_1: BasicConv2d::pointwise([channels, 192], device),
            branch7x7x3_2: BasicConv2d::same([192, 192], [1, 7], device),
            branch7x7x3_3: BasicConv2d::same([192, 192], [7, 1], device),
            branch7x7x3_4: BasicConv2d::valid([192, 192], 2, device),
        }
    }

    pub(super) fn fold(self) -> Self {
        Self {
            branch3x3_1: self.branch3x3_1.fold(),
            branch3x3_2: self.branch3x3_2.fold(),
            branch7x7x3_1: self.branch7x7x3_1.fold(),
            branch7x7x3_2: self.branch7x7x3_2.fold(),
            branch7x7x3_3: self.branch7x7x3_3.fold(),
            branch7x7x3_4: self.branch7x7x3_4.fold(),
        }
    }

    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let three = chain(x.clone(), &[&self.branch3x3_1, &self.branch3x3_2]);
        let seven = [
            &self.branch7x7x3_1,
            &self.branch7x7x3_2,
            &self.branch7x7x3_3,
            &self.branch7x7x3_4,
        ];
        Tensor::cat(vec![three, chain(x.clone(), &seven), max_pool(x)], 1)
    }
}

#[derive(Module, Debug)]
pub(super) struct InceptionE {
    branch1x1: BasicConv2d,
    branch3x3_1: BasicConv2d,
    branch3x3_2a: BasicConv2d,
    branch3x3_2b: BasicConv2d,
    branch3x3dbl_1: BasicConv2d,
    branch3x3dbl_2: BasicConv2d,
    branch3x3dbl_3a: BasicConv2d,
    branch3x3dbl_3b: BasicConv2d,
    branch_pool: BasicConv2d,
    /// Whether a maximum takes the place of the mean.
    maximum: bool,
}

impl InceptionE {
    pub(super) fn new(channels: usize, maximum: bool, device: &Device) -> Self {
        let pointwise = |out| BasicConv2d::pointwise([channels, out], device);
        let row = || BasicConv2d::same([384, 384], [1, 3], device);
        let column = || BasicConv2d::same([384, 384], [3, 1], device);
        Self {
            branch1x1: pointwise(320),
            branch3x3_1: pointwise(384),
            branch3x3_2a: row(),
            branch3x3_2b: column(),
            branch3x3dbl_1: pointwise(448),
            branch3x3dbl_2: BasicConv2d::same([448, 384], [3, 3], device),
            branch3x3dbl_3a: row(),
            branch3x3dbl_3b: column(),
            branch_pool: pointwise(192),
            maximum,
        }
    }

    pub(super) fn fold(self) -> Self {
        Self {
            branch1x1: self.branch1x1.fold(),
            branch3x3_1: self.branch3x3_1.fold(),
            branch3x3_2a: self.branch3x3_2a.fold(),
            branch3x3_2b: self.branch3x3_2b.fold(),
            branch3x3dbl_1: self.branch3x3dbl_1.fold(),
            branch3x3dbl_2: self.branch3x3dbl_2.fold(),
            branch3x3dbl_3a: self.branch3x3dbl_3a.fold(),
            branch3x3dbl_3b: self.branch3x3dbl_3b.fold(),
            branch_pool: self.branch_pool.fold(),
            maximum: self.maximum,
        }
    }

    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let single = self.branch1x1.forward(x.clone());
        let three = self.branch3x3_1.forward(x.clone());
        let double = chain(x.clone(), &[&self.branch3x3dbl_1, &self.branch3x3dbl_2]);
        let around = if self.maximum {
            self.branch_pool.forward(max_around(x))
        } else {
            pooled(&self.branch_pool, x)
        };
        let parts = vec![
            single,
            self.branch3x3_2a.forward(three.clone()),
            self.branch3x3_2b.forward(three),
            self.branch3x3dbl_3a.forward(double.clone()),
            self.branch3x3dbl_3b.forward(double),
            around,
        ];
        Tensor::cat(parts, 1)
    }
}

fn chain(x: Tensor<4>, layers: &[&BasicConv2d]) -> Tensor<4> {
    layers.iter().fold(x, |x, layer| layer.forward(x))
}

/// The layer, which has a kernel of one pixel, on means.
fn pooled(layer: &BasicConv2d, x: Tensor<4>) -> Tensor<4> {
    let x = layer.forward_without_activation(x);
    Activation::Relu.forward(mean_around(x))
}
