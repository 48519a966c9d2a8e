//! Distances between sets of features, against the numbers of public implementations: the fixtures
//! of `tests/reference/distribution.py`.

use aigc_core::{
    eval::{
        FeatureStatistics, Features, GaussianMoments, KernelDistance, MeanStd, MmdEstimator,
        MmdKernel, PrdcConfig, cmmd, cmmd_interval, frechet_distance, frechet_interval,
        inception_score, maximum_mean_discrepancy, mean_pairwise_distance, mmd_interval,
        sliced_wasserstein_along, vendi_score, wasserstein_1d,
    },
    rng::Rng,
};
use aigc_tests::{own_fixtures, python_with, reference::Fixture};
use std::process::Command;

fn fixture() -> Fixture {
    Fixture::read("eval/distribution/cases.safetensors")
}

fn features(cases: &Fixture, name: &str) -> Features {
    let stored = &cases.tensors[name];
    Features::new(stored.floats(), stored.shape[1]).unwrap()
}

fn number(cases: &Fixture, name: &str) -> f64 {
    cases.json[name].as_f64().expect(name)
}

fn first(x: &Features, n: usize) -> Features {
    x.select(&(0..n).collect::<Vec<_>>())
}

fn statistics(x: &Features) -> FeatureStatistics {
    let mut statistics = FeatureStatistics::new(x.width()).unwrap();
    for row in x.rows() {
        let row: Vec<f64> = row.iter().copied().map(f64::from).collect();
        statistics.add_rows(&row, x.width()).unwrap();
    }
    statistics
}

#[track_caller]
fn assert_close(found: f64, expected: f64) {
    let difference = (found - expected).abs();
    assert!(
        difference <= 1e-4 * expected.abs() + 1e-9,
        "{found}, expected {expected}"
    );
}

/// The subsets that torch-fidelity draws, and its mean and deviation over them.
#[test]
fn kid_matches_torch_fidelity() {
    let cases = fixture();
    let (a, b) = (features(&cases, "a"), features(&cases, "b"));
    let stored = &cases.tensors["subsets"];
    let rows: Vec<usize> = stored.integers().iter().map(|row| *row as usize).collect();
    let size = stored.shape[2];
    let subsets: Vec<_> = rows
        .chunks(2 * size)
        .map(|pair| (pair[..size].to_vec(), pair[size..].to_vec()))
        .collect();
    let MeanStd { mean, std, count } = KernelDistance::default()
        .distance_of_subsets(&a, &b, &subsets)
        .unwrap();
    assert_close(mean, number(&cases, "kid_mean"));
    assert_close(std, number(&cases, "kid_std"));
    assert_eq!(count, 6);
    // Our own draws are around the discrepancy of all samples, which subsets estimate without bias;
    // the bound is nearly four times the error of the mean of 40.
    let drawn = KernelDistance {
        subsets: 40,
        subset_size: size,
        ..KernelDistance::default()
    };
    let drawn = drawn.distance(&a, &b, 1).unwrap();
    let whole = maximum_mean_discrepancy(&a, &b, MmdKernel::KID, MmdEstimator::Unbiased).unwrap();
    assert!((drawn.mean - whole).abs() < 0.5 * std, "{drawn} {whole}");
}

#[test]
fn discrepancies_match_torchmetrics_and_torch_fidelity() {
    let cases = fixture();
    let (a, b) = (first(&features(&cases, "a"), 90), features(&cases, "b"));
    let of = |kernel| maximum_mean_discrepancy(&a, &b, kernel, MmdEstimator::Unbiased).unwrap();
    assert_close(of(MmdKernel::KID), number(&cases, "kid_torchmetrics"));
    let gaussian = of(MmdKernel::Gaussian { sigma: 4.0 });
    assert_close(gaussian, number(&cases, "gaussian_mmd"));
}

