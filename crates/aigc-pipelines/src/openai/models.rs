//! Which fields the models of the API accept, as a table.
//!
//! Source: the OpenAPI description of the API, 2026-08-21. A model that is not in the table accepts
//! everything: it gets what the caller set, and nothing else.

use super::{ImageFile, ImageOptions, ImagesApiError, request::Endpoint};
use std::fmt::Display;

/// What the models of one family accept.
#[derive(Debug)]
pub(super) struct ModelRules {
    /// The first part of the models' names; the longest that fits counts.
    prefix: &'static str,
    /// Fields of each endpoint besides `prompt`, `image` and `mask`; `None` if the family does not
    /// have the endpoint.
    generations: &'static [&'static str],
    edits: Option<&'static [&'static str]>,
    variations: Option<&'static [&'static str]>,
    /// Characters of a prompt.
    prompt_chars: usize,
    max_n: u32,
    sizes: Sizes,
    qualities: &'static [&'static str],
    /// Images of an edit, and bytes of each.
    max_images: usize,
    image_bytes: usize,
    /// Whether images must be square PNG files.
    square_png: bool,
}

#[derive(Debug)]
enum Sizes {
    Listed(&'static [&'static str]),
    /// `auto`, or sides divisible by 16, from 1:3 to 3:1, up to 3840×2160 pixels.
    Free,
}

const MAX_FREE_PIXELS: u64 = 3840 * 2160;

const GPT_IMAGE: ModelRules = ModelRules {
    prefix: "gpt-image",
    generations: &[
        "model",
        "n",
        "size",
        "quality",
        "background",
        "output_format",
        "output_compression",
        "moderation",
        "stream",
        "partial_images",
        "user",
    ],
    edits: Some(&[
        "model",
        "n",
        "size",
        "quality",
        "background",
        "output_format",
        "output_compression",
        "input_fidelity",
        "stream",
        "partial_images",
        "user",
    ]),
    variations: None,
    prompt_chars: 32_000,
    max_n: 10,
    sizes: Sizes::Listed(&["auto", "1024x1024", "1536x1024", "1024x1536"]),
    qualities: &["auto", "low", "medium", "high"],
    max_images: 16,
    image_bytes: 50_000_000,
    square_png: false,
};

static TABLE: [ModelRules; 5] = [
    ModelRules {
        prefix: "dall-e-2",
        generations: &["model", "n", "size", "quality", "response_format", "user"],
        edits: Some(&["model", "n", "size", "response_format", "user"]),
        variations: Some(&["model", "n", "size", "response_format", "user"]),
        prompt_chars: 1000,
        max_n: 10,
        sizes: Sizes::Listed(&["256x256", "512x512", "1024x1024"]),
        qualities: &["standard"],
        max_images: 1,
        image_bytes: 4_000_000,
        square_png: true,
    },
    ModelRules {
        prefix: "dall-e-3",
        generations: &[
            "model",
            "n",
            "size",
            "quality",
            "response_format",
            "style",
            "user",
        ],
        edits: None,
        variations: None,
        prompt_chars: 4000,
        max_n: 1,
        sizes: Sizes::Listed(&["1024x1024", "1792x1024", "1024x1792"]),
        qualities: &["standard", "hd"],
        max_images: 0,
        image_bytes: 0,
        square_png: false,
    },
    GPT_IMAGE,
    ModelRules {
        prefix: "chatgpt-image",
        ..GPT_IMAGE
    },
    ModelRules {
        prefix: "gpt-image-2",
        sizes: Sizes::Free,
        ..GPT_IMAGE
    },
];

/// The table's entry for a model.
pub(super) fn rules(model: &str) -> Option<&'static ModelRules> {
    let fits = |rules: &&ModelRules| {
        let rest = model.strip_prefix(rules.prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.']))
    };
    TABLE
        .iter()
        .filter(fits)
        .max_by_key(|rules| rules.prefix.len())
}

