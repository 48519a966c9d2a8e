use super::*;
use crate::{eval::distribution::tests::normal, rng::Rng};

/// All distances in 64 bits, as the definition has it.
fn by_definition(config: PrdcConfig, real: &Features, fake: &Features) -> Prdc {
    let distance = squared_distance;
    let radii = |set: &Features| -> Vec<f64> {
        let radius = |row| {
            let mut all: Vec<f64> = set.rows().map(|other| distance(row, other)).collect();
            all.sort_by(f64::total_cmp);
            all[config.nearest_k]
        };
        set.rows().map(radius).collect()
    };
    let (r, f) = (radii(real), radii(fake));
    let within = |d: f64, radius: f64| d < radius || config.inclusive && d == radius;
    let balls = |j: usize| {
        let of = |i: &usize| within(distance(real.row(*i), fake.row(j)), r[*i]);
        (0..real.len()).filter(of).count()
    };
    let share =
        |flags: Vec<bool>| flags.iter().filter(|flag| **flag).count() as f64 / flags.len() as f64;
    let any = |i: usize, radius: &dyn Fn(usize) -> f64| {
        (0..fake.len()).any(|j| within(distance(real.row(i), fake.row(j)), radius(j)))
    };
    let counts: Vec<usize> = (0..fake.len()).map(balls).collect();
    Prdc {
        precision: share(counts.iter().map(|n| *n > 0).collect()),
        recall: share((0..real.len()).map(|i| any(i, &|j| f[j])).collect()),
        density: counts.iter().sum::<usize>() as f64 / (config.nearest_k * fake.len()) as f64,
        coverage: share((0..real.len()).map(|i| any(i, &|_| r[i])).collect()),
    }
}

/// Also far from zero and with many equal samples, where products in 32 bits cannot tell
/// distances apart, and over several blocks.
#[test]
fn blocks_give_what_the_definition_gives() {
    let mut rng = Rng::new(5);
    let mut set = |n: usize, shift: f32, scale: f32| {
        let values = rng.normal_vec(n * 6);
        Features::new(values.iter().map(|v| v * scale + shift).collect(), 6).unwrap()
    };
    let (real, fake) = (set(1100, 0.0, 1.0), set(300, 0.4, 0.9));
    let (far, near) = (set(530, 3000.0, 0.01), set(200, 3000.004, 0.01));
    let numbers: Vec<usize> = (0..500).map(|i| i % 120).collect();
    let repeated = real.select(&numbers);
    for nearest_k in [1, 5] {
        for inclusive in [false, true] {
            let config = PrdcConfig {
                nearest_k,
                inclusive,
            };
            for (real, fake) in [(&real, &fake), (&far, &near), (&real, &repeated)] {
                let found = config.compute(real, fake).unwrap();
                assert_eq!(found, by_definition(config, real, fake));
                assert!(found.precision > 0.2 && found.coverage > 0.05, "{found:?}");
            }
        }
    }
}

/// Values whose squares 32 bits do not have, and samples at the centre of the others, whose
/// inner products are 0.
#[test]
fn values_of_any_size_give_what_the_definition_gives() {
    let mut rng = Rng::new(6);
    let mut set = |n: usize| rng.normal_vec(n * 4);
    let (real, fake) = (set(90), set(60));
    for scale in [1e-42, 1e-30, 1e30] {
        let scaled =
            |values: &[f32]| Features::new(values.iter().map(|v| v * scale).collect(), 4).unwrap();
        let (real, fake) = (scaled(&real), scaled(&fake));
        let found = PrdcConfig::default().compute(&real, &fake).unwrap();
        assert_eq!(found, by_definition(PrdcConfig::default(), &real, &fake));
    }
    // Small values among large ones.
    let mixed = |values: &[f32]| {
        let scaled = values.iter().enumerate();
        let scaled = scaled.map(|(i, v)| v * if i / 4 % 2 == 0 { 1.0 } else { 1e-22 });
        Features::new(scaled.collect(), 4).unwrap()
    };
    let (real, fake) = (mixed(&real), mixed(&fake));
    let found = PrdcConfig::default().compute(&real, &fake).unwrap();
    assert_eq!(found, by_definition(PrdcConfig::default(), &real, &fake));
}

/// Nothing but copies of one sample: as many candidates as samples if they were all kept.
#[test]
fn collapsed_sets_keep_few_candidates() {
    let real = normal(7, 200, 8);
    let fake = real.select(&[3; 2000]);
    let found = PrdcConfig::default().compute(&real, &fake).unwrap();
    assert_eq!(found, by_definition(PrdcConfig::default(), &real, &fake));
    assert_eq!((found.precision, found.recall), (1.0, 0.0));
    let points = Points::new(&fake, &mean(&real), 1.0);
    assert_eq!(radii(&points, 5), [0.0; 2000]);
    let mut near = Nearest::new(5);
    for sample in 0..2000 {
        near.offer(1.0, 0.5, sample, |sample| 1.0 + 1e-9 * sample as f64);
        assert!(near.found.len() < 36);
    }
    assert_eq!(near.limit, 1.0 + 4e-9);
}

#[test]
fn invalid_sets_are_errors() {
    let set = |n: usize, width| Features::new(vec![0.5; n * width], width).unwrap();
    let error = |config: PrdcConfig, real: &Features, fake: &Features| {
        config.compute(real, fake).unwrap_err().to_string()
    };
    let config = PrdcConfig::default();
    let few = error(config, &set(9, 2), &set(5, 2));
    assert!(few.contains("`samples` is 5, expected at least 6"), "{few}");
    let other = error(config, &set(9, 2), &set(9, 3));
    assert!(other.contains("`features` is 3, expected 2"), "{other}");
    let none = PrdcConfig {
        nearest_k: 0,
        ..config
    };
    assert!(error(none, &set(9, 2), &set(9, 2)).contains("nearest_k"));
}

/// A share of one half among 400 samples has a standard error of 2.5 %.
#[test]
fn intervals_match_the_error_of_shares() {
    let found = PrdcSamples {
        nearest_k: 2,
        balls: (0..400).map(|j| 3 * (j % 2)).collect(),
        recalled: (0..100).map(|i| i % 4 > 0).collect(),
        covered: vec![true; 100],
    };
    let prdc = found.prdc();
    let values = (prdc.precision, prdc.recall, prdc.density, prdc.coverage);
    assert_eq!(values, (0.5, 0.75, 0.75, 1.0));
    let [low, high] = found.intervals(1000, 0.95, &mut Rng::new(2)).unwrap();
    let near = |value: f64, expected: f64| assert!((value - expected).abs() < 0.015, "{value}");
    near(low.precision, 0.5 - 1.96 * 0.025);
    near(high.precision, 0.5 + 1.96 * 0.025);
    near(high.density - low.density, 2.0 * 1.96 * 0.0375);
    near(high.recall - low.recall, 2.0 * 1.96 * 0.0433);
    assert_eq!((low.coverage, high.coverage), (1.0, 1.0));
    assert!(found.intervals(5, 0.95, &mut Rng::new(2)).is_err());
}
