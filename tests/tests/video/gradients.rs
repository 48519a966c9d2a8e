//! Networks of videos are trained: a small step against the gradients lowers the loss by what the
//! gradients say.

use aigc_core::{
    params::{ParamMapper, ParamVisitor, map_params, visit_params},
    rng::{InitWeights, Rng},
    testing::values,
};
use aigc_diffusion::{
    Conditioning, Denoiser, LtxVideoTransformer3dConfig, UNet3dConditionConfig,
    UNetSpatioTemporalConditionConfig, WanTransformer3dConfig,
    models::{CrossDownBlockType, CrossUpBlockType, PerBlock},
};
use burn::{
    module::Param,
    tensor::{Device, Gradients, Tensor, TensorData},
};
use std::collections::HashMap;

/// Gradients of all weights by their paths.
struct Collect<'a> {
    of: &'a Gradients,
    found: HashMap<String, Vec<f32>>,
    /// Weights without a gradient.
    without: Vec<String>,
}

impl ParamVisitor for Collect<'_> {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        match param.val().grad(self.of) {
            Some(gradient) => drop(self.found.insert(path.into(), values(gradient))),
            None => self.without.push(path.into()),
        }
    }
}

/// A step of `rate` against the gradients.
struct Descend<'a> {
    gradients: &'a HashMap<String, Vec<f32>>,
    rate: f64,
}

impl ParamMapper for Descend<'_> {
    fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = self.gradients.get(path) else {
            return param;
        };
        let value = param.val();
        let data = TensorData::new(gradient.clone(), value.dims());
        let gradient = Tensor::from_data(data, &value.device());
        Param::from_tensor(value - gradient * self.rate)
    }
}

/// Videos of two channels and three frames, the states of a prompt of this width, and sizes.
fn inputs(width: usize, device: &Device) -> (Tensor<5>, Conditioning<5>) {
    let mut rng = Rng::new(3);
    let condition = Conditioning {
        encoder_hidden_states: Some(rng.normal([2, 4, width], device)),
        time_ids: Some(rng.uniform([2, 2], 0.0, 100.0, device)),
        ..Conditioning::default()
    };
    (rng.normal([2, 2, 3, 8, 8], device), condition)
}

fn loss<N: Denoiser<5>>(network: &N, width: usize, device: &Device) -> Tensor<1> {
    let (x, condition) = inputs(width, device);
    let target: Tensor<5> = Rng::new(4).normal(x.dims(), device);
    let time = Tensor::from_floats([30.0, 700.0], device);
    let error = network.predict(x, time, &condition) - target;
    (error.clone() * error).mean()
}

fn check<N: Denoiser<5>>(network: N, width: usize) {
    let flex = Device::flex();
    let autodiff = flex.clone().autodiff();
    let network = network.init_weights(1).train();
    let before = loss(&network, width, &autodiff);
    let gradients = before.backward();
    let mut collected = Collect {
        of: &gradients,
        found: HashMap::new(),
        without: vec![],
    };
    visit_params(&network, &mut collected);
    assert!(collected.without.is_empty(), "{:?}", collected.without);
    let squares = collected.found.values().flatten();
    let square: f64 = squares.map(|value| f64::from(*value).powi(2)).sum();

    let plain = network.valid();
    let at = |network: &N| f64::from(values(loss(network, width, &flex))[0]);
    let before = at(&plain);
    // A thousandth of the loss, which is far above the rounding errors of its sum.
    let step = before / 1000.0;
    let moved = map_params(
        plain,
        &mut Descend {
            gradients: &collected.found,
            rate: step / square,
        },
    );
    let fell = before - at(&moved);
    assert!((fell - step).abs() < 0.05 * step, "{fell}, expected {step}");
}

#[test]
fn convolutions_over_time() {
    let config = UNet3dConditionConfig {
        in_channels: 2,
        out_channels: 2,
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
        attention_head_dim: 4,
        ..UNet3dConditionConfig::default()
    };
    check(config.init(&Device::flex()).unwrap(), 6);
}

#[test]
fn spatial_and_temporal_blocks() {
    let config = UNetSpatioTemporalConditionConfig {
        in_channels: 2,
        out_channels: 2,
        down_block_types: vec![
            CrossDownBlockType::CrossAttnDownBlock2D,
            CrossDownBlockType::DownBlock2D,
        ],
        up_block_types: vec![
            CrossUpBlockType::UpBlock2D,
            CrossUpBlockType::CrossAttnUpBlock2D,
        ],
        block_out_channels: vec![32, 32],
        addition_time_embed_dim: 4,
        projection_class_embeddings_input_dim: 8,
        layers_per_block: 1,
        cross_attention_dim: 6,
        num_attention_heads: PerBlock::One(2),
        ..UNetSpatioTemporalConditionConfig::default()
    };
    check(config.init(&Device::flex()).unwrap(), 6);
}

#[test]
fn transformer_of_wan() {
    let config = WanTransformer3dConfig {
        num_attention_heads: 2,
        attention_head_dim: 6,
        in_channels: 2,
        out_channels: Some(2),
        text_dim: 5,
        freq_dim: 8,
        ffn_dim: 10,
        num_layers: 2,
        rope_max_seq_len: 8,
        ..WanTransformer3dConfig::default()
    };
    check(config.init(&Device::flex()).unwrap(), 5);
}

#[test]
fn transformer_of_ltx() {
    let config = LtxVideoTransformer3dConfig {
        in_channels: 2,
        out_channels: None,
        num_attention_heads: 2,
        attention_head_dim: 10,
        cross_attention_dim: 20,
        num_layers: 2,
        caption_channels: 5,
        ..LtxVideoTransformer3dConfig::default()
    };
    check(config.init(&Device::flex()).unwrap(), 5);
}
