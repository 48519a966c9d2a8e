//! Files for other models, and files that are broken or lie.

use super::{File, IN, OUT, model};
use crate::adapters::{Component, Lora};

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
        ("unet.to_q.lora_B.bias", "LoRA with biases"),
        ("unet.to_q.lora_B.style.bias", "LoRA with biases"),
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

/// Sizes whose products would be right if the further axes did not count.
#[test]
fn factors_of_kronecker_products_are_matrices() {
    for factors in [
        &[("lokr_w1", &[3, 2, 2][..]), ("lokr_w2", &[2, 2][..])][..],
        &[
            ("lokr_w1_a", &[3, 2, 2]),
            ("lokr_w1_b", &[2, 2]),
            ("lokr_w2", &[2, 2]),
        ],
        &[
            ("lokr_w1", &[3, 2]),
            ("lokr_w2_a", &[2, 1]),
            ("lokr_w2_b", &[1, 2, 2]),
        ],
        &[("lokr_w1", &[6]), ("lokr_w2", &[1, 4])],
    ] {
        let mut file = File::new();
        for (name, shape) in factors {
            file.draw(&format!("lora_unet_to_q.{name}"), shape);
        }
        let merged = file.open().unwrap().merge(model(), Component::Unet, 1.0);
        let error = merged.unwrap_err().to_string();
        assert!(error.contains("expected a product of 6 rows"), "{error}");
    }
}

/// Tensors of two kinds of changes for one layer.
#[test]
fn kinds_are_not_mixed() {
    let mut file = File::new();
    file.draw("lora_unet_to_q.lora_down.weight", &[2, IN]);
    file.draw("lora_unet_to_q.lora_up.weight", &[OUT, 2]);
    file.open().unwrap();
    for (name, shape) in [
        ("diff", &[OUT, IN][..]),
        ("lokr_w1", &[OUT, IN]),
        ("hada_w1_a", &[OUT, 2]),
    ] {
        let name = format!("lora_unet_to_q.{name}");
        file.draw(&name, shape);
        assert!(file.error().contains(&name), "{}", file.error());
        file.tensors.remove(&name);
    }
}
