//! Training a denoising network together with the text encoder that conditions it.

use aigc_core::{Result, data::SampleShape};
use aigc_diffusion::{Conditioning, Denoiser};
use aigc_encoders::clip::ClipTextModel;
use burn::{
    module::{Module, ModuleDisplay},
    tensor::Tensor,
};

/// A denoising network with cross-attention, and the text encoder that conditions it. As a
/// [`Denoiser`] it [takes token ids](Denoiser::takes_input_ids), so that
/// [`DiffusionObjective::with_input_ids`](aigc_diffusion::DiffusionObjective::with_input_ids)
/// trains both.
#[derive(Module, Debug)]
pub struct PromptDenoiser<N: Module> {
    /// The text encoder.
    pub text_encoder: ClipTextModel,
    /// The network that attends to its hidden states.
    pub network: N,
}

impl<N: Module> PromptDenoiser<N> {
    /// Joins a text encoder and a network.
    pub fn new(text_encoder: ClipTextModel, network: N) -> Self {
        Self {
            text_encoder,
            network,
        }
    }
}

impl<N: Denoiser + ModuleDisplay> Denoiser for PromptDenoiser<N> {
    fn predict(&self, x: Tensor<4>, time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
        // Hidden states that are given were encoded before.
        let Some(ids) = condition.input_ids.clone() else {
            return self.network.predict(x, time, condition);
        };
        let states = self.text_encoder.forward(ids, None).last_hidden_state;
        let condition = Conditioning {
            encoder_hidden_states: Some(states),
            input_ids: None,
            ..condition.clone()
        };
        self.network.predict(x, time, &condition)
    }

    fn check_shape(&self, shape: SampleShape) -> Result<()> {
        self.network.check_shape(shape)
    }

    fn check_trainable(&self, shape: SampleShape) -> Result<()> {
        self.network.check_trainable(shape)
    }

    fn check_min_time(&self, min: f64) -> Result<()> {
        self.network.check_min_time(min)
    }

    // Not forwarded: the width of the hidden states, which the text encoder provides.
    fn takes_input_ids(&self) -> bool {
        true
    }

    fn class_embedding_dim(&self) -> Option<usize> {
        self.network.class_embedding_dim()
    }

    fn num_classes(&self) -> Option<usize> {
        self.network.num_classes()
    }

    fn null_class(&self) -> Option<u32> {
        self.network.null_class()
    }

