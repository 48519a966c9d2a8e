//! AnimateDiff from the Hugging Face hub.

use super::{
    AnimateDiffPipeline,
    open::{AnimateDiffOpenOptions, PARTS, WHOLE, classes},
};
use crate::hub::{PipelineFiles, hub_methods_with};
use aigc_core::{Result, data::download::ProgressFn, hub::Hub};
use std::path::PathBuf;

impl AnimateDiffPipeline {
    hub_methods_with!(
        AnimateDiffOpenOptions,
        "for a variant of the weights, with weights in half precision, or with motion modules of \
         another directory, such as that of `MotionAdapter::snapshot`."
    );

    /// Downloads the files of the hub that
    /// [`from_pretrained_with`](Self::from_pretrained_with) opens with these options, and returns
    /// their directory. Parts that are not opened are not downloaded.
    ///
    /// # Errors
    /// [`Error::Download`](aigc_core::Error::Download) for files that cannot be downloaded or that
    /// the repository does not have; [`Error::Data`](aigc_core::Error::Data) if the index or a
    /// configuration is that of another pipeline, before weights are downloaded;
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for an invalid name;
    /// [`Error::Io`](aigc_core::Error::Io) if the cache cannot be written.
    pub fn snapshot(
        hub: &Hub,
        repo: &str,
        revision: &str,
        options: &AnimateDiffOpenOptions,
        progress: &mut ProgressFn<'_>,
    ) -> Result<PathBuf> {
        let has_adapter = options.motion_adapter.is_some();
        let files = PipelineFiles {
            classes: classes(options),
            parts: &PARTS,
            is_opened: &|index, part| match (part, index.part("unet")) {
                ("motion_adapter", Some((_, WHOLE))) => false,
                ("motion_adapter", _) => !has_adapter,
                _ => true,
            },
        };
        let variant = options.model.variant.as_deref();
        files.snapshot(hub, repo, revision, variant, progress)
    }
}
