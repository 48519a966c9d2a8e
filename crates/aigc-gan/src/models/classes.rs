//! Class conditioning of generators and discriminators.

use crate::DiscriminatorOutput;
use aigc_core::{
    Result, check,
    nn::{Activation, BatchNorm, BatchNormConfig, Initializer, Linear, LinearConfig},
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor},
};
use serde::{Deserialize, Serialize};

/// Class-conditional generation: the number of classes, and how each network receives the class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassConditioning {
    /// Number of classes.
    #[serde(alias = "count")]
    pub num_classes: usize,
    /// How the generator receives the class.
    pub generator: GeneratorConditioning,
    /// How the discriminator receives or predicts the class.
    #[serde(alias = "critic")]
    pub discriminator: DiscriminatorConditioning,
}

/// How a generator receives the class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GeneratorConditioning {
    /// A one-hot vector is concatenated with the noise (Mirza and Osindero 2014,
    /// <https://arxiv.org/abs/1411.1784>).
    #[default]
    Concat,
    /// Conditional batch normalisation: scale and shift of every normalisation depend on the class
    /// (Dumoulin et al. 2017, <https://arxiv.org/abs/1610.07629>). They are the same for all
    /// pixels, so the generator must be deep enough: a DCGAN of two levels hardly learns classes
    /// from them.
    #[serde(alias = "norm")]
    ConditionalBatchNorm,
}

/// How a discriminator receives or predicts the class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DiscriminatorConditioning {
    /// A learned plane per class is concatenated with the channels (Mirza and Osindero 2014).
    Concat,
    /// Projection: the inner product of a class embedding with the features is added to the logit
    /// (Miyato and Koyama 2018, <https://arxiv.org/abs/1802.05637>, eq. 3).
    #[default]
    Projection,
    /// Auxiliary classifier: the discriminator predicts the class, and both networks minimise the
    /// classification loss (Odena et al. 2017, <https://arxiv.org/abs/1610.09585>).
    Auxiliary,
}

impl ClassConditioning {
    /// `num_classes` classes, with concatenation for the generator and projection for the
    /// discriminator, which all networks of this crate support.
    pub const fn new(num_classes: usize) -> Self {
        Self {
            num_classes,
            generator: GeneratorConditioning::Concat,
            discriminator: DiscriminatorConditioning::Projection,
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        check::in_range("classes.num_classes", self.num_classes, 1..=1 << 14)
    }

    /// Width of the one-hot class that is concatenated with the noise; 0 without concatenation.
    pub(super) fn one_hot_width(classes: Option<&Self>) -> usize {
        classes
            .filter(|classes| classes.generator == GeneratorConditioning::Concat)
            .map_or(0, |classes| classes.num_classes)
    }
}

/// The noise, concatenated with the one-hot class of width `extra` unless that is 0.
pub(super) fn with_class(z: Tensor<2>, class: Option<&Tensor<1, Int>>, extra: usize) -> Tensor<2> {
    if extra == 0 {
        return z;
    }
    let class = class
        .expect("a class for a class-conditional generator")
        .clone();
    let rows = Tensor::<2>::eye(extra, &z.device());
    Tensor::cat(vec![z, rows.select(0, class)], 1)
}

/// Batch normalisation whose scale and shift may depend on the class.
#[derive(Module, Debug)]
pub(super) struct Norm {
    norm: BatchNorm,
    /// Offset of the scale for each class, `[classes, channels]`.
    scale: Option<Param<Tensor<2>>>,
    /// Offset of the shift for each class, `[classes, channels]`.
    shift: Option<Param<Tensor<2>>>,
}

impl Norm {
    pub(super) fn new(
        channels: usize,
        classes: Option<&ClassConditioning>,
        device: &Device,
    ) -> Self {
        let classes = classes
            .filter(|classes| classes.generator == GeneratorConditioning::ConditionalBatchNorm);
        let table = || {
            classes.map(|c| {
                Initializer::ZEROS.param([c.num_classes, channels], channels, channels, device)
            })
        };
        Self {
            norm: BatchNormConfig::new(channels).init(device),
            scale: table(),
            shift: table(),
        }
    }

