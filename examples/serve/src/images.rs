//! The three endpoints that make images.

use crate::{
    ServerConfig,
    body::{Media, forget, read_fields},
    endpoint::Endpoint,
    error::ApiError,
    log_line::LogLine,
    picture::{OutputFormat, decode_input},
    queue::{Finished, FinishedImage, JobEvent, JobHandle, Slot},
    request::{ImagesCall, ResponseFormat, read_call},
    server::{Shared, json_response, unix_seconds},
    stream::stream_response,
};
use aigc_core::text_to_image::ImageRequest;
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Response, header::HOST, uri::Authority},
    response::IntoResponse,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Bytes that a character takes at most in JSON, as two escapes, and characters of two prompts;
/// and bytes of all other fields.
const BYTES_PER_CHAR: usize = 2 * 12;
const BYTES_OF_FIELDS: usize = 1 << 16;

pub(crate) async fn generations(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Response<Body> {
    respond(shared, Endpoint::Generations, Media::Json, request).await
}

pub(crate) async fn edits(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    respond(shared, Endpoint::Edits, Media::JsonOrForm, request).await
}

pub(crate) async fn variations(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Response<Body> {
    respond(shared, Endpoint::Variations, Media::Form, request).await
}

async fn respond(
    shared: Arc<Shared>,
    endpoint: Endpoint,
    media: Media,
    request: Request,
) -> Response<Body> {
    let made = make(shared, endpoint, media, request).await;
    made.unwrap_or_else(IntoResponse::into_response)
}

/// Reads a request, has it made, and answers. This future is dropped when the client hangs up, and
/// the job with it.
async fn make(
    shared: Arc<Shared>,
    endpoint: Endpoint,
    media: Media,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    let config = &shared.config;
    let queue = shared.worker.queue();
    let admitted = media.is_json(request.headers());
    let admitted = admitted.and_then(|is_json| Ok((is_json, queue.reserve()?)));
    let (is_json, slot) = match admitted {
        Ok(admitted) => admitted,
        Err(error) => {
            forget(request).await;
            return Err(error);
        }
    };
    let base = base_url(&shared, request.headers());
    let line = request.extensions().get::<Arc<LogLine>>().cloned();
    let limit = match endpoint {
        // Without images, texts are all there is: JSON takes many times its bytes in memory.
        Endpoint::Generations => config
            .max_prompt_chars
            .saturating_mul(BYTES_PER_CHAR)
            .saturating_add(BYTES_OF_FIELDS)
            .min(config.max_body_bytes),
        Endpoint::Edits | Endpoint::Variations => config.max_body_bytes,
    };
    let fields = read_fields(request, is_json, limit, config.body_timeout).await?;
    let call = read_call(endpoint, fields, &shared.model, config)?;
    let (call, image_request, slot) = with_images(call, config, slot).await?;
    let (output, partial_images) = (call.output, call.partial_images);
    let mut job = queue.submit(slot, image_request, output, partial_images)?;
    if call.stream {
        return stream_response(job, &call, line).await;
    }
    let finished = finished(&mut job).await?;
    let answer = answer(&shared, &call, &base, finished)?;
    Ok(json_response(&answer))
}

/// Decodes the image and the mask, on a thread that may block. The slot goes with them: when the
/// client hangs up, the thread still has the files, and their place in the queue is not free.
async fn with_images(
    mut call: ImagesCall,
    config: &ServerConfig,
    slot: Slot,
) -> Result<(ImagesCall, ImageRequest, Slot), ApiError> {
    let mut request = call.request.clone();
    let Some(image) = call.image.take() else {
        return Ok((call, request, slot));
    };
    let mask = call.mask.take();
    let max_pixels = config.max_input_pixels;
    let decoded = tokio::task::spawn_blocking(move || {
        let input = decode_input(&image, mask.as_deref(), max_pixels);
        drop((image, mask));
        input.map(|input| (input, slot))
    });
    let (input, slot) = decoded
        .await
        .map_err(|error| ApiError::internal(error.to_string()))??;
    // Without a size, images are as large as the one they start from.
    let (width, height) = (input.image.width(), input.image.height());
    let limit = config.max_side;
    if request.size.is_none() && width.max(height) > limit {
        let found = format!("{width}x{height}");
        let expected = format!("sides up to {limit}, or a 'size' with such sides");
        return Err(ApiError::value("image", &found, &expected));
    }
    request.image = Some(input.image);
    if call.endpoint == Endpoint::Edits {
        request.mask_image = input.mask;
    }
    Ok((call, request, slot))
}

/// Waits for the end of a job.
async fn finished(job: &mut JobHandle) -> Result<Finished, ApiError> {
    loop {
        match job.events.recv().await {
            Some(JobEvent::Done(result)) => return result,
            Some(_) => {}
            None => return Err(ApiError::shutting_down()),
        }
    }
}

/// The body of an answer.
fn answer(
    shared: &Shared,
    call: &ImagesCall,
    base: &str,
    finished: Finished,
) -> Result<Value, ApiError> {
    let mut answer = properties(call.output, call.quality, finished.images.first());
    answer.insert("created".into(), unix_seconds().into());
    answer.insert("usage".into(), usage());
    if let Some(seed) = finished.seed {
        answer.insert("seed".into(), seed.into());
    }
    if !finished.warnings.is_empty() {
        answer.insert("warnings".into(), finished.warnings.into());
    }
    let mut data = vec![];
    for image in finished.images {
        let mut item = json!({ "index": image.index });
        match call.response_format {
            ResponseFormat::Base64 => item["b64_json"] = STANDARD.encode(&image.bytes).into(),
            ResponseFormat::Url => {
                let name = shared.files.keep(image.bytes, call.output.mime_type())?;
                item["url"] = format!("{base}/v1/files/{name}").into();
            }
        }
        if let Some(prompt) = image.revised_prompt {
            item["revised_prompt"] = prompt.into();
        }
        data.push(item);
    }
    answer.insert("data".into(), data.into());
    Ok(Value::Object(answer))
}

/// What all pictures of an answer have in common.
fn properties(
    output: OutputFormat,
    quality: &str,
    image: Option<&FinishedImage>,
) -> Map<String, Value> {
    let mut properties = Map::new();
    properties.insert("background".into(), "opaque".into());
    properties.insert("output_format".into(), output.name().into());
    properties.insert("quality".into(), quality.into());
    if let Some(image) = image {
        properties.insert("size".into(), image.size.clone().into());
    }
    properties
}

/// Nothing is charged.
pub(crate) fn usage() -> Value {
    json!({
        "total_tokens": 0,
        "input_tokens": 0,
        "output_tokens": 0,
        "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
    })
}

/// The address of this server as the client sees it.
fn base_url(shared: &Shared, headers: &HeaderMap) -> String {
    if let Some(url) = &shared.config.public_url {
        return url.trim_end_matches('/').into();
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.parse::<Authority>().ok());
    match host {
        Some(host) => format!("http://{host}"),
        None => format!("http://{}", shared.address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Queue;
    use axum::body::Bytes;
    use std::{sync::mpsc, time::Duration};

    #[test]
    fn files_that_wait_for_a_thread_keep_their_place() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let (queue, config) = (Queue::new(0), ServerConfig::default());
        let call = ImagesCall {
            endpoint: Endpoint::Edits,
            request: ImageRequest::new("a hat"),
            image: Some(Bytes::from_static(b"no picture")),
            mask: None,
            output: OutputFormat::Png,
            response_format: ResponseFormat::Base64,
            quality: "medium",
            stream: false,
            partial_images: 0,
        };
        runtime.block_on(async {
            let (release, released) = mpsc::channel::<()>();
            // The only thread is busy.
            let busy = tokio::task::spawn_blocking(move || released.recv());
            let decoding = with_images(call, &config, queue.reserve().unwrap());
            let hung_up = tokio::time::timeout(Duration::from_millis(20), decoding).await;
            assert!(hung_up.is_err());
            assert_eq!(queue.reserve().unwrap_err().status.as_u16(), 429);
            release.send(()).unwrap();
            busy.await.unwrap().unwrap();
            // What waits for the thread is done in turn.
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            assert!(queue.reserve().is_ok());
        });
    }
}
