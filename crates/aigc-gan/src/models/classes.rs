//! How networks are told a class.

use crate::DiscriminatorOutput;
use aigc_core::{
    Error, Result,
    nn::{Activation, BatchNorm, BatchNormConfig, Initializer, Linear, LinearConfig},
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor},
};
use serde::{Deserialize, Serialize};

/// Conditional generation: how many classes, and how each side is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassConditioning {
    /// How many.
    pub num_classes: usize,
    /// How the generator is told.
    pub generator: GeneratorConditioning,
    /// How the critic is told, or tells.
    pub discriminator: DiscriminatorConditioning,
}

/// How a generator is told the class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GeneratorConditioning {
    /// A one-hot vector beside the noise (Mirza and Osindero 2014,
    /// <https://arxiv.org/abs/1411.1784>).
    #[default]
    Concat,
    /// Conditional batch normalisation: scale and shift of every norm depend on the class (Dumoulin
    /// et al. 2017,
    /// <https://arxiv.org/abs/1610.07629>). A class cannot say where in a map, so this takes a generator of some depth: a
    /// DCGAN of two levels hardly learns classes from it.
    ConditionalBatchNorm,
}

/// How a critic is told the class, or tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiscriminatorConditioning {
    /// A learned plane per class beside the channels (Mirza and Osindero 2014).
    Concat,
    /// Projection: the inner product of a class vector with the features joins the score (Miyato
    /// and Koyama 2018,
    /// <https://arxiv.org/abs/1802.05637>, eq. 3).
    #[default]
    Projection,
    /// Auxiliary classifier: the critic names the class, and both players want it right (Odena et
    /// al. 2017,
    /// <https://arxiv.org/abs/1610.09585>).
    Auxiliary,
}

impl ClassConditioning {
    /// `count` classes, told beside the noise and by projection. Every network here has a place for
    /// both.
    pub const fn new(count: usize) -> Self {
        Self {
            num_classes: count,
            generator: GeneratorConditioning::Concat,
            discriminator: DiscriminatorConditioning::Projection,
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        if (1..=1 << 14).contains(&self.num_classes) {
            return Ok(());
        }
        Err(Error::config(
            "classes.count",
            self.num_classes,
            format!("1 to {}", 1 << 14),
        ))
    }

    /// How many numbers beside the noise tell the generator the class.
    pub(super) fn beside_noise(classes: Option<&Self>) -> usize {
        classes
            .filter(|classes| classes.generator == GeneratorConditioning::Concat)
            .map_or(0, |classes| classes.num_classes)
    }
}

/// The noise, with a one-hot class beside it if that takes more than the noise's own width.
pub(super) fn with_class(z: Tensor<2>, class: Option<&Tensor<1, Int>>, extra: usize) -> Tensor<2> {
    if extra == 0 {
        return z;
    }
    let class = class.expect("a generator with classes is told one").clone();
    let rows = Tensor::<2>::eye(extra, &z.device());
    Tensor::cat(vec![z, rows.select(0, class)], 1)
}

/// Batch normalisation, of a scale and shift that may depend on the class.
#[derive(Module, Debug)]
pub(super) struct Norm {
    norm: BatchNorm,
    /// What a class adds to the scale, `[classes, channels]`.
    scale: Option<Param<Tensor<2>>>,
    /// What a class adds to the shift, `[classes, channels]`.
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
        let class = class.expect("a generator with classes is told one");
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
    /// The planes, if the critic is told so.
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

    /// `x` with one more channel, if there are planes.
    pub(super) fn beside(
        planes: Option<&Self>,
        x: Tensor<4>,
        class: Option<&Tensor<1, Int>>,
    ) -> Tensor<4> {
        let Some(planes) = planes else { return x };
        let class = class.expect("a critic with classes is told one").clone();
        let [batch, _, height, width] = x.dims();
        let plane = planes
            .planes
            .val()
            .select(0, class)
            .reshape([batch, 1, height, width]);
        Tensor::cat(vec![x, plane], 1)
    }
}

/// What follows a critic's features: the score, and what the classes add.
#[derive(Module, Debug)]
pub(super) struct Head {
    score: Linear,
    /// Projection's class vectors, `[classes, channels·pixels]`: where features are not pooled, a
    /// class may say where.
    classes: Option<Param<Tensor<2>>>,
    auxiliary: Option<Linear>,
    /// Of any kind.
    count: Option<usize>,
}

impl Head {
    /// For features of `channels` maps of `pixels` values. `spectral` normalises the layers, not
    /// the class vectors.
    pub(super) fn new(
        channels: usize,
        pixels: usize,
        classes: Option<&ClassConditioning>,
        spectral: bool,
        initializer: Initializer,
        device: &Device,
    ) -> Self {
        let linear = |outputs| {
            let config = LinearConfig::new(channels * pixels, outputs).with_spectral(spectral);
            config.with_initializer(initializer).init(device)
        };
        let is = |kind| classes.filter(|classes| classes.discriminator == kind);
        let width = channels * pixels;
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

    /// Number of classes that the critic is told, or tells.
    pub(super) fn count(&self) -> Option<usize> {
        self.count
    }

    /// # Shapes
    /// - features: `[batch, channels, height, width]`
    pub(super) fn judge(
        &self,
        features: Tensor<4>,
        class: Option<&Tensor<1, Int>>,
    ) -> DiscriminatorOutput {
        let flat = features.flatten::<2>(1, 3);
        let mut score = self.score.forward(flat.clone());
        if let Some(classes) = &self.classes {
            let class = class.expect("a critic with classes is told one").clone();
            score = score + (classes.val().select(0, class) * flat.clone()).sum_dim(1);
        }
        let score = score.squeeze_dim::<1>(1);
        DiscriminatorOutput {
            logits: score,
            class_logits: self
                .auxiliary
                .as_ref()
                .map(|auxiliary| auxiliary.forward(flat)),
        }
    }
}
