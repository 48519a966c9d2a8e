//! Autoencoders in diffusers' layout: against diffusers' numbers (out of `AIGC_FIXTURES`), files,
//! training, and as the first stage of latent diffusion; exact resume of models of several parts.

use aigc_core::{
    CancelToken,
    adversarial::{PatchDiscriminator, PatchDiscriminatorConfig},
    data::{
        DataLoader, DataLoaderConfig, ImageBatch, ImageShape, InMemory, collate_images, digits,
    },
    device::device,
    encoder::{Autoencoder, Posterior},
    rng::{InitWeights, Rng},
    testing::{TempRun, temp_run},
    train::{Event, Objective, StartFrom, StopReason, Trainer, TrainerConfig},
    weights::{WeightReader, load_pretrained},
};
use aigc_diffusion::{
    Clipping, DdimScheduler, DiffusionObjective, DiffusionObjectiveConfig, DiffusionSampler,
    UNet2dConfig,
};
use aigc_tests::{bits, folder_from, skip};
use aigc_vae::{
    AdversarialVae, AdversarialVaeObjective, AdversarialVaeObjectiveConfig, AutoencoderKl,
    AutoencoderKlConfig, FactorVae, FactorVaeObjective, FactorVaeObjectiveConfig, FlowConfig,
    FlowKind, FlowPosteriorVae, GaussianMixture, GaussianMixtureConfig, LatentDiscriminatorConfig,
    MlpVae, MlpVaeConfig, Vae, VaeObjective, VectorQuantizerConfig, VqModel, VqModelConfig, VqVae,
    VqVaeConfig, WithPrior,
};
use burn::tensor::{Device, Int, Tensor, TensorData};
use safetensors::{SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn flex() -> Device {
    device("flex").unwrap()
}

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

// ---------------------------------------------------------------------------------------- fixtures

/// The cases of `AutoencoderKL` that there have to be.
const AUTOENCODER_KL: [&str; 6] = [
    "autoencoder-kl",
    "autoencoder-kl-16",
    "autoencoder-kl-no-middle-attention",
    "autoencoder-kl-old-names",
    "autoencoder-kl-pickled",
    "autoencoder-kl-sd",
];

/// A call of a network by diffusers.
struct Case {
    name: String,
    dir: PathBuf,
    json: Value,
    tensors: WeightReader,
}

/// All cases whose folders begin with `prefix`. The test is skipped (or fails, see [`skip`]) if one
/// of `required` is missing.
fn cases(prefix: &str, required: &[&str]) -> Vec<Case> {
    let Some(folder) = folder_from("AIGC_FIXTURES") else {
        return vec![];
    };
    let nets = folder.join("nets");
    let entries = std::fs::read_dir(&nets).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    for name in required {
        if !names.iter().any(|found| found == name) {
            skip(&format!("{} has no {name}", nets.display()));
        }
    }
    let open = |name: String| {
        let dir = nets.join(&name);
        let text = std::fs::read_to_string(dir.join("case.json")).unwrap();
        Case {
            json: serde_json::from_str(&text).unwrap(),
            tensors: WeightReader::open(&dir.join("tensors.safetensors")).unwrap(),
            name,
            dir,
        }
    };
    names.into_iter().map(open).collect()
}

impl Case {
    fn model_dir(&self) -> PathBuf {
        self.dir.join(self.json["model"].as_str().unwrap())
    }

    fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        let shape = self.tensors.shape(name);
        let shape = shape.unwrap_or_else(|| panic!("{}: no `{name}`", self.name));
        let shape: [usize; D] = shape.try_into().unwrap();
        let values = self.tensors.read(name).unwrap();
        Tensor::from_data(TensorData::new(values, shape), &flex())
    }

    /// Compares a tensor with the expected one, within four times what single precision was off by,
    /// or 1e-4, relative to a value or one.
    fn check<const D: usize>(&self, name: &str, found: Tensor<D>, expected: Tensor<D>) {
        assert_eq!(found.dims(), expected.dims(), "{}: {name}", self.name);
        let off_by = self.json["float64"][name].as_f64().unwrap_or(0.0);
        let tolerance = (4.0 * off_by).max(1e-4);
        let [found, expected] =
            [found, expected].map(|x| x.into_data().iter::<f64>().collect::<Vec<_>>());
        let errors = found
            .iter()
            .zip(&expected)
            .map(|(a, b)| (a - b).abs() / b.abs().max(1.0));
        let error = errors
            .map(|error| if error.is_nan() { f64::INFINITY } else { error })
            .fold(0.0, f64::max);
        println!("{} {name}: {error:.1e}", self.name);
        assert!(
            error < tolerance,
            "{}: {name} is off by {error:.1e}",
            self.name
        );
    }
}

