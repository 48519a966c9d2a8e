//! Tests of the algorithms against each other and against sums in f64.

mod signals;

use super::*;
use crate::testing::{Rng, assert_panics};
use pulp::WithSimd;

fn assert_close(got: &[f32], expected: &[f32], sizes: &ConvSizes) {
    let scale = expected
        .iter()
        .fold(1.0f32, |top, value| top.max(value.abs()));
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!(
            (got - expected).abs() <= 2e-5 * scale,
            "{got}, expected {expected}, {sizes:?}"
        );
    }
}

/// Winograd's algorithm for few and for many weights, independent of whether it would be selected,
/// with the vectors of this CPU and with others.
fn by_winograd(work: &Gather) -> Option<[Vec<f32>; 8]> {
    let (all, wide) = (
        || Winograd::new(work),
        || Winograd::new(work).map(Winograd::wide),
    );
    Some([
        wide()?.run(),
        wide()?.with_simd(pulp::Scalar),
        wide()?.with_simd(pulp::Scalar128b),
        wide()?.with_simd(pulp::Scalar512b),
        all()?.run(),
        all()?.with_simd(pulp::Scalar),
        all()?.with_simd(pulp::Scalar128b),
        // 16 lanes, as with AVX-512.
        all()?.with_simd(pulp::Scalar512b),
    ])
}

fn weight_grad_by_winograd(x: &[f32], dy: &[f32], sizes: ConvSizes) -> Option<[Vec<f32>; 4]> {
    let work = forward(x, &[], None, sizes);
    let weight_grad = || {
        Some(WeightGrad {
            all: Winograd::new(&work)?,
            dy,
            sizes,
        })
    };
    Some([
        weight_grad()?.run(),
        weight_grad()?.with_simd(pulp::Scalar),
        weight_grad()?.with_simd(pulp::Scalar128b),
        weight_grad()?.with_simd(pulp::Scalar512b),
    ])
}

/// Compares the algorithms with each other.
#[test]
fn conv_algorithms_agree() {
    let mut rng = Rng::new(3);
    let mut compared = std::collections::BTreeMap::new();
    for _ in 0..400 {
        let mut pick = |low: usize, high: usize| low + rng.below(high - low + 1);
        let (kernel, stride) = ([pick(1, 4), pick(1, 4)], [pick(1, 3), pick(1, 3)]);
        let (padding, output) = ([pick(0, 2), pick(0, 2)], [pick(1, 9), pick(1, 9)]);
        let input = [0, 1]
            .map(|i| ((output[i] - 1) * stride[i] + kernel[i]).saturating_sub(2 * padding[i]));
        let (batch, channels_in, channels_out) = (pick(1, 35), pick(1, 12), pick(1, 20));
        if input.contains(&0) {
            continue;
        }
        let sizes = ConvSizes {
            batch,
            channels_in,
            channels_out,
            groups: 1,
            input,
            output,
            kernel,
            stride,
            padding,
            dilation: [1, 1],
        };
        let x = rng.normals(batch * channels_in * input[0] * input[1]);
        let dy = rng.normals(batch * channels_out * output[0] * output[1]);
        let weight = rng.normals(channels_out * channels_in * kernel[0] * kernel[1]);
        let bias = rng.normals(channels_in.max(channels_out));
        let bias = Some(&bias[..]);
        let mut count = |work: &Gather, direction: &'static str| {
            let schemes = Winograd::new(work).map(|all| all.schemes());
            *compared.entry((direction, schemes)).or_insert(0) += 1;
        };
        let [forward, backward] = [
            forward(&x, &weight, bias, sizes),
            backward(&dy, &weight, bias, sizes),
        ];
        if let Some(results) = weight_grad_by_winograd(&x, &dy, sizes) {
            count(&forward, "weight gradient");
            let expected = correlate(&x, &dy, sizes.input_planes(), sizes);
            for result in results {
                assert_close(&result, &expected, &sizes);
            }
        }
        for (work, direction) in [(forward, "forward"), (backward, "backward")] {
            if let Some(results) = by_winograd(&work) {
                count(&work, direction);
                let expected = gather(work);
                for result in results {
                    assert_close(&result, &expected, &sizes);
                }
            }
        }
    }
    // Three directions, and schemes of 2 taps by 4 and by 7 rows, and of 3 taps.
    assert_eq!(compared.len(), 9, "{compared:?}");
    assert!(compared.values().all(|count| *count > 10), "{compared:?}");
}

