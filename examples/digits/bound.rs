//! The evidence lower bound of the autoencoders of `digits`.

use aigc_core::train::Metrics;
use aigc_examples::{Images, outln};

/// Prints the bound on held-out images in the metrics of [`aigc_vae::evaluate`].
pub(crate) fn print(metrics: &Metrics, images: &Images) {
    let value = |name: &str| {
        let found = metrics.iter().find(|(known, _)| known == name);
        found.map_or(f64::NAN, |(_, value)| *value)
    };
    outln!(
        "held-out -ELBO: {:.2} nats per image, mean of {} held-out images (reconstruction {:.2}, \
         divergence {:.2})\n  It is an upper bound on the negative log-likelihood of an image: \
         lower is better.",
        value("nelbo"),
        images.held_out.num_items(),
        value("reconstruction"),
        value("kl"),
    );
}