    fn needs_from_pipeline(&self) -> Option<&'static str> {
        self.network.needs_from_pipeline()
    }

    fn extra_input_channels(&self) -> usize {
        self.network.extra_input_channels()
    }

    fn supports_self_conditioning(&self, channels: usize) -> bool {
        self.network.supports_self_conditioning(channels)
    }

    fn sample_shape(&self) -> Option<SampleShape> {
        self.network.sample_shape()
    }

    fn component(&self) -> &'static str {
        self.network.component()
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        data::{
            DataLoader, DataLoaderConfig, Image, ImageBatch, ImageShape, InMemory, collate_images,
        },
        rng::{InitWeights, Rng},
        testing::temp_run,
        train::{Trainer, TrainerConfig},
    };
    use aigc_diffusion::{
        BitsPerDim, DdimScheduler, DiffusionObjective, DiffusionObjectiveConfig, DiffusionSampler,
        NoiseScheduleConfig, PredictionType, UNet2dConditionConfig, UNet2dConditionModel,
        models::{AdditionEmbedType, CrossDownBlockType, CrossUpBlockType, PerBlock},
    };
    use aigc_encoders::clip::ClipTextConfig;
    use burn::tensor::{Device, Int};

    fn tiny() -> PromptDenoiser<UNet2dConditionModel> {
        tiny_with(UNet2dConditionConfig::default())
    }

    /// With the options of `network` beside small sizes.
    fn tiny_with(network: UNet2dConditionConfig) -> PromptDenoiser<UNet2dConditionModel> {
        let text = ClipTextConfig {
            vocab_size: 10,
            hidden_size: 8,
            intermediate_size: 16,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            max_position_embeddings: 4,
            eos_token_id: 9,
            bos_token_id: Some(8),
            pad_token_id: Some(9),
            ..ClipTextConfig::default()
        };
        let network = UNet2dConditionConfig {
            in_channels: 1,
            out_channels: 1,
            down_block_types: vec![CrossDownBlockType::CrossAttnDownBlock2D],
            up_block_types: vec![CrossUpBlockType::CrossAttnUpBlock2D],
            block_out_channels: vec![8],
            layers_per_block: 1,
            norm_num_groups: 4,
            cross_attention_dim: 8,
            attention_head_dim: PerBlock::One(2),
            ..network
        };
        let device = Device::flex();
        PromptDenoiser::new(text.init(&device).unwrap(), network.init(&device).unwrap())
            .init_weights(1)
    }

    #[test]
    fn prediction_is_that_of_the_encoded_prompt() {
        let (model, device) = (tiny(), Device::flex());
        let ids = Tensor::<2, Int>::from_ints([[8, 1, 9, 9], [8, 2, 3, 9]], &device);
        let x: Tensor<4> = Rng::new(2).normal([2, 1, 4, 4], &device);
        let time = Tensor::from_floats([10.0, 900.0], &device);
        let joint = Conditioning {
            input_ids: Some(ids.clone()),
            ..Conditioning::default()
        };
        let encoded = Conditioning {
            encoder_hidden_states: Some(model.text_encoder.forward(ids, None).last_hidden_state),
            ..Conditioning::default()
        };
        let expected = model.network.predict(x.clone(), time.clone(), &encoded);
        let expected = expected.into_data();
        for condition in [joint, encoded] {
            let found = model.predict(x.clone(), time.clone(), &condition);
            assert_eq!(found.into_data(), expected);
        }
    }

    /// What the network is conditioned on besides prompts, it is as a part, too.
    #[test]
    fn other_conditions_are_those_of_the_network() {
        let model = tiny_with(UNet2dConditionConfig {
            num_class_embeds: Some(5),
            ..UNet2dConditionConfig::default()
        });
        assert_eq!((model.num_classes(), model.null_class()), (Some(5), None));
        assert_eq!(model.cross_attention_dim(), None);
        let model = tiny_with(UNet2dConditionConfig {
            addition_embed_type: Some(AdditionEmbedType::TextTime),
            addition_time_embed_dim: Some(4),
            projection_class_embeddings_input_dim: Some(6 * 4 + 8),
            ..UNet2dConditionConfig::default()
        });
        let config = DiffusionObjectiveConfig::default();
        let objective = DiffusionObjective::<_, ImageBatch>::new(config, &model);
        let error = objective.expect_err("nothing fills them").to_string();
        assert!(error.contains("pooled_projections and time_ids"), "{error}");
    }

    /// Samplers have no token ids: they take the network alone, with the prompts encoded.
    #[test]
    fn samplers_refuse_networks_that_encode_token_ids() {
        let (model, device) = (tiny(), Device::flex());
        let shape = || ImageShape::new(1, 4, 4);
        let schedule = DdimScheduler::default();
        let sampler = DiffusionSampler::new(&model, &schedule, 2, shape(), &device);
        let message = sampler.expect_err("nothing fills them").to_string();
        assert!(message.contains("encodes token ids"), "{message}");
        let alone = DiffusionSampler::new(&model.network, &schedule, 2, shape(), &device);
        assert!(alone.is_ok());
        let image = Image {
            shape: shape(),
            pixels: vec![0; 16],
            label: None,
        };
        let batch = collate_images(vec![image]);
        let (noise, predicts) = (NoiseScheduleConfig::default(), PredictionType::Epsilon);
        let bits = BitsPerDim::new(&model, &noise, predicts, &device).unwrap();
        let found = bits.variational_bound(&batch, None, 1, &mut Rng::new(1));
        let message = found.expect_err("nothing fills them").to_string();
        assert!(message.contains("encodes token ids"), "{message}");
    }

    /// Embeddings of the words in the prompts change, those of others do not.
    #[test]
    fn text_encoder_is_trained_with_the_network() {
        let image = |white: u32| Image {
            shape: ImageShape::new(1, 4, 4),
            pixels: vec![255 * white as u8; 16],
            label: Some(white),
        };
        let images = InMemory((0..16).map(|i| image(i % 2)).collect());
        let config = DataLoaderConfig {
            batch_size: 16,
            ..DataLoaderConfig::default()
        };
        let data = DataLoader::new(images, collate_images, config).unwrap();
        let model = tiny();
        let words = model.text_encoder.token_embeddings().into_data();
        let config = DiffusionObjectiveConfig {
            conditioning_dropout: 0.1,
            ..DiffusionObjectiveConfig::default()
        };
        let objective =
            || DiffusionObjective::<_, ImageBatch>::new(config.clone(), &model).unwrap();
        let tokens = |batch: &ImageBatch| {
            let labels = batch.labels().expect("labels");
            Ok(labels
                .iter()
                .map(|white| vec![8, 1 + white, 9, 9])
                .collect())
        };
        let with_ids = objective().with_input_ids(tokens, vec![8, 9, 9, 9]);
        let trainer = || {
            Trainer::new(TrainerConfig {
                learning_rate: 5e-3,
                ..TrainerConfig::new(60)
            })
        };
        let run = temp_run().unwrap();
        let trained = trainer().fit(with_ids, model.clone(), &data, &run).unwrap();
        let learned = trained.model.text_encoder.token_embeddings().into_data();
        let row = |data: &burn::tensor::TensorData, token: usize| -> Vec<f32> {
            data.iter::<f32>().skip(8 * token).take(8).collect()
        };
        assert_ne!(row(&words, 1), row(&learned, 1));
        // A token that no prompt has keeps its embedding.
        assert_eq!(row(&words, 5), row(&learned, 5));

        let run = temp_run().unwrap();
        let error = trainer().fit(objective(), model.clone(), &data, &run);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("`with_input_ids`"), "{error}");
        let short = objective().with_input_ids(|_: &ImageBatch| Ok(vec![vec![8]; 16]), vec![8, 9]);
        let run = temp_run().unwrap();
        let error = trainer()
            .fit(short, model.clone(), &data, &run)
            .unwrap_err();
        let error = error.to_string();
        assert!(error.contains("16 prompts of 2 tokens"), "{error}");
    }
}
