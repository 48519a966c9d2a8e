//! The client.

use super::{
    ApiImage, CallEvent, CallOptions, CreateImageEditRequest, CreateImageRequest,
    CreateImageVariationRequest, ImagesApiError, ImagesApiErrorKind, ImagesResponse, OpenAiConfig,
    exchange::{Exchange, Failure, Fetched, header},
    models::rules,
    picture::{PictureFormat, PictureLimits},
    random::random_hex,
    request::{Call, Endpoint},
    response::{RawImage, Source, raw_images},
    retry::{MAX_WAIT, backoff},
    stream::StreamReader,
    url::BaseUrl,
};
use serde_json::Value;
use ureq::{Body, http::Response};

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
        self.check(&mut call, &mut response.warnings)?;
        let exchange = Exchange::new(&self.config, &self.base, options.cancel.clone());
        exchange.watched(|| self.send(&exchange, call, response, options))
    }

    /// Checks what can be known before a request is sent.
    fn check(&self, call: &mut Call<'_>, warnings: &mut Vec<String>) -> Result<(), ImagesApiError> {
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
            warnings.push(format!(
                "`{name}` was left out: the model does not accept it"
            ));
        }
        if self.base.is_official() {
            rules.check_values(call.prompt, &call.images, &call.options)?;
        }
        Ok(())
    }

    /// Sends a request until it succeeds or must not be tried again.
    fn send(
        &self,
        exchange: &Exchange<'_>,
        mut call: Call<'_>,
        mut response: ImagesResponse,
        options: &mut CallOptions<'_>,
    ) -> Result<ImagesResponse, ImagesApiError> {
        let url = self.base.join(call.endpoint.path());
        let mut body = call.body();
        // The same for every try, so that a server that knows it does the work once.
        let mut idempotency_key = format!("aigc-{}", random_hex());
        let mut failed = 0;
        loop {
            options.report(&CallEvent::Attempt {
                number: response.attempts + 1,
                max: 1 + self.config.max_retries,
            })?;
            response.attempts += 1;
            let attempts = response.attempts;
            let failure = match exchange.post(&url, &body, &idempotency_key) {
                Ok(reply) => {
                    return self
                        .read(exchange, &call, reply, response, options)
                        .map_err(|error| error.with_url(&url).with_attempts(attempts));
                }
                Err(failure) => failure,
            };
            let error = failure.error.with_url(&url).with_attempts(attempts);
            if self.config.drop_unsupported_fields
                && error.code() == Some("unknown_parameter")
                && let Some(param) = error.param()
                && call.options.unset(param)
            {
                response.warnings.push(format!(
                    "`{param}` was left out: the server does not know it"
                ));
                body = call.body();
                idempotency_key = format!("aigc-{}", random_hex());
                continue;
            }
            failed += 1;
            self.before_retry(exchange, failed, error, failure.is_temporary, options)?;
        }
    }

    /// Waits before the next try, or gives up with the error of the last one.
    fn before_retry(
        &self,
        exchange: &Exchange<'_>,
        failed: u32,
        error: ImagesApiError,
        is_temporary: bool,
        options: &mut CallOptions<'_>,
    ) -> Result<(), ImagesApiError> {
        let wait = error.retry_after().unwrap_or_else(|| backoff(failed));
        if !is_temporary
            || failed > self.config.max_retries
            || wait > MAX_WAIT
            || wait >= exchange.time_left()
        {
            return Err(error);
        }
        options.report(&CallEvent::Retry {
            error: &error,
            wait,
        })?;
        exchange.wait(wait)
    }

    pub(super) fn limits(&self) -> PictureLimits {
        PictureLimits {
            bytes: self.config.max_image_bytes,
            pixels: self.config.max_pixels,
        }
    }

    /// Reads an answer with the status of success.
    fn read(
        &self,
        exchange: &Exchange<'_>,
        call: &Call<'_>,
        reply: Response<Body>,
        mut response: ImagesResponse,
        options: &mut CallOptions<'_>,
    ) -> Result<ImagesResponse, ImagesApiError> {
        let (head, body) = reply.into_parts();
        let status = head.status.as_u16();
        response.request_id = header(&head.headers, "x-request-id").map(Into::into);
        let content_type = header(&head.headers, "content-type").unwrap_or_default();
        let is_json = content_type.contains("json");
        let is_stream = content_type.starts_with("text/event-stream")
            || (call.options.stream == Some(true) && content_type.starts_with("text/plain"));
        if is_stream && !is_json {
            let answer = |body: &[u8]| exchange.answer(status, &head.headers, body).error();
            let reader = StreamReader {
                client: self,
                exchange,
                answer: &answer,
                response: &mut response,
                options,
                images: vec![],
            };
            let raw = reader.read(body, call.n())?;
            return self.decode_all(exchange, call, raw, response);
        }
        let bytes = exchange.read_all(body, self.config.max_answer_bytes, "max_answer_bytes")?;
        let answer = exchange.answer(status, &head.headers, &bytes);
        let Ok(mut body) = serde_json::from_slice::<Value>(&bytes) else {
            return Err(answer.error());
        };
        if let Some(error) = answer.error_inside(&body) {
            return Err(error);
        }
        response.read_fields(&body);
        let raw = raw_images(&mut body);
        if raw.is_empty() {
            let message = "the answer has no pictures (`data`)";
            let error = ImagesApiError::new(ImagesApiErrorKind::InvalidAnswer, message);
            return Err(error.with_answer(&answer));
        }
        self.decode_all(exchange, call, raw, response)
    }

    /// Decodes the pictures of an answer. Those that cannot be read are warnings, unless there is
    /// no other.
    fn decode_all(
        &self,
        exchange: &Exchange<'_>,
        call: &Call<'_>,
        raw: Vec<RawImage>,
        mut response: ImagesResponse,
    ) -> Result<ImagesResponse, ImagesApiError> {
        let from = self.base.join(call.endpoint.path());
        let mut first_error = None;
        for raw in raw {
            let index = raw.index;
            match self.decode(exchange, &from, raw, &mut response) {
                Ok(image) => response.images.push(image),
                Err(error) => {
                    response.warnings.push(format!("picture {index}: {error}"));
                    first_error.get_or_insert(error);
                }
            }
        }
        match first_error {
            Some(error) if response.images.is_empty() => Err(error),
            _ => {
                // Programs print these, and servers may repeat the key in them.
                if let Some(key) = &self.config.api_key {
                    let texts = response.warnings.iter_mut().chain(&mut response.request_id);
                    texts.for_each(|text| *text = key.redact(text));
                }
                Ok(response)
            }
        }
    }

    fn decode(
        &self,
        exchange: &Exchange<'_>,
        from: &str,
        raw: RawImage,
        response: &mut ImagesResponse,
    ) -> Result<ApiImage, ImagesApiError> {
        let limits = self.limits();
        let (bytes, url, declared) = match raw.source {
            Some(Source::Base64(text)) => (limits.base64(&text)?, None, None),
            Some(Source::Url(url)) => {
                let fetched = self.fetch(exchange, from, &url)?;
                (fetched.bytes, Some(fetched.url), fetched.content_type)
            }
            None => {
                return Err(ImagesApiError::new(
                    ImagesApiErrorKind::InvalidAnswer,
                    "a picture has neither `b64_json` nor `url`",
                ));
            }
        };
        let (image, format) = limits.decode(&bytes)?;
        let declared = declared.as_deref().or(response.output_format.as_deref());
        let named = declared.and_then(PictureFormat::named);
        if named.is_some_and(|named| named != format) {
            let name = declared.unwrap_or_default();
            let found = format.mime_type();
            let warning = format!("picture {}: declared as {name}, but {found}", raw.index);
            response.warnings.push(warning);
        }
        Ok(ApiImage {
            image,
            bytes,
            format,
            index: raw.index,
            url,
            revised_prompt: raw.revised_prompt,
        })
    }

    /// Fetches a picture, again after failures that may pass.
    fn fetch(
        &self,
        exchange: &Exchange<'_>,
        from: &str,
        url: &str,
    ) -> Result<Fetched, ImagesApiError> {
        let mut failed = 0;
        loop {
            let Failure {
                error,
                is_temporary,
            } = match exchange.fetch(from, url) {
                Ok(fetched) => return Ok(fetched),
                Err(failure) => failure,
            };
            failed += 1;
            let quiet = &mut CallOptions::default();
            self.before_retry(exchange, failed, error, is_temporary, quiet)?;
        }
    }
}

/// Fails if the program's logger would write the key: the HTTP library logs the bytes of requests
/// at its lowest level.
fn check_logger(config: &OpenAiConfig) -> Result<(), ImagesApiError> {
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
