//! What the samplers of VAEs, GANs and diffusion share: batch size, cancellation, progress,
//! results.

mod classes;
mod methods;

pub use classes::ClassLabels;

use crate::{CancelToken, Error, Result};
use burn::tensor::Tensor;
use std::{
    cell::RefCell,
    ops::{ControlFlow, Range},
    rc::Rc,
};

/// Called during sampling; can stop it.
type OnProgress<'a, P> = Rc<RefCell<dyn FnMut(&P) -> ControlFlow<()> + 'a>>;

/// Options of the samplers of VAEs, GANs and diffusion. `P` is the progress that a callback
/// receives.
pub struct SamplingOptions<'a, P> {
    /// Samples per pass of the network; limits the memory for any number of samples.
    pub batch_size: usize,
    /// Stops sampling between two passes.
    pub cancel: CancelToken,
    on_progress: Option<OnProgress<'a, P>>,
}

impl<P> SamplingOptions<'_, P> {
    /// Options with this batch size and without a callback.
    pub fn new(batch_size: usize) -> Self {
        Self {
            batch_size,
            cancel: CancelToken::new(),
            on_progress: None,
        }
    }
}

impl<'a, P> SamplingOptions<'a, P> {
    /// Calls `callback` with the progress; `ControlFlow::Break` stops sampling.
    pub fn on_progress(mut self, callback: impl FnMut(&P) -> ControlFlow<()> + 'a) -> Self {
        self.on_progress = Some(Rc::new(RefCell::new(callback)));
        self
    }

    /// Whether there is a callback.
    pub fn has_callback(&self) -> bool {
        self.on_progress.is_some()
    }

    /// Reports progress to the callback; returns whether to continue.
    pub fn report(&self, progress: &P) -> ControlFlow<()> {
        if self.cancel.is_cancelled() {
            return ControlFlow::Break(());
        }
        match &self.on_progress {
            Some(callback) => (callback.borrow_mut())(progress),
            None => ControlFlow::Continue(()),
        }
    }

    /// The batches of `n` samples, as ranges of sample indices.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `n` or the batch size is 0.
    pub fn batches(&self, n: usize) -> Result<impl Iterator<Item = Range<usize>> + use<P>> {
        for (argument, value) in [("n", n), ("batch_size", self.batch_size)] {
            if value == 0 {
                return Err(Error::argument(argument, value, "at least 1"));
            }
        }
        let batch_size = self.batch_size;
        Ok((0..n)
            .step_by(batch_size)
            .map(move |start| start..(start + batch_size).min(n)))
    }
}

impl<P> Clone for SamplingOptions<'_, P> {
    fn clone(&self) -> Self {
        Self {
            batch_size: self.batch_size,
            cancel: self.cancel.clone(),
            on_progress: self.on_progress.clone(),
        }
    }
}

impl<P> std::fmt::Debug for SamplingOptions<'_, P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SamplingOptions")
            .field("batch_size", &self.batch_size)
            .finish_non_exhaustive()
    }
}

/// Samples, with their classes and seed.
#[derive(Clone, Debug)]
pub struct Samples<const D: usize = 4> {
    /// The samples, `[n, …]`; fewer than requested if sampling was stopped.
    pub values: Tensor<D>,
    /// The class of each sample of a class-conditional model.
    pub labels: Option<Vec<u32>>,
    /// The seed of the samples.
    pub seed: u64,
    /// Whether all requested samples were drawn to the end.
    pub complete: bool,
}

impl<const D: usize> Samples<D> {
    /// The samples that [`collect`](SamplingOptions::collect) returned, and whether they are all;
    /// of the `labels` of all requested samples, those of the drawn ones are kept.
    pub fn new(
        (values, complete): (Tensor<D>, bool),
        mut labels: Option<Vec<u32>>,
        seed: u64,
    ) -> Self {
        if let Some(labels) = &mut labels {
            labels.truncate(values.dims()[0]);
        }
        Self {
            values,
            labels,
            seed,
            complete,
        }
    }
}

/// Progress of sampling in batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchProgress {
    /// Samples drawn so far.
    pub done: usize,
    /// Samples requested.
    pub total: usize,
}

impl SamplingOptions<'_, BatchProgress> {
    /// Calls `draw` for each batch of `n` samples and joins the results; also returns whether all
    /// `n` samples were drawn. A callback or a cancelled token stops between two batches.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `n` or the batch size is 0, [`Error::Cancelled`] if it was
    /// cancelled before the first batch, and errors of `draw`.
    pub fn collect<const D: usize>(
        &self,
        n: usize,
        mut draw: impl FnMut(Range<usize>) -> Result<Tensor<D>>,
    ) -> Result<(Tensor<D>, bool)> {
        let (parts, done) = self.collect_parts(n, |batch| draw(batch).map(Some))?;
        Ok((Tensor::cat(parts, 0), done == n))
    }

    /// Calls `draw` for each batch of `n` samples; returns the results and the number of samples
    /// that were drawn. A callback or a cancelled token stops between two batches, and `draw` stops
    /// within its batch by returning `None`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `n` or the batch size is 0, [`Error::Cancelled`] if it was
    /// stopped before the end of the first batch, and errors of `draw`.
    pub fn collect_parts<T>(
        &self,
        n: usize,
        mut draw: impl FnMut(Range<usize>) -> Result<Option<T>>,
    ) -> Result<(Vec<T>, usize)> {
        let (mut parts, mut done) = (Vec::new(), 0);
        for batch in self.batches(n)? {
            if self.cancel.is_cancelled() {
                break;
            }
            let end = batch.end;
            let Some(part) = draw(batch)? else {
                break;
            };
            parts.push(part);
            done = end;
            if self.report(&BatchProgress { done, total: n }).is_break() {
                break;
            }
        }
        if parts.is_empty() {
            return Err(Error::cancelled("sampling"));
        }
        Ok((parts, done))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn batches_are_collected_until_stopped() {
        let device = Device::flex();
        let draw = |batch: Range<usize>| {
            let values: Vec<f32> = batch.map(|i| i as f32).collect();
            Ok(Tensor::<1>::from_floats(&values[..], &device))
        };
        let options = SamplingOptions::new(2);
        let (values, complete) = options.collect(5, draw).unwrap();
        let values: Vec<f32> = values.into_data().iter().collect();
        assert_eq!((values, complete), (vec![0.0, 1.0, 2.0, 3.0, 4.0], true));
        let stopping =
            SamplingOptions::new(2).on_progress(|progress: &BatchProgress| match progress.done {
                4 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            });
        let (values, complete) = stopping.collect(5, draw).unwrap();
        assert_eq!((values.dims(), complete), ([4], false));
        let samples = Samples::new((values, complete), Some(vec![0, 1, 2, 3, 4]), 7);
        assert_eq!(samples.labels, Some(vec![0, 1, 2, 3]));
        // The second batch is not drawn to its end.
        let first = |batch: Range<usize>| Ok((batch.start == 0).then_some(batch.end));
        assert_eq!(options.collect_parts(5, first).unwrap(), (vec![2], 2));
        assert!(matches!(
            options.collect_parts(5, |_| Ok(None::<usize>)),
            Err(Error::Cancelled { .. })
        ));
        options.cancel.cancel();
        assert!(matches!(
            options.collect(5, draw),
            Err(Error::Cancelled { .. })
        ));
        let empty = SamplingOptions::new(0).collect(5, draw).unwrap_err();
        assert!(empty.to_string().contains("`batch_size` is 0"), "{empty}");
    }
}
