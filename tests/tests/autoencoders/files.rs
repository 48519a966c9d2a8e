//! Saving and opening, and files that are malformed.

use super::{
    flex,
    reference::{AUTOENCODER_KL, cases},
    tiny_kl, tiny_vq,
};
use aigc_core::{rng::InitWeights, weights::WeightReader};
use aigc_tests::bits;
use aigc_vae::{AutoencoderKl, AutoencoderKlConfig, VaeSampler, VqModel, VqModelConfig};
use burn::tensor::Tensor;
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use std::path::Path;

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

/// Names of the tensors in a directory.
fn tensor_names(dir: &Path) -> Vec<String> {
    let files = WeightReader::from_dir(dir, &["diffusion_pytorch_model"]).unwrap();
    files.names().map(str::to_owned).collect()
}

/// The fields of a directory's `config.json` but those about the file itself.
fn fields(dir: &Path) -> serde_json::Map<String, Value> {
    let text = std::fs::read_to_string(dir.join("config.json")).unwrap();
    let fields: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    let about_file = |name: &String| name.starts_with('_') && name != "_class_name";
    fields
        .into_iter()
        .filter(|(name, _)| !about_file(name))
        .collect()
}

/// Saves a model, opens it again, and compares all bits. Evaluates to the temporary directory.
macro_rules! round_trip {
    ($class:ident, $model:expr) => {{
        let model: &$class = $model;
        let dir = tempfile::tempdir().unwrap();
        model.save_pretrained(dir.path().join("vae")).unwrap();
        let opened = $class::from_pretrained(dir.path().join("vae"), &flex()).unwrap();
        assert!(opened.unused_fields.is_empty(), "{opened}");
        assert!(opened.unused_tensors.is_empty(), "{opened}");
        assert_eq!(opened.config(), model.config());
        assert!(bits(&*opened) == bits(model), "weights changed");
        dir
    }};
}

#[test]
fn saved_models_open_bit_exact() {
    round_trip!(
        AutoencoderKl,
        &tiny_kl().init(&flex()).unwrap().init_weights(1)
    );
    round_trip!(VqModel, &tiny_vq().init(&flex()).unwrap().init_weights(1));
    // Without the optional parts, and with all fields that have values.
    let config = AutoencoderKlConfig {
        use_quant_conv: false,
        use_post_quant_conv: false,
        mid_block_add_attention: false,
        latents_mean: Some(vec![0.1, -0.7]),
        latents_std: Some(vec![1.5, 0.3]),
        ..tiny_kl()
    };
    let dir = round_trip!(
        AutoencoderKl,
        &config.init(&flex()).unwrap().init_weights(2)
    );
    let names = tensor_names(&dir.path().join("vae"));
    assert!(
        names
            .iter()
            .all(|name| !name.contains("attentions") && !name.contains("quant_conv")),
        "{names:?}"
    );
}

/// Models of diffusers are saved under its current names, with all fields of its configuration.
#[test]
fn saved_models_have_the_names_of_diffusers() {
    let mut current = None;
    for case in cases("autoencoder-kl", &AUTOENCODER_KL) {
        let model = AutoencoderKl::from_pretrained(case.model_dir(), &flex()).unwrap();
        let dir = round_trip!(AutoencoderKl, &model);
        let dir = dir.path().join("vae");
        assert_eq!(fields(&dir), fields(&case.model_dir()), "{}", case.name);
        let names = tensor_names(&dir);
        match case.name.as_str() {
            // The same network as the next two, but for its widths, under diffusers' names.
            "autoencoder-kl" => {
                assert_eq!(names, tensor_names(&case.model_dir()));
                current = Some(names);
            }
            "autoencoder-kl-old-names" | "autoencoder-kl-pickled" => {
                assert_eq!(Some(&names), current.as_ref(), "{}", case.name);
            }
            _ => assert_eq!(names, tensor_names(&case.model_dir()), "{}", case.name),
        }
    }
    for case in cases("vq", &["vq"]) {
        let model = VqModel::from_pretrained(case.model_dir(), &flex()).unwrap();
        let dir = round_trip!(VqModel, &model);
        let dir = dir.path().join("vae");
        // The only norm that there is.
        let mut expected = fields(&case.model_dir());
        assert_eq!(expected.remove("norm_type"), Some("group".into()));
        assert_eq!(fields(&dir), expected, "{}", case.name);
        assert_eq!(tensor_names(&dir), tensor_names(&case.model_dir()));
    }
}

