//! The loss of each image under a model.
//!
//! | model | loss |
//! |---|---|
//! | autoencoder | negative ELBO, with the image's class as condition |
//! | with codes | error of the reconstruction; cross-entropy of the codes under the prior |
//! | diffusion model | error of the predicted noise |
//! | GAN | none |

mod autoencoders;
mod classes;
mod denoising;

use super::{run::ImageModel, set::ImageSet};
use aigc_core::{CancelToken, Error, Result, burn::tensor::Device};
use aigc_examples::Progress;
use aigc_vae::{ConditionKind, Vae};

/// A loss for each image.
#[derive(Debug)]
pub(crate) struct Losses {
    pub(crate) values: Vec<f64>,
    /// What the loss is, for the report.
    pub(crate) name: String,
    /// The part of the model whose loss it is, if the model has several with a loss.
    pub(crate) part: Option<&'static str>,
}

/// The images whose losses are computed.
struct Job<'a> {
    images: &'a ImageSet,
    /// The names of the classes of the training data, in the order of the model's classes.
    known: &'a [String],
    device: &'a Device,
    progress: Progress,
}

/// The losses of all images of a set. `known` are the classes of the training data: a model whose
/// classes have no names has them in this order. Noise depends on the place of an image alone: two
/// sets are compared with the same draws.
///
/// # Errors
/// [`Error::Unsupported`] for models without a loss of an image; [`Error::InvalidArgument`] for an
/// image without a class of a model that needs one; [`Error::Cancelled`].
pub(crate) fn losses(
    model: &ImageModel,
    images: &ImageSet,
    known: &[String],
    device: &Device,
    stop: &CancelToken,
) -> Result<Vec<Losses>> {
    let unsupported =
        |hint: &str| Error::unsupported("a loss for each image", model.family(), hint);
    let others = || unsupported("it is computed for models with classes or without conditions");
    let job = Job {
        images,
        known,
        device,
        progress: Progress::new("losses of images", images.len(), stop),
    };
    match model {
        ImageModel::Vae(vae) if has_others(vae.condition_kind()) => Err(others()),
        ImageModel::Vae(vae) => job.bounds(&**vae),
        ImageModel::Hierarchical(vae) if has_others(vae.condition_kind()) => Err(others()),
        ImageModel::Hierarchical(vae) => job.bounds(&**vae),
        ImageModel::Vq(both) => job.codes(&both.0, &both.1),
        ImageModel::Diffusion(pipeline) => job.denoising(pipeline)?.ok_or_else(others),
        ImageModel::Gan(_) => Err(unsupported(
            "it has no density; copies, closest records and authenticity tell whether it repeats \
             training images",
        )),
    }
}

