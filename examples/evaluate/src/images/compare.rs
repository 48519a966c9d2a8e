//! Quality and diversity: the features of samples against those of real images.

use aigc_core::{
    Result,
    eval::{
        FeatureStatistics, Features, MmdEstimator, MmdKernel, Prdc, PrdcConfig, centred_bootstrap,
        cmmd, frechet_distance, frechet_interval, maximum_mean_discrepancy, mean_pairwise_distance,
        mmd_interval,
        report::{Aspect, Better, Measure},
        sampled_pairwise_distance, vendi_score,
    },
    rng::Rng,
};

/// Confidence of all intervals.
pub(crate) const CONFIDENCE: f64 = 0.95;
/// Real images of measures whose cost grows with the square of the number of images.
const MAX_REAL: usize = 10_000;
/// Samples of which all pairs are compared.
const MAX_ALL_PAIRS: usize = 2000;

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
    pub(crate) seed: u64,
}

impl Compared<'_> {
    /// The held-out images for measures that depend on the number of images: if there are at least
    /// half as many as samples.
    pub(crate) fn comparable(&self) -> Option<&Features> {
        self.held_out.filter(|x| 2 * x.len() >= self.samples.len())
    }

    /// A measure of the samples with the value of held-out images.
    fn measure(&self, aspect: Aspect, name: &str, of: [Option<f64>; 2], better: Better) -> Measure {
        let [value, floor] = of;
        let value = value.unwrap_or(f64::NAN);
        let n = self.samples.len();
        let measure = Measure::new(aspect, name, value, better, n);
        match (floor, self.held_out) {
            (Some(floor), Some(held_out)) => {
                let measure = measure.with_floor(floor);
                let m = held_out.len();
                if m == n {
                    measure.with_note(format!("Real data: {m} held-out images."))
                } else {
                    measure.with_note(format!(
                        "Real data: {m} held-out images; another number than that of the samples \
                         ({n}) shifts their value."
                    ))
                }
            }
            _ => measure,
        }
    }

    /// A measure against the training images.
    fn against(&self, measure: Measure) -> Measure {
        measure.with_reference(self.reference, self.train.len())
    }

    /// A value of the samples, and the same of the held-out images.
    fn both(&self, value: impl Fn(&Features) -> Result<f64>) -> Result<[Option<f64>; 2]> {
        let floor = self.comparable().map(&value).transpose()?;
        Ok([Some(value(self.samples)?), floor])
    }

    fn rng(&self, purpose: &str) -> Rng {
        Rng::stream(self.seed, purpose, 0)
    }

    /// At most [`MAX_REAL`] training images, drawn at random.
    fn some_real(&self) -> Features {
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
        let (low, high) = frechet_interval(&moments, self.samples, rounds, CONFIDENCE, &mut rng)?;
        let name = match self.label {
            "InceptionV3" => "FID".to_string(),
            label => format!("Fréchet distance ({label})"),
        };
        let mut measure = self
            .against(self.measure(Aspect::Quality, &name, of, Better::Lower))
            .with_interval(low, high)
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
        measure = measure.with_warning(format!("{name}: {few}"));
        let shrunk = |statistics: &FeatureStatistics| {
            let moments = statistics.moments()?;
            moments.with_shrinkage(moments.oas_shrinkage()?)
        };
        let train = shrunk(&train)?;
        let of = self.both(|x| train.frechet_distance(&shrunk(&statistics(x)?)?))?;
        let name = format!("{name}, shrunk covariances");
        let shrunk = self
            .against(self.measure(Aspect::Quality, &name, of, Better::Lower))
            .with_explanation(
                "The same with covariances of full rank (oracle approximating shrinkage); \
                 comparable only with itself.",
            )
            .with_command("eval::GaussianMoments::with_shrinkage");
        Ok(vec![measure, shrunk])
    }

    /// The kernel distance of all samples.
    pub(crate) fn kernel_distance(&self) -> Result<Vec<Measure>> {
        let real = self.some_real();
        let of = self
            .both(|x| maximum_mean_discrepancy(&real, x, MmdKernel::KID, MmdEstimator::Unbiased))?;
        let name = match self.label {
            "InceptionV3" => "KID".to_string(),
            label => format!("Kernel distance ({label})"),
        };
        let measure = self
            .measure(Aspect::Quality, &name, of, Better::Lower)
            .with_reference(self.reference, real.len())
            .with_explanation(
                "The squared discrepancy of a cubic kernel; unbiased, so near or below 0 for equal \
                 distributions.",
            )
            .with_command("eval::maximum_mean_discrepancy, eval::mmd_interval")
            .with_note("Of all samples; published KID is a mean over subsets of 1,000.");
        // The interval needs a kernel of all pairs in each round.
        const MOST: usize = 2000;
        if self.samples.len() < 20 || real.len() < 20 {
            return Ok(vec![measure.with_warning(format!(
                "{name}: fewer than 20 samples; no interval was computed."
            ))]);
        }
        let mut rng = self.rng("kernel interval");
        let mut some = |x: &Features| {
            let mut rows = rng.permutation(x.len());
            rows.truncate(MOST);
            x.select(&rows)
        };
        let (some_real, samples) = (some(&real), some(self.samples));
        let (low, high) = mmd_interval(
            &some_real,
            &samples,
            MmdKernel::KID,
            200,
            CONFIDENCE,
            &mut rng,
        )?;
        if some_real.len() == real.len() && samples.len() == self.samples.len() {
            return Ok(vec![measure.with_interval(low, high)]);
        }
        // About the value of all samples instead of that of the drawn ones.
        let unbiased = MmdEstimator::Unbiased;
        let drawn = maximum_mean_discrepancy(&some_real, &samples, MmdKernel::KID, unbiased)?;
        let shift = of[0].map_or(0.0, |value| value - drawn);
        let measure = measure
            .with_interval(low + shift, high + shift)
            .with_note(format!(
                "The interval is of {} real images and {} samples, and wider than for all.",
                some_real.len(),
                samples.len()
            ));
        Ok(vec![measure])
    }

    /// The distance of CLIP features by Jayasumana et al. 2024.
    pub(crate) fn cmmd(&self) -> Result<Vec<Measure>> {
        let real = self.some_real();
        let of = self.both(|x| cmmd(&real, x))?;
        let measure = self
            .measure(Aspect::Quality, "CMMD", of, Better::Lower)
            .with_reference(self.reference, real.len())
            .with_explanation("The discrepancy of CLIP features under a wide Gaussian kernel.")
            .with_command("eval::cmmd")
            .with_note("Published values have the features of CLIP ViT-L/14 at 336 pixels.");
        Ok(vec![measure])
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
                .with_interval(value(&low), value(&high))
                .with_explanation(text)
                .with_command("eval::PrdcConfig::per_sample")
                .with_note(format!(
                    "Balls reach to neighbour {}; bootstrap of the samples with 200 rounds.",
                    config.nearest_k
                ))
        };
        Ok(vec![
            measure(
                Aspect::Quality,
                "Precision",
                |prdc| prdc.precision,
                "The share of samples near real images.",
            ),
            measure(
                Aspect::Quality,
                "Density",
                |prdc| prdc.density,
                "How many real images each sample is near, relative to what is usual.",
            ),
            measure(
                Aspect::Diversity,
                "Recall",
                |prdc| prdc.recall,
                "The share of real images near a sample.",
            ),
            measure(
                Aspect::Diversity,
                "Coverage",
                |prdc| prdc.coverage,
                "The share of real images whose neighbourhood has a sample.",
            ),
        ])
    }

    /// The effective number of samples, and their mean distance.
    pub(crate) fn diversity(&self) -> Result<Vec<Measure>> {
        let distance = |x: &Features| match x.len() {
            0..=MAX_ALL_PAIRS => mean_pairwise_distance(x),
            _ => sampled_pairwise_distance(x, 200_000, self.seed),
        };
        let found = distance(self.samples)?;
        let real = self.held_out.map(distance).transpose()?;
        let of = [Some(found.mean), real.map(|real| real.mean)];
        let better = of[1].map_or(Better::Higher, Better::Target);
        let name = format!("Mean pairwise distance ({})", self.label);
        let half = 1.96 * found.standard_error;
        let distance = self
            .measure(Aspect::Diversity, &name, of, better)
            .with_interval(found.mean - half, found.mean + half)
            .with_explanation("The mean distance of two samples; real data is the ideal.")
            .with_command("eval::mean_pairwise_distance");
        Ok(vec![distance])
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
        // A round decomposes a matrix of all features.
        if self.samples.width() > 256 {
            return Ok(vec![measure]);
        }
        let (n, mut rng) = (self.samples.len(), self.rng("Vendi score"));
        let (low, high) = centred_bootstrap(n, 100, CONFIDENCE, &mut rng, |items| {
            vendi_score(&self.samples.select(items))
        })?;
        let measure = measure
            .with_interval(low, high)
            .with_note("Bootstrap of the samples with 100 rounds.");
        Ok(vec![measure])
    }
}

pub(crate) fn statistics(features: &Features) -> Result<FeatureStatistics> {
    let mut statistics = FeatureStatistics::new(features.width())?;
    statistics.add_features(features)?;
    Ok(statistics)
}
