//! Reads the body of a request into its fields, within limits of size and time.

use crate::{error::ApiError, fields::Fields};
use axum::{
    body::{Body, BodyDataStream, Bytes},
    extract::{FromRequest, Multipart, Request},
    http::{
        HeaderMap,
        header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT},
        request::Parts,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_core::Stream;
use serde_json::{Map, Value};
use std::{future::poll_fn, pin::Pin, time::Duration};

/// Parts of a form.
const MAX_PARTS: usize = 64;

/// The body of a refused request is read and forgotten up to this many bytes and this time, so that
/// the client sees the answer: one that still sends would only see a broken connection.
const MAX_FORGOTTEN_BYTES: usize = 256 << 20;
const MAX_FORGETTING: Duration = Duration::from_secs(10);

/// The media types that an endpoint reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Media {
    Json,
    Form,
    JsonOrForm,
}

impl Media {
    fn expected(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Form => "multipart/form-data",
            Self::JsonOrForm => "multipart/form-data or application/json",
        }
    }

    /// Whether the body is JSON.
    pub(crate) fn is_json(self, headers: &HeaderMap) -> Result<bool, ApiError> {
        let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let value = value.unwrap_or_default();
        let name = value.split(';').next().unwrap_or_default().trim();
        let (is_json, is_form) = (
            name.eq_ignore_ascii_case("application/json"),
            name.eq_ignore_ascii_case("multipart/form-data"),
        );
        match self {
            Self::Json | Self::JsonOrForm if is_json => Ok(true),
            Self::Form | Self::JsonOrForm if is_form => Ok(false),
            _ => Err(ApiError::media_type(name, self.expected())),
        }
    }
}

/// Reads the fields of a request.
pub(crate) async fn read_fields(
    request: Request,
    is_json: bool,
    limit: usize,
    time: Duration,
) -> Result<Fields, ApiError> {
    let (parts, body) = request.into_parts();
    let bytes = tokio::time::timeout(time, read_body(&parts.headers, body, limit));
    let bytes = bytes
        .await
        .map_err(|_| ApiError::slow(time.as_secs_f64()))??;
    match is_json {
        true => json_fields(&bytes),
        false => form_fields(parts, bytes).await,
    }
}

