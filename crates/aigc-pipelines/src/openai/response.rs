//! Answers. Every field is optional, and unknown ones are ignored: compatible servers leave out and
//! add many.

use super::{ApiKey, picture::PictureFormat};
use image::DynamicImage;
use serde_json::Value;
use std::fmt;

/// The answer of an endpoint, with its pictures decoded.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ImagesResponse {
    /// The pictures, in the order of the answer.
    pub images: Vec<ApiImage>,
    /// When they were made, in seconds since 1970.
    pub created: Option<u64>,
    /// The background: `transparent` or `opaque`.
    pub background: Option<String>,
    /// The format by the server's word: `png`, `jpeg` or `webp`.
    pub output_format: Option<String>,
    /// The size by the server's word.
    pub size: Option<String>,
    /// The quality: `low`, `medium` or `high`.
    pub quality: Option<String>,
    /// The tokens that are charged.
    pub usage: Option<Usage>,
    /// The seed, of servers that add it.
    pub seed: Option<u64>,
    /// The server's name of the request.
    pub request_id: Option<String>,
    /// Number of requests that were sent; a server may have charged for each.
    pub attempts: u32,
    /// Names of the fields that were left out because the model or the server refuses them.
    pub dropped: Vec<String>,
    /// What the caller should know: fields that were left out, pictures that could not be read, and
    /// what the server says in a field `warnings`.
    pub warnings: Vec<String>,
}

/// A picture of an answer.
#[derive(Clone)]
#[non_exhaustive]
pub struct ApiImage {
    /// The picture.
    pub image: DynamicImage,
    /// The file as the server sent it.
    pub bytes: Vec<u8>,
    /// The format of the file, by its first bytes.
    pub format: PictureFormat,
    /// Its number in the answer.
    pub index: usize,
    /// The address it was fetched from.
    pub url: Option<String>,
    /// The prompt that was used in place of the given one.
    pub revised_prompt: Option<String>,
}

impl fmt::Debug for ApiImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = format_args!("{}x{}", self.image.width(), self.image.height());
        f.debug_struct("ApiImage")
            .field("image", &size)
            .field("bytes", &self.bytes.len())
            .field("format", &self.format)
            .field("index", &self.index)
            .field("url", &self.url)
            .field("revised_prompt", &self.revised_prompt)
            .finish()
    }
}

/// A picture that is not finished, out of a stream.
#[derive(Clone)]
#[non_exhaustive]
pub struct PartialImage {
    /// The picture.
    pub image: DynamicImage,
    /// The file as the server sent it.
    pub bytes: Vec<u8>,
    /// The number of the partial image, from 0.
    pub partial_image_index: usize,
    /// The number of the image, of servers that add it; 0 otherwise.
    pub index: usize,
}

impl fmt::Debug for PartialImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = format_args!("{}x{}", self.image.width(), self.image.height());
        f.debug_struct("PartialImage")
            .field("image", &size)
            .field("bytes", &self.bytes.len())
            .field("partial_image_index", &self.partial_image_index)
            .field("index", &self.index)
            .finish()
    }
}

/// The tokens that are charged for a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// All tokens.
    pub total_tokens: Option<u64>,
    /// Tokens of the prompt and of images that were sent.
    pub input_tokens: Option<u64>,
    /// Tokens of the pictures.
    pub output_tokens: Option<u64>,
    /// Text tokens of the input.
    pub input_text_tokens: Option<u64>,
    /// Image tokens of the input.
    pub input_image_tokens: Option<u64>,
    /// Text tokens of the output.
    pub output_text_tokens: Option<u64>,
    /// Image tokens of the output.
    pub output_image_tokens: Option<u64>,
}

impl Usage {
    fn read(usage: &Value) -> Option<Self> {
        let usage = usage.as_object()?;
        let number = |name: &str| number(usage.get(name));
        // Some servers write the singular.
        let detail = |of: &str, name: &str| {
            let plural = usage.get(&format!("{of}_tokens_details"));
            let details = plural.or_else(|| usage.get(&format!("{of}_token_details")));
            details.and_then(|details| self::number(details.get(name)))
        };
        Some(Self {
            total_tokens: number("total_tokens"),
            input_tokens: number("input_tokens"),
            output_tokens: number("output_tokens"),
            input_text_tokens: detail("input", "text_tokens"),
            input_image_tokens: detail("input", "image_tokens"),
            output_text_tokens: detail("output", "text_tokens"),
            output_image_tokens: detail("output", "image_tokens"),
        })
    }
}

/// A whole number, also where it is written as text or with a fraction.
fn number(value: Option<&Value>) -> Option<u64> {
    let value = value?;
    let float = || value.as_f64().filter(|x| *x >= 0.0).map(|x| x as u64);
    let text = || value.as_str().and_then(|text| text.parse().ok());
    value.as_u64().or_else(float).or_else(text)
}

fn text(value: Option<&Value>) -> Option<String> {
    value?
        .as_str()
        .filter(|text| !text.is_empty())
        .map(Into::into)
}

/// Where the bytes of a picture are.
pub(super) enum Source {
    Base64(String),
    Url(String),
}

/// A picture of an answer before it is decoded.
pub(super) struct RawImage {
    pub(super) source: Option<Source>,
    pub(super) index: usize,
    pub(super) revised_prompt: Option<String>,
}

