//! Low-rank adapters that are trained and written here.

use crate::{adapters::values, differences::apart};
use aigc_core::{
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig, ImageBatch, InMemory, collate_images, digits},
    device::device,
    rng::{InitWeights, Rng},
    train::{Trainer, TrainerConfig},
    weights::WeightReader,
};
use aigc_diffusion::{
    Conditioning, Denoiser, DiffusionObjective, DiffusionObjectiveConfig, UNet2dConditionConfig,
    UNet2dConditionModel,
    models::{CrossDownBlockType, CrossUpBlockType, PerBlock},
};
use aigc_pipelines::adapters::{Component, Lora, LoraConfig, LoraForm, LoraWriter, add_adapter};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// A small network in the shape of Stable Diffusion's.
fn small(seed: u64) -> UNet2dConditionModel {
    let config = UNet2dConditionConfig {
        in_channels: 1,
        out_channels: 1,
        down_block_types: vec![
            CrossDownBlockType::CrossAttnDownBlock2D,
            CrossDownBlockType::DownBlock2D,
        ],
        up_block_types: vec![
            CrossUpBlockType::UpBlock2D,
            CrossUpBlockType::CrossAttnUpBlock2D,
        ],
        block_out_channels: vec![8, 16],
        layers_per_block: 1,
        norm_num_groups: 4,
        cross_attention_dim: 6,
        attention_head_dim: PerBlock::One(2),
        ..UNet2dConditionConfig::default()
    };
    config
        .init(&device("flex").unwrap())
        .unwrap()
        .init_weights(seed)
}

fn trained_adapters(network: UNet2dConditionModel, steps: usize) -> UNet2dConditionModel {
    let images = InMemory(digits::train_test_split().0.0[..32].to_vec());
    let config = DataLoaderConfig {
        batch_size: 8,
        ..DataLoaderConfig::default()
    };
    let batches = DataLoader::new(images, collate_images, config).unwrap();
    // Tokens that differ, so that queries matter.
    let states = |batch: &ImageBatch, device: &Device| {
        Ok(Rng::new(5)
            .normal([1, 3, 6], device)
            .expand([batch.len(), 3, 6]))
    };
    let objective = DiffusionObjective::new(DiffusionObjectiveConfig::default(), &network)
        .unwrap()
        .with_encoder_hidden_states(states, None);
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::create(folder.path().join("run")).unwrap();
    let config = TrainerConfig {
        learning_rate: 0.02,
        ..TrainerConfig::new(steps)
    };
    let trainer = Trainer::new(config);
    trainer
        .fit(objective, network, &batches, &run)
        .unwrap()
        .model
}

/// Adapters alone are trained; written in every form, they change the plain network as they do
/// when attached.
#[test]
fn trained_adapters_are_written_and_opened() {
    let plain = small(3);
    let config = LoraConfig {
        rank: 2,
        alpha: 3.0,
        targets: ["to_q", "to_v", "to_out.0", "conv1"].map(Into::into).into(),
    };
    let fresh = add_adapter(plain.clone(), &config).unwrap().init_weights(4);
    let before = values(&fresh);
    let flex = device("flex").unwrap();
    let output = |network: &UNet2dConditionModel| -> Vec<f32> {
        let mut rng = Rng::new(1);
        let (x, tokens) = (
            rng.normal([2, 1, 8, 8], &flex),
            rng.normal([2, 3, 6], &flex),
        );
        let condition = Conditioning {
            encoder_hidden_states: Some(tokens),
            ..Conditioning::default()
        };
        let time = Tensor::from_floats([500.0, 20.0], &flex);
        let output = network.predict(x, time, &condition);
        output.into_data().iter::<f32>().collect()
    };
    assert_eq!(output(&fresh), output(&plain));
    let trained = trained_adapters(fresh, 6).valid();
    let after = values(&trained);
    for (path, value) in &after {
        let changes = path.ends_with(".lora.a") || path.ends_with(".lora.b");
        assert_eq!(before[path] != *value, changes, "{path}");
    }
    let expected = output(&trained);
    assert!(apart(&expected, &output(&plain)) > 1e-4);
    let writer = LoraWriter::new().with(&trained, Component::Unet).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for form in [LoraForm::Peft, LoraForm::Diffusers, LoraForm::Kohya] {
        writer.save(folder.path(), form).unwrap();
        let path = folder.path().join("pytorch_lora_weights.safetensors");
        let reader = WeightReader::open(&path).unwrap();
        let query = match form {
            LoraForm::Kohya => {
                "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.alpha"
            }
            LoraForm::Peft => {
                "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight"
            }
            _ => "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora.up.weight",
        };
        assert!(reader.contains(query), "{query}");
        let lora = Lora::open(folder.path()).unwrap();
        assert_eq!(lora.form(), form);
        let (merged, _, report) = lora.merge(plain.clone(), Component::Unet, 1.0).unwrap();
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(report.applied.len(), 2 * report.layers.len());
        let off = apart(&output(&merged), &expected);
        assert!(off < 1e-5, "{form:?} is off by {off:.1e}");
        let attached = Lora::open(&path)
            .unwrap()
            .attach(plain.clone(), Component::Unet, 1.0);
        let off = apart(&output(&attached.unwrap().0), &expected);
        assert!(off < 1e-5, "{form:?} is off by {off:.1e}");
    }
    // What is not attached cannot be written, and what is attached not attached again.
    let nothing = LoraWriter::new().with(&plain, Component::Unet).unwrap_err();
    assert!(
        nothing.to_string().contains("without attached adapters"),
        "{nothing}"
    );
    let twice = add_adapter(trained, &config).unwrap_err();
    assert!(twice.to_string().contains("attached adapters"), "{twice}");
    let unknown = LoraConfig {
        targets: vec!["c_attn".into()],
        ..config
    };
    let unknown = add_adapter(plain, &unknown).unwrap_err().to_string();
    assert!(
        unknown.contains("`targets` is c_attn") && unknown.contains("to_q"),
        "{unknown}"
    );
}
