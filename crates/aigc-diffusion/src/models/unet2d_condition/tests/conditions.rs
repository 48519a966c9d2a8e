//! What the network is conditioned on.

use super::*;
use crate::{DdimScheduler, DiffusionObjective, DiffusionObjectiveConfig, DiffusionSampler};
use burn::tensor::{Bool, TensorData};

/// Tokens that the mask hides have no effect; a mask that hides none changes nothing.
#[test]
fn masked_tokens_are_not_attended_to() {
    let network = network(small());
    let flex = device("flex").unwrap();
    let mask = |visible: [usize; 2]| {
        let seen: Vec<bool> = (0..10).map(|i| i % 5 < visible[i / 5]).collect();
        let mask = Tensor::<2, Bool>::from_data(TensorData::new(seen, [2, 5]), &flex);
        Some(mask)
    };
    let whole = condition();
    let tokens = whole.encoder_hidden_states.clone().unwrap();
    let all = Conditioning {
        encoder_attention_mask: mask([5, 5]),
        ..whole.clone()
    };
    assert_close(&output(&network, &all), &output(&network, &whole), 1e-5);
    let some = |tokens: Tensor<3>| Conditioning {
        encoder_hidden_states: Some(tokens),
        encoder_attention_mask: mask([3, 3]),
        ..Conditioning::default()
    };
    let changed = Tensor::cat(
        vec![tokens.clone().narrow(1, 0, 3), random(9, [2, 2, 6])],
        1,
    );
    let masked = output(&network, &some(tokens.clone()));
    assert_close(&output(&network, &some(changed)), &masked, 1e-6);
    let first = Conditioning {
        encoder_hidden_states: Some(tokens.narrow(1, 0, 3)),
        ..Conditioning::default()
    };
    assert_close(&output(&network, &first), &masked, 1e-5);
    assert!(apart(&masked, &output(&network, &whole)) > 1e-4);
    // Another number for each sample; a sample that sees none sees all, as a softmax over equally
    // low scores does.
    let uneven = Conditioning {
        encoder_attention_mask: mask([3, 0]),
        ..whole.clone()
    };
    let (uneven, whole) = (output(&network, &uneven), output(&network, &whole));
    let half = whole.len() / 2;
    assert_close(&uneven[..half], &masked[..half], 1e-5);
    assert_close(&uneven[half..], &whole[half..], 1e-5);
}

/// Sines, then cosines, of 1000·w·10000^(−i / (half − 1)); an odd width ends with zeros.
#[test]
fn guidance_scale_embedding_matches_its_formula() {
    let scales = [0.0f64, 1.5, 7.5];
    let w = Tensor::from_floats(scales.map(|w| w as f32), &device("flex").unwrap());
    for width in [8, 9] {
        let found = values(guidance_scale_embedding(w.clone(), width));
        for (row, scale) in scales.iter().enumerate() {
            for i in 0..4 {
                let angle = 1000.0 * scale * 10_000f64.powf(-(i as f64) / 3.0);
                let at = |i: usize| f64::from(found[row * width + i]);
                assert!((at(i) - angle.sin()).abs() < 1e-3, "{scale} {i}");
                assert!((at(i + 4) - angle.cos()).abs() < 1e-3, "{scale} {i}");
            }
            assert!(width == 8 || found[row * width + 8] == 0.0);
        }
    }
}

#[test]
fn guidance_scale_enters_the_time_embedding() {
    let network = network(UNet2dConditionConfig {
        time_cond_proj_dim: Some(12),
        ..small()
    });
    assert_eq!(count(&network, "time_embedding.cond_proj."), 1);
    let flex = device("flex").unwrap();
    let at = |scale: f32| Conditioning {
        guidance: Some(Tensor::from_floats([scale, scale], &flex)),
        ..condition()
    };
    let (none, low, high) = (
        output(&network, &condition()),
        output(&network, &at(1.0)),
        output(&network, &at(7.0)),
    );
    assert!(apart(&none, &low) > 1e-4 && apart(&low, &high) > 1e-4);
    let embedding = guidance_scale_embedding(at(7.0).guidance.unwrap(), 12);
    let x = random(5, [2, 2, 8, 6]);
    let given = network.forward_with_timestep_cond(x, time(), &condition(), Some(embedding));
    assert_eq!(values(given), high);
    // Networks without it ignore a scale.
    let plain = self::network(small());
    assert_eq!(output(&plain, &at(7.0)), output(&plain, &condition()));
}

