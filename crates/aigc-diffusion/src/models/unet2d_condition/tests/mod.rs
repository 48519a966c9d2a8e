//! Tests of the U-net with cross-attention.

mod conditions;
mod config;
mod structure;

use super::{
    testing::{condition, network, random, small, time},
    *,
};
use aigc_core::{
    device::device,
    params::{ParamVisitor, visit_params},
    testing::{assert_close, values},
};
use burn::module::Param;

/// The output for two samples of 8×6 pixels.
fn output(network: &UNet2dConditionModel, condition: &Conditioning) -> Vec<f32> {
    let channels = network.config().in_channels;
    values(network.predict(random(5, [2, channels, 8, 6]), time(), condition))
}

fn apart(a: &[f32], b: &[f32]) -> f32 {
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

/// Paths of all weights.
fn names<M: Module>(network: &M) -> Vec<String> {
    struct Names(Vec<String>);
    impl ParamVisitor for Names {
        fn visit<const D: usize>(&mut self, path: &str, _: &Param<Tensor<D>>) {
            self.0.push(path.into());
        }
    }
    let mut names = Names(vec![]);
    visit_params(network, &mut names);
    names.0
}

/// How many weights have names with this part.
fn count(network: &UNet2dConditionModel, part: &str) -> usize {
    let names = names(network);
    names.iter().filter(|name| name.contains(part)).count()
}
