//! The terms that compare decoded sounds with sounds.

use super::{
    balancer::{LossBalancer, Named, Term},
    config::CodecLossConfig,
    point::{Judge, Point},
};
use aigc_core::{
    Error, Result,
    dsp::{MelLoss, MelSpectrogram},
};
use burn::tensor::Tensor;

/// Computes the terms of a [`CodecLossConfig`].
#[derive(Debug)]
pub(super) struct CodecLoss {
    config: CodecLossConfig,
    mel: MelLoss,
    balancer: Option<LossBalancer>,
}

impl CodecLoss {
    pub(super) fn new(config: CodecLossConfig, sample_rate: u32) -> Result<Self> {
        config.validate()?;
        if let Some(mel) = config
            .mels
            .iter()
            .find(|mel| mel.sample_rate != sample_rate)
        {
            let expected = format!("{sample_rate}, the sample rate of the codec");
            return Err(Error::config("mels.sample_rate", mel.sample_rate, expected));
        }
        Ok(Self {
            mel: MelLoss::new(&config.mels)?,
            balancer: config.balance.then(LossBalancer::default),
            config,
        })
    }

    pub(super) fn config(&self) -> &CodecLossConfig {
        &self.config
    }

    /// Fails if a sound of `time` samples is too short for a mel.
    pub(super) fn check_length(&self, time: usize) -> Result<()> {
        let frames = |mel: &MelSpectrogram| mel.stft().frames(time).map(|_| ());
        self.mel.scales().iter().try_for_each(frames)
    }

    /// The terms of sounds decoded from `wave`, `[batch, channels, time]`.
    pub(super) fn terms(&self, wave: Tensor<3>) -> Vec<Term<'static>> {
        let (mel, target) = (self.mel.clone(), wave.clone());
        let l1 = move |at: &Point<'_>| Ok((at.wave() - wave).abs().mean());
        let mel = move |at: &Point<'_>| Ok(mel.forward(rows(at.wave()), rows(target)));
        let l1: Term<'static> = ("l1", self.config.l1_weight, Box::new(l1));
        let mel: Term<'static> = ("mel", self.config.mel_weight, Box::new(mel));
        vec![l1, mel]
    }

    /// The loss of all terms, and their values. `judge` is the pass of the discriminators, which is
    /// not made if no term needs it.
    pub(super) fn combine(
        &mut self,
        decoded: Tensor<3>,
        judge: Judge<'_>,
        terms: Vec<Term<'_>>,
    ) -> Result<(Tensor<1>, Named)> {
        if let Some(balancer) = &mut self.balancer {
            return balancer.combine(decoded, judge, terms);
        }
        // A term without weight is a metric, which needs no gradient.
        let constant = Point::new(decoded.clone().detach(), judge);
        let point = Point::new(decoded.clone(), judge);
        let mut loss: Option<Tensor<1>> = None;
        let mut values = Vec::with_capacity(terms.len());
        for (name, weight, function) in terms {
            let value = function(if weight > 0.0 { &point } else { &constant })?;
            let term = value.clone() * weight;
            loss = Some(match loss {
                Some(loss) => loss + term,
                None => term,
            });
            values.push((name, value));
        }
        let loss = loss.unwrap_or_else(|| Tensor::zeros([1], &decoded.device()));
        Ok((loss, values))
    }

    pub(super) fn state(&self) -> serde_json::Value {
        match &self.balancer {
            Some(balancer) => balancer.state(),
            None => serde_json::Value::Null,
        }
    }

    pub(super) fn load_state(&mut self, state: serde_json::Value) -> Result<()> {
        match (&mut self.balancer, state.is_null()) {
            (Some(balancer), _) => balancer.load_state(state),
            (None, true) => Ok(()),
            (None, false) => {
                let expected = "null: the terms are not balanced";
                Err(Error::config("state.balancer", state, expected))
            }
        }
    }
}

/// Every channel as a sound of its own, `[batch·channels, time]`.
fn rows(wave: Tensor<3>) -> Tensor<2> {
    wave.flatten(0, 1)
}
