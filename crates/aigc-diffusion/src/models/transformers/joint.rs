//! Blocks in which the tokens of an image and of a prompt have their own weights and attend to
//! each other (Esser et al. 2024, <https://arxiv.org/abs/2403.03206>, figure 2).

use super::{SINUSOIDS, patches::modulated_norm, rotary::RotaryTable};
use crate::models::{
    attention::{Attention, AttentionConfig},
    time::TimeEmbedding,
    transformer::FeedForward,
};
use aigc_core::{
    nn::{Activation, Linear, LinearConfig},
    ops,
};
use burn::{
    module::Module,
    tensor::{DType, Device, Tensor},
};

/// Epsilon of the norms without weights.
pub(crate) const EPSILON: f64 = 1e-6;

/// One vector for the time, the guidance scale and the pooled prompt.
#[derive(Module, Debug)]
pub(crate) struct TimeTextEmbedding {
    timestep_embedder: TimeEmbedding,
    guidance_embedder: Option<TimeEmbedding>,
    text_embedder: TimeEmbedding,
}

impl TimeTextEmbedding {
    /// `pooled`: width of the pooled prompt.
    pub(crate) fn new(width: usize, pooled: usize, guidance: bool, device: &Device) -> Self {
        let embedder = |from| TimeEmbedding::new(from, width, Activation::Silu, device);
        Self {
            timestep_embedder: embedder(SINUSOIDS.width),
            guidance_embedder: guidance.then(|| embedder(SINUSOIDS.width)),
            text_embedder: embedder(pooled),
        }
    }

    /// # Shapes
    /// - time and guidance: `[batch]`
    /// - pooled: `[batch, pooled]`
    /// - output: `[batch, width]`, in the type `dtype`
    ///
    /// # Panics
    /// If the network takes a guidance scale and there is none.
    pub(crate) fn forward(
        &self,
        time: Tensor<1>,
        guidance: Option<Tensor<1>>,
        pooled: Tensor<2>,
        dtype: DType,
    ) -> Tensor<2> {
        let encoded = |numbers| ops::cast(SINUSOIDS.of(numbers), dtype);
        let time = self.timestep_embedder.forward(encoded(time));
        let text = self.text_embedder.forward(ops::cast(pooled, dtype));
        match &self.guidance_embedder {
            Some(embedder) => {
                let guidance =
                    guidance.expect("a network that was distilled needs a guidance scale");
                time + embedder.forward(encoded(guidance)) + text
            }
            None => time + text,
        }
    }
}

/// Scales, shifts and gates by the conditions (Peebles & Xie 2023,
/// <https://arxiv.org/abs/2212.09748>, section 3.2).
#[derive(Module, Debug)]
pub(crate) struct Modulation {
    linear: Linear,
}

impl Modulation {
    pub(crate) fn new(width: usize, parts: usize, device: &Device) -> Self {
        Self {
            linear: LinearConfig::new(width, parts * width).init(device),
        }
    }

    /// # Shapes
    /// - conditions: `[batch, width]`, activated
    /// - outputs: `[batch, 1, width]`
    pub(crate) fn parts<const N: usize>(&self, conditions: &Tensor<2>) -> [Tensor<3>; N] {
        let all = self
            .linear
            .forward(conditions.clone())
            .unsqueeze_dim::<3>(1);
        let width = all.dims()[2] / N;
        std::array::from_fn(|i| all.clone().narrow(2, i * width, width))
    }
}

/// A norm whose scale and shift come from the conditions.
pub(crate) fn scaled(x: Tensor<3>, norm: &Modulation, conditions: &Tensor<2>) -> Tensor<3> {
    let [scale, shift] = norm.parts(conditions);
    modulated_norm(x, scale, shift, EPSILON)
}

/// Configuration of a [`JointBlock`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct JointBlockConfig {
    pub(crate) width: usize,
    pub(crate) heads: usize,
    /// Whether queries and keys are normalised.
    pub(crate) qk_norm: bool,
    /// Whether the tokens of the image attend to each other once more (Stable Diffusion 3.5
    /// medium).
    pub(crate) dual_attention: bool,
    /// Whether the tokens of the prompt end here, in the last block.
    pub(crate) context_pre_only: bool,
}