/// Sums of several blocks, weight gradients of several groups of tiles, and images with more
/// tiles than a part. The bound is the one above, although the sums are long.
#[test]
fn long_convs_by_winograd_match_direct_sums() {
    let mut rng = Rng::new(11);
    for (batch, [channels_in, channels_out], side, kernel, stride) in [
        (2, [300, 56], 5, 3, 1),
        (3, [70, 130], 17, 3, 1),
        (20, [64, 64], 28, 3, 1),
        (1, [8, 12], 140, 3, 1),
        (40, [64, 48], 14, 4, 2),
    ] {
        let out = (side + 2 - kernel) / stride + 1;
        let sizes = ConvSizes {
            batch,
            channels_in,
            channels_out,
            groups: 1,
            input: [side; 2],
            output: [out; 2],
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [1; 2],
            dilation: [1; 2],
        };
        let x = rng.normals(batch * channels_in * side * side);
        let dy = rng.normals(batch * channels_out * out * out);
        let weight = rng.normals(channels_out * channels_in * kernel * kernel);
        for work in [
            forward(&x, &weight, None, sizes),
            backward(&dy, &weight, None, sizes),
        ] {
            let all = || Winograd::new(&work).expect("three by three taps");
            let results = [all().run(), all().wide().run()];
            let expected = gather(work);
            for result in results {
                assert_close(&result, &expected, &sizes);
            }
        }
        let work = forward(&x, &[], None, sizes);
        let all = Winograd::new(&work).expect("three by three taps");
        let dw = WeightGrad {
            all,
            dy: &dy,
            sizes,
        }
        .run();
        let expected = correlate(&x, &dy, sizes.input_planes(), sizes);
        assert_close(&dw, &expected, &sizes);
    }
}

/// Which algorithm is selected, and that its results do not depend on the number of threads.
#[test]
fn convs_of_a_model_by_winograd_repeat_on_any_number_of_threads() {
    let mut rng = Rng::new(13);
    let sizes = ConvSizes {
        batch: 5,
        channels_in: 64,
        channels_out: 64,
        groups: 1,
        input: [28; 2],
        output: [28; 2],
        kernel: [3; 2],
        stride: [1; 2],
        padding: [1; 2],
        dilation: [1; 2],
    };
    let [x, dy] = [0; 2].map(|_| rng.normals(5 * 64 * 28 * 28));
    let weight = rng.normals(64 * 64 * 9);
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("threads").install(|| {
            [
                conv2d(&x, &weight, None, sizes),
                conv2d_transposed(&dy, &weight, None, sizes),
                conv2d_weight_grad(&x, &dy, sizes),
            ]
        })
    };
    let one = on(1);
    assert_eq!(one, on(3));
    let work = forward(&x, &weight, None, sizes);
    let all = || Winograd::new(&work).expect("three by three taps");
    assert!(all().faster_weight_grad());
    assert_eq!(one[0], all().run());
    let few = ConvSizes {
        channels_in: 1,
        ..sizes
    };
    let work = forward(&x[..5 * 28 * 28], &weight[..64 * 9], None, few);
    let all = Winograd::new(&work).expect("three by three taps");
    assert!(!all.faster_weight_grad());
}

/// One pixel less than a tile, a large kernel, windows far from each other, and many weights.
#[test]
fn winograd_rejects_what_it_cannot_do() {
    let sizes = ConvSizes {
        batch: 1,
        channels_in: 1,
        channels_out: 1,
        groups: 1,
        input: [9; 2],
        output: [9; 2],
        kernel: [3; 2],
        stride: [1; 2],
        padding: [1; 2],
        dilation: [1; 2],
    };
    let accepts = |sizes: ConvSizes, transposed: bool| {
        let work = match transposed {
            true => backward(&[], &[], None, sizes),
            false => forward(&[], &[], None, sizes),
        };
        Winograd::new(&work).is_some()
    };
    assert!(accepts(sizes, false) && accepts(sizes, true));
    let wide = ConvSizes {
        kernel: [4; 2],
        ..sizes
    };
    assert!(!accepts(wide, false) && !accepts(wide, true));
    let single = ConvSizes {
        kernel: [1; 2],
        ..sizes
    };
    assert!(!accepts(single, false));
    let dilated = ConvSizes {
        dilation: [2; 2],
        ..sizes
    };
    assert!(!accepts(dilated, false));
    let many = ConvSizes {
        channels_in: 1280,
        channels_out: 1280,
        ..sizes
    };
    assert!(accepts(many, false) && accepts(many, true));
    let many_of_many = ConvSizes {
        input: [160; 2],
        output: [160; 2],
        ..many
    };
    assert!(!accepts(many_of_many, false) && !accepts(many_of_many, true));
    let large = ConvSizes {
        channels_in: 4096,
        input: [9, 4096],
        output: [9, 4096],
        ..sizes
    };
    assert!(!accepts(large, false));
}

