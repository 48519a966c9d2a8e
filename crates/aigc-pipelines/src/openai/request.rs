//! Requests of the three endpoints.

use super::{ImageFile, multipart::Multipart};
use serde::Serialize;
use serde_json::{Map, Value};

/// An endpoint of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Generations,
    Edits,
    Variations,
}

impl Endpoint {
    /// Its path below the base URL.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Generations => "images/generations",
            Self::Edits => "images/edits",
            Self::Variations => "images/variations",
        }
    }
}

/// The optional fields of all endpoints. A field that is `None` is not sent. The names and values
/// are those of the API; values are text where the API's set of values is open.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ImageOptions {
    /// Name of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Number of images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<u32>,
    /// Width and height as in `1024x1024`, or `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// `standard`, `hd`, `low`, `medium`, `high` or `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<String>,
    /// `url` or `b64_json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_format: Option<String>,
    /// `vivid` or `natural`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub style: Option<String>,
    /// `transparent`, `opaque` or `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub background: Option<String>,
    /// `png`, `jpeg` or `webp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_format: Option<String>,
    /// Quality of JPEG and WebP files, from 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_compression: Option<u8>,
    /// `low` or `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moderation: Option<String>,
    /// How closely an edit follows its images: `low` or `high`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_fidelity: Option<String>,
    /// Whether the answer is a stream of events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// Number of partial images in a stream, from 0 to 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial_images: Option<u8>,
    /// A name of the end user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Fields that the API does not have and a compatible server does, such as `seed`.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ImageOptions {
    /// The fields that are set, by name.
    pub(super) fn fields(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => fields,
            // Names are texts, and no value can fail.
            _ => Map::new(),
        }
    }

    /// Names of the fields that are set, in the order of the declaration.
    pub(super) fn set_fields(&self) -> Vec<String> {
        let fields = self.fields();
        let order = [
            "model",
            "n",
            "size",
            "quality",
            "response_format",
            "style",
            "background",
            "output_format",
            "output_compression",
            "moderation",
            "input_fidelity",
            "stream",
            "partial_images",
            "user",
        ];
        let known = order.iter().filter(|name| fields.contains_key(**name));
        let extra = self.extra.keys();
        known
            .map(|name| name.to_string())
            .chain(extra.cloned())
            .collect()
    }

    /// Removes a field; returns whether it was set.
    pub(super) fn unset(&mut self, name: &str) -> bool {
        fn take<T>(field: &mut Option<T>) -> bool {
            field.take().is_some()
        }
        match name {
            "model" => take(&mut self.model),
            "n" => take(&mut self.n),
            "size" => take(&mut self.size),
            "quality" => take(&mut self.quality),
            "response_format" => take(&mut self.response_format),
            "style" => take(&mut self.style),
            "background" => take(&mut self.background),
            "output_format" => take(&mut self.output_format),
            "output_compression" => take(&mut self.output_compression),
            "moderation" => take(&mut self.moderation),
            "input_fidelity" => take(&mut self.input_fidelity),
            "stream" => take(&mut self.stream),
            "partial_images" => take(&mut self.partial_images),
            "user" => take(&mut self.user),
            _ => self.extra.remove(name).is_some(),
        }
    }
}

/// Asks for images of a prompt (`images/generations`).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct CreateImageRequest {
    /// Description of the images.
    pub prompt: String,
    /// All other fields.
    pub options: ImageOptions,
}

impl CreateImageRequest {
    /// A request of the defaults of the API.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            options: ImageOptions::default(),
        }
    }

    /// Sets the other fields.
    pub fn with_options(mut self, options: ImageOptions) -> Self {
        self.options = options;
        self
    }
}

/// Asks for images that are edited (`images/edits`).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CreateImageEditRequest {
    /// The images to edit.
    pub images: Vec<ImageFile>,
    /// Description of the result.
    pub prompt: String,
    /// A PNG as large as the first image. Its transparent part is edited.
    pub mask: Option<ImageFile>,
    /// All other fields.
    pub options: ImageOptions,
}

impl CreateImageEditRequest {
    /// A request to edit one image.
    pub fn new(image: ImageFile, prompt: impl Into<String>) -> Self {
        Self {
            images: vec![image],
            prompt: prompt.into(),
            mask: None,
            options: ImageOptions::default(),
        }
    }