impl RawImage {
    /// Reads an object with `b64_json` or `url`; `index` is its place.
    pub(super) fn read(item: &mut Value, index: usize) -> Self {
        let mut take = |name: &str| match item.get_mut(name).map(Value::take) {
            Some(Value::String(text)) if !text.trim().is_empty() => Some(text),
            _ => None,
        };
        let source = match (take("b64_json"), take("url")) {
            (Some(text), _) => Some(Source::Base64(text)),
            (None, Some(url)) if url.trim_start().starts_with("data:") => Some(Source::Base64(url)),
            (None, Some(url)) => Some(Source::Url(url)),
            (None, None) => None,
        };
        Self {
            source,
            index: number(item.get("index")).map_or(index, |index| index as usize),
            revised_prompt: text(item.get("revised_prompt")),
        }
    }
}

impl ImagesResponse {
    /// Hides the key in all texts: programs print them, and servers may repeat it.
    pub(super) fn redact(&mut self, key: &ApiKey) {
        let own = [
            &mut self.background,
            &mut self.output_format,
            &mut self.size,
            &mut self.quality,
            &mut self.request_id,
        ];
        let of_images = self
            .images
            .iter_mut()
            .flat_map(|image| [&mut image.url, &mut image.revised_prompt]);
        let texts = own.into_iter().chain(of_images).flatten();
        let lists = self.dropped.iter_mut().chain(&mut self.warnings);
        for text in texts.chain(lists) {
            *text = key.redact(text);
        }
    }

    /// Notes a field that was left out, and why.
    pub(super) fn leave_out(&mut self, name: &str, reason: &str) {
        self.warnings
            .push(format!("`{name}` was left out: {reason}"));
        self.dropped.push(name.into());
    }

    /// Takes over the fields of an answer, or of the last event of a stream, besides the pictures.
    pub(super) fn read_fields(&mut self, body: &Value) {
        fn set<T>(field: &mut Option<T>, value: Option<T>) {
            *field = value.or(field.take());
        }
        set(
            &mut self.created,
            number(body.get("created")).or_else(|| number(body.get("created_at"))),
        );
        set(&mut self.background, text(body.get("background")));
        set(&mut self.output_format, text(body.get("output_format")));
        set(&mut self.size, text(body.get("size")));
        set(&mut self.quality, text(body.get("quality")));
        set(&mut self.usage, body.get("usage").and_then(Usage::read));
        set(&mut self.seed, body.get("seed").and_then(Value::as_u64));
        let warnings = body.get("warnings").and_then(Value::as_array);
        for warning in warnings.into_iter().flatten() {
            self.warnings.extend(text(Some(warning)));
        }
    }
}

/// The pictures of an answer: in `data`, which may be an object, or in `images`.
pub(super) fn raw_images(body: &mut Value) -> Vec<RawImage> {
    let name = ["data", "images"]
        .into_iter()
        .find(|name| body.get(name).is_some_and(|found| !found.is_null()));
    match name.and_then(|name| body.get_mut(name)) {
        Some(Value::Array(items)) => items
            .iter_mut()
            .enumerate()
            .map(|(i, item)| RawImage::read(item, i))
            .collect(),
        Some(item @ Value::Object(_)) => vec![RawImage::read(item, 0)],
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn usage_is_read_in_both_spellings() {
        for details in ["output_tokens_details", "output_token_details"] {
            let usage = Usage::read(&json!({
                "total_tokens": 100, "input_tokens": "50", "output_tokens": null,
                "input_tokens_details": {"text_tokens": 10.0, "image_tokens": 40},
                details: {"image_tokens": 50}, "odd": []
            }));
            let expected = Usage {
                total_tokens: Some(100),
                input_tokens: Some(50),
                output_tokens: None,
                input_text_tokens: Some(10),
                input_image_tokens: Some(40),
                output_text_tokens: None,
                output_image_tokens: Some(50),
            };
            assert_eq!(usage, Some(expected));
        }
        assert_eq!(Usage::read(&json!("none")), None);
    }

    #[test]
    fn pictures_are_found_wherever_they_are() {
        let places = |mut body: Value| {
            let name = |image: &RawImage| match &image.source {
                Some(Source::Base64(text)) => format!("{}:{text}", image.index),
                Some(Source::Url(url)) => format!("{}:@{url}", image.index),
                None => format!("{}:-", image.index),
            };
            raw_images(&mut body).iter().map(name).collect::<Vec<_>>()
        };
        for (body, expected) in [
            (
                json!({"data": [{"b64_json": "AA"}, {"url": "/x"}]}),
                vec!["0:AA", "1:@/x"],
            ),
            (
                json!({"data": [{"b64_json": null, "url": "data:,"}]}),
                vec!["0:data:,"],
            ),
            (
                json!({"data": [{"b64_json": "", "url": 3, "index": 5}]}),
                vec!["5:-"],
            ),
            (
                json!({"data": {"b64_json": "AA", "embedding": null}}),
                vec!["0:AA"],
            ),
            (
                json!({"images": [{"b64_json": "AA", "url": "/x"}], "data": null}),
                vec!["0:AA"],
            ),
            (json!({"data": ["odd"]}), vec!["0:-"]),
            (json!({"data": 3}), vec![]),
            (json!([]), vec![]),
        ] {
            assert_eq!(places(body.clone()), expected, "{body}");
        }
    }

    #[test]
    fn fields_of_other_types_are_ignored() {
        let mut response = ImagesResponse::default();
        response.read_fields(&json!({
            "created": "17", "size": 3, "quality": "low", "background": null, "usage": 3,
            "seed": -1, "id": "x", "warnings": ["careful", 3]
        }));
        assert_eq!(response.created, Some(17));
        assert_eq!(response.size, None);
        assert_eq!(response.quality.as_deref(), Some("low"));
        assert_eq!((response.usage, response.seed), (None, None));
        assert_eq!(response.warnings, ["careful"]);
    }
}
