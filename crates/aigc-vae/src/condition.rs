//! What a model is conditioned on: classes, vectors, or sequences of vectors such as those of a
//! text encoder.

use aigc_core::{
    Error, Result,
    check::{self, ensure, ensure_argument},
    data::{SampleBatch, label_tensor},
};
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// What a model is conditioned on. The default is no condition; a conditional model then works with
/// its null condition, zeros in place of the one-hot class, the vector and the hidden states.
///
/// A condition does not know its model: [`ConditionKind::check`] compares them.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    /// A class for each sample, `[batch]`.
    pub class_labels: Option<Tensor<1, Int>>,
    /// A vector for each sample, such as attributes or a pooled embedding, `[batch, vector_dim]`.
    pub vectors: Option<Tensor<2>>,
    /// Several vectors for each sample, such as those of a text encoder, `[batch, tokens, width]`.
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

    /// A vector for each sample, `[batch, vector_dim]`.
    pub fn vectors(vectors: Tensor<2>) -> Self {
        Self {
            vectors: Some(vectors),
            ..Self::default()
        }
    }

    /// Several vectors for each sample, `[batch, tokens, width]`.
    pub fn hidden_states(states: Tensor<3>) -> Self {
        Self {
            encoder_hidden_states: Some(states),
            ..Self::default()
        }
    }

    /// Whether there is no condition.
    pub fn is_none(&self) -> bool {
        self.class_labels.is_none()
            && self.vectors.is_none()
            && self.encoder_hidden_states.is_none()
    }

    /// The conditions of `k` copies of the batch, one copy after the other.
    pub fn repeat(&self, k: usize) -> Self {
        let Self {
            class_labels,
            vectors,
            encoder_hidden_states,
        } = self.clone();
        Self {
            class_labels: class_labels.map(|x| x.repeat_dim(0, k)),
            vectors: vectors.map(|x| x.repeat_dim(0, k)),
            encoder_hidden_states: encoder_hidden_states.map(|x| x.repeat_dim(0, k)),
        }
    }

    /// The same conditions on a device with autodiff.
    pub(crate) fn autodiff(self) -> Self {
        Self {
            class_labels: self.class_labels.map(Tensor::autodiff),
            vectors: self.vectors.map(Tensor::autodiff),
            encoder_hidden_states: self.encoder_hidden_states.map(Tensor::autodiff),
        }
    }

    /// The conditions of the samples at these indices, `[indices]`.
    pub(crate) fn select(&self, indices: Tensor<1, Int>) -> Self {
        let Self {
            class_labels,
            vectors,
            encoder_hidden_states,
        } = self.clone();
        Self {
            class_labels: class_labels.map(|x| x.select(0, indices.clone())),
            vectors: vectors.map(|x| x.select(0, indices.clone())),
            encoder_hidden_states: encoder_hidden_states.map(|x| x.select(0, indices)),
        }
    }

    /// The conditions of the samples `start..start + length`.
    pub fn narrow(&self, start: usize, length: usize) -> Self {
        let Self {
            class_labels,
            vectors,
            encoder_hidden_states,
        } = self.clone();
        Self {
            class_labels: class_labels.map(|x| x.narrow(0, start, length)),
            vectors: vectors.map(|x| x.narrow(0, start, length)),
            encoder_hidden_states: encoder_hidden_states.map(|x| x.narrow(0, start, length)),
        }
    }
}

/// The conditions that a model takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConditionKind {
    /// Number of classes, of a class-conditional model.
    pub num_classes: Option<usize>,
    /// Width of a vector for each sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vector_dim: Option<usize>,
    /// Width of the vectors that cross-attention attends to.
    pub cross_attention_dim: Option<usize>,
}

impl ConditionKind {
    /// Fails unless the number of classes is from 1 to 2²⁰ and the widths of vectors are from 1 to
    /// 2¹⁴, where they are set.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field of `condition`.
    pub fn validate(&self) -> Result<()> {
        for (field, size, limit) in [
            ("condition.num_classes", self.num_classes, 1 << 20),
            ("condition.vector_dim", self.vector_dim, 1 << 14),
            (
                "condition.cross_attention_dim",
                self.cross_attention_dim,
                1 << 14,
            ),
        ] {
            if let Some(size) = size {
                check::sizes(&[(field, size, limit)])?;
            }
        }
        Ok(())
    }

