//! Blocks of convolutional networks over maps: U-nets and autoencoders consist of them. The fields
//! are named as in diffusers, and so are the weights in files.

use crate::{
    nn::{
        Activation, Conv2d, Conv2dConfig, Dropout, DropoutConfig, GroupNorm, GroupNormConfig,
        Linear, LinearConfig,
    },
    ops,
};
use burn::{
    config::Config,
    module::Module,
    tensor::{Device, Tensor},
};

/// Configuration to create a [`ResnetBlock2d`].
#[derive(Config, Debug)]
pub struct ResnetBlock2dConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Groups of the norms; they must divide both numbers of channels.
    pub num_groups: usize,
    /// Added to the variance in the norms for numerical stability.
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Activation after the norms.
    #[config(default = "Activation::Silu")]
    pub activation: Activation,
    /// Dropout probability before the second convolution.
    #[config(default = 0.0)]
    pub dropout: f64,
    /// Width of the time embedding of a block that has one.
    #[config(default = "None")]
    pub time_embedding_dim: Option<usize>,
    /// Whether the time scales and shifts the output of the second norm (Dhariwal and Nichol 2021,
    /// <https://arxiv.org/abs/2105.05233>, section 3), instead of being added before it.
    #[config(default = false)]
    pub scale_shift: bool,
    /// Divisor of the sum with the skip.
    #[config(default = 1.0)]
    pub output_scale_factor: f64,
}

/// Two convolutions around a skip, with the time embedding between them if there is one (Ho et al.
/// 2020, <https://arxiv.org/abs/2006.11239>, appendix B).
#[derive(Module, Debug)]
pub struct ResnetBlock2d {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    dropout: Dropout,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    #[module(skip)]
    activation: Activation,
    scale_shift: bool,
    scale: f64,
}

fn conv3([from, to]: [usize; 2], device: &Device) -> Conv2d {
    Conv2dConfig::new([from, to], 3)
        .with_padding(1)
        .init(device)
}

impl ResnetBlock2dConfig {
    /// Creates the block on `device`.
    ///
    /// # Panics
    /// If `num_groups` does not divide the channels, or `dropout` is not a probability.
    pub fn init(&self, device: &Device) -> ResnetBlock2d {
        let [from, to] = self.channels;
        let norm = |channels| {
            GroupNormConfig::new(self.num_groups, channels)
                .with_epsilon(self.epsilon)
                .init(device)
        };
        let width = if self.scale_shift { 2 * to } else { to };
        ResnetBlock2d {
            norm1: norm(from),
            conv1: conv3([from, to], device),
            time_emb_proj: self
                .time_embedding_dim
                .map(|time| LinearConfig::new(time, width).init(device)),
            norm2: norm(to),
            dropout: DropoutConfig::new(self.dropout).init(),
            conv2: conv3([to, to], device),
            conv_shortcut: (from != to).then(|| Conv2dConfig::new([from, to], 1).init(device)),
            activation: self.activation,
            scale_shift: self.scale_shift,
            scale: self.output_scale_factor,
        }
    }
}

impl ResnetBlock2d {
    /// Applies the block. A block without a time embedding ignores `time`.
    ///
    /// # Shapes
    /// - x: `[batch, channels_in, height, width]`
    /// - time: `[batch, time_embedding_dim]`, activated
    /// - output: `[batch, channels_out, height, width]`
    ///
    /// # Panics
    /// If the shapes do not fit, or the time embedding is missing.
    pub fn forward(&self, x: Tensor<4>, time: Option<&Tensor<2>>) -> Tensor<4> {
        let h = self.conv1.forward(
            self.norm1
                .forward_with_activation(x.clone(), self.activation),
        );
        let embedding = self.time_emb_proj.as_ref().map(|projection| {
            let time = time.expect("a block with a time embedding needs the time");
            let embedding = projection.forward(time.clone());
            let [batch, width] = embedding.dims();
            embedding.reshape([batch, width, 1, 1])
        });
        let h = match embedding {
            Some(embedding) if self.scale_shift => {
                let width = embedding.dims()[1] / 2;
                let (scale, shift) = (
                    embedding.clone().narrow(1, 0, width),
                    embedding.narrow(1, width, width),
                );
                self.activation
                    .forward(self.norm2.forward(h) * (scale + 1.0) + shift)
            }
            Some(embedding) => self
                .norm2
                .forward_with_activation(h + embedding, self.activation),
            None => self.norm2.forward_with_activation(h, self.activation),
        };
        let h = self.conv2.forward(self.dropout.forward(h));
        let x = match &self.conv_shortcut {
            Some(shortcut) => shortcut.forward(x),
            None => x,
        };
        divided(x + h, self.scale)
    }
}