/// The first latent diffusion models store attention's matrices under other names, as convolutions
/// of one pixel.
#[test]
fn attention_opens_with_old_names_and_shapes() {
    let model = tiny_kl().init(&flex()).unwrap().init_weights(3);
    let dir = tempfile::tempdir().unwrap();
    model.save_pretrained(dir.path()).unwrap();
    let path = dir.path().join(WEIGHTS);
    let bytes = std::fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let old = |name: &str| {
        let names = [
            (".to_q.", ".query."),
            (".to_k.", ".key."),
            (".to_v.", ".value."),
            (".to_out.0.", ".proj_attn."),
        ];
        names
            .iter()
            .fold(name.to_owned(), |name, (new, old)| name.replace(new, old))
    };
    for (renamed, side) in [(true, 1), (false, 1), (true, 2)] {
        let mut reshaped = 0;
        let entries = tensors.iter().map(|(name, view)| {
            let is_matrix = name.contains(".attentions.") && view.shape().len() == 2;
            let name = if renamed { old(name) } else { name.to_owned() };
            if !is_matrix {
                return (name, view);
            }
            reshaped += 1;
            // With a side of 2, a kernel that no linear layer can have.
            let [to, from] = [view.shape()[0], view.shape()[1] / (side * side)];
            let shape = vec![to, from, side, side];
            let view = TensorView::new(view.dtype(), shape, view.data()).unwrap();
            (name, view)
        });
        let entries: Vec<_> = entries.collect();
        assert_eq!(reshaped, 8);
        std::fs::write(&path, safetensors::serialize(entries, None).unwrap()).unwrap();
        let opened = AutoencoderKl::from_pretrained(dir.path(), &flex());
        if side == 1 {
            let opened = opened.unwrap();
            assert!(opened.unused_tensors.is_empty(), "{opened}");
            assert!(bits(&*opened) == bits(&model), "renamed: {renamed}");
        } else {
            let message = opened.unwrap_err().to_string();
            assert!(
                message.contains("size mismatch") && message.contains("query.weight"),
                "{message}"
            );
        }
    }
}

#[test]
fn variants_open_by_name() {
    let model = tiny_vq().init(&flex()).unwrap().init_weights(3);
    let dir = tempfile::tempdir().unwrap();
    model.save_pretrained(dir.path()).unwrap();
    let variant = dir.path().join("diffusion_pytorch_model.ema.safetensors");
    std::fs::rename(dir.path().join(WEIGHTS), variant).unwrap();
    let opened = VqModel::from_pretrained_with_variant(dir.path(), "ema", &flex()).unwrap();
    assert!(bits(&*opened) == bits(&model));
    let missing = AutoencoderKl::from_pretrained_with_variant(dir.path(), "fp16", &flex());
    let message = missing.unwrap_err().to_string();
    // The configuration is that of another class.
    assert!(
        message.contains("`_class_name` is \"VQModel\""),
        "{message}"
    );
    let missing = VqModel::from_pretrained_with_variant(dir.path(), "fp16", &flex());
    let message = missing.unwrap_err().to_string();
    assert!(message.contains("variant fp16"), "{message}");
}

