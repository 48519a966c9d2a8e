//! Guidance.
//!
//! Guidance modifies the model output before the scheduler step, so it works with every scheduler:
//! [`ClassifierFreeGuidance`] by two outputs of the network, conditional and unconditional; a
//! [`Guide`] by the gradient of `ln p(y | x)`.

use crate::plan::ModelCall;
use aigc_core::{Error, Result, check};
use burn::{module::Module, tensor::Tensor};
use std::{cell::OnceCell, ops::Range};

/// Classifier-free guidance (Ho & Salimans 2022, <https://arxiv.org/abs/2207.12598>): away from
/// the unconditional prediction, `out = none + scale·(class − none)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassifierFreeGuidance {
    /// 1 is no guidance; higher values give clearer and less varied samples. (Ho & Salimans's `w`
    /// is one less.)
    pub guidance_scale: f64,
    /// How far each sample's standard deviation is rescaled to that of the conditional output (Lin
    /// et al. 2024,
    /// <https://arxiv.org/abs/2305.08891>, section 3.4).
    pub guidance_rescale: f64,
    /// Guidance only where `σ/α` lies between these (Kynkäänniemi et al. 2024,
    /// <https://arxiv.org/abs/2404.07724>).
    pub interval: Option<(f64, f64)>,
}

impl ClassifierFreeGuidance {
    /// Guidance of this scale at every step.
    pub const fn new(scale: f64) -> Self {
        Self {
            guidance_scale: scale,
            guidance_rescale: 0.0,
            interval: None,
        }
    }

    /// # Errors
    /// [`Error::Config`] names a field that is out of range.
    pub fn validate(&self) -> Result<()> {
        check::non_negative("guidance_scale", self.guidance_scale)?;
        if !(0.0..=1.0).contains(&self.guidance_rescale) {
            return Err(Error::config(
                "guidance_rescale",
                self.guidance_rescale,
                "0 to 1",
            ));
        }
        match self.interval {
            Some((low, high)) if low.is_nan() || high.is_nan() || low > high => Err(Error::config(
                "interval",
                format!("{low} to {high}"),
                "from less to more",
            )),
            _ => Ok(()),
        }
    }

    /// Whether it changes the output of this call.
    pub(crate) fn acts(&self, call: &ModelCall) -> bool {
        let ratio = call.network_level.sigma / call.network_level.alpha;
        let within = self
            .interval
            .is_none_or(|(low, high)| low <= ratio && ratio <= high);
        self.guidance_scale != 1.0 && within
    }

    /// The guided prediction.
    ///
    /// # Shapes
    /// - class, none and output: `[batch, channels, …]`; the conditional and the unconditional
    ///   prediction
    pub fn combine<const D: usize>(&self, class: Tensor<D>, none: Tensor<D>) -> Tensor<D> {
        let guided = none.clone() + (class.clone() - none) * self.guidance_scale;
        if self.guidance_rescale == 0.0 {
            return guided;
        }
        let dims = class.dims();
        let flat_dims = [dims[0], dims[1..].iter().product::<usize>()];
        let mut each_dims = [1; D];
        each_dims[0] = dims[0];
        let deviation = |x: &Tensor<D>| -> Tensor<D> {
            let flat: Tensor<2> = x.clone().reshape(flat_dims);
            let centred = flat.clone() - flat.mean_dim(1);
            (centred.clone() * centred)
                .mean_dim(1)
                .sqrt()
                .reshape(each_dims)
        };
        let back = deviation(&class) / deviation(&guided).clamp_min(1e-12);
        guided.clone() * (back * self.guidance_rescale + (1.0 - self.guidance_rescale))
    }
}

/// A likelihood of the sample, given a class or a measurement. `D` is the rank of a batch of
/// samples.
pub trait Guide<const D: usize = 4>: std::fmt::Debug {
    /// `∇ ln p(y | x)` at the view's noisy samples.
    ///
    /// # Shapes
    /// - output: as [`GuideContext::x`]
    ///
    /// # Errors
    /// Any; sampling ends with it.
    fn score(&self, view: &GuideContext<'_, D>) -> Result<Tensor<D>>;
}

/// Output of the network and clean sample, `E[x₀ | x]`.
pub(crate) type Answer<const D: usize = 4> = (Tensor<D>, Tensor<D>);

/// Intermediate samples, for a [`Guide`].
pub struct GuideContext<'a, const D: usize = 4> {
    pub(crate) x: &'a Tensor<D>,
    pub(crate) call: &'a ModelCall,
    pub(crate) images: Range<usize>,
    pub(crate) latent: bool,
    /// Calls the network, and the network with autodiff.
    pub(crate) ask: &'a dyn Fn(&Tensor<D>) -> Answer<D>,
    pub(crate) ask_live: &'a dyn Fn(&Tensor<D>) -> Answer<D>,
    pub(crate) answer: OnceCell<Answer<D>>,
}

