//! The methods that set the options of a sampler.

/// Defines the methods that set the options of a sampler that draws in batches: `with_classes`,
/// `with_batch_size`, `with_cancel` and `with_callback`. The argument is a lifetime `'a`; the
/// sampler has a field `classes`, a [`ClassLabels`](crate::sampling::ClassLabels), and a field
/// `options`, a [`SamplingOptions<'a, BatchProgress>`](crate::sampling::SamplingOptions).
#[macro_export]
macro_rules! sampling_methods {
    ($lifetime:lifetime) => {
        /// Sets the classes of the samples.
        pub fn with_classes(mut self, classes: $crate::sampling::ClassLabels) -> Self {
            self.classes = classes;
            self
        }

        /// Sets the number of samples per batch, which limits the memory of large requests.
        pub fn with_batch_size(mut self, batch_size: usize) -> Self {
            self.options.batch_size = batch_size;
            self
        }

        /// Stops once `cancel` is cancelled. Samples of whole batches are returned; where a part
        /// would be of no use, the error is `Error::Cancelled`.
        pub fn with_cancel(mut self, cancel: $crate::CancelToken) -> Self {
            self.options.cancel = cancel;
            self
        }

        /// Calls `callback` after each batch; `ControlFlow::Break` stops sampling.
        pub fn with_callback<F>(mut self, callback: F) -> Self
        where
            F: FnMut(&$crate::sampling::BatchProgress) -> ::std::ops::ControlFlow<()> + $lifetime,
        {
            self.options = self.options.on_progress(callback);
            self
        }
    };
}
