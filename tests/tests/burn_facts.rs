//! Properties of burn 0.22.1 that aigc relies on or works around. If one of these fails, see the
//! code that its comment names.

use aigc_core::{device::device, nn::BatchNormConfig, rng::InitWeights, train::OptimizerConfig};
use aigc_tests::{Net, bits};
use burn::{
    module::Module,
    nn::LinearConfig,
    tensor::{Distribution, Tensor},
};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Flex has one generator per process: tests that may draw from it take turns.
static GENERATOR: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    GENERATOR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `train/ema.rs` and `Trainer::save` go through `valid` for this.
#[test]
fn visit_misses_last_running_statistics_and_valid_has_them() {
    let _alone = alone();
    let device = device("flex").unwrap().autodiff();
    let norm = BatchNormConfig::new(2).init(&device).init_weights(0);
    norm.forward(Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 5.0]], &device));
    let missed = bits(&norm)["running_mean"].clone();
    assert_eq!(
        missed,
        [0, 0],
        "burn now visits the newest value: the detour through `valid` can go"
    );
    assert_ne!(bits(&norm.valid())["running_mean"], missed);
}

/// `Ema::new` starts from `valid`, not from `clone`, for this.
#[test]
fn clone_shares_running_statistics_and_valid_does_not() {
    let _alone = alone();
    let device = device("flex").unwrap().autodiff();
    let norm = BatchNormConfig::new(1).init(&device).init_weights(0);
    let (clone, own) = (norm.clone(), norm.valid());
    norm.forward(Tensor::<2>::from_floats([[1.0], [3.0]], &device));
    assert_ne!(bits(&clone.valid())["running_mean"], [0]);
    assert_eq!(bits(&own)["running_mean"], [0]);
}

/// `checkpoint/ids.rs` exists for this.
#[test]
fn parameter_ids_are_random() {
    let _alone = alone();
    let device = device("flex").unwrap();
    let id = || LinearConfig::new(1, 1).init(&device).weight.id;
    assert_ne!(id(), id());
}

/// `InitWeights` works by this: a parameter is drawn when first used, and its clones see the same
/// draw.
#[test]
fn parameters_are_drawn_lazily_and_once() {
    let _alone = alone();
    let net = Net::new(&device("flex").unwrap());
    assert!(!net.first.weight.is_initialized());
    let clone = net.clone();
    assert_eq!(bits(&net.init_weights(1)), bits(&clone));
}

/// The trainer reseeds the backend before every step for this.
#[test]
fn seed_fixes_next_draws_of_backend() {
    let _alone = alone();
    let device = device("flex").unwrap();
    let draw = |seed| {
        device.seed(seed);
        Tensor::<1>::random([4], Distribution::Default, &device).into_data()
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
}

/// `OptimizerConfig::adam` sets ε for this.
#[test]
fn adam_epsilon_differs_from_pytorch() {
    let _alone = alone();
    let ours = serde_json::to_value(OptimizerConfig::adam(0.9, 0.999)).unwrap();
    let burns = serde_json::to_value(burn::optim::AdamConfig::new()).unwrap();
    assert!((ours["adam"]["epsilon"].as_f64().unwrap() - 1e-8).abs() < 1e-12);
    assert!((burns["epsilon"].as_f64().unwrap() - 1e-5).abs() < 1e-9);
}
