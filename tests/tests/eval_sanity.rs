//! The measures of evaluation on MNIST: training against test images is the floor, and each measure
//! moves as it must when samples get worse. `reproduce_evaluation sanity` has all measures and more
//! steps.

use aigc_core::{
    data::{
        Dataset, Image, collate_images,
        idx::{MnistDataset, Split},
        transforms::{gaussian_blur, gaussian_noise},
    },
    device::device,
    eval::{
        Classifier, FeatureStatistics, Features, GaussianMoments, KernelDistance, LeNet5,
        MmdEstimator, MmdKernel, Prdc, PrdcConfig, authenticity, closest_records, inception_score,
        maximum_mean_discrepancy, sampled_pairwise_distance, sliced_wasserstein, vendi_score,
    },
    rng::Rng,
};
use aigc_tests::folder_from;
use std::path::Path;

/// Images of each set.
const COUNT: usize = 2000;

/// `COUNT` images at equal distances, from the `first` one on.
fn mnist(data: &Path, split: Split, first: usize) -> Vec<Image> {
    let images = MnistDataset::from_dir(&data.join("mnist"), split).unwrap();
    let step = images.len() / COUNT;
    (0..COUNT)
        .map(|i| images.get(first + i * step).unwrap())
        .collect()
}

/// Features and logits.
fn classified(lenet: &LeNet5, images: &[Image]) -> (Features, Features) {
    let device = device("flex").unwrap();
    let mut features = Features::empty(LeNet5::FEATURES).unwrap();
    let mut logits = Features::empty(LeNet5::CLASSES).unwrap();
    for images in images.chunks(500) {
        let output = lenet.classify(collate_images(images.to_vec()).to_tensor(&device));
        features.extend(&output.features).unwrap();
        logits.extend(&output.logits).unwrap();
    }
    (features, logits)
}

fn pixels(images: &[Image]) -> Features {
    let values = images.iter().flat_map(|image| &image.pixels);
    let values = values.map(|value| f32::from(*value) / 255.0);
    Features::new(values.collect(), images[0].shape.numel()).unwrap()
}

/// With normal noise.
fn noisy(images: &[Image], sigma: f32) -> Vec<Image> {
    let mut rng = Rng::new(1);
    let change = |image: &Image| gaussian_noise(image, sigma, &mut rng).unwrap();
    images.iter().map(change).collect()
}

fn blurred(images: &[Image], sigma: f32) -> Vec<Image> {
    let change = |image: &Image| gaussian_blur(image, sigma).unwrap();
    images.iter().map(change).collect()
}

fn moments(features: &Features) -> GaussianMoments {
    let mut statistics = FeatureStatistics::new(features.width()).unwrap();
    statistics.add_features(features).unwrap();
    statistics.moments().unwrap()
}

/// Fréchet distance, KID, discrepancy of a Gaussian kernel, sliced Wasserstein distance.
struct Distances<'a> {
    real: &'a Features,
    moments: GaussianMoments,
    kernel: MmdKernel,
}

impl<'a> Distances<'a> {
    fn new(real: &'a Features) -> Self {
        let sigma = sampled_pairwise_distance(real, 2000, 0).unwrap().mean;
        Self {
            real,
            moments: moments(real),
            kernel: MmdKernel::Gaussian { sigma },
        }
    }

    fn of(&self, samples: &Features) -> [f64; 4] {
        let kid = KernelDistance {
            subsets: 8,
            subset_size: 400.min(samples.len()),
            ..KernelDistance::default()
        };
        let unbiased = MmdEstimator::Unbiased;
        [
            self.moments.frechet_distance(&moments(samples)).unwrap(),
            kid.distance(self.real, samples, 0).unwrap().mean,
            maximum_mean_discrepancy(self.real, samples, self.kernel, unbiased).unwrap(),
            sliced_wasserstein(self.real, samples, 2, 64, 0).unwrap(),
        ]
    }
}

/// Every distance is larger for each set of samples than for the one before.
fn assert_rise(what: &str, steps: &[[f64; 4]]) {
    for pair in steps.windows(2) {
        for (name, (before, after)) in ["Fréchet", "KID", "MMD", "sliced Wasserstein"]
            .iter()
            .zip(pair[0].iter().zip(&pair[1]))
        {
            assert!(before < after, "{what}: {name} from {before} to {after}");
        }
    }
}

fn prdc(real: &Features, samples: &Features) -> Prdc {
    PrdcConfig::default().compute(real, samples).unwrap()
}

