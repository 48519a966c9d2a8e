//! Quality and diversity: the features of samples against those of real images.

use crate::{
    diversity::pairwise_distance,
    interval::{CONFIDENCE, checked, of_mean, unless_stopped, with},
};
use aigc_core::{
    CancelToken, Result,
    eval::{
        FeatureStatistics, Features, Prdc, PrdcConfig, Proportion, centred_bootstrap,
        frechet_distance, frechet_interval,
        report::{Aspect, Better, Measure},
        vendi_score,
    },
    rng::Rng,
};
use aigc_examples::Progress;

/// Real images of measures whose cost grows with the square of the number of images.
const MAX_REAL: usize = 10_000;
/// Features up to which a round of the Vendi score takes little time.
const MAX_VENDI: usize = 256;

/// Features of samples and of real images.
pub(crate) struct Compared<'a> {
    pub(crate) samples: &'a Features,
    pub(crate) train: &'a Features,
    /// Held-out images in the place of the samples: what real data reaches.
    pub(crate) held_out: Option<&'a Features>,
    /// The features, such as `pixels`.
    pub(crate) label: &'a str,
    /// Name of the training images.
    pub(crate) reference: &'a str,
    /// Name of the held-out images.
    pub(crate) held_out_name: &'a str,
    pub(crate) seed: u64,
    pub(crate) stop: &'a CancelToken,
}

