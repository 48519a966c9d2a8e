//! Models in files: saved, opened, quantised.

use super::*;

/// Moves every number of a model: biases and norms are to be seen, too.
struct Moved(Rng);

impl ModuleMapper for Moved {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| {
            let noise = self.0.normal(tensor.dims(), &tensor.device());
            tensor + noise * 0.1
        })
    }
}

/// transformers finds every tensor of what is saved here, computes the same logits, and goes on
/// with the same tokens.
#[test]
fn saved_models_open_in_transformers() {
    let Some(python) = python_with("transformers, torch, safetensors") else {
        return;
    };
    let (folder, flex) = (tempfile::tempdir().unwrap(), device("flex").unwrap());
    let tied = model(1, 60).config().clone();
    let nano = Gpt2Config {
        initializer_range: 0.4,
        ..Gpt2Config::nano(60, 48, [2, 4, 32])
    };
    let untied = Gpt2Config {
        tie_word_embeddings: false,
        ..tied.clone()
    };
    let other = Gpt2Config {
        n_inner: Some(40),
        activation_function: ActivationName::Relu,
        layer_norm_epsilon: 1e-3,
        scale_attn_weights: false,
        scale_attn_by_inverse_layer_idx: true,
        bos_token_id: Some(1),
        eos_token_id: Some(TokenIds::One(2)),
        pad_token_id: Some(3),
        ..untied.clone()
    };
    let mut cases = BTreeMap::from([
        ("tied", tied),
        ("nano", nano),
        ("untied", untied),
        ("other", other),
    ]);
    let mut rng = Rng::new(8);
    for (name, config) in &cases {
        let model = config
            .init(&flex)
            .unwrap()
            .init_weights(rng.random_index(1000) as u64)
            .map(&mut Moved(Rng::new(1)));
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        model.save_pretrained(&path).unwrap();
        let prompts: Vec<Vec<u32>> = (0..3)
            .map(|_| (0..9).map(|_| rng.random_index(60) as u32).collect())
            .collect();
        let rows = |rows: Vec<Vec<u32>>| -> Vec<i64> {
            rows.concat().into_iter().map(i64::from).collect()
        };
        let ids = rows(prompts.clone());
        let logits = model.forward(Tensor::<2, Int>::from_data(
            TensorData::new(ids.clone(), [3, 9]),
            &flex,
        ));
        let config = GenerationConfig {
            max_new_tokens: Some(39),
            ..GenerationConfig::default()
        };
        let greedy = rows(tokens(&generate(&model, config, &prompts)));
        let said = [
            ("tokens", integers(&ids, &[3, 9])),
            ("logits", floats(&logits)),
            ("greedy", integers(&greedy, &[3, 48])),
        ];
        write_case(&path, &said);
    }
    let text = run_script(&python, "gpt2_saved.py", folder.path());
    println!("{text}");
    for line in text.lines() {
        let (name, apart) = line.split_once(' ').unwrap();
        assert!(
            cases.remove(name).is_some() && apart.parse::<f64>().unwrap() < 1e-4,
            "{line}"
        );
    }
    assert!(cases.is_empty(), "nothing is said of {:?}", cases.keys());
}

/// What nanoGPT's `train.py` leaves, of a compiled model: weights beside the optimizer's,
/// `[out, in]`, under longer names.
#[test]
fn nanogpt_checkpoints_open() {
    let Some(python) = python_with("torch, safetensors") else {
        return;
    };
    let (folder, flex) = (tempfile::tempdir().unwrap(), device("flex").unwrap());
    let config = Gpt2Config {
        initializer_range: 0.4,
        ..Gpt2Config::nano(60, 48, [2, 4, 32])
    };
    let model = config
        .init(&flex)
        .unwrap()
        .init_weights(5)
        .map(&mut Moved(Rng::new(1)));
    model.save_pretrained(folder.path()).unwrap();
    run_script(&python, "nanogpt_checkpoint.py", folder.path());
    let opened = Gpt2::from_weights(config, folder.path().join("ckpt.pt"), &flex).unwrap();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(vec![3, 14, 15, 9], [1, 4]), &flex);
    opened
        .forward(tokens.clone())
        .into_data()
        .assert_eq(&model.forward(tokens).into_data(), true);
}

#[test]
fn quantised_models_stay_close() {
    let model = model(5, 300);
    let ids = Tensor::<2, Int>::from_data(
        TensorData::from([[3, 1, 4, 1, 5, 9, 2, 6, 27, 18]]),
        &device("flex").unwrap(),
    );
    let floats = |logits: Tensor<3>| logits.into_data().try_into_vec::<f32>().unwrap();
    let exact = floats(model.forward(ids.clone()));
    let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let mut errors = Vec::new();
    for quantization in [Quantization::Int8, Quantization::Int4] {
        let packed = model.clone().quantize(quantization);
        let near = floats(packed.forward(ids.clone()));
        let difference: Vec<f32> = exact.iter().zip(&near).map(|(a, b)| a - b).collect();
        errors.push(norm(&difference) / norm(&exact));
        // Token by token it is the same model, though other products are taken.
        let mut cache = packed.new_cache(1, 10);
        let parts = (0..10)
            .map(|at| packed.logits(ids.clone().narrow(1, at, 1), &mut *cache))
            .collect();
        let steps = floats(Tensor::cat(parts, 1));
        assert!(
            near.iter().zip(&steps).all(|(a, b)| (a - b).abs() < 2e-3),
            "{quantization:?}"
        );
        // Packing twice changes nothing; files hold whole weights only.
        assert_eq!(
            floats(packed.clone().quantize(quantization).forward(ids.clone())),
            near
        );
        let folder = tempfile::tempdir().unwrap();
        let error = packed
            .save_pretrained(folder.path())
            .unwrap_err()
            .to_string();
        assert!(error.contains("before it is quantised"), "{error}");
        assert!(!folder.path().join("config.json").exists());
    }
    // Half a step of 127 is 0.4 % of a block's largest number, of 7 it is 7 %; layers add up.
    assert!(
        errors[0] < 0.05 && errors[1] < 0.6 && errors[1] > 4.0 * errors[0],
        "{errors:?}"
    );
    println!(
        "relative errors of the logits: int8 {:.4}, int4 {:.4}",
        errors[0], errors[1]
    );
}
