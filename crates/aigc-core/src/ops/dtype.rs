//! Parameters in another floating-point type than the input of their layer.

use super::{GenerativeOps, is_listed};
use burn::{
    backend::Dispatch,
    tensor::{DType, FloatDType, Tensor},
};

/// `x` in the type `dtype`: itself, or a converted copy.
///
/// The operations of this module compute in the type of their input and convert parameters of
/// another type, one operation at a time. So a network whose weights are in half precision takes
/// half the memory, and its results are those of the same weights in 32 bits. Networks that combine
/// a parameter with their activations by other operations convert it with this function.
///
/// Tensors that burn has quantised stay as they are.
///
/// # Panics
/// If `dtype` is not a type of floats.
pub fn cast<const D: usize>(x: Tensor<D>, dtype: DType) -> Tensor<D> {
    let quantized = [x.dtype(), dtype]
        .iter()
        .any(|dtype| matches!(dtype, DType::QFloat(_)));
    if x.dtype() == dtype || quantized {
        return x;
    }
    let half = matches!(x.dtype(), DType::F16 | DType::BF16);
    if half && dtype == DType::F32 && is_listed(&x.device()) {
        return Tensor::from_dispatch(Dispatch::widen(x.into_dispatch()));
    }
    x.cast(FloatDType::from(dtype))
}

