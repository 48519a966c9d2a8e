//! Adapters that are written.

use super::model;
use crate::adapters::{Component, Lora, LoraConfig, LoraForm, LoraWriter, add_adapter};
use aigc_core::{rng::InitWeights, weights::WeightReader};

/// Names in kohya's form tell the parts apart, and are read again.
#[test]
fn names_of_parts_are_read_again() {
    let config = LoraConfig {
        targets: vec!["to_q".into(), "conv".into()],
        ..LoraConfig::attention()
    };
    let adapted = add_adapter(model(), &config).unwrap().init_weights(1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lora.safetensors");
    for (components, prefixes) in [
        (&[Component::Unet][..], &["lora_unet"][..]),
        (&[Component::Transformer], &["lora_transformer"]),
        (&[Component::TextEncoder], &["lora_te"]),
        (
            &[
                Component::TextEncoder,
                Component::TextEncoder2,
                Component::TextEncoder3,
            ],
            &["lora_te1", "lora_te2", "lora_te3"],
        ),
    ] {
        let mut writer = LoraWriter::new();
        for component in components {
            writer = writer.with(&adapted, *component).unwrap();
        }
        writer.save(&path, LoraForm::Kohya).unwrap();
        let reader = WeightReader::open(&path).unwrap();
        assert_eq!(reader.names().count(), 6 * components.len());
        for (component, prefix) in components.iter().zip(prefixes) {
            let name = format!("{prefix}_to_q.alpha");
            assert!(reader.contains(&name), "{name}");
            let lora = Lora::open(&path).unwrap();
            let (_, _, report) = lora.merge(model(), *component, 1.0).unwrap();
            assert_eq!(report.layers.len(), 2, "{component}: {report}");
        }
    }
}
