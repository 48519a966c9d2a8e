//! Weights travel: to the `safetensors` crate, to Python, and back, bit for bit.

use aigc_core::{
    checkpoint::RunDir,
    device::device,
    nn::{BatchNormConfig, LinearConfig},
    rng::InitWeights,
    train::{Trainer, TrainerConfig},
    weights::{WeightReader, load_weights, save_weights},
};
use aigc_tests::{Net, NoisyRegression, bits, own_fixtures, row_loader};
use burn::{
    module::{Module, Param, ParamId},
    tensor::{Bool, DType, Device, Int, Tensor},
};
use safetensors::SafeTensors;
use std::process::Command;

#[test]
fn names_and_layouts_match_pytorch() {
    let device = device("flex").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let linear = LinearConfig::new(3, 2).init(&device).init_weights(1);
    save_weights(&linear, &path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let weight = file.tensor("weight").unwrap();
    assert_eq!(weight.shape(), [2, 3]);
    let stored: Vec<f32> = weight
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    let ours = linear
        .weight
        .val()
        .transpose()
        .into_data()
        .try_into_vec::<f32>()
        .unwrap();
    assert_eq!(stored, ours);

    save_weights(
        &BatchNormConfig::new(4).init(&device).init_weights(1),
        &path,
    )
    .unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let mut names: Vec<_> = SafeTensors::deserialize(&bytes)
        .unwrap()
        .names()
        .into_iter()
        .map(String::from)
        .collect();
    names.sort();
    assert_eq!(names, ["bias", "running_mean", "running_var", "weight"]);
}

#[test]
fn saved_weights_are_deterministic_and_round_trip() {
    let device = device("flex").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let net = Net::new(&device).init_weights(2).train();
    net.forward(Tensor::ones([4, 4], &device.clone().autodiff()));
    let net = net.valid();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    save_weights(&net, &a).unwrap();
    save_weights(&net, &b).unwrap();
    assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
    assert_eq!(
        bits(&load_weights(Net::new(&device), &a).unwrap()),
        bits(&net)
    );
}

/// Half and double precision become single: a model computes in one precision.
#[test]
fn load_reads_other_float_types() {
    use burn::tensor::TensorData;
    use safetensors::tensor::{Dtype, TensorView};
    let device = device("flex").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let values = [0.5f32, -2.0, 0.25, 1.0, 3.0, -0.125];
    for (kind, burn_kind) in [
        (Dtype::F16, DType::F16),
        (Dtype::BF16, DType::BF16),
        (Dtype::F64, DType::F64),
    ] {
        let bytes = |v: &[f32]| {
            TensorData::new(v.to_vec(), [v.len()])
                .convert_dtype(burn_kind)
                .as_bytes()
                .to_vec()
        };
        let (weight, bias) = (bytes(&values), bytes(&values[..2]));
        let views = [
            (
                "weight",
                TensorView::new(kind, vec![2, 3], &weight).unwrap(),
            ),
            ("bias", TensorView::new(kind, vec![2], &bias).unwrap()),
        ];
        safetensors::serialize_to_file(views, None, &path).unwrap();
        let linear = load_weights(LinearConfig::new(3, 2).init(&device), &path).unwrap();
        let y = linear.forward(Tensor::<2>::from_floats([[1.0, 1.0, 1.0]], &device));
        assert_eq!(
            y.into_data().try_into_vec::<f32>().unwrap(),
            [-0.75, 1.875],
            "{kind:?}"
        );
    }
}

/// A model with parameters that are not floats.
#[derive(Module, Debug)]
struct Lookup {
    layer: aigc_core::nn::Linear,
    table: Param<Tensor<2, Int>>,
    small: Param<Tensor<1, Int>>,
    mask: Param<Tensor<1, Bool>>,
}

impl Lookup {
    fn new(table: [[i32; 2]; 2], small: [i8; 2], mask: [bool; 3], device: &Device) -> Self {
        let small = Tensor::from_data(small, (device, DType::I8));
        Self {
            layer: LinearConfig::new(3, 2).init(device),
            table: Param::initialized(ParamId::new(), Tensor::from_ints(table, device)),
            small: Param::initialized(ParamId::new(), small),
            mask: Param::initialized(ParamId::new(), Tensor::from_data(mask, device)),
        }
    }

    fn values(&self) -> (Vec<i64>, Vec<i64>, Vec<bool>) {
        (
            self.table.val().into_data().iter().collect(),
            self.small.val().into_data().iter().collect(),
            self.mask.val().into_data().iter().collect(),
        )
    }
}

#[test]
fn integer_and_boolean_parameters_round_trip() {
    let device = device("flex").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let model = Lookup::new(
        [[1, -2], [300, 4]],
        [-128, 127],
        [true, false, true],
        &device,
    );
    let model = model.init_weights(1);
    save_weights(&model, &path).unwrap();
    let blank = || Lookup::new([[0; 2]; 2], [0; 2], [false; 3], &device);
    let loaded = load_weights(blank(), &path).unwrap();
    assert_eq!(loaded.values(), model.values());
    assert_eq!(loaded.table.val().dtype(), model.table.val().dtype());
    assert_eq!(loaded.small.val().dtype(), DType::I8);
    assert_eq!(bits(&loaded), bits(&model));
}

#[test]
fn tensors_of_another_kind_are_refused_by_name() {
    use safetensors::tensor::{Dtype, TensorView};
    let device = device("flex").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let zeros = [0u8; 48];
    let load = |changed: &str, kind: Dtype, bytes: &[u8]| {
        let view = |name: &str, kind: Dtype, shape: &[usize], size: usize| {
            let n: usize = shape.iter().product();
            let (kind, bytes) = match name == changed {
                true => (kind, bytes),
                false => (kind, &zeros[..n * size]),
            };
            (name.to_string(), kind, shape.to_vec(), bytes.to_vec())
        };
        let pick = |name: &str, usual: Dtype| if name == changed { kind } else { usual };
        let tensors = [
            ("layer.weight", Dtype::F32, &[2usize, 3][..], 4),
            ("layer.bias", Dtype::F32, &[2], 4),
            ("table", Dtype::I64, &[2, 2], 8),
            ("small", Dtype::I8, &[2], 1),
            ("mask", Dtype::BOOL, &[3], 1),
        ]
        .map(|(name, usual, shape, size)| view(name, pick(name, usual), shape, size));
        let views = tensors.iter().map(|(name, kind, shape, bytes)| {
            (name, TensorView::new(*kind, shape.clone(), bytes).unwrap())
        });
        safetensors::serialize_to_file(views, None, &path).unwrap();
        let blank = Lookup::new([[0; 2]; 2], [0; 2], [false; 3], &device);
        load_weights(blank, &path).map_err(|error| error.to_string())
    };
    assert!(load("", Dtype::F32, &[]).is_ok());
    // Other integer types are converted.
    let table = load("table", Dtype::U8, &[1, 2, 3, 255])
        .unwrap()
        .values()
        .0;
    assert_eq!(table, [1, 2, 3, 255]);
    for (name, kind, bytes, expected) in [
        (
            "table",
            Dtype::F32,
            &[0; 16][..],
            "table holds F32, expected integers",
        ),
        ("small", Dtype::U8, &[1, 200], "small holds 200"),
        ("mask", Dtype::F16, &[0; 6], "mask holds F16"),
        ("mask", Dtype::U8, &[0, 1, 2], "mask holds 2"),
        (
            "layer.bias",
            Dtype::I32,
            &[0; 8],
            "layer.bias holds I32, not floats",
        ),
    ] {
        let error = load(name, kind, bytes).unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("w.safetensors"), "{error}");
    }
}

