//! How a plan is carried out: the network is asked, guided and led, call by call.

use super::{DiffusionSampler, StepProgress, Streams};
use crate::{
    denoiser::{Conditioning, Denoiser},
    guidance::{GuideContext, led},
    plan::{ModelCall, PlanRunner, SamplingPlan},
    prediction::NoiseLevel,
};
use aigc_core::{Error, Result};
use burn::tensor::{Tensor, TensorData};
use std::{
    cell::OnceCell,
    ops::{ControlFlow, Range},
};

impl<D: Denoiser> DiffusionSampler<'_, D> {
    /// Carries samples through a plan.
    pub(super) fn carry(
        &self,
        mut x: Tensor<4>,
        plan: &SamplingPlan,
        classes: Option<&[u32]>,
        images: Range<usize>,
        of: usize,
        seed: u64,
    ) -> Result<Carried> {
        let asked = self.asked(classes, &images)?;
        let mut streams = Streams::new(seed, "steps", images.clone());
        let mut sampling = PlanRunner::new(plan);
        let mut x0 = None;
        while sampling.call().is_some() {
            let stepped = self.step(&mut sampling, x, x0, &asked, &mut streams)?;
            x = stepped.0;
            if let ControlFlow::Break(()) =
                self.tell(&images, of, &sampling, plan, (&x, &stepped.1))
            {
                let under_way = sampling.call().is_some();
                let x = if under_way { stepped.1 } else { x };
                return Ok(Carried {
                    x,
                    stopped: under_way || images.end < of,
                });
            }
            x0 = Some(stepped.1);
        }
        Ok(Carried { x, stopped: false })
    }

    pub(super) fn tell(
        &self,
        images: &Range<usize>,
        of: usize,
        sampling: &PlanRunner<'_, 4>,
        plan: &SamplingPlan,
        (x, x0): (&Tensor<4>, &Tensor<4>),
    ) -> ControlFlow<()> {
        let Some(observer) = &self.observer else {
            return ControlFlow::Continue(());
        };
        let level = sampling.call().map_or(
            NoiseLevel {
                alpha: 1.0,
                sigma: 0.0,
            },
            |next| next.seen,
        );
        let (call, calls) = (sampling.calls_made(), plan.len());
        let progress = StepProgress {
            images: images.clone(),
            total: of,
            step: call,
            num_steps: calls,
            x,
            x0,
            level,
            sampler: self,
        };
        (observer.borrow_mut())(&progress)
    }

    /// Asks the network and makes the step after it: the next sample, and the clean one.
    pub(super) fn step(
        &self,
        sampling: &mut PlanRunner<'_, 4>,
        x: Tensor<4>,
        x0: Option<Tensor<4>>,
        asked: &Asked,
        streams: &mut Streams,
    ) -> Result<(Tensor<4>, Tensor<4>)> {
        let call = sampling.call().expect("a call to be made");
        let output = match &self.guide {
            None => self.output(self.network, call, &x, x0, asked),
            Some((guide, live)) => {
                let answer = |output: Tensor<4>, x: &Tensor<4>| {
                    let mean = output.clone().narrow(1, 0, x.dims()[1]);
                    (
                        output,
                        x.clone() * call.coefficients.x0.0 + mean * call.coefficients.x0.1,
                    )
                };
                let ask = |x: &Tensor<4>| {
                    answer(self.output(self.network, call, x, x0.clone(), asked), x)
                };
                let (told, made) = (asked.clone().autodiff(), x0.clone().map(Tensor::autodiff));
                let ask_live =
                    |x: &Tensor<4>| answer(self.output(live, call, x, made.clone(), &told), x);
                let images = asked.images.clone();
                let latent = self.latent.is_some();
                let view = GuideContext {
                    x: &x,
                    call,
                    images,
                    latent,
                    ask: &ask,
                    ask_live: &ask_live,
                    answer: OnceCell::new(),
                };
                led(*guide, &view)?
            }
        };
        if call.variance.is_some() && output.dims()[1] == x.dims()[1] {
            let expected = "one that is fixed; the network says no variance";
            return Err(Error::config("variance_type", "learned", expected));
        }
        let stepped = sampling.step(x, output, || streams.draw(self.shape, &self.device));
        Ok((stepped.prev_sample, stepped.pred_original_sample))
    }

    /// What the network says, guided if it is to be.
    fn output(
        &self,
        network: &D,
        call: &ModelCall,
        x: &Tensor<4>,
        x0: Option<Tensor<4>>,
        asked: &Asked,
    ) -> Tensor<4> {
        let (n, channels) = (x.dims()[0], x.dims()[1]);
        let seen = if call.input_scale == 1.0 {
            x.clone()
        } else {
            x.clone() * call.input_scale
        };
        let time = |n: usize| Tensor::full([n], call.time, &x.device());
        let Some((guidance, none)) = self
            .guidance
            .zip(asked.none.clone())
            .filter(|(g, _)| g.acts(call))
        else {
            return network.predict(
                seen,
                time(n),
                &Conditioning {
                    self_cond: x0,
                    ..asked.condition.clone()
                },
            );
        };
        // Both at once: the network's weights are read once.
        let two = |x: Tensor<4>| Tensor::cat(vec![x.clone(), x], 0);
        let both = Conditioning {
            class_labels: asked
                .condition
                .class_labels
                .clone()
                .zip(none.class_labels)
                .map(|(a, b)| Tensor::cat(vec![a, b], 0)),
            encoder_hidden_states: asked
                .condition
                .encoder_hidden_states
                .clone()
                .zip(none.encoder_hidden_states)
                .map(|(a, b)| Tensor::cat(vec![a, b], 0)),
            self_cond: x0.map(two),
        };
        let output = network.predict(two(seen), time(2 * n), &both);
        let part = |row: usize| output.clone().narrow(0, row, n);
        let mean = |x: Tensor<4>| x.narrow(1, 0, channels);
        let guided = guidance.combine(mean(part(0)), mean(part(n)));
        match output.dims()[1] - channels {
            0 => guided,
            // A variance is that of the class.
            more => Tensor::cat(vec![guided, part(0).narrow(1, channels, more)], 1),
        }
    }

    /// What the network is told for some of the images.
    pub(super) fn asked(&self, classes: Option<&[u32]>, images: &Range<usize>) -> Result<Asked> {
        let n = images.len();
        let of = |classes: Vec<i32>| Tensor::from_data(TensorData::new(classes, [n]), &self.device);
        let class = classes.map(|all| {
            of(all[images.clone()]
                .iter()
                .map(|class| *class as i32)
                .collect())
        });
        let rows = |tokens: &Tensor<3>| match tokens.dims()[0] {
            1 => Ok(tokens.clone().repeat_dim(0, n)),
            many if many >= images.end => Ok(tokens.clone().narrow(0, images.start, n)),
            few => Err(Error::config(
                "tokens",
                few,
                "a row for all samples, or one for each",
            )),
        };
        let tokens = self
            .tokens
            .as_ref()
            .map(|(tokens, _)| rows(tokens))
            .transpose()?;
        if tokens.is_none() && self.network.cross_attention_dim().is_some() {
            return Err(Error::config(
                "tokens",
                "missing",
                "some, for a network that looks at them; see `told`",
            ));
        }
        let none = match (&self.guidance, &self.tokens, self.none) {
            (None, _, _) => None,
            (_, Some((_, Some(none))), _) => Some(Conditioning {
                class_labels: class.clone(),
                encoder_hidden_states: Some(rows(none)?),
                self_cond: None,
            }),
            (_, _, Some(none)) => Some(Conditioning {
                class_labels: Some(of(vec![none as i32; n])),
                encoder_hidden_states: tokens.clone(),
                self_cond: None,
            }),
            _ => {
                return Err(Error::config(
                    "guidance",
                    "given",
                    "tokens that stand for none, to go away from",
                ));
            }
        };
        Ok(Asked {
            images: images.clone(),
            condition: Conditioning {
                class_labels: class,
                encoder_hidden_states: tokens,
                self_cond: None,
            },
            none,
        })
    }
}

/// What samples have become; if an observer stopped them, clean samples as far as they had come.
pub(super) struct Carried {
    pub(super) x: Tensor<4>,
    pub(super) stopped: bool,
}

/// What the network is told, with the class and without.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// For which of all images.
    images: Range<usize>,
    condition: Conditioning,
    none: Option<Conditioning>,
}

impl Asked {
    fn autodiff(self) -> Self {
        let on = |condition: Conditioning| Conditioning {
            class_labels: condition.class_labels.map(Tensor::autodiff),
            encoder_hidden_states: condition.encoder_hidden_states.map(Tensor::autodiff),
            self_cond: condition.self_cond.map(Tensor::autodiff),
        };
        Self {
            condition: on(self.condition),
            none: self.none.map(on),
            ..self
        }
    }
}
