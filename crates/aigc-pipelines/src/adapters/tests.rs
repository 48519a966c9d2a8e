//! Changes against their definitions, and files that are broken or lie.

use super::{Component, Lora, LoraScales, LoraStack, TextualInversion, expand_prompt};
use aigc_core::{
    nn::{Conv2d, Conv2dConfig, Linear, LinearConfig},
    rng::{InitWeights, Rng},
    weights::save_tensors,
};
use aigc_encoders::{
    clip::{ClipTextConfig, ClipTextModel},
    tokenizer::ClipTokenizer,
};
use burn::{
    module::Module,
    tensor::{Device, TensorData},
};
use std::{collections::BTreeMap, path::PathBuf};
use tempfile::TempDir;

#[derive(Module, Debug)]
struct Model {
    to_q: Linear,
    conv: Conv2d,
}

const IN: usize = 4;
const OUT: usize = 6;

fn model() -> Model {
    let device = Device::flex();
    let model = Model {
        to_q: LinearConfig::new(IN, OUT).init(&device),
        conv: Conv2dConfig::new([IN, OUT], 3).init(&device),
    };
    model.init_weights(1)
}

/// Tensors of an adapter, in a file.
struct File {
    dir: TempDir,
    tensors: BTreeMap<String, TensorData>,
    rng: Rng,
}

impl File {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            tensors: BTreeMap::new(),
            rng: Rng::new(7),
        }
    }

    /// A tensor with random values, which are returned.
    fn draw(&mut self, name: &str, shape: &[usize]) -> Vec<f64> {
        let values = self.rng.normal_vec(shape.iter().product());
        let data = TensorData::new(values.clone(), shape.to_vec());
        self.tensors.insert(name.into(), data);
        values.into_iter().map(f64::from).collect()
    }

    fn number(&mut self, name: &str, value: f32) {
        let data = TensorData::new(vec![value], Vec::<usize>::new());
        self.tensors.insert(name.into(), data);
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("lora.safetensors")
    }

    fn open(&self) -> aigc_core::Result<Lora> {
        save_tensors(&self.tensors, &self.path()).unwrap();
        Lora::open(self.path())
    }

    fn error(&self) -> String {
        self.open().unwrap_err().to_string()
    }
}

/// The weight of the linear layer, one row for each output.
fn linear(model: &Model) -> Vec<f64> {
    let weight = model.to_q.weight.val().transpose().into_data();
    weight.iter::<f64>().collect()
}

fn convolution(model: &Model) -> Vec<f64> {
    model.conv.weight.val().into_data().iter::<f64>().collect()
}

fn product(a: &[f64], b: &[f64], inner: usize) -> Vec<f64> {
    let columns = b.len() / inner;
    let element = |row: usize, column: usize| -> f64 {
        (0..inner)
            .map(|k| a[row * inner + k] * b[k * columns + column])
            .sum()
    };
    let rows = 0..a.len() / inner;
    rows.flat_map(|row| (0..columns).map(move |column| (row, column)))
        .map(|(row, column)| element(row, column))
        .collect()
}

fn assert_change(before: &[f64], after: &[f64], expected: &[f64]) {
    assert_eq!((before.len(), before.len()), (after.len(), expected.len()));
    for ((before, after), expected) in before.iter().zip(after).zip(expected) {
        let off = (after - before - expected).abs();
        assert!(off < 1e-5, "{} instead of {expected}", after - before);
    }
}

fn merged(file: &File, scale: f64) -> Model {
    let (merged, _, report) = file
        .open()
        .unwrap()
        .merge(model(), Component::Unet, scale)
        .unwrap();
    assert!(
        report.is_complete() && !report.applied.is_empty(),
        "{report:?}"
    );
    merged
}

fn scaled(values: Vec<f64>, scale: f64) -> Vec<f64> {
    values.into_iter().map(|value| value * scale).collect()
}

