//! The codes of a data set.

use super::{CodePriorConfig, PriorCondition};
use crate::{CodeShape, DiscreteVae};
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
    /// [`Error::Config`] if the prior needs classes or codes that the batch does not have.
    pub fn condition(
        &self,
        level: usize,
        config: &CodePriorConfig,
        device: &Device,
    ) -> Result<PriorCondition> {
        let class_labels = match config.num_classes {
            None => None,
            Some(count) => Some(self.class_tensor(count, device)?),
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

    fn class_tensor(&self, count: usize, device: &Device) -> Result<Tensor<1, Int>> {
        let Some(labels) = &self.labels else {
            let expected = format!("labels of {count} classes, for a conditional prior");
            return Err(Error::config("labels", "missing", expected));
        };
        match labels.iter().find(|label| **label as usize >= count) {
            None => Ok(label_tensor(labels, device)),
            Some(label) => {
                let expected = format!("below {count}, the number of classes");
                Err(Error::config("labels", label, expected))
            }
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{CodeUsage, FiniteScalarQuantizerConfig, VqVae2Config};
    use aigc_core::{
        data::{DataLoaderConfig, Image, ImageShape, collate_images},
        rng::InitWeights,
    };

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

    /// The codes of a data set are those of its samples, in order.
    #[test]
    fn data_sets_are_encoded_in_order() {
        let device = Device::flex();
        let quantizer = FiniteScalarQuantizerConfig::new(&[5, 5, 5]);
        let config = VqVae2Config {
            channels: 4,
            residual_blocks: 0,
            top: quantizer.clone().into(),
            bottom: quantizer.into(),
            ..VqVae2Config::new(ImageShape::new(1, 8, 8))
        };
        let model = config.init(&device).unwrap().init_weights(1);
        let image = |index: usize| Image {
            shape: ImageShape::new(1, 8, 8),
            pixels: (0..64)
                .map(|at| (at * (index + 1) * 37 % 256) as u8)
                .collect(),
            label: Some(index as u32),
        };
        let images: Vec<Image> = (0..5).map(image).collect();
        let loader = DataLoader::new(
            InMemory(images.clone()),
            collate_images,
            DataLoaderConfig {
                batch_size: 2,
                num_workers: 0,
                ..DataLoaderConfig::default()
            },
        )
        .unwrap();
        let InMemory(samples) = encode_dataset(&model, &loader, &device).unwrap();
        assert_eq!(samples.len(), 5);
        let shapes = model.code_shapes();
        let mut usage = CodeUsage::new(1, 125).unwrap();
        for (index, (sample, image)) in samples.iter().zip(images).enumerate() {
            assert_eq!(sample.label, Some(index as u32));
            let x = collate_images(vec![image]).to_tensor(&device);
            let codes = model.encode_codes(x);
            for (level, codes) in codes.into_iter().enumerate() {
                let codes: Vec<u32> = codes.into_data().iter::<u32>().collect();
                assert_eq!(sample.levels[level], codes);
                assert_eq!(codes.len(), shapes[level].num_indices());
                let codes: Vec<i64> = codes.into_iter().map(i64::from).collect();
                usage.add_indices(&codes).unwrap();
            }
        }
        assert!(usage.usage() > 0.0);
    }
}