impl Compared<'_> {
    /// The held-out images for measures that depend on the number of images: if there are at least
    /// half as many as samples.
    pub(crate) fn comparable(&self) -> Option<&Features> {
        self.held_out.filter(|x| 2 * x.len() >= self.samples.len())
    }

    /// A measure of the samples with the value of held-out images, which are its reference set.
    pub(super) fn measure(
        &self,
        aspect: Aspect,
        name: &str,
        of: [Option<f64>; 2],
        better: Better,
    ) -> Measure {
        let [value, floor] = of;
        let value = value.unwrap_or(f64::NAN);
        let n = self.samples.len();
        let measure = Measure::new(aspect, name, value, better, n);
        match (floor, self.held_out) {
            (Some(floor), Some(held_out)) => {
                let m = held_out.len();
                let measure = measure
                    .with_floor(floor)
                    .with_reference(self.held_out_name, m);
                if m == n {
                    measure.with_note(format!("Real data: {m} held-out images."))
                } else {
                    measure.with_note(format!(
                        "Real data: {m} held-out images; another number than that of the samples \
                         ({n}) shifts their value."
                    ))
                }
            }
            (None, Some(held_out)) => measure.with_note(format!(
                "No value of real data: {} held-out images do not compare with {n} samples.",
                held_out.len()
            )),
            _ => measure.with_note("No value of real data: there are no held-out images."),
        }
    }

    /// A measure against the training images.
    fn against(&self, measure: Measure) -> Measure {
        measure.with_reference(self.reference, self.train.len())
    }

    /// A value of the samples, and the same of the held-out images.
    pub(super) fn both(
        &self,
        value: impl Fn(&Features) -> Result<f64>,
    ) -> Result<[Option<f64>; 2]> {
        let floor = self.comparable().map(&value).transpose()?;
        Ok([Some(value(self.samples)?), floor])
    }

    pub(super) fn rng(&self, purpose: &str) -> Rng {
        Rng::stream(self.seed, purpose, 0)
    }

    /// At most [`MAX_REAL`] training images, drawn at random.
    pub(super) fn some_real(&self) -> Features {
        if self.train.len() <= MAX_REAL {
            return self.train.clone();
        }
        let mut rows = self.rng("real images").permutation(self.train.len());
        rows.truncate(MAX_REAL);
        self.train.select(&rows)
    }

    /// The Fréchet distance; with too few samples for the features, also that of shrunk
    /// covariances.
    pub(crate) fn frechet(&self) -> Result<Vec<Measure>> {
        let train = statistics(self.train)?;
        let of = self.both(|x| frechet_distance(&train, &statistics(x)?))?;
        let width = self.samples.width();
        let rounds = match width {
            0..=128 => 100,
            129..=1024 => 40,
            _ => 20,
        };
        let moments = train.moments()?;
        let mut rng = self.rng("Fréchet interval");
        let progress = Progress::new("rounds of the Fréchet distance", rounds, self.stop);
        let found = frechet_interval(
            &moments,
            self.samples,
            rounds,
            CONFIDENCE,
            &mut rng,
            |round| progress.add(round.min(1)),
        );
        let name = match self.label {
            "InceptionV3" => "FID".to_string(),
            label => format!("Fréchet distance ({label})"),
        };
        let measure = self.against(self.measure(Aspect::Quality, &name, of, Better::Lower));
        let mut measure = unless_stopped(measure, found)?
            .with_explanation(
                "How far means and covariances of the features are from those of real data.",
            )
            .with_command("eval::frechet_distance, eval::frechet_interval")
            .with_note(format!("Bootstrap of the samples with {rounds} rounds."));
        let samples = statistics(self.samples)?;
        let few = samples.warning().or(train.warning());
        let Some(few) = few else {
            return Ok(vec![measure]);
        };
        measure = measure.with_warning(few);
        let shrunk = |x: &FeatureStatistics| {
            let moments = x.moments()?;
            moments.with_shrinkage(moments.oas_shrinkage()?)
        };
        let train = shrunk(&train)?;
        let distance = |x: &Features| train.frechet_distance(&shrunk(&statistics(x)?)?);
        let of = self.both(distance)?;
        let name = format!("{name}, shrunk covariances");
        let progress = Progress::new("rounds of shrunk covariances", rounds, self.stop);
        let (n, mut rng) = (self.samples.len(), self.rng("shrunk covariances"));
        let found = centred_bootstrap(n, rounds, CONFIDENCE, &mut rng, |items| {
            progress.add(1)?;
            distance(&self.samples.select(items))
        });
        let found = found.map(|(low, high)| (low.max(0.0), high));
        let shrunk = self.against(self.measure(Aspect::Quality, &name, of, Better::Lower));
        let shrunk = unless_stopped(shrunk, found)?
            .with_explanation(
                "The same with covariances of full rank (oracle approximating shrinkage); \
                 comparable only with itself.",
            )
            .with_command("eval::GaussianMoments::with_shrinkage")
            .with_note(format!("Bootstrap of the samples with {rounds} rounds."));
        Ok(vec![measure, shrunk])
    }

    /// Precision, density, recall and coverage.
    pub(crate) fn neighbourhoods(&self) -> Result<Vec<Measure>> {
        let real = self.some_real();
        let config = PrdcConfig::default();
        let each = config.per_sample(&real, self.samples)?;
        let found = each.prdc();
        let mut rng = self.rng("neighbourhoods");
        let [low, high] = each.intervals(200, CONFIDENCE, &mut rng)?;
        // Fewer than the neighbours have no neighbourhoods.
        let floor = self.comparable().filter(|x| x.len() > config.nearest_k);
        let floor = floor.map(|x| config.compute(&real, x)).transpose()?;
        let measure = |aspect, name: &str, value: fn(&Prdc) -> f64, text: &str| {
            let name = format!("{name} ({})", self.label);
            let of = [Some(value(&found)), floor.as_ref().map(value)];
            self.measure(aspect, &name, of, Better::Higher)
                .with_reference(self.reference, real.len())
                .with_explanation(text)
                .with_command("eval::PrdcConfig::per_sample")
                .with_note(format!("Balls reach to neighbour {}.", config.nearest_k))
        };
        let drawn = |measure: Measure, value: fn(&Prdc) -> f64| {
            let interval = Ok((value(&low), value(&high)));
            with(measure, checked(self.samples.len(), interval))
                .with_note("Bootstrap of the samples with 200 rounds.")
        };
        // A share of independent samples, whose interval has a width at 0 and 1, too.
        let precise = each.balls.iter().filter(|balls| **balls > 0).count();
        let (least, most) = Proportion::new(precise, each.balls.len())?.interval();
        let precision = measure(
            Aspect::Quality,
            "Precision",
            |prdc| prdc.precision,
            "The share of samples near real images.",
        );
        let density = measure(
            Aspect::Quality,
            "Density",
            |prdc| prdc.density,
            "How many real images each sample is near, relative to what is usual.",
        );
        let recall = measure(
            Aspect::Diversity,
            "Recall",
            |prdc| prdc.recall,
            "The share of real images near a sample.",
        );
        let coverage = measure(
            Aspect::Diversity,
            "Coverage",
            |prdc| prdc.coverage,
            "The share of real images whose neighbourhood has a sample.",
        );
        Ok(vec![
            precision.with_interval(least, most),
            drawn(density, |prdc| prdc.density),
            drawn(recall, |prdc| prdc.recall),
            drawn(coverage, |prdc| prdc.coverage),
        ])
    }

    /// The mean distance of the samples.
    pub(crate) fn diversity(&self) -> Result<Vec<Measure>> {
        let distance = |x: &Features| pairwise_distance(x, self.seed);
        let found = distance(self.samples)?;
        let real = self.held_out.map(distance).transpose()?;
        let of = [Some(found.mean), real.map(|real| real.mean)];
        let better = of[1].map_or(Better::Higher, Better::Target);
        let name = format!("Mean pairwise distance ({})", self.label);
        let measure = self
            .measure(Aspect::Diversity, &name, of, better)
            .with_explanation("The mean distance of two samples; real data is the ideal.")
            .with_command("eval::mean_pairwise_distance");
        let mean = (found.mean, found.standard_error);
        Ok(vec![of_mean(measure, self.samples.len(), mean)])
    }

    /// The effective number of samples.
    pub(crate) fn vendi(&self) -> Result<Vec<Measure>> {
        // It grows with the number of samples.
        let real = self.held_out.filter(|x| x.len() == self.samples.len());
        let real = real.map(vendi_score).transpose()?;
        let of = [Some(vendi_score(self.samples)?), real];
        let name = format!("Vendi score ({})", self.label);
        let measure = self
            .measure(Aspect::Diversity, &name, of, Better::Higher)
            .with_explanation("The effective number of different samples.")
            .with_command("eval::vendi_score");
        let (n, width) = (self.samples.len(), self.samples.width());
        if width > MAX_VENDI {
            return Ok(vec![measure.with_note(format!(
                "No interval: each of its rounds would decompose a matrix of {width} features; \
                 there is one up to {MAX_VENDI}."
            ))]);
        }
        let progress = Progress::new("rounds of the Vendi score", 100, self.stop);
        let mut rng = self.rng("Vendi score");
        let found = centred_bootstrap(n, 100, CONFIDENCE, &mut rng, |items| {
            progress.add(1)?;
            vendi_score(&self.samples.select(items))
        });
        let measure = measure.with_note("Bootstrap of the samples with 100 rounds.");
        Ok(vec![unless_stopped(measure, found)?])
    }
}

pub(crate) fn statistics(features: &Features) -> Result<FeatureStatistics> {
    let mut statistics = FeatureStatistics::new(features.width())?;
    statistics.add_features(features)?;
    Ok(statistics)
}