/// Images of a fixture, which are in the range of the networks.
fn to_unit(x: Tensor<4>) -> Tensor<4> {
    (x + 1.0) * 0.5
}

#[test]
fn autoencoder_kl_matches_diffusers() {
    for case in cases("autoencoder-kl", &AUTOENCODER_KL) {
        let loaded = AutoencoderKl::from_pretrained(case.model_dir(), &flex()).unwrap();
        assert!(loaded.unused_fields.is_empty(), "{}: {loaded}", case.name);
        assert!(loaded.unused_tensors.is_empty(), "{}: {loaded}", case.name);
        // The only note is that of a field without effect.
        assert_eq!(loaded.notes.len(), 1, "{}: {loaded}", case.name);
        assert!(loaded.notes[0].contains("force_upcast"), "{loaded}");
        let model = loaded.into_inner();
        let first_stage: &dyn Autoencoder = &model;
        let decode = |z| Vae::<4, 4>::decode(&model, z).mean() * 2.0 - 1.0;

        let images = to_unit(case.tensor("image"));
        let posterior = Vae::<4, 4>::encode(&model, images.clone());
        let (mean, logvar) = (posterior.mean.clone(), posterior.logvar.clone());
        case.check("mean", mean.clone(), case.tensor("mean"));
        case.check("logvar", logvar.clone(), case.tensor("logvar"));
        let scaled = model.scale_latents(case.tensor("mean"));
        case.check("mean, scaled", first_stage.encode(images).mode(), scaled);
        match case.json["kind"].as_str() {
            Some("AutoencoderKL") => {
                case.check("kl", posterior.kl(), case.tensor("kl"));
                case.check("decoded", decode(mean), case.tensor("decoded"));
            }
            Some("prompt-net") => {
                let outputs = json!(["decoded", "decoded_mean", "latents", "logvar", "mean"]);
                assert_eq!(case.json["outputs"], outputs, "{}", case.name);
                let z = mean.clone() + (logvar * 0.5).exp() * case.tensor("noise");
                case.check("latents", model.scale_latents(z), case.tensor("latents"));
                case.check("decoded_mean", decode(mean), case.tensor("decoded_mean"));
                let (z, expected) = (case.tensor::<4>("z"), case.tensor::<4>("decoded"));
                let decoded = decode(model.unscale_latents(z.clone()));
                case.check("decoded", decoded, expected.clone());
                let expected = to_unit(expected).clamp(0.0, 1.0);
                case.check("decoded", first_stage.decode(z), expected);
            }
            kind => panic!("{}: unknown kind {kind:?}", case.name),
        }
    }
}