#[test]
fn cmmd_matches_its_formula() {
    let cases = fixture();
    let found = cmmd(&features(&cases, "a"), &features(&cases, "b")).unwrap();
    assert_close(found, number(&cases, "cmmd"));
}

/// Around the numbers of the public implementations.
#[test]
fn intervals_hold_the_distances() {
    let cases = fixture();
    let (a, b) = (features(&cases, "a"), features(&cases, "b"));
    let mut rng = Rng::new(1);
    let moments = statistics(&b).moments().unwrap();
    let first = first(&a, 90);
    for (name, (low, high)) in [
        ("cmmd", cmmd_interval(&a, &b, 200, 0.95, &mut rng).unwrap()),
        (
            "kid_torchmetrics",
            mmd_interval(&first, &b, MmdKernel::KID, 200, 0.95, &mut rng).unwrap(),
        ),
        (
            "fid_pytorch_fid",
            frechet_interval(&moments, &a, 100, 0.95, &mut rng, |_| Ok(())).unwrap(),
        ),
    ] {
        let value = number(&cases, name);
        assert!(low < value && value < high, "{name}: {low} {value} {high}");
    }
}

/// Exactly: the numbers are counts. The third pair is a set of samples against repeats of some of
/// them, where it matters whether the surface of a ball is part of it.
#[test]
fn precision_and_recall_match_torch_fidelity_and_prdc() {
    let cases = fixture();
    let (a, b) = (features(&cases, "a"), features(&cases, "b"));
    let repeats = a.select(&(0..90).map(|i| i % 20).collect::<Vec<_>>());
    for (name, real, fake) in [("ab", &a, &b), ("ba", &b, &a), ("collapsed", &a, &repeats)] {
        for nearest_k in [3, 5] {
            let found = |inclusive| {
                let config = PrdcConfig {
                    nearest_k,
                    inclusive,
                };
                config.compute(real, fake).unwrap()
            };
            let expected = |package: &str, field: &str| {
                let expected = &cases.json["prdc"][name][format!("{package}_{nearest_k}")][field];
                expected.as_f64().unwrap()
            };
            let prdc = found(false);
            assert_eq!(
                prdc.precision,
                expected("prdc", "precision"),
                "{name} {nearest_k}"
            );
            assert_eq!(
                prdc.recall,
                expected("prdc", "recall"),
                "{name} {nearest_k}"
            );
            assert_eq!(
                prdc.coverage,
                expected("prdc", "coverage"),
                "{name} {nearest_k}"
            );
            // prdc multiplies by a rounded 1/k.
            let balls = |density: f64| (density * (nearest_k * fake.len()) as f64).round();
            assert_eq!(
                balls(prdc.density),
                balls(expected("prdc", "density")),
                "{name}"
            );
            // torch-fidelity has 32 bits.
            let fidelity = found(true);
            for (found, field) in [
                (fidelity.precision, "precision"),
                (fidelity.recall, "recall"),
            ] {
                let expected = expected("torch_fidelity", field) as f32;
                assert_eq!(found as f32, expected, "{name} {nearest_k} {field}");
            }
        }
    }
}

/// Splits of different sizes, in the given order.
#[test]
fn inception_score_matches_torch_fidelity() {
    let cases = fixture();
    let logits = features(&cases, "logits");
    for splits in [1, 10] {
        let found = inception_score(&logits, splits, None).unwrap();
        let expected = &cases.json["inception_score"][splits.to_string()];
        assert_close(found.mean, expected[0].as_f64().unwrap());
        assert_close(found.std, expected[1].as_f64().unwrap());
    }
}

