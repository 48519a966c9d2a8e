//! Whether a classifier sees the classes that were requested.

use super::Proportion;
use crate::{Error, Result, eval::Classifier};
use burn::tensor::Tensor;

/// Number of images that are classified at once.
const BATCH: usize = 256;

/// Counts of requested and seen classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionalAccuracy {
    /// Of each class: the number of samples that show it, and the number requested.
    counts: Vec<(usize, usize)>,
}

impl ConditionalAccuracy {
    /// Counts of `classes` classes, all zero.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no classes.
    pub fn new(classes: usize) -> Result<Self> {
        if classes == 0 {
            return Err(Error::argument("classes", classes, "at least 1"));
        }
        Ok(Self {
            counts: vec![(0, 0); classes],
        })
    }

    /// Adds predicted classes and the classes requested for the same samples.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the numbers differ, or a requested class is out of range.
    pub fn add(&mut self, predicted: &[u32], requested: &[u32]) -> Result<()> {
        if predicted.len() != requested.len() {
            return Err(Error::argument(
                "requested",
                format!("{} classes", requested.len()),
                format!("{}, one for each sample", predicted.len()),
            ));
        }
        let classes = self.counts.len();
        if let Some(class) = requested.iter().find(|class| **class as usize >= classes) {
            return Err(Error::argument(
                "requested",
                class,
                format!("classes below {classes}"),
            ));
        }
        for (predicted, requested) in predicted.iter().zip(requested) {
            let (right, all) = &mut self.counts[*requested as usize];
            *right += usize::from(predicted == requested);
            *all += 1;
        }
        Ok(())
    }

    /// The share of all samples that show the requested class.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if no samples were added.
    pub fn overall(&self) -> Result<Proportion> {
        let right = self.counts.iter().map(|(right, _)| right).sum();
        let all = self.counts.iter().map(|(_, all)| all).sum();
        Proportion::new(right, all)
    }

    /// For each class the share of its samples that show it; `None` for classes that were not
    /// requested.
    pub fn per_class(&self) -> Vec<Option<Proportion>> {
        let share = |(right, all): &(usize, usize)| Proportion::new(*right, *all).ok();
        self.counts.iter().map(share).collect()
    }
}

/// Classifies samples of a conditional model and compares the predictions with the classes that
/// were requested, `requested[i]` for image `i`.
///
/// The accuracy of the classifier on real images bounds what can be measured: state it beside the
/// result.
///
/// # Shapes
/// - images: `[batch, channels, height, width]` in `[0, 1]`, classified in groups of 256
///
/// # Errors
/// [`Error::InvalidArgument`] for no images, another number of classes than images, classes that
/// the classifier does not have, and logits that are not finite.
///
/// # Panics
/// If the classifier does not accept images of this shape.
pub fn conditional_accuracy(
    classifier: &impl Classifier,
    images: &Tensor<4>,
    requested: &[u32],
) -> Result<ConditionalAccuracy> {
    let count = images.dims()[0];
    if count == 0 {
        return Err(Error::argument("images", "empty", "at least one image"));
    }
    if requested.len() != count {
        return Err(Error::argument(
            "requested",
            format!("{} classes", requested.len()),
            format!("{count}, one for each image"),
        ));
    }
    let mut accuracy: Option<ConditionalAccuracy> = None;
    for start in (0..count).step_by(BATCH) {
        let n = BATCH.min(count - start);
        let output = classifier.classify(images.clone().narrow(0, start, n));
        let [_, classes] = output.logits.dims();
        let logits = output.logits.to_data();
        if let Some(logit) = logits.iter::<f32>().find(|logit| !logit.is_finite()) {
            return Err(Error::argument(
                "images",
                format!("classified with a logit of {logit}"),
                "images with finite logits",
            ));
        }
        let accuracy = match &mut accuracy {
            Some(accuracy) => accuracy,
            None => accuracy.insert(ConditionalAccuracy::new(classes)?),
        };
        accuracy.add(&output.predictions(), &requested[start..start + n])?;
    }
    accuracy.ok_or_else(|| Error::argument("images", "empty", "at least one image"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_give_shares() {
        let mut accuracy = ConditionalAccuracy::new(3).unwrap();
        assert!(accuracy.overall().is_err());
        accuracy.add(&[0, 1, 1, 0], &[0, 1, 0, 0]).unwrap();
        let overall = accuracy.overall().unwrap();
        assert_eq!((overall.count(), overall.total()), (3, 4));
        let shares = accuracy.per_class();
        assert_eq!(shares[0], Some(Proportion::new(2, 3).unwrap()));
        assert_eq!(shares[1], Some(Proportion::new(1, 1).unwrap()));
        assert_eq!(shares[2], None);
    }

    #[test]
    fn unknown_classes_and_lengths_are_errors() {
        let mut accuracy = ConditionalAccuracy::new(3).unwrap();
        let error = accuracy.add(&[0], &[3]).unwrap_err().to_string();
        assert!(
            error.contains("`requested` is 3, expected classes below 3"),
            "{error}"
        );
        assert!(accuracy.add(&[0], &[]).is_err());
        assert!(ConditionalAccuracy::new(0).is_err());
    }

    /// The brighter the pixel, the larger the logit of class 1.
    #[cfg(feature = "flex")]
    #[test]
    fn images_are_classified_in_groups() {
        use crate::eval::ClassifierOutput;
        use burn::tensor::{Device, TensorData};

        struct Brightness;
        impl Classifier for Brightness {
            fn classify(&self, images: Tensor<4>) -> ClassifierOutput {
                let light = images.flatten::<2>(1, 3);
                let logits = Tensor::cat(vec![light.clone() * 0.0 + 0.5, light.clone()], 1);
                ClassifierOutput {
                    features: light,
                    logits,
                }
            }
        }
        let device = Device::flex();
        let classes: Vec<u32> = (0..600).map(|i| i % 2).collect();
        let pixels: Vec<f32> = classes.iter().map(|class| *class as f32).collect();
        let images = Tensor::<4>::from_data(TensorData::new(pixels, [600, 1, 1, 1]), &device);
        let got = conditional_accuracy(&Brightness, &images, &classes).unwrap();
        assert_eq!(got.overall().unwrap(), Proportion::new(600, 600).unwrap());
        assert!(conditional_accuracy(&Brightness, &images, &classes[1..]).is_err());
        let broken = images * f32::NAN;
        assert!(conditional_accuracy(&Brightness, &broken, &classes).is_err());
    }
}
