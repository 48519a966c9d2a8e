//! The discriminators of this crate as [`SampleDiscriminator`]s, for training models of other
//! families against them.
//!
//! The logits have one patch, the whole sample. Auxiliary classifiers give no class logits here.

use crate::{
    AnyDiscriminator, Discriminator,
    models::{DcganDiscriminator, MlpDiscriminator, R3ganDiscriminator, ResnetDiscriminator},
};
use aigc_core::adversarial::SampleDiscriminator;
use burn::tensor::{Int, Tensor};

/// Methods of [`SampleDiscriminator`] of rank `$rank` for a [`Discriminator`].
macro_rules! one_logit_per_sample {
    ($rank:expr) => {
        fn logits(&self, x: Tensor<{ $rank }>, class: Option<Tensor<1, Int>>) -> Tensor<2> {
            <Self as Discriminator<{ $rank }>>::forward(self, x, class).unsqueeze_dim(1)
        }

        fn num_classes(&self) -> Option<usize> {
            <Self as Discriminator<{ $rank }>>::num_classes(self)
        }
    };
}

impl SampleDiscriminator for AnyDiscriminator {
    one_logit_per_sample!(4);
}

impl SampleDiscriminator for DcganDiscriminator {
    one_logit_per_sample!(4);
}

impl SampleDiscriminator for R3ganDiscriminator {
    one_logit_per_sample!(4);
}

impl SampleDiscriminator for ResnetDiscriminator {
    one_logit_per_sample!(4);
}

impl<const D: usize> SampleDiscriminator<D> for MlpDiscriminator<D> {
    one_logit_per_sample!(D);
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{ClassConditioning, DcganConfig, GanConfig, MlpGanConfig};
    use aigc_core::{
        data::{ImageShape, label_tensor},
        rng::{InitWeights, Rng},
        testing::values,
    };
    use burn::tensor::Device;

    #[test]
    fn logits_are_those_of_the_discriminator() {
        let device = Device::flex();
        let shape = ImageShape::new(3, 16, 16);
        let x: Tensor<4> = Rng::new(1).uniform([4, 3, 16, 16], -1.0, 1.0, &device);
        let class = label_tensor(&[0, 2, 1, 1], &device);
        for classes in [None, Some(ClassConditioning::new(3))] {
            let mut mlp = MlpGanConfig::new(shape);
            let mut dcgan = DcganConfig::new(shape);
            (mlp.classes, dcgan.classes) = (classes, classes);
            for config in [GanConfig::Mlp(mlp), GanConfig::Dcgan(dcgan)] {
                let discriminator = config.init(&device).unwrap().discriminator;
                let discriminator = discriminator.init_weights(2);
                let class = classes.map(|_| class.clone());
                let logits = discriminator.logits(x.clone(), class.clone());
                assert_eq!(logits.dims(), [4, 1]);
                let expected = Discriminator::forward(&discriminator, x.clone(), class);
                assert_eq!(values(logits), values(expected));
                assert_eq!(
                    SampleDiscriminator::num_classes(&discriminator),
                    classes.map(|classes| classes.num_classes)
                );
            }
        }
    }
}
