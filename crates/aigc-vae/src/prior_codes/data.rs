//! The codes of a data set.

use super::{CodePriorConfig, PriorCondition};
use crate::{CodeShape, DiscreteVae, condition::known_labels};
use aigc_core::{
    Error, Result,
    data::{DataLoader, InMemory, SampleBatch, label_tensor},
};
use burn::tensor::{Device, Int, Tensor, TensorData};

/// The codes of a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeSample {
    /// The codes of each level, coarsest first; row by row, those of a position side by side.
    pub levels: Vec<Vec<u32>>,
    /// Class, if the data set has classes.
    pub label: Option<u32>,
}

/// Encodes all samples of `loader` to codes, in the order of the data set.
///
/// # Errors
/// If a sample cannot be read or does not have the shape of the model's samples.
pub fn encode_dataset<V, B, const X: usize>(
    model: &V,
    loader: &DataLoader<B>,
    device: &Device,
) -> Result<InMemory<CodeSample>>
where
    V: DiscreteVae<X>,
    B: SampleBatch<X>,
{
    let shapes = model.code_shapes();
    let mut samples = Vec::with_capacity(loader.num_items());
    for batch in loader.iter_once() {
        let batch = batch?;
        let (found, expected) = (batch.sample_shape(), model.input_shape());
        if found != expected {
            let expected = format!("{expected}, the shape of the model's samples");
            return Err(Error::config("samples", found, expected));
        }
        let codes: Vec<Vec<u32>> = model
            .encode_codes(batch.to_tensor(device))
            .into_iter()
            .map(|codes| codes.into_data().iter::<u32>().collect())
            .collect();
        for index in 0..batch.len() {
            let levels = codes.iter().zip(&shapes).map(|(codes, shape)| {
                let n = shape.num_indices();
                codes[index * n..(index + 1) * n].to_vec()
            });
            samples.push(CodeSample {
                levels: levels.collect(),
                label: batch.labels().map(|labels| labels[index]),
            });
        }
    }
    Ok(InMemory(samples))
}

/// A batch of codes on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeBatch {
    levels: Vec<Vec<u32>>,
    size: usize,
    labels: Option<Vec<u32>>,
}

/// Collates the codes of samples into a batch.
///
/// # Panics
/// If there are no samples, or they differ in their numbers of levels or codes.
pub fn collate_codes(samples: Vec<CodeSample>) -> CodeBatch {
    let first = samples.first().expect("a batch has samples");
    let lengths: Vec<usize> = first.levels.iter().map(Vec::len).collect();
    let mut levels: Vec<Vec<u32>> = lengths
        .iter()
        .map(|length| Vec::with_capacity(length * samples.len()))
        .collect();
    for sample in &samples {
        let found: Vec<usize> = sample.levels.iter().map(Vec::len).collect();
        assert_eq!(found, lengths, "codes of the samples of a batch");
        for (level, codes) in levels.iter_mut().zip(&sample.levels) {
            level.extend(codes);
        }
    }
    CodeBatch {
        levels,
        size: samples.len(),
        labels: samples.iter().map(|sample| sample.label).collect(),
    }
}

