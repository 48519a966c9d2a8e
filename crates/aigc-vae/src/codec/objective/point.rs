//! Decoded sounds at which terms of a loss are computed.

use aigc_core::adversarial::Verdict;
use burn::tensor::Tensor;
use std::cell::OnceCell;

/// What a discriminator, or several, makes of sounds.
pub(super) type Judge<'a> = &'a dyn Fn(Tensor<3>) -> Vec<Verdict>;

/// Decoded sounds, and what discriminators make of them. All terms at a point share one pass of the
/// discriminators.
pub(super) struct Point<'a> {
    wave: Tensor<3>,
    judge: Judge<'a>,
    verdicts: OnceCell<Vec<Verdict>>,
}

impl<'a> Point<'a> {
    pub(super) fn new(wave: Tensor<3>, judge: Judge<'a>) -> Self {
        Self {
            wave,
            judge,
            verdicts: OnceCell::new(),
        }
    }

    /// The sounds, `[batch, channels, time]`.
    pub(super) fn wave(&self) -> Tensor<3> {
        self.wave.clone()
    }

    /// The verdicts on the sounds, computed when they are needed first.
    pub(super) fn verdicts(&self) -> &[Verdict] {
        self.verdicts.get_or_init(|| (self.judge)(self.wave()))
    }
}