#[test]
fn vq_model_matches_diffusers() {
    for case in cases("vq", &["vq"]) {
        let loaded = VqModel::from_pretrained(case.model_dir(), &flex()).unwrap();
        assert!(loaded.warnings().is_empty(), "{}: {loaded}", case.name);
        assert_eq!(case.json["kind"], "VQModel", "{}", case.name);
        let model = loaded.into_inner();
        let images = to_unit(case.tensor("image"));
        let posterior = Vae::<4, 4>::encode(&model, images.clone());
        case.check("latents", posterior.latents.clone(), case.tensor("latents"));
        let indices: Vec<i64> = posterior.indices.clone().into_data().iter().collect();
        assert_eq!(
            indices,
            case.tensors.read_int("indices").unwrap(),
            "{}",
            case.name
        );
        let quantized = posterior.quantized.clone();
        case.check("quantized", quantized.clone(), case.tensor("quantized"));
        let straight_through = posterior.sample(&mut Rng::new(0));
        case.check("quantized", straight_through, case.tensor("quantized"));
        let expected = case.tensor::<4>("decoded");
        let [batch, _, height, width] = quantized.dims();
        let indices = posterior.indices.reshape([batch, height, width]);
        for decoded in [
            Vae::<4, 4>::decode(&model, quantized),
            model.decode_indices(indices),
        ] {
            case.check("decoded", decoded.mean() * 2.0 - 1.0, expected.clone());
        }
        let first_stage: &dyn Autoencoder = &model;
        let z = first_stage.encode(images).mode();
        let latents = case.tensor::<4>("latents") * model.config().scaling_factor;
        case.check("latents, scaled", z.clone(), latents);
        let expected = to_unit(expected).clamp(0.0, 1.0);
        case.check("decoded", first_stage.decode(z), expected);
    }
}

// ------------------------------------------------------------------------------------------- files

fn tiny_kl() -> AutoencoderKlConfig {
    AutoencoderKlConfig {
        block_out_channels: vec![8, 16],
        norm_num_groups: 4,
        latent_channels: 2,
        ..AutoencoderKlConfig::new(digits::SHAPE)
    }
}

fn tiny_vq() -> VqModelConfig {
    VqModelConfig {
        block_out_channels: vec![8, 16],
        norm_num_groups: 4,
        num_vq_embeddings: 16,
        ..VqModelConfig::new(digits::SHAPE)
    }
}

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

// ---------------------------------------------------------------------------------------- training

/// Batches of 16 of the first `count` digits.
fn loader(count: usize) -> DataLoader<ImageBatch> {
    let images = InMemory(digits::train_test_split().0.0[..count].to_vec());
    let config = DataLoaderConfig {
        batch_size: 16,
        ..DataLoaderConfig::default()
    };
    DataLoader::new(images, collate_images, config).unwrap()
}

/// The trained model, and the loss of every step.
fn train<V: Vae<4, 4> + 'static>(model: V, count: usize, steps: usize) -> (V, Vec<f64>) {
    let run = temp_run().unwrap();
    let mut losses = Vec::new();
    let config = TrainerConfig {
        learning_rate: 3e-3,
        ..TrainerConfig::new(steps)
    };
    let objective = VaeObjective::<V, ImageBatch, 4, 4>::new(Default::default()).unwrap();
    let trained = Trainer::new(config)
        .with_callback(|event: &Event<'_>| {
            if let Event::Step(report) = event {
                losses.push(report.losses[0].1);
            }
        })
        .fit(objective, model, &loader(count), &run)
        .unwrap();
    (trained.model, losses)
}

#[test]
fn training_lowers_the_loss_of_one_batch() {
    let model = tiny_kl().init(&flex()).unwrap().init_weights(0);
    let before = bits(&model);
    let (trained, losses) = train(model, 16, 20);
    assert!(losses.len() == 20 && losses[19] < losses[0], "{losses:?}");
    // The whole of the model is trained.
    let after = bits(&trained);
    for name in [
        "encoder.conv_in.weight",
        "encoder.mid_block.attentions.0.to_v.weight",
        "quant_conv.weight",
        "post_quant_conv.weight",
        "decoder.up_blocks.0.upsamplers.0.conv.weight",
        "decoder.conv_out.bias",
    ] {
        assert_ne!(before[name], after[name], "{name}");
    }

    let model = tiny_vq().init(&flex()).unwrap().init_weights(0);
    let before = bits(&model);
    let (trained, losses) = train(model, 16, 20);
    assert!(losses.len() == 20 && losses[19] < losses[0], "{losses:?}");
    let after = bits(&trained);
    for name in [
        "encoder.conv_in.weight",
        "quant_conv.weight",
        "quantize.embedding.weight",
        "post_quant_conv.weight",
        "decoder.conv_out.bias",
    ] {
        assert_ne!(before[name], after[name], "{name}");
    }
}

