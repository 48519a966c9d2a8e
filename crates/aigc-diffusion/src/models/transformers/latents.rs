//! Latent maps as the tokens of FLUX: patches of 2×2 pixels, and the positions of tokens.

use burn::tensor::{Device, Tensor, TensorData};

/// Side of a patch.
pub(super) const PATCH: usize = 2;

/// A latent map as tokens: each has the numbers of a patch of 2×2 pixels, pixels innermost.
///
/// # Shapes
/// - latents: `[batch, channels, height, width]`, even sides
/// - output: `[batch, height/2·width/2, 4·channels]`
///
/// # Panics
/// If a side is odd.
pub fn pack_latents(latents: Tensor<4>) -> Tensor<3> {
    let [batch, channels, height, width] = latents.dims();
    assert!(
        height.is_multiple_of(PATCH) && width.is_multiple_of(PATCH),
        "a latent map of {height} × {width}, expected even sides"
    );
    let (rows, columns) = (height / PATCH, width / PATCH);
    latents
        .reshape([batch, channels, rows, PATCH, columns, PATCH])
        .permute([0, 2, 4, 1, 3, 5])
        .reshape([batch, rows * columns, channels * PATCH * PATCH])
}

/// The latent map of tokens: the inverse of [`pack_latents`].
///
/// # Shapes
/// - tokens: `[batch, rows·columns, 4·channels]`
/// - output: `[batch, channels, 2·rows, 2·columns]`
///
/// # Panics
/// If the shapes do not fit.
pub fn unpack_latents(tokens: Tensor<3>, [rows, columns]: [usize; 2]) -> Tensor<4> {
    let [batch, count, numbers] = tokens.dims();
    assert!(
        count == rows * columns && numbers.is_multiple_of(PATCH * PATCH),
        "{count} tokens of {numbers} numbers, expected {rows} × {columns} tokens of a multiple of 4"
    );
    let channels = numbers / (PATCH * PATCH);
    tokens
        .reshape([batch, rows, columns, channels, PATCH, PATCH])
        .permute([0, 3, 1, 4, 2, 5])
        .reshape([batch, channels, rows * PATCH, columns * PATCH])
}

/// The positions of the tokens of an image: 0, row and column.
pub(super) fn image_positions([rows, columns]: [usize; 2]) -> impl Iterator<Item = [f64; 3]> {
    (0..rows).flat_map(move |row| (0..columns).map(move |column| [0.0, row as f64, column as f64]))
}

/// The positions of the tokens of a prompt: 0 on all axes.
pub(super) fn text_positions(tokens: usize) -> impl Iterator<Item = [f64; 3]> {
    std::iter::repeat_n([0.0; 3], tokens)
}

/// The `img_ids` of an image of this many rows and columns of tokens: 0, row and column of each.
///
/// # Shapes
/// - output: `[rows·columns, 3]`
pub fn latent_image_ids(rows: usize, columns: usize, device: &Device) -> Tensor<2> {
    tensor(image_positions([rows, columns]), device)
}

/// The `txt_ids` of a prompt of this many tokens: zeros.
///
/// # Shapes
/// - output: `[tokens, 3]`
pub fn text_ids(tokens: usize, device: &Device) -> Tensor<2> {
    tensor(text_positions(tokens), device)
}

fn tensor(positions: impl Iterator<Item = [f64; 3]>, device: &Device) -> Tensor<2> {
    let positions: Vec<f32> = positions.flatten().map(|at| at as f32).collect();
    let shape = [positions.len() / 3, 3];
    Tensor::from_data(TensorData::new(positions, shape), device)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{device::device, rng::Rng};

    fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().iter().collect()
    }

    #[test]
    fn tokens_are_patches_with_pixels_innermost() {
        let flex = device("flex").unwrap();
        // Two channels of 2 × 4 pixels, numbered in order.
        let map = Tensor::<1>::from_floats(std::array::from_fn::<_, 16, _>(|i| i as f32), &flex)
            .reshape([1, 2, 2, 4]);
        let tokens = pack_latents(map);
        assert_eq!(tokens.dims(), [1, 2, 8]);
        let expected = [
            0, 1, 4, 5, 8, 9, 12, 13, // The left patch of both channels.
            2, 3, 6, 7, 10, 11, 14, 15,
        ];
        assert_eq!(numbers(tokens), expected.map(|number| number as f32));
    }

    #[test]
    fn unpacking_is_the_inverse_of_packing() {
        let flex = device("flex").unwrap();
        let map: Tensor<4> = Rng::new(1).normal([2, 3, 6, 4], &flex);
        let back = unpack_latents(pack_latents(map.clone()), [3, 2]);
        assert_eq!(numbers(back), numbers(map));
    }

    #[test]
    fn ids_are_rows_and_columns() {
        let flex = device("flex").unwrap();
        let ids = latent_image_ids(2, 3, &flex);
        assert_eq!(ids.dims(), [6, 3]);
        let expected = [
            0., 0., 0., 0., 0., 1., 0., 0., 2., 0., 1., 0., 0., 1., 1., 0., 1., 2.,
        ];
        assert_eq!(numbers(ids), expected);
        assert_eq!(numbers(text_ids(2, &flex)), [0.0; 6]);
    }
}