/// A type to compute in, for tensors that are stored in `dtype`: 32 bits for half precision.
pub(crate) fn computed(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        other => other,
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        nn::{
            Activation, BatchNorm, BatchNormConfig, Conv2d, Conv2dConfig, ConvTranspose2d,
            ConvTranspose2dConfig, GroupNorm, GroupNormConfig, LayerNorm, LayerNormConfig, Linear,
            LinearConfig, RmsNorm, RmsNormConfig,
            diffusers::{SpatialAttention, SpatialAttentionConfig},
        },
        ops,
        params::{ParamMapper, map_params, num_bytes},
        rng::{InitWeights, Rng},
        testing::{assert_close, values},
        weights::{WeightDtype, WeightReader, pytorch_key, save_weights},
    };
    use burn::{
        module::{Module, Param},
        tensor::{Device, Int},
    };

    /// One layer of each kind.
    #[derive(Module, Debug)]
    struct Net {
        table: Param<Tensor<2>>,
        linear: Linear,
        spectral: Linear,
        layer: LayerNorm,
        rms: RmsNorm,
        conv: Conv2d,
        group: GroupNorm,
        batch: BatchNorm,
        attention: SpatialAttention,
        up: ConvTranspose2d,
    }

    impl Net {
        fn new(device: &Device) -> Self {
            let net = Self {
                table: crate::nn::Initializer::PYTORCH.param([5, 6], 6, 6, device),
                linear: LinearConfig::new(6, 16).init(device),
                spectral: LinearConfig::new(16, 16).with_spectral(true).init(device),
                layer: LayerNormConfig::new(16).init(device),
                rms: RmsNormConfig::new(16).init(device),
                conv: Conv2dConfig::new([4, 8], 3).with_padding(1).init(device),
                group: GroupNormConfig::new(2, 8).init(device),
                batch: BatchNormConfig::new(8).init(device),
                attention: SpatialAttentionConfig::new(8).with_heads(2).init(device),
                up: ConvTranspose2dConfig::new([8, 2], 2)
                    .with_stride(2)
                    .init(device),
            };
            // Norms begin with ones and zeros.
            map_params(net.init_weights(1), &mut Disturb(Rng::new(3)))
        }

        fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<4> {
            let x = ops::embedding(self.table.val(), tokens);
            let x = self.layer.forward(self.linear.forward(x));
            let x = self.rms.forward(self.spectral.forward(x));
            let x = self.conv.forward(x.reshape([1, 4, 4, 4]));
            let x = self.group.forward_with_activation(x, Activation::Silu);
            self.up
                .forward(self.attention.forward(self.batch.forward(x)))
        }
    }

    struct Disturb(Rng);

    impl ParamMapper for Disturb {
        fn map<const D: usize>(&mut self, _: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let noise = self
                .0
                .normal(param.lazy_shape().dims::<D>(), &param.lazy_device());
            param.map(|value| value + noise * 0.1)
        }
    }

    /// A network with weights in half precision computes what it computes with the same weights in
    /// 32 bits, takes half the memory, and is saved and opened in this precision.
    #[test]
    fn half_weights_compute_as_rounded_weights() {
        let (device, dir) = (Device::flex(), tempfile::tempdir().unwrap());
        let (whole, path) = (
            dir.path().join("whole.safetensors"),
            dir.path().join("half.safetensors"),
        );
        let net = Net::new(&device);
        save_weights(&net, &whole).unwrap();
        let tokens = Tensor::<2, Int>::from_ints([[0, 1, 4, 2]], &device);
        let exact = net.forward(tokens.clone());
        for (dtype, stored) in [
            (WeightDtype::F16, DType::F16),
            (WeightDtype::BF16, DType::BF16),
        ] {
            let open = |path, dtype| {
                let reader = WeightReader::open(path).unwrap();
                let new = Net::new(&device);
                reader
                    .load_into_with_dtype(new, dtype, pytorch_key)
                    .unwrap()
                    .0
            };
            let half = open(&whole, dtype);
            assert_eq!(2 * num_bytes(&half), num_bytes(&net));
            save_weights(&half, &path).unwrap();
            let reader = WeightReader::open(&path).unwrap();
            for name in reader.names() {
                assert_eq!(reader.dtype(name), Some(stored), "{name}");
            }
            let [same, rounded] = [WeightDtype::Stored, WeightDtype::F32].map(|d| open(&path, d));
            assert_eq!(num_bytes(&same), num_bytes(&half));
            assert_eq!(num_bytes(&rounded), num_bytes(&net));
            let [half, same, rounded] = [half, same, rounded].map(|net| {
                let y = net.forward(tokens.clone());
                assert_eq!(y.dtype(), DType::F32);
                y.into_data()
            });
            assert!(half == rounded && same == rounded);
            assert_ne!(half, exact.clone().into_data());
        }
    }

    /// The squares of these values are infinite in half precision.
    #[test]
    fn norms_of_half_precision_do_not_overflow() {
        let device = Device::flex();
        let x = Rng::new(1).normal::<3>([2, 4, 6], &device) * 2000.0;
        let ones = |len: usize| Tensor::<1>::ones([len], &device);
        let group = GroupNormConfig::new(2, 4).init(&device);
        let rms = RmsNormConfig::new(6).init(&device);
        let layers: [&dyn Fn(Tensor<3>) -> Tensor<3>; 3] = [
            &|x: Tensor<3>| group.forward(x),
            &|x: Tensor<3>| ops::layer_norm(x, ones(6), None, 1e-5),
            &|x: Tensor<3>| rms.forward(x),
        ];
        for layer in layers {
            let half = layer(x.clone().cast(FloatDType::F16));
            assert_eq!(half.dtype(), DType::F16);
            let found = values(half.cast(FloatDType::F32));
            assert_close(&found, &values(layer(x.clone())), 0.01);
        }
    }

    #[test]
    fn cast_keeps_views_and_parts() {
        let device = Device::flex();
        let x = Tensor::<1, Int>::arange(0..12, &device)
            .float()
            .reshape([3, 4]);
        let half = x.clone().cast(FloatDType::F16);
        let views: [fn(Tensor<2>) -> Tensor<2>; 4] = [
            |x| x,
            |x| x.transpose(),
            |x| x.narrow(0, 1, 2).narrow(1, 1, 2),
            |x| x.narrow(0, 2, 1).expand([5, 4]),
        ];
        for view in views {
            let found = cast(view(half.clone()), DType::F32);
            assert_eq!(found.into_data(), view(x.clone()).into_data());
        }
    }
}
