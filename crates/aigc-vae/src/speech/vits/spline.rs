//! Monotonic rational-quadratic splines (Durkan et al. 2019, <https://arxiv.org/abs/1906.04032>).

use aigc_core::nn::Activation;
use burn::tensor::{Bool, Tensor, activation::softmax};

/// Least width and height of a bin, as a share of the interval, and least slope at a knot.
const LEAST: f64 = 1e-3;

/// The parameters of a spline for every value, before their constraints.
#[derive(Clone, Debug)]
pub(super) struct Spline {
    /// Widths of the bins, `[values, bins]`.
    pub(super) widths: Tensor<2>,
    /// Heights of the bins, `[values, bins]`.
    pub(super) heights: Tensor<2>,
    /// Slopes at the inner knots, `[values, bins − 1]`. The slope at the ends is 1.
    pub(super) slopes: Tensor<2>,
    /// The spline maps `±bound` to itself; outside, it is the identity.
    pub(super) bound: f64,
}

/// The bin of every value: where it begins, its size, its slopes; each `[values, 1]`.
struct Bin {
    left: Tensor<2>,
    bottom: Tensor<2>,
    width: Tensor<2>,
    height: Tensor<2>,
    slopes: [Tensor<2>; 2],
}

impl Spline {
    /// The images of `x` `[values, 1]`, and the logarithms of the slopes there, `[values, 1]`.
    pub(super) fn forward(&self, x: Tensor<2>) -> [Tensor<2>; 2] {
        let (inside, outside) = (x.clone().clamp(-self.bound, self.bound), self.outside(&x));
        let bin = self.bin(&inside, false);
        let share = (inside - bin.left.clone()) / bin.width.clone();
        let (mean, curve) = bin.mean_and_curve();
        let product = share.clone() * (share.clone() * -1.0 + 1.0);
        let square = share.clone() * share.clone();
        let [first, _] = bin.slopes.clone();
        let rise = bin.height.clone() * (mean.clone() * square + first * product.clone());
        let y = bin.bottom.clone() + rise / (mean + curve * product);
        let log_slope = bin.log_slope(share);
        [
            y.mask_where(outside.clone(), x),
            log_slope.mask_fill(outside, 0.0),
        ]
    }

    /// The inverse of [`forward`](Self::forward), and the logarithms of its slopes.
    pub(super) fn inverse(&self, y: Tensor<2>) -> [Tensor<2>; 2] {
        let (inside, outside) = (y.clone().clamp(-self.bound, self.bound), self.outside(&y));
        let bin = self.bin(&inside, true);
        let (mean, curve) = bin.mean_and_curve();
        let [first, _] = bin.slopes.clone();
        let rise = inside - bin.bottom.clone();
        let bent = rise.clone() * curve;
        let a = bin.height.clone() * (mean.clone() - first.clone()) + bent.clone();
        let b = bin.height.clone() * first - bent;
        let c = mean * rise * -1.0;
        let root = (b.clone() * b.clone() - a * c.clone() * 4.0)
            .clamp_min(0.0)
            .sqrt();
        // This form of the root stays exact where `a` is small.
        let share = c * 2.0 / (b + root) * -1.0;
        let x = share.clone() * bin.width.clone() + bin.left.clone();
        let log_slope = bin.log_slope(share) * -1.0;
        [
            x.mask_where(outside.clone(), y),
            log_slope.mask_fill(outside, 0.0),
        ]
    }

    fn outside(&self, x: &Tensor<2>) -> Tensor<2, Bool> {
        x.clone().abs().greater_elem(self.bound)
    }

    /// The bins that values within the bound are in, by their height if `by_height`.
    fn bin(&self, values: &Tensor<2>, by_height: bool) -> Bin {
        let [rows, bins] = self.widths.dims();
        let lefts = self.knots(&self.widths);
        let bottoms = self.knots(&self.heights);
        let searched = match by_height {
            true => &bottoms,
            false => &lefts,
        };
        // 1 for the bin of the value, and 0 for the others.
        let inner = searched.clone().narrow(1, 1, bins - 1);
        let repeated: Tensor<2> = values.clone().expand([rows, bins - 1]);
        let passed = repeated.greater_equal(inner).float();
        let options = (&values.device(), values.dtype());
        let ones = Tensor::<2>::ones([rows, 1], options);
        let begun = Tensor::cat(vec![ones.clone(), passed.clone()], 1);
        let ended = Tensor::cat(vec![passed, Tensor::zeros([rows, 1], options)], 1);
        let chosen = begun - ended;
        let choose = |knots: &Tensor<2>, from: usize| {
            (knots.clone().narrow(1, from, bins) * chosen.clone()).sum_dim(1)
        };
        let slopes = Activation::Softplus.forward(self.slopes.clone()) + LEAST;
        let slopes = Tensor::cat(vec![ones.clone(), slopes, ones], 1);
        let (left, bottom) = (choose(&lefts, 0), choose(&bottoms, 0));
        Bin {
            width: choose(&lefts, 1) - left.clone(),
            height: choose(&bottoms, 1) - bottom.clone(),
            left,
            bottom,
            slopes: [choose(&slopes, 0), choose(&slopes, 1)],
        }
    }

