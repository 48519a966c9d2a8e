//! Towards what is asked for.
//!
//! Whatever leads a sample changes what the network seems to have said, and no scheduler knows of it: [`Guidance`] by two answers
//! of the network, with the class and without; a [`Guide`] by the gradient of `ln p(y | x)`.

use crate::{denoiser::Denoiser, plan::Call};
use aigc_core::{Error, Result};
use burn::tensor::Tensor;
use std::{cell::OnceCell, ops::Range};

/// Classifier-free guidance (Ho & Salimans 2022, <https://arxiv.org/abs/2207.12598>): away from what the network says without
/// a class, `out = none + scale·(class − none)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guidance {
    /// 1 is none; more is clearer and less varied. (Ho & Salimans's `w` is one less.)
    pub scale: f64,
    /// How far each sample's standard deviation goes back to that of the unguided answer (Lin et al. 2024,
    /// <https://arxiv.org/abs/2305.08891>, section 3.4).
    pub rescale: f64,
    /// Guidance only where `σ/α` lies between these (Kynkäänniemi et al. 2024, <https://arxiv.org/abs/2404.07724>).
    pub interval: Option<(f64, f64)>,
}

impl Guidance {
    /// By this scale, at every step.
    pub const fn new(scale: f64) -> Self {
        Self { scale, rescale: 0.0, interval: None }
    }

    /// # Errors
    /// [`Error::Config`] names a field that is out of range.
    pub fn validate(&self) -> Result<()> {
        if !(self.scale >= 0.0 && self.scale.is_finite()) {
            return Err(Error::config("guidance.scale", self.scale, "0 or more"));
        }
        if !(0.0..=1.0).contains(&self.rescale) {
            return Err(Error::config("guidance.rescale", self.rescale, "0 to 1"));
        }
        match self.interval {
            Some((low, high)) if low.is_nan() || high.is_nan() || low > high => {
                Err(Error::config("guidance.interval", format!("{low} to {high}"), "from less to more"))
            }
            _ => Ok(()),
        }
    }

    /// Whether it changes what is said at this call.
    pub(crate) fn acts(&self, call: &Call) -> bool {
        let ratio = call.level.sigma / call.level.alpha;
        let within = self.interval.is_none_or(|(low, high)| low <= ratio && ratio <= high);
        self.scale != 1.0 && within
    }

    /// # Shapes
    /// - class, none and output: `[batch, channels, height, width]`, what the network says with the class and without
    pub fn combine(&self, class: Tensor<4>, none: Tensor<4>) -> Tensor<4> {
        let guided = none.clone() + (class.clone() - none) * self.scale;
        if self.rescale == 0.0 {
            return guided;
        }
        let deviation = |x: &Tensor<4>| {
            let flat = x.clone().flatten::<2>(1, 3);
            let centred = flat.clone() - flat.mean_dim(1);
            (centred.clone() * centred).mean_dim(1).sqrt().unsqueeze_dims::<4>(&[-1, -1])
        };
        let back = deviation(&class) / deviation(&guided).clamp_min(1e-12);
        guided.clone() * (back * self.rescale + (1.0 - self.rescale))
    }
}

/// What is known of the image, as a likelihood.
pub trait Guide: std::fmt::Debug {
    /// `ln p(y | x)` of each sample of the view, up to what does not depend on it, added up: `[1]`, on the view's graph. Or
    /// whatever has the same gradient.
    ///
    /// # Errors
    /// Whatever keeps it from being computed; sampling ends with it.
    fn log_likelihood(&self, view: &View<'_>) -> Result<Tensor<1>>;
}

/// Samples on their way, as a [`Guide`] sees them: on an autodiff device.
pub struct View<'a> {
    x: Tensor<4>,
    call: &'a Call,
    images: Range<usize>,
    ask: &'a dyn Fn(&Tensor<4>) -> (Tensor<4>, Tensor<4>),
    answer: OnceCell<(Tensor<4>, Tensor<4>)>,
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("call", self.call).field("x", &self.x.dims()).finish_non_exhaustive()
    }
}

