//! Layers over time and frames: against sums written out, identities, and their names in files.

use aigc_core::{
    device::device,
    nn::{Conv1d, Conv1dConfig, Conv3dConfig, ConvTranspose1d, ConvTranspose1dConfig, WeightNorm},
    rng::{InitWeights, Rng},
};
use burn::{
    module::{Module, Param, ParamId},
    tensor::{Device, Tensor, TensorData},
};

mod lstm;
mod names;
mod sums;

use sums::Sizes;

fn flex() -> Device {
    device("flex").unwrap()
}

/// The values of a tensor.
fn host<const D: usize>(x: Tensor<D>) -> Vec<f64> {
    x.into_data().iter::<f64>().collect()
}

fn tensor<const D: usize>(values: &[f64], shape: [usize; D], device: &Device) -> Tensor<D> {
    let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[track_caller]
fn assert_near(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        let apart = (a - b).abs() / b.abs().max(1.0);
        assert!(apart <= tolerance, "value {index} is {a}, expected {b}");
    }
}

fn random<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    Rng::new(seed).normal(shape, device)
}

/// Values and all gradients of a 1-D convolution. A convolution is linear in its input and in its
/// weight, so that a gradient's product with a change is the change of the sum.
fn check_conv1d(sizes: &Sizes, tolerance: f64) {
    let device = flex().autodiff();
    let ([batch, time], [inputs, outputs]) = ([sizes.batch, sizes.input[2]], sizes.channels);
    let conv = Conv1dConfig::new([inputs, outputs], sizes.kernel[2])
        .with_stride(sizes.stride[2])
        .with_dilation(sizes.dilation)
        .with_groups(sizes.groups)
        .with_padding(sizes.padding[2])
        .init(&device)
        .init_weights(1);
    let x = random([batch, inputs, time], 2, &device).require_grad();
    let y = conv.forward(x.clone());
    let r = random(y.dims(), 3, &device);
    let gradients = (y.clone() * r.clone()).sum().backward();
    let bias = conv.bias.as_ref().unwrap().val();
    let per_output = sizes.out()[2];
    let (weight, r) = (host(conv.weight.val()), host(r));
    let mut expected = sizes.convolve(&host(x.clone()), &weight);
    let biases = host(bias.clone());
    for (index, value) in expected.iter_mut().enumerate() {
        *value += biases[index / per_output % outputs];
    }
    assert_near(&host(y), &expected, tolerance);

    let change = host(random([batch, inputs, time], 4, &flex()));
    let gradient = host(x.grad(&gradients).unwrap());
    let [found, expected] = [
        dot(&gradient, &change),
        dot(&sizes.convolve(&change, &weight), &r),
    ];
    assert_near(&[found], &[expected], 10.0 * tolerance);

    let change = host(random(conv.weight.dims(), 5, &flex()));
    let gradient = host(conv.weight.val().grad(&gradients).unwrap());
    let [found, expected] = [
        dot(&gradient, &change),
        dot(&sizes.convolve(&host(x), &change), &r),
    ];
    assert_near(&[found], &[expected], 10.0 * tolerance);

    let gradient = host(bias.grad(&gradients).unwrap());
    let mut sums = vec![0.0; outputs];
    for (index, r) in r.iter().enumerate() {
        sums[index / per_output % outputs] += r;
    }
    assert_near(&gradient, &sums, 10.0 * tolerance);
}

#[test]
fn conv1d_matches_direct_sums() {
    for (channels, kernel, stride, dilation, groups, padding) in [
        ([3, 5], 1, 1, 1, 1, 0),
        ([3, 5], 3, 1, 1, 1, 1),
        ([2, 3], 7, 1, 3, 1, 9),
        ([4, 6], 5, 2, 1, 1, 2),
        ([4, 6], 4, 3, 2, 2, 1),
        ([6, 6], 3, 1, 2, 6, 2),
        ([1, 4], 10, 5, 1, 1, 0),
        ([4, 8], 41, 4, 1, 4, 20),
    ] {
        let sizes = Sizes {
            dilation,
            groups,
            ..Sizes::over_time(2, channels, 53, kernel, stride, padding)
        };
        check_conv1d(&sizes, 5e-6);
    }
}

/// A signal of one sample is padded to the kernel.
#[test]
fn conv1d_of_short_signals_matches_direct_sums() {
    check_conv1d(&Sizes::over_time(1, [2, 3], 1, 3, 1, 1), 5e-6);
    check_conv1d(&Sizes::over_time(3, [2, 3], 2, 5, 2, 2), 5e-6);
}

/// So many operations that the kernels choose algorithms for large maps.
#[test]
fn large_conv1d_matches_direct_sums() {
    check_conv1d(&Sizes::over_time(2, [64, 64], 520, 3, 1, 1), 2e-5);
    check_conv1d(&Sizes::over_time(1, [32, 64], 1100, 4, 2, 1), 2e-5);
}

