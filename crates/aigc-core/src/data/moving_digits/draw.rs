//! Images drawn between pixels.

/// Draws an image of `size` (height, width) with its upper left corner at `[column, row]`. What is
/// brighter stays.
pub(super) fn draw(
    image: &[u8],
    [height, width]: [usize; 2],
    [column, row]: [f64; 2],
    target: &mut [u8],
    canvas: usize,
) {
    let (left, top) = (column.floor(), row.floor());
    let (right, down) = (column - left, row - top);
    let (left, top) = (left as usize, top as usize);
    let pixel = |y: usize, x: usize| {
        // Rows and columns are counted from one before the image.
        let inside = (1..=height).contains(&y) && (1..=width).contains(&x);
        f64::from(if inside {
            image[(y - 1) * width + x - 1]
        } else {
            0
        })
    };
    for y in 0..=height {
        for x in 0..=width {
            let upper = pixel(y, x) * right + pixel(y, x + 1) * (1.0 - right);
            let lower = pixel(y + 1, x) * right + pixel(y + 1, x + 1) * (1.0 - right);
            let value = (upper * down + lower * (1.0 - down)).round() as u8;
            // The last row and column are empty where the image touches the wall.
            if top + y < canvas && left + x < canvas {
                let at = (top + y) * canvas + left + x;
                target[at] = target[at].max(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawing_interpolates_and_keeps_the_brighter() {
        let mut target = vec![0; 9];
        draw(&[100], [1, 1], [0.25, 1.5], &mut target, 3);
        // Rounded halves go up: 100·0.75·0.5 = 37.5.
        assert_eq!(target, [0, 0, 0, 38, 13, 0, 38, 13, 0]);
        draw(&[50], [1, 1], [2.0, 2.0], &mut target, 3);
        draw(&[9], [1, 1], [0.0, 1.0], &mut target, 3);
        assert_eq!(target, [0, 0, 0, 38, 13, 0, 38, 13, 50]);
    }
}
