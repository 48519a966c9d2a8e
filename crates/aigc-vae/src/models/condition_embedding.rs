//! How the hidden vectors of a network depend on a [`Condition`]: one-hot classes and vectors by
//! concatenation, encoder hidden states by cross-attention.

use crate::{Condition, ConditionKind};
use aigc_core::nn::{Linear, LinearConfig, scaled_dot_product_attention};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};

/// Concatenates each row with the one-hot vector of its class (Kingma et al. 2014,
/// <https://arxiv.org/abs/1406.5298>; Sohn et al. 2015) and with its vector, of a model that takes
/// them. Those that the condition does not have are zero.
///
/// # Shapes
/// - x: `[batch, features]`
/// - output: `[batch, features + num_classes + vector_dim]`
pub(super) fn concatenate(x: Tensor<2>, kind: ConditionKind, condition: &Condition) -> Tensor<2> {
    let ([batch, _], device) = (x.dims(), x.device());
    let zeros = |width| Tensor::<2>::zeros([batch, width], &device);
    let mut parts = vec![x];
    if let Some(classes) = kind.num_classes {
        let labels = condition.class_labels.clone();
        parts.push(labels.map_or_else(|| zeros(classes), |labels| one_hot(labels, classes)));
    }
    if let Some(width) = kind.vector_dim {
        let vectors = condition.vectors.clone();
        parts.push(vectors.unwrap_or_else(|| zeros(width)));
    }
    match parts.len() {
        1 => parts.remove(0),
        _ => Tensor::cat(parts, 1),
    }
}

/// One-hot vectors of labels. That of a label that is not a class is NaN: an error that is seen
/// without reading the labels from their device.
///
/// # Shapes
/// - labels: `[batch]`
/// - output: `[batch, num_classes]`
pub(super) fn one_hot(labels: Tensor<1, Int>, num_classes: usize) -> Tensor<2> {
    let device = labels.device();
    let classes = Tensor::<1, Int>::arange(0..num_classes as i64, (&device, labels.dtype()));
    let labels = labels.unsqueeze_dim::<2>(1);
    let one_hot = labels.equal(classes.unsqueeze::<2>()).float();
    // 1, and 0/0 without a class.
    one_hot.clone() / one_hot.sum_dim(1)
}

/// [`CrossAttention::forward`] to the vectors of the condition; `hidden` is unchanged if there is
/// no layer or there are no vectors.
///
/// # Shapes
/// - hidden and output: `[batch, hidden_dim]`
pub(super) fn attend(
    layer: &Option<CrossAttention>,
    hidden: Tensor<2>,
    condition: &Condition,
) -> Tensor<2> {
    match (layer, &condition.encoder_hidden_states) {
        (Some(layer), Some(states)) => layer.forward(hidden, states.clone()),
        _ => hidden,
    }
}

/// Attention of one hidden vector, the query, to the vectors of a condition, with one head and a
/// residual connection (Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>; as conditioning,
/// Rombach et al. 2022, <https://arxiv.org/abs/2112.10752>, §3.3). There are no biases: vectors of
/// zeros have no effect.
#[derive(Module, Debug)]
pub(super) struct CrossAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
}

impl CrossAttention {
    /// A layer for hidden vectors of `hidden_dim`, of a model that takes such conditions.
    pub(super) fn of_kind(kind: ConditionKind, hidden_dim: usize, device: &Device) -> Option<Self> {
        let linear = |inputs| {
            LinearConfig::new(inputs, hidden_dim)
                .with_bias(false)
                .init(device)
        };
        kind.cross_attention_dim.map(|width| Self {
            query: linear(hidden_dim),
            key: linear(width),
            value: linear(width),
            output: linear(hidden_dim),
        })
    }

