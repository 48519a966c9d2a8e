//! Training of vocoders.

use super::{
    Generated, VocoderGenerator, VocoderObjectiveConfig, WaveDiscriminator,
    checks::check_waves,
    feature_matching_loss,
    losses::{accuracy, discriminator_loss, generator_loss, mean_logit},
};
use crate::Gan;
use aigc_core::{
    Error, Result,
    data::SampleBatch,
    dsp::{MelConfig, MelLoss, MelSpectrogram, StftLoss},
    rng::Rng,
    train::{LossOutput, Objective, Phase, StepContext},
};
use burn::tensor::Tensor;
use std::marker::PhantomData;

/// Trains a vocoder `G` and discriminators `C` of its sound against each other, on batches `B` of
/// waveforms with one channel, `[batch, 1, time]` in `[−1, 1]`. The spectrograms are computed from
/// the waveforms.
///
/// A step has the phases `discriminator` and `generator` on the same batch, each with its own
/// optimizer ([`Trainer::with_optimizer`](aigc_core::train::Trainer::with_optimizer)). The loss of
/// the generator is
///
/// ```text
/// mel_weight·mel + stft_weight·stft + adversarial_weight·adversarial + feature_weight·features
/// ```
///
/// with the terms of [`VocoderObjectiveConfig`]; the last two are there from
/// [`start_step`](VocoderObjectiveConfig::start_step) on. Before it, discriminators are not
/// computed. Losses of the generator's own ([`Generated::losses`]) are added. The generator's
/// update uses the sound that was generated for that of the discriminators.
///
/// Metrics of `generator`: `mel`, `stft`, `adversarial`, `features`, also those with a weight of 0,
/// and those of the generator's own.
/// Metrics of `discriminator`: `real` and `fake` (mean logits), `accuracy`.
///
/// A run's `final` directory opens as the vocoder if the run has its configuration
/// ([`Trainer::with_model_config`](aigc_core::train::Trainer::with_model_config)), as in
/// [`HifiGan::from_pretrained`](super::HifiGan::from_pretrained).
#[derive(Debug)]
pub struct VocoderObjective<G, C, B> {
    config: VocoderObjectiveConfig,
    mel: MelSpectrogram,
    mel_loss: MelLoss,
    stft_loss: StftLoss,
    /// Sound generated in the discriminators' phase, one batch per accumulated batch.
    generated: Vec<Option<Generated>>,
    types: PhantomData<fn(G, C, B)>,
}

/// Index of the discriminators' phase.
const DISCRIMINATOR_PHASE: usize = 0;

