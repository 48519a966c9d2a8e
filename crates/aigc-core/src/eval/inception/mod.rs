//! InceptionV3 with the weights of the FID.

mod blocks;
mod layers;
mod preprocess;

pub use preprocess::InceptionPreprocessing;

use super::{Classifier, ClassifierOutput, FeatureExtractor, features::weight_hash};
use crate::{
    Error, Result,
    nn::{Linear, LinearConfig},
    weights::{KeyMapping, ParamKey, WeightReader, pytorch_key},
};
use blocks::{InceptionA, InceptionB, InceptionC, InceptionD, InceptionE};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use layers::{BasicConv2d, max_pool};
use std::path::Path;

/// The layer whose mean over all pixels is the features of an image, or the logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InceptionLayer {
    /// 64 features, behind the first maximum.
    Pool1,
    /// 192 features, behind the second maximum.
    Pool2,
    /// 768 features, before the auxiliary classifier of the paper.
    Mixed6,
    /// 2,048 features, the last ones: those of the FID, the KID and precision and recall.
    #[default]
    Pool3,
    /// 1,008 logits without the bias of the last layer: those of the Inception Score in
    /// torch-fidelity.
    LogitsUnbiased,
}

impl InceptionLayer {
    /// Number of features.
    pub fn width(self) -> usize {
        match self {
            Self::Pool1 => 64,
            Self::Pool2 => 192,
            Self::Mixed6 => 768,
            Self::Pool3 => 2048,
            Self::LogitsUnbiased => InceptionV3::CLASSES,
        }
    }
}

/// Configuration to create an [`InceptionV3`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InceptionV3Config {
    /// Layer of the features.
    pub layer: InceptionLayer,
    /// Preparation of images.
    pub preprocessing: InceptionPreprocessing,
}

impl InceptionV3Config {
    /// Creates the network with random weights on `device`. Distances in the features of random
    /// weights are no FID.
    pub fn init(&self, device: &Device) -> InceptionV3 {
        let net = Net::new(device).fold();
        InceptionV3 {
            weights: weight_hash(&net),
            net,
            config: *self,
        }
    }
}

/// InceptionV3 (Szegedy et al. 2016, <https://arxiv.org/abs/1512.00567>) as the FID uses it
/// (Heusel et al. 2017, <https://arxiv.org/abs/1706.08500>): trained in 2015 on 1,008 classes.
///
/// Files: `weights-inception-2015-12-05-6726825d.pth` of torch-fidelity and
/// `pt_inception-2015-12-05-6726825d.pth` of pytorch-fid, or the same tensors as safetensors. The
/// two packages differ in how images are prepared, see [`InceptionPreprocessing`].
#[derive(Clone, Debug)]
pub struct InceptionV3 {
    net: Net,
    config: InceptionV3Config,
    /// Hash of the weights.
    weights: String,
}

/// The network; fields have the names of the files, in small letters.
#[derive(Module, Debug)]
struct Net {
    conv2d_1a_3x3: BasicConv2d,
    conv2d_2a_3x3: BasicConv2d,
    conv2d_2b_3x3: BasicConv2d,
    conv2d_3b_1x1: BasicConv2d,
    conv2d_4a_3x3: BasicConv2d,
    mixed_5b: InceptionA,
    mixed_5c: InceptionA,
    mixed_5d: InceptionA,
    mixed_6a: InceptionB,
    mixed_6b: InceptionC,
    mixed_6c: InceptionC,
    mixed_6d: InceptionC,
    mixed_6e: InceptionC,
    mixed_7a: InceptionD,
    mixed_7b: InceptionE,
    mixed_7c: InceptionE,
    fc: Linear,
}

/// Images that are computed at once: what is in memory at the same time does not grow with a batch.
const AT_ONCE: usize = 16;

impl InceptionV3 {
    /// Number of classes of the logits.
    pub const CLASSES: usize = 1008;

    /// Loads the weights, for the last features and torch-fidelity's preparation of images.
    ///
    /// # Errors
    /// [`Error::Weights`] if the file does not contain this network.
    pub fn from_file(path: &Path, device: &Device) -> Result<Self> {
        let reader = WeightReader::open(path)?;
        let (net, _) = reader.load_into(Net::new(device), file_key)?;
        Ok(Self {
            net: net.fold(),
            config: InceptionV3Config::default(),
            weights: reader.hash()?,
        })
    }

    /// Takes the features of `layer`.
    pub fn with_layer(mut self, layer: InceptionLayer) -> Self {
        self.config.layer = layer;
        self
    }

    /// Prepares images in this way.
    pub fn with_preprocessing(mut self, preprocessing: InceptionPreprocessing) -> Self {
        self.config.preprocessing = preprocessing;
        self
    }

    /// Logits without the bias of the last layer, whatever the layer of the features:
    /// [`InceptionLayer::LogitsUnbiased`].
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]` in `[0, 1]`; grey ones are repeated
    /// - output: `[batch, 1008]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no images, or they have neither 1 nor 3 channels, or
    /// no pixels.
    pub fn logits_unbiased(&self, images: Tensor<4>) -> Result<Tensor<2>> {
        self.in_parts(images, InceptionLayer::LogitsUnbiased)
    }

    fn in_parts(&self, images: Tensor<4>, layer: InceptionLayer) -> Result<Tensor<2>> {
        let batch = images.dims()[0];
        let parts = (0..batch).step_by(AT_ONCE).map(|first| {
            let part = images.clone().narrow(0, first, AT_ONCE.min(batch - first));
            Ok(self
                .net
                .features(self.config.preprocessing.prepare(part)?, layer))
        });
        let parts = parts.collect::<Result<Vec<_>>>()?;
        if parts.is_empty() {
            return Err(Error::argument("images", 0, "at least 1"));
        }
        Ok(Tensor::cat(parts, 0))
    }
}

