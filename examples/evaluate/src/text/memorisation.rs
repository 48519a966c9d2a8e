//! Whether losses tell training text from held-out text.

use crate::interval::{checked, with};
use aigc_core::{
    Result,
    eval::{
        memorization,
        report::{Aspect, Better, Measure},
    },
};

/// The AUC of the attack by the mean losses of pieces of both texts.
///
/// # Errors
/// [`aigc_core::Error::InvalidArgument`] for fewer than two losses of a text.
pub(super) fn memorisation(train: &[f64], held_out: &[f64]) -> Result<Measure> {
    let found = memorization(train, held_out)?;
    let measure = Measure::new(
        Aspect::Originality,
        "Memorisation (AUC)",
        found.auc,
        Better::Target(0.5),
        train.len(),
    )
    .with_explanation("How often a piece of training text has a smaller loss than a held-out one.")
    .with_command("eval::memorization")
    .with_note(format!(
        "Mean loss of a token: training {:.3}, held out {:.3} nats; gap {:.3} ({:.3} to {:.3}).",
        found.train.mean,
        found.held_out.mean,
        found.gap,
        found.gap_interval.0,
        found.gap_interval.1
    ));
    let pieces = train.len().min(held_out.len());
    Ok(with(measure, checked(pieces, Ok(found.auc_interval))))
}