    /// Sets the mask, of which the transparent part is edited.
    pub fn with_mask(mut self, mask: ImageFile) -> Self {
        self.mask = Some(mask);
        self
    }

    /// Sets the other fields.
    pub fn with_options(mut self, options: ImageOptions) -> Self {
        self.options = options;
        self
    }
}

/// Asks for variations of an image (`images/variations`).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CreateImageVariationRequest {
    /// The image.
    pub image: ImageFile,
    /// All other fields.
    pub options: ImageOptions,
}

impl CreateImageVariationRequest {
    /// A request of the defaults of the API.
    pub fn new(image: ImageFile) -> Self {
        Self {
            image,
            options: ImageOptions::default(),
        }
    }

    /// Sets the other fields.
    pub fn with_options(mut self, options: ImageOptions) -> Self {
        self.options = options;
        self
    }
}

/// A request of any endpoint.
#[derive(Clone, Debug)]
pub(super) struct Call<'a> {
    pub(super) endpoint: Endpoint,
    pub(super) prompt: Option<&'a str>,
    pub(super) images: Vec<&'a ImageFile>,
    pub(super) mask: Option<&'a ImageFile>,
    pub(super) options: ImageOptions,
}

/// The body of a request.
pub(super) struct RequestBody {
    pub(super) content_type: String,
    pub(super) bytes: Vec<u8>,
}

impl Call<'_> {
    /// Number of requested images.
    pub(super) fn n(&self) -> usize {
        self.options.n.unwrap_or(1) as usize
    }

    /// The body: JSON, or a form where there are files.
    pub(super) fn body(&self) -> RequestBody {
        let mut fields = self.options.fields();
        if let Some(prompt) = self.prompt {
            fields.insert("prompt".into(), prompt.into());
        }
        if self.endpoint == Endpoint::Generations {
            return RequestBody {
                content_type: "application/json".into(),
                bytes: Value::Object(fields).to_string().into_bytes(),
            };
        }
        let mut form = Multipart::default();
        for (name, value) in &fields {
            match value {
                Value::String(text) => form.text(name, text),
                value => form.text(name, &value.to_string()),
            }
        }
        let name = if self.images.len() > 1 {
            "image[]"
        } else {
            "image"
        };
        for (i, image) in self.images.iter().enumerate() {
            form.file(name, &format!("image-{i}"), image);
        }
        if let Some(mask) = self.mask {
            form.file("mask", "mask", mask);
        }
        form.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_set_fields_are_sent() {
        let mut options = ImageOptions {
            n: Some(2),
            size: Some("256x256".into()),
            stream: Some(false),
            ..ImageOptions::default()
        };
        options.extra.insert("seed".into(), 7.into());
        let call = Call {
            endpoint: Endpoint::Generations,
            prompt: Some("a cat"),
            images: vec![],
            mask: None,
            options: options.clone(),
        };
        let body = call.body();
        assert_eq!(body.content_type, "application/json");
        let sent: Value = serde_json::from_slice(&body.bytes).unwrap();
        let expected = serde_json::json!({
            "prompt": "a cat", "n": 2, "size": "256x256", "stream": false, "seed": 7
        });
        assert_eq!(sent, expected);
        assert_eq!(options.set_fields(), ["n", "size", "stream", "seed"]);
        for name in options.set_fields() {
            assert!(options.unset(&name) && !options.unset(&name), "{name}");
        }
        assert_eq!(options, ImageOptions::default());
    }

    #[test]
    fn every_field_can_be_unset() {
        let text = || Some("x".to_string());
        let mut options = ImageOptions {
            model: text(),
            n: Some(1),
            size: text(),
            quality: text(),
            response_format: text(),
            style: text(),
            background: text(),
            output_format: text(),
            output_compression: Some(1),
            moderation: text(),
            input_fidelity: text(),
            stream: Some(true),
            partial_images: Some(1),
            user: text(),
            extra: Map::from_iter([("seed".to_string(), 1.into())]),
        };
        // The list of names has all of them.
        assert_eq!(options.set_fields().len(), options.fields().len());
        for name in options.set_fields() {
            assert!(options.unset(&name), "{name}");
        }
        assert!(options.fields().is_empty());
    }
}