#[test]
fn low_rank_changes_are_scaled_by_alpha_over_rank() {
    for (alpha, factor) in [(None, 1.0), (Some(1.0), 1.0 / 3.0), (Some(-6.0), -2.0)] {
        let mut file = File::new();
        let down = file.draw("lora_unet_to_q.lora_down.weight", &[3, IN]);
        let up = file.draw("lora_unet_to_q.lora_up.weight", &[OUT, 3, 1, 1]);
        if let Some(alpha) = alpha {
            file.number("lora_unet_to_q.alpha", alpha);
        }
        let expected = scaled(product(&up, &down, 3), 0.5 * factor);
        let after = merged(&file, 0.5);
        assert_change(&linear(&model()), &linear(&after), &expected);
        assert_eq!(convolution(&after), convolution(&model()));
    }
}

/// A rank above both sides of the layer is a product like any other.
#[test]
fn any_rank_fits() {
    let mut file = File::new();
    let down = file.draw("unet.to_q.lora_A.weight", &[40, IN]);
    let up = file.draw("unet.to_q.lora_B.weight", &[OUT, 40]);
    let expected = product(&up, &down, 40);
    assert_change(&linear(&model()), &linear(&merged(&file, 1.0)), &expected);
}

#[test]
fn convolutions_change_with_and_without_a_factor_of_the_kernel() {
    let mut file = File::new();
    let down = file.draw("lora_unet_conv.lora_down.weight", &[2, IN, 3, 3]);
    let up = file.draw("lora_unet_conv.lora_up.weight", &[OUT, 2, 1, 1]);
    let after = merged(&file, 1.0);
    assert_change(
        &convolution(&model()),
        &convolution(&after),
        &product(&up, &down, 2),
    );
    let mut file = File::new();
    let down = file.draw("lora_unet_conv.lora_down.weight", &[3, IN, 1, 1]);
    let mid = file.draw("lora_unet_conv.lora_mid.weight", &[2, 3, 3, 3]);
    let up = file.draw("lora_unet_conv.lora_up.weight", &[OUT, 2, 1, 1]);
    let mut expected = vec![0.0; OUT * IN * 9];
    for (at, value) in expected.iter_mut().enumerate() {
        let (out, input, position) = (at / (IN * 9), at / 9 % IN, at % 9);
        for outer in 0..2 {
            for inner in 0..3 {
                *value += up[out * 2 + outer]
                    * mid[(outer * 3 + inner) * 9 + position]
                    * down[inner * IN + input];
            }
        }
    }
    assert_change(
        &convolution(&model()),
        &convolution(&merged(&file, 1.0)),
        &expected,
    );
    // The same, attached.
    let attached = file
        .open()
        .unwrap()
        .attach(model(), Component::Unet, 1.0)
        .unwrap()
        .0;
    assert_change(
        &convolution(&model()),
        &convolution(&attached.materialize()),
        &expected,
    );
}