/// Indices of codes can be drawn by another model, and a prior's samples decode.
#[test]
fn samples_of_the_prior_decode_to_images() {
    let (model, none) = (
        tiny_vq().init(&flex()).unwrap().init_weights(0),
        aigc_vae::Condition::none(),
    );
    let z: Tensor<4> = model.sample_prior(3, &none, 1.0, &mut Rng::new(1), &flex());
    assert_eq!(z.dims(), [3, 3, 4, 4]);
    assert_eq!(Vae::<4, 4>::decode(&model, z).mean().dims(), [3, 1, 8, 8]);
    let indices = Tensor::<3, Int>::zeros([2, 4, 4], &flex());
    assert_eq!(model.decode_indices(indices).mean().dims(), [2, 1, 8, 8]);
}

// ---------------------------------------------------------------------------------------- resuming

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

// -------------------------------------------------------------------------------- latent diffusion

/// `AutoencoderKl` is the first stage of latent diffusion as it is: its scaling factor brings the
/// latents to unit variance.
#[test]
fn autoencoder_kl_is_the_first_stage_of_latent_diffusion() {
    let vae = tiny_kl().init(&flex()).unwrap();
    let (vae, losses) = train(vae, 64, 150);
    assert!(losses[149] < losses[0], "{losses:?}");
    let data = loader(64);
    let images = data
        .iter_once()
        .map(|batch| batch.unwrap().to_tensor(&flex()));
    let images = Tensor::cat(images.collect(), 0);

    let moments = |x: Tensor<4>| {
        let values: Vec<f64> = x.into_data().iter::<f64>().collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        (mean, (variance / values.len() as f64).sqrt())
    };
    let (mean, std) = moments(Vae::<4, 4>::encode(&vae, images.clone()).mean);
    let vae = vae.with_latent_scaling(Some(mean), 1.0 / std).unwrap();
    let first_stage: &dyn Autoencoder = &vae;
    let latents = first_stage.encode(images.clone()).mode();
    assert_eq!(latents.dims(), [64, 2, 4, 4]);
    let (mean, std) = moments(latents.clone());
    assert!(
        mean.abs() < 1e-3 && (std - 1.0).abs() < 1e-3,
        "{mean} {std}"
    );

    let shape = ImageShape::new(2, 4, 4);
    let network = UNet2dConfig::small(shape, None).init(&flex()).unwrap();
    let network = network.init_weights(0);
    let untrained = network.clone();
    let objective = DiffusionObjective::new(DiffusionObjectiveConfig::default(), &network)
        .unwrap()
        .with_autoencoder(vae.clone(), 1.0)
        .unwrap();
    let run = temp_run().unwrap();
    let mut losses = Vec::new();
    let config = TrainerConfig {
        learning_rate: 3e-3,
        ..TrainerConfig::new(200)
    };
    let trained = Trainer::new(config)
        .with_callback(|event: &Event<'_>| {
            if let Event::Step(report) = event {
                losses.push(report.losses[0].1);
            }
        })
        .fit(objective, network, &loader(64), &run)
        .unwrap()
        .model;
    let part = |steps: &[f64]| steps.iter().sum::<f64>() / steps.len() as f64;
    let (first, last) = (part(&losses[..20]), part(&losses[180..]));
    assert!(last < 0.9 * first, "{first} {last}");

    let ddim = DdimScheduler {
        clipping: Clipping::NONE,
        ..DdimScheduler::default()
    };
    let make = |network| {
        DiffusionSampler::new(network, &ddim, 15, shape, &flex())
            .unwrap()
            .with_autoencoder(first_stage, 1.0)
            .sample(64, 0)
            .unwrap()
            .values
    };
    let made = make(&trained);
    assert_eq!(made.dims(), [64, 1, 8, 8]);
    // Nearer to reconstructions of the data than without training, pixel by pixel on average.
    let known = first_stage.decode(latents).mean_dim(0);
    let apart = |x: Tensor<4>| {
        let difference = x.mean_dim(0) - known.clone();
        difference.abs().mean().into_scalar::<f64>()
    };
    let (near, far) = (apart(made), apart(make(&untrained)));
    assert!(near < far, "{near}, untrained {far}");
}