/// The convolution of `x`, its transpose applied to `dy` and its weight gradient, without bias.
fn reference(x: &[f32], dy: &[f32], weight: &[f32], sizes: ConvSizes) -> [Vec<f32>; 3] {
    let [height, width] = sizes.input;
    let [out_height, out_width] = sizes.output;
    let kernel_len = sizes.kernel[0] * sizes.kernel[1];
    let mut sums = [dy.len(), x.len(), weight.len()].map(|len| vec![0.0f64; len]);
    let [y, dx, dw] = &mut sums;
    for output in 0..dy.len() {
        let (image, channel_out) = (
            output / (sizes.channels_out * out_height * out_width),
            output / (out_height * out_width) % sizes.channels_out,
        );
        let pixel = [output / out_width % out_height, output % out_width];
        let [inputs, outputs] = sizes.channels_of_group();
        let first = channel_out / outputs * inputs;
        for channel_in in first..first + inputs {
            for (tap, at) in sizes.taps().enumerate() {
                let [row, column] = [0, 1].map(|axis| {
                    (pixel[axis] * sizes.stride[axis] + at[axis] * sizes.dilation[axis])
                        .wrapping_sub(sizes.padding[axis])
                });
                if row >= height || column >= width {
                    continue;
                }
                let input =
                    ((image * sizes.channels_in + channel_in) * height + row) * width + column;
                let element = (channel_out * inputs + channel_in - first) * kernel_len + tap;
                let [x, dy, weight] = [x[input], dy[output], weight[element]].map(f64::from);
                y[output] += x * weight;
                dx[input] += dy * weight;
                dw[element] += x * dy;
            }
        }
    }
    sums.map(|values| values.into_iter().map(|value| value as f32).collect())
}

/// The sizes of the maps do not follow from each other: zeros are read beyond the maps.
#[test]
fn convs_of_any_sizes_match_f64() {
    let mut rng = Rng::new(7);
    let mut by_winograd_too = 0;
    for _ in 0..300 {
        let mut pick = |low: usize, high: usize| low + rng.below(high - low + 1);
        let sizes = ConvSizes {
            batch: pick(1, 18),
            channels_in: pick(1, 6),
            channels_out: pick(1, 6),
            groups: 1,
            input: [pick(1, 7), pick(1, 9)],
            output: [pick(1, 7), pick(1, 9)],
            kernel: [pick(1, 3), pick(1, 3)],
            stride: [pick(1, 4), pick(1, 4)],
            padding: [pick(0, 5), pick(0, 5)],
            dilation: [pick(1, 2), pick(1, 2)],
        };
        let pixels = sizes.input[0] * sizes.input[1];
        let pixels_out = sizes.output[0] * sizes.output[1];
        let x = rng.normals(sizes.batch * sizes.channels_in * pixels);
        let dy = rng.normals(sizes.batch * sizes.channels_out * pixels_out);
        let kernel_len = sizes.kernel[0] * sizes.kernel[1];
        let weight = rng.normals(sizes.channels_out * sizes.channels_in * kernel_len);
        let bias = rng.normals(6);
        let [mut y, mut dx, dw] = reference(&x, &dy, &weight, sizes);
        for (values, pixels, channels) in [
            (&mut y, pixels_out, sizes.channels_out),
            (&mut dx, pixels, sizes.channels_in),
        ] {
            for (map, values) in values.chunks_exact_mut(pixels).enumerate() {
                values
                    .iter_mut()
                    .for_each(|value| *value += bias[map % channels]);
            }
        }
        let [bias_out, bias_in] =
            [sizes.channels_out, sizes.channels_in].map(|len| Some(&bias[..len]));
        for (results, expected) in [
            (
                by_winograd(&forward(&x, &weight, bias_out, sizes)).map(Vec::from),
                &y,
            ),
            (
                by_winograd(&backward(&dy, &weight, bias_in, sizes)).map(Vec::from),
                &dx,
            ),
            (weight_grad_by_winograd(&x, &dy, sizes).map(Vec::from), &dw),
        ] {
            for result in results.into_iter().flatten() {
                assert_close(&result, expected, &sizes);
                by_winograd_too += 1;
            }
        }
        assert_close(&conv2d(&x, &weight, bias_out, sizes), &y, &sizes);
        assert_close(
            &conv2d_transposed(&dy, &weight, bias_in, sizes),
            &dx,
            &sizes,
        );
        assert_close(&conv2d_weight_grad(&x, &dy, sizes), &dw, &sizes);
    }
    assert!(by_winograd_too > 1000, "only {by_winograd_too} results");
}