impl FeatureExtractor for InceptionV3 {
    fn id(&self) -> String {
        let InceptionV3Config {
            layer,
            preprocessing,
        } = self.config;
        format!("InceptionV3 {layer:?} {preprocessing:?} {}", self.weights)
    }

    fn width(&self) -> usize {
        self.config.layer.width()
    }

    fn extract(&self, images: Tensor<4>) -> Result<Tensor<2>> {
        self.in_parts(images, self.config.layer)
    }
}

impl Classifier for InceptionV3 {
    /// The features are the last ones; the logits have the bias of the last layer.
    ///
    /// # Panics
    /// If there are no images, or they have neither 1 nor 3 channels, or no pixels.
    fn classify(&self, images: Tensor<4>) -> ClassifierOutput {
        let features = self
            .in_parts(images, InceptionLayer::Pool3)
            .expect("at least one grey or RGB image with pixels");
        ClassifierOutput {
            logits: self.net.fc.forward(features.clone()),
            features,
        }
    }
}

impl Net {
    fn new(device: &Device) -> Self {
        Self {
            conv2d_1a_3x3: BasicConv2d::valid([3, 32], 2, device),
            conv2d_2a_3x3: BasicConv2d::valid([32, 32], 1, device),
            conv2d_2b_3x3: BasicConv2d::same([32, 64], [3, 3], device),
            conv2d_3b_1x1: BasicConv2d::pointwise([64, 80], device),
            conv2d_4a_3x3: BasicConv2d::valid([80, 192], 1, device),
            mixed_5b: InceptionA::new(192, 32, device),
            mixed_5c: InceptionA::new(256, 64, device),
            mixed_5d: InceptionA::new(288, 64, device),
            mixed_6a: InceptionB::new(288, device),
            mixed_6b: InceptionC::new(768, 128, device),
            mixed_6c: InceptionC::new(768, 160, device),
            mixed_6d: InceptionC::new(768, 160, device),
            mixed_6e: InceptionC::new(768, 192, device),
            mixed_7a: InceptionD::new(768, device),
            mixed_7b: InceptionE::new(1280, false, device),
            mixed_7c: InceptionE::new(2048, true, device),
            fc: LinearConfig::new(2048, InceptionV3::CLASSES).init(device),
        }
    }

    fn fold(self) -> Self {
        Self {
            conv2d_1a_3x3: self.conv2d_1a_3x3.fold(),
            conv2d_2a_3x3: self.conv2d_2a_3x3.fold(),
            conv2d_2b_3x3: self.conv2d_2b_3x3.fold(),
            conv2d_3b_1x1: self.conv2d_3b_1x1.fold(),
            conv2d_4a_3x3: self.conv2d_4a_3x3.fold(),
            mixed_5b: self.mixed_5b.fold(),
            mixed_5c: self.mixed_5c.fold(),
            mixed_5d: self.mixed_5d.fold(),
            mixed_6a: self.mixed_6a.fold(),
            mixed_6b: self.mixed_6b.fold(),
            mixed_6c: self.mixed_6c.fold(),
            mixed_6d: self.mixed_6d.fold(),
            mixed_6e: self.mixed_6e.fold(),
            mixed_7a: self.mixed_7a.fold(),
            mixed_7b: self.mixed_7b.fold(),
            mixed_7c: self.mixed_7c.fold(),
            fc: self.fc,
        }
    }

    /// Means over all pixels of a layer, or the logits.
    fn features(&self, x: Tensor<4>, layer: InceptionLayer) -> Tensor<2> {
        let x = self.conv2d_1a_3x3.forward(x);
        let x = self.conv2d_2a_3x3.forward(x);
        let x = max_pool(self.conv2d_2b_3x3.forward(x));
        if layer == InceptionLayer::Pool1 {
            return mean(x);
        }
        let x = self.conv2d_3b_1x1.forward(x);
        let x = max_pool(self.conv2d_4a_3x3.forward(x));
        if layer == InceptionLayer::Pool2 {
            return mean(x);
        }
        let x = self.mixed_5b.forward(x);
        let x = self.mixed_5c.forward(x);
        let x = self.mixed_6a.forward(self.mixed_5d.forward(x));
        let x = self.mixed_6b.forward(x);
        let x = self.mixed_6c.forward(x);
        let x = self.mixed_6e.forward(self.mixed_6d.forward(x));
        if layer == InceptionLayer::Mixed6 {
            return mean(x);
        }
        let x = self.mixed_7b.forward(self.mixed_7a.forward(x));
        let x = mean(self.mixed_7c.forward(x));
        match layer {
            InceptionLayer::LogitsUnbiased => x.matmul(self.fc.weight.val()),
            _ => x,
        }
    }
}

/// Names of the files begin with a capital letter.
fn file_key(key: ParamKey<'_>) -> KeyMapping {
    let path = match key.path.as_bytes() {
        [b'c' | b'm', ..] => key.path[..1].to_uppercase() + &key.path[1..],
        _ => key.path.to_string(),
    };
    pytorch_key(ParamKey { path: &path, ..key })
}

fn mean(x: Tensor<4>) -> Tensor<2> {
    x.flatten::<3>(2, 3).mean_dim(2).squeeze_dim(2)
}
