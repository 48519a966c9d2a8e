//! Reads an answer with the status of success, and decodes or fetches its pictures.

use super::{
    ApiImage, CallOptions, ImagesApiError, ImagesApiErrorKind, ImagesResponse, OpenAiImages,
    answer::has_error,
    exchange::{Exchange, header},
    picture::{PictureFormat, PictureLimits},
    request::Call,
    response::{RawImage, Source, raw_images},
    stream::StreamReader,
};
use serde_json::Value;
use ureq::{Body, http::Response};

impl OpenAiImages {
    pub(super) fn limits(&self) -> PictureLimits {
        PictureLimits {
            bytes: self.config.max_image_bytes,
            pixels: self.config.max_pixels,
        }
    }

    /// Reads an answer with the status of success.
    pub(super) fn read(
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
        if is_stream(content_type, call.options.stream == Some(true)) {
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
        if has_error(&body) {
            return Err(answer.error());
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
                    let error = error.redacted(self.config.api_key.as_ref());
                    response.warnings.push(format!("picture {index}: {error}"));
                    first_error.get_or_insert(error);
                }
            }
        }
        match first_error {
            Some(error) if response.images.is_empty() => Err(error),
            _ => {
                if let Some(key) = &self.config.api_key {
                    response.redact(key);
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
}

/// Whether an answer is a stream, which some servers declare as text.
fn is_stream(content_type: &str, is_asked: bool) -> bool {
    let name = content_type.split(';').next().unwrap_or_default().trim();
    match name.to_ascii_lowercase().as_str() {
        "text/event-stream" => true,
        "text/plain" => is_asked,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_known_by_their_type() {
        for (content_type, is_asked, expected) in [
            ("text/event-stream", false, true),
            ("Text/Event-Stream; charset=utf-8", true, true),
            ("text/plain", true, true),
            ("text/plain", false, false),
            ("", true, false),
            ("application/json", true, false),
            ("text/html", true, false),
        ] {
            assert_eq!(
                is_stream(content_type, is_asked),
                expected,
                "{content_type}"
            );
        }
    }
}
