//! Encoder and decoder of Encodec, in the order of the layers of transformers.

use super::{
    config::EncodecConfig,
    layers::{
        Elu, SeanetBlock, SeanetConv, SeanetConvTranspose, SeanetLayer, SeanetLstm, Style, elu,
    },
};
use burn::{module::Module, tensor::Tensor};

/// Layers one after the other.
#[derive(Module, Debug)]
pub(super) struct Seanet {
    pub(super) layers: Vec<SeanetLayer>,
}

impl Seanet {
    /// From samples to latents.
    pub(super) fn encoder(style: &Style<'_>) -> Self {
        let config = style.config;
        let first = [config.audio_channels, config.num_filters];
        let mut layers = vec![conv(style, first, config.kernel_size)];
        let mut width = config.num_filters;
        for ratio in config.upsampling_ratios.iter().rev() {
            layers.extend(blocks(style, width));
            layers.push(SeanetLayer::Elu(Elu::new()));
            let down = SeanetConv::new(style, [width, 2 * width], 2 * ratio, *ratio, 1);
            layers.push(SeanetLayer::Conv(down));
            width *= 2;
        }
        layers.push(SeanetLayer::Lstm(SeanetLstm::new(style, width)));
        layers.push(SeanetLayer::Elu(Elu::new()));
        let last = [width, config.hidden_size];
        layers.push(conv(style, last, config.last_kernel_size));
        Self { layers }
    }

    /// From latents to samples.
    pub(super) fn decoder(style: &Style<'_>) -> Self {
        let config = style.config;
        let mut width = widest(config);
        let mut layers = vec![conv(style, [config.hidden_size, width], config.kernel_size)];
        layers.push(SeanetLayer::Lstm(SeanetLstm::new(style, width)));
        for ratio in &config.upsampling_ratios {
            layers.push(SeanetLayer::Elu(Elu::new()));
            let up = SeanetConvTranspose::new(style, [width, width / 2], *ratio);
            layers.push(SeanetLayer::Upsample(up));
            width /= 2;
            layers.extend(blocks(style, width));
        }
        layers.push(SeanetLayer::Elu(Elu::new()));
        let last = [width, config.audio_channels];
        layers.push(conv(style, last, config.last_kernel_size));
        Self { layers }
    }

    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.layers.iter().fold(x, |x, layer| match layer {
            SeanetLayer::Conv(conv) => conv.forward(x),
            SeanetLayer::Upsample(conv) => conv.forward(x),
            SeanetLayer::Block(block) => block.forward(x),
            SeanetLayer::Lstm(layer) => {
                let steps = x.clone().swap_dims(1, 2);
                x + layer.lstm.forward(steps, None).0.swap_dims(1, 2)
            }
            SeanetLayer::Elu(_) => elu(x),
        })
    }

    pub(super) fn fold(self) -> Self {
        let layers = self.layers.into_iter().map(SeanetLayer::fold);
        Self {
            layers: layers.collect(),
        }
    }
}

/// Channels at the lowest rate.
fn widest(config: &EncodecConfig) -> usize {
    config.num_filters << config.upsampling_ratios.len()
}

fn conv(style: &Style<'_>, channels: [usize; 2], kernel: usize) -> SeanetLayer {
    SeanetLayer::Conv(SeanetConv::new(style, channels, kernel, 1, 1))
}

fn blocks(style: &Style<'_>, width: usize) -> impl Iterator<Item = SeanetLayer> {
    let count = style.config.num_residual_layers;
    (0..count).map(move |index| SeanetLayer::Block(SeanetBlock::new(style, width, index)))
}