    /// The ends of bins whose sizes are a softmax of `sizes`, from `−bound` to `bound`.
    fn knots(&self, sizes: &Tensor<2>) -> Tensor<2> {
        let [rows, bins] = sizes.dims();
        let shares = softmax(sizes.clone(), 1) * (1.0 - LEAST * bins as f64) + LEAST;
        let inner = shares.cumsum(1).narrow(1, 0, bins - 1);
        let inner = inner * (2.0 * self.bound) - self.bound;
        let options = (&sizes.device(), sizes.dtype());
        let end = |value: f64| Tensor::<2>::full([rows, 1], value, options);
        Tensor::cat(vec![end(-self.bound), inner, end(self.bound)], 1)
    }
}

impl Bin {
    /// The mean slope of the bin, and how far its ends' slopes are from it together.
    fn mean_and_curve(&self) -> (Tensor<2>, Tensor<2>) {
        let mean = self.height.clone() / self.width.clone();
        let [first, last] = self.slopes.clone();
        (mean.clone(), first + last - mean * 2.0)
    }

    /// The logarithm of the slope at a share of the bin's width.
    fn log_slope(&self, share: Tensor<2>) -> Tensor<2> {
        let (mean, curve) = self.mean_and_curve();
        let [first, last] = self.slopes.clone();
        let rest = share.clone() * -1.0 + 1.0;
        let product = share.clone() * rest.clone();
        let slopes = last * share.clone() * share
            + mean.clone() * product.clone() * 2.0
            + first * rest.clone() * rest;
        let denominator = mean.clone() + curve * product;
        (mean.clone() * mean * slopes).log() - denominator.log() * 2.0
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        rng::Rng,
        testing::{assert_close, values},
    };
    use burn::tensor::Device;

    fn spline(rows: usize, bound: f64) -> Spline {
        let (mut rng, device) = (Rng::new(1), Device::flex());
        Spline {
            widths: rng.normal([rows, 5], &device),
            heights: rng.normal([rows, 5], &device),
            slopes: rng.normal([rows, 4], &device),
            bound,
        }
    }

    #[test]
    fn inverse_undoes_forward() {
        let spline = spline(200, 5.0);
        let x: Tensor<2> = Rng::new(2).normal([200, 1], &Device::flex()) * 3.0;
        let [y, log_slope] = spline.forward(x.clone());
        let [back, back_slope] = spline.inverse(y.clone());
        assert_close(&values(back), &values(x.clone()), 1e-3);
        assert_close(&values(back_slope), &values(-log_slope.clone()), 1e-2);
        for ((x, y), log_slope) in values(x).iter().zip(values(y)).zip(values(log_slope)) {
            if x.abs() > 5.0 {
                assert_eq!((y, log_slope), (*x, 0.0));
            } else {
                assert!(y.abs() <= 5.0 + 1e-5);
            }
        }
    }

    /// The slope of the map is the exponential of its logarithm, by gradients.
    #[test]
    fn slopes_are_derivatives() {
        let device = Device::flex().autodiff();
        let plain = spline(50, 2.0);
        let spline = Spline {
            widths: Tensor::from_data(plain.widths.into_data(), &device),
            heights: Tensor::from_data(plain.heights.into_data(), &device),
            slopes: Tensor::from_data(plain.slopes.into_data(), &device),
            bound: 2.0,
        };
        let x: Tensor<2> = Rng::new(3).normal([50, 1], &device);
        let x = x.require_grad();
        let [y, log_slope] = spline.forward(x.clone());
        let gradient = x.grad(&y.sum().backward()).unwrap();
        assert_close(&values(gradient), &values(log_slope.exp()), 1e-3);
    }

    #[test]
    fn ends_of_the_interval_stay() {
        let spline = spline(2, 3.0);
        let x = Tensor::<2>::from_floats([[-3.0], [3.0]], &Device::flex());
        let [y, log_slope] = spline.forward(x.clone());
        assert_close(&values(y), &[-3.0, 3.0], 1e-5);
        assert_close(&values(log_slope), &[0.0, 0.0], 1e-3);
        assert_close(&values(spline.inverse(x)[0].clone()), &[-3.0, 3.0], 1e-5);
    }
}