#[test]
fn measures_move_as_samples_get_worse() {
    let Some(data) = folder_from("AIGC_DATA") else {
        return;
    };
    let weights = data.join("mnist-models/lenet5_csinva.safetensors");
    let lenet = LeNet5::from_file(&weights, &device("flex").unwrap()).unwrap();
    let train = mnist(&data, Split::Train, 0);
    let test = mnist(&data, Split::Test, 0);
    let (real, _) = classified(&lenet, &train);
    let (samples, logits) = classified(&lenet, &test);
    let distances = Distances::new(&real);
    let floor = distances.of(&samples);
    let quality = prdc(&real, &samples);
    let score = |logits: &Features| inception_score(logits, 1, None).unwrap().mean;

    // The floor: two draws from one distribution. The bounds are about twice what NumPy finds for
    // these images: 8.3, 6.5, 8.6e-4 and 0.25.
    let [frechet, kid, mmd, sliced] = floor;
    assert!(frechet < 15.0, "{frechet}");
    assert!(kid.abs() < 13.0, "{kid}");
    assert!(mmd.abs() < 1.8e-3, "{mmd}");
    assert!(sliced < 0.4, "{sliced}");
    for share in [quality.precision, quality.recall, quality.coverage] {
        assert!((0.88..0.99).contains(&share), "{quality:?}");
    }
    assert!((quality.density - 1.0).abs() < 0.1, "{quality:?}");
    assert!(score(&logits) > 9.5);

    let noise = [0.2, 0.4].map(|sigma| classified(&lenet, &noisy(&test, sigma)));
    let steps = [&noise[0].0, &noise[1].0].map(|x| distances.of(x));
    assert_rise("noise", &[floor, steps[0], steps[1]]);
    let scores = [&logits, &noise[0].1, &noise[1].1].map(score);
    assert!(scores[0] > scores[1] && scores[1] > scores[2], "{scores:?}");

    let blur = [1.0, 1.5].map(|sigma| classified(&lenet, &blurred(&test, sigma)).0);
    let steps = [distances.of(&blur[0]), distances.of(&blur[1])];
    assert_rise("blur", &[floor, steps[0], steps[1]]);

    // Fewer classes.
    let (mut steps, mut shares) = (vec![floor], vec![(quality.recall, quality.coverage)]);
    let mut scores = vec![score(&logits)];
    for classes in [8, 5, 2] {
        let kept = (0..COUNT).filter(|i| test[*i].label < Some(classes));
        let kept: Vec<usize> = kept.collect();
        let few = samples.select(&kept);
        let found = prdc(&real, &few);
        assert!(found.precision > 0.9, "{classes} classes: {found:?}");
        steps.push(distances.of(&few));
        shares.push((found.recall, found.coverage));
        scores.push(score(&logits.select(&kept)));
    }
    assert_rise("classes", &steps);
    for pair in shares.windows(2) {
        let ((recall, coverage), (less, fewer)) = (pair[0], pair[1]);
        assert!(less < recall - 0.1 && fewer < coverage - 0.1, "{shares:?}");
    }
    assert!(
        scores.windows(2).all(|pair| pair[1] < pair[0]),
        "{scores:?}"
    );

    // Each sample several times.
    let mut steps = vec![floor];
    let mut before = (quality, vendi_score(&samples).unwrap());
    for times in [10, 100] {
        let rows: Vec<usize> = (0..COUNT).map(|i| i / times * times).collect();
        let repeated = samples.select(&rows);
        let found = (prdc(&real, &repeated), vendi_score(&repeated).unwrap());
        assert!(found.0.recall <= 0.001, "{found:?}");
        assert!(found.0.coverage < 0.5 * before.0.coverage, "{found:?}");
        assert!(found.1 < before.1, "{found:?}");
        before = found;
        steps.push(distances.of(&repeated));
    }
    assert_rise("duplicates", &steps);
}

/// Noise takes samples out of the neighbourhoods of real ones, and copies have training images too
/// near: in pixels, as a classifier's features of noisy digits are in the middle of the real ones.
#[test]
fn precision_falls_with_noise_and_originality_with_copies() {
    let Some(data) = folder_from("AIGC_DATA") else {
        return;
    };
    let few = |images: &[Image]| -> Vec<Image> { images.iter().step_by(4).cloned().collect() };
    let train = mnist(&data, Split::Train, 0);
    let test = few(&mnist(&data, Split::Test, 0));
    let real = pixels(&few(&train));
    let held_out = pixels(&few(&mnist(&data, Split::Train, 7)));

    let precision: Vec<f64> = [0.0, 0.2, 0.4]
        .iter()
        .map(|sigma| prdc(&real, &pixels(&noisy(&test, *sigma))).precision)
        .collect();
    assert!(precision[0] > 0.85 && precision[1] < 0.8, "{precision:?}");
    assert!(precision[2] < 0.05, "{precision:?}");

    let copies = noisy(&few(&train), 0.02);
    let mut before: Option<(f64, f64)> = None;
    for copied in [0, test.len() / 2, test.len()] {
        let mixed = [&copies[..copied], &test[copied..]].concat();
        let samples = pixels(&mixed);
        let mut rng = Rng::new(2);
        let records = closest_records(&samples, &real, &held_out, &mut rng).unwrap();
        let found = (
            authenticity(&samples, &real).unwrap().value(),
            records.share(),
        );
        match before {
            None => assert!(
                found.0 > 0.5 && (0.42..0.58).contains(&found.1),
                "{found:?}"
            ),
            Some((authentic, nearer)) => {
                assert!(found.0 < authentic - 0.2, "{found:?}, before {before:?}");
                assert!(found.1 > nearer + 0.1, "{found:?}, before {before:?}");
            }
        }
        before = Some(found);
    }
}