#[test]
fn convs_reject_other_sizes() {
    let sizes = ConvSizes {
        batch: 2,
        channels_in: 3,
        channels_out: 4,
        groups: 1,
        input: [5, 6],
        output: [5, 6],
        kernel: [3, 3],
        stride: [1, 1],
        padding: [1, 1],
        dilation: [1, 1],
    };
    let values = [0.5; 300];
    let run = |function: usize, lens: [usize; 4], sizes: ConvSizes| {
        let [x, dy, weight, bias] = lens.map(|len| &values[..len]);
        match function {
            0 => conv2d(x, weight, Some(bias), sizes),
            1 => conv2d_transposed(dy, weight, Some(bias), sizes),
            _ => conv2d_weight_grad(x, dy, sizes),
        }
    };
    const MAX: usize = usize::MAX;
    const HALF: usize = 1 << (usize::BITS / 2);
    type Change = fn(&mut ConvSizes);
    let changes: [(Change, &str); 19] = [
        (|sizes| sizes.groups = 0, "is 0"),
        (|sizes| sizes.groups = 2, "do not divide"),
        (|sizes| sizes.groups = 3, "do not divide"),
        (|sizes| sizes.channels_in = 0, "is 0"),
        (|sizes| sizes.channels_out = 0, "is 0"),
        (|sizes| sizes.input[0] = 0, "is 0"),
        (|sizes| sizes.output[1] = 0, "is 0"),
        (|sizes| sizes.kernel[0] = 0, "is 0"),
        (|sizes| sizes.stride[1] = 0, "is 0"),
        (|sizes| sizes.dilation[0] = 0, "is 0"),
        (|sizes| sizes.stride[0] = MAX, "too large"),
        (|sizes| sizes.dilation[1] = MAX, "too large"),
        (|sizes| sizes.padding[0] = MAX, "too large"),
        (|sizes| sizes.padding[1] = MAX / 2, "too large"),
        (|sizes| sizes.input[1] = MAX, "too large"),
        (|sizes| sizes.batch = MAX, "overflow"),
        (|sizes| sizes.output = [HALF; 2], "overflow"),
        (|sizes| sizes.kernel = [HALF; 2], "overflow"),
        // The operands fit, but the padded maps overflow.
        (|sizes| sizes.dilation = [HALF; 2], "overflow"),
    ];
    for (function, bias, operands) in [
        (0, 4, vec![(0, "larger map"), (2, "weight"), (3, "bias")]),
        (1, 3, vec![(1, "smaller map"), (2, "weight"), (3, "bias")]),
        (2, 0, vec![(0, "larger map"), (1, "smaller map")]),
    ] {
        let fitting = [180, 240, 108, bias];
        assert!(!run(function, fitting, sizes).is_empty());
        for (index, name) in operands {
            for len in [0, fitting[index] - 1, fitting[index] + 1] {
                let mut lens = fitting;
                lens[index] = len;
                let expected = format!("the {name} has {len} elements");
                assert_panics(&expected, || run(function, lens, sizes));
            }
        }
        for (change, expected) in changes {
            let mut other = sizes;
            change(&mut other);
            assert_panics(expected, || run(function, fitting, other));
        }
    }
    // Too far for the planes of the transpose; a convolution reads the padding only.
    let far = ConvSizes {
        padding: [HALF; 2],
        ..sizes
    };
    assert_panics("overflow", || run(1, [180, 240, 108, 3], far));
    let y = run(0, [180, 240, 108, 4], far);
    assert!(y.iter().all(|value| *value == 0.5));
}