fn divided(x: Tensor<4>, by: f64) -> Tensor<4> {
    if by == 1.0 { x } else { x / by }
}

/// Configuration to create a [`SpatialAttention`].
#[derive(Config, Debug)]
pub struct SpatialAttentionConfig {
    /// Number of channels.
    pub channels: usize,
    /// Groups of the norm before the attention; `None` for no norm.
    #[config(default = "None")]
    pub num_groups: Option<usize>,
    /// Added to the variance in the norm for numerical stability.
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Number of heads; it must divide the channels.
    #[config(default = 1)]
    pub heads: usize,
    /// Divisor of the sum with the skip.
    #[config(default = 1.0)]
    pub output_scale_factor: f64,
}

/// Self-attention between the pixels of a map, around a skip.
#[derive(Module, Debug)]
pub struct SpatialAttention {
    group_norm: Option<GroupNorm>,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Vec<Linear>,
    heads: usize,
    scale: f64,
}

impl SpatialAttentionConfig {
    /// Creates the block on `device`.
    ///
    /// # Panics
    /// If `num_groups` or `heads` do not divide the channels.
    pub fn init(&self, device: &Device) -> SpatialAttention {
        let channels = self.channels;
        assert!(
            self.heads > 0 && channels.is_multiple_of(self.heads),
            "{} heads of {channels} channels",
            self.heads
        );
        let linear = || LinearConfig::new(channels, channels).init(device);
        SpatialAttention {
            group_norm: self.num_groups.map(|groups| {
                GroupNormConfig::new(groups, channels)
                    .with_epsilon(self.epsilon)
                    .init(device)
            }),
            to_q: linear(),
            to_k: linear(),
            to_v: linear(),
            to_out: vec![linear()],
            heads: self.heads,
            scale: self.output_scale_factor,
        }
    }
}

impl SpatialAttention {
    /// Applies the block.
    ///
    /// # Shapes
    /// - x and output: `[batch, channels, height, width]`
    ///
    /// # Panics
    /// If `x` does not have `channels` channels.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, channels, height, width] = x.dims();
        let normed = match &self.group_norm {
            Some(norm) => norm.forward(x.clone()),
            None => x.clone(),
        };
        let tokens = normed
            .reshape([batch, channels, height * width])
            .swap_dims(1, 2);
        // One product instead of three.
        let layers = [&self.to_q, &self.to_k, &self.to_v];
        let dtype = x.dtype();
        let weights = layers.map(|layer| ops::cast(layer.weight.val(), dtype));
        let biases = layers.map(|layer| {
            let bias = layer.bias.as_ref().expect("built with a bias");
            ops::cast(bias.val(), dtype)
        });
        let (weight, bias) = (
            Tensor::cat(weights.to_vec(), 1),
            Tensor::cat(biases.to_vec(), 0),
        );
        let attended =
            ops::self_attention(ops::linear(tokens, weight, Some(bias)), self.heads, false);
        let h = self.to_out[0].forward(attended).swap_dims(1, 2);
        let h = ops::contiguous(h).reshape([batch, channels, height, width]);
        divided(x + h, self.scale)
    }
}

/// Configuration to create a [`Downsample2d`].
#[derive(Config, Debug)]
pub struct Downsample2dConfig {
    /// Number of channels.
    pub channels: usize,
    /// Zeros on every side; with 0, one row and one column of zeros follow the last ones.
    #[config(default = 1)]
    pub padding: usize,
}

/// A convolution with stride 2, which halves the sides.
#[derive(Module, Debug)]
pub struct Downsample2d {
    conv: Conv2d,
    /// Zeros follow the last row and column only.
    one_sided: bool,
}

impl Downsample2dConfig {
    /// Creates the layer on `device`.
    pub fn init(&self, device: &Device) -> Downsample2d {
        let conv = Conv2dConfig::new([self.channels, self.channels], 3)
            .with_stride(2)
            .with_padding(self.padding)
            .init(device);
        Downsample2d {
            conv,
            one_sided: self.padding == 0,
        }
    }
}

impl Downsample2d {
    /// Applies the layer.
    ///
    /// # Shapes
    /// - x: `[batch, channels, height, width]`
    /// - output: `[batch, channels, height / 2, width / 2]`
    ///
    /// # Panics
    /// If `x` does not have `channels` channels.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = if self.one_sided {
            x.pad((0, 1, 0, 1), 0.0)
        } else {
            x
        };
        self.conv.forward(x)
    }
}

