//! Signals, which are maps of height one, and groups.

use super::{super::*, assert_close, reference};
use crate::testing::{Rng, assert_panics};
use pulp::WithSimd;

/// Results of the three functions, with the bias added to the first two.
fn all(x: &[f32], dy: &[f32], weight: &[f32], bias: &[f32], sizes: ConvSizes) -> [Vec<f32>; 3] {
    let [inputs, outputs] = [sizes.channels_in, sizes.channels_out].map(|len| &bias[..len]);
    [
        conv2d(x, weight, Some(outputs), sizes),
        conv2d_transposed(dy, weight, Some(inputs), sizes),
        conv2d_weight_grad(x, dy, sizes),
    ]
}

/// What [`all`] should return.
fn expected(
    x: &[f32],
    dy: &[f32],
    weight: &[f32],
    bias: &[f32],
    sizes: ConvSizes,
) -> [Vec<f32>; 3] {
    let [mut y, mut dx, dw] = reference(x, dy, weight, sizes);
    for (values, [height, width], channels) in [
        (&mut y, sizes.output, sizes.channels_out),
        (&mut dx, sizes.input, sizes.channels_in),
    ] {
        for (map, values) in values.chunks_exact_mut(height * width).enumerate() {
            let bias = bias[map % channels];
            values.iter_mut().for_each(|value| *value += bias);
        }
    }
    [y, dx, dw]
}

/// Input, gradient of the output, weight and bias.
fn operands(rng: &mut Rng, sizes: ConvSizes) -> [Vec<f32>; 4] {
    let ConvSizes {
        batch,
        channels_in,
        channels_out,
        groups,
        ..
    } = sizes;
    let [map, map_out, kernel] =
        [sizes.input, sizes.output, sizes.kernel].map(|[rows, columns]| rows * columns);
    [
        batch * channels_in * map,
        batch * channels_out * map_out,
        channels_out * channels_in / groups * kernel,
        channels_in.max(channels_out),
    ]
    .map(|len| rng.normals(len))
}

#[track_caller]
fn assert_matches_f64(rng: &mut Rng, sizes: ConvSizes) {
    let [x, dy, weight, bias] = operands(rng, sizes);
    let got = all(&x, &dy, &weight, &bias, sizes);
    let expected = expected(&x, &dy, &weight, &bias, sizes);
    for (got, expected) in got.iter().zip(&expected) {
        assert_close(got, expected, &sizes);
    }
}

/// Rows with the kernels, dilations and strides of networks of sound.
#[test]
fn convs_of_signals_match_f64() {
    let mut rng = Rng::new(5);
    for case in 0..300 {
        let mut pick = |low: usize, high: usize| low + rng.below(high - low + 1);
        let (kernel, stride, dilation) = (
            [1, 2, 3, 4, 7, 11, 16][pick(0, 6)],
            [1, 1, 1, 2, 3, 4, 8][pick(0, 6)],
            [1, 1, 2, 3, 5][pick(0, 4)],
        );
        let groups = [1, 1, 2, 3][pick(0, 3)];
        let padding = pick(0, 9);
        // The smaller map need not have the size that follows from the larger one.
        let (input, extra) = (pick(1, [30, 300][case % 2]), pick(0, 3));
        let reach = dilation * (kernel - 1);
        let output = (input + 2 * padding).saturating_sub(reach + 1) / stride + extra + 1;
        let sizes = ConvSizes {
            batch: pick(1, 4),
            channels_in: groups * pick(1, 7),
            channels_out: groups * pick(1, 18),
            groups,
            input: [1, input],
            output: [1, output.min(300)],
            kernel: [1, kernel],
            stride: [1, stride],
            padding: [0, padding],
            dilation: [1, dilation],
        };
        assert_matches_f64(&mut rng, sizes);
    }
}