impl CodeBatch {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.size
    }

    /// Whether the batch is empty.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Classes; `None` if a sample of the batch has no class.
    pub fn labels(&self) -> Option<&[u32]> {
        self.labels.as_deref()
    }

    /// The codes of a level, which are of `shape`.
    ///
    /// # Shapes
    /// - output: `[len, positions, codebooks]`
    ///
    /// # Errors
    /// [`Error::Config`] if there is no such level, or its codes are not of `shape`.
    pub fn codes(&self, level: usize, shape: CodeShape, device: &Device) -> Result<Tensor<3, Int>> {
        let Some(codes) = self.levels.get(level) else {
            let expected = format!("below {}, the number of levels", self.levels.len());
            return Err(Error::config("level", level, expected));
        };
        if codes.len() != self.size * shape.num_indices() {
            let found = codes.len() / self.size.max(1);
            let expected = format!("{} codes of a sample", shape.num_indices());
            return Err(Error::config("codes", found, expected));
        }
        if let Some(code) = codes.iter().find(|code| **code as usize >= shape.num_codes) {
            let expected = format!("below {}, the number of codes", shape.num_codes);
            return Err(Error::config("codes", code, expected));
        }
        let codes: Vec<i32> = codes.iter().map(|code| *code as i32).collect();
        let dims = [self.size, shape.positions(), shape.codebooks];
        Ok(Tensor::from_data(TensorData::new(codes, dims), device))
    }

    /// The conditions of a prior over the codes of a level: the classes, and the codes of the level
    /// above.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the prior needs classes that the batch does not have;
    /// [`Error::Config`] if it needs codes that the batch does not have.
    pub fn condition(
        &self,
        level: usize,
        config: &CodePriorConfig,
        device: &Device,
    ) -> Result<PriorCondition> {
        let class_labels = match config.num_classes {
            None => None,
            Some(count) => Some(label_tensor(known_labels(self.labels(), count)?, device)),
        };
        let above = match config.above {
            None => None,
            Some(_) if level == 0 => {
                let expected = "at least 1, for a prior that is conditioned on the level above";
                return Err(Error::config("level", level, expected));
            }
            Some(shape) => Some(self.codes(level - 1, shape, device)?),
        };
        Ok(PriorCondition {
            class_labels,
            above,
        })
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::Likelihood;
    use aigc_core::data::{DataLoaderConfig, Image, ImageShape, SampleShape, collate_images};
    use burn::module::Module;

    const SHAPE: CodeShape = CodeShape {
        height: 1,
        width: 2,
        codebooks: 1,
        num_codes: 4,
    };

    fn batch() -> CodeBatch {
        let sample = |label, top: u32, bottom: [u32; 2]| CodeSample {
            levels: vec![vec![top], bottom.to_vec()],
            label,
        };
        collate_codes(vec![sample(Some(1), 0, [3, 2]), sample(Some(0), 1, [1, 0])])
    }

    #[test]
    fn batches_hold_codes_of_each_level() {
        let device = Device::flex();
        let batch = batch();
        assert_eq!((batch.len(), batch.labels()), (2, Some(&[1, 0][..])));
        let codes = batch.codes(1, SHAPE, &device).unwrap();
        assert_eq!(codes.dims(), [2, 2, 1]);
        let codes: Vec<i64> = codes.into_data().iter::<i64>().collect();
        assert_eq!(codes, [3, 2, 1, 0]);
        let above = CodeShape { width: 1, ..SHAPE };
        let config = CodePriorConfig {
            num_classes: Some(2),
            above: Some(above),
            ..CodePriorConfig::new(SHAPE)
        };
        let condition = batch.condition(1, &config, &device).unwrap();
        let above = condition.above.unwrap().into_data();
        assert_eq!(above.iter::<i64>().collect::<Vec<_>>(), [0, 1]);
        let classes = condition.class_labels.unwrap().into_data();
        assert_eq!(classes.iter::<i64>().collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn codes_that_do_not_fit_are_named() {
        let device = Device::flex();
        let batch = batch();
        let message = |level, shape: CodeShape| {
            let error = batch.codes(level, shape, &device).unwrap_err();
            error.to_string()
        };
        assert!(message(2, SHAPE).contains("`level` is 2, expected below 2"));
        assert!(message(0, SHAPE).contains("`codes` is 1, expected 2 codes of a sample"));
        let few = CodeShape {
            num_codes: 3,
            ..SHAPE
        };
        assert!(message(1, few).contains("`codes` is 3, expected below 3"));
        let config = CodePriorConfig {
            num_classes: Some(1),
            ..CodePriorConfig::new(SHAPE)
        };
        let error = batch.condition(1, &config, &device).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("`labels` is 1, expected below 1")
        );
        let config = CodePriorConfig {
            above: Some(SHAPE),
            ..CodePriorConfig::new(SHAPE)
        };
        let error = batch.condition(0, &config, &device).unwrap_err();
        assert!(error.to_string().contains("`level` is 0"), "{error}");
    }

    /// The codes of images of two pixels are grey levels: of the first pixel, and of both.
    #[derive(Module, Debug)]
    struct GreyLevels {
        width: usize,
    }

    impl DiscreteVae for GreyLevels {
        fn input_shape(&self) -> SampleShape {
            ImageShape::new(1, 1, self.width).into()
        }

        fn code_shapes(&self) -> Vec<CodeShape> {
            let of_width = |width| CodeShape {
                width,
                num_codes: 256,
                ..SHAPE
            };
            vec![of_width(1), of_width(self.width)]
        }

        fn encode_codes(&self, x: Tensor<4>) -> Vec<Tensor<3, Int>> {
            let codes = (x.clone() * 255.0).round().int();
            let codes: Tensor<3, Int> = codes.reshape([x.dims()[0], self.width, 1]);
            vec![codes.clone().narrow(1, 0, 1), codes]
        }

        fn decode_codes(&self, _codes: &[Tensor<3, Int>]) -> Likelihood {
            unreachable!("a data set is only encoded")
        }
    }

    /// The codes of a data set are those of its samples, in order.
    #[test]
    fn data_sets_are_encoded_in_order() {
        let (model, device) = (GreyLevels { width: 2 }, Device::flex());
        let image = |index: u8| Image {
            shape: ImageShape::new(1, 1, 2),
            pixels: vec![50 * index, 50 * index + 3],
            label: Some(u32::from(index)),
        };
        let config = DataLoaderConfig {
            batch_size: 2,
            num_workers: 0,
            ..DataLoaderConfig::default()
        };
        let images = InMemory((0..5).map(image).collect());
        let loader = DataLoader::new(images, collate_images, config).unwrap();
        let InMemory(samples) = encode_dataset(&model, &loader, &device).unwrap();
        let expected = |index: u32| CodeSample {
            levels: vec![vec![50 * index], vec![50 * index, 50 * index + 3]],
            label: Some(index),
        };
        let expected: Vec<CodeSample> = (0..5).map(expected).collect();
        assert_eq!(samples, expected);
    }
}