#[test]
fn hadamard_and_kronecker_products_and_differences_are_merged() {
    let mut file = File::new();
    let w1 = (
        file.draw("lora_unet_to_q.hada_w1_a", &[OUT, 2]),
        file.draw("lora_unet_to_q.hada_w1_b", &[2, IN]),
    );
    let w2 = (
        file.draw("lora_unet_to_q.hada_w2_a", &[OUT, 2]),
        file.draw("lora_unet_to_q.hada_w2_b", &[2, IN]),
    );
    file.number("lora_unet_to_q.alpha", 1.0);
    let (first, second) = (product(&w1.0, &w1.1, 2), product(&w2.0, &w2.1, 2));
    let expected = first
        .iter()
        .zip(&second)
        .map(|(a, b)| a * b * 0.5)
        .collect::<Vec<f64>>();
    assert_change(&linear(&model()), &linear(&merged(&file, 1.0)), &expected);
    let attached = file.open().unwrap().attach(model(), Component::Unet, 1.0);
    assert!(attached.unwrap_err().to_string().contains("merge it"));

    // [2, 2] ⊗ [3, 2, 3, 3], the second with factors.
    let mut file = File::new();
    let w1 = file.draw("lora_unet_conv.lokr_w1", &[2, 2]);
    let w2_a = file.draw("lora_unet_conv.lokr_w2_a", &[3, 4]);
    let w2_b = file.draw("lora_unet_conv.lokr_w2_b", &[4, 2 * 9]);
    file.number("lora_unet_conv.alpha", 2.0);
    let w2 = product(&w2_a, &w2_b, 4);
    let kronecker = |at: usize| {
        let (out, input, position) = (at / (IN * 9), at / 9 % IN, at % 9);
        w1[out / 3 * 2 + input / 2] * w2[(out % 3) * 18 + (input % 2) * 9 + position]
    };
    let expected: Vec<f64> = (0..OUT * IN * 9).map(|at| kronecker(at) * 0.5).collect();
    assert_change(
        &convolution(&model()),
        &convolution(&merged(&file, 1.0)),
        &expected,
    );
    // Without factors, alpha has no meaning.
    let mut file = File::new();
    let w1 = file.draw("lora_unet_to_q.lokr_w1", &[3, 2]);
    let w2 = file.draw("lora_unet_to_q.lokr_w2", &[2, 2]);
    file.number("lora_unet_to_q.alpha", 99.0);
    let kronecker = |at: usize| {
        let (out, input) = (at / IN, at % IN);
        w1[out / 2 * 2 + input / 2] * w2[out % 2 * 2 + input % 2]
    };
    let expected: Vec<f64> = (0..OUT * IN).map(kronecker).collect();
    assert_change(&linear(&model()), &linear(&merged(&file, 1.0)), &expected);

    let mut file = File::new();
    let difference = file.draw("lora_unet_conv.diff", &[OUT, IN, 3, 3]);
    let after = merged(&file, 0.25);
    assert_change(
        &convolution(&model()),
        &convolution(&after),
        &scaled(difference, 0.25),
    );
}

#[test]
fn several_adapters_add_up_with_strengths_of_their_own() {
    let (mut first, mut second) = (File::new(), File::new());
    let a = (
        first.draw("unet.to_q.lora_A.weight", &[2, IN]),
        first.draw("unet.to_q.lora_B.weight", &[OUT, 2]),
    );
    second.rng = Rng::new(8);
    let b = (
        second.draw("lora_unet_to_q.lora_down.weight", &[1, IN]),
        second.draw("lora_unet_to_q.lora_up.weight", &[OUT, 1]),
    );
    let stack = || {
        let scales = LoraScales::new(9.0).with_component(Component::Unet, 0.5);
        let stack = LoraStack::new()
            .with(first.open().unwrap(), scales)
            .unwrap();
        stack.with(second.open().unwrap(), -2.0).unwrap()
    };
    let (left, right) = (product(&a.1, &a.0, 2), product(&b.1, &b.0, 1));
    let pairs = left.iter().zip(&right);
    let expected: Vec<f64> = pairs.map(|(a, b)| 0.5 * a - 2.0 * b).collect();
    let mut merging = stack();
    let (merged, _) = merging.merge(model(), Component::Unet).unwrap();
    assert_eq!(merging.finish().unwrap().len(), 2);
    assert_change(&linear(&model()), &linear(&merged), &expected);
    let attached = stack().attach(model(), Component::Unet).unwrap();
    assert_change(
        &linear(&model()),
        &linear(&attached.materialize()),
        &expected,
    );
    let refused = LoraStack::new().with(first.open().unwrap(), f64::NAN);
    assert!(refused.unwrap_err().to_string().contains("`scale` is NaN"));
}

