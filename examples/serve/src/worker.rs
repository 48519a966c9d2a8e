//! The thread that has the model, and makes one job after the other.

use crate::{
    error::ApiError,
    progress::JobProgress,
    queue::{Finished, FinishedImage, Job, Queue},
};
use aigc_core::{
    Error, Result,
    text_to_image::{GeneratedImage, GenerationOptions, TextToImage},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Instant,
};

/// Opens the model, on the thread that will use it.
pub type OpenModel = Box<dyn FnOnce() -> Result<Box<dyn TextToImage>> + Send>;

/// The thread that has the model.
pub(crate) struct Worker {
    queue: Arc<Queue>,
    model: String,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    /// Opens a model on a new thread, with a queue of `waiting` requests.
    pub(crate) fn spawn(open: OpenModel, waiting: usize) -> Result<Self> {
        let queue = Arc::new(Queue::new(waiting));
        let (opened, is_open) = mpsc::channel();
        let thread = thread::Builder::new().name("model".into());
        let thread = thread.spawn({
            let queue = queue.clone();
            move || {
                let model = match open() {
                    Ok(model) => model,
                    Err(error) => {
                        let _ = opened.send(Err(error));
                        return;
                    }
                };
                if opened.send(Ok(model.model_name().to_string())).is_ok() {
                    work(&*model, &queue);
                }
            }
        });
        let thread = thread.map_err(Error::other)?;
        let model = is_open
            .recv()
            .unwrap_or_else(|_| Err(Error::other("the model's thread ended while it opened")))?;
        Ok(Self {
            queue,
            model,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Name of the model.
    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    /// The queue before the model.
    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Closes the queue and waits for the thread; returns whether it ended well.
    pub(crate) fn join(&self) -> bool {
        self.queue.close();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        thread.is_none_or(|thread| thread.join().is_ok())
    }
}

/// Makes one job after the other until the queue is closed.
fn work(model: &dyn TextToImage, queue: &Queue) {
    while let Some(job) = queue.next_job() {
        let start = Instant::now();
        // A panic of the model is an error of this job only.
        let result = catch_unwind(AssertUnwindSafe(|| make(model, &job)));
        let result = result.unwrap_or_else(|_| Err(ApiError::internal("the model panicked")));
        queue.finish(job, start.elapsed().as_secs_f64(), result);
    }
}

fn make(model: &dyn TextToImage, job: &Job) -> Result<Finished, ApiError> {
    let mut progress = JobProgress::new(job);
    let mut options = GenerationOptions::default()
        .with_cancel(job.cancel.clone())
        .with_callback(|found| progress.report(found));
    let made = model.generate_with(&job.request, &mut options);
    drop(options);
    let mut made = made.map_err(ApiError::of_model)?;
    if made.images.is_empty() {
        return Err(match job.cancel.is_cancelled() {
            true => ApiError::shutting_down(),
            false => ApiError::internal("the model made no image"),
        });
    }
    let images = std::mem::take(&mut made.images);
    let encode = |mut image: GeneratedImage| -> Result<FinishedImage, ApiError> {
        let (index, revised_prompt) = (image.index, image.revised_prompt.take());
        let size = format!("{}x{}", image.image.width(), image.image.height());
        let bytes = job.output.encode_finished(&made, image);
        Ok(FinishedImage {
            index,
            size,
            bytes: bytes.map_err(|error| ApiError::internal(error.to_string()))?,
            revised_prompt,
        })
    };
    let images = images
        .into_iter()
        .map(encode)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Finished {
        images,
        seed: made.request.seed,
        warnings: made.warnings,
    })
}
