//! What can be known before a request is sent.

use super::{
    ImagesApiError, ImagesApiErrorKind, ImagesResponse, OpenAiConfig, OpenAiImages,
    models::rules,
    request::{Call, Endpoint},
};

impl OpenAiImages {
    /// Checks what can be known before a request is sent.
    ///
    /// Fields that are left out are noted in `response`.
    pub(super) fn check(
        &self,
        call: &mut Call<'_>,
        response: &mut ImagesResponse,
    ) -> Result<(), ImagesApiError> {
        if call.prompt.is_some_and(|prompt| prompt.trim().is_empty()) {
            return Err(ImagesApiError::field("prompt", "empty", "a description"));
        }
        if call.endpoint != Endpoint::Generations && call.images.is_empty() {
            return Err(ImagesApiError::field(
                "image",
                "missing",
                "at least one file",
            ));
        }
        if call.options.n == Some(0) {
            return Err(ImagesApiError::field("n", 0, "at least 1"));
        }
        if let Some(count) = call.options.partial_images.filter(|count| *count > 3) {
            return Err(ImagesApiError::field("partial_images", count, "0 to 3"));
        }
        if let (Some(mask), Some(image)) = (call.mask, call.images.first())
            && let (Some(mask), Some(image)) = (mask.size(), image.size())
            && mask != image
        {
            let expected = format!("{}x{}, the size of the image", image.0, image.1);
            let found = format!("{}x{}", mask.0, mask.1);
            return Err(ImagesApiError::field("mask", found, &expected));
        }
        if let Some(percent) = call
            .options
            .output_compression
            .filter(|percent| *percent > 100)
        {
            return Err(ImagesApiError::field(
                "output_compression",
                percent,
                "0 to 100",
            ));
        }
        let Some(rules) = call.options.model.as_deref().and_then(rules) else {
            return Ok(());
        };
        let drop = self.config.drop_unsupported_fields;
        for name in rules.check_fields(call.endpoint, &mut call.options, drop)? {
            response.leave_out(&name, "the model does not accept it");
        }
        if self.base.is_official() {
            rules.check_values(call.prompt, &call.images, &call.options)?;
        }
        Ok(())
    }
}

/// Fails if the program's logger would write the key: the HTTP library logs the bytes of requests
/// at its lowest level.
pub(super) fn check_logger(config: &OpenAiConfig) -> Result<(), ImagesApiError> {
    if config.api_key.is_none() || !log::log_enabled!(target: "ureq_proto::util", log::Level::Trace)
    {
        return Ok(());
    }
    Err(ImagesApiError::new(
        ImagesApiErrorKind::Configuration,
        "the logger shows the bytes of HTTP requests, with the key: set the level of `ureq_proto` \
         to debug or higher",
    ))
}