/// Groups of one channel and of several, in maps of any shape.
#[test]
fn convs_with_groups_match_f64() {
    let mut rng = Rng::new(9);
    for case in 0..300 {
        let mut pick = |low: usize, high: usize| low + rng.below(high - low + 1);
        let groups = pick(1, 9);
        let [inputs, outputs] = match case % 3 {
            0 => [1, 1],
            1 => [1, pick(1, 4)],
            _ => [pick(1, 4), pick(1, 4)],
        };
        let axis = |pick: &mut dyn FnMut(usize, usize) -> usize, longest: usize| {
            (
                pick(1, longest),
                pick(1, longest),
                pick(1, 5),
                pick(1, 3),
                pick(0, 4),
                pick(1, 2),
            )
        };
        let longest = [9, 60][case % 2];
        let rows = axis(&mut pick, 9);
        let columns = axis(&mut pick, longest);
        let sizes = ConvSizes {
            batch: pick(1, 6),
            channels_in: groups * inputs,
            channels_out: groups * outputs,
            groups,
            input: [rows.0, columns.0],
            output: [rows.1, columns.1],
            kernel: [rows.2, columns.2],
            stride: [rows.3, columns.3],
            padding: [rows.4, columns.4],
            dilation: [rows.5, columns.5],
        };
        assert_matches_f64(&mut rng, sizes);
    }
}

/// A group is a convolution of its channels: the results are the same bit for bit.
#[test]
fn groups_equal_convolutions_of_their_channels() {
    let mut rng = Rng::new(11);
    let sizes = ConvSizes {
        batch: 3,
        channels_in: 12,
        channels_out: 60,
        groups: 3,
        input: [1, 700],
        output: [1, 350],
        kernel: [1, 41],
        stride: [1, 2],
        padding: [0, 20],
        dilation: [1, 1],
    };
    let [x, dy, weight, bias] = operands(&mut rng, sizes);
    let whole = all(&x, &dy, &weight, &bias[..60], sizes);
    let one = ConvSizes {
        channels_in: 4,
        channels_out: 20,
        groups: 1,
        ..sizes
    };
    // The channels of a group, of all images.
    let part = |values: &[f32], group: usize, len: usize| -> Vec<f32> {
        let images = values.chunks_exact(3 * len);
        images
            .flat_map(|image| image[group * len..(group + 1) * len].to_vec())
            .collect()
    };
    for group in 0..3 {
        let (x, dy) = (part(&x, group, 4 * 700), part(&dy, group, 20 * 350));
        let weight = part(&weight, group, 20 * 4 * 41);
        assert_eq!(
            conv2d(&x, &weight, Some(&bias[group * 20..][..20]), one),
            part(&whole[0], group, 20 * 350)
        );
        assert_eq!(
            conv2d_transposed(&dy, &weight, Some(&bias[group * 4..][..4]), one),
            part(&whole[1], group, 4 * 700)
        );
        assert_eq!(
            conv2d_weight_grad(&x, &dy, one),
            part(&whole[2], group, 20 * 4 * 41)
        );
    }
}