#[test]
fn frechet_distance_matches_torch_fidelity_and_pytorch_fid() {
    let cases = fixture();
    let (a, b) = (features(&cases, "a"), features(&cases, "b"));
    let (from_a, from_b) = (statistics(&a), statistics(&b));
    for expected in ["fid_torch_fidelity", "fid_pytorch_fid"] {
        let found = frechet_distance(&from_a, &from_b).unwrap();
        assert_close(found, number(&cases, expected));
    }
    // The same from whole sets, from merged parts, and the other way round.
    let mut merged = FeatureStatistics::new(a.width()).unwrap();
    merged.add_features(&first(&a, 50)).unwrap();
    let rest: Vec<usize> = (50..a.len()).collect();
    merged.merge(&statistics(&a.select(&rest))).unwrap();
    let found = frechet_distance(&from_b, &merged).unwrap();
    assert_close(found, number(&cases, "fid_pytorch_fid"));
}

/// Nine samples of twelve features, with scikit-learn's intensity.
#[test]
fn shrinkage_matches_scikit_learn() {
    let cases = fixture();
    let few = statistics(&first(&features(&cases, "a"), 9));
    assert!(few.is_singular());
    let few = few.moments().unwrap();
    let intensity = few.oas_shrinkage().unwrap();
    assert_close(intensity, number(&cases, "oas_shrinkage"));
    let shrunk = few.with_shrinkage(intensity).unwrap();
    let other = statistics(&features(&cases, "b")).moments().unwrap();
    let found = shrunk.frechet_distance(&other).unwrap();
    assert_close(found, number(&cases, "fid_shrunk"));
}

/// A file of numpy is read; numpy reads ours.
#[test]
fn statistics_are_exchanged_with_pytorch_fid() {
    let cases = fixture();
    let path = own_fixtures().join("eval/distribution/statistics.npz");
    let loaded = GaussianMoments::load(&path).unwrap();
    assert_eq!((loaded.width(), loaded.count()), (12, None));
    let own = statistics(&features(&cases, "a")).moments().unwrap();
    for i in 0..12 {
        assert!((loaded.mean()[i] - own.mean()[i]).abs() < 1e-12);
        for j in 0..12 {
            assert!((loaded.covariance(i, j) - own.covariance(i, j)).abs() < 1e-10);
        }
    }
    let other = statistics(&features(&cases, "b")).moments().unwrap();
    let distance = loaded.frechet_distance(&other).unwrap();
    assert_close(distance, number(&cases, "fid_pytorch_fid"));

    let Some(python) = python_with("numpy") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("saved.npz");
    own.save(&saved).unwrap();
    let check = "import sys, numpy as np; a, b = map(np.load, sys.argv[1:]); \
                 assert a['count'] == 120 and a['sigma'].shape == (12, 12); \
                 assert all(np.allclose(a[k], b[k], rtol=1e-10) for k in ('mu', 'sigma'))";
    let output = Command::new(python)
        .args(["-c", check])
        .args([&saved, &path])
        .output()
        .unwrap();
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{problem}");
}

/// Sets of 120 and 90 samples.
#[test]
fn wasserstein_distances_match_scipy() {
    let cases = fixture();
    let (a, b) = (features(&cases, "a"), features(&cases, "b"));
    let column = |x: &Features| -> Vec<f64> { x.rows().map(|row| f64::from(row[0])).collect() };
    let found = wasserstein_1d(&column(&a), &column(&b), 1).unwrap();
    assert_close(found, number(&cases, "wasserstein_1"));
    let directions = features(&cases, "directions");
    for order in [1, 2] {
        let found = sliced_wasserstein_along(&a, &b, order, &directions).unwrap();
        assert_close(found, number(&cases, &format!("sliced_{order}")));
    }
}

/// More samples than features, and fewer.
#[test]
fn diversity_matches_references() {
    let cases = fixture();
    let a = features(&cases, "a");
    assert_close(vendi_score(&a).unwrap(), number(&cases, "vendi"));
    assert_close(
        vendi_score(&first(&a, 9)).unwrap(),
        number(&cases, "vendi_few"),
    );
    assert_close(
        mean_pairwise_distance(&a).unwrap().mean,
        number(&cases, "pairwise"),
    );
}