impl<G, C, B> VocoderObjective<G, C, B>
where
    G: VocoderGenerator + 'static,
    C: WaveDiscriminator + 'static,
    B: SampleBatch<3>,
{
    /// The objective with this configuration for the networks of `model`.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range, or if the mel term is of sound with another
    /// sample rate than the generator's.
    pub fn new(config: VocoderObjectiveConfig, model: &Gan<G, C>) -> Result<Self> {
        config.validate()?;
        let mel = *model.generator.mel_config();
        let mels = if config.mels.is_empty() {
            let f_max = f64::from(mel.sample_rate) / 2.0;
            vec![MelConfig { f_max, ..mel }]
        } else {
            config.mels.clone()
        };
        if let Some(other) = mels
            .iter()
            .find(|other| other.sample_rate != mel.sample_rate)
        {
            let expected = format!("{}, that of the generator", mel.sample_rate);
            return Err(Error::config(
                "mels.sample_rate",
                other.sample_rate,
                expected,
            ));
        }
        Ok(Self {
            mel: mel.init()?,
            mel_loss: MelLoss::new(&mels)?,
            stft_loss: StftLoss::new(&config.resolutions)?,
            config,
            generated: Vec::new(),
            types: PhantomData,
        })
    }

    /// Configuration of the objective.
    pub fn config(&self) -> &VocoderObjectiveConfig {
        &self.config
    }

    /// The waveforms of a batch, `[batch, time]`, if they are long enough for every term.
    fn waves(&self, batch: &B, model: &Gan<G, C>, context: &StepContext) -> Result<Tensor<2>> {
        let waves = check_waves(batch, &context.device)?;
        let time = waves.dims()[1];
        self.mel.stft().frames(time)?;
        // What the generator makes may be shorter, by less than a frame.
        let hop = self.mel.config().hop_length;
        let least = if time > hop { time / hop * hop } else { time };
        let mut mels = self.mel_loss.scales().iter();
        mels.try_for_each(|mel| mel.stft().frames(least).map(drop))?;
        let mut resolutions = self.stft_loss.resolutions().iter();
        resolutions.try_for_each(|stft| stft.frames(least).map(drop))?;
        model.discriminator.check_len(least)?;
        Ok(waves)
    }

    /// The sound that the generator makes of the spectrograms of `real`, at most as long.
    fn generate(&self, generator: &G, real: &Tensor<2>, rng: &mut Rng) -> Result<Generated> {
        let log_mel = self.mel.log_mel_tensor(real.clone()).detach();
        let mut fake = generator.generate(log_mel, real, rng)?;
        let len = fake.wave.dims()[1].min(real.dims()[1]);
        fake.wave = fake.wave.narrow(1, 0, len);
        Ok(fake)
    }

    fn discriminator_losses(
        &mut self,
        model: &Gan<G, C>,
        real: Tensor<2>,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        if context.step < self.config.start_step {
            // A loss that no weight has a gradient of.
            let constant = Tensor::<1>::zeros([1], &context.device).require_grad();
            return Ok(LossOutput::new(constant * 1.0));
        }
        let fake = self.generate(&model.generator, &real, &mut context.rng)?;
        let slots = self.generated.len().max(context.micro_batch + 1);
        self.generated.resize(slots, None);
        self.generated[context.micro_batch] = Some(fake.clone());
        let fake = fake.wave;
        let judge = |wave: Tensor<2>| model.discriminator.judge(wave.unsqueeze_dim(1));
        let of_real = judge(real.narrow(1, 0, fake.dims()[1]));
        let of_fake = judge(fake.detach());
        let loss = self.config.loss;
        let output = LossOutput::new(discriminator_loss(loss, &of_real, &of_fake));
        Ok(output
            .with_metric("real", mean_logit(&of_real))
            .with_metric("fake", mean_logit(&of_fake))
            .with_metric("accuracy", accuracy(loss, &of_real, &of_fake)))
    }

    fn generator_losses(
        &mut self,
        model: &Gan<G, C>,
        real: Tensor<2>,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        let kept = self.generated.get_mut(context.micro_batch);
        let generated = match kept.and_then(Option::take) {
            Some(generated) => generated,
            None => self.generate(&model.generator, &real, &mut context.rng)?,
        };
        let Generated { wave: fake, losses } = generated;
        let config = &self.config;
        let real = real.narrow(1, 0, fake.dims()[1]);
        // A term without weight is a metric, which needs no gradient.
        let point = |weight: f64| match weight > 0.0 {
            true => fake.clone(),
            false => fake.clone().detach(),
        };
        let mel = point(config.mel_weight);
        let mel = self.mel_loss.forward(mel, real.clone());
        let stft = point(config.stft_weight);
        let stft = self.stft_loss.forward(stft, real.clone());
        let mut loss = mel.clone() * config.mel_weight + stft.clone() * config.stft_weight;
        let mut metrics = vec![("mel", mel), ("stft", stft)];
        for (name, own) in losses {
            loss = loss + own.clone();
            metrics.push((name, own));
        }
        if context.step >= config.start_step {
            // Gradients flow through the discriminators, but not to their weights.
            let discriminator = model.discriminator.clone().no_grad();
            let of_real = discriminator.judge(real.unsqueeze_dim(1));
            let of_fake = discriminator.judge(fake.unsqueeze_dim(1));
            let adversarial = generator_loss(config.loss, &of_real, &of_fake);
            let features = feature_matching_loss(&of_real, &of_fake);
            loss = loss
                + adversarial.clone() * config.adversarial_weight
                + features.clone() * config.feature_weight;
            metrics.extend([("adversarial", adversarial), ("features", features)]);
        }
        let metrics = metrics.into_iter();
        let metrics = metrics
            .map(|(name, value)| (name, value.detach()))
            .collect();
        Ok(LossOutput { loss, metrics })
    }
}

impl<G, C, B> Objective for VocoderObjective<G, C, B>
where
    G: VocoderGenerator + 'static,
    C: WaveDiscriminator + 'static,
    B: SampleBatch<3>,
{
    type Model = Gan<G, C>;
    type Batch = B;

    fn phases(&self) -> Vec<Phase> {
        vec![
            Phase::new("discriminator").for_field("discriminator"),
            Phase::new("generator").for_field("generator").reuse_batch(),
        ]
    }

    fn losses(
        &mut self,
        model: &Gan<G, C>,
        batch: &B,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        let real = self.waves(batch, model, context)?;
        match context.phase {
            DISCRIMINATOR_PHASE => self.discriminator_losses(model, real, context),
            _ => self.generator_losses(model, real, context),
        }
    }
}
