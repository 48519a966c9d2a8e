//! Features of samples, computed batch by batch.

use super::{FeatureCache, Features};
use crate::{CancelToken, Error, Result, data::SampleBatch, eval::FeatureStatistics};
use burn::tensor::{Device, Tensor};

/// Computes features of samples. `D` is the rank of a batch: 4 for images, 3 for sound.
pub trait FeatureExtractor<const D: usize = 4> {
    /// Names the network, its layer and its weights. Features with different names are not
    /// comparable, and are kept apart in a [`FeatureCache`].
    fn id(&self) -> String;

    /// Number of features of a sample.
    fn width(&self) -> usize;

    /// Features of a batch.
    ///
    /// # Shapes
    /// - samples: `[batch, channels, height, width]` in `[0, 1]`, or `[batch, channels, time]` in
    ///   `[−1, 1]`
    /// - output: `[batch, width]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the extractor does not accept samples of this shape.
    fn extract(&self, samples: Tensor<D>) -> Result<Tensor<2>>;
}

impl<const D: usize, E: FeatureExtractor<D> + ?Sized> FeatureExtractor<D> for &E {
    fn id(&self) -> String {
        (**self).id()
    }

    fn width(&self) -> usize {
        (**self).width()
    }

    fn extract(&self, samples: Tensor<D>) -> Result<Tensor<2>> {
        (**self).extract(samples)
    }
}

/// A function as a [`FeatureExtractor`].
pub struct ClosureExtractor<F> {
    id: String,
    width: usize,
    extract: F,
}

impl<F> ClosureExtractor<F> {
    /// Calls `extract`, which returns `width` features of each sample. `id` has to change with
    /// everything that changes the features.
    pub fn new(id: impl Into<String>, width: usize, extract: F) -> Self {
        Self {
            id: id.into(),
            width,
            extract,
        }
    }
}

impl<F> std::fmt::Debug for ClosureExtractor<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClosureExtractor")
            .field("id", &self.id)
            .field("width", &self.width)
            .finish_non_exhaustive()
    }
}

impl<const D: usize, F: Fn(Tensor<D>) -> Result<Tensor<2>>> FeatureExtractor<D>
    for ClosureExtractor<F>
{
    fn id(&self) -> String {
        self.id.clone()
    }

    fn width(&self) -> usize {
        self.width
    }

    fn extract(&self, samples: Tensor<D>) -> Result<Tensor<2>> {
        (self.extract)(samples)
    }
}

/// Computes the features of batches, in memory that does not grow with their number.
///
/// ```no_run
/// # use aigc_core::{data::*, device::device, eval::*};
/// # fn example(loader: DataLoader<ImageBatch>) -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let file = "weights-inception-2015-12-05-6726825d.pth";
/// let inception = InceptionV3::from_file(file.as_ref(), &device)?;
/// let statistics = FeatureStream::new(&inception, &device)
///     .with_cache(FeatureCache::new("features"))
///     .statistics(loader.iter_once())?;
/// # Ok(()) }
/// ```
pub struct FeatureStream<'a, const D: usize = 4> {
    extractor: &'a dyn FeatureExtractor<D>,
    device: Device,
    cache: Option<FeatureCache>,
    cancel: CancelToken,
    on_progress: Option<Box<dyn Fn(usize) + 'a>>,
}

impl<const D: usize> std::fmt::Debug for FeatureStream<'_, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FeatureStream")
            .field("extractor", &self.extractor.id())
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

impl<'a, const D: usize> FeatureStream<'a, D> {
    /// Features of `extractor`, whose samples are moved to `device`.
    pub fn new(extractor: &'a dyn FeatureExtractor<D>, device: &Device) -> Self {
        Self {
            extractor,
            device: device.clone(),
            cache: None,
            cancel: CancelToken::new(),
            on_progress: None,
        }
    }

    /// Reads features of batches that were seen before from `cache`, and writes those of others.
    pub fn with_cache(mut self, cache: FeatureCache) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Stops before the next batch when `token` is cancelled.
    pub fn with_cancel(mut self, token: CancelToken) -> Self {
        self.cancel = token;
        self
    }

    /// Calls `callback` after every batch with the number of samples so far.
    pub fn with_progress(mut self, callback: impl Fn(usize) + 'a) -> Self {
        self.on_progress = Some(Box::new(callback));
        self
    }