impl View<'_> {
    /// The noisy samples.
    pub fn x(&self) -> Tensor<4> {
        self.x.clone()
    }

    /// The clean samples that the network predicts, `E[x₀ | x]`. Asking for them makes the gradient go through the network.
    pub fn x0(&self) -> Tensor<4> {
        self.answer().1.clone()
    }

    /// Where in sampling: the time that the network is told, how noisy the samples are.
    pub fn call(&self) -> &Call {
        self.call
    }

    /// Which of all the images that were asked for these are.
    pub fn images(&self) -> Range<usize> {
        self.images.clone()
    }

    fn answer(&self) -> &(Tensor<4>, Tensor<4>) {
        self.answer.get_or_init(|| (self.ask)(&self.x))
    }
}

/// What the network says of `x`, moved so that the clean sample is `x₀ + σ²/α · ∇ ln p(y | x)`: the score of `p(x | y)` is that
/// of `p(x)` and this gradient.
///
/// `ask` gives output and clean sample of `x` as the plan has it.
pub(crate) fn led(
    guide: &dyn Guide,
    call: &Call,
    images: Range<usize>,
    x: &Tensor<4>,
    ask_live: &dyn Fn(&Tensor<4>) -> (Tensor<4>, Tensor<4>),
    ask: impl FnOnce() -> Tensor<4>,
) -> Result<Tensor<4>> {
    let leaf = x.clone().autodiff().require_grad();
    let view = View { x: leaf.clone(), call, images, ask: ask_live, answer: OnceCell::new() };
    let log_likelihood = guide.log_likelihood(&view)?;
    let output = match view.answer.into_inner() {
        Some((output, _)) => output.inner(),
        None => ask(),
    };
    if !log_likelihood.is_tracked() {
        return Err(Error::config("guide", "a constant", "something that depends on the samples"));
    }
    let Some(gradient) = leaf.grad(&log_likelihood.backward()) else {
        return Err(Error::config("guide", "a constant", "something that depends on the samples"));
    };
    let weight = call.level.sigma.powi(2) / call.level.alpha / call.reading.x0.1;
    let [_, channels, ..] = x.dims();
    let shift = gradient * weight;
    // A variance in the channels behind stays as it is.
    Ok(match output.dims()[1] - channels {
        0 => output + shift,
        more => Tensor::cat(vec![output.clone().narrow(1, 0, channels) + shift, output.narrow(1, channels, more)], 1),
    })
}

/// Says of noisy samples which class they are of.
pub trait NoisyClassifier: std::fmt::Debug {
    /// # Shapes
    /// - x: `[batch, channels, height, width]`, as noisy as it is at this time
    /// - time: `[batch]`, as the denoiser is told it
    /// - output: logits, `[batch, classes]`
    ///
    /// # Panics
    /// If the shapes do not fit.
    fn logits(&self, x: Tensor<4>, time: Tensor<1>) -> Tensor<2>;
}

/// Classifier guidance (Dhariwal & Nichol 2021, <https://arxiv.org/abs/2105.05233>, section 4): up the gradient of a class's
/// probability by a classifier of noisy samples. The classifier has to be on the sampler's device, with autodiff.
#[derive(Clone, Debug)]
pub struct ClassifierGuide<C> {
    classifier: C,
    class: u32,
    scale: f64,
}

impl<C: NoisyClassifier> ClassifierGuide<C> {
    /// Towards `class`, by `scale` times the gradient.
    ///
    /// # Errors
    /// [`Error::Config`] unless the scale is finite.
    pub fn new(classifier: C, class: u32, scale: f64) -> Result<Self> {
        if !scale.is_finite() {
            return Err(Error::config("scale", scale, "a finite number"));
        }
        Ok(Self { classifier, class, scale })
    }
}