/// The transposed convolution and its gradients against the convolution that it transposes.
#[test]
fn conv_transpose1d_is_adjoint_of_conv1d() {
    let device = flex().autodiff();
    for (channels, kernel, stride, groups, padding, output_padding) in [
        ([3, 4], 4, 2, 1, 1, 0),
        ([3, 4], 5, 3, 1, 1, 1),
        ([4, 6], 16, 8, 2, 4, 0),
        ([4, 4], 3, 2, 4, 1, 1),
        ([2, 1], 7, 1, 1, 3, 0),
        ([2, 3], 2, 5, 1, 0, 4),
    ] {
        let [inputs, outputs] = channels;
        let conv = ConvTranspose1dConfig::new(channels, kernel)
            .with_stride(stride)
            .with_groups(groups)
            .with_padding(padding)
            .with_output_padding(output_padding)
            .with_bias(false)
            .init(&device)
            .init_weights(1);
        let x = random([2, inputs, 9], 2, &device).require_grad();
        let y = conv.forward(x.clone());
        let time = 8 * stride + kernel + output_padding - 2 * padding;
        assert_eq!(y.dims(), [2, outputs, time]);
        let sizes = Sizes {
            groups,
            ..Sizes::over_time(2, [outputs, inputs], time, kernel, stride, padding)
        };
        assert_eq!(sizes.out()[2], 9);
        let r = random(y.dims(), 3, &device);
        let gradients = (y.clone() * r.clone()).sum().backward();
        let (weight, r) = (host(conv.weight.val()), host(r));
        let back = sizes.convolve(&r, &weight);
        let found = dot(&host(y), &r);
        assert_near(&[found], &[dot(&host(x.clone()), &back)], 2e-5);
        assert_near(&host(x.grad(&gradients).unwrap()), &back, 1e-5);
        let change = host(random(conv.weight.dims(), 4, &flex()));
        let gradient = host(conv.weight.val().grad(&gradients).unwrap());
        let expected = dot(&host(x), &sizes.convolve(&r, &change));
        assert_near(&[dot(&gradient, &change)], &[expected], 2e-5);
    }
}

/// Kernels over time, over space, and over both, with many and few channels, and strides.
#[test]
fn conv3d_matches_direct_sums() {
    let device = flex().autodiff();
    for (channels, kernel, stride, padding) in [
        ([3, 4], [3, 1, 1], [1, 1, 1], [1, 0, 0]),
        ([3, 4], [3, 1, 1], [2, 1, 1], [0, 0, 0]),
        ([3, 4], [1, 3, 3], [1, 1, 1], [0, 1, 1]),
        ([3, 4], [1, 2, 2], [1, 2, 2], [0, 0, 0]),
        ([4, 3], [3, 3, 3], [1, 1, 1], [1, 1, 1]),
        ([1, 8], [3, 3, 3], [1, 1, 1], [0, 1, 1]),
        ([4, 3], [3, 3, 2], [2, 2, 1], [1, 0, 1]),
        ([2, 8], [2, 1, 3], [3, 1, 2], [2, 0, 0]),
        ([2, 2], [1, 1, 1], [1, 1, 1], [0, 0, 0]),
    ] {
        let sizes = Sizes {
            input: [5, 6, 7],
            kernel,
            stride,
            padding,
            ..Sizes::over_time(2, channels, 1, 1, 1, 0)
        };
        let conv = Conv3dConfig::new(channels, kernel)
            .with_stride(stride)
            .with_padding(padding)
            .init(&device)
            .init_weights(1);
        let x = random([2, channels[0], 5, 6, 7], 2, &device).require_grad();
        let y = conv.forward(x.clone());
        let [frames, height, width] = sizes.out();
        assert_eq!(y.dims(), [2, channels[1], frames, height, width]);
        let r = random(y.dims(), 3, &device);
        let gradients = (y.clone() * r.clone()).sum().backward();
        let bias = conv.bias.as_ref().unwrap().val();
        let (weight, r, biases) = (host(conv.weight.val()), host(r), host(bias.clone()));
        let mut expected = sizes.convolve(&host(x.clone()), &weight);
        let mut sums = vec![0.0; channels[1]];
        for (index, value) in expected.iter_mut().enumerate() {
            let output = index / (frames * height * width) % channels[1];
            *value += biases[output];
            sums[output] += r[index];
        }
        assert_near(&host(y), &expected, 5e-6);
        let change = host(random(x.dims(), 4, &flex()));
        let gradient = host(x.grad(&gradients).unwrap());
        let expected = dot(&sizes.convolve(&change, &weight), &r);
        assert_near(&[dot(&gradient, &change)], &[expected], 2e-5);
        let change = host(random(conv.weight.dims(), 5, &flex()));
        let gradient = host(conv.weight.val().grad(&gradients).unwrap());
        let expected = dot(&sizes.convolve(&host(x), &change), &r);
        assert_near(&[dot(&gradient, &change)], &[expected], 2e-5);
        assert_near(&host(bias.grad(&gradients).unwrap()), &sums, 2e-5);
    }
}

