//! The client.

use super::{
    CallOptions, CreateImageEditRequest, CreateImageRequest, CreateImageVariationRequest,
    ImagesApiError, ImagesApiErrorKind, ImagesResponse, OpenAiConfig,
    check::check_logger,
    exchange::Exchange,
    request::{Call, Endpoint},
    url::BaseUrl,
};

/// A client of an images API. Calls block; a program that is asynchronous makes them on a thread of
/// their own.
#[derive(Clone, Debug)]
pub struct OpenAiImages {
    pub(super) config: OpenAiConfig,
    pub(super) base: BaseUrl,
}

impl OpenAiImages {
    /// A client.
    ///
    /// # Errors
    /// [`ImagesApiErrorKind::Configuration`] if the address is not valid or not encrypted, or if
    /// the API itself is asked without a key.
    pub fn new(config: OpenAiConfig) -> Result<Self, ImagesApiError> {
        let base = BaseUrl::parse(&config.base_url)?;
        config.validate()?;
        if base.is_official() && config.api_key.is_none() {
            return Err(ImagesApiError::new(
                ImagesApiErrorKind::Configuration,
                "there is no API key: set OPENAI_API_KEY, or OPENAI_BASE_URL to another server",
            ));
        }
        Ok(Self { config, base })
    }

    /// A client by [`OpenAiConfig::from_env`].
    ///
    /// # Errors
    /// As [`OpenAiImages::new`].
    pub fn from_env() -> Result<Self, ImagesApiError> {
        Self::new(OpenAiConfig::from_env()?)
    }

    /// The configuration.
    pub fn config(&self) -> &OpenAiConfig {
        &self.config
    }

    /// Makes images of a prompt (`images/generations`).
    ///
    /// # Errors
    /// [`ImagesApiError`], whose kind is the cause.
    pub fn generations(
        &self,
        request: &CreateImageRequest,
        options: &mut CallOptions<'_>,
    ) -> Result<ImagesResponse, ImagesApiError> {
        let call = Call {
            endpoint: Endpoint::Generations,
            prompt: Some(&request.prompt),
            images: vec![],
            mask: None,
            options: request.options.clone(),
        };
        self.call(call, options)
    }

    /// Edits images (`images/edits`).
    ///
    /// # Errors
    /// [`ImagesApiError`], whose kind is the cause.
    pub fn edits(
        &self,
        request: &CreateImageEditRequest,
        options: &mut CallOptions<'_>,
    ) -> Result<ImagesResponse, ImagesApiError> {
        let call = Call {
            endpoint: Endpoint::Edits,
            prompt: Some(&request.prompt),
            images: request.images.iter().collect(),
            mask: request.mask.as_ref(),
            options: request.options.clone(),
        };
        self.call(call, options)
    }

    /// Makes variations of an image (`images/variations`).
    ///
    /// # Errors
    /// [`ImagesApiError`], whose kind is the cause.
    pub fn variations(
        &self,
        request: &CreateImageVariationRequest,
        options: &mut CallOptions<'_>,
    ) -> Result<ImagesResponse, ImagesApiError> {
        let call = Call {
            endpoint: Endpoint::Variations,
            prompt: None,
            images: vec![&request.image],
            mask: None,
            options: request.options.clone(),
        };
        self.call(call, options)
    }

    fn call(
        &self,
        mut call: Call<'_>,
        options: &mut CallOptions<'_>,
    ) -> Result<ImagesResponse, ImagesApiError> {
        check_logger(&self.config)?;
        let mut response = ImagesResponse::default();
        self.check(&mut call, &mut response)?;
        let exchange = Exchange::new(&self.config, &self.base, options.cancel.clone());
        exchange.watched(|| self.send(&exchange, call, response, options))
    }
}
