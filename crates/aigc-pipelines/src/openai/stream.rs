//! Answers that come as events: partial images, then the finished ones.

use super::{
    CallEvent, CallOptions, ImagesApiError, ImagesApiErrorKind, ImagesResponse, OpenAiImages,
    PartialImage,
    answer::has_error,
    exchange::Exchange,
    response::{RawImage, Source},
    sse::{SseEvent, SseParser},
};
use serde_json::Value;
use ureq::Body;

/// Reads a stream.
pub(super) struct StreamReader<'a, 'b> {
    pub(super) client: &'a OpenAiImages,
    pub(super) exchange: &'a Exchange<'a>,
    /// Makes an error of an error object, or of other data.
    pub(super) answer: &'a dyn Fn(&[u8]) -> ImagesApiError,
    pub(super) response: &'a mut ImagesResponse,
    pub(super) options: &'a mut CallOptions<'b>,
    pub(super) images: Vec<RawImage>,
}

impl StreamReader<'_, '_> {
    /// Reads until `n` images are finished or the stream ends. Images that were finished before an
    /// error are returned, with a warning.
    pub(super) fn read(mut self, body: Body, n: usize) -> Result<Vec<RawImage>, ImagesApiError> {
        match self.read_events(body, n) {
            Err(error) if self.images.is_empty() => Err(error),
            Err(error) => {
                let warning = format!("the stream broke: {error}");
                self.response.warnings.push(warning);
                Ok(self.images)
            }
            Ok(()) if self.images.is_empty() => Err(ImagesApiError::new(
                ImagesApiErrorKind::InvalidAnswer,
                "the stream ended without a finished picture",
            )),
            Ok(()) => Ok(self.images),
        }
    }

    fn read_events(&mut self, body: Body, n: usize) -> Result<(), ImagesApiError> {
        let limit = self.client.config().max_answer_bytes;
        let too_large = || {
            let message = format!("the answer has more than {limit} bytes (max_answer_bytes)");
            ImagesApiError::new(ImagesApiErrorKind::TooLarge, message)
        };
        let mut parser = SseParser::new(usize::try_from(limit).unwrap_or(usize::MAX));
        let (mut reader, mut piece) = (body.into_reader(), vec![0; 1 << 16]);
        let (mut events, mut received) = (vec![], 0);
        while self.images.len() < n {
            let bytes = self.exchange.read_piece(&mut reader, &mut piece)?;
            if bytes == 0 {
                break;
            }
            received += bytes as u64;
            if received > limit {
                return Err(too_large());
            }
            parser
                .push(&piece[..bytes], &mut events)
                .map_err(|_| too_large())?;
            for event in events.drain(..) {
                if event.data.trim() == "[DONE]" {
                    return Ok(());
                }
                self.read_event(event)?;
            }
        }
        Ok(())
    }

    fn read_event(&mut self, event: SseEvent) -> Result<(), ImagesApiError> {
        let data = event.data.as_bytes();
        let Ok(mut json) = serde_json::from_slice::<Value>(data) else {
            return Err((self.answer)(data));
        };
        let kind = json.get("type").and_then(Value::as_str);
        let kind = kind.unwrap_or(&event.event);
        if has_error(&json) || kind == "error" || event.event == "error" {
            return Err((self.answer)(data));
        }
        if kind.ends_with("partial_image") {
            self.read_partial(&mut json)
        } else if kind.ends_with("completed") {
            self.response.read_fields(&json);
            self.images
                .push(RawImage::read(&mut json, self.images.len()));
            Ok(())
        } else {
            Ok(())
        }
    }

    /// Reports a partial picture. One that is broken costs nothing: the finished one counts.
    fn read_partial(&mut self, json: &mut Value) -> Result<(), ImagesApiError> {
        let number = |name: &str| json.get(name).and_then(Value::as_u64).unwrap_or(0) as usize;
        let (partial_image_index, index) = (number("partial_image_index"), number("index"));
        let Some(Source::Base64(text)) = RawImage::read(json, 0).source else {
            return Ok(());
        };
        let limits = self.client.limits();
        let decoded = limits.base64(&text).and_then(|bytes| {
            let (image, _) = limits.decode(&bytes)?;
            Ok((image, bytes))
        });
        match decoded {
            Ok((image, bytes)) => self.options.report(&CallEvent::PartialImage(&PartialImage {
                image,
                bytes,
                partial_image_index,
                index,
            })),
            Err(error) => {
                let warning = format!("a partial picture: {error}");
                self.response.warnings.push(warning);
                Ok(())
            }
        }
    }
}
