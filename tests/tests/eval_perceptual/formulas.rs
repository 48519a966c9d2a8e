//! Images and weights by the formulas of `tests/reference/perceptual.py`.

use aigc_core::device::device;
use burn::tensor::{Tensor, TensorData};
use safetensors::tensor::{Dtype, TensorView};
use std::path::Path;

/// The period of the script's numbers.
const PERIOD: usize = 4093;

/// The script's numbers in `[−1, 1)`: a hash of `name` and index, repeated after a period.
pub(crate) fn unit(name: &str) -> Vec<f64> {
    let seed = name.bytes().fold(2_166_136_261u32, |seed, byte| {
        (seed ^ u32::from(byte)).wrapping_mul(16_777_619)
    });
    let number = |i: u32| {
        let mut x = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9));
        x ^= x >> 16;
        x = x.wrapping_mul(0x85EB_CA6B);
        x ^= x >> 13;
        x = x.wrapping_mul(0xC2B2_AE35);
        x ^= x >> 16;
        f64::from(x) / 2f64.powi(31) - 1.0
    };
    (0..PERIOD as u32).map(number).collect()
}

/// The script's pair of images.
pub(crate) fn images(shape: [usize; 4]) -> [Tensor<4>; 2] {
    let device = device("flex").unwrap();
    let (x, y) = (unit("x"), unit("y"));
    let x: Vec<f64> = x.iter().map(|u| 0.5 + 0.5 * u).collect();
    let mixed = x.iter().zip(&y);
    let y = mixed
        .map(|(x, u)| 0.7 * x + 0.3 * (0.5 + 0.5 * u))
        .collect();
    [x, y].map(|period: Vec<f64>| {
        let repeated = period.iter().map(|value| *value as f32).cycle();
        let values: Vec<f32> = repeated.take(shape.iter().product()).collect();
        Tensor::from_data(TensorData::new(values, shape), &device)
    })
}

/// Name, shape and bytes of a tensor.
pub(crate) type Entry = (String, Vec<usize>, Vec<u8>);

/// The script's weight, named as in torchvision.
pub(crate) fn weight(name: String, shape: Vec<usize>) -> Entry {
    let fan_in: usize = shape[1..].iter().product();
    let scale = match name.ends_with("bias") {
        true => 0.1,
        false => (6.0 / fan_in as f64).sqrt(),
    };
    let period: Vec<u8> = unit(&name)
        .iter()
        .flat_map(|u| ((scale * u) as f32).to_le_bytes())
        .collect();
    let mut bytes = Vec::new();
    let length = 4 * shape.iter().product::<usize>();
    while bytes.len() < length {
        let rest = length - bytes.len();
        bytes.extend_from_slice(&period[..rest.min(period.len())]);
    }
    (name, shape, bytes)
}

/// Weight and bias of a convolution.
fn conv(name: &str, inputs: usize, outputs: usize, kernel: usize) -> [Entry; 2] {
    [
        weight(
            format!("{name}.weight"),
            vec![outputs, inputs, kernel, kernel],
        ),
        weight(format!("{name}.bias"), vec![outputs]),
    ]
}

/// The backbone's tensors in torchvision's layout.
pub(crate) fn backbone(network: &str) -> Vec<Entry> {
    let named = |index: usize| format!("features.{index}");
    match network {
        "vgg" => {
            let indices = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28];
            let channels = [
                3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512,
            ];
            let layers = indices.iter().zip(channels.windows(2));
            layers
                .flat_map(|(index, pair)| conv(&named(*index), pair[0], pair[1], 3))
                .collect()
        }
        "alex" => [
            (0, 3, 64, 11),
            (3, 64, 192, 5),
            (6, 192, 384, 3),
            (8, 384, 256, 3),
            (10, 256, 256, 3),
        ]
        .iter()
        .flat_map(|(index, inputs, outputs, kernel)| {
            conv(&named(*index), *inputs, *outputs, *kernel)
        })
        .collect(),
        _ => {
            let fires = [
                (3, 64, 16, 64),
                (4, 128, 16, 64),
                (6, 128, 32, 128),
                (7, 256, 32, 128),
                (9, 256, 48, 192),
                (10, 384, 48, 192),
                (11, 384, 64, 256),
                (12, 512, 64, 256),
            ];
            let fires = fires.iter().flat_map(|(index, inputs, squeezed, half)| {
                let part = |part: &str| format!("features.{index}.{part}");
                [
                    conv(&part("squeeze"), *inputs, *squeezed, 1),
                    conv(&part("expand1x1"), *squeezed, *half, 1),
                    conv(&part("expand3x3"), *squeezed, *half, 3),
                ]
            });
            conv("features.0", 3, 64, 3)
                .into_iter()
                .chain(fires.flatten())
                .collect()
        }
    }
}

/// Writes a file of safetensors.
pub(crate) fn write(path: &Path, entries: &[Entry]) {
    let views = entries.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
        (name.as_str(), view)
    });
    let views: Vec<_> = views.collect();
    safetensors::serialize_to_file(views, None, path).unwrap();
}