#[test]
fn classes_and_vectors_have_an_effect() {
    let flex = device("flex").unwrap();
    let labels = |labels: [i32; 2]| Conditioning {
        class_labels: Some(Tensor::from_ints(labels, &flex)),
        ..condition()
    };
    let vectors = |seed: u64, width: usize| Conditioning {
        class_embeddings: Some(random(seed, [2, width])),
        ..condition()
    };
    use ClassEmbedType::*;
    for (class_embed_type, num_class_embeds, conditions, weights, dims) in [
        (
            None,
            Some(4),
            [labels([0, 1]), labels([3, 1])],
            1,
            (None, Some(4)),
        ),
        (
            Some(Timestep),
            None,
            [labels([0, 1]), labels([30, 1])],
            4,
            (None, Some(1000)),
        ),
        (
            Some(Projection),
            None,
            [vectors(1, 10), vectors(2, 10)],
            4,
            (Some(10), None),
        ),
        (
            Some(SimpleProjection),
            None,
            [vectors(1, 10), vectors(2, 10)],
            2,
            (Some(10), None),
        ),
        (
            Some(Identity),
            None,
            [vectors(1, 32), vectors(2, 32)],
            0,
            (Some(32), None),
        ),
    ] {
        let network = network(UNet2dConditionConfig {
            class_embed_type,
            num_class_embeds,
            projection_class_embeddings_input_dim: Some(10),
            ..small()
        });
        assert_eq!(
            count(&network, "class_embedding"),
            weights,
            "{class_embed_type:?}"
        );
        assert_eq!((network.class_embedding_dim(), network.num_classes()), dims);
        let [one, other] = conditions.map(|condition| output(&network, &condition));
        assert!(apart(&one, &other) > 1e-4, "{class_embed_type:?}");
    }
}

#[test]
fn pooled_vectors_and_sizes_have_an_effect() {
    let config = UNet2dConditionConfig {
        addition_embed_type: Some(AdditionEmbedType::TextTime),
        addition_time_embed_dim: Some(4),
        projection_class_embeddings_input_dim: Some(6 * 4 + 10),
        ..small()
    };
    assert_eq!(config.num_time_ids(10), Some(6));
    assert_eq!(config.num_time_ids(9), None);
    assert_eq!(config.num_time_ids(40), None);
    assert_eq!(small().num_time_ids(10), None);
    let network = network(config);
    let with = |pooled: u64, size: f32| Conditioning {
        pooled_projections: Some(random(pooled, [2, 10])),
        time_ids: Some(Tensor::full([2, 6], size, &device("flex").unwrap())),
        ..condition()
    };
    let base = output(&network, &with(1, 64.0));
    assert!(apart(&base, &output(&network, &with(2, 64.0))) > 1e-4);
    assert!(apart(&base, &output(&network, &with(1, 512.0))) > 1e-4);
}

/// Samplers of this crate have no sizes to give.
#[test]
fn sampler_refuses_networks_that_need_sizes() {
    let network = network(UNet2dConditionConfig {
        addition_embed_type: Some(AdditionEmbedType::TextTime),
        addition_time_embed_dim: Some(4),
        projection_class_embeddings_input_dim: Some(6 * 4 + 10),
        ..small()
    });
    let flex = device("flex").unwrap();
    let shape = SampleShape::new(&[2, 8, 8]);
    let sampler = DiffusionSampler::new(&network, &DdimScheduler::default(), 2, shape, &flex);
    let message = sampler.unwrap_err().to_string();
    assert!(
        message.contains("one that needs pooled_projections and time_ids"),
        "{message}"
    );
    let objective = DiffusionObjective::<_>::new(DiffusionObjectiveConfig::default(), &network);
    let message = objective.unwrap_err().to_string();
    assert!(
        message.contains("pooled_projections and time_ids"),
        "{message}"
    );
}

#[test]
#[should_panic(expected = "width of the pooled vectors with 5 encoded numbers")]
fn too_few_time_ids_panic() {
    let config = UNet2dConditionConfig {
        addition_embed_type: Some(AdditionEmbedType::TextTime),
        addition_time_embed_dim: Some(4),
        projection_class_embeddings_input_dim: Some(6 * 4 + 10),
        ..small()
    };
    let condition = Conditioning {
        pooled_projections: Some(random(1, [2, 10])),
        time_ids: Some(random(2, [2, 5])),
        ..condition()
    };
    output(&network(config), &condition);
}

/// What a ControlNet adds to the last map and to all skips, one by one.
#[test]
fn residuals_are_added_to_every_map() {
    let network = network(small());
    let flex = device("flex").unwrap();
    let plain = output(&network, &condition());
    let shapes = [[2, 8, 8, 6], [2, 8, 8, 6], [2, 8, 4, 3], [2, 16, 4, 3]];
    let with = |changed: Option<usize>| {
        let map = |(i, shape): (usize, [usize; 4])| match changed == Some(i) {
            true => random(3, shape),
            false => Tensor::zeros(shape, &flex),
        };
        let mut maps = shapes
            .iter()
            .copied()
            .chain([[2, 16, 4, 3]])
            .enumerate()
            .map(map);
        let down = maps.by_ref().take(4).collect();
        let mid = maps.next().unwrap();
        let condition = Conditioning {
            residuals: Some(ControlResiduals { down, mid }),
            ..condition()
        };
        output(&network, &condition)
    };
    assert_eq!(with(None), plain);
    for changed in 0..5 {
        assert!(apart(&with(Some(changed)), &plain) > 1e-4, "{changed}");
    }
}
