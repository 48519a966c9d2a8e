//! A sampler as a table of weights.
//!
//! Every scheduler here, from DDPM to UniPC, moves a sample by a weighted sum of the
//! sample, earlier samples, the network's outputs, and fresh noise. The weights depend on the noise
//! levels alone, so a scheduler computes them once, in 64 bits, on the host: a [`SamplingPlan`].
//! [`PlanRunner`] runs one, on any device, whatever the scheduler.

use crate::{
    clip::Clip,
    prediction::{NoiseLevel, PredictionCoefficients},
};
use aigc_core::{Error, Result};
use burn::tensor::Tensor;
use std::collections::HashMap;

/// A term of a step. Calls of the network are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Term {
    /// The sample before a call; corrected, where the plan has a corrector.
    Sample(usize),
    /// The clean sample that a call predicted.
    X0(usize),
    /// The noise that a call predicted.
    Epsilon(usize),
    /// The network's output of a call.
    Output(usize),
    /// Fresh standard normal noise.
    Noise,
}

impl Term {
    /// The same term where calls are counted from call `at`.
    fn moved(self, at: usize) -> Self {
        match self {
            Self::Sample(k) => Self::Sample(k - at),
            Self::X0(k) => Self::X0(k - at),
            Self::Epsilon(k) => Self::Epsilon(k - at),
            Self::Output(k) => Self::Output(k - at),
            Self::Noise => Self::Noise,
        }
    }
}

/// Fails unless there is a call `at` of `calls`.
pub(crate) fn check_start(at: usize, calls: usize) -> Result<()> {
    if at < calls {
        return Ok(());
    }
    let expected = format!("below {calls}, the number of calls");
    Err(Error::argument("at", at, expected))
}

/// A weighted sum.
pub type LinearCombination = Vec<(Term, f64)>;

/// A variance that the network predicts beside its output, in as many channels again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LearnedVariance {
    /// The variance itself.
    Direct,
    /// Where the logarithm lies between these two, from −1 to 1 (Nichol & Dhariwal 2021, equation
    /// 15).
    Between {
        /// `ln β̃`.
        low: f64,
        /// `ln β`.
        high: f64,
    },
}

/// One call of the network and the step after it.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelCall {
    /// The time that the network receives.
    pub time: f64,
    /// Noise level that a sample needs for sampling to start at this call.
    pub level: NoiseLevel,
    /// Scale of the network's input.
    pub input_scale: f64,
    /// How output and sample give x̂₀ and ε.
    pub coefficients: PredictionCoefficients,
    /// `α` and `σ` of the sample that the network receives; a [`Guide`](crate::Guide) uses these.
    pub network_level: NoiseLevel,
    /// The sample, corrected after the network's call. Empty: there is no corrector.
    pub corrector: LinearCombination,
    /// The next sample.
    pub update: LinearCombination,
    /// Scale of the noise in `update`, if the network predicts it.
    pub variance: Option<LearnedVariance>,
}

/// All calls of a sampler.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingPlan {
    /// Standard deviation of the noise to start from.
    pub init_noise_sigma: f64,
    /// Clipping of predicted clean samples.
    pub clip: Clip,
    /// Whether the predicted noise is that of the clipped clean sample.
    pub use_clipped_model_output: bool,
    /// The calls of the network, in order.
    pub calls: Vec<ModelCall>,
}

impl SamplingPlan {
    /// Number of calls of the network.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether the plan has no calls.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Times that the network receives, in order.
    pub fn times(&self) -> Vec<f64> {
        self.calls.iter().map(|call| call.time).collect()
    }

    /// The plan that starts at call `at`, for a sample with [the noise level](Self::add_noise) of
    /// that call. A multistep method needs the results of earlier calls: where those would lie
    /// before `at`, the step is replaced by one of first order, `x' = α'·x₀ + σ'·ε` (DDIM's step,
    /// which is the first order of every solver here).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no calls from there on.
    pub fn starting_at(&self, at: usize) -> Result<Self> {
        check_start(at, self.len())?;
        let ago = |source: &Term| match source {
            Term::Sample(k) | Term::X0(k) | Term::Epsilon(k) | Term::Output(k) => *k < at,
            Term::Noise => false,
        };
        let moved = |(source, weight): &(Term, f64)| (source.moved(at), *weight);
        let calls = (at..self.len()).map(|k| {
            let call = &self.calls[k];
            let looks_ago = |sum: &LinearCombination| sum.iter().any(|(source, _)| ago(source));
            let correct = if looks_ago(&call.corrector) {
                vec![]
            } else {
                call.corrector.iter().map(moved).collect()
            };
            let next = if looks_ago(&call.update) {
                let NoiseLevel { alpha, sigma } = self.calls.get(k + 1).map_or(
                    NoiseLevel {
                        alpha: 1.0,
                        sigma: 0.0,
                    },
                    |next| next.level,
                );
                let share = sigma / call.level.sigma;
                vec![
                    (Term::X0(k - at), alpha - share * call.level.alpha),
                    (Term::Sample(k - at), share),
                ]
            } else {
                call.update.iter().map(moved).collect()
            };
            ModelCall {
                corrector: correct,
                update: next,
                ..call.clone()
            }
        });
        Ok(Self {
            calls: calls.collect(),
            ..self.clone()
        })
    }

