//! Conditions of models of several streams.

use aigc_core::{Result, check::ensure_argument, encoder::TextEmbeddings};
use burn::tensor::{Bool, Tensor, TensorData};

/// A condition before a model encodes it: a text, classes, both or nothing.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ConditionInputs {
    /// The states of a text encoder, `[batch, tokens, width]`.
    pub text: Option<TextEmbeddings>,
    /// The classes of each sample, one of each kind that the model has; empty for none.
    pub classes: Vec<Vec<u32>>,
}

impl ConditionInputs {
    /// A text.
    pub fn text(text: TextEmbeddings) -> Self {
        Self {
            text: Some(text),
            ..Self::default()
        }
    }

    /// Classes: for each sample, one of each kind that the model has.
    pub fn classes(classes: Vec<Vec<u32>>) -> Self {
        Self {
            classes,
            ..Self::default()
        }
    }

    /// Adds classes.
    pub fn with_classes(self, classes: Vec<Vec<u32>>) -> Self {
        Self { classes, ..self }
    }
}

/// Encoded conditions: the vectors that the model attends to, as wide as its hidden states.
///
/// Hidden vectors are zero. A sample without any visible vector has no condition: attention to
/// zeros adds nothing to its hidden states, because the projections have no biases.
#[derive(Clone, Debug)]
pub struct Condition {
    states: Tensor<3>,
    mask: Option<Tensor<2, Bool>>,
}

impl Condition {
    /// A condition of vectors, which are hidden where `mask` is false.
    ///
    /// # Shapes
    /// - states: `[batch, vectors, width]`
    /// - mask: `[batch, vectors]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) if there are no vectors, or
    /// the mask has another shape.
    pub fn new(states: Tensor<3>, mask: Option<Tensor<2, Bool>>) -> Result<Self> {
        let [batch, vectors, width] = states.dims();
        let given = format!("{:?}", states.dims());
        let is_some = batch > 0 && vectors > 0 && width > 0;
        ensure_argument(is_some, "states", given, "at least one vector a sample")?;
        let Some(mask) = mask else {
            return Ok(Self { states, mask });
        };
        ensure_argument(
            mask.dims() == [batch, vectors],
            "mask",
            format!("{:?}", mask.dims()),
            &format!("{:?}, a value for each vector", [batch, vectors]),
        )?;
        let visible = mask.clone().float().unsqueeze_dim::<3>(2);
        Ok(Self {
            states: states * visible,
            mask: Some(mask),
        })
    }

    /// The vectors, `[batch, vectors, width]`.
    pub fn states(&self) -> Tensor<3> {
        self.states.clone()
    }

    /// Number of samples.
    pub fn batch_size(&self) -> usize {
        self.states.dims()[0]
    }

    /// True for vectors that are hidden from attention, `[batch, vectors]`; `None` if all are
    /// visible. Samples without any visible vector attend to their zeros, so that every query has a
    /// key.
    pub fn hidden(&self) -> Option<Tensor<2, Bool>> {
        let mask = self.mask.clone()?;
        let [batch, vectors] = mask.dims();
        let sees = mask.clone().float().sum_dim(1).greater_elem(0.5);
        let sees = sees.expand([batch, vectors]);
        Some(mask.bool_not().bool_and(sees))
    }

    /// Concatenates the vectors of both conditions.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) if their batches or widths
    /// differ.
    pub fn join(self, other: Self) -> Result<Self> {
        let ([batch, _, width], [others, _, other_width]) =
            (self.states.dims(), other.states.dims());
        ensure_argument(
            [batch, width] == [others, other_width],
            "condition",
            format!("of {others} samples and width {other_width}"),
            &format!("{batch} samples and width {width}"),
        )?;
        let mask = match (&self.mask, &other.mask) {
            (None, None) => None,
            _ => Some(Tensor::cat(vec![self.full_mask(), other.full_mask()], 1)),
        };
        Ok(Self {
            states: Tensor::cat(vec![self.states, other.states], 1),
            mask,
        })
    }

    fn full_mask(&self) -> Tensor<2, Bool> {
        self.mask.clone().unwrap_or_else(|| {
            let [batch, vectors, _] = self.states.dims();
            let all = TensorData::new(vec![true; batch * vectors], [batch, vectors]);
            Tensor::from_data(all, &self.states.device())
        })
    }

    /// These samples and, after them, as many without a condition: the batch of classifier-free
    /// guidance.
    pub fn with_null(self) -> Self {
        let nothing = self.states.zeros_like();
        Self {
            states: Tensor::cat(vec![self.states, nothing], 0),
            mask: self
                .mask
                .map(|mask| Tensor::cat(vec![mask.clone(), mask], 0)),
        }
    }

    /// Keeps the condition of the samples for which `keep` is true; the others have none.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) if there is not one value for
    /// each sample.
    pub fn kept(self, keep: &[bool]) -> Result<Self> {
        let batch = self.batch_size();
        let expected = format!("{batch}, one for each sample");
        ensure_argument(keep.len() == batch, "keep", keep.len(), &expected)?;
        let factors: Vec<f32> = keep.iter().map(|keep| f32::from(u8::from(*keep))).collect();
        let factors = TensorData::new(factors, [batch, 1, 1]);
        let factors = Tensor::<3>::from_data(factors, &self.states.device());
        Ok(Self {
            states: self.states * factors,
            mask: self.mask,
        })
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::values;
    use burn::tensor::Device;

    fn states(batch: usize, vectors: usize) -> Tensor<3> {
        let values: Vec<f32> = (1..=batch * vectors * 2).map(|x| x as f32).collect();
        Tensor::from_data(
            TensorData::new(values, [batch, vectors, 2]),
            &Device::flex(),
        )
    }

    fn mask(rows: [[bool; 2]; 2]) -> Tensor<2, Bool> {
        Tensor::from_data(rows, &Device::flex())
    }

    #[test]
    fn hidden_vectors_are_zero_and_empty_samples_see_zeros() {
        let mask = mask([[true, false], [false, false]]);
        let condition = Condition::new(states(2, 2), Some(mask)).unwrap();
        assert_eq!(values(condition.states())[..4], [1.0, 2.0, 0.0, 0.0]);
        assert_eq!(values(condition.states())[4..], [0.0; 4]);
        let hidden = values(condition.hidden().unwrap().float());
        assert_eq!(hidden, [0.0, 1.0, 0.0, 0.0]);
        let open = Condition::new(states(2, 2), None).unwrap();
        assert!(open.hidden().is_none());
        let both = open.join(condition).unwrap();
        assert_eq!(both.states().dims(), [2, 4, 2]);
        let hidden = values(both.hidden().unwrap().float());
        assert_eq!(hidden, [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
        let kept = both.kept(&[false, true]).unwrap().with_null();
        let kept = values(kept.states());
        assert_eq!(kept.len(), 32);
        assert!(kept[..8].iter().chain(&kept[16..]).all(|x| *x == 0.0));
        assert_eq!(kept[8..12], [5.0, 6.0, 7.0, 8.0]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let wrong = Condition::new(states(1, 2), Some(mask([[true; 2]; 2])));
        let message = wrong.unwrap_err().to_string();
        assert!(message.contains("`mask` is [2, 2]"), "{message}");
        let one = || Condition::new(states(1, 2), None).unwrap();
        let two = Condition::new(states(2, 2), None).unwrap();
        let message = one().join(two).unwrap_err().to_string();
        assert!(message.contains("of 2 samples and width 2"), "{message}");
        let message = one().kept(&[true; 3]).unwrap_err().to_string();
        assert!(message.contains("`keep` is 3, expected 1"), "{message}");
    }
}