/// Configuration to create an [`Upsample2d`].
#[derive(Config, Debug)]
pub struct Upsample2dConfig {
    /// Number of channels.
    pub channels: usize,
}

/// Repeats every pixel twice in both directions, then applies a convolution.
#[derive(Module, Debug)]
pub struct Upsample2d {
    conv: Conv2d,
}

impl Upsample2dConfig {
    /// Creates the layer on `device`.
    pub fn init(&self, device: &Device) -> Upsample2d {
        Upsample2d {
            conv: conv3([self.channels, self.channels], device),
        }
    }
}

impl Upsample2d {
    /// Applies the layer.
    ///
    /// # Shapes
    /// - x: `[batch, channels, height, width]`
    /// - output: `[batch, channels, 2·height, 2·width]`
    ///
    /// # Panics
    /// If `x` does not have `channels` channels.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv.forward(ops::upsample_nearest2d(x, 2))
    }

    /// [`forward`](Self::forward) to other sides than twice those of `x`: to the sides of a map
    /// that were odd, and were rounded when they were halved.
    ///
    /// # Shapes
    /// - x: `[batch, channels, height, width]`
    /// - output: `[batch, channels, sides[0], sides[1]]`
    ///
    /// # Panics
    /// If `x` does not have `channels` channels.
    pub fn forward_to(&self, x: Tensor<4>, sides: [usize; 2]) -> Tensor<4> {
        let [.., height, width] = x.dims();
        if sides == [2 * height, 2 * width] {
            return self.forward(x);
        }
        self.conv.forward(ops::resize_nearest(x, sides))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        params::{ParamVisitor, visit_params},
        rng::{InitWeights, Rng},
        testing::{assert_close, values},
    };
    use burn::{module::Param, tensor::TensorData};

    /// Paths of all weights.
    struct Paths(Vec<String>);

    impl ParamVisitor for Paths {
        fn visit<const D: usize>(&mut self, path: &str, _param: &Param<Tensor<D>>) {
            self.0.push(path.to_owned());
        }
    }

    fn paths<M: Module>(model: &M) -> Vec<String> {
        let mut paths = Paths(vec![]);
        visit_params(model, &mut paths);
        paths.0
    }

    fn zeros<const D: usize>(shape: [usize; D]) -> Param<Tensor<D>> {
        Param::from_tensor(Tensor::zeros(shape, &Device::flex()))
    }

    /// A kernel of one channel that copies the pixel at this row and column of its window.
    fn copies(row: usize, column: usize) -> Param<Tensor<4>> {
        let mut kernel = vec![0.0f32; 9];
        kernel[3 * row + column] = 1.0;
        let kernel = TensorData::new(kernel, [1, 1, 3, 3]);
        Param::from_tensor(Tensor::from_data(kernel, &Device::flex()))
    }

    fn image(side: usize) -> Tensor<4> {
        let pixels: Vec<f32> = (1..=side * side).map(|i| i as f32).collect();
        Tensor::from_data(TensorData::new(pixels, [1, 1, side, side]), &Device::flex())
    }

    #[test]
    fn weights_have_the_names_of_diffusers() {
        let device = Device::flex();
        let block = |time: Option<usize>, channels| {
            let config = ResnetBlock2dConfig::new(channels, 2).with_time_embedding_dim(time);
            paths(&config.init(&device)).join(" ")
        };
        assert_eq!(
            block(Some(3), [4, 6]),
            "norm1.gamma norm1.beta conv1.weight conv1.bias time_emb_proj.weight \
             time_emb_proj.bias norm2.gamma norm2.beta conv2.weight conv2.bias \
             conv_shortcut.weight conv_shortcut.bias"
        );
        assert_eq!(
            block(None, [4, 4]),
            "norm1.gamma norm1.beta conv1.weight conv1.bias norm2.gamma norm2.beta conv2.weight \
             conv2.bias"
        );
        let attention = SpatialAttentionConfig::new(4)
            .with_num_groups(Some(2))
            .init(&device);
        assert_eq!(
            paths(&attention).join(" "),
            "group_norm.gamma group_norm.beta to_q.weight to_q.bias to_k.weight to_k.bias \
             to_v.weight to_v.bias to_out.0.weight to_out.0.bias"
        );
        let down = Downsample2dConfig::new(2).init(&device);
        assert_eq!(paths(&down), ["conv.weight", "conv.bias"]);
    }

    /// Without its second convolution the block is its skip.
    #[test]
    fn resnet_block_adds_to_its_skip() {
        let device = Device::flex();
        let mut block = ResnetBlock2dConfig::new([4, 4], 2)
            .with_output_scale_factor(2.0)
            .init(&device)
            .init_weights(0);
        let x: Tensor<4> = Rng::new(1).normal([2, 4, 3, 3], &device);
        assert_ne!(
            values(block.forward(x.clone(), None)),
            values(x.clone() / 2.0)
        );
        block.conv2.weight = zeros([4, 4, 3, 3]);
        block.conv2.bias = Some(zeros([4]));
        assert_eq!(values(block.forward(x.clone(), None)), values(x / 2.0));
    }

    /// Adding the same number to all channels before a norm of one group has no effect; scaling
    /// its output does.
    #[test]
    fn time_enters_before_the_norm_or_scales_after_it() {
        let device = Device::flex();
        let x: Tensor<4> = Rng::new(1).normal([1, 4, 3, 3], &device);
        let time: Tensor<2> = Tensor::from_floats([[1.0]], &device);
        for (scale_shift, width) in [(false, 4), (true, 8)] {
            let mut block = ResnetBlock2dConfig::new([4, 4], 1)
                .with_time_embedding_dim(Some(1))
                .with_scale_shift(scale_shift)
                .init(&device)
                .init_weights(0);
            let projection = block.time_emb_proj.as_mut().unwrap();
            projection.weight = Param::from_tensor(Tensor::ones([1, width], &device));
            projection.bias = Some(zeros([width]));
            let with = values(block.forward(x.clone(), Some(&time)));
            let without = values(block.forward(x.clone(), Some(&time.zeros_like())));
            let apart = with.iter().zip(&without).map(|(a, b)| (a - b).abs());
            let apart = apart.fold(0.0, f32::max);
            assert_eq!(apart > 1e-3, scale_shift, "{scale_shift}: {apart}");
        }
    }

    /// With queries of zero, each pixel attends to all pixels alike.
    #[test]
    fn attention_without_queries_is_a_mean() {
        let device = Device::flex();
        for heads in [1, 2] {
            let mut block = SpatialAttentionConfig::new(4)
                .with_heads(heads)
                .init(&device)
                .init_weights(2);
            block.to_q.weight = zeros([4, 4]);
            block.to_q.bias = Some(zeros([4]));
            let x: Tensor<4> = Rng::new(1).normal([2, 4, 3, 2], &device);
            let mean = x.clone().flatten::<3>(2, 3).mean_dim(2).squeeze_dim::<2>(2);
            let added = block.to_out[0].forward(block.to_v.forward(mean));
            let expected = x.clone() + added.reshape([2, 4, 1, 1]);
            assert_close(&values(block.forward(x)), &values(expected), 1e-5);
        }
    }

    #[test]
    fn downsample_pads_after_the_last_row_and_column() {
        let mut down = Downsample2dConfig::new(1)
            .with_padding(0)
            .init(&Device::flex());
        down.conv.bias = Some(zeros([1]));
        for ((row, column), expected) in [
            ((0, 0), [1.0, 3.0, 9.0, 11.0]),
            ((1, 1), [6.0, 8.0, 14.0, 16.0]),
            ((2, 2), [11.0, 0.0, 0.0, 0.0]),
        ] {
            down.conv.weight = copies(row, column);
            assert_eq!(values(down.forward(image(4))), expected, "{row} {column}");
        }
        // Zeros on all sides.
        let mut down = Downsample2dConfig::new(1).init(&Device::flex());
        down.conv.bias = Some(zeros([1]));
        down.conv.weight = copies(0, 0);
        assert_eq!(values(down.forward(image(4))), [0.0, 0.0, 0.0, 6.0]);
    }

    #[test]
    fn upsample_repeats_pixels() {
        let mut up = Upsample2dConfig::new(1).init(&Device::flex());
        up.conv.bias = Some(zeros([1]));
        up.conv.weight = copies(1, 1);
        let expected = [
            [1.0, 1.0, 2.0, 2.0],
            [1.0, 1.0, 2.0, 2.0],
            [3.0, 3.0, 4.0, 4.0],
            [3.0, 3.0, 4.0, 4.0],
        ];
        assert_close(&values(up.forward(image(2))), &expected.concat(), 1e-5);
        assert_close(
            &values(up.forward_to(image(2), [4, 4])),
            &expected.concat(),
            1e-5,
        );
        let odd = [
            [1.0, 1.0, 2.0],
            [1.0, 1.0, 2.0],
            [3.0, 3.0, 4.0],
            [3.0, 3.0, 4.0],
        ];
        assert_close(
            &values(up.forward_to(image(2), [4, 3])),
            &odd.concat(),
            1e-5,
        );
    }
}
