//! The stochastic predictor of durations: a flow whose density is trained by a variational bound.

use super::{VitsConfig, coupling::halves, dilated::DilatedConvs, spline::Spline};
use aigc_core::{
    nn::{Activation, Conv1d, Conv1dConfig, Initializer},
    ops,
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor},
};

/// Durations are at least this much above the uniform noise that is subtracted from them.
const LEAST_DURATION: f64 = 1e-5;

/// Draws durations of tokens (Kim et al. 2021, §2.2.2). No gradients flow to the hidden states.
#[derive(Module, Debug)]
pub(super) struct StochasticDurationPredictor {
    conv_pre: Conv1d,
    conv_proj: Conv1d,
    conv_dds: DilatedConvs,
    cond: Option<Conv1d>,
    flows: Vec<DurationFlow>,
    post_conv_pre: Conv1d,
    post_conv_proj: Conv1d,
    post_conv_dds: DilatedConvs,
    post_flows: Vec<DurationFlow>,
}

#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // A model has a handful.
enum DurationFlow {
    Affine(ElementwiseAffine),
    Spline(SplineCoupling),
}

impl StochasticDurationPredictor {
    pub(super) fn new(config: &VitsConfig, device: &Device) -> Self {
        let (hidden, condition) = (config.hidden_size, config.speaker_embedding_size);
        let conv = |channels: usize| Conv1dConfig::new([channels, hidden], 1).init(device);
        let flows = || {
            let affine = ElementwiseAffine::new(config.depth_separable_channels, device);
            let splines = (0..config.duration_predictor_num_flows)
                .map(|_| DurationFlow::Spline(SplineCoupling::new(config, device)));
            std::iter::once(DurationFlow::Affine(affine))
                .chain(splines)
                .collect()
        };
        Self {
            conv_pre: conv(hidden),
            conv_proj: conv(hidden),
            conv_dds: DilatedConvs::new(config, device),
            cond: (condition > 0).then(|| conv(condition)),
            flows: flows(),
            post_conv_pre: conv(1),
            post_conv_proj: conv(hidden),
            post_conv_dds: DilatedConvs::new(config, device),
            post_flows: flows(),
        }
    }

    fn context(
        &self,
        hidden: Tensor<3>,
        mask: &Tensor<3>,
        condition: Option<&Tensor<3>>,
    ) -> Tensor<3> {
        let mut x = self.conv_pre.forward(hidden.detach());
        if let (Some(cond), Some(condition)) = (&self.cond, condition) {
            x = x + cond.forward(condition.clone().detach());
        }
        self.conv_proj.forward(self.conv_dds.forward(x, mask, None)) * mask.clone()
    }

    /// Logarithms of the durations that noise stands for.
    ///
    /// # Shapes
    /// - hidden: `[batch, hidden, tokens]`, mask: `[batch, 1, tokens]`
    /// - noise: `[batch, channels, tokens]`
    /// - output: `[batch, channels / 2, tokens]`
    pub(super) fn draw(
        &self,
        hidden: Tensor<3>,
        mask: &Tensor<3>,
        condition: Option<&Tensor<3>>,
        noise: Tensor<3>,
    ) -> Tensor<3> {
        let context = self.context(hidden, mask, condition);
        // The first spline changes only the half that is thrown away in the end, so it is left out.
        let used = self
            .flows
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != 1);
        let latents = used.rev().fold(noise, |x, (_, flow)| {
            flow.inverse(x.flip([1]), mask, &context)
        });
        halves(latents)[0].clone()
    }

    /// The bound on `−log p(durations)` in nats for a draw of noise, `[batch]`, summed over tokens.
    ///
    /// # Shapes
    /// - durations: `[batch, 1, tokens]`, noise: `[batch, 2, tokens]`
    pub(super) fn negative_log_likelihood(
        &self,
        hidden: Tensor<3>,
        mask: &Tensor<3>,
        condition: Option<&Tensor<3>>,
        durations: Tensor<3>,
        noise: Tensor<3>,
    ) -> Tensor<1> {
        let context = self.context(hidden, mask, condition);
        let x = self.post_conv_pre.forward(durations.clone());
        let x = self.post_conv_dds.forward(x, mask, None);
        let post_context = context.clone() + self.post_conv_proj.forward(x) * mask.clone();

        let noise = noise * mask.clone();
        let log_normal = |x: Tensor<3>| {
            let terms = x.clone() * x + (2.0 * std::f64::consts::PI).ln();
            sum(terms * mask.clone()) * -0.5
        };
        let (z, posterior_volume) = run(&self.post_flows, noise.clone(), mask, &post_context);
        let [offset, extra] = halves(z);
        // log σ(x) + log σ(−x), the slope of the sigmoid.
        let softplus = |x: Tensor<3>| Activation::Softplus.forward(x);
        let slope = (softplus(-offset.clone()) + softplus(offset.clone())) * -1.0;
        let posterior_volume = posterior_volume + sum(slope * mask.clone());
        let log_q = log_normal(noise) - posterior_volume;

        let rest = (durations - Activation::Sigmoid.forward(offset)) * mask.clone();
        let log_rest = rest.clamp_min(LEAST_DURATION).log() * mask.clone();
        let log_volume = sum(log_rest.clone()) * -1.0;
        let start = Tensor::cat(vec![log_rest, extra], 1);
        let (z, volume) = run(&self.flows, start, mask, &context);
        log_q - log_normal(z) - log_volume - volume
    }
}