impl ModelRules {
    fn fields(&self, endpoint: Endpoint) -> Option<&'static [&'static str]> {
        match endpoint {
            Endpoint::Generations => Some(self.generations),
            Endpoint::Edits => self.edits,
            Endpoint::Variations => self.variations,
        }
    }

    /// Whether pictures are always answered in base64, so that `response_format` is refused.
    fn answers_base64(&self) -> bool {
        !self.generations.contains(&"response_format")
    }

    /// Checks the fields of `options`. Those that the model refuses are removed if `drop` is set,
    /// and returned; otherwise the first one is an error.
    pub(super) fn check_fields(
        &self,
        endpoint: Endpoint,
        options: &mut ImageOptions,
        drop: bool,
    ) -> Result<Vec<String>, ImagesApiError> {
        let model = options.model.clone().unwrap_or_default();
        let Some(fields) = self.fields(endpoint) else {
            return Err(ImagesApiError::field(
                "model",
                &model,
                &format!("a model that has {}", endpoint.path()),
            ));
        };
        // It asks for what the model does in any case.
        if self.answers_base64() && options.response_format.as_deref() == Some("b64_json") {
            options.response_format = None;
        }
        let refused: Vec<String> = options
            .set_fields()
            .into_iter()
            .filter(|name| !fields.contains(&name.as_str()) && !options.extra.contains_key(name))
            .collect();
        if let (Some(name), false) = (refused.first(), drop) {
            let expected = format!("not set: {model} accepts {}", fields.join(", "));
            return Err(ImagesApiError::field(name, "set", &expected));
        }
        for name in &refused {
            options.unset(name);
        }
        Ok(refused)
    }

    /// Checks the values of a request. Only for the API itself: compatible servers have models of
    /// the same names with other limits.
    pub(super) fn check_values(
        &self,
        prompt: Option<&str>,
        images: &[&ImageFile],
        options: &ImageOptions,
    ) -> Result<(), ImagesApiError> {
        let check = |holds: bool, param: &str, value: &dyn Display, expected: &str| match holds {
            true => Ok(()),
            false => Err(ImagesApiError::field(param, value, expected)),
        };
        if let Some(prompt) = prompt {
            let chars = prompt.chars().count();
            let expected = format!("at most {} characters", self.prompt_chars);
            check(
                chars <= self.prompt_chars,
                "prompt",
                &format!("{chars} characters long"),
                &expected,
            )?;
        }
        if let Some(n) = options.n {
            let expected = format!("1 to {}", self.max_n);
            check((1..=self.max_n).contains(&n), "n", &n, &expected)?;
        }
        if let Some(size) = &options.size {
            let (holds, expected) = match &self.sizes {
                Sizes::Listed(sizes) => (sizes.contains(&size.as_str()), sizes.join(", ")),
                Sizes::Free => (
                    size == "auto" || is_free_size(size),
                    "auto, or sides divisible by 16, from 1:3 to 3:1, up to 3840x2160".into(),
                ),
            };
            check(holds, "size", size, &expected)?;
        }
        if let Some(quality) = &options.quality {
            let expected = self.qualities.join(", ");
            check(
                self.qualities.contains(&quality.as_str()),
                "quality",
                quality,
                &expected,
            )?;
        }
        let expected = format!("at most {}", self.max_images);
        check(
            images.len() <= self.max_images,
            "image",
            &format!("{} files", images.len()),
            &expected,
        )?;
        for image in images {
            let (bytes, limit) = (image.bytes().len(), self.image_bytes);
            check(
                bytes < limit,
                "image",
                &format!("{bytes} bytes"),
                &format!("less than {limit} bytes"),
            )?;
            let is_square = image.format().is_png() && image.size().is_none_or(|(w, h)| w == h);
            check(
                !self.square_png || is_square,
                "image",
                &"of another form",
                "a square PNG",
            )?;
        }
        Ok(())
    }
}

