//! Samples that get worse, and what the measures must do.

use super::{measures::Measure, order};
use aigc_core::{
    Error, Result,
    data::{
        Image,
        transforms::{gaussian_blur, gaussian_noise},
    },
    rng::Rng,
};

/// The series of samples without any change.
const FLOOR: &str = "floor";
/// The series in the order of the table.
pub(super) const SERIES: [&str; 5] = ["noise", "blur", "classes", "duplicates", "copies"];

/// One set of samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Level {
    /// Test images.
    Floor,
    /// With normal noise of this standard deviation, relative to the range of values.
    Noise(f32),
    /// Blurred with a Gaussian of this standard deviation in pixels.
    Blur(f32),
    /// Of the first so many classes only.
    Classes(u32),
    /// Each sample so many times.
    Duplicates(usize),
    /// This share in percent replaced by nearly exact copies of reference images.
    Copies(usize),
}

/// Noise of a copy.
const COPY_NOISE: f32 = 0.02;

impl Level {
    /// The floor, and then all series.
    pub(super) fn all() -> Vec<Self> {
        let mut levels = vec![Self::Floor];
        levels.extend([0.1, 0.2, 0.4, 0.8].map(Self::Noise));
        levels.extend([1.0, 1.5, 2.0].map(Self::Blur));
        levels.extend([8, 5, 2].map(Self::Classes));
        levels.extend([2, 10, 100].map(Self::Duplicates));
        levels.extend([25, 50, 100].map(Self::Copies));
        levels
    }

    pub(super) fn series(self) -> &'static str {
        match self {
            Self::Floor => FLOOR,
            Self::Noise(_) => SERIES[0],
            Self::Blur(_) => SERIES[1],
            Self::Classes(_) => SERIES[2],
            Self::Duplicates(_) => SERIES[3],
            Self::Copies(_) => SERIES[4],
        }
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Floor => write!(f, "test images"),
            Self::Noise(sigma) => write!(f, "σ = {sigma}"),
            Self::Blur(sigma) => write!(f, "σ = {sigma} pixels"),
            Self::Classes(classes) => write!(f, "{classes} of 10"),
            Self::Duplicates(times) => write!(f, "each {times} times"),
            Self::Copies(percent) => write!(f, "{percent} %"),
        }
    }
}

/// The images that the samples are made of.
#[derive(Debug)]
pub(super) struct Sets {
    /// Training images.
    pub(super) reference: Vec<Image>,
    /// Other training images.
    pub(super) held_out: Vec<Image>,
    /// All test images, in random order; the first `n` are the samples.
    test: Vec<Image>,
    n: usize,
}

impl Sets {
    /// Draws `n` images each of the training and the test images.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a test image has no label.
    pub(super) fn new(train: &[Image], test: &[Image], n: usize, seed: u64) -> Result<Self> {
        if test.iter().any(|image| image.label.is_none()) {
            let expected = "labels, too: t10k-labels-idx1-ubyte.gz";
            return Err(Error::argument("--data", "images without labels", expected));
        }
        let pick = |from: &[Image], rows: &[usize]| -> Vec<Image> {
            rows.iter().map(|row| from[*row].clone()).collect()
        };
        let rows = order(train.len(), "training images", seed);
        Ok(Self {
            reference: pick(train, &rows[..n]),
            held_out: pick(train, &rows[n..2 * n]),
            test: pick(test, &order(test.len(), "test images", seed)),
            n,
        })
    }

    /// The samples of a level.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are none.
    pub(super) fn images(&self, level: &Level, seed: u64) -> Result<Vec<Image>> {
        let samples = &self.test[..self.n];
        let mut rng = Rng::stream(seed, "noise", 0);
        let images: Vec<Image> = match *level {
            Level::Floor => samples.to_vec(),
            Level::Noise(sigma) => {
                let noisy = samples.iter();
                let noisy = noisy.map(|image| gaussian_noise(image, sigma, &mut rng));
                noisy.collect::<Result<_>>()?
            }
            Level::Blur(sigma) => {
                let blurred = samples.iter().map(|image| gaussian_blur(image, sigma));
                blurred.collect::<Result<_>>()?
            }
            Level::Classes(classes) => {
                let kept = self.test.iter().filter(|image| image.label < Some(classes));
                kept.take(self.n).cloned().collect()
            }
            Level::Duplicates(times) => {
                let kept = samples.iter().take(self.n / times);
                kept.flat_map(|image| std::iter::repeat_n(image.clone(), times))
                    .collect()
            }
            Level::Copies(percent) => {
                let copies = self.n * percent / 100;
                let copied = self.reference[..copies].iter();
                let copied = copied.map(|image| gaussian_noise(image, COPY_NOISE, &mut rng));
                let mut images = copied.collect::<Result<Vec<Image>>>()?;
                images.extend_from_slice(&samples[copies..]);
                images
            }
        };
        if images.len() < 20 {
            let found = format!("{} samples for {level}", images.len());
            return Err(Error::argument("--data", found, "at least 20"));
        }
        Ok(images)
    }
}

/// Where a measure goes as samples get worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Rises,
    Falls,
}

impl Direction {
    /// Whether no step goes the other way, and the last value differs from the first.
    pub(super) fn is_kept(self, values: &[f64]) -> bool {
        let signed = |value: &f64| match self {
            Self::Rises => *value,
            Self::Falls => -value,
        };
        let values: Vec<f64> = values.iter().map(signed).collect();
        let steps = values.windows(2).all(|pair| pair[0] <= pair[1]);
        steps && values.first() < values.last()
    }
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rises => "rises",
            Self::Falls => "falls",
        })
    }
}

/// The direction that a measure must have in a series, where its definition says so.
///
/// Noise takes samples out of the balls of real ones in pixels. Not in the features of a
/// classifier: it is not sure of noisy digits, and their features move to the middle of the real
/// ones. Duplicates take a share of only `(k − 1)/(n − 1)` of the mean pairwise distance, which is
/// less than its error; and blurred images are closer to each other, and to real ones in pixels.
pub(super) fn expected(series: &str, measure: Measure, pixels: bool) -> Option<Direction> {
    use Direction::{Falls, Rises};
    use Measure::{
        Authenticity, Coverage, Density, Entropy, Frechet, InceptionScore, Kid, Mmd, NearerTrain,
        Precision, Recall, Vendi, Wasserstein,
    };
    match (series, measure) {
        ("noise" | "blur" | "classes", Frechet | Kid | Mmd | Wasserstein) => Some(Rises),
        ("noise", Precision | Density) if pixels => Some(Falls),
        ("noise", InceptionScore) => Some(Falls),
        ("blur", Recall | InceptionScore) => Some(Falls),
        ("classes", Recall | Coverage | InceptionScore | Entropy) => Some(Falls),
        ("duplicates", Recall | Coverage | Vendi) => Some(Falls),
        ("copies", Authenticity) => Some(Falls),
        ("copies", NearerTrain) => Some(Rises),
        _ => None,
    }
}