#[test]
#[cfg(unix)]
fn saved_files_have_default_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (ours, plain) = (
        folder.path().join("w.safetensors"),
        folder.path().join("plain"),
    );
    save_weights(
        &LinearConfig::new(1, 1)
            .init(&device("flex").unwrap())
            .init_weights(0),
        &ours,
    )
    .unwrap();
    std::fs::write(&plain, "").unwrap();
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&ours), mode(&plain));
}

/// A pickle of PyTorch under the name that diffusers gives it, whole and in shards.
#[test]
fn pickles_open_under_every_stem() {
    for case in ["bin", "bin-shards"] {
        let from = own_fixtures().join("text/gpt2-files").join(case);
        let expected = WeightReader::from_dir(&from, &["pytorch_model"]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(&from).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.ends_with(".bin") {
                std::fs::copy(&path, dir.path().join(format!("diffusion_{name}"))).unwrap();
            }
        }
        let opened = WeightReader::from_dir(dir.path(), &["diffusion_pytorch_model"]).unwrap();
        let names: Vec<&str> = opened.names().collect();
        assert_eq!(names, expected.names().collect::<Vec<_>>(), "{case}");
        assert!(names.len() > 10, "{names:?}");
        for name in names {
            assert_eq!(opened.shape(name), expected.shape(name), "{name}");
            assert_eq!(opened.read(name).unwrap(), expected.read(name).unwrap());
        }
    }
}

/// `final/` opens in Python, where Python has `safetensors`.
#[test]
fn final_model_opens_in_python() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::create(folder.path().join("run")).unwrap();
    let net = Net::new(&device("flex").unwrap());
    let trained = Trainer::new(TrainerConfig::new(3))
        .with_model_config(&serde_json::json!({"kind": "net"}))
        .unwrap()
        .fit(NoisyRegression::default(), net, &row_loader(8, 0), &run)
        .unwrap();
    let script = "import json, sys\n\
        from safetensors.numpy import load_file\n\
        t = load_file(sys.argv[1] + '/model.safetensors')\n\
        print(json.load(open(sys.argv[1] + '/config.json'))['kind'])\n\
        for n in sorted(t): print(n, list(t[n].shape), t[n].dtype, repr(float(t[n].astype('float64').sum())))\n";
    let python = std::env::var("PYTHON").unwrap_or("python3".into());
    let has = |module: &str| {
        Command::new(&python)
            .args(["-c", &format!("import {module}")])
            .output()
            .is_ok_and(|o| o.status.success())
    };
    if !(has("safetensors") && has("numpy")) {
        println!("skipped: set PYTHON to one with safetensors and numpy");
        return;
    }
    let output = Command::new(&python)
        .args(["-c", script])
        .arg(run.final_dir())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let weight = trained.model.first.weight.val().into_data();
    let sum: f64 = weight.iter::<f32>().map(f64::from).sum();
    let line = text
        .lines()
        .find(|l| l.starts_with("first.weight"))
        .unwrap();
    assert!(
        text.starts_with("net\n") && line.contains("[16, 4] float32"),
        "{text}"
    );
    let seen: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
    assert!((seen - sum).abs() < 1e-9, "{seen} {sum}");
}