impl<const D: usize> std::fmt::Debug for GuideContext<'_, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuideContext")
            .field("call", self.call)
            .field("x", &self.x.dims())
            .finish_non_exhaustive()
    }
}

impl<const D: usize> GuideContext<'_, D> {
    /// The noisy samples.
    pub fn x(&self) -> Tensor<D> {
        self.x.clone()
    }

    /// The clean samples that the network predicts, `E[x₀ | x]`.
    pub fn x0(&self) -> Tensor<D> {
        self.answer().1.clone()
    }

    /// `(∂x̂₀/∂x)ᵀ·u`: the gradient of `⟨x̂₀, u⟩` in the noisy samples. It calls the network once
    /// more, and differentiates it.
    ///
    /// # Shapes
    /// - u and output: as [`x`](Self::x)
    ///
    /// # Panics
    /// If the shape is another, or the output does not depend on the input.
    pub fn vjp(&self, u: &Tensor<D>) -> Tensor<D> {
        let leaf = self.x.clone().autodiff().require_grad();
        let (_, x0) = (self.ask_live)(&leaf);
        let product = (x0 * u.clone().autodiff()).sum();
        leaf.grad(&product.backward())
            .expect("an output that depends on the input")
    }

    /// The current call: the network's time, the noise level.
    pub fn call(&self) -> &ModelCall {
        self.call
    }

    /// Which of all requested samples these are.
    pub fn images(&self) -> Range<usize> {
        self.images.clone()
    }

    /// Whether the samples are latent maps that an autoencoder decodes.
    pub fn is_latent(&self) -> bool {
        self.latent
    }

    fn answer(&self) -> &Answer<D> {
        self.answer.get_or_init(|| (self.ask)(self.x))
    }
}

/// The network's output, shifted so that the clean sample is `x₀ + σ²/α · ∇ ln p(y | x)`: the score
/// of `p(x | y)` is that of `p(x)` and this gradient.
pub(crate) fn led<const D: usize>(
    guide: &dyn Guide<D>,
    view: &GuideContext<'_, D>,
) -> Result<Tensor<D>> {
    // Samples without any signal have no gradient: it goes to 0 with α.
    if view.call.network_level.alpha == 0.0 {
        return Ok(view.answer().0.clone());
    }
    let score = guide.score(view)?;
    if score.dims() != view.x.dims() {
        return Err(Error::config(
            "guide",
            format!("{:?}", score.dims()),
            format!("{:?}, as the samples", view.x.dims()),
        ));
    }
    let output = view.answer().0.clone();
    let call = view.call;
    let shift = score
        * (call.network_level.sigma.powi(2) / call.network_level.alpha / call.coefficients.x0.1);
    let channels = view.x.dims()[1];
    // A variance in the channels behind stays as it is.
    Ok(match output.dims()[1] - channels {
        0 => output + shift,
        more => Tensor::cat(
            vec![
                output.clone().narrow(1, 0, channels) + shift,
                output.narrow(1, channels, more),
            ],
            1,
        ),
    })
}

/// A classifier of noisy samples. `D` is the rank of a batch of samples.
pub trait NoisyClassifier<const D: usize = 4>: std::fmt::Debug {
    /// The logits of noisy samples.
    ///
    /// # Shapes
    /// - x: `[batch, channels, …]`, as noisy as it is at this time
    /// - time: `[batch]`, as the denoiser receives it
    /// - output: logits, `[batch, classes]`
    ///
    /// # Panics
    /// If the shapes do not fit.
    fn logits(&self, x: Tensor<D>, time: Tensor<1>) -> Tensor<2>;
}

/// Classifier guidance (Dhariwal & Nichol 2021, <https://arxiv.org/abs/2105.05233>, section 4): up
/// the gradient of a class's probability by a classifier of noisy samples. The classifier has to be
/// on the sampler's device, with autodiff.
#[derive(Clone, Debug)]
pub struct ClassifierGuidance<C> {
    classifier: C,
    class: u32,
    scale: f64,
}