impl JointBlockConfig {
    pub(crate) fn init(self, device: &Device) -> JointBlock {
        let Self {
            width,
            heads,
            qk_norm,
            dual_attention,
            context_pre_only,
        } = self;
        let ff = || FeedForward::new(width, false, Activation::GeluTanh, 0.0, device);
        let own = AttentionConfig {
            qk_norm,
            ..AttentionConfig::new(width, heads)
        };
        let joint = AttentionConfig {
            second: true,
            outputs: [true, !context_pre_only],
            ..own
        };
        JointBlock {
            norm1: Modulation::new(width, if dual_attention { 9 } else { 6 }, device),
            norm1_context: Modulation::new(width, if context_pre_only { 2 } else { 6 }, device),
            attn: joint.init(device),
            attn2: dual_attention.then(|| own.init(device)),
            ff: ff(),
            ff_context: (!context_pre_only).then(ff),
        }
    }
}

/// Attention of the tokens of an image and of a prompt to each other, and a feed-forward layer for
/// each.
#[derive(Module, Debug)]
pub(crate) struct JointBlock {
    norm1: Modulation,
    norm1_context: Modulation,
    attn: Attention,
    attn2: Option<Attention>,
    ff: FeedForward,
    ff_context: Option<FeedForward>,
}

impl JointBlock {
    /// The tokens of the image and of the prompt; in the last block those of the prompt are not
    /// changed.
    ///
    /// # Shapes
    /// - x and first output: `[batch, tokens, width]`
    /// - context and second output: `[batch, others, width]`
    /// - conditions: `[batch, width]`, activated
    pub(crate) fn forward(
        &self,
        x: Tensor<3>,
        context: Tensor<3>,
        conditions: &Tensor<2>,
        rotary: Option<&RotaryTable>,
    ) -> (Tensor<3>, Tensor<3>) {
        let Some(ff_context) = &self.ff_context else {
            let normed = scaled(context.clone(), &self.norm1_context, conditions);
            return (self.image(x, normed, conditions, rotary).0, context);
        };
        let [shift, scale, gate, shift_ff, scale_ff, gate_ff] =
            self.norm1_context.parts(conditions);
        let normed = modulated_norm(context.clone(), scale, shift, EPSILON);
        let (x, attended) = self.image(x, normed, conditions, rotary);
        let context = context + attended * gate;
        let h = ff_context.forward(modulated_norm(context.clone(), scale_ff, shift_ff, EPSILON));
        (x, context + h * gate_ff)
    }

    /// The tokens of the image after the block, and what attention gives for those of the prompt.
    fn image(
        &self,
        x: Tensor<3>,
        context: Tensor<3>,
        conditions: &Tensor<2>,
        rotary: Option<&RotaryTable>,
    ) -> (Tensor<3>, Tensor<3>) {
        let (parts, second) = match &self.attn2 {
            None => (self.norm1.parts::<6>(conditions), None),
            Some(attention) => {
                let [a, b, c, d, e, f, shift, scale, gate] = self.norm1.parts(conditions);
                ([a, b, c, d, e, f], Some((attention, shift, scale, gate)))
            }
        };
        let [shift, scale, gate, shift_ff, scale_ff, gate_ff] = parts;
        let normed = modulated_norm(x.clone(), scale, shift, EPSILON);
        let (attended, context) = self.attn.joint(normed, context, rotary);
        let mut sum = x.clone() + attended * gate;
        if let Some((attention, shift, scale, gate)) = second {
            let normed = modulated_norm(x, scale, shift, EPSILON);
            sum = sum + attention.forward(normed, rotary) * gate;
        }
        let h = self
            .ff
            .forward(modulated_norm(sum.clone(), scale_ff, shift_ff, EPSILON));
        (sum + h * gate_ff, context)
    }
}
