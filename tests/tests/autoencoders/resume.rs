//! Exact resume of models of several parts.

use super::{flex, loader};
use aigc_core::{
    CancelToken,
    adversarial::{PatchDiscriminator, PatchDiscriminatorConfig},
    data::{ImageBatch, digits},
    testing::{TempRun, temp_run},
    train::{Event, Objective, StartFrom, StopReason, Trainer, TrainerConfig},
    weights::load_pretrained,
};
use aigc_tests::bits;
use aigc_vae::{
    AdversarialVae, AdversarialVaeObjective, AdversarialVaeObjectiveConfig, FactorVae,
    FactorVaeObjective, FactorVaeObjectiveConfig, FlowConfig, FlowKind, FlowPosteriorVae,
    GaussianMixture, GaussianMixtureConfig, LatentDiscriminatorConfig, MlpVae, MlpVaeConfig, Vae,
    VaeObjective, VectorQuantizerConfig, VqVae, VqVaeConfig, WithPrior,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Trains for 4 steps, and for 2 steps and 2 more of a resumed run, and compares all weights.
/// Returns the resumed run and its model.
fn resumed<O, C>(
    objective: impl Fn() -> O,
    model: impl Fn() -> O::Model,
    config: &C,
) -> (TempRun, O::Model)
where
    O: Objective<Batch = ImageBatch>,
    C: Serialize + DeserializeOwned,
{
    let train = |run: &TempRun, start: StartFrom, stop: Option<usize>| {
        let cancel = CancelToken::new();
        let raise = cancel.clone();
        let trainer = TrainerConfig {
            learning_rate: 3e-3,
            ..TrainerConfig::new(4)
        };
        let trained = Trainer::new(trainer)
            .with_start(start)
            .with_cancel(cancel)
            .with_callback(move |event: &Event<'_>| {
                if let Event::Step(report) = event
                    && Some(report.step) == stop
                {
                    raise.cancel();
                }
            })
            .with_model_config(config)
            .unwrap()
            .fit(objective(), model(), &loader(48), run)
            .unwrap();
        let expected = match stop {
            Some(_) => StopReason::Interrupted,
            None => StopReason::Completed,
        };
        assert_eq!(trained.stop_reason, expected);
        trained.model
    };
    let (whole, parts) = (temp_run().unwrap(), temp_run().unwrap());
    let expected = train(&whole, StartFrom::Fresh, None);
    let half = train(&parts, StartFrom::Fresh, Some(2));
    let found = train(&parts, StartFrom::Resume, None);
    let (half, expected) = (bits(&half), bits(&expected));
    for (name, found) in bits(&found) {
        assert!(found == expected[&name], "{name} differs");
    }
    assert_ne!(half, expected);
    (parts, found)
}

fn tiny_mlp() -> MlpVaeConfig {
    MlpVaeConfig {
        hidden_dim: 16,
        latent_dim: 3,
        ..MlpVaeConfig::new(digits::SHAPE)
    }
}

#[test]
fn factor_vae_resumes_exactly() {
    type Factor = FactorVaeObjective<MlpVae, ImageBatch, 4, 2>;
    let discriminator = LatentDiscriminatorConfig {
        hidden_dim: 8,
        num_layers: 2,
        ..LatentDiscriminatorConfig::new(3)
    };
    let model = || FactorVae {
        vae: tiny_mlp().init(&flex()).unwrap(),
        discriminator: discriminator.init(&flex()).unwrap(),
    };
    let config = FactorVaeObjectiveConfig::new(6.0);
    let objective = || Factor::new(config, &model()).unwrap();
    resumed(objective, model, &tiny_mlp());
}

/// The first step is without a discriminator, and the codes follow moving averages.
#[test]
fn adversarial_vae_resumes_exactly() {
    type Model = AdversarialVae<VqVae, PatchDiscriminator>;
    type Vqgan = AdversarialVaeObjective<VqVae, PatchDiscriminator, ImageBatch, 4, 4>;
    let vae = VqVaeConfig {
        strides: vec![2],
        channels: vec![8],
        residual_blocks: 1,
        residual_channels: 4,
        quantizer: VectorQuantizerConfig::new(8, 4).into(),
        ..VqVaeConfig::new(digits::SHAPE)
    };
    let discriminator = PatchDiscriminatorConfig {
        channels: 4,
        num_layers: 1,
        ..PatchDiscriminatorConfig::new(digits::SHAPE)
    };
    let model = || -> Model {
        AdversarialVae {
            vae: vae.init(&flex()).unwrap(),
            discriminator: discriminator.init(&flex()).unwrap(),
        }
    };
    let config = AdversarialVaeObjectiveConfig::vqgan("decoder.up.0.weight", 1);
    let objective = || Vqgan::new(config.clone(), &model()).unwrap();
    resumed(objective, model, &vae);
}

/// A model and what it is extended by, in `config.json`.
#[derive(PartialEq, Serialize, Deserialize)]
struct Extended<E> {
    model: MlpVaeConfig,
    extension: E,
}

/// Trains the model that `init` creates in two parts, and opens the final model of the run.
fn resumes_and_opens<M, E>(extension: E, init: impl Fn(&Extended<E>) -> aigc_core::Result<M>)
where
    M: Vae + 'static,
    E: PartialEq + Serialize + DeserializeOwned,
{
    let config = Extended {
        model: tiny_mlp(),
        extension,
    };
    let objective = || VaeObjective::<M, ImageBatch, 4, 2>::new(Default::default()).unwrap();
    let (run, trained) = resumed(objective, || init(&config).unwrap(), &config);
    let open = |config: &Extended<E>| init(config);
    let opened = load_pretrained(&run.final_dir(), &[], open).unwrap();
    assert!(opened.warnings().is_empty(), "{opened}");
    assert!(bits(&*opened) == bits(&trained), "weights changed");
}

#[test]
fn models_with_a_prior_resume_and_open_exactly() {
    type Model = WithPrior<MlpVae, GaussianMixture>;
    let init = |config: &Extended<GaussianMixtureConfig>| -> aigc_core::Result<Model> {
        let model = config.model.init(&flex())?;
        WithPrior::new(model, config.extension.init(3, &flex())?)
    };
    resumes_and_opens(GaussianMixtureConfig::new(4), init);
}

#[test]
fn models_with_a_flow_resume_and_open_exactly() {
    let flow = FlowConfig::new(FlowKind::Iaf)
        .with_num_layers(2)
        .with_hidden_dims(&[8])
        .with_context_dim(6);
    let init = |config: &Extended<FlowConfig>| -> aigc_core::Result<FlowPosteriorVae<MlpVae>> {
        let model = config.model.init(&flex())?;
        FlowPosteriorVae::new(model, config.extension.init(3, &flex())?)
    };
    resumes_and_opens(flow, init);
}