    /// Fails if a model takes conditions, for what would use it with its null condition: the error
    /// has the reason.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub(crate) fn ensure_none(&self, reason: &str) -> Result<()> {
        ensure(
            *self == Self::default(),
            "condition",
            format!("{self:?}"),
            &format!("none: {reason}"),
        )
    }

    /// Number of values that a model concatenates with others: those of a one-hot class and of a
    /// vector.
    pub(crate) fn concatenated_dim(&self) -> usize {
        self.num_classes.unwrap_or(0) + self.vector_dim.unwrap_or(0)
    }

    /// Fails unless the model takes what the condition has, in the shape for `batch` samples. What
    /// a condition does not have is the null condition. Labels are read from their device.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the field of the condition.
    pub fn check(&self, condition: &Condition, batch: usize) -> Result<()> {
        if let Some(labels) = &condition.class_labels {
            let num_classes = taken("class_labels", "num_classes", self.num_classes)?;
            let (found, expected) = (labels.dims(), [batch]);
            let shape = format!("{expected:?}");
            ensure_argument(
                found == expected,
                "class_labels",
                format!("{found:?}"),
                &shape,
            )?;
            let (labels, classes) = (labels.clone().into_data(), 0..num_classes as i64);
            if let Some(label) = labels.iter::<i64>().find(|label| !classes.contains(label)) {
                let expected = below(num_classes);
                return Err(Error::argument("class_labels", label, expected));
            }
        }
        if let Some(vectors) = &condition.vectors {
            let width = taken("vectors", "vector_dim", self.vector_dim)?;
            let (found, expected) = (vectors.dims(), [batch, width]);
            let shape = format!("{expected:?}");
            ensure_argument(found == expected, "vectors", format!("{found:?}"), &shape)?;
        }
        if let Some(states) = &condition.encoder_hidden_states {
            let field = "encoder_hidden_states";
            let width = taken(field, "cross_attention_dim", self.cross_attention_dim)?;
            let [rows, tokens, found] = states.dims();
            ensure_argument(
                rows == batch && tokens > 0 && found == width,
                field,
                format!("{:?}", states.dims()),
                &format!("[{batch}, tokens, {width}]"),
            )?;
        }
        Ok(())
    }

    /// The condition of a batch that has nothing but labels: its classes, if the model has classes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the model has classes and the batch has no labels, or a label
    /// is not a class of the model; or if the model takes vectors or hidden states.
    pub fn of_batch<const X: usize>(
        &self,
        batch: &impl SampleBatch<X>,
        device: &Device,
    ) -> Result<Condition> {
        condition_of(None, *self, batch, device)
    }

    /// The labels of a batch, if the model has classes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the model has classes and the batch has no labels, or a label
    /// is not a class of the model.
    pub(crate) fn labels<'b, const X: usize>(
        &self,
        batch: &'b impl SampleBatch<X>,
    ) -> Result<Option<&'b [u32]>> {
        let known = |count| known_labels(batch.labels(), count);
        self.num_classes.map(known).transpose()
    }

    /// The first field that the model takes and the condition does not have, with its width; labels
    /// do not count.
    pub(crate) fn missing(&self, condition: &Condition) -> Option<(&'static str, usize)> {
        let vectors = match &condition.vectors {
            None => self.vector_dim,
            Some(_) => None,
        };
        let states = match &condition.encoder_hidden_states {
            None => self.cross_attention_dim,
            Some(_) => None,
        };
        let vectors = vectors.map(|width| ("vectors", width));
        vectors.or(states.map(|width| ("encoder_hidden_states", width)))
    }
}

/// The size of `field` of a condition, which the model takes if it has `setting`.
fn taken(field: &str, setting: &str, size: Option<usize>) -> Result<usize> {
    size.ok_or_else(|| {
        let expected = format!("none, since the model has no `{setting}`");
        Error::argument(field, "given", expected)
    })
}

/// What labels are expected to be.
fn below(num_classes: usize) -> String {
    format!("below {num_classes}, the number of classes of the model")
}

/// The condition of a batch, apart from its labels.
pub(crate) type Encode<'a, B> = dyn Fn(&B, &Device) -> Result<Condition> + 'a;

/// The condition of a batch, for a model that takes conditions of this kind: its labels, and what
/// `encode` returns. Labels of the batch are checked without a device.
///
/// # Errors
/// [`Error::InvalidArgument`] naming what is missing or does not fit the model; errors of `encode`.
pub(crate) fn condition_of<B, const X: usize>(
    encode: Option<&Encode<'_, B>>,
    kind: ConditionKind,
    batch: &B,
    device: &Device,
) -> Result<Condition>
where
    B: SampleBatch<X>,
{
    let mut condition = match encode {
        Some(encode) => encode(batch, &device.clone().without_autodiff())?,
        None => Condition::none(),
    };
    kind.check(&condition, batch.len())?;
    if condition.class_labels.is_none() {
        let labels = kind.labels(batch)?;
        condition.class_labels = labels.map(|labels| label_tensor(labels, device));
    }
    if let Some((field, width)) = kind.missing(&condition) {
        let expected = format!("of width {width}: call `with_condition`");
        return Err(Error::argument(field, "missing", expected));
    }
    Ok(match device.is_autodiff() {
        true => condition.autodiff(),
        false => condition,
    })
}