impl<C> ClassifierGuidance<C> {
    /// Towards `class`, by `scale` times the gradient.
    ///
    /// # Errors
    /// [`Error::Config`] unless the scale is finite.
    pub fn new(classifier: C, class: u32, scale: f64) -> Result<Self> {
        if !scale.is_finite() {
            return Err(Error::config("scale", scale, "a finite number"));
        }
        Ok(Self {
            classifier,
            class,
            scale,
        })
    }
}

impl<C: NoisyClassifier<D>, const D: usize> Guide<D> for ClassifierGuidance<C> {
    fn score(&self, view: &GuideContext<'_, D>) -> Result<Tensor<D>> {
        let leaf = view.x().autodiff().require_grad();
        let (batch, device) = (leaf.dims()[0], leaf.device());
        let call = view.call();
        let logits = self.classifier.logits(
            leaf.clone() * call.input_scale,
            Tensor::full([batch], call.time, &device),
        );
        let classes = logits.dims()[1];
        if self.class as usize >= classes {
            return Err(Error::config(
                "class",
                self.class,
                format!("below {classes}, the classifier's classes"),
            ));
        }
        let log = burn::tensor::activation::log_softmax(logits, 1)
            .narrow(1, self.class as usize, 1)
            .sum();
        let gradient = leaf.grad(&log.backward());
        let Some(gradient) = gradient else {
            return Err(Error::config(
                "classifier",
                "a constant",
                "logits that depend on the samples",
            ));
        };
        Ok(gradient * self.scale)
    }
}