#[test]
fn alpha_of_metadata_counts_and_its_root() {
    let mut file = File::new();
    let down = file.draw("base_model.model.to_q.lora_A.weight", &[4, IN]);
    let up = file.draw("base_model.model.to_q.lora_B.weight", &[OUT, 4]);
    save_tensors(
        &file.tensors,
        &file.dir.path().join("adapter_model.safetensors"),
    )
    .unwrap();
    let config = file.dir.path().join("adapter_config.json");
    for (text, factor) in [
        (r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 2}"#, 0.5),
        (r#"{"r": 4, "lora_alpha": 2, "use_rslora": true}"#, 1.0),
        (
            r#"{"r": 4, "lora_alpha": 2, "alpha_pattern": {"to_q": 8}}"#,
            2.0,
        ),
    ] {
        std::fs::write(&config, text).unwrap();
        let lora = Lora::open(file.dir.path()).unwrap();
        let (after, ..) = lora.merge(model(), Component::Unet, 1.0).unwrap();
        let expected = scaled(product(&up, &down, 4), factor);
        assert_change(&linear(&model()), &linear(&after), &expected);
    }
    std::fs::write(&config, r#"{"lora_alpha": 2, "use_dora": true}"#).unwrap();
    let error = Lora::open(file.dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("use_dora") && error.contains("adapter_config.json"),
        "{error}"
    );
}

/// Tensors without a layer in the model, and those that are no adapters.
#[test]
fn reports_name_what_was_not_applied() {
    let mut file = File::new();
    for stem in [
        "lora_unet_to_q",
        "lora_unet_elsewhere",
        "lora_te_text_model_fc1",
    ] {
        file.draw(&format!("{stem}.lora_down.weight"), &[2, IN]);
        file.draw(&format!("{stem}.lora_up.weight"), &[OUT, 2]);
    }
    file.draw("bundle_emb.word.emb_params", &[2, 8]);
    let (_, _, report) = file
        .open()
        .unwrap()
        .merge(model(), Component::Unet, 1.0)
        .unwrap();
    assert!(!report.is_complete());
    let (_, layer) = report.layers.first().unwrap();
    assert_eq!((report.layers.len(), &layer[..]), (1, "to_q"));
    let applied = [
        "lora_unet_to_q.lora_down.weight",
        "lora_unet_to_q.lora_up.weight",
    ];
    assert_eq!(report.applied, applied);
    assert_eq!(report.unused.len(), 5, "{report:?}");
}

#[test]
fn wrong_shapes_are_named_at_once() {
    let mut file = File::new();
    file.draw("unet.to_q.lora_A.weight", &[2, IN + 1]);
    file.draw("unet.to_q.lora_B.weight", &[OUT, 3]);
    file.draw("unet.conv.lora_A.weight", &[2, IN, 1, 1]);
    file.draw("unet.conv.lora_B.weight", &[OUT, 2, 1, 1]);
    let error = file
        .open()
        .unwrap()
        .merge(model(), Component::Unet, 1.0)
        .unwrap_err()
        .to_string();
    for part in [
        "unet.to_q.lora_A.weight ([2, 5], expected [rank, 4])",
        "unet.to_q.lora_B.weight ([6, 3], expected [6, 2])",
        "unet.conv.lora_A.weight ([2, 4, 1, 1], expected [rank, 4, 3, 3])",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!error.contains("unet.conv.lora_B.weight"), "{error}");
    for (name, shape) in [
        ("lokr_w1", &[2usize, 2][..]),
        ("hada_w1_a", &[OUT, 2]),
        ("diff", &[OUT, IN + 1]),
    ] {
        let mut file = File::new();
        file.draw(&format!("lora_unet_to_q.{name}"), shape);
        for other in ["lokr_w2", "hada_w1_b", "hada_w2_a", "hada_w2_b"] {
            if other[..4] == name[..4] {
                file.draw(&format!("lora_unet_to_q.{other}"), &[OUT, 2]);
            }
        }
        let merged = file.open().unwrap().merge(model(), Component::Unet, 1.0);
        let error = merged.unwrap_err().to_string();
        assert!(
            error.contains("size mismatch") && error.contains(&name[..4]),
            "{error}"
        );
    }
}

#[test]
fn other_kinds_and_broken_files_are_refused() {
    for (name, kind) in [
        ("lora_unet_to_q.dora_scale", "DoRA"),
        ("unet.to_q.lora_magnitude_vector", "DoRA"),
        ("lora_unet_conv.hada_t1", "LoHa"),
        ("lora_unet_conv.oft_blocks", "OFT"),
    ] {
        let mut file = File::new();
        file.draw(name, &[1]);
        let error = file.error();
        assert!(error.contains(&format!("of the kind {kind}")), "{error}");
        assert!(error.contains("lora.safetensors"), "{error}");
    }
    let mut file = File::new();
    assert!(file.error().contains("the file has no tensors"));
    file.draw("decoder.weight", &[1]);
    assert!(
        file.error().contains("tensors such as decoder.weight"),
        "{}",
        file.error()
    );
    file.draw("unet.to_q.lora_A.weight", &[2, IN]);
    let error = file.error();
    assert!(
        error.contains("without their counterparts: unet.to_q.lora_A.weight"),
        "{error}"
    );
    file.draw("unet.to_q.lora_A.default.weight", &[2, IN]);
    assert!(
        file.error().contains("are the same factor"),
        "{}",
        file.error()
    );
    let mut file = File::new();
    file.draw("lora_unet_to_q.lora_down.weight", &[2, IN]);
    file.draw("lora_unet_to_q.lora_up.weight", &[OUT, 2]);
    for (alpha, reason) in [(f32::NAN, "finite"), (f32::INFINITY, "finite")] {
        file.number("lora_unet_to_q.alpha", alpha);
        assert!(file.error().contains(reason), "{}", file.error());
    }
    file.draw("lora_unet_to_q.alpha", &[2]);
    assert!(
        file.error()
            .contains("has the shape [2], expected one number")
    );
}

/// Any beginning of a file is an error; and so is any header that lies.
#[test]
fn truncated_and_lying_files_are_errors() {
    let mut file = File::new();
    file.draw("lora_unet_to_q.lora_down.weight", &[2, IN]);
    file.draw("lora_unet_to_q.lora_up.weight", &[OUT, 2]);
    file.open().unwrap();
    let bytes = std::fs::read(file.path()).unwrap();
    let path = file.dir.path().join("cut.safetensors");
    for length in 0..bytes.len() {
        std::fs::write(&path, &bytes[..length]).unwrap();
        Lora::open(&path).unwrap_err();
    }
    let huge = 1usize << 60;
    for (down, up) in [
        (format!("[0,{IN}]"), format!("[{OUT},0]")),
        (format!("[0,{huge},{huge}]"), format!("[{OUT},0]")),
        ("[0]".into(), "[0]".into()),
        (format!("[{OUT},0,0,{huge}]"), "[0,0,0,0]".into()),
    ] {
        let entry = |name: &str, shape: &str| {
            format!(
                r#""lora_unet_to_q.{name}.weight":{{"dtype":"F32","shape":{shape},"data_offsets":[0,0]}}"#
            )
        };
        let header = format!(
            "{{{},{}}}",
            entry("lora_down", &down),
            entry("lora_up", &up)
        );
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        std::fs::write(&path, bytes).unwrap();
        let opened = Lora::open(&path).and_then(|lora| lora.merge(model(), Component::Unet, 1.0));
        opened.unwrap_err();
    }
}

/// Names that are nothing but a prefix.
#[test]
fn empty_names_are_no_layers() {
    let mut file = File::new();
    for stem in ["", "lora_unet_", "unet."] {
        file.draw(&format!("{stem}.lora_down.weight"), &[2, IN]);
        file.draw(&format!("{stem}.lora_up.weight"), &[OUT, 2]);
        file.number(&format!("{stem}.alpha"), 1.0);
    }
    let error = file
        .open()
        .unwrap()
        .merge(model(), Component::Unet, 1.0)
        .unwrap_err();
    assert!(error.to_string().contains("applies to nothing"), "{error}");
}

/// A text encoder of this width, and its tokenizer.
fn encoder(width: usize) -> (ClipTokenizer, ClipTextModel) {
    let tokenizer = ClipTokenizer::from_words(["a photo of <toy> style"]).unwrap();
    let config = ClipTextConfig {
        vocab_size: tokenizer.vocab_size(),
        hidden_size: width,
        intermediate_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        max_position_embeddings: 12,
        ..ClipTextConfig::default()
    };
    let model = config.init(&Device::flex()).unwrap().init_weights(1);
    (tokenizer, model)
}

#[test]
fn inversions_open_in_every_form() {
    let open = |tensors: &[(&str, &[usize])]| {
        let mut file = File::new();
        for (name, shape) in tensors {
            file.draw(name, shape);
        }
        let path = file.dir.path().join("style.safetensors");
        save_tensors(&file.tensors, &path).unwrap();
        TextualInversion::open(path)
    };
    for (tensors, token, count) in [
        (&[("<toy>", &[4][..])][..], "<toy>", 1),
        (&[("<toy>", &[3, 4])], "<toy>", 3),
        (&[("emb_params", &[2, 4])], "style", 2),
        (
            &[("string_to_param.*", &[2, 4]), ("other", &[1])],
            "style",
            2,
        ),
        (&[("clip_l", &[1, 4]), ("clip_g", &[2, 6])], "style", 2),
    ] {
        let inversion = open(tensors).unwrap();
        assert_eq!(
            (inversion.token(), inversion.tokens().len()),
            (token, count)
        );
        assert!(inversion.fits(Component::TextEncoder, 4));
    }
    let both = open(&[("clip_l", &[1, 4]), ("clip_g", &[2, 6])]).unwrap();
    assert!(both.fits(Component::TextEncoder2, 6) && !both.fits(Component::TextEncoder2, 4));
    assert!(!both.fits(Component::TextEncoder3, 4));
    for (tensors, reason) in [
        (&[][..], "0 tensors"),
        (
            &[("a", &[4][..]), ("b", &[4])],
            "2 tensors (a, b), expected one named as its token",
        ),
        (&[("a", &[1, 2, 4])], "a has the shape [1, 2, 4]"),
        (&[("emb_params", &[])], "emb_params has the shape []"),
        (
            &[("string_to_param.a", &[4]), ("string_to_param.b", &[4])],
            "several tokens",
        ),
        (&[(" ", &[4])], "the token is empty"),
        (&[("a", &[4097, 1])], "1 to 4096 rows"),
    ] {
        let error = open(tensors).unwrap_err().to_string();
        assert!(
            error.contains(reason) && error.contains("style.safetensors"),
            "{error}"
        );
    }
}

#[test]
fn tokens_with_several_vectors_are_expanded() {
    let mut file = File::new();
    let values = file.draw("<cat>", &[3, 4]);
    file.open().unwrap_err();
    let inversion = TextualInversion::open(file.path()).unwrap();
    let (mut tokenizer, model) = encoder(4);
    let size = tokenizer.vocab_size();
    let model = inversion
        .add_to(Component::TextEncoder, &mut tokenizer, model)
        .unwrap();
    let prompt = expand_prompt("a <cat> photo, <cat>", &tokenizer);
    assert_eq!(
        prompt,
        "a <cat> <cat>_1 <cat>_2 photo, <cat> <cat>_1 <cat>_2"
    );
    assert_eq!(expand_prompt("a photo", &tokenizer), "a photo");
    let ids = tokenizer.encode(&prompt).unwrap();
    let added: Vec<u32> = ids.into_iter().filter(|id| *id as usize >= size).collect();
    let first = size as u32;
    assert_eq!(
        added,
        [first, first + 1, first + 2, first, first + 1, first + 2]
    );
    let table = model.token_embeddings();
    assert_eq!(table.dims(), [size + 3, 4]);
    let rows = table.narrow(0, size, 3).into_data();
    assert!(rows.iter::<f64>().eq(values));
    // For a model of another width.
    let (mut tokenizer, other) = encoder(6);
    let component = Component::TextEncoder;
    let error = inversion
        .add_to(component, &mut tokenizer, other)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("have the width 4") && error.contains("have the width 6"),
        "{error}"
    );
    assert_eq!(tokenizer.vocab_size(), size);
}