/// An [`Encode`] that is kept.
type Kept<B> = dyn Fn(&B, &Device) -> Result<Condition> + Send + Sync;

/// Where the conditions of batches come from: their labels, and a function for everything else.
pub(crate) struct BatchCondition<B>(Option<Arc<Kept<B>>>);

impl<B> BatchCondition<B> {
    pub(crate) fn new(
        encode: impl Fn(&B, &Device) -> Result<Condition> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(encode)))
    }

    /// The condition of a batch, as [`condition_of`] returns it.
    ///
    /// # Errors
    /// Those of [`condition_of`].
    pub(crate) fn of<const X: usize>(
        &self,
        kind: ConditionKind,
        batch: &B,
        device: &Device,
    ) -> Result<Condition>
    where
        B: SampleBatch<X>,
    {
        let encode = self.0.as_deref().map(|encode| encode as &Encode<'_, B>);
        condition_of(encode, kind, batch, device)
    }
}

impl<B> Clone for BatchCondition<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B> Default for BatchCondition<B> {
    fn default() -> Self {
        Self(None)
    }
}

impl<B> fmt::Debug for BatchCondition<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BatchCondition")
            .field(&self.0.is_some())
            .finish()
    }
}

/// The method `with_condition` of a type with batches `B` and a field `condition:
/// BatchCondition<B>`.
macro_rules! condition_method {
    () => {
        /// Conditions the model on what `encode` returns for a batch: vectors, encoder hidden
        /// states such as a text encoder's for the captions of the batch, or both. It receives the
        /// device, without autodiff. Labels come from the batch, unless `encode` returns others,
        /// which are read from their device to check them.
        pub fn with_condition(
            mut self,
            encode: impl Fn(&B, &burn::tensor::Device) -> aigc_core::Result<$crate::Condition>
            + Send
            + Sync
            + 'static,
        ) -> Self {
            self.condition = $crate::condition::BatchCondition::new(encode);
            self
        }
    };
}
pub(crate) use condition_method;

