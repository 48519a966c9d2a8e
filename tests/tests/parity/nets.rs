//! Networks and pipelines against diffusers. (Most come from `AIGC_FIXTURES`.)

use super::Tensors;
use aigc_core::{device::device, weights::load_weights};
use aigc_diffusion::{
    Conditioning, Denoiser, DitConfig, Pipeline, PlanRunner, Scheduler, UNet2dConditionConfig,
    UNet2dConfig, UNet2dModel,
};
use burn::tensor::{Int, Tensor, TensorData};
use std::path::Path;

/// Fields that have no effect on these networks.
const IDLE: [&str; 7] = [
    "num_train_timesteps",
    "norm_num_groups",
    "upcast_attention",
    "addition_embed_type_num_heads",
    "addition_time_embed_dim",
    "class_embeddings_concat",
    "projection_class_embeddings_input_dim",
];

/// Fails if an unused field is not in `IDLE`.
fn assert_idle(unused: &[String]) {
    assert!(
        unused.iter().all(|field| IDLE.contains(&field.as_str())),
        "{unused:?}"
    );
}

/// A network with its weights; nothing in its file may be new to us.
fn unet2d(folder: &Path) -> UNet2dModel {
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let config = UNet2dConfig::from_json(&text).unwrap();
    assert_idle(&config.unused_fields);
    let network = config.init(&device("flex").unwrap()).unwrap();
    load_weights(network, &folder.join("diffusion_pytorch_model.safetensors")).unwrap()
}

/// The largest difference, relative to a value or one.
fn error(found: &Tensor<4>, expected: &Tensor<4>) -> f64 {
    assert_eq!(found.dims(), expected.dims());
    let [found, expected] =
        [found, expected].map(|tensor| tensor.to_data().iter::<f64>().collect::<Vec<_>>());
    let errors = found
        .iter()
        .zip(&expected)
        .map(|(a, b)| (a - b).abs() / b.abs().max(1.0));
    errors
        .map(|error| if error.is_nan() { f64::INFINITY } else { error })
        .fold(0.0, f64::max)
}

/// One call of a network, of the class that the case names.
pub(crate) fn call(folder: &Path, kind: &str) {
    let name = folder.file_name().unwrap().to_string_lossy().into_owned();
    let flex = device("flex").unwrap();
    let tensors = Tensors(std::fs::read(folder.join("tensors.safetensors")).unwrap());
    let load = |name: &str| {
        Tensor::<4>::from_data(
            TensorData::new(tensors.floats(name), tensors.shape::<4>(name)),
            &flex,
        )
    };
    let integers = |name: &str| {
        tensors
            .integers(name)
            .into_iter()
            .map(|value| value as i32)
            .collect::<Vec<_>>()
    };
    let class = tensors.has("class_labels").then(|| {
        let labels = integers("class_labels");
        Tensor::<1, Int>::from_ints(labels.as_slice(), &flex)
    });
    let class_embeddings = tensors.has("class_embeddings").then(|| {
        let shape = tensors.shape::<2>("class_embeddings");
        Tensor::from_data(
            TensorData::new(tensors.floats("class_embeddings"), shape),
            &flex,
        )
    });
    let time = integers("timestep")
        .into_iter()
        .map(|time| time as f32)
        .collect::<Vec<_>>();
    let time = Tensor::<1>::from_floats(time.as_slice(), &flex);
    let text = std::fs::read_to_string(folder.join("model/config.json")).unwrap();
    let weights = folder.join("model/diffusion_pytorch_model.safetensors");
    let found = match kind {
        "UNet2DModel" => {
            let condition = Conditioning {
                class_labels: class,
                class_embeddings,
                ..Conditioning::default()
            };
            unet2d(&folder.join("model")).predict(load("sample"), time, &condition)
        }
        "UNet2DConditionModel" => {
            let config = UNet2dConditionConfig::from_json(&text).unwrap();
            assert_idle(&config.unused_fields);
            let tokens = TensorData::new(
                tensors.floats("encoder_hidden_states"),
                tensors.shape::<3>("encoder_hidden_states"),
            );
            let network = load_weights(config.init(&flex).unwrap(), &weights).unwrap();
            network.forward(load("sample"), time, &Tensor::<3>::from_data(tokens, &flex))
        }
        "DiTTransformer2DModel" => {
            let config = DitConfig::from_json(&text).unwrap();
            assert_idle(&config.unused_fields);
            let network = load_weights(config.init(&flex).unwrap(), &weights).unwrap();
            network.forward(load("sample"), time, class.expect("labels"))
        }
        other => panic!("{other} is not a network of this crate"),
    };
    let error = error(&found, &load("output"));
    println!("{name}: {error:.1e}");
    assert!(error < 1e-4, "{name} is off by {error:.1e}");
}

/// A pipeline from its first noise to its image.
pub(crate) fn pipeline(folder: &Path, json: &serde_json::Value) {
    let name = folder.file_name().unwrap().to_string_lossy().into_owned();
    let flex = device("flex").unwrap();
    let tensors = Tensors(std::fs::read(folder.join("tensors.safetensors")).unwrap());
    let load = |name: &str| {
        Tensor::<4>::from_data(
            TensorData::new(tensors.floats(name), tensors.shape::<4>(name)),
            &flex,
        )
    };
    let pipeline = Pipeline::from_pretrained(folder.join("pipeline"), &flex).unwrap();
    // Nothing in its files may be new to us but fields that have no effect here.
    let idle = |field: &String| {
        IDLE.iter()
            .chain(&["variance_type", "time_shift_type", "use_dynamic_shifting"])
            .any(|idle| field.ends_with(idle))
    };
    assert!(
        pipeline.unused_fields.iter().all(idle),
        "{:?}",
        pipeline.unused_fields
    );
    let plan = pipeline
        .scheduler
        .plan(json["num_inference_steps"].as_u64().unwrap() as usize)
        .unwrap();
    let (mut x, mut sampling, mut drawn) = (load("init"), PlanRunner::new(&plan), 0);
    while let Some(call) = sampling.call() {
        let time = Tensor::<1>::full([x.dims()[0]], call.time, &flex);
        let output = pipeline
            .network
            .predict(sampling.input(&x), time, &Conditioning::default());
        let noise = || {
            drawn += 1;
            load(&format!("noise.{:03}", drawn - 1))
        };
        x = sampling.step(x, output, noise).prev_sample;
    }
    let error = error(&x, &load("images"));
    println!("pipeline of {name}: {error:.1e}");
    // DDIM through random weights magnifies a last digit: diffusers itself, in 64 bits, is 6.7e-5
    // from these images after five steps (`tests/reference/precision.py`). Four times that.
    let allowed = if name == "DDIMScheduler" {
        2.7e-4
    } else {
        1e-4
    };
    assert!(error < allowed, "{name} is off by {error:.1e}");
}