/// A copy of a network with gradients in its input, and none in its parameters.
pub(crate) fn differentiable<N: Module>(network: &N) -> N {
    network.clone().freeze().train()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prediction::{NoiseLevel, PredictionType};
    use aigc_core::device::device;

    #[test]
    fn guidance_matches_its_formula() {
        let flex = device("flex").unwrap();
        let class = Tensor::<4>::from_floats([[[[1.0, -1.0], [2.0, 0.0]]]], &flex);
        let none = Tensor::<4>::from_floats([[[[0.0, 1.0], [1.0, 1.0]]]], &flex);
        let values = |x: Tensor<4>| x.into_data().iter::<f64>().collect::<Vec<_>>();
        let guided = values(ClassifierFreeGuidance::new(3.0).combine(class.clone(), none.clone()));
        assert_eq!(guided, [3.0, -5.0, 4.0, -2.0]);
        // Half of the way back: between the guided answer and the one below.
        let half = values(
            ClassifierFreeGuidance {
                guidance_rescale: 0.5,
                ..ClassifierFreeGuidance::new(3.0)
            }
            .combine(class.clone(), none.clone()),
        );
        let all = values(
            ClassifierFreeGuidance {
                guidance_rescale: 1.0,
                ..ClassifierFreeGuidance::new(3.0)
            }
            .combine(class.clone(), none.clone()),
        );
        assert!(
            (0..4).all(|i| (half[i] - 0.5 * (guided[i] + all[i])).abs() < 1e-6),
            "{half:?}"
        );
        // Points are rescaled like images of as many values.
        let flat = |x: &Tensor<4>| -> Tensor<2> { x.clone().reshape([1, 4]) };
        let points = ClassifierFreeGuidance {
            guidance_rescale: 0.5,
            ..ClassifierFreeGuidance::new(3.0)
        }
        .combine(flat(&class), flat(&none));
        assert_eq!(points.into_data().iter::<f64>().collect::<Vec<_>>(), half);
        // All the way back: the answer's own deviation, about its mean times the same.
        let back = values(
            ClassifierFreeGuidance {
                guidance_rescale: 1.0,
                ..ClassifierFreeGuidance::new(3.0)
            }
            .combine(class.clone(), none.clone()),
        );
        let deviation = |v: &[f64]| {
            let mean = v.iter().sum::<f64>() / 4.0;
            (v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 4.0).sqrt()
        };
        assert!((deviation(&back) - deviation(&values(class))).abs() < 1e-6);
        let two = ClassifierFreeGuidance::new(2.0);
        for (guidance, expected) in [
            (ClassifierFreeGuidance::new(-1.0), "`guidance_scale` is -1"),
            (
                ClassifierFreeGuidance {
                    guidance_rescale: 2.0,
                    ..two
                },
                "`guidance_rescale` is 2",
            ),
            (
                ClassifierFreeGuidance {
                    interval: Some((2.0, 1.0)),
                    ..two
                },
                "`interval` is 2 to 1",
            ),
        ] {
            let message = guidance.validate().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    /// A classifier of two classes by the sum of values: the gradient of the logarithm of a
    /// logistic function.
    #[test]
    fn classifier_guidance_follows_the_gradient() {
        #[derive(Debug)]
        struct LinearCombination;
        impl NoisyClassifier for LinearCombination {
            fn logits(&self, x: Tensor<4>, time: Tensor<1>) -> Tensor<2> {
                assert_eq!(
                    time.into_data().iter::<f32>().collect::<Vec<_>>(),
                    [7.0, 7.0]
                );
                let sum = x.flatten::<2>(1, 3).sum_dim(1);
                Tensor::cat(vec![sum.zeros_like(), sum], 1)
            }
        }
        let flex = device("flex").unwrap();
        let level = NoiseLevel::variance_preserving(0.3);
        let call = ModelCall {
            input_scale: 0.5,
            ..ModelCall::new(
                7.0,
                level,
                PredictionType::Epsilon.coefficients(level).unwrap(),
                vec![],
            )
        };
        let x = Tensor::<4>::from_floats([[[[1.0, 0.2]]], [[[-2.0, 0.0]]]], &flex);
        let ask = |_: &Tensor<4>| -> Answer { panic!("the network is not called") };
        let view = GuideContext {
            x: &x,
            call: &call,
            images: 0..2,
            latent: false,
            ask: &ask,
            ask_live: &ask,
            answer: OnceCell::new(),
        };
        let guide = |class, scale| ClassifierGuidance::new(LinearCombination, class, scale);
        let found: Vec<f64> = guide(1, 3.0)
            .unwrap()
            .score(&view)
            .unwrap()
            .into_data()
            .iter::<f64>()
            .collect();
        for (row, sum) in [(0, 0.6f64), (1, -1.0)] {
            let expected = 3.0 * 0.5 / (1.0 + sum.exp());
            assert!(
                found[2 * row..2 * row + 2]
                    .iter()
                    .all(|value| (value - expected).abs() < 1e-6),
                "{found:?}"
            );
        }
        let message = guide(2, 1.0).unwrap().score(&view).unwrap_err().to_string();
        assert!(
            message.contains("`class` is 2, expected below 2"),
            "{message}"
        );
        assert!(guide(0, f64::NAN).is_err());
    }

    /// Of a standard normal, `p(x₀ = y) = N(x₀; y, s²)` makes the clean sample the mean by Bayes'
    /// rule.
    #[test]
    fn score_shifts_x0_by_bayes_rule() {
        #[derive(Debug)]
        struct Known {
            y: f64,
            level: NoiseLevel,
        }
        impl Guide for Known {
            fn score(&self, view: &GuideContext<'_>) -> Result<Tensor<4>> {
                // x = αx₀ + σε: given x, x₀ is normal with mean αx and variance σ², and y is it
                // with variance 1/4 more.
                let NoiseLevel { alpha, sigma } = self.level;
                Ok((view.x() * alpha - self.y) * (-alpha / (sigma * sigma + 0.25)))
            }
        }
        let flex = device("flex").unwrap();
        let level = NoiseLevel::variance_preserving(0.3);
        for prediction in [
            PredictionType::Epsilon,
            PredictionType::Sample,
            PredictionType::V,
        ] {
            let reading = prediction.coefficients(level).unwrap();
            let call = ModelCall::new(0.0, level, reading, vec![]);
            let x = Tensor::<4>::from_floats([[[[0.7]]]], &flex);
            // The exact prediction for the prior.
            let (a, b) = reading.x0;
            let output = x.clone() * ((level.alpha - a) / b);
            let y = -0.4;
            let ask = |_: &Tensor<4>| (output.clone(), output.clone());
            let ask_live = |_: &Tensor<4>| -> Answer { panic!("no gradient is requested") };
            let view = GuideContext {
                x: &x,
                call: &call,
                images: 0..1,
                latent: false,
                ask: &ask,
                ask_live: &ask_live,
                answer: OnceCell::new(),
            };
            let led = led(&Known { y, level }, &view).unwrap();
            let x0 = f64::from((x * a + led * b).into_scalar::<f32>());
            // N(αx, σ²)·N(y, 1/4).
            let (mean, variance) = (level.alpha * 0.7, level.sigma.powi(2));
            let expected = (mean * 0.25 + y * variance) / (variance + 0.25);
            assert!(
                (x0 - expected).abs() < 1e-6,
                "{prediction:?}: {x0}, expected {expected}"
            );
        }
    }
}
