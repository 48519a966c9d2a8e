//! What a model is conditioned on: classes, or vectors such as those of a text encoder.

use aigc_core::{
    Error, Result, check,
    data::{SampleBatch, label_tensor},
};
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};

/// What a model is conditioned on. The default is no condition; a conditional model then works with
/// its null condition, a vector of zeros.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    /// A class for each sample, `[batch]`.
    pub class_labels: Option<Tensor<1, Int>>,
    /// Vectors for each sample, such as those of a text encoder, `[batch, tokens, width]`.
    pub encoder_hidden_states: Option<Tensor<3>>,
}

impl Condition {
    /// No condition.
    pub fn none() -> Self {
        Self::default()
    }

    /// A class for each sample.
    pub fn classes(labels: &[u32], device: &Device) -> Self {
        Self {
            class_labels: Some(label_tensor(labels, device)),
            ..Self::default()
        }
    }

    /// The classes, or no condition.
    pub(crate) fn of_labels(labels: Option<&[u32]>, device: &Device) -> Self {
        labels.map_or_else(Self::none, |labels| Self::classes(labels, device))
    }

    /// Vectors for each sample, `[batch, tokens, width]`.
    pub fn hidden_states(states: Tensor<3>) -> Self {
        Self {
            encoder_hidden_states: Some(states),
            ..Self::default()
        }
    }

    /// Whether there is no condition.
    pub fn is_none(&self) -> bool {
        self.class_labels.is_none() && self.encoder_hidden_states.is_none()
    }

    /// The conditions of `k` copies of the batch, one copy after the other.
    pub fn repeat(&self, k: usize) -> Self {
        Self {
            class_labels: self.class_labels.clone().map(|x| x.repeat_dim(0, k)),
            encoder_hidden_states: (self.encoder_hidden_states.clone()).map(|x| x.repeat_dim(0, k)),
        }
    }

    /// The same conditions on a device with autodiff.
    pub(crate) fn autodiff(self) -> Self {
        Self {
            class_labels: self.class_labels.map(Tensor::autodiff),
            encoder_hidden_states: self.encoder_hidden_states.map(Tensor::autodiff),
        }
    }

    /// The conditions of the samples at these indices, `[indices]`.
    pub(crate) fn select(&self, indices: Tensor<1, Int>) -> Self {
        Self {
            class_labels: (self.class_labels.clone()).map(|x| x.select(0, indices.clone())),
            encoder_hidden_states: (self.encoder_hidden_states.clone())
                .map(|x| x.select(0, indices)),
        }
    }

    /// The conditions of the samples `start..start + length`.
    pub fn narrow(&self, start: usize, length: usize) -> Self {
        Self {
            class_labels: (self.class_labels.clone()).map(|x| x.narrow(0, start, length)),
            encoder_hidden_states: (self.encoder_hidden_states.clone())
                .map(|x| x.narrow(0, start, length)),
        }
    }
}

/// The conditions that a model takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConditionKind {
    /// Number of classes, of a class-conditional model.
    pub num_classes: Option<usize>,
    /// Width of the vectors that cross-attention attends to.
    pub cross_attention_dim: Option<usize>,
}

impl ConditionKind {
    /// Fails unless the number of classes is from 1 to 2²⁰ and the width of the vectors from 1 to
    /// 2¹⁴, where they are set.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field of `condition`.
    pub fn validate(&self) -> Result<()> {
        if let Some(classes) = self.num_classes {
            check::sizes(&[("condition.num_classes", classes, 1 << 20)])?;
        }
        if let Some(width) = self.cross_attention_dim {
            check::sizes(&[("condition.cross_attention_dim", width, 1 << 14)])?;
        }
        Ok(())
    }

    /// The condition of a batch: its labels, if the model has classes.
    ///
    /// # Errors
    /// [`Error::Config`] if the model has classes and the batch has no labels, or a label is not a
    /// class of the model; or if the model has cross-attention, because a batch has no vectors.
    pub fn of_batch<const X: usize>(
        &self,
        batch: &impl SampleBatch<X>,
        device: &Device,
    ) -> Result<Condition> {
        if let Some(width) = self.cross_attention_dim {
            let expected = "none, since a batch has no vectors to attend to: train with \
                            `VaeObjective::with_encoder_hidden_states`, and evaluate with \
                            `Vae::forward` and `Condition::hidden_states`";
            return Err(Error::config(
                "condition.cross_attention_dim",
                width,
                expected,
            ));
        }
        self.of_labels(batch, device)
    }

    /// The labels of a batch as a condition, without vectors for cross-attention.
    ///
    /// # Errors
    /// As [`labels`](Self::labels).
    pub(crate) fn of_labels<const X: usize>(
        &self,
        batch: &impl SampleBatch<X>,
        device: &Device,
    ) -> Result<Condition> {
        Ok(Condition::of_labels(self.labels(batch)?, device))
    }

    /// The labels of a batch, if the model has classes.
    ///
    /// # Errors
    /// [`Error::Config`] if the model has classes and the batch has no labels, or a label is not a
    /// class of the model.
    pub(crate) fn labels<'b, const X: usize>(
        &self,
        batch: &'b impl SampleBatch<X>,
    ) -> Result<Option<&'b [u32]>> {
        let known = |count| known_labels(batch.labels(), count);
        self.num_classes.map(known).transpose()
    }
}

/// The labels of a batch, for a model with `num_classes` classes.
///
/// # Errors
/// [`Error::Config`] if there are no labels, or a label is not a class of the model.
pub(crate) fn known_labels(labels: Option<&[u32]>, num_classes: usize) -> Result<&[u32]> {
    let Some(labels) = labels else {
        let expected = format!("labels of {num_classes} classes, for a conditional model");
        return Err(Error::config("labels", "missing", expected));
    };
    match labels.iter().find(|label| **label as usize >= num_classes) {
        Some(label) => {
            let expected = format!("below {num_classes}, the number of classes of the model");
            Err(Error::config("labels", label, expected))
        }
        None => Ok(labels),
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::objective::toy::{POINTS, Points};
    use aigc_core::testing::values;

    #[test]
    fn selected_conditions_are_those_of_the_samples() {
        let device = Device::flex();
        let states = Tensor::<3>::from_floats([[[1.0, 2.0]], [[3.0, 4.0]], [[5.0, 6.0]]], &device);
        let condition = Condition {
            encoder_hidden_states: Some(states),
            ..Condition::classes(&[7, 8, 9], &device)
        };
        let Condition {
            class_labels,
            encoder_hidden_states,
        } = condition.select(label_tensor(&[2, 0], &device));
        let labels = class_labels.unwrap().into_data();
        assert_eq!(labels.iter::<i64>().collect::<Vec<_>>(), [9, 7]);
        assert_eq!(values(encoder_hidden_states.unwrap()), [5.0, 6.0, 1.0, 2.0]);
    }

    /// A batch has no vectors for cross-attention, and a model would work without its condition.
    #[test]
    fn batches_are_no_condition_of_cross_attention() {
        let kind = ConditionKind {
            cross_attention_dim: Some(5),
            ..ConditionKind::default()
        };
        let (batch, device) = (Points(POINTS.to_vec()), Device::flex());
        let message = kind.of_batch(&batch, &device).unwrap_err().to_string();
        assert!(
            message.contains("`condition.cross_attention_dim` is 5")
                && message.contains("with_encoder_hidden_states"),
            "{message}"
        );
        assert!(kind.of_labels(&batch, &device).unwrap().is_none());
    }
}
