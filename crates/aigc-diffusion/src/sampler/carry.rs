//! One pass over a plan: the network is called, guided and stepped, call by call.

use super::{DiffusionSampler, Job, StepProgress, Streams};
use crate::{
    denoiser::{Conditioning, Denoiser},
    guidance::{GuideContext, led},
    plan::{ModelCall, PlanRunner},
    prediction::NoiseLevel,
};
use aigc_core::{Error, Result, data::label_tensor};
use burn::tensor::Tensor;
use std::{
    cell::OnceCell,
    ops::{ControlFlow, Range},
};

impl<N: Denoiser<D>, const D: usize> DiffusionSampler<'_, N, D> {
    /// Takes samples through the job's plan.
    pub(super) fn carry(
        &self,
        mut x: Tensor<D>,
        job: &Job<'_>,
        images: Range<usize>,
    ) -> Result<Carried<D>> {
        let inputs = self.inputs(job, &images)?;
        let mut streams = Streams::new(job.seed, "steps", images.clone());
        let mut runner = PlanRunner::new(job.plan);
        let mut x0 = None;
        while runner.call().is_some() {
            let (next, clean) = self.step(&mut runner, x, x0, &inputs, &mut streams)?;
            x = next;
            if self.report(job, &images, &runner, &x, &clean).is_break() {
                let under_way = runner.call().is_some();
                return Ok(Carried {
                    x: if under_way { clean } else { x },
                    stopped: under_way || images.end < job.total,
                });
            }
            x0 = Some(clean);
        }
        Ok(Carried { x, stopped: false })
    }

    /// Reports progress after a call; whether to go on.
    pub(super) fn report(
        &self,
        job: &Job<'_>,
        images: &Range<usize>,
        runner: &PlanRunner<'_, D>,
        x: &Tensor<D>,
        x0: &Tensor<D>,
    ) -> ControlFlow<()> {
        if !self.options.has_callback() {
            return match self.options.cancel.is_cancelled() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
        }
        let clean = NoiseLevel {
            alpha: 1.0,
            sigma: 0.0,
        };
        self.options.report(&StepProgress {
            images: images.clone(),
            total: job.total,
            step: runner.calls_made(),
            num_steps: job.plan.len(),
            x: x.clone(),
            x0: x0.clone(),
            level: runner.call().map_or(clean, |next| next.network_level),
            space: self.space,
        })
    }

    /// Calls the network and takes the step after it: the next sample, and the clean one.
    pub(super) fn step(
        &self,
        runner: &mut PlanRunner<'_, D>,
        x: Tensor<D>,
        x0: Option<Tensor<D>>,
        inputs: &Inputs<D>,
        streams: &mut Streams,
    ) -> Result<(Tensor<D>, Tensor<D>)> {
        let call = runner.call().expect("a call that is left");
        let output = match &self.guide {
            None => self.output(self.network, call, &x, x0, inputs),
            Some((guide, live)) => {
                let answer = |output: Tensor<D>, x: &Tensor<D>| {
                    let mean = output.clone().narrow(1, 0, x.dims()[1]);
                    (
                        output,
                        x.clone() * call.coefficients.x0.0 + mean * call.coefficients.x0.1,
                    )
                };
                let ask = |x: &Tensor<D>| {
                    answer(self.output(self.network, call, x, x0.clone(), inputs), x)
                };
                let on_tape = (inputs.clone().autodiff(), x0.clone().map(Tensor::autodiff));
                let ask_live = |x: &Tensor<D>| {
                    answer(self.output(live, call, x, on_tape.1.clone(), &on_tape.0), x)
                };
                let context = GuideContext {
                    x: &x,
                    call,
                    images: inputs.images.clone(),
                    latent: self.space.latent.is_some(),
                    ask: &ask,
                    ask_live: &ask_live,
                    answer: OnceCell::new(),
                };
                led(*guide, &context)?
            }
        };
        if call.variance.is_some() && output.dims()[1] == x.dims()[1] {
            let expected = "a fixed variance; the network predicts none";
            return Err(Error::config("variance_type", "learned", expected));
        }
        let stepped = runner.step(x, output, || streams.draw(self.shape, &self.device));
        Ok((stepped.prev_sample, stepped.pred_original_sample))
    }

    /// The network's output, with classifier-free guidance if there is any.
    fn output(
        &self,
        network: &N,
        call: &ModelCall,
        x: &Tensor<D>,
        x0: Option<Tensor<D>>,
        inputs: &Inputs<D>,
    ) -> Tensor<D> {
        let (n, channels) = (x.dims()[0], x.dims()[1]);
        let input = if call.input_scale == 1.0 {
            x.clone()
        } else {
            x.clone() * call.input_scale
        };
        let time = |n: usize| Tensor::full([n], call.time, &x.device());
        let Some((guidance, negative)) = self
            .guidance
            .zip(inputs.negative.clone())
            .filter(|(g, _)| g.acts(call))
        else {
            let condition = Conditioning {
                self_cond: x0,
                ..inputs.condition.clone()
            };
            return network.predict(input, time(n), &condition);
        };
        // Both in one batch: the network's weights are read once.
        let twice = |x: Tensor<D>| Tensor::cat(vec![x.clone(), x], 0);
        let Conditioning {
            class_labels,
            class_embeddings,
            encoder_hidden_states,
            ..
        } = inputs.condition.clone();
        let both = Conditioning {
            class_labels: class_labels
                .zip(negative.class_labels)
                .map(|(a, b)| Tensor::cat(vec![a, b], 0)),
            class_embeddings: class_embeddings
                .zip(negative.class_embeddings)
                .map(|(a, b)| Tensor::cat(vec![a, b], 0)),
            encoder_hidden_states: encoder_hidden_states
                .zip(negative.encoder_hidden_states)
                .map(|(a, b)| Tensor::cat(vec![a, b], 0)),
            self_cond: x0.map(twice),
            ..Default::default()
        };
        let output = network.predict(twice(input), time(2 * n), &both);
        let part = |start: usize| output.clone().narrow(0, start, n);
        let mean = |x: Tensor<D>| x.narrow(1, 0, channels);
        let guided = guidance.combine(mean(part(0)), mean(part(n)));
        match output.dims()[1] - channels {
            0 => guided,
            // The variance is that of the conditional prediction.
            more => Tensor::cat(vec![guided, part(0).narrow(1, channels, more)], 1),
        }
    }

    /// The network's inputs for some of the job's samples.
    pub(super) fn inputs(&self, job: &Job<'_>, images: &Range<usize>) -> Result<Inputs<D>> {
        let n = images.len();
        let class_labels = job
            .classes
            .as_ref()
            .map(|all| label_tensor(&all[images.clone()], &self.device));
        let class_embeddings = self.class_embeddings.as_ref();
        let class_embeddings = class_embeddings
            .map(|vectors| rows(vectors, images, "class_embeddings", "vector"))
            .transpose()?;
        let embeds = |embeds: &Tensor<3>| rows(embeds, images, "prompt_embeds", "prompt");
        let (prompt, negative) = match &self.prompt {
            None => (None, None),
            Some((prompt, negative)) => (
                Some(embeds(prompt)?),
                negative.as_ref().map(embeds).transpose()?,
            ),
        };
        let condition: Conditioning<D> = Conditioning {
            class_labels,
            class_embeddings,
            encoder_hidden_states: prompt,
            ..Default::default()
        };
        let vectors = &condition.class_embeddings;
        let negative = match (self.guidance, negative, job.null_class, vectors) {
            (None, ..) | (_, None, None, None) => None,
            (Some(_), Some(negative), ..) => Some(Conditioning {
                encoder_hidden_states: Some(negative),
                ..condition.clone()
            }),
            (Some(_), None, null, vectors) => Some(Conditioning {
                class_labels: match null {
                    Some(null) => Some(label_tensor(&vec![null; n], &self.device)),
                    None => condition.class_labels.clone(),
                },
                class_embeddings: vectors.as_ref().map(Tensor::zeros_like),
                ..condition.clone()
            }),
        };
        Ok(Inputs {
            images: images.clone(),
            condition,
            negative,
        })
    }
}

