//! The client as a [`TextToImage`].

use super::{
    CallEvent, CallOptions, CreateImageEditRequest, CreateImageRequest, ImageFile, ImageOptions,
    ImagesApiError, ImagesResponse, OpenAiImages, models::rules,
};
use aigc_core::{
    Error, Result,
    text_to_image::{
        GeneratedImage, GeneratedImages, GenerationOptions, GenerationProgress, GenerationStage,
        ImageRequest, ImageSize, TextToImage,
    },
};
use image::DynamicImage;
use serde_json::Value;
use std::collections::HashSet;

/// Fields of a request that the API does not have:
///
/// - a model that is known to refuse them: `seed`, `guidance_scale` and `num_inference_steps` are
///   left out with a warning, because the images are still those of the prompt, and are not set in
///   the request of the result; all others are an error;
/// - any other model: they are sent under their own names, as far as they are set. The example
///   server knows them. They replace those of the configuration.
///
/// Fields that the server refused, so that they were left out (`drop_unsupported_fields`), are not
/// set in the request of the result either, except `n`: the result says that images are missing.
///
/// `image` makes the request an edit, and `mask_image` is sent as the API wants it: transparent
/// where the image is painted anew. `control_image` is an error.
///
/// Progress has the stage [`Waiting`](GenerationStage::Waiting), with the failed requests as steps,
/// and for partial images (`partial_images` in the options of the configuration) the stage
/// [`Denoising`](GenerationStage::Denoising) with a preview.
impl TextToImage for OpenAiImages {
    fn model_name(&self) -> &str {
        self.config.options.model.as_deref().unwrap_or("default")
    }

    fn generate_with(
        &self,
        request: &ImageRequest,
        options: &mut GenerationOptions<'_>,
    ) -> Result<GeneratedImages> {
        let mut warnings = vec![];
        let api_options = self.api_options(request, &mut warnings)?;
        let n = api_options.n.map_or(1, |n| n as usize);
        let partial_images = usize::from(api_options.partial_images.unwrap_or(0));
        let cancel = options.cancel.clone();
        let mut failed = 0;
        let mut call = CallOptions::default()
            .with_cancel(cancel)
            .with_callback(|event| {
                let first = request.first_image.unwrap_or(0);
                let mut progress = GenerationProgress {
                    stage: GenerationStage::Waiting,
                    images: 0..n,
                    total: n,
                    step: failed,
                    num_steps: 1 + self.config.max_retries as usize,
                    preview: None,
                };
                match event {
                    CallEvent::Attempt { .. } => options.report(&progress),
                    CallEvent::Retry { .. } => {
                        failed += 1;
                        progress.step = failed;
                        options.report(&progress)
                    }
                    CallEvent::PartialImage(partial) => {
                        let index = partial.index.checked_sub(first);
                        let index = index.unwrap_or(partial.index).min(n - 1);
                        let step = partial.partial_image_index.saturating_add(1);
                        let preview = || vec![partial.image.clone()];
                        options.report(&GenerationProgress {
                            stage: GenerationStage::Denoising,
                            images: index..index + 1,
                            step,
                            num_steps: partial_images.max(step),
                            preview: Some(&preview),
                            ..progress
                        })
                    }
                }
            });
        let answer = match &request.image {
            None => {
                let create = CreateImageRequest::new(&request.prompt).with_options(api_options);
                self.generations(&create, &mut call)
            }
            Some(image) => {
                edit(request, image, api_options).and_then(|edit| self.edits(&edit, &mut call))
            }
        };
        let answer = answer.map_err(ImagesApiError::into_error)?;
        Ok(self.generated(request, n, answer, warnings))
    }
}

fn edit(
    request: &ImageRequest,
    image: &DynamicImage,
    options: ImageOptions,
) -> std::result::Result<CreateImageEditRequest, ImagesApiError> {
    let edit = CreateImageEditRequest::new(ImageFile::from_image(image)?, &request.prompt);
    let edit = edit.with_options(options);
    Ok(match &request.mask_image {
        Some(mask) => edit.with_mask(ImageFile::from_mask(mask)?),
        None => edit,
    })
}

impl OpenAiImages {
    /// The fields of a request; what is left out is added to `warnings`.
    fn api_options(
        &self,
        request: &ImageRequest,
        warnings: &mut Vec<String>,
    ) -> Result<ImageOptions> {
        check_numbers(request)?;
        let mut options = self.config.options.clone();
        if let Some(n) = request.n {
            let too_many = |_| Error::argument("n", n, format!("at most {}", u32::MAX));
            options.n = Some(u32::try_from(n).map_err(too_many)?);
        }
        if options.n == Some(0) {
            return Err(Error::argument("n", 0, "at least 1"));
        }
        if let Some(size) = request.size {
            options.size = Some(size.to_string());
        }
        if options.partial_images.is_some() {
            options.stream = Some(true);
        }
        if request.image.is_none() {
            let set = [
                ("mask_image", request.mask_image.is_some()),
                ("strength", request.strength.is_some()),
            ];
            if let Some((name, _)) = set.into_iter().find(|(_, is_set)| *is_set) {
                return Err(Error::argument(name, "set", "not set without `image`"));
            }
        }
        if request.control_image.is_some() {
            let hint = "open the model on this machine";
            return Err(Error::unsupported("`control_image`", "an images API", hint));
        }
        if request.first_image == Some(0) {
            // The default is not sent, but replaces the configuration's number, too.
            options.extra.remove("first_image");
        }
        let has_further_fields = self.has_further_fields();
        for (name, value, is_essential) in further_fields(request) {
            if has_further_fields {
                options.extra.insert(name, value);
            } else if is_essential {
                let expected = format!("not set: {} does not have it", self.model_name());
                return Err(Error::argument(name, value, expected));
            } else {
                warnings.push(format!(
                    "`{name}` was left out: {} does not have it",
                    self.model_name()
                ));
            }
        }
        Ok(options)
    }

