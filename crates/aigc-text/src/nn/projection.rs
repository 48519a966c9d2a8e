//! Linear layers and embeddings with full, quantised or adapted weights.

use aigc_core::{
    nn::{Initializer, Linear, LinearConfig, QuantizedWeight},
    ops::{self, Quantization},
};
use burn::{
    module::{LoraAdapter, Module, Param},
    tensor::{Device, Int, Tensor},
};

/// A full-precision or quantised weight.
#[derive(Module, Debug)]
pub enum Weight {
    /// Full precision.
    Full(Param<Tensor<2>>),
    /// Quantised to 8 or 4 bits.
    Quantized(QuantizedWeight),
}

impl Weight {
    /// Whether the weight is quantised.
    pub fn is_quantized(&self) -> bool {
        matches!(self, Weight::Quantized(_))
    }
}

/// `y = x·W + b`, with `W` as `[in, out]`, plus the product of a low-rank adapter if `W` has one.
///
/// [`save_weights`](aigc_core::weights::save_weights) writes `W` as `[in, out]`, like transformers'
/// `Conv1D` in GPT-2. Most other models of transformers, such as Llama, have linear layers stored
/// as `[out, in]`. Such a model reads them with
/// [`KeyMapping::transpose`](aigc_core::weights::KeyMapping::transpose), sets
/// [`FAN_IN_FAN_OUT`](crate::PretrainedModel::FAN_IN_FAN_OUT) to `false`, and overrides
/// [`save_weights_to`](crate::PretrainedModel::save_weights_to) to write them transposed, with
/// [`save_tensors`](aigc_core::weights::save_tensors).
#[derive(Module, Debug)]
pub struct Projection {
    /// Weight, `[in, out]`.
    pub weight: Weight,
    /// Bias, `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl Projection {
    /// A projection of `[from, to]` features. The weight is drawn by `initializer`; the bias, if
    /// `bias` is set, is zero.
    pub fn new(
        [from, to]: [usize; 2],
        bias: bool,
        initializer: Initializer,
        device: &Device,
    ) -> Self {
        Self {
            weight: Weight::Full(initializer.param([from, to], from, to, device)),
            bias: bias.then(|| Initializer::ZEROS.param([to], from, to, device)),
        }
    }

    /// Applies the layer.
    ///
    /// # Shapes
    /// - x: `[batch, time, in]`
    /// - output: `[batch, time, out]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let bias = self.bias.as_ref().map(Param::val);
        match &self.weight {
            Weight::Full(weight) => {
                // `x·A·B` is cheap; `W + A·B` would allocate a weight in every call.
                let added = weight.adapter().map(|LoraAdapter { a, b, scale }| {
                    ops::linear(
                        ops::linear(x.clone(), a.val(), None) * *scale,
                        b.val(),
                        None,
                    )
                });
                let y = ops::linear(x, weight.base(), bias);
                match added {
                    Some(added) => y + added,
                    None => y,
                }
            }
            Weight::Quantized(weight) => weight.linear(x, bias),
        }
    }

    /// Quantises the weight; an adapter must be merged first.
    pub fn quantize(&mut self, quantization: Quantization) {
        if let Weight::Full(weight) = &self.weight {
            self.weight =
                Weight::Quantized(QuantizedWeight::new(weight.val().transpose(), quantization));
        }
    }
}

/// A table of embeddings, one for each token or position.
#[derive(Module, Debug)]
pub struct Embedding {
    /// Weight, `[count, width]`.
    pub weight: Weight,
}

impl Embedding {
    /// A table of shape `[count, width]`, drawn by `initializer`.
    pub fn new([count, width]: [usize; 2], initializer: Initializer, device: &Device) -> Self {
        Self {
            weight: Weight::Full(initializer.param([count, width], count, width, device)),
        }
    }

    /// The embeddings of `indices`.
    ///
    /// # Shapes
    /// - indices: `[batch, time]`
    /// - output: `[batch, time, width]`
    pub fn forward(&self, indices: Tensor<2, Int>) -> Tensor<3> {
        match &self.weight {
            Weight::Full(weight) => ops::embedding(weight.val(), indices),
            Weight::Quantized(weight) => weight.embedding(indices),
        }
    }

    /// `count` embeddings, beginning with number `first`, `[1, count, width]`.
    pub fn range(&self, first: usize, count: usize) -> Tensor<3> {
        match &self.weight {
            Weight::Full(weight) => weight.val().narrow(0, first, count).unsqueeze(),
            Weight::Quantized(weight) => {
                let indices = first as i64..(first + count) as i64;
                let device = weight.scales.val().device();
                weight.embedding(Tensor::arange(indices, &device).unsqueeze())
            }
        }
    }

    /// Scalar products of `x` with every embedding: the logits of a tied output layer.
    ///
    /// # Shapes
    /// - x: `[batch, time, width]`
    /// - output: `[batch, time, count]`
    pub fn logits(&self, x: Tensor<3>) -> Tensor<3> {
        match &self.weight {
            Weight::Full(weight) => ops::linear(x, weight.val().transpose(), None),
            Weight::Quantized(weight) => weight.linear(x, None),
        }
    }

    /// Quantises the table.
    pub fn quantize(&mut self, quantization: Quantization) {
        if let Weight::Full(weight) = &self.weight {
            self.weight = Weight::Quantized(QuantizedWeight::new(weight.val(), quantization));
        }
    }
}

/// An output layer that is not tied to the embedding; in files `[vocabulary, width]`.
#[derive(Module, Debug)]
pub enum LmHead {
    /// Full precision.
    Full(Linear),
    /// Quantised to 8 or 4 bits.
    Quantized(QuantizedWeight),
}

impl LmHead {
    /// An output layer of `[width, vocab_size]` without bias, drawn by `initializer`.
    pub fn new([width, vocab_size]: [usize; 2], initializer: Initializer, device: &Device) -> Self {
        let head = LinearConfig::new(width, vocab_size)
            .with_bias(false)
            .with_initializer(initializer);
        Self::Full(head.init(device))
    }

    /// Applies the layer.
    ///
    /// # Shapes
    /// - x: `[batch, time, width]`
    /// - output: `[batch, time, vocabulary]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match self {
            LmHead::Full(head) => head.forward(x),
            LmHead::Quantized(head) => head.linear(x, None),
        }
    }

    /// Quantises the weight.
    pub fn quantize(&mut self, quantization: Quantization) {
        if let LmHead::Full(head) = self {
            let weight = head.weight.val().transpose();
            *self = LmHead::Quantized(QuantizedWeight::new(weight, quantization));
        }
    }
}