/// The rows of some samples: the only one, or one for each.
fn rows<const K: usize>(
    all: &Tensor<K>,
    images: &Range<usize>,
    argument: &str,
    one: &str,
) -> Result<Tensor<K>> {
    match all.dims()[0] {
        1 => Ok(all.clone().repeat_dim(0, images.len())),
        many if many >= images.end => Ok(all.clone().narrow(0, images.start, images.len())),
        few => {
            let expected = format!("one {one} for all samples, or one for each");
            Err(Error::argument(argument, few, expected))
        }
    }
}

/// Finished samples; the predictions x̂₀ of the last call, if sampling was stopped before the end.
pub(super) struct Carried<const D: usize> {
    pub(super) x: Tensor<D>,
    pub(super) stopped: bool,
}

/// The conditions of a batch.
#[derive(Clone, Debug)]
pub(super) struct Inputs<const D: usize> {
    /// Which of all samples.
    images: Range<usize>,
    condition: Conditioning<D>,
    /// What classifier-free guidance compares with.
    negative: Option<Conditioning<D>>,
}

impl<const D: usize> Inputs<D> {
    fn autodiff(self) -> Self {
        Self {
            condition: self.condition.autodiff(),
            negative: self.negative.map(Conditioning::autodiff),
            ..self
        }
    }
}
