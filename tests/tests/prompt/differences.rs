//! How far numbers are from those that are expected.

use burn::tensor::Tensor;

/// The largest of numbers that are not negative; NaN if one of them is, so that it is below no
/// limit.
pub(crate) fn largest(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let larger = |most: f64, number: f64| match most.is_nan() || number <= most {
        true => most,
        false => number,
    };
    numbers.into_iter().fold(0.0, larger)
}

/// How far numbers are from the expected ones, relative to a value or one.
pub(crate) fn apart(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len(), "numbers of values");
    let pairs = found.iter().zip(expected);
    let pairs = pairs.map(|(a, b)| (f64::from(*a), f64::from(*b)));
    largest(pairs.map(|(a, b)| (a - b).abs() / b.abs().max(1.0)))
}

/// How far a tensor is from the expected one, relative to a value or one.
pub(crate) fn tensors_apart<const D: usize>(found: Tensor<D>, expected: Tensor<D>) -> f64 {
    assert_eq!(found.dims(), expected.dims(), "shapes");
    let values = |x: Tensor<D>| -> Vec<f32> { x.into_data().iter().collect() };
    apart(&values(found), &values(expected))
}

#[test]
fn what_is_not_a_number_is_not_near() {
    assert_eq!(apart(&[1.0, 3.0, 2.0], &[1.0, 2.0, 2.0]), 0.5);
    let bad = [f32::NAN, f32::INFINITY];
    for (a, b) in bad
        .into_iter()
        .flat_map(|bad| [(bad, 1.0), (1.0, bad), (bad, bad)])
    {
        for (found, expected) in [([a, 1.0], [b, 1.0]), ([1.0, a], [1.0, b])] {
            let near = apart(&found, &expected) < 1e9;
            assert!(!near, "{found:?} {expected:?}");
        }
    }
}