/// Signals and maps that are cut into windows, and output channels into blocks: the results match
/// sums in f64, and repeat bit for bit on any number of threads.
#[test]
fn long_signals_repeat_on_any_number_of_threads() {
    let mut rng = Rng::new(17);
    let signal = ConvSizes {
        batch: 1,
        channels_in: 48,
        channels_out: 12,
        groups: 1,
        input: [1, 3000],
        output: [1, 3000],
        kernel: [1, 7],
        stride: [1, 1],
        padding: [0, 9],
        dilation: [1, 3],
    };
    for sizes in [
        signal,
        // By Winograd's algorithm.
        ConvSizes {
            channels_in: 32,
            channels_out: 64,
            input: [1, 1200],
            output: [1, 1200],
            kernel: [1, 11],
            padding: [0, 5],
            dilation: [1, 1],
            ..signal
        },
        // The stages of a vocoder, transposed.
        ConvSizes {
            channels_in: 16,
            channels_out: 100,
            output: [1, 375],
            kernel: [1, 16],
            stride: [1, 8],
            padding: [0, 4],
            dilation: [1, 1],
            ..signal
        },
        // Few pixels and many channels, of which the blocks are cut.
        ConvSizes {
            channels_in: 70,
            channels_out: 300,
            input: [1, 40],
            output: [1, 40],
            ..signal
        },
        // One channel per group, with windows of a few thousand samples.
        ConvSizes {
            batch: 2,
            channels_in: 3,
            channels_out: 3,
            groups: 3,
            input: [1, 9000],
            output: [1, 9000],
            ..signal
        },
        // Maps in bands of rows.
        ConvSizes {
            channels_in: 40,
            channels_out: 5,
            input: [70; 2],
            output: [70; 2],
            kernel: [5; 2],
            padding: [2; 2],
            dilation: [1; 2],
            ..signal
        },
        // Rows without padding between them, as those of the critics of several periods.
        ConvSizes {
            batch: 2,
            channels_in: 32,
            channels_out: 20,
            input: [200, 3],
            output: [67, 3],
            kernel: [5, 1],
            stride: [3, 1],
            padding: [2, 0],
            dilation: [1; 2],
            ..signal
        },
    ] {
        let [x, dy, weight, bias] = operands(&mut rng, sizes);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let run = || all(&x, &dy, &weight, &bias, sizes);
            pool.expect("threads").install(run)
        };
        let one = on(1);
        for threads in [2, 3, 16] {
            assert!(one == on(threads), "{threads} threads, {sizes:?}");
        }
        let expected = expected(&x, &dy, &weight, &bias, sizes);
        for (got, expected) in one.iter().zip(&expected) {
            assert_close(got, expected, &sizes);
        }
    }
}

/// Winograd's algorithm along rows, with the vectors of this CPU and with others, of any size.
#[test]
fn rows_by_winograd_match_direct_sums() {
    let mut rng = Rng::new(19);
    let mut compared = [0; 3];
    for _ in 0..200 {
        let mut pick = |low: usize, high: usize| low + rng.below(high - low + 1);
        let (kernel, dilation) = (pick(3, 13), [1, 2, 3, 4, 5, 7, 40][pick(0, 6)]);
        let reach = dilation * (kernel - 1);
        let padding = pick(0, reach);
        let least = (reach + 1).saturating_sub(2 * padding).max(1);
        let input = pick(least, least.max(300));
        let sizes = ConvSizes {
            batch: pick(1, 3),
            channels_in: pick(1, 30),
            channels_out: pick(1, 30),
            groups: 1,
            input: [1, input],
            output: [1, input + 2 * padding - reach],
            kernel: [1, kernel],
            stride: [1, 1],
            padding: [0, padding],
            dilation: [1, dilation],
        };
        let [x, dy, weight, bias] = operands(&mut rng, sizes);
        let [inputs, outputs] =
            [sizes.channels_in, sizes.channels_out].map(|len| Some(&bias[..len]));
        for (work, direction) in [
            (forward(&x, &weight, outputs, sizes), 0),
            (backward(&dy, &weight, inputs, sizes), 1),
        ] {
            let line = || Line::new(&work);
            let Some(first) = line() else {
                continue;
            };
            let mut results = vec![first.run()];
            results.extend(line().map(|line| line.with_simd(pulp::Scalar)));
            results.extend(line().map(|line| line.with_simd(pulp::Scalar128b)));
            results.extend(line().map(|line| line.with_simd(pulp::Scalar512b)));
            let expected = gather(work);
            for result in results {
                assert_close(&result, &expected, &sizes);
            }
            compared[direction] += 1;
        }
        let work = forward(&x, &[], None, sizes);
        let line = || Line::new(&work).map(|line| LineWeightGrad { line, dy: &dy });
        let Some(first) = line() else {
            continue;
        };
        let mut results = vec![first.run()];
        results.extend(line().map(|line| line.with_simd(pulp::Scalar)));
        results.extend(line().map(|line| line.with_simd(pulp::Scalar128b)));
        results.extend(line().map(|line| line.with_simd(pulp::Scalar512b)));
        let expected = correlate(&x, &dy, sizes.input_planes(), sizes);
        for result in results {
            assert_close(&result, &expected, &sizes);
        }
        compared[2] += 1;
    }
    assert!(compared.iter().all(|count| *count > 150), "{compared:?}");
}

