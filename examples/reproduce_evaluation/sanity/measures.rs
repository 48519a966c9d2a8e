//! All measures of one set of samples.

use aigc_core::{
    Result,
    eval::{
        ClassHistogram, FeatureStatistics, Features, GaussianMoments, KernelDistance, MmdEstimator,
        MmdKernel, PrdcConfig, authenticity, class_entropy, closest_records, inception_score,
        maximum_mean_discrepancy, mean_pairwise_distance, sampled_pairwise_distance,
        sliced_wasserstein, vendi_score,
    },
    rng::Rng,
};

/// A measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    Frechet,
    Kid,
    Mmd,
    Wasserstein,
    Precision,
    Density,
    Recall,
    Coverage,
    InceptionScore,
    Entropy,
    Pairwise,
    Vendi,
    Authenticity,
    NearerTrain,
}

/// The measures in the order of the columns, with their headings.
pub(super) const MEASURES: [(&str, Measure); 14] = [
    ("Fréchet", Measure::Frechet),
    ("KID", Measure::Kid),
    ("MMD", Measure::Mmd),
    ("sliced Wasserstein", Measure::Wasserstein),
    ("precision", Measure::Precision),
    ("density", Measure::Density),
    ("recall", Measure::Recall),
    ("coverage", Measure::Coverage),
    ("Inception Score", Measure::InceptionScore),
    ("entropy of classes", Measure::Entropy),
    ("pairwise distance", Measure::Pairwise),
    ("Vendi score", Measure::Vendi),
    ("authenticity", Measure::Authenticity),
    ("nearer to training", Measure::NearerTrain),
];

/// Most samples of a subset of KID.
const SUBSET: usize = 1000;
/// Subsets of KID.
const SUBSETS: usize = 20;
/// Directions of the sliced Wasserstein distance.
const DIRECTIONS: usize = 256;
/// Pairs that the width of the Gaussian kernel is taken from.
const PAIRS: usize = 10_000;

/// What samples are compared with.
#[derive(Debug)]
pub(super) struct Reference {
    features: Features,
    moments: GaussianMoments,
    held_out: Features,
    kernel: MmdKernel,
}

impl Reference {
    /// `held_out` has the same distribution as the reference `features`.
    pub(super) fn new(features: Features, held_out: Features, seed: u64) -> Result<Self> {
        let sigma = sampled_pairwise_distance(&features, PAIRS, seed)?.mean;
        Ok(Self {
            moments: moments(&features)?,
            features,
            held_out,
            kernel: MmdKernel::Gaussian { sigma },
        })
    }

    /// The values of [`MEASURES`]; none for those that need the logits of a classifier.
    pub(super) fn measure(
        &self,
        samples: &Features,
        logits: Option<&Features>,
        seed: u64,
    ) -> Result<Vec<Option<f64>>> {
        let real = &self.features;
        let prdc = PrdcConfig::default().compute(real, samples)?;
        let mut rng = Rng::stream(seed, "records", 0);
        let records = closest_records(samples, real, &self.held_out, &mut rng)?;
        let kid = KernelDistance {
            subsets: SUBSETS,
            subset_size: SUBSET.min(samples.len()),
            ..KernelDistance::default()
        };
        let value = |measure| -> Result<Option<f64>> {
            Ok(Some(match measure {
                Measure::Frechet => self.moments.frechet_distance(&moments(samples)?)?,
                Measure::Kid => kid.distance(real, samples, seed)?.mean,
                Measure::Mmd => {
                    let estimator = MmdEstimator::Unbiased;
                    maximum_mean_discrepancy(real, samples, self.kernel, estimator)?
                }
                Measure::Wasserstein => sliced_wasserstein(real, samples, 2, DIRECTIONS, seed)?,
                Measure::Precision => prdc.precision,
                Measure::Density => prdc.density,
                Measure::Recall => prdc.recall,
                Measure::Coverage => prdc.coverage,
                Measure::InceptionScore => match logits {
                    Some(logits) => inception_score(logits, 1, None)?.mean,
                    None => return Ok(None),
                },
                Measure::Entropy => match logits {
                    Some(logits) => class_entropy(&classes(logits)?)?.nats,
                    None => return Ok(None),
                },
                Measure::Pairwise => mean_pairwise_distance(samples)?.mean,
                Measure::Vendi => vendi_score(samples)?,
                Measure::Authenticity => authenticity(samples, real)?.value(),
                Measure::NearerTrain => records.share(),
            }))
        };
        MEASURES
            .iter()
            .map(|(_, measure)| value(*measure))
            .collect()
    }
}

fn moments(features: &Features) -> Result<GaussianMoments> {
    let mut statistics = FeatureStatistics::new(features.width())?;
    statistics.add_features(features)?;
    statistics.moments()
}

/// How often each class has the largest logit.
fn classes(logits: &Features) -> Result<ClassHistogram> {
    let mut histogram = ClassHistogram::new(logits.width())?;
    let largest = |row: &[f32]| {
        let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        best.map_or(0, |(class, _)| class as u32)
    };
    histogram.add(logits.rows().map(largest))?;
    Ok(histogram)
}