/// The labels of a batch, for a model with `num_classes` classes.
///
/// # Errors
/// [`Error::InvalidArgument`] if there are no labels, or a label is not a class of the model.
pub(crate) fn known_labels(labels: Option<&[u32]>, num_classes: usize) -> Result<&[u32]> {
    let Some(labels) = labels else {
        let expected = format!("labels of {num_classes} classes, for a conditional model");
        return Err(Error::argument("labels", "missing", expected));
    };
    match labels.iter().find(|label| **label as usize >= num_classes) {
        Some(label) => Err(Error::argument("labels", label, below(num_classes))),
        None => Ok(labels),
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::objective::toy::{POINTS, Points};
    use aigc_core::{rng::Rng, testing::values};

    const KIND: ConditionKind = ConditionKind {
        num_classes: Some(3),
        vector_dim: Some(2),
        cross_attention_dim: Some(5),
    };

    /// A condition of these numbers of samples, that [`KIND`] describes.
    fn condition(labels: &[u32], vectors: usize, states: usize) -> Condition {
        let device = Device::flex();
        Condition {
            vectors: Some(Rng::new(1).normal([vectors, 2], &device)),
            encoder_hidden_states: Some(Rng::new(2).normal([states, 4, 5], &device)),
            ..Condition::classes(labels, &device)
        }
    }

    /// The message of an error of an argument.
    fn of_argument(error: Error) -> String {
        assert!(matches!(error, Error::InvalidArgument { .. }), "{error:?}");
        error.to_string()
    }

    #[test]
    fn conditions_of_samples_stay_together() {
        let device = Device::flex();
        let states = Tensor::<3>::from_floats([[[1.0, 2.0]], [[3.0, 4.0]], [[5.0, 6.0]]], &device);
        let condition = Condition {
            vectors: Some(Tensor::from_floats([[10.0], [11.0], [12.0]], &device)),
            encoder_hidden_states: Some(states),
            ..Condition::classes(&[7, 8, 9], &device)
        };
        let host = |condition: Condition| {
            let labels = condition.class_labels.unwrap().into_data();
            (
                labels.iter::<i64>().collect::<Vec<_>>(),
                values(condition.vectors.unwrap()),
                values(condition.encoder_hidden_states.unwrap()),
            )
        };
        assert_eq!(
            host(condition.select(label_tensor(&[2, 0], &device))),
            (vec![9, 7], vec![12.0, 10.0], vec![5.0, 6.0, 1.0, 2.0])
        );
        let last = condition.narrow(2, 1);
        let expected = (vec![9], vec![12.0], vec![5.0, 6.0]);
        assert_eq!(host(last.clone()), expected);
        assert_eq!(
            host(last.repeat(2)),
            (vec![9, 9], vec![12.0, 12.0], vec![5.0, 6.0, 5.0, 6.0])
        );
    }

    #[test]
    fn conditions_that_do_not_fit_are_named() {
        KIND.check(&condition(&[0, 2], 2, 2), 2).unwrap();
        KIND.check(&Condition::none(), 2).unwrap();
        let none = ConditionKind::default();
        let only = |field: &str| {
            let all = condition(&[0, 2], 2, 2);
            match field {
                "class_labels" => Condition {
                    class_labels: all.class_labels,
                    ..Condition::none()
                },
                "vectors" => Condition::vectors(all.vectors.unwrap()),
                _ => Condition::hidden_states(all.encoder_hidden_states.unwrap()),
            }
        };
        for (kind, condition, expected) in [
            (
                KIND,
                condition(&[0, 3], 2, 2),
                "`class_labels` is 3, expected below 3, the number of classes",
            ),
            (
                KIND,
                condition(&[0], 2, 2),
                "`class_labels` is [1], expected [2]",
            ),
            (
                KIND,
                condition(&[0, 2], 3, 2),
                "`vectors` is [3, 2], expected [2, 2]",
            ),
            (
                KIND,
                condition(&[0, 2], 2, 1),
                "`encoder_hidden_states` is [1, 4, 5], expected [2, tokens, 5]",
            ),
            (
                none,
                only("class_labels"),
                "`class_labels` is given, expected none, since the model has no `num_classes`",
            ),
            (none, only("vectors"), "`vectors` is given, expected none"),
            (
                none,
                only("encoder_hidden_states"),
                "`encoder_hidden_states` is given, expected none",
            ),
        ] {
            let message = of_argument(kind.check(&condition, 2).unwrap_err());
            assert!(message.contains(expected), "{message}");
        }
    }

    /// Points with a class each.
    struct Labelled(Points, Vec<u32>);

    impl SampleBatch<2> for Labelled {
        fn to_tensor(&self, device: &Device) -> Tensor<2> {
            self.0.to_tensor(device)
        }

        fn len(&self) -> usize {
            self.0.len()
        }

        fn sample_shape(&self) -> aigc_core::data::SampleShape {
            self.0.sample_shape()
        }

        fn labels(&self) -> Option<&[u32]> {
            Some(&self.1)
        }
    }

    /// The labels of a batch complete the condition that the function returns; a model would work
    /// without what is missing.
    #[test]
    fn conditions_of_batches_are_complete() {
        let device = Device::flex().autodiff();
        let batch = |labels: [u32; 4]| Labelled(Points(POINTS.to_vec()), labels.to_vec());
        let labels = |condition: Condition| -> Vec<i64> {
            let labels = condition.class_labels.unwrap().into_data();
            labels.iter::<i64>().collect()
        };
        let without_labels = |_: &Labelled, device: &Device| {
            assert!(!device.is_autodiff());
            Ok(Condition {
                class_labels: None,
                ..condition(&[0; 4], 4, 4)
            })
        };
        let source = BatchCondition::new(without_labels);
        let found = source.of(KIND, &batch([2, 0, 1, 2]), &device).unwrap();
        assert!(found.vectors.clone().unwrap().is_autodiff());
        assert_eq!(labels(found), [2, 0, 1, 2]);
        let own = |_: &Labelled, _: &Device| Ok(condition(&[1, 1, 0, 0], 4, 4));
        let found = BatchCondition::new(own).of(KIND, &batch([9; 4]), &device);
        assert_eq!(labels(found.unwrap()), [1, 1, 0, 0]);

        let message = |result: Result<Condition>| of_argument(result.unwrap_err());
        let unknown = message(source.of(KIND, &batch([0, 1, 2, 3]), &device));
        assert!(
            unknown.contains("`labels` is 3, expected below 3"),
            "{unknown}"
        );
        let points = Points(POINTS.to_vec());
        let attention = ConditionKind {
            cross_attention_dim: Some(5),
            ..ConditionKind::default()
        };
        for (kind, expected) in [
            (KIND, "`labels` is missing"),
            (
                attention,
                "`encoder_hidden_states` is missing, expected of width 5: call `with_condition`",
            ),
            (
                ConditionKind {
                    num_classes: None,
                    ..KIND
                },
                "`vectors` is missing, expected of width 2",
            ),
        ] {
            let found = message(kind.of_batch(&points, &device));
            assert!(found.contains(expected), "{found}");
        }
    }
}
