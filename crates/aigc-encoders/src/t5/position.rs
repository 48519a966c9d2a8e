//! The bias of attention by relative position (Raffel et al. 2020, section 2.1).

use burn::tensor::{Int, Tensor, TensorData};

/// The class of the position of a key relative to its query (`key − query`), below `buckets`. Keys
/// after the query have the second half of the classes. In each half, half of the classes are for
/// one distance each; the others grow with the logarithm, up to `max_distance`. As in transformers,
/// logarithms have 32 bits: where they meet the bound of a class, 64 bits would give another one.
fn bucket(relative: i64, buckets: usize, max_distance: usize) -> usize {
    let half = buckets / 2;
    let side = if relative > 0 { half } else { 0 };
    let (exact, distance) = (half / 2, relative.unsigned_abs() as usize);
    if distance < exact {
        return side + distance;
    }
    let ln = |distance: f32| f64::from(distance).ln() as f32;
    let most = (max_distance as f64 / exact as f64).ln() as f32;
    let share = ln(distance as f32 / exact as f32) / most;
    let far = exact + (share * (half - exact) as f32) as usize;
    side + far.min(half - 1)
}

/// The bias of each head for the positions of `n` tokens.
///
/// # Shapes
/// - table: `[buckets, heads]`
/// - output: `[1, heads, n, n]`, queries before keys
pub(super) fn position_bias(table: Tensor<2>, max_distance: usize, n: usize) -> Tensor<4> {
    let [buckets, heads] = table.dims();
    let of_distance: Vec<i32> = (1 - n as i64..n as i64)
        .map(|relative| bucket(relative, buckets, max_distance) as i32)
        .collect();
    // The relative positions of a query's keys begin with minus the query's position.
    let rows = (0..n).flat_map(|query| &of_distance[n - 1 - query..2 * n - 1 - query]);
    let rows: Vec<i32> = rows.copied().collect();
    let device = table.device();
    let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [n * n]), &device);
    table
        .select(0, rows)
        .swap_dims(0, 1)
        .reshape([1, heads, n, n])
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::Device;

    /// Classes that transformers' `_relative_position_bucket` gives with 32 classes and a distance
    /// of 128, the values of every published T5.
    #[test]
    fn buckets_are_those_of_transformers() {
        let of = |relative| bucket(relative, 32, 128);
        let before = [
            0, 1, 7, 8, 11, 12, 15, 16, 22, 23, 31, 32, 45, 46, 63, 64, 90, 91, 500,
        ];
        let expected = [
            0, 1, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15,
        ];
        for (distance, expected) in before.into_iter().zip(expected) {
            assert_eq!(of(-distance), expected, "{distance}");
            if distance > 0 {
                assert_eq!(of(distance), 16 + expected, "{distance}");
            }
        }
    }

    /// Distances at which a class begins, where the logarithm is a whole number of classes.
    #[test]
    fn bounds_of_classes_are_those_of_32_bits() {
        for (buckets, max_distance, distance, expected) in [
            (18, 128, 8, 5),
            (18, 128, 16, 6),
            (18, 128, 64, 8),
            (20, 160, 20, 7),
            (38, 16, 12, 14),
            (72, 32, 24, 27),
            (108, 64, 36, 36),
        ] {
            let found = bucket(-distance, buckets, max_distance);
            assert_eq!(found, expected, "{buckets} {max_distance} {distance}");
        }
    }

    #[test]
    fn bias_depends_on_the_relative_position() {
        let (buckets, heads, n) = (8, 2, 5);
        let values: Vec<f32> = (0..buckets * heads).map(|i| i as f32).collect();
        let table = TensorData::new(values, [buckets, heads]);
        let table = Tensor::<2>::from_data(table, &Device::flex());
        let bias: Vec<f32> = position_bias(table, 16, n).into_data().iter().collect();
        for head in 0..heads {
            for query in 0..n {
                for key in 0..n {
                    let row = bucket(key as i64 - query as i64, buckets, 16);
                    let found = bias[(head * n + query) * n + key];
                    assert_eq!(found, (row * heads + head) as f32, "{query} {key}");
                }
            }
        }
    }
}
