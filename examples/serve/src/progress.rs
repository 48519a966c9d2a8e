//! Tells of the progress of a job: its beginning, and partial images.

use crate::queue::{Job, JobEvent};
use aigc_core::text_to_image::{GenerationProgress, GenerationStage};
use std::ops::ControlFlow;

/// Tells of the progress of a job.
pub(crate) struct JobProgress<'a> {
    job: &'a Job,
    has_begun: bool,
    /// The first of the images in progress.
    first: usize,
    /// How many partial images of them were due, and were sent: several may be due in one step.
    due: usize,
    sent: usize,
}

impl<'a> JobProgress<'a> {
    pub(crate) fn new(job: &'a Job) -> Self {
        Self {
            job,
            has_begun: false,
            first: 0,
            due: 0,
            sent: 0,
        }
    }

    /// Tells of a step of the model; `Break` where nobody listens any more.
    pub(crate) fn report(&mut self, progress: &GenerationProgress<'_>) -> ControlFlow<()> {
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