impl<C: NoisyClassifier> Guide for ClassifierGuide<C> {
    fn log_likelihood(&self, view: &View<'_>) -> Result<Tensor<1>> {
        let x = view.x();
        let (batch, device) = (x.dims()[0], x.device());
        let logits = self.classifier.logits(x * view.call().input, Tensor::full([batch], view.call().time, &device));
        let classes = logits.dims()[1];
        if self.class as usize >= classes {
            return Err(Error::config("class", self.class, format!("below {classes}, the classifier's classes")));
        }
        let log = burn::tensor::activation::log_softmax(logits, 1);
        Ok(log.narrow(1, self.class as usize, 1).sum() * self.scale)
    }
}

/// A copy of a network whose answers have gradients in what it sees, and in nothing else.
pub(crate) fn differentiable<D: Denoiser>(network: &D) -> D {
    network.clone().freeze().train()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prediction::{Level, Prediction};
    use aigc_core::device::device;

    #[test]
    fn guidance_is_the_papers_formula() {
        let flex = device("flex").unwrap();
        let class = Tensor::<4>::from_floats([[[[1.0, -1.0], [2.0, 0.0]]]], &flex);
        let none = Tensor::<4>::from_floats([[[[0.0, 1.0], [1.0, 1.0]]]], &flex);
        let values = |x: Tensor<4>| x.into_data().iter::<f64>().collect::<Vec<_>>();
        let guided = values(Guidance::new(3.0).combine(class.clone(), none.clone()));
        assert_eq!(guided, [3.0, -5.0, 4.0, -2.0]);
        // All the way back: the answer's own deviation, about its mean times the same.
        let back = values(Guidance { rescale: 1.0, ..Guidance::new(3.0) }.combine(class.clone(), none.clone()));
        let deviation = |v: &[f64]| {
            let mean = v.iter().sum::<f64>() / 4.0;
            (v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 4.0).sqrt()
        };
        assert!((deviation(&back) - deviation(&values(class))).abs() < 1e-6);
        for guidance in [
            Guidance::new(-1.0),
            Guidance { rescale: 2.0, ..Guidance::new(2.0) },
            Guidance { interval: Some((2.0, 1.0)), ..Guidance::new(2.0) },
        ] {
            assert!(guidance.validate().unwrap_err().to_string().contains("`guidance."));
        }
    }

    /// Of a standard normal, `p(x₀ = y) = N(x₀; y, s²)` makes the clean sample what Bayes' rule says.
    #[test]
    fn a_gradient_moves_the_clean_sample_as_bayes_says() {
        #[derive(Debug)]
        struct Known {
            y: f64,
            level: Level,
        }
        impl Guide for Known {
            fn log_likelihood(&self, view: &View<'_>) -> Result<Tensor<1>> {
                // x = αx₀ + σε: given x, x₀ is normal with mean αx and variance σ².
                let residual = view.x() * self.level.alpha - self.y;
                let variance = self.level.sigma.powi(2) + 0.25;
                Ok((residual.clone() * residual).sum() * (-0.5 / variance))
            }
        }
        let flex = device("flex").unwrap();
        let level = Level::preserving(0.3);
        for prediction in [Prediction::Epsilon, Prediction::Sample, Prediction::V] {
            let reading = prediction.read(level).unwrap();
            let call = Call::new(0.0, level, reading, vec![]);
            let x = Tensor::<4>::from_floats([[[[0.7]]]], &flex);
            // What a network that knows the prior says.
            let (a, b) = reading.x0;
            let output = x.clone() * ((level.alpha - a) / b);
            let (y, ask) = (-0.4, |_: &Tensor<4>| -> (Tensor<4>, Tensor<4>) { panic!("the network is not asked") });
            let led = led(&Known { y, level }, &call, 0..1, &x, &ask, || output).unwrap();
            let x0 = f64::from((x * a + led * b).into_scalar::<f32>());
            // N(αx, σ²)·N(y, 1/4).
            let (mean, variance) = (level.alpha * 0.7, level.sigma.powi(2));
            let expected = (mean * 0.25 + y * variance) / (variance + 0.25);
            assert!((x0 - expected).abs() < 1e-6, "{prediction:?}: {x0}, expected {expected}");
        }
    }
}