fn is_free_size(size: &str) -> bool {
    let Ok(size) = size.parse::<aigc_core::text_to_image::ImageSize>() else {
        return false;
    };
    let (width, height) = (u64::from(size.width), u64::from(size.height));
    width % 16 == 0
        && height % 16 == 0
        && width <= 3 * height
        && height <= 3 * width
        && width * height <= MAX_FREE_PIXELS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_found_by_the_longest_prefix() {
        for (model, prefix) in [
            ("dall-e-2", Some("dall-e-2")),
            ("dall-e-3", Some("dall-e-3")),
            ("gpt-image-1", Some("gpt-image")),
            ("gpt-image-1-mini", Some("gpt-image")),
            ("gpt-image-1.5", Some("gpt-image")),
            ("gpt-image-2", Some("gpt-image-2")),
            ("gpt-image-2-2026-04-21", Some("gpt-image-2")),
            ("dall-e-25", None),
            ("gpt-images", None),
            ("stable-diffusion", None),
            ("", None),
        ] {
            assert_eq!(rules(model).map(|rules| rules.prefix), prefix, "{model}");
        }
    }

    #[test]
    fn refused_fields_are_named_or_dropped() {
        let options = ImageOptions {
            model: Some("gpt-image-1".into()),
            response_format: Some("url".into()),
            style: Some("vivid".into()),
            quality: Some("low".into()),
            ..ImageOptions::default()
        };
        let rules = rules("gpt-image-1").unwrap();
        let error = rules
            .check_fields(Endpoint::Generations, &mut options.clone(), false)
            .unwrap_err();
        assert_eq!(error.param(), Some("response_format"));
        let mut kept = options.clone();
        let dropped = rules
            .check_fields(Endpoint::Generations, &mut kept, true)
            .unwrap();
        assert_eq!(dropped, ["response_format", "style"]);
        assert_eq!(kept.set_fields(), ["model", "quality"]);
        // What asks for the model's only behaviour is left out.
        let mut base64 = ImageOptions {
            response_format: Some("b64_json".into()),
            ..ImageOptions::default()
        };
        let dropped = rules.check_fields(Endpoint::Edits, &mut base64, false);
        assert!(dropped.unwrap().is_empty() && base64.set_fields().is_empty());
        // Fields that no table knows are the caller's concern.
        let mut extra = ImageOptions::default();
        extra.extra.insert("seed".into(), 3.into());
        let dropped = rules.check_fields(Endpoint::Generations, &mut extra, false);
        assert!(dropped.unwrap().is_empty() && extra.extra.len() == 1);
        let none = rules.check_fields(Endpoint::Variations, &mut extra, false);
        assert_eq!(none.unwrap_err().param(), Some("model"));
    }

    #[test]
    fn values_are_checked_by_model() {
        let options = |size: &str, n: u32| ImageOptions {
            size: Some(size.into()),
            n: Some(n),
            ..ImageOptions::default()
        };
        for (model, size, n, param) in [
            ("dall-e-2", "256x256", 10, None),
            ("dall-e-2", "1024x1536", 1, Some("size")),
            ("dall-e-2", "256x256", 11, Some("n")),
            ("dall-e-3", "1792x1024", 1, None),
            ("dall-e-3", "1792x1024", 2, Some("n")),
            ("gpt-image-1", "auto", 1, None),
            ("gpt-image-1", "640x640", 1, Some("size")),
            ("gpt-image-2", "640x656", 1, None),
            ("gpt-image-2", "3840x2160", 1, None),
            ("gpt-image-2", "3840x2176", 1, Some("size")),
            ("gpt-image-2", "650x650", 1, Some("size")),
            ("gpt-image-2", "160x640", 1, Some("size")),
            ("gpt-image-2", "160x640", 0, Some("n")),
        ] {
            let rules = rules(model).unwrap();
            let error = rules.check_values(Some("a cat"), &[], &options(size, n));
            let found = error.err().map(|error| error.param().unwrap().to_string());
            assert_eq!(found.as_deref(), param, "{model} {size} {n}");
        }
        let long = "é".repeat(1001);
        let rules = rules("dall-e-2").unwrap();
        let error = rules.check_values(Some(&long), &[], &ImageOptions::default());
        assert_eq!(error.unwrap_err().param(), Some("prompt"));
    }
}