fn normalised(device: &Device) -> (Conv1d, ConvTranspose1d) {
    let conv = Conv1dConfig::new([4, 6], 3)
        .with_groups(2)
        .with_weight_norm(true);
    let transpose = ConvTranspose1dConfig::new([6, 4], 4)
        .with_stride(2)
        .with_weight_norm(true);
    (
        conv.init(device).init_weights(1),
        transpose.init(device).init_weights(2),
    )
}

/// A new layer computes what one without normalisation computes with the same seed.
#[test]
fn weight_norm_starts_at_weights_of_plain_layer() {
    let device = flex();
    let (conv, transpose) = normalised(&device);
    let plain = Conv1dConfig::new([4, 6], 3)
        .with_groups(2)
        .init(&device)
        .init_weights(1);
    let x = random([2, 4, 11], 3, &device);
    let expected = host(plain.forward(x.clone()));
    assert_near(&host(conv.forward(x)), &expected, 1e-6);
    let plain = ConvTranspose1dConfig::new([6, 4], 4)
        .with_stride(2)
        .init(&device)
        .init_weights(2);
    let x = random([2, 6, 11], 4, &device);
    let expected = host(plain.forward(x.clone()));
    assert_near(&host(transpose.forward(x)), &expected, 1e-6);
    // Uniform within the bound of PyTorch, and not beyond half of it only.
    let weight = host(conv.weight.val());
    let (most, bound) = (
        weight.iter().fold(0.0f64, |m, w| m.max(w.abs())),
        1.0 / 6f64.sqrt(),
    );
    assert!(most <= bound && most > 0.8 * bound, "{most}");
}

/// The length of `v` does not count: neither in the output nor, therefore, in its gradient.
#[test]
fn weight_norm_ignores_length_of_direction() {
    let device = flex().autodiff();
    let (conv, _) = normalised(&device);
    let gain = tensor(&[0.5, -1.0, 2.0, 0.1, 1.0, 3.0], [6], &device).require_grad();
    let norm = WeightNorm {
        gain: Param::initialized(ParamId::new(), gain.clone()),
    };
    let v = conv.weight.val();
    let weight = norm.normalize(v.clone());
    let (direction, lengths) = (host(v.clone()), host(gain.clone()));
    let rows: Vec<(&[f64], f64)> = direction
        .chunks(6)
        .map(|row| (row, dot(row, row).sqrt()))
        .collect();
    let expected: Vec<f64> = rows
        .iter()
        .zip(&lengths)
        .flat_map(|((row, norm), gain)| row.iter().map(move |v| gain * v / norm))
        .collect();
    assert_near(&host(weight.clone()), &expected, 1e-6);
    let scales = tensor(&[3.0, 0.01, 1.0, 20.0, 0.5, 2.0], [6, 1, 1], &device);
    let scaled = norm.normalize(v.clone() * scales);
    assert_near(&host(scaled), &expected, 1e-6);
    let zeros = norm.normalize(v.clone() * 0.0);
    assert!(host(zeros).iter().all(|weight| *weight == 0.0));

    let r = random(weight.dims(), 5, &device);
    let gradients = (weight * r.clone()).sum().backward();
    let along = host(v.grad(&gradients).unwrap());
    let of_gain = host(gain.grad(&gradients).unwrap());
    for (index, ((row, norm), r)) in rows.iter().zip(host(r).chunks(6)).enumerate() {
        assert!(dot(row, &along[6 * index..][..6]).abs() < 1e-5);
        assert_near(&[of_gain[index]], &[dot(row, r) / norm], 1e-5);
    }
}

#[test]
fn folded_layer_computes_the_same() {
    let device = flex().autodiff();
    let (mut conv, mut transpose) = normalised(&device);
    for norm in [&mut conv.weight_norm, &mut transpose.weight_norm] {
        let norm = norm.as_mut().unwrap();
        let gain = tensor(&[0.5, -1.0, 2.0, 0.1, 1.0, 3.0], [6], &device);
        norm.gain = Param::from_tensor(gain);
    }
    let x = random([2, 4, 11], 3, &device);
    let expected = host(conv.forward(x.clone()));
    let folded = conv.fold();
    assert!(folded.weight_norm.is_none() && folded.weight.val().is_require_grad());
    assert_near(&host(folded.forward(x)), &expected, 1e-6);
    let x = random([2, 6, 11], 3, &device);
    let expected = host(transpose.forward(x.clone()));
    let folded = transpose.valid().fold();
    let found = folded.forward(x.without_autodiff());
    assert!(folded.weight_norm.is_none());
    assert_near(&host(found), &expected, 1e-6);
}
