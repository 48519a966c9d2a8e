//! Custom networks.

use super::*;

/// A custom generator that ignores its noise.
#[derive(Module, Debug)]
struct Constant {
    picture: Param<Tensor<4>>,
}

impl Generator for Constant {
    fn generate(&self, z: Tensor<2>, _class: Option<Tensor<1, Int>>) -> Tensor<4> {
        self.picture.val().tanh().repeat_dim(0, z.dims()[0])
    }

    fn latent_dim(&self) -> usize {
        1
    }

    fn sample_shape(&self) -> SampleShape {
        ImageShape::new(1, 8, 8).into()
    }
}

#[derive(Module, Debug)]
struct OneLayer {
    layer: Linear,
}

impl Discriminator for OneLayer {
    fn forward(&self, x: Tensor<4>, _class: Option<Tensor<1, Int>>) -> Tensor<1> {
        self.layer.forward(x.flatten::<2>(1, 3)).squeeze_dim(1)
    }
}

#[test]
fn custom_networks_train_and_collapse_raises_an_alert() {
    let gan = Gan {
        generator: Constant {
            picture: Initializer::ZEROS.param([1, 1, 8, 8], 1, 1, &flex()),
        },
        discriminator: OneLayer {
            layer: LinearConfig::new(64, 1).init(&flex()),
        },
    };
    let monitor = Some(CollapseMonitor {
        interval: 1,
        patience: 10,
        ..CollapseMonitor::default()
    });
    let objective = GanObjectiveConfig {
        monitor,
        ..GanObjectiveConfig::r3gan(1.0)
    };
    let (run, _keep) = run_dir();
    let mut alerts = Vec::new();
    Trainer::new(trainer(40))
        .with_callback(|event: &Event<'_>| {
            if let Event::Alert { step, kind, text } = event {
                alerts.push((*step, *kind, text.to_string()));
            }
        })
        .fit(
            GanObjective::new(objective, &gan).unwrap(),
            gan,
            &batches(bars(ImageShape::new(1, 8, 8), 24), 12),
            &run,
        )
        .unwrap();
    let collapse: Vec<_> = alerts
        .iter()
        .filter(|(_, kind, _)| *kind == "collapse")
        .collect();
    assert!(collapse.len() == 1 && collapse[0].0 == 9, "{alerts:?}");
    assert!(
        collapse[0].2.contains("the generator is collapsing"),
        "{alerts:?}"
    );
}

#[test]
fn penalties_reject_a_discriminator_with_dropout() {
    #[derive(Module, Debug)]
    struct Dropping {
        dropout: Dropout,
        layer: Linear,
    }

    impl Discriminator for Dropping {
        fn forward(&self, x: Tensor<4>, _class: Option<Tensor<1, Int>>) -> Tensor<1> {
            self.layer
                .forward(self.dropout.forward(x.flatten::<2>(1, 3)))
                .squeeze_dim(1)
        }
    }

    let gan = Gan {
        generator: Constant {
            picture: Initializer::ZEROS.param([1, 1, 8, 8], 1, 1, &flex()),
        },
        discriminator: Dropping {
            dropout: DropoutConfig::new(0.5).init(),
            layer: LinearConfig::new(64, 1).init(&flex()),
        },
    };
    let refused = GanObjective::<_, _, ImageBatch>::new(GanObjectiveConfig::r3gan(1.0), &gan)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("draws random numbers"), "{refused}");
    assert!(GanObjective::<_, _, ImageBatch>::new(GanObjectiveConfig::default(), &gan).is_ok());
}