    /// Calls `each` with the features of every batch, in order; returns the number of samples.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no samples, or the extractor returns other features
    /// than it says, or some that are not finite; [`Error::Cancelled`]; errors of the batches, the
    /// extractor, the cache and `each`.
    pub fn for_each<B: SampleBatch<D>>(
        &self,
        batches: impl IntoIterator<Item = Result<B>>,
        mut each: impl FnMut(Features) -> Result<()>,
    ) -> Result<usize> {
        let mut count = 0;
        for batch in batches {
            if self.cancel.is_cancelled() {
                return Err(Error::cancelled("computing features"));
            }
            let batch = batch?;
            if batch.is_empty() {
                continue;
            }
            let samples = batch.to_tensor(&self.device);
            let features = match &self.cache {
                Some(cache) => cache.features(self.extractor, samples)?,
                None => extract(self.extractor, samples)?,
            };
            count += features.len();
            each(features)?;
            if let Some(callback) = &self.on_progress {
                callback(count);
            }
        }
        if count == 0 {
            return Err(Error::argument("samples", 0, "at least 1"));
        }
        Ok(count)
    }

    /// Mean and covariance of the features of all batches.
    ///
    /// # Errors
    /// As [`for_each`](Self::for_each).
    pub fn statistics<B: SampleBatch<D>>(
        &self,
        batches: impl IntoIterator<Item = Result<B>>,
    ) -> Result<FeatureStatistics> {
        let mut statistics = FeatureStatistics::new(self.extractor.width())?;
        self.for_each(batches, |features| statistics.add_features(&features))?;
        Ok(statistics)
    }

    /// The features of all batches: `4 × width` bytes of memory for each sample.
    ///
    /// # Errors
    /// As [`for_each`](Self::for_each).
    pub fn features<B: SampleBatch<D>>(
        &self,
        batches: impl IntoIterator<Item = Result<B>>,
    ) -> Result<Features> {
        let mut all = Features::empty(self.extractor.width())?;
        self.for_each(batches, |features| all.append(&features))?;
        Ok(all)
    }
}

/// Checked features of a batch.
pub(crate) fn extract<const D: usize>(
    extractor: &dyn FeatureExtractor<D>,
    samples: Tensor<D>,
) -> Result<Features> {
    let expected = [samples.dims()[0], extractor.width()];
    let features = extractor.extract(samples)?;
    if features.dims() != expected {
        return Err(Error::argument(
            "features",
            format!("{:?} of {}", features.dims(), extractor.id()),
            format!("{expected:?}"),
        ));
    }
    Features::from_tensor(&features)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::data::{ImageBatch, collate_images, digits};

    fn batches(size: usize) -> Vec<Result<ImageBatch>> {
        let images = digits::train_test_split().1.0;
        let batches = images[..60].chunks(size);
        batches
            .map(|images| Ok(collate_images(images.to_vec())))
            .collect()
    }

    fn pixels() -> ClosureExtractor<impl Fn(Tensor<4>) -> Result<Tensor<2>>> {
        ClosureExtractor::new("pixels", 64, |x: Tensor<4>| Ok(x.flatten(1, 3)))
    }

    #[test]
    fn batch_size_does_not_change_features() {
        let device = Device::flex();
        let extractor = pixels();
        let stream = FeatureStream::new(&extractor, &device);
        let all = stream.features(batches(60)).unwrap();
        assert_eq!(all, stream.features(batches(7)).unwrap());
        assert_eq!((all.len(), all.width()), (60, 64));
        let statistics = stream.statistics(batches(13)).unwrap();
        assert_eq!(statistics.count(), 60);
        let mean = all.rows().map(|row| f64::from(row[20])).sum::<f64>() / 60.0;
        assert!((statistics.mean()[20] - mean).abs() < 1e-6);
    }

    #[test]
    fn wrong_and_missing_features_are_errors() {
        let device = Device::flex();
        let narrow = ClosureExtractor::new("narrow", 3, |x: Tensor<4>| Ok(x.flatten(1, 3)));
        let error = FeatureStream::new(&narrow, &device).features(batches(60));
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("[60, 64] of narrow, expected [60, 3]"),
            "{error}"
        );
        let extractor = pixels();
        let stream = FeatureStream::new(&extractor, &device);
        let none: Vec<Result<ImageBatch>> = vec![];
        assert!(stream.features(none).is_err());
        let nan = ClosureExtractor::new("nan", 64, |x: Tensor<4>| Ok(x.flatten(1, 3) / 0.0));
        assert!(
            FeatureStream::new(&nan, &device)
                .features(batches(60))
                .is_err()
        );
    }

    #[test]
    fn cancelled_streams_stop() {
        let token = CancelToken::new();
        let device = Device::flex();
        let extractor = pixels();
        let seen = std::cell::Cell::new(0);
        let stream = FeatureStream::new(&extractor, &device)
            .with_cancel(token.clone())
            .with_progress(|count| {
                seen.set(count);
                token.cancel();
            });
        let error = stream.features(batches(20)).unwrap_err();
        assert!(matches!(error, Error::Cancelled { .. }), "{error}");
        assert_eq!(seen.get(), 20);
    }
}
