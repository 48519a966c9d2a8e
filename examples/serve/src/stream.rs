//! Answers that are streams of events: partial images, then the finished ones.

use crate::{
    error::ApiError,
    images::usage,
    log_line::LogLine,
    picture::OutputFormat,
    queue::{FinishedImage, JobEvent, JobHandle},
    request::ImagesCall,
    server::unix_seconds,
};
use axum::{
    body::Body,
    http::Response,
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_core::Stream;
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// Answers a job by a stream, whose `line` is written when the job has ended. The headers are sent
/// when the model has begun: an error before that has its own status.
pub(crate) async fn stream_response(
    mut job: JobHandle,
    call: &ImagesCall,
    line: Option<Arc<LogLine>>,
) -> Result<Response<Body>, ApiError> {
    let first = match job.events.recv().await {
        Some(JobEvent::Done(Err(error))) => return Err(error),
        Some(event) => event,
        None => return Err(ApiError::shutting_down()),
    };
    let mut stream = EventStream {
        line,
        prefix: call.endpoint.event_prefix(),
        output: call.output,
        quality: call.quality,
        ready: VecDeque::new(),
        job: Some(job),
    };
    // A model that tells of no step has ended with the first event.
    stream.add(first);
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(10));
    Ok(Sse::new(stream).keep_alive(keep_alive).into_response())
}

/// The events of a job. Dropping it stops the job.
struct EventStream {
    /// The line in the log; `None` once the job has ended.
    line: Option<Arc<LogLine>>,
    prefix: &'static str,
    output: OutputFormat,
    quality: &'static str,
    ready: VecDeque<Event>,
    /// `None` once the job has ended.
    job: Option<JobHandle>,
}

impl Drop for EventStream {
    fn drop(&mut self) {
        if let Some(line) = self.line.as_ref().filter(|_| self.job.is_some()) {
            line.close();
        }
    }
}

impl EventStream {
    fn picture(&self, name: &str, index: usize, size: &str, bytes: &[u8]) -> Value {
        json!({
            "type": format!("{}.{name}", self.prefix),
            "b64_json": STANDARD.encode(bytes),
            "created_at": unix_seconds(),
            "size": size,
            "quality": self.quality,
            "background": "opaque",
            "output_format": self.output.name(),
            "index": index,
        })
    }

    fn completed(&self, image: &FinishedImage, seed: Option<u64>, warnings: &[String]) -> Value {
        let mut data = self.picture("completed", image.index, &image.size, &image.bytes);
        data["usage"] = usage();
        if let Some(seed) = seed {
            data["seed"] = seed.into();
        }
        if !warnings.is_empty() {
            data["warnings"] = warnings.to_vec().into();
        }
        data
    }

    fn push(&mut self, data: &Value) {
        let name = data["type"].as_str().unwrap_or("error");
        let event = Event::default().event(name).data(data.to_string());
        self.ready.push_back(event);
    }

    /// Adds what the worker tells.
    fn add(&mut self, event: JobEvent) {
        match event {
            JobEvent::Begun => {}
            JobEvent::Partial {
                index,
                partial_index,
                size,
                bytes,
            } => {
                let mut data = self.picture("partial_image", index, &size, &bytes);
                data["partial_image_index"] = partial_index.into();
                self.push(&data);
            }
            JobEvent::Done(Ok(finished)) => {
                (self.job, self.line) = (None, None);
                for (i, image) in finished.images.iter().enumerate() {
                    // The same for all pictures, so that they are said once.
                    let warnings = if i == 0 { &finished.warnings[..] } else { &[] };
                    self.push(&self.completed(image, finished.seed, warnings));
                }
            }
            JobEvent::Done(Err(error)) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &ApiError) {
        self.job = None;
        if let Some(line) = self.line.take() {
            let cause = error.cause.as_deref().or(error.code);
            line.fail(cause.unwrap_or(error.error_type));
        }
        let mut data = error.json();
        data["type"] = "error".into();
        self.push(&data);
    }
}

impl Stream for EventStream {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            let Some(job) = &mut self.job else {
                return Poll::Ready(None);
            };
            match job.events.poll_recv(context) {
                Poll::Ready(Some(event)) => self.add(event),
                Poll::Ready(None) => self.fail(&ApiError::shutting_down()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