/// The bytes of a body of at most `limit` bytes.
async fn read_body(headers: &HeaderMap, body: Body, limit: usize) -> Result<Vec<u8>, ApiError> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok());
    let declared: Option<usize> = declared.and_then(|length| length.parse().ok());
    let is_large = declared.is_some_and(|length| length > limit);
    if declared.is_some_and(|length| length > limit.max(MAX_FORGOTTEN_BYTES)) {
        return Err(ApiError::too_large(limit));
    }
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(piece) = next_piece(&mut stream).await {
        let piece = piece.map_err(|_| ApiError::bad_request("The request broke off."))?;
        if is_large || bytes.len() + piece.len() > limit {
            drop(bytes);
            forget_rest(stream).await;
            return Err(ApiError::too_large(limit));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

async fn next_piece(stream: &mut BodyDataStream) -> Option<Result<Bytes, axum::Error>> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}

/// Reads the body of a request that is refused without it.
pub(crate) async fn forget(request: Request) {
    // Such a client waits for a word before it sends, and the answer is one.
    if !request.headers().contains_key(EXPECT) {
        forget_rest(request.into_body().into_data_stream()).await;
    }
}

async fn forget_rest(mut stream: BodyDataStream) {
    let reading = async {
        let mut total = 0;
        while let Some(Ok(piece)) = next_piece(&mut stream).await {
            total += piece.len();
            if total > MAX_FORGOTTEN_BYTES {
                break;
            }
        }
    };
    // What the client does beyond the limits is no longer of interest.
    let _ = tokio::time::timeout(MAX_FORGETTING, reading).await;
}

fn json_fields(bytes: &[u8]) -> Result<Fields, ApiError> {
    let value = serde_json::from_slice(bytes)
        .map_err(|error| ApiError::bad_request(format!("The body is not valid JSON: {error}.")))?;
    let Value::Object(mut values) = value else {
        return Err(ApiError::bad_request("The body is not a JSON object."));
    };
    let mut files = vec![];
    // Edits in JSON: `{"images": [{"image_url": "data:…"}], "mask": {"image_url": "data:…"}}`.
    if let Some(images) = values.remove("images").filter(|images| !images.is_null()) {
        let Value::Array(images) = images else {
            return Err(ApiError::value("images", &images.to_string(), "an array"));
        };
        for image in &images {
            files.push(("image".to_string(), data_url("images", image)?));
        }
    }
    if let Some(mask) = values.remove("mask").filter(|mask| !mask.is_null()) {
        files.push(("mask".to_string(), data_url("mask", &mask)?));
    }
    Ok(Fields::new(values, files, false))
}

/// The bytes of `{"image_url": "data:…;base64,…"}`. Other addresses are not fetched: they could be
/// those of programs that trust this machine.
fn data_url(param: &str, image: &Value) -> Result<Bytes, ApiError> {
    let url = image.get("image_url").and_then(Value::as_str);
    let data = url.and_then(|url| {
        let (kind, data) = url.strip_prefix("data:")?.split_once(',')?;
        kind.ends_with(";base64").then_some(data)
    });
    let data = data.and_then(|data| STANDARD.decode(data.trim()).ok());
    data.map(Bytes::from).ok_or_else(|| {
        let shown = image.to_string();
        ApiError::value(
            param,
            &shown,
            "{\"image_url\": \"data:image/png;base64,…\"}",
        )
    })
}

async fn form_fields(parts: Parts, bytes: Vec<u8>) -> Result<Fields, ApiError> {
    let broken = |reason: String| ApiError::bad_request(format!("The form is broken: {reason}."));
    let request = Request::from_parts(parts, Body::from(bytes));
    let mut form = Multipart::from_request(request, &())
        .await
        .map_err(|error| broken(error.body_text()))?;
    let (mut values, mut files) = (Map::new(), vec![]);
    while let Some(part) = form
        .next_field()
        .await
        .map_err(|error| broken(error.body_text()))?
    {
        if values.len() + files.len() == MAX_PARTS {
            return Err(broken(format!("it has more than {MAX_PARTS} parts")));
        }
        let name = part.name().unwrap_or_default().to_string();
        if part.file_name().is_some() {
            let bytes = part.bytes().await;
            let bytes = bytes.map_err(|error| broken(error.body_text()))?;
            files.push((name, bytes));
            continue;
        }
        let text = part.text().await;
        let text = text.map_err(|error| broken(error.body_text()))?;
        if values.insert(name.clone(), text.into()).is_some() {
            return Err(broken(format!("'{name}' is there twice")).with_param(&name));
        }
    }
    Ok(Fields::new(values, files, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_checked() {
        let check = |media: Media, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, value.parse().unwrap());
            media
                .is_json(&headers)
                .map_err(|error| error.status.as_u16())
        };
        let form = "multipart/form-data; boundary=x";
        assert_eq!(
            check(Media::Json, "application/json; charset=utf-8"),
            Ok(true)
        );
        assert_eq!(check(Media::Json, form), Err(415));
        assert_eq!(check(Media::Form, form), Ok(false));
        assert_eq!(check(Media::Form, "application/json"), Err(415));
        assert_eq!(check(Media::JsonOrForm, "Application/JSON"), Ok(true));
        assert_eq!(check(Media::JsonOrForm, form), Ok(false));
        assert_eq!(check(Media::JsonOrForm, "text/plain"), Err(415));
        assert!(Media::Json.is_json(&HeaderMap::new()).is_err());
    }

    #[test]
    fn json_images_are_data_urls() {
        let fields = json_fields(
            br#"{"images": [{"image_url": "data:image/png;base64,AQI="}], "n": 1,
            "mask": {"image_url": "data:;base64,Aw=="}}"#,
        );
        let fields = fields.unwrap();
        let files = fields.files().iter();
        let files: Vec<_> = files.map(|(name, bytes)| (&**name, &**bytes)).collect();
        assert_eq!(files, [("image", &[1, 2][..]), ("mask", &[3])]);
        for (body, param) in [
            (
                r#"{"images": [{"image_url": "http://10.0.0.1/x"}]}"#,
                Some("images"),
            ),
            (r#"{"images": [{"file_id": "file-1"}]}"#, Some("images")),
            (r#"{"images": "data:,"}"#, Some("images")),
            (r#"{"mask": {}}"#, Some("mask")),
            ("[]", None),
            ("{", None),
        ] {
            let error = json_fields(body.as_bytes()).err().unwrap();
            assert_eq!(error.param.as_deref(), param, "{body}");
        }
    }
}
