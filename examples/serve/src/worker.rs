//! The thread that has the model, and the queue before it.

use crate::{error::ApiError, picture::OutputFormat};
use aigc_core::{
    CancelToken, Error, Result,
    text_to_image::{
        GenerationOptions, GenerationProgress, GenerationStage, ImageRequest, TextToImage,
    },
};
use std::{
    collections::VecDeque,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Instant,
};
use tokio::sync::{
    OwnedSemaphorePermit, Semaphore,
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

/// Opens the model, on the thread that will use it.
pub type OpenModel = Box<dyn FnOnce() -> Result<Box<dyn TextToImage>> + Send>;

/// What the worker tells of a job.
#[derive(Debug)]
pub(crate) enum JobEvent {
    /// The model has accepted the request and makes it.
    Begun,
    /// An image that is not finished.
    Partial {
        index: usize,
        partial_index: usize,
        size: String,
        bytes: Vec<u8>,
    },
    /// The end.
    Done(Result<Finished, ApiError>),
}

/// The images of a job.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) images: Vec<FinishedImage>,
    pub(crate) seed: Option<u64>,
    pub(crate) warnings: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct FinishedImage {
    pub(crate) index: usize,
    pub(crate) size: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) revised_prompt: Option<String>,
}

/// A place in the queue. It is taken before the body of a request is read, so that the memory of
/// all requests has a bound too.
#[derive(Debug)]
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
}

struct Job {
    id: u64,
    request: ImageRequest,
    output: OutputFormat,
    partial_images: usize,
    cancel: CancelToken,
    events: UnboundedSender<JobEvent>,
    slot: Option<Slot>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    next_id: u64,
    /// Whether a job is being made.
    is_running: bool,
    is_closed: bool,
    /// Mean of the seconds of a job, the last ones weighing most.
    mean_seconds: Option<f64>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is complete between two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a job has ended.
    fn finish(&self, cancel: &CancelToken, seconds: f64) {
        let mut state = self.lock();
        state.is_running = false;
        if !cancel.is_cancelled() {
            state.mean_seconds = Some(match state.mean_seconds {
                Some(mean) => 0.8 * mean + 0.2 * seconds,
                None => seconds,
            });
        }
    }
}

/// The thread that has the model.
pub(crate) struct Worker {
    queue: Arc<Queue>,
    slots: Arc<Semaphore>,
    model: String,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A job that was submitted. When it is dropped, the job leaves the queue or is stopped.
pub(crate) struct JobHandle {
    id: u64,
    cancel: CancelToken,
    queue: Arc<Queue>,
    pub(crate) events: UnboundedReceiver<JobEvent>,
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.queue.lock().jobs.retain(|job| job.id != self.id);
    }
}