/// Sums over all axes but the first.
fn sum(x: Tensor<3>) -> Tensor<1> {
    let [batch, channels, time] = x.dims();
    let rows: Tensor<2> = x.reshape([batch, channels * time]);
    rows.sum_dim(1).reshape([batch])
}

/// What flows make of `x`, and the logarithm of the change of volume, `[batch]`. The order of the
/// channels is reversed after each.
fn run(
    flows: &[DurationFlow],
    x: Tensor<3>,
    mask: &Tensor<3>,
    context: &Tensor<3>,
) -> (Tensor<3>, Tensor<1>) {
    let none = Tensor::<1>::zeros([x.dims()[0]], &x.device());
    flows.iter().fold((x, none), |(x, volume), flow| {
        let (y, more) = flow.forward(x, mask, context);
        (y.flip([1]), volume + more)
    })
}

impl DurationFlow {
    fn forward(
        &self,
        x: Tensor<3>,
        mask: &Tensor<3>,
        context: &Tensor<3>,
    ) -> (Tensor<3>, Tensor<1>) {
        match self {
            Self::Affine(flow) => flow.forward(x, mask),
            Self::Spline(flow) => {
                let (y, log_slope) = flow.apply(x, mask, context, false);
                (y, sum(log_slope * mask.clone()))
            }
        }
    }

    fn inverse(&self, x: Tensor<3>, mask: &Tensor<3>, context: &Tensor<3>) -> Tensor<3> {
        match self {
            Self::Affine(flow) => flow.inverse(x, mask),
            Self::Spline(flow) => flow.apply(x, mask, context, true).0,
        }
    }
}

/// A scale and a shift of every channel.
#[derive(Module, Debug)]
struct ElementwiseAffine {
    translate: Param<Tensor<2>>,
    log_scale: Param<Tensor<2>>,
}

impl ElementwiseAffine {
    fn new(channels: usize, device: &Device) -> Self {
        let zeros = || Initializer::ZEROS.param([channels, 1], channels, channels, device);
        Self {
            translate: zeros(),
            log_scale: zeros(),
        }
    }

    /// Shift and logarithm of the scale, `[1, channels, 1]`.
    fn parameters(&self, like: &Tensor<3>) -> [Tensor<3>; 2] {
        [&self.translate, &self.log_scale]
            .map(|param| ops::cast(param.val(), like.dtype()).unsqueeze_dim(0))
    }

    fn forward(&self, x: Tensor<3>, mask: &Tensor<3>) -> (Tensor<3>, Tensor<1>) {
        let [shift, log_scale] = self.parameters(&x);
        let y = (shift + log_scale.clone().exp() * x) * mask.clone();
        (y, sum(log_scale * mask.clone()))
    }

    fn inverse(&self, x: Tensor<3>, mask: &Tensor<3>) -> Tensor<3> {
        let [shift, log_scale] = self.parameters(&x);
        (x - shift) * (-log_scale).exp() * mask.clone()
    }
}

/// A coupling layer that maps one half of the channels by splines, which follow from the other.
#[derive(Module, Debug)]
struct SplineCoupling {
    conv_pre: Conv1d,
    conv_dds: DilatedConvs,
    conv_proj: Conv1d,
    bins: usize,
    bound: f64,
}

impl SplineCoupling {
    fn new(config: &VitsConfig, device: &Device) -> Self {
        let (half, hidden) = (config.depth_separable_channels / 2, config.hidden_size);
        let bins = config.duration_predictor_flow_bins;
        Self {
            conv_pre: Conv1dConfig::new([half, hidden], 1).init(device),
            conv_dds: DilatedConvs::new(config, device),
            conv_proj: Conv1dConfig::new([hidden, half * (3 * bins - 1)], 1)
                .with_initializer(Initializer::ZEROS)
                .init(device),
            bins,
            bound: config.duration_predictor_tail_bound,
        }
    }

    /// The image of `x`, and the logarithms of the slopes of its second half. Without a change of
    /// order, the first half is kept.
    fn apply(
        &self,
        x: Tensor<3>,
        mask: &Tensor<3>,
        context: &Tensor<3>,
        inverse: bool,
    ) -> (Tensor<3>, Tensor<3>) {
        let [kept, mapped] = halves(x);
        let ([batch, half, time], bins) = (kept.dims(), self.bins);
        let hidden = self.conv_pre.forward(kept.clone());
        let width = hidden.dims()[1];
        let hidden = self.conv_dds.forward(hidden, mask, Some(context));
        let parameters = self.conv_proj.forward(hidden) * mask.clone();
        let parameters: Tensor<2> = parameters
            .reshape([batch * half, 3 * bins - 1, time])
            .swap_dims(1, 2)
            .reshape([batch * half * time, 3 * bins - 1]);
        let scale = (width as f64).powf(-0.5);
        let spline = Spline {
            widths: parameters.clone().narrow(1, 0, bins) * scale,
            heights: parameters.clone().narrow(1, bins, bins) * scale,
            slopes: parameters.narrow(1, 2 * bins, bins - 1),
            bound: self.bound,
        };
        let values: Tensor<2> = mapped.reshape([batch * half * time, 1]);
        let [mapped, log_slope] = match inverse {
            true => spline.inverse(values),
            false => spline.forward(values),
        };
        let back = |x: Tensor<2>| x.reshape([batch, half, time]);
        let y = Tensor::cat(vec![kept, back(mapped)], 1) * mask.clone();
        (y, back(log_slope))
    }
}