    /// # Shapes
    /// - hidden and output: `[batch, hidden_dim]`
    /// - states: `[batch, tokens, cross_attention_dim]`
    fn forward(&self, hidden: Tensor<2>, states: Tensor<3>) -> Tensor<2> {
        let query = self.query.forward(hidden.clone()).unsqueeze_dim::<3>(1);
        let key = self.key.forward(states.clone());
        let value = self.value.forward(states);
        let head = |x: Tensor<3>| x.unsqueeze_dim::<4>(1);
        let attended =
            scaled_dot_product_attention(head(query), head(key), head(value), None, false);
        hidden + self.output.forward(attended.flatten::<2>(1, 3))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{AnyVae, ConvVaeConfig, MlpVaeConfig, Vae, VaeConfig};
    use aigc_core::{
        data::ImageShape,
        nn::Activation,
        params::{ParamVisitor, visit_params},
        rng::{InitWeights, Rng},
        testing::{assert_close, values},
    };
    use burn::{module::Param, tensor::Gradients};
    use serde_json::{from_value, json, to_value};

    const KIND: ConditionKind = ConditionKind {
        num_classes: Some(4),
        vector_dim: Some(3),
        cross_attention_dim: Some(5),
    };

    fn configs(condition: ConditionKind) -> [VaeConfig; 2] {
        let shape = ImageShape::new(1, 4, 4);
        let mlp = MlpVaeConfig {
            hidden_dim: 8,
            hidden_layers: 2,
            latent_dim: 3,
            activation: Activation::Tanh,
            condition,
            ..MlpVaeConfig::new(shape)
        };
        let conv = ConvVaeConfig {
            channels: vec![4, 6],
            residual_blocks: 1,
            hidden_dim: 8,
            latent_dim: 3,
            activation: Activation::Silu,
            condition,
            ..ConvVaeConfig::new(shape)
        };
        [VaeConfig::Mlp(mlp), VaeConfig::Conv(conv)]
    }

    fn images(n: usize, device: &Device) -> Tensor<4> {
        Rng::new(2).uniform([n, 1, 4, 4], 0.0, 1.0, device)
    }

    /// The classes, a vector and two hidden states for each sample.
    fn condition(labels: &[u32], device: &Device) -> Condition {
        Condition {
            vectors: Some(Rng::new(6).normal([labels.len(), 3], device)),
            encoder_hidden_states: Some(Rng::new(3).normal([labels.len(), 2, 5], device)),
            ..Condition::classes(labels, device)
        }
    }

    /// Parameters of the posteriors of two images, and means of the likelihoods of two latents.
    fn outputs(model: &AnyVae, condition: &Condition) -> [Vec<f32>; 3] {
        let device = Device::flex();
        let posterior = model.encode_with(images(2, &device), condition);
        let z = Rng::new(4).normal([2, 3], &device);
        let likelihood = model.decode_with(z, condition);
        [
            values(posterior.mean),
            values(posterior.logvar),
            values(likelihood.mean()),
        ]
    }

    #[test]
    fn classes_are_one_hot_vectors() {
        let device = Device::flex();
        let x = Tensor::<2>::from_floats([[7.0], [8.0]], &device);
        let of = |num_classes, condition: &Condition| {
            let kind = ConditionKind {
                num_classes,
                ..ConditionKind::default()
            };
            let x = concatenate(x.clone(), kind, condition);
            (x.dims(), values(x))
        };
        let labels = Condition::classes(&[2, 0], &device);
        assert_eq!(
            of(Some(3), &labels),
            ([2, 4], vec![7.0, 0.0, 0.0, 1.0, 8.0, 1.0, 0.0, 0.0])
        );
        // 2 is not a class.
        let (shape, rows) = of(Some(1), &labels);
        assert_eq!((shape, rows[0], &rows[2..]), ([2, 2], 7.0, &[8.0, 1.0][..]));
        assert!(rows[1].is_nan());
        let none = Condition::none();
        assert_eq!(of(Some(1), &none), ([2, 2], vec![7.0, 0.0, 8.0, 0.0]));
        assert_eq!(of(None, &labels), ([2, 1], vec![7.0, 8.0]));
    }

    #[test]
    fn vectors_follow_the_classes() {
        let device = Device::flex();
        let x = Tensor::<2>::from_floats([[7.0], [8.0]], &device);
        let vectors = Tensor::<2>::from_floats([[0.1, 0.2], [0.3, 0.4]], &device);
        let of = |num_classes, condition: &Condition| {
            let kind = ConditionKind {
                num_classes,
                vector_dim: Some(2),
                cross_attention_dim: None,
            };
            values(concatenate(x.clone(), kind, condition))
        };
        let alone = Condition::vectors(vectors.clone());
        assert_eq!(of(None, &alone), [7.0, 0.1, 0.2, 8.0, 0.3, 0.4]);
        let both = Condition {
            vectors: Some(vectors),
            ..Condition::classes(&[1, 0], &device)
        };
        assert_eq!(
            of(Some(2), &both),
            [7.0, 0.0, 1.0, 0.1, 0.2, 8.0, 1.0, 0.0, 0.3, 0.4]
        );
        let none = Condition::none();
        assert_eq!(of(None, &none), [7.0, 0.0, 0.0, 8.0, 0.0, 0.0]);
    }

    #[test]
    fn cross_attention_matches_its_formula() {
        let device = Device::flex();
        let kind = ConditionKind {
            cross_attention_dim: Some(2),
            ..ConditionKind::default()
        };
        let layer = CrossAttention::of_kind(kind, 3, &device).unwrap();
        let layer = layer.init_weights(1);
        let hidden: Tensor<2> = Rng::new(2).normal([1, 3], &device);
        let states: Tensor<3> = Rng::new(3).normal([1, 4, 2], &device);
        let query = values(layer.query.forward(hidden.clone()));
        let keys = values(layer.key.forward(states.clone()));
        let of_values = values(layer.value.forward(states.clone()));
        let weight = |key: &[f32]| {
            let dot: f32 = query.iter().zip(key).map(|(q, k)| q * k).sum();
            (dot / 3f32.sqrt()).exp()
        };
        let weights: Vec<f32> = keys.chunks(3).map(weight).collect();
        let total: f32 = weights.iter().sum();
        let mean: [f32; 3] = std::array::from_fn(|i| {
            let terms = weights.iter().zip(of_values.chunks(3));
            terms.map(|(weight, value)| weight * value[i]).sum::<f32>() / total
        });
        let attended = layer
            .output
            .forward(Tensor::<2>::from_floats([mean], &device));
        let expected = values(hidden.clone() + attended);
        assert_close(&values(layer.forward(hidden, states)), &expected, 1e-5);
    }

    #[test]
    fn conditions_change_posterior_and_likelihood() {
        let device = Device::flex();
        for config in configs(KIND) {
            let model = config.init(&device).unwrap().init_weights(1);
            assert_eq!(model.condition_kind(), KIND);
            let null = outputs(&model, &Condition::none());
            let all = condition(&[0, 1], &device);
            for condition in [
                Condition::classes(&[0, 1], &device),
                Condition::vectors(all.vectors.clone().unwrap()),
                Condition::hidden_states(all.encoder_hidden_states.clone().unwrap()),
            ] {
                let changed = outputs(&model, &condition);
                for (changed, null) in changed.iter().zip(&null) {
                    assert_ne!(changed, null, "{config:?}");
                }
            }
            // A condition has no effect on the other samples of a batch.
            let other = condition(&[0, 2], &device);
            let [a, b] = [all, other].map(|condition| outputs(&model, &condition));
            for (a, b) in a.iter().zip(&b) {
                let half = a.len() / 2;
                assert_close(&a[..half], &b[..half], 1e-6);
                assert_ne!(a[half..], b[half..], "{config:?}");
            }
        }
    }

    #[test]
    fn null_condition_is_zeros() {
        let device = Device::flex();
        for config in configs(KIND) {
            let model = config.init(&device).unwrap().init_weights(1);
            let null = outputs(&model, &Condition::none());
            for zeros in [
                Condition::vectors(Tensor::zeros([2, 3], &device)),
                Condition::hidden_states(Tensor::zeros([2, 3, 5], &device)),
            ] {
                assert_eq!(outputs(&model, &zeros), null);
            }
            let posterior = model.encode(images(2, &device));
            let z = Rng::new(4).normal([2, 3], &device);
            let mean = model.decode(z).mean();
            assert_eq!([posterior.mean, posterior.logvar].map(values), null[..2]);
            assert_eq!(values(mean), null[2]);
        }
    }

    /// A label that is not a class is not mistaken for the null condition.
    #[test]
    fn unknown_classes_are_nan() {
        let device = Device::flex();
        for config in configs(KIND) {
            let model = config.init(&device).unwrap().init_weights(1);
            for values in outputs(&model, &Condition::classes(&[3, 4], &device)) {
                let (known, unknown) = values.split_at(values.len() / 2);
                assert!(known.iter().all(|value| value.is_finite()), "{config:?}");
                assert!(unknown.iter().all(|value| value.is_nan()), "{config:?}");
            }
        }
    }

    #[test]
    fn models_without_conditions_ignore_them() {
        let device = Device::flex();
        for config in configs(ConditionKind::default()) {
            let model = config.init(&device).unwrap().init_weights(1);
            assert_eq!(model.condition_kind(), ConditionKind::default());
            let given = outputs(&model, &condition(&[0, 1], &device));
            assert_eq!(given, outputs(&model, &Condition::none()));
        }
    }

    #[test]
    fn gradients_reach_every_weight() {
        struct Missing<'a>(&'a Gradients, Vec<String>);
        impl ParamVisitor for Missing<'_> {
            fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
                let gradient = param.val().grad(self.0);
                let size = gradient.map(|g| g.abs().sum().into_scalar::<f32>());
                if size.is_none_or(|size| size == 0.0 || !size.is_finite()) {
                    self.1.push(path.to_string());
                }
            }
        }
        let device = Device::flex().autodiff();
        for config in configs(KIND) {
            let model = config.init(&device).unwrap().init_weights(1);
            let x = images(3, &device);
            let condition = condition(&[0, 3, 1], &device);
            let output = model.forward(x.clone(), &condition, &mut Rng::new(5));
            let gradients = output.elbo(x).loss(1.0).backward();
            let mut missing = Missing(&gradients, Vec::new());
            visit_params(&model, &mut missing);
            assert!(missing.1.is_empty(), "{:?}", missing.1);
        }
    }

    #[test]
    fn any_vae_passes_the_condition_on() {
        let device = Device::flex();
        let [VaeConfig::Mlp(config), _] = configs(KIND) else {
            panic!("the first is an MLP");
        };
        let model = config.init(&device).unwrap().init_weights(1);
        let any = AnyVae::from(model.clone());
        let (x, condition) = (images(2, &device), condition(&[0, 1], &device));
        let [a, b] = [
            any.forward(x.clone(), &condition, &mut Rng::new(1)),
            model.forward(x.clone(), &condition, &mut Rng::new(1)),
        ]
        .map(|output| values(output.likelihood.mean()));
        assert_eq!(a, b);
        let posterior = model.encode_with(x.clone(), &condition);
        let [a, b] = [
            any.log_weights(&posterior, x.clone(), &condition, 3, &mut Rng::new(1)),
            model.log_weights(&posterior, x, &condition, 3, &mut Rng::new(1)),
        ]
        .map(|x| (x.dims(), values(x)));
        assert_eq!(a.0, [2, 3]);
        assert_eq!(a, b);
    }

    /// Files of earlier versions have no conditions.
    #[test]
    fn conditions_are_written_if_there_are_any() {
        for config in configs(ConditionKind::default()) {
            let file = to_value(&config).unwrap();
            assert!(file.get("condition").is_none(), "{file}");
            assert_eq!(from_value::<VaeConfig>(file).unwrap(), config);
        }
        for config in configs(KIND) {
            let file = to_value(&config).unwrap();
            let expected = json!({"num_classes": 4, "vector_dim": 3, "cross_attention_dim": 5});
            assert_eq!(file["condition"], expected);
            assert_eq!(from_value::<VaeConfig>(file).unwrap(), config);
        }
        // Files of earlier versions have no width of vectors.
        let former = ConditionKind {
            vector_dim: None,
            ..KIND
        };
        let file = json!({"num_classes": 4, "cross_attention_dim": 5});
        assert_eq!(to_value(former).unwrap(), file);
        assert_eq!(from_value::<ConditionKind>(file).unwrap(), former);
    }

    #[test]
    fn conditions_out_of_range_are_named() {
        let kind =
            |field: &str, size: usize| from_value::<ConditionKind>(json!({ field: size })).unwrap();
        for (kind, expected) in [
            (
                kind("num_classes", 0),
                "`condition.num_classes` is 0, expected 1 to 1048576",
            ),
            (
                kind("num_classes", (1 << 20) + 1),
                "`condition.num_classes` is 1048577",
            ),
            (
                kind("vector_dim", 0),
                "`condition.vector_dim` is 0, expected 1 to 16384",
            ),
            (
                kind("vector_dim", (1 << 14) + 1),
                "`condition.vector_dim` is 16385",
            ),
            (
                kind("cross_attention_dim", 0),
                "`condition.cross_attention_dim` is 0, expected 1 to 16384",
            ),
            (
                kind("cross_attention_dim", (1 << 14) + 1),
                "`condition.cross_attention_dim` is 16385",
            ),
        ] {
            for config in configs(kind) {
                let message = config.init(&Device::flex()).unwrap_err().to_string();
                assert!(message.contains(expected), "{message}");
            }
        }
    }

    #[test]
    fn conditional_models_open_with_equal_outputs() {
        let device = Device::flex();
        for config in configs(KIND) {
            let model = config.init(&device).unwrap().init_weights(1);
            let dir = tempfile::tempdir().unwrap();
            model.save_pretrained(dir.path()).unwrap();
            let loaded = AnyVae::from_pretrained(dir.path(), &device).unwrap();
            assert!(loaded.warnings().is_empty(), "{loaded}");
            assert_eq!(loaded.config(), config);
            let condition = condition(&[3, 2], &device);
            assert_eq!(outputs(&loaded, &condition), outputs(&model, &condition));
        }
    }
}
