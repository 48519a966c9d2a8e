//! `WanTransformer3DModel`: the transformer of Wan (Wan Team 2025,
//! <https://arxiv.org/abs/2503.20314>). The patches of all frames attend to each other, with rotary
//! positions along frames, rows and columns, then to the prompt.
//!
//! | file | content |
//! |---|---|
//! | `config` | the configuration |
//! | `block` | a block, and tables of modulation |

pub(crate) mod block;
mod config;
#[cfg(all(test, feature = "flex"))]
mod tests;

pub use config::WanTransformer3dConfig;

use super::{
    attention::PromptTokens,
    files::network_methods,
    time::{Sinusoids, TimeEmbedding},
    transformers::RotaryTable,
};
use crate::denoiser::{Conditioning, Denoiser};
use aigc_core::{
    Result,
    data::SampleShape,
    nn::{Activation, Conv3d, Conv3dConfig, Linear, LinearConfig, diffusers::diffusers_key},
    ops,
    weights::{Loaded, OpenOptions, WeightDtype, WeightReader, open_model},
};
use block::{WanBlock, modulated, parts, table, widened};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor},
};
use std::path::Path;

impl WanTransformer3dConfig {
    /// The network on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<WanTransformer3dModel> {
        self.validate()?;
        let width = self.width();
        let patch = Conv3dConfig::new([self.in_channels, width], self.patch_size);
        let outputs = self.outputs() * self.patch_size.iter().product::<usize>();
        let (silu, gelu) = (Activation::Silu, Activation::GeluTanh);
        Ok(WanTransformer3dModel {
            patch_embedding: patch.with_stride(self.patch_size).init(device),
            condition_embedder: TimeTextEmbedding {
                time_embedder: TimeEmbedding::new(self.freq_dim, width, silu, device),
                time_proj: LinearConfig::new(width, 6 * width).init(device),
                text_embedder: TimeEmbedding::new(self.text_dim, width, gelu, device),
            },
            blocks: (0..self.num_layers)
                .map(|_| WanBlock::new(self, device))
                .collect(),
            proj_out: LinearConfig::new(width, outputs).init(device),
            scale_shift_table: table([1, 2, width], device),
            config: self.clone(),
        })
    }
}

/// The embeddings of time and prompt.
#[derive(Module, Debug)]
struct TimeTextEmbedding {
    time_embedder: TimeEmbedding,
    time_proj: Linear,
    /// Two layers from the states of a token to its embedding.
    text_embedder: TimeEmbedding,
}

/// The transformer of Wan.
#[derive(Module, Debug)]
pub struct WanTransformer3dModel {
    patch_embedding: Conv3d,
    condition_embedder: TimeTextEmbedding,
    blocks: Vec<WanBlock>,
    proj_out: Linear,
    /// `[1, 2, width]`
    scale_shift_table: Param<Tensor<3>>,
    #[module(skip)]
    config: WanTransformer3dConfig,
}

impl WanTransformer3dModel {
    network_methods!(WanTransformer3dConfig);

    /// The configuration of the network.
    pub fn config(&self) -> &WanTransformer3dConfig {
        &self.config
    }

    /// The prediction for noisy latents of videos.
    ///
    /// # Shapes
    /// - x: `[batch, in_channels, frames, height, width]`, sizes that are multiples of the patch
    /// - time: `[batch]`, 0 to 1000
    /// - encoder_hidden_states: `[batch, tokens, text_dim]`; all tokens are attended to
    /// - output: `[batch, out_channels, frames, height, width]`
    ///
    /// # Panics
    /// If the shapes do not fit, or there are more patches along an axis than `rope_max_seq_len`.
    pub fn forward(
        &self,
        x: Tensor<5>,
        time: Tensor<1>,
        encoder_hidden_states: Tensor<3>,
    ) -> Tensor<5> {
        let (config, dtype) = (&self.config, x.dtype());
        let [batch, _, sizes @ ..] = x.dims();
        let patches = config.patches(sizes).unwrap_or_else(|e| panic!("{e}"));
        let rotary = self.rotary(patches, &x.device());
        let tokens = patches.iter().product::<usize>();
        let width = config.width();
        let x = self.patch_embedding.forward(x);
        let x = ops::contiguous(x.reshape([batch, width, tokens]).swap_dims(1, 2));

        let embedder = &self.condition_embedder;
        let sinusoids = Sinusoids {
            width: config.freq_dim,
            cosines_first: true,
            shift: 0.0,
        };
        let embedding = embedder.time_embedder.forward(widened(sinusoids.of(time)));
        let conditions = embedder
            .time_proj
            .forward(Activation::Silu.forward(embedding.clone()))
            .reshape([batch, 6, width]);
        let text = PromptTokens::new(ops::cast(encoder_hidden_states, dtype), None);
        let text = text.map(|tokens| embedder.text_embedder.forward(tokens));

        let x = self.blocks.iter().fold(x, |x, block| {
            block.forward(x, &conditions, &text, &rotary, config.eps)
        });
        let [shift, scale] = parts(self.scale_shift_table.val(), embedding.unsqueeze_dim(1));
        let x = self
            .proj_out
            .forward(modulated(&x, scale, shift, config.eps));
        unpatched(x, patches, config.patch_size)
    }

    /// Rotary positions of the patches.
    fn rotary(&self, patches: [usize; 3], device: &Device) -> RotaryTable {
        let widths = self.config.rotary_widths();
        let angles = std::array::from_fn(|axis| {
            let frequencies = RotaryTable::frequencies(widths[axis]);
            let positions = (0..patches[axis]).map(|at| at as f64);
            positions
                .flat_map(|at| frequencies.iter().map(move |frequency| at * frequency))
                .collect()
        });
        RotaryTable::of_grid(patches, angles, 1, |axes| Tensor::cat(axes, 3), device)
    }
}

/// Tokens of the numbers of a patch as a video.
///
/// # Shapes
/// - x: `[batch, frames·rows·columns, numbers of a patch]`, channels innermost
/// - output: `[batch, channels, frames, height, width]`
fn unpatched(x: Tensor<3>, [f, r, c]: [usize; 3], [pf, pr, pc]: [usize; 3]) -> Tensor<5> {
    let [batch, _, numbers] = x.dims();
    let channels = numbers / (pf * pr * pc);
    x.reshape([batch, f, r, c, pf, pr, pc, channels])
        .permute([0, 7, 1, 4, 2, 5, 3, 6])
        .reshape([batch, channels, f * pf, r * pr, c * pc])
}

impl Denoiser<5> for WanTransformer3dModel {
    /// Padding of the prompt is attended to, as in diffusers: the mask is not used.
    ///
    /// # Panics
    /// Without `encoder_hidden_states`.
    fn predict(&self, x: Tensor<5>, time: Tensor<1>, condition: &Conditioning<5>) -> Tensor<5> {
        let states = condition.encoder_hidden_states.clone();
        let states = states.expect("this network needs encoder hidden states");
        self.forward(x, time, states)
    }

    fn check_shape(&self, shape: SampleShape) -> Result<()> {
        self.config.check_shape(shape)
    }

    fn cross_attention_dim(&self) -> Option<usize> {
        Some(self.config.text_dim)
    }

    fn extra_input_channels(&self) -> usize {
        let config = &self.config;
        config.in_channels.saturating_sub(config.outputs())
    }

    fn component(&self) -> &'static str {
        "transformer"
    }
}
