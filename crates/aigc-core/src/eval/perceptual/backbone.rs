//! The networks that LPIPS compares the outputs of, and the names of their weights in files.

use super::{alexnet::AlexNet, squeezenet::SqueezeNet, vgg::Vgg16};
use crate::weights::KeyMapping;
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// The network whose features are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LpipsNetwork {
    /// VGG16, `net='vgg'`: the usual one as a training loss, and for perceptual path length.
    Vgg16,
    /// AlexNet, `net='alex'`: fast, and the one that the authors of LPIPS recommend for evaluation.
    #[default]
    AlexNet,
    /// SqueezeNet 1.1, `net='squeeze'`: the smallest.
    SqueezeNet,
}

impl LpipsNetwork {
    /// The smallest side of an image that the network accepts, in pixels.
    pub fn smallest_side(self) -> usize {
        match self {
            LpipsNetwork::Vgg16 => Vgg16::SMALLEST_SIDE,
            LpipsNetwork::AlexNet => AlexNet::SMALLEST_SIDE,
            LpipsNetwork::SqueezeNet => SqueezeNet::SMALLEST_SIDE,
        }
    }

    /// Channels of the features that are compared.
    pub(super) fn channels(self) -> &'static [usize] {
        match self {
            LpipsNetwork::Vgg16 => Vgg16::CHANNELS,
            LpipsNetwork::AlexNet => AlexNet::CHANNELS,
            LpipsNetwork::SqueezeNet => SqueezeNet::CHANNELS,
        }
    }

    /// Names in files of a parameter of the network, whose path in the network is `path`: in the
    /// state dict of `lpips.LPIPS`, or in a file of torchvision's.
    pub(super) fn backbone_key(self, path: &str) -> KeyMapping {
        let (layers, slices) = match self {
            LpipsNetwork::Vgg16 => (Vgg16::LAYERS, Vgg16::SLICES),
            LpipsNetwork::AlexNet => (AlexNet::LAYERS, AlexNet::SLICES),
            LpipsNetwork::SqueezeNet => (SqueezeNet::LAYERS, SqueezeNet::SLICES),
        };
        let layer = |path: &str| {
            let (index, rest) = path.strip_prefix("layers.")?.split_once('.')?;
            let index: usize = index.parse().ok()?;
            Some((*layers.get(index)?, rest.to_string()))
        };
        let first = || Some((0, path.strip_prefix("conv.")?.to_string()));
        let Some((index, rest)) = layer(path).or_else(first) else {
            return KeyMapping::new(path);
        };
        let slice = slices.iter().filter(|end| **end <= index).count() + 1;
        KeyMapping::new(format!("net.slice{slice}.{index}.{rest}"))
            .or(format!("features.{index}.{rest}"))
    }
}

/// Any of the networks.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // A program has one or two.
pub(super) enum Backbone {
    /// VGG16.
    Vgg16(Vgg16),
    /// AlexNet.
    AlexNet(AlexNet),
    /// SqueezeNet 1.1.
    SqueezeNet(SqueezeNet),
}

impl Backbone {
    pub(super) fn new(network: LpipsNetwork, device: &Device) -> Self {
        match network {
            LpipsNetwork::Vgg16 => Self::Vgg16(Vgg16::new(device)),
            LpipsNetwork::AlexNet => Self::AlexNet(AlexNet::new(device)),
            LpipsNetwork::SqueezeNet => Self::SqueezeNet(SqueezeNet::new(device)),
        }
    }

    pub(super) fn network(&self) -> LpipsNetwork {
        match self {
            Self::Vgg16(_) => LpipsNetwork::Vgg16,
            Self::AlexNet(_) => LpipsNetwork::AlexNet,
            Self::SqueezeNet(_) => LpipsNetwork::SqueezeNet,
        }
    }

    /// The features that are compared, `[batch, channels, height, width]` each.
    pub(super) fn features(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        match self {
            Self::Vgg16(network) => network.features(x),
            Self::AlexNet(network) => network.features(x),
            Self::SqueezeNet(network) => network.features(x),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_published_names() {
        for (network, path, lpips, torchvision) in [
            (
                LpipsNetwork::Vgg16,
                "layers.3.weight",
                "net.slice2.7.weight",
                "features.7.weight",
            ),
            (
                LpipsNetwork::Vgg16,
                "layers.12.bias",
                "net.slice5.28.bias",
                "features.28.bias",
            ),
            (
                LpipsNetwork::AlexNet,
                "layers.4.weight",
                "net.slice5.10.weight",
                "features.10.weight",
            ),
            (
                LpipsNetwork::SqueezeNet,
                "conv.weight",
                "net.slice1.0.weight",
                "features.0.weight",
            ),
            (
                LpipsNetwork::SqueezeNet,
                "layers.4.expand1x1.bias",
                "net.slice4.9.expand1x1.bias",
                "features.9.expand1x1.bias",
            ),
        ] {
            let key = network.backbone_key(path);
            assert_eq!(key, KeyMapping::new(lpips).or(torchvision));
        }
    }
}