    /// Whether the model may accept fields that the API does not have.
    fn has_further_fields(&self) -> bool {
        match &self.config.options.model {
            Some(model) => rules(model).is_none(),
            None => !self.base.is_official(),
        }
    }

    fn generated(
        &self,
        request: &ImageRequest,
        n: usize,
        answer: ImagesResponse,
        mut warnings: Vec<String>,
    ) -> GeneratedImages {
        let mut request = request.clone();
        request.n = Some(n);
        if !self.has_further_fields() {
            for name in ["seed", "guidance_scale", "num_inference_steps"] {
                unset(&mut request, name);
            }
        }
        for name in &answer.dropped {
            unset(&mut request, name);
        }
        let first = request.first_image.unwrap_or(0);
        warnings.extend(answer.warnings);
        if answer.images.len() < n {
            let found = answer.images.len();
            warnings.push(format!("the server made {found} of {n} images"));
        }
        let complete = answer.images.len() >= n;
        let indices: Vec<usize> = answer.images.iter().map(|image| image.index).collect();
        let images = answer.images.into_iter().zip(numbers(first, n, &indices));
        let images: Vec<_> = images
            .map(|(api, number)| {
                let mut image = GeneratedImage::new(api.image, number);
                image.revised_prompt = api.revised_prompt;
                image
            })
            .collect();
        request.seed = request.seed.or(answer.seed);
        if let Some(made) = images.first() {
            let size = ImageSize::new(made.image.width(), made.image.height());
            request.size.get_or_insert(size);
        }
        let mut generated = GeneratedImages::new(images, request, self.model_name());
        generated.complete = complete;
        generated.warnings = warnings;
        generated.settings = [
            ("api", Some(self.config.base_url.clone())),
            ("quality", answer.quality),
            ("background", answer.background),
            ("output_format", answer.output_format),
            ("request_id", answer.request_id),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_string(), value?)))
        .collect();
        generated
    }
}

/// Unsets a field of a request that the server did not get.
fn unset(request: &mut ImageRequest, name: &str) {
    match name {
        "negative_prompt" => request.negative_prompt = None,
        "size" => request.size = None,
        "seed" => request.seed = None,
        "first_image" => request.first_image = None,
        "guidance_scale" => request.guidance_scale = None,
        "num_inference_steps" => request.num_inference_steps = None,
        "strength" => request.strength = None,
        _ => {}
    }
}

/// Numbers of images in a request that begins with image `first`, by their numbers in the answer.
///
/// Servers count from 0, or as the one of the examples from `first`. Numbers that are neither are
/// replaced by the order of the answer.
fn numbers(first: usize, n: usize, indices: &[usize]) -> Vec<usize> {
    let from_first = indices.iter().all(|index| *index >= first);
    let from_zero = indices
        .iter()
        .map(|index| if from_first { index - first } else { *index });
    let mut from_zero: Vec<usize> = from_zero.collect();
    let distinct = from_zero.iter().collect::<HashSet<_>>().len();
    if distinct < from_zero.len() || from_zero.iter().any(|index| *index >= n) {
        from_zero = (0..indices.len()).collect();
    }
    let number = |index: usize| first.saturating_add(index);
    from_zero.into_iter().map(number).collect()
}

/// Fails for numbers that no model can mean. JSON has neither infinity nor NaN.
fn check_numbers(request: &ImageRequest) -> Result<()> {
    if let Some(strength) = request.strength.filter(|s| !(0.0..=1.0).contains(s)) {
        return Err(Error::argument("strength", strength, "0 to 1"));
    }
    if let Some(scale) = request.guidance_scale.filter(|scale| !scale.is_finite()) {
        return Err(Error::argument("guidance_scale", scale, "a finite number"));
    }
    Ok(())
}

/// The fields of a request that the API does not have: name, value, and whether leaving the field
/// out changes the content of the images.
fn further_fields(request: &ImageRequest) -> Vec<(String, Value, bool)> {
    let fields = [
        (
            "negative_prompt",
            request.negative_prompt.as_deref().map(Value::from),
            true,
        ),
        ("seed", request.seed.map(Value::from), false),
        (
            "first_image",
            request
                .first_image
                .filter(|first| *first > 0)
                .map(Value::from),
            true,
        ),
        (
            "guidance_scale",
            request.guidance_scale.map(Value::from),
            false,
        ),
        (
            "num_inference_steps",
            request.num_inference_steps.map(Value::from),
            false,
        ),
        ("strength", request.strength.map(Value::from), true),
    ];
    fields
        .into_iter()
        .filter_map(|(name, value, is_essential)| Some((name.to_string(), value?, is_essential)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_their_numbers_however_servers_count() {
        for (first, n, indices, expected) in [
            (0, 3, &[0, 1, 2][..], &[0, 1, 2][..]),
            // The second picture was broken.
            (0, 3, &[0, 2], &[0, 2]),
            // The example's server, and another one.
            (2, 3, &[2, 3, 4], &[2, 3, 4]),
            (2, 3, &[0, 1, 2], &[2, 3, 4]),
            (2, 1, &[0], &[2]),
            // In another order.
            (0, 2, &[1, 0], &[1, 0]),
            // Nonsense.
            (0, 2, &[0, 0], &[0, 1]),
            (0, 2, &[7, usize::MAX], &[0, 1]),
            (usize::MAX, 2, &[0, 1], &[usize::MAX, usize::MAX]),
            (0, 1, &[], &[]),
        ] {
            assert_eq!(numbers(first, n, indices), expected, "{first} {indices:?}");
        }
    }
}