    pub(super) fn forward(
        &self,
        x: Tensor<4>,
        class: Option<&Tensor<1, Int>>,
        activation: Activation,
    ) -> Tensor<4> {
        let (Some(scale), Some(shift)) = (&self.scale, &self.shift) else {
            return self.norm.forward_with_activation(x, activation);
        };
        let class = class.expect("a class for a class-conditional generator");
        let [batch, channels, ..] = x.dims();
        let of_class = |table: &Param<Tensor<2>>| {
            table
                .val()
                .select(0, class.clone())
                .reshape([batch, channels, 1, 1])
        };
        activation.forward(self.norm.forward(x) * (of_class(scale) + 1.0) + of_class(shift))
    }
}

/// A learned plane per class.
#[derive(Module, Debug)]
pub(super) struct ClassPlane {
    /// `[classes, height·width]`.
    planes: Param<Tensor<2>>,
}

impl ClassPlane {
    /// The planes, if the discriminator receives the class by concatenation.
    pub(super) fn new(
        classes: Option<&ClassConditioning>,
        pixels: usize,
        device: &Device,
    ) -> Option<Self> {
        let classes =
            classes.filter(|classes| classes.discriminator == DiscriminatorConditioning::Concat)?;
        let normal = Initializer::Normal {
            mean: 0.0,
            std: 1.0,
        };
        Some(Self {
            planes: normal.param(
                [classes.num_classes, pixels],
                classes.num_classes,
                pixels,
                device,
            ),
        })
    }

    /// `x` with the plane of the class as an additional channel, if there are planes.
    pub(super) fn concat<const D: usize>(
        planes: Option<&Self>,
        x: Tensor<D>,
        class: Option<&Tensor<1, Int>>,
    ) -> Tensor<D> {
        let Some(planes) = planes else { return x };
        let class = class
            .expect("a class for a class-conditional discriminator")
            .clone();
        let mut dims = x.dims();
        dims[1] = 1;
        let plane = planes.planes.val().select(0, class).reshape(dims);
        Tensor::cat(vec![x, plane], 1)
    }
}

/// The last layers of a discriminator: logit, projection of the class, auxiliary classifier.
#[derive(Module, Debug)]
pub(super) struct Head {
    score: Linear,
    /// Class embeddings for the projection, `[classes, width]`.
    classes: Option<Param<Tensor<2>>>,
    auxiliary: Option<Linear>,
    /// Number of classes, for every kind of conditioning.
    count: Option<usize>,
}

impl Head {
    /// A head on `width` features. `spectral` normalises its layers, but not the class embeddings.
    pub(super) fn new(
        width: usize,
        classes: Option<&ClassConditioning>,
        spectral: bool,
        initializer: Initializer,
        device: &Device,
    ) -> Self {
        let linear = |outputs| {
            let config = LinearConfig::new(width, outputs).with_spectral(spectral);
            config.with_initializer(initializer).init(device)
        };
        let is = |kind| classes.filter(|classes| classes.discriminator == kind);
        let normal = Initializer::Normal {
            mean: 0.0,
            std: 1.0 / (width as f64).sqrt(),
        };
        Self {
            score: linear(1),
            classes: is(DiscriminatorConditioning::Projection)
                .map(|c| normal.param([c.num_classes, width], width, c.num_classes, device)),
            auxiliary: is(DiscriminatorConditioning::Auxiliary).map(|c| linear(c.num_classes)),
            count: classes.map(|classes| classes.num_classes),
        }
    }

    /// Number of classes.
    pub(super) fn num_classes(&self) -> Option<usize> {
        self.count
    }

    /// Logits of the features of a batch.
    ///
    /// # Shapes
    /// - features: `[batch, width]`; class: `[batch]`
    pub(super) fn forward(
        &self,
        features: Tensor<2>,
        class: Option<&Tensor<1, Int>>,
    ) -> DiscriminatorOutput {
        let mut logits = self.score.forward(features.clone());
        if let Some(classes) = &self.classes {
            let class = class
                .expect("a class for a class-conditional discriminator")
                .clone();
            logits = logits + (classes.val().select(0, class) * features.clone()).sum_dim(1);
        }
        DiscriminatorOutput {
            logits: logits.squeeze_dim::<1>(1),
            class_logits: self
                .auxiliary
                .as_ref()
                .map(|auxiliary| auxiliary.forward(features)),
        }
    }
}