impl Worker {
    /// Opens a model on a new thread, with a queue of `waiting` requests.
    pub(crate) fn spawn(open: OpenModel, waiting: usize) -> Result<Self> {
        let queue = Arc::new(Queue::default());
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
            slots: Arc::new(Semaphore::new(waiting + 1)),
            model,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Name of the model.
    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    /// A place in the queue, or the error for a full one.
    pub(crate) fn reserve(&self) -> Result<Slot, ApiError> {
        if self.queue.lock().is_closed {
            return Err(ApiError::shutting_down());
        }
        match self.slots.clone().try_acquire_owned() {
            Ok(permit) => Ok(Slot { _permit: permit }),
            Err(_) => {
                let state = self.queue.lock();
                let seconds = state.mean_seconds.unwrap_or(1.0);
                let wait = seconds.ceil().clamp(1.0, 120.0) as u64;
                Err(ApiError::busy(state.jobs.len(), wait))
            }
        }
    }

    /// Puts a job into the queue.
    pub(crate) fn submit(
        &self,
        slot: Slot,
        request: ImageRequest,
        output: OutputFormat,
        partial_images: usize,
    ) -> Result<JobHandle, ApiError> {
        let (sender, events) = unbounded_channel();
        let cancel = CancelToken::new();
        let mut state = self.queue.lock();
        if state.is_closed {
            return Err(ApiError::shutting_down());
        }
        let id = state.next_id;
        state.next_id += 1;
        state.jobs.push_back(Job {
            id,
            request,
            output,
            partial_images,
            cancel: cancel.clone(),
            events: sender,
            slot: Some(slot),
        });
        drop(state);
        self.queue.changed.notify_one();
        Ok(JobHandle {
            id,
            cancel,
            queue: self.queue.clone(),
            events,
        })
    }

    /// Number of requests that wait or are made.
    pub(crate) fn load(&self) -> usize {
        let state = self.queue.lock();
        state.jobs.len() + usize::from(state.is_running)
    }

    /// Refuses further jobs and those that wait. The one that is being made is finished.
    pub(crate) fn close(&self) {
        let mut state = self.queue.lock();
        state.is_closed = true;
        // Their clients see that no event comes.
        state.jobs.clear();
        drop(state);
        self.queue.changed.notify_all();
    }

    /// Closes the queue and waits for the thread; returns whether it ended well.
    pub(crate) fn join(&self) -> bool {
        self.close();
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
    loop {
        let mut job = {
            let mut state = queue.lock();
            loop {
                if let Some(job) = state.jobs.pop_front() {
                    state.is_running = true;
                    break job;
                }
                if state.is_closed {
                    return;
                }
                let woken = queue.changed.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
            }
        };
        let start = Instant::now();
        // A panic of the model is an error of this job only.
        let result = catch_unwind(AssertUnwindSafe(|| make(model, &job)));
        let result = result.unwrap_or_else(|_| Err(ApiError::internal("the model panicked")));
        // The place is free before the client learns that it can ask again.
        job.slot = None;
        queue.finish(&job.cancel, start.elapsed().as_secs_f64());
        let _ = job.events.send(JobEvent::Done(result));
    }
}

fn make(model: &dyn TextToImage, job: &Job) -> Result<Finished, ApiError> {
    let mut progress = JobProgress::new(job);
    let mut options = GenerationOptions::default()
        .with_cancel(job.cancel.clone())
        .with_callback(|found| progress.report(found));
    let made = model.generate_with(&job.request, &mut options);
    drop(options);
    let made = made.map_err(ApiError::of_model)?;
    if made.images.is_empty() {
        return Err(match job.cancel.is_cancelled() {
            true => ApiError::shutting_down(),
            false => ApiError::internal("the model made no image"),
        });
    }
    let encode = |image: aigc_core::text_to_image::GeneratedImage| {
        let bytes = job.output.encode(&image.image);
        Ok(FinishedImage {
            index: image.index,
            size: format!("{}x{}", image.image.width(), image.image.height()),
            bytes: bytes.map_err(|error| ApiError::internal(error.to_string()))?,
            revised_prompt: image.revised_prompt,
        })
    };
    Ok(Finished {
        images: made
            .images
            .into_iter()
            .map(encode)
            .collect::<Result<_, _>>()?,
        seed: made.request.seed,
        warnings: made.warnings,
    })
}

/// Tells of the progress of a job.
struct JobProgress<'a> {
    job: &'a Job,
    has_begun: bool,
    /// The first of the images in progress.
    first: usize,
    /// How many partial images of them were due, and were sent: several may be due in one step.
    due: usize,
    sent: usize,
}

impl<'a> JobProgress<'a> {
    fn new(job: &'a Job) -> Self {
        Self {
            job,
            has_begun: false,
            first: 0,
            due: 0,
            sent: 0,
        }
    }

    fn report(&mut self, progress: &GenerationProgress<'_>) -> ControlFlow<()> {
        let is_waiting = matches!(
            progress.stage,
            GenerationStage::Loading | GenerationStage::Waiting
        );
        if !self.has_begun && !is_waiting {
            self.has_begun = true;
            self.send(JobEvent::Begun)?;
        }
        if progress.stage != GenerationStage::Denoising {
            return ControlFlow::Continue(());
        }
        if progress.images.start != self.first {
            (self.first, self.due, self.sent) = (progress.images.start, 0, 0);
        }
        let due = due(self.job.partial_images, progress.step, progress.num_steps);
        let preview = progress.preview.filter(|_| due > self.due);
        let Some(preview) = preview else {
            return ControlFlow::Continue(());
        };
        self.due = due;
        let first = self.job.request.first_image.unwrap_or(0) + progress.images.start;
        for (i, image) in preview().iter().enumerate() {
            if let Ok(bytes) = self.job.output.encode(image) {
                self.send(JobEvent::Partial {
                    index: first + i,
                    partial_index: self.sent,
                    size: format!("{}x{}", image.width(), image.height()),
                    bytes,
                })?;
            }
        }
        self.sent += 1;
        ControlFlow::Continue(())
    }

    fn send(&self, event: JobEvent) -> ControlFlow<()> {
        match self.job.events.send(event) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

/// How many of `partial` images there should be after `step` of `steps`: they divide the steps
/// evenly, and the last step has the finished image.
fn due(partial: usize, step: usize, steps: usize) -> usize {
    if partial == 0 || step >= steps {
        return 0;
    }
    (step * (partial + 1) / steps).min(partial)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_images_divide_the_steps() {
        let steps = |partial, steps| -> Vec<usize> {
            (1..=steps)
                .filter(|step| due(partial, *step, steps) > due(partial, step - 1, steps))
                .collect()
        };
        assert!(steps(0, 20).is_empty());
        assert_eq!(steps(1, 20), [10]);
        assert_eq!(steps(3, 20), [5, 10, 15]);
        assert_eq!(steps(3, 2), [1]);
        assert!(steps(3, 1).is_empty());
    }
}
