//! LibTorch's own implementations run. In a separate test program, because the profile records all
//! threads of the process.
//!
//!     cargo test -p aigc-backends --features tch --test libtorch

use aigc_backends::{ADAM, gradients, models, vae_step};
use aigc_core::{
    ops::{adam_step, profile},
    rng::{InitWeights, Rng},
};
use aigc_tests::Net;
use burn::tensor::Tensor;

/// The fallback to the primitives must not be used unnoticed.
#[test]
fn libtorch_runs_native_operations() {
    let device = aigc_core::device::device("libtorch").unwrap();
    profile::start();
    let [_, (_, config)] = models();
    vae_step(&config, &device);
    let net = Net::without_dropout(&device.clone().autodiff()).init_weights(1);
    gradients(
        &net,
        net.forward(Rng::new(1).normal([16, 4], &device.clone().autodiff()))
            .sum(),
    );
    let zeros = || Tensor::<1>::zeros([4], &device);
    adam_step(zeros(), zeros(), [zeros(), zeros()], ADAM);
    let times = profile::stop();
    for name in [
        "adam_step",
        "batch_norm_forward",
        "batch_norm_grads",
        "conv2d_input_grad",
        "conv2d_weight_grad",
        "conv_transpose2d_input_grad",
        "conv_transpose2d_weight_grad",
    ] {
        assert!(
            times.contains_key(name),
            "{name} did not run: {:?}",
            times.keys()
        );
        assert!(
            !times.contains_key(format!("{name} of primitives").as_str()),
            "{name} fell back to the primitives"
        );
    }
}