/// The rows of a network of sound are long and wide enough, with few channels they are not.
/// Strides, groups and several rows are left to others.
#[test]
fn rows_by_winograd_are_selected() {
    let sizes = ConvSizes {
        batch: 1,
        channels_in: 256,
        channels_out: 256,
        groups: 1,
        input: [1, 8000],
        output: [1, 8000],
        kernel: [1, 7],
        stride: [1, 1],
        padding: [0, 3],
        dilation: [1, 1],
    };
    let faster = |sizes: ConvSizes| {
        let forward = forward(&[], &[], None, sizes);
        let line = Line::new(&forward)?;
        let sums = line.is_faster();
        let weight_grad = LineWeightGrad { line, dy: &[] }.is_faster();
        assert_eq!(weight_grad, sums, "{sizes:?}");
        Some(sums)
    };
    assert_eq!(faster(sizes), Some(true));
    let dilated = ConvSizes {
        padding: [0, 9],
        dilation: [1, 3],
        ..sizes
    };
    assert_eq!(faster(dilated), Some(true));
    let narrow = ConvSizes {
        channels_in: 1,
        ..sizes
    };
    assert_eq!(faster(narrow), Some(false));
    let strided = ConvSizes {
        stride: [1, 2],
        output: [1, 4000],
        ..sizes
    };
    assert_eq!(faster(strided), None);
    let grouped = ConvSizes { groups: 4, ..sizes };
    assert_eq!(faster(grouped), None);
    let tall = ConvSizes {
        input: [2, 8000],
        output: [2, 8000],
        ..sizes
    };
    assert_eq!(faster(tall), None);
    // Several rows, of which one is left, and rows of padding.
    let cropped = ConvSizes {
        input: [2, 8000],
        stride: [2, 1],
        ..sizes
    };
    assert_eq!(faster(cropped), None);
    let padded = ConvSizes {
        padding: [1, 3],
        stride: [3, 1],
        ..sizes
    };
    assert_eq!(faster(padded), None);
    // Most of a tile would lie beyond a short row.
    let far = ConvSizes {
        input: [1, 150],
        output: [1, 150],
        padding: [0, 180],
        dilation: [1, 60],
        ..sizes
    };
    assert_eq!(faster(far), Some(false));
    let further = ConvSizes {
        padding: [0, 300],
        dilation: [1, 100],
        ..sizes
    };
    assert_eq!(faster(further), None);
}

/// Shapes that no network of sound has, of a size at which Winograd's algorithm is considered, and
/// weight gradients of several groups of windows.
#[test]
fn large_rows_match_f64() {
    let mut rng = Rng::new(23);
    let several = ConvSizes {
        batch: 4,
        channels_in: 64,
        channels_out: 64,
        groups: 1,
        input: [1, 1300],
        output: [1, 1300],
        kernel: [1, 11],
        stride: [1, 1],
        padding: [0, 5],
        dilation: [1, 1],
    };
    for sizes in [
        several,
        ConvSizes {
            input: [2, 1300],
            stride: [2, 1],
            ..several
        },
        ConvSizes {
            padding: [1, 5],
            stride: [3, 1],
            ..several
        },
        ConvSizes {
            output: [3, 1300],
            padding: [1, 5],
            ..several
        },
    ] {
        assert_matches_f64(&mut rng, sizes);
    }
}

#[test]
fn groups_must_fit_the_weight() {
    let sizes = ConvSizes {
        batch: 1,
        channels_in: 4,
        channels_out: 4,
        groups: 2,
        input: [1, 5],
        output: [1, 5],
        kernel: [1, 3],
        stride: [1, 1],
        padding: [0, 1],
        dilation: [1, 1],
    };
    let values = [1.0; 64];
    // Two input channels of a group, and three taps with a neighbour on both sides.
    assert_eq!(conv2d(&values[..20], &values[..24], None, sizes)[1], 6.0);
    let whole = || conv2d(&values[..20], &values[..48], None, sizes);
    assert_panics("the weight has 48 elements, expected 24", whole);
}