    /// The same plan where calls are counted from call `at`, the first one that it has.
    ///
    /// # Panics
    /// If it uses earlier calls.
    pub(crate) fn counted_from(mut self, at: usize) -> Self {
        for call in &mut self.calls {
            for (source, _) in call.corrector.iter_mut().chain(&mut call.update) {
                *source = source.moved(at);
            }
        }
        self
    }

    /// Whether every step depends on its own call alone, so that calls can be repeated.
    pub fn is_single_step(&self) -> bool {
        let own = |k: usize, source: &Term| match source {
            Term::Sample(of) | Term::X0(of) | Term::Epsilon(of) | Term::Output(of) => *of == k,
            Term::Noise => true,
        };
        self.calls.iter().enumerate().all(|(k, call)| {
            call.corrector.is_empty() && call.update.iter().all(|(s, _)| own(k, s))
        })
    }

    /// A clean sample as noisy as it has to be for sampling to begin with call `at`.
    ///
    /// # Panics
    /// If there are fewer calls.
    pub fn add_noise<const D: usize>(
        &self,
        at: usize,
        x0: Tensor<D>,
        noise: Tensor<D>,
    ) -> Tensor<D> {
        let NoiseLevel { alpha, sigma } = self.calls[at].level;
        x0 * alpha + noise * sigma
    }
}

/// What a step gives.
#[derive(Clone, Debug)]
pub struct StepOutput<const D: usize> {
    /// The next sample.
    pub prev_sample: Tensor<D>,
    /// The predicted clean sample.
    pub pred_original_sample: Tensor<D>,
}

/// Runs a plan.
///
/// ```
/// # use aigc_core::device::device;
/// # use aigc_diffusion::{DdimScheduler, PlanRunner, Scheduler};
/// # use burn::tensor::Tensor;
/// # let network = |x: Tensor<2>, _time: f64| x * 0.5;
/// let plan = DdimScheduler::default().plan(10)?;
/// let mut x = Tensor::<2>::ones([4, 2], &device("flex")?) * plan.init_noise_sigma;
/// let mut sampling = PlanRunner::new(&plan);
/// while let Some(call) = sampling.call() {
///     let output = network(sampling.input(&x), call.time);
///     x = sampling.step(x, output, || unreachable!("DDIM draws no noise")).prev_sample;
/// }
/// # Ok::<(), aigc_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PlanRunner<'a, const D: usize> {
    plan: &'a SamplingPlan,
    at: usize,
    /// The last call that needs a source.
    last_use: HashMap<Term, usize>,
    kept: HashMap<Term, Tensor<D>>,
}

impl<'a, const D: usize> PlanRunner<'a, D> {
    /// Before the first call.
    pub fn new(plan: &'a SamplingPlan) -> Self {
        let mut last_use = HashMap::new();
        for (at, call) in plan.calls.iter().enumerate() {
            for (source, _) in call.corrector.iter().chain(&call.update) {
                last_use.insert(*source, at);
            }
        }
        Self {
            plan,
            at: 0,
            last_use,
            kept: HashMap::new(),
        }
    }