/// Whether a model takes other conditions than classes.
fn has_others(kind: ConditionKind) -> bool {
    kind.vector_dim.is_some() || kind.cross_attention_dim.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_core::{
        burn::tensor::Tensor,
        data::{collate_images, digits},
        device::device,
        rng::InitWeights,
    };
    use aigc_diffusion::{DdimScheduler, Pipeline, UNet2dConfig};
    use aigc_gan::{GanConfig, MlpGanConfig};
    use aigc_vae::{
        AnyVae, CodePrior, CodePriorConfig, Condition, DiscreteVae, HierarchicalVae,
        HierarchicalVaeConfig, LikelihoodKind, MlpVaeConfig, Posterior, PriorCondition, VaeConfig,
        VaeSampler, VqVae, VqVaeConfig, elbo,
    };

    fn flex() -> Device {
        device("flex").unwrap()
    }

    fn names() -> Vec<String> {
        (0..10).map(|class| class.to_string()).collect()
    }

    fn images() -> ImageSet {
        let images = digits::load().0[..7].to_vec();
        ImageSet {
            name: "digits".into(),
            names: (0..images.len()).map(|i| i.to_string()).collect(),
            images,
            files: vec![],
            classes: names(),
        }
    }

    fn found(model: &ImageModel, images: &ImageSet) -> Result<Vec<Losses>> {
        losses(model, images, &names(), &flex(), &CancelToken::new())
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            let limit = 1e-4 * expected.abs().max(1e-3);
            assert!((found - expected).abs() < limit, "{found} {expected}");
        }
    }

    /// What `loss` computes of one image after the other.
    fn one_by_one(images: &ImageSet, loss: impl Fn(Tensor<4>, u32) -> Tensor<1>) -> Vec<f64> {
        let of = |row: usize| {
            let x = images.tensor(&[row], &flex());
            let value = loss(x, images.images[row].label.unwrap());
            f64::from(value.into_scalar::<f32>())
        };
        (0..images.len()).map(of).collect()
    }

    fn vae(likelihood: LikelihoodKind) -> ImageModel {
        let config = MlpVaeConfig {
            hidden_dim: 24,
            latent_dim: 5,
            likelihood,
            condition: ConditionKind {
                num_classes: Some(10),
                ..ConditionKind::default()
            },
            ..MlpVaeConfig::new(digits::SHAPE)
        };
        let vae: AnyVae = VaeConfig::Mlp(config).init(&flex()).unwrap();
        ImageModel::Vae(Box::new(vae.init_weights(1)))
    }

    #[test]
    fn classes_of_images_are_conditions() {
        let model = vae(LikelihoodKind::Bernoulli);
        let ImageModel::Vae(vae) = &model else {
            unreachable!()
        };
        let images = images();
        let bound = |x: Tensor<4>, class: u32| {
            let condition = Condition::classes(&[class], &flex());
            let posterior = vae.encode_with(x.clone(), &condition);
            let likelihood = vae.decode_with(posterior.mode(), &condition);
            elbo(x, &posterior, &likelihood).loss(1.0)
        };
        let expected = one_by_one(&images, bound);
        let found_losses = found(&model, &images).unwrap();
        assert_eq!(found_losses.len(), 1);
        assert_close(&found_losses[0].values, &expected);
        let others = one_by_one(&images, |x, class| bound(x, (class + 1) % 10));
        assert!((others[0] - expected[0]).abs() > 1e-3 * expected[0].abs());

        // Data with their classes in another order.
        let mut reversed = images.clone();
        reversed.classes.reverse();
        for image in &mut reversed.images {
            image.label = image.label.map(|label| 9 - label);
        }
        let again = found(&model, &reversed).unwrap();
        assert_close(&again[0].values, &expected);

        let mut unnamed = images;
        unnamed.images[3].label = None;
        let error = found(&model, &unnamed).unwrap_err().to_string();
        assert!(error.contains("image 3 has no class"), "{error}");
    }

    #[test]
    fn hierarchical_models_have_their_bound() {
        let vae: HierarchicalVae = HierarchicalVaeConfig::new(digits::SHAPE)
            .init(&flex())
            .unwrap()
            .init_weights(2);
        let images = images();
        let expected = one_by_one(&images, |x, _| {
            let posterior = vae.encode(x.clone());
            let likelihood = vae.decode(posterior.mode());
            posterior.kl() - likelihood.log_prob(x)
        });
        let found = found(&ImageModel::Hierarchical(Box::new(vae)), &images).unwrap();
        assert_close(&found[0].values, &expected);
    }

    #[test]
    fn codes_have_an_error_and_a_likelihood() {
        let config = VqVaeConfig {
            strides: vec![2],
            channels: vec![16],
            residual_blocks: 1,
            residual_channels: 8,
            ..VqVaeConfig::new(digits::SHAPE)
        };
        let vae: VqVae = config.init(&flex()).unwrap().init_weights(3);
        let prior = CodePriorConfig {
            d_model: 16,
            n_layer: 1,
            n_head: 2,
            num_classes: Some(10),
            ..CodePriorConfig::new(vae.code_shapes()[0])
        };
        let prior: CodePrior = prior.init(&flex()).unwrap().init_weights(4);
        let images = images();
        let batch = collate_images(images.images.clone());
        let restored = VaeSampler::new(&vae, &flex())
            .reconstruct_batch(&batch)
            .unwrap();
        let gap = (restored - batch.to_tensor(&flex())).to_data();
        let gap: Vec<f64> = gap.iter::<f64>().collect();
        let errors = gap.chunks_exact(digits::SHAPE.numel());
        let errors = errors.map(|gap| gap.iter().map(|x| x * x).sum::<f64>() / gap.len() as f64);
        let errors: Vec<f64> = errors.collect();
        let nats = one_by_one(&images, |x, class| {
            let condition = PriorCondition {
                class_labels: Condition::classes(&[class], &flex()).class_labels,
                above: None,
            };
            -prior.log_prob(vae.encode_codes(x).remove(0), &condition)
        });
        let found = found(&ImageModel::Vq(Box::new((vae, prior))), &images).unwrap();
        let [of_vae, of_prior] = &found[..] else {
            panic!("{found:?}");
        };
        assert_close(&of_vae.values, &errors);
        assert_close(&of_prior.values, &nats);
        assert_eq!((of_vae.part, of_prior.part), (None, Some("the prior")));
    }

    #[test]
    fn images_without_a_class_have_the_null_class() {
        let network = UNet2dConfig {
            null_class: Some(10),
            ..UNet2dConfig::small(digits::SHAPE, Some(11))
        };
        let network = network.init(&flex()).unwrap().init_weights(5);
        let scheduler = DdimScheduler::default();
        let pipeline = Pipeline::new(network, scheduler, digits::SHAPE).unwrap();
        let model = ImageModel::Diffusion(Box::new(pipeline));
        let images = images();
        let with_classes = found(&model, &images).unwrap().remove(0).values;
        let mut unnamed = images;
        unnamed.images[3].label = None;
        let with_null = found(&model, &unnamed).unwrap().remove(0).values;
        let gaps = with_classes.iter().zip(&with_null);
        for (row, gap) in gaps.map(|(a, b)| (a - b).abs()).enumerate() {
            assert_eq!(gap > 1e-6, row == 3, "{row}: {gap}");
        }
        // The noise has the variance 1.
        let of_noise = |loss: &f64| (0.1..10.0).contains(loss);
        assert!(with_classes.iter().all(of_noise), "{with_classes:?}");
    }

    #[test]
    fn models_without_a_loss_are_told_of() {
        let gan = GanConfig::Mlp(MlpGanConfig::new(digits::SHAPE)).init(&flex());
        let gan = ImageModel::Gan(Box::new(gan.unwrap().init_weights(0)));
        let error = found(&gan, &images()).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains("authenticity"), "{error}");
        // Its variance is that of the batch.
        let error = found(&vae(LikelihoodKind::OptimalGaussian), &images()).unwrap_err();
        assert!(error.to_string().contains("optimal Gaussian"), "{error}");
    }
}