#[test]
fn malformed_configurations_name_field_and_value() {
    let blocks = |n: usize| {
        json!({
            "block_out_channels": vec![64; n],
            "down_block_types": vec!["DownEncoderBlock2D"; n],
            "up_block_types": vec!["UpDecoderBlock2D"; n],
        })
    };
    let with = |mut json: Value, field: &str, value: Value| {
        json[field] = value;
        json
    };
    let both = [
        (
            json!({"_class_name": "UNet2DModel"}),
            "`_class_name` is \"UNet2DModel\"",
        ),
        (
            json!({"down_block_types": ["AttnDownEncoderBlock2D"]}),
            "`down_block_types` is [\"AttnDownEncoderBlock2D\"]",
        ),
        (
            json!({"up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"]}),
            "`up_block_types` is 2 blocks, expected 1 blocks",
        ),
        (
            with(blocks(2), "block_out_channels", json!([64, 1u64 << 40])),
            "`block_out_channels` is 1099511627776, expected 1 to 16384",
        ),
        (
            blocks(15),
            "`block_out_channels` is 15 blocks, expected 1 to 14",
        ),
        (json!({"norm_num_groups": 0}), "`norm_num_groups` is 0"),
        (
            json!({"norm_num_groups": 24}),
            "`norm_num_groups` is 24, expected a divisor of 64",
        ),
        (json!({"in_channels": 4}), "`out_channels` is 3, expected 4"),
        (json!({"latent_channels": 0}), "`latent_channels` is 0"),
        (json!({"latent_channels": -4}), "`latent_channels` is -4"),
        (
            json!({"layers_per_block": 1_000_000}),
            "`layers_per_block` is 1000000, expected 1 to 64",
        ),
        (json!({"sample_size": [32, 0]}), "`sample_size` is 0"),
        (json!({"sample_size": "big"}), "`sample_size` is \"big\""),
        (
            with(blocks(3), "sample_size", json!(30)),
            "`sample_size` is 30, expected a multiple of 4",
        ),
        (json!({"act_fn": "tanhh"}), "`act_fn` is tanhh"),
        (json!({"scaling_factor": 0}), "`scaling_factor` is 0"),
        (json!({"scaling_factor": null}), "`scaling_factor` is null"),
    ];
    let kl = [
        (json!({"shift_factor": "NaN"}), "`shift_factor` is \"NaN\""),
        (
            json!({"latents_mean": [0, 0], "latents_std": [1, 1]}),
            "`latents_mean` is 2 numbers, expected 4 numbers",
        ),
        (json!({"use_quant_conv": 3}), "`use_quant_conv` is 3"),
    ];
    let vq = [
        (
            json!({"norm_type": "spatial"}),
            "`norm_type` is \"spatial\", expected \"group\"",
        ),
        (json!({"num_vq_embeddings": 0}), "`num_vq_embeddings` is 0"),
        (
            json!({"num_vq_embeddings": 1u64 << 32}),
            "`num_vq_embeddings` is 4294967296, expected 1 to 1048576",
        ),
        (json!({"vq_embed_dim": 0}), "`vq_embed_dim` is 0"),
    ];
    fn check(message: &str, json: &Value, expected: &str) {
        assert!(
            message.contains(expected),
            "{json}: {message}, not {expected}"
        );
    }
    for (json, expected) in both.iter().chain(&kl) {
        let fault = AutoencoderKlConfig::from_json(&json.to_string());
        check(&fault.unwrap_err().to_string(), json, expected);
    }
    for (json, expected) in both.iter().chain(&vq) {
        let fault = VqModelConfig::from_json(&json.to_string());
        check(&fault.unwrap_err().to_string(), json, expected);
    }

    // Of a directory, the file is named too, and what does not fit its weights.
    let dir = tempfile::tempdir().unwrap();
    let model = tiny_kl().init(&flex()).unwrap().init_weights(0);
    model.save_pretrained(dir.path()).unwrap();
    let path = dir.path().join("config.json");
    let edit = |field: &str, value: Value| {
        let json: Value = serde_json::from_str(&model.config().to_json()).unwrap();
        std::fs::write(&path, with(json, field, value).to_string()).unwrap();
        let fault = AutoencoderKl::from_pretrained(dir.path(), &flex());
        fault.unwrap_err().to_string()
    };
    let message = edit("latent_channels", json!(0));
    assert!(
        message.contains("config.json") && message.contains("`latent_channels` is 0"),
        "{message}"
    );
    let message = edit("latent_channels", json!(3));
    assert!(
        message.contains("size mismatch") && message.contains("quant_conv.weight"),
        "{message}"
    );
}

/// The sampler works on images of another size than those of the training, but not with other
/// channels, nor smaller than a latent.
#[test]
fn images_of_other_sizes_are_reconstructed() {
    let kl = tiny_kl().init(&flex()).unwrap().init_weights(1);
    let vq = tiny_vq().init(&flex()).unwrap().init_weights(1);
    let images = |shape| Tensor::<4>::full(shape, 0.5, &flex());
    let kl = VaeSampler::new(&kl, &flex());
    let vq = VaeSampler::new(&vq, &flex());
    for shape in [[2, 1, 8, 8], [2, 1, 12, 16]] {
        assert_eq!(kl.reconstruct(images(shape)).unwrap().dims(), shape);
        assert_eq!(vq.reconstruct(images(shape)).unwrap().dims(), shape);
    }
    for shape in [[2, 3, 8, 8], [2, 1, 1, 8]] {
        for refused in [kl.reconstruct(images(shape)), vq.reconstruct(images(shape))] {
            let message = refused.unwrap_err().to_string();
            assert!(message.contains("expected a batch of 1×8×8"), "{message}");
        }
    }
    // A traversal decodes latents of one size.
    let refused = kl.traverse(images([2, 1, 12, 16]), 0, &[0.0]).unwrap_err();
    assert!(refused.to_string().contains("1×12×16"), "{refused}");
}
