//! The queue before the model: places with a bound, jobs, and what is told of them.

use crate::{error::ApiError, picture::OutputFormat};
use aigc_core::{CancelToken, text_to_image::ImageRequest};
use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{
    OwnedSemaphorePermit, Semaphore,
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

/// What is told of a job.
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

/// A request in the queue.
pub(crate) struct Job {
    id: u64,
    pub(crate) request: ImageRequest,
    pub(crate) output: OutputFormat,
    pub(crate) partial_images: usize,
    pub(crate) cancel: CancelToken,
    pub(crate) events: UnboundedSender<JobEvent>,
    slot: Slot,
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

/// Jobs that wait, and the one that is being made.
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    slots: Arc<Semaphore>,
}

impl Queue {
    /// A queue in which `waiting` jobs may wait while another one is made.
    pub(crate) fn new(waiting: usize) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            slots: Arc::new(Semaphore::new(waiting + 1)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is complete between two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place in the queue, or the error for a full one.
    pub(crate) fn reserve(&self) -> Result<Slot, ApiError> {
        if self.lock().is_closed {
            return Err(ApiError::shutting_down());
        }
        match self.slots.clone().try_acquire_owned() {
            Ok(permit) => Ok(Slot { _permit: permit }),
            Err(_) => {
                let state = self.lock();
                let seconds = state.mean_seconds.unwrap_or(1.0);
                let wait = seconds.ceil().clamp(1.0, 120.0) as u64;
                Err(ApiError::busy(state.jobs.len(), wait))
            }
        }
    }

    /// Adds a job.
    pub(crate) fn submit(
        self: &Arc<Self>,
        slot: Slot,
        request: ImageRequest,
        output: OutputFormat,
        partial_images: usize,
    ) -> Result<JobHandle, ApiError> {
        let (sender, events) = unbounded_channel();
        let cancel = CancelToken::new();
        let mut state = self.lock();
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
            slot,
        });
        drop(state);
        self.changed.notify_one();
        Ok(JobHandle {
            id,
            cancel,
            queue: self.clone(),
            events,
        })
    }

    /// Waits for the next job; `None` once the queue is closed.
    pub(crate) fn next_job(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                state.is_running = true;
                return Some(job);
            }
            if state.is_closed {
                return None;
            }
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends a job that took `seconds`.
    pub(crate) fn finish(&self, job: Job, seconds: f64, result: Result<Finished, ApiError>) {
        let Job {
            cancel,
            events,
            slot,
            ..
        } = job;
        // The place is free before the client learns that it can ask again.
        drop(slot);
        let mut state = self.lock();
        state.is_running = false;
        if !cancel.is_cancelled() {
            state.mean_seconds = Some(match state.mean_seconds {
                Some(mean) => 0.8 * mean + 0.2 * seconds,
                None => seconds,
            });
        }
        drop(state);
        let _ = events.send(JobEvent::Done(result));
    }

    /// Number of jobs that wait or are made.
    pub(crate) fn load(&self) -> usize {
        let state = self.lock();
        state.jobs.len() + usize::from(state.is_running)
    }

    /// Refuses further jobs and those that wait. The one that is being made is finished.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        // Their clients see that no event comes.
        state.jobs.clear();
        drop(state);
        self.changed.notify_all();
    }
}