    /// The next call; none when sampling is finished.
    pub fn call(&self) -> Option<&'a ModelCall> {
        self.plan.calls.get(self.at)
    }

    /// Goes back to call `at`; for plans that are [single-step](SamplingPlan::is_single_step).
    pub(crate) fn back_to(&mut self, at: usize) {
        self.at = at;
    }

    /// Number of calls so far.
    pub fn calls_made(&self) -> usize {
        self.at
    }

    /// The network's input for a sample: the sample, scaled for this call.
    ///
    /// # Panics
    /// If sampling is over.
    pub fn input(&self, sample: &Tensor<D>) -> Tensor<D> {
        times(sample.clone(), self.plan.calls[self.at].input_scale)
    }

    /// The step after the network's output. `noise` is called for standard normal noise of the
    /// sample's shape, if the step needs any.
    ///
    /// An output with twice the sample's channels (dimension 1) holds a variance in the second
    /// half.
    ///
    /// # Panics
    /// If sampling is over, the output's shape does not fit, or it holds no variance where
    /// the plan's call expects one.
    pub fn step(
        &mut self,
        sample: Tensor<D>,
        output: Tensor<D>,
        noise: impl FnOnce() -> Tensor<D>,
    ) -> StepOutput<D> {
        let (plan, at) = (self.plan, self.at);
        let call = &plan.calls[at];
        let (output, variance) = split(output, &sample);
        let read = |(x, y): (f64, f64)| weighted(&[(x, &sample), (y, &output)]);
        let x0 = plan.clip.apply(read(call.coefficients.x0));
        if self.needed(Term::Epsilon(at)) {
            let epsilon = if plan.use_clipped_model_output && plan.clip != Clip::None {
                let NoiseLevel { alpha, sigma } = call.network_level;
                weighted(&[(1.0 / sigma, &sample), (-alpha / sigma, &x0)])
            } else {
                read(call.coefficients.epsilon)
            };
            self.kept.insert(Term::Epsilon(at), epsilon);
        }
        for (source, value) in [
            (Term::X0(at), &x0),
            (Term::Output(at), &output),
            (Term::Sample(at), &sample),
        ] {
            if self.needed(source) {
                self.kept.insert(source, value.clone());
            }
        }
        if !call.corrector.is_empty() {
            let corrected = self.sum(&call.corrector);
            self.kept.insert(Term::Sample(at), corrected);
        }
        if call.update.iter().any(|(source, _)| *source == Term::Noise) {
            let noise = noise();
            let noise = match (call.variance, variance) {
                (Some(kind), Some(variance)) => noise * kind.deviation(variance),
                (Some(_), None) => panic!(
                    "`variance_type` is learned, but the network predicts no variance: {:?}",
                    output.dims()
                ),
                (None, _) => noise,
            };
            self.kept.insert(Term::Noise, noise);
        }
        let next = self.sum(&call.update);
        let last_use = &self.last_use;
        self.kept
            .retain(|source, _| *source != Term::Noise && last_use[source] > at);
        self.at += 1;
        StepOutput {
            prev_sample: next,
            pred_original_sample: x0,
        }
    }

    fn needed(&self, source: Term) -> bool {
        self.last_use.contains_key(&source)
    }

    fn sum(&self, terms: &LinearCombination) -> Tensor<D> {
        let terms: Vec<_> = terms
            .iter()
            .map(|(source, weight)| (*weight, &self.kept[source]))
            .collect();
        weighted(&terms)
    }
}

impl LearnedVariance {
    /// The standard deviation that the second half of a network's output gives.
    fn deviation<const D: usize>(self, output: Tensor<D>) -> Tensor<D> {
        match self {
            LearnedVariance::Direct => output.sqrt(),
            LearnedVariance::Between { low, high } => {
                let share = (output + 1.0) * 0.5;
                ((share * (high - low) + low) * 0.5).exp()
            }
        }
    }
}

/// The output proper, and a variance if the output has twice the channels.
fn split<const D: usize>(output: Tensor<D>, sample: &Tensor<D>) -> (Tensor<D>, Option<Tensor<D>>) {
    if D < 2 || output.dims()[1] != 2 * sample.dims()[1] {
        return (output, None);
    }
    let channels = sample.dims()[1];
    (
        output.clone().narrow(1, 0, channels),
        Some(output.narrow(1, channels, channels)),
    )
}

fn times<const D: usize>(tensor: Tensor<D>, weight: f64) -> Tensor<D> {
    if weight == 1.0 {
        tensor
    } else {
        tensor * weight
    }
}

fn weighted<const D: usize>(terms: &[(f64, &Tensor<D>)]) -> Tensor<D> {
    let mut all = terms.iter().filter(|(weight, _)| *weight != 0.0);
    let Some((weight, first)) = all.next() else {
        return terms[0].1.zeros_like();
    };
    all.fold(times((*first).clone(), *weight), |sum, (weight, tensor)| {
        sum + times((*tensor).clone(), *weight)
    })
}
