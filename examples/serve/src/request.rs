//! From the fields of a request to what the model is asked for.

use crate::{
    ServerConfig, endpoint::Endpoint, error::ApiError, fields::Fields, picture::OutputFormat,
};
use aigc_core::text_to_image::{ImageRequest, ImageSize};
use axum::body::Bytes;

/// How pictures are answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ResponseFormat {
    Url,
    Base64,
}

/// A request that was read.
#[derive(Debug)]
pub(crate) struct ImagesCall {
    pub(crate) endpoint: Endpoint,
    /// Without the images.
    pub(crate) request: ImageRequest,
    /// The files of the image and of the mask.
    pub(crate) image: Option<Bytes>,
    pub(crate) mask: Option<Bytes>,
    pub(crate) output: OutputFormat,
    pub(crate) response_format: ResponseFormat,
    pub(crate) quality: &'static str,
    /// Whether the answer is a stream, and the number of its partial images.
    pub(crate) stream: bool,
    pub(crate) partial_images: usize,
}

/// Reads the fields of a request. `model` is the name of the model.
pub(crate) fn read_call(
    endpoint: Endpoint,
    mut fields: Fields,
    model: &str,
    config: &ServerConfig,
) -> Result<ImagesCall, ApiError> {
    let known = endpoint.known();
    if let Some(name) = fields.text("model")?
        && name != model
        && !config.aliases.contains(&name)
    {
        return Err(ApiError::model(&name, model));
    }
    let prompt = match endpoint {
        Endpoint::Variations => config.variation_prompt.clone(),
        _ => read_prompt(&mut fields, config)?,
    };
    let mut request = ImageRequest::new(prompt);
    read_common(&mut fields, &mut request, config)?;
    let response_format = fields.one_of("response_format", &["url", "b64_json"])?;
    let (mut output, mut quality, mut stream, mut partial_images) =
        (OutputFormat::Png, "medium", false, 0);
    if endpoint != Endpoint::Variations {
        output = read_output(&mut fields)?;
        quality = read_quality(&mut fields, &mut request, config)?;
        stream = fields.boolean("stream")?.unwrap_or(false);
        partial_images = fields.integer("partial_images", 0, 3)?.unwrap_or(0) as usize;
        // Without effect here, so that only values that ask for nothing are possible.
        fields.one_of("background", &["auto", "opaque"])?;
        fields.one_of("moderation", &["auto", "low"])?;
        if partial_images > 0 && !stream {
            let expected = "0, or 'stream' to be true";
            return Err(ApiError::value(
                "partial_images",
                &partial_images.to_string(),
                expected,
            ));
        }
        if stream && response_format == Some("url") {
            let expected = "'b64_json' in a stream";
            return Err(ApiError::value("response_format", "url", expected));
        }
    }
    if endpoint == Endpoint::Generations {
        fields.one_of("style", &["vivid"])?;
    }
    let (mut image, mut mask) = (None, None);
    if endpoint != Endpoint::Generations {
        image = Some(one_file(&mut fields, "image")?.ok_or_else(|| ApiError::missing("image"))?);
        request.strength = fields.number("strength", 0.0, 1.0)?;
    }
    if endpoint == Endpoint::Edits {
        mask = one_file(&mut fields, "mask")?;
        if fields.one_of("input_fidelity", &["low", "high"])? == Some("high") {
            request.strength.get_or_insert(0.5);
        }
    }
    if endpoint == Endpoint::Variations {
        request.strength.get_or_insert(config.variation_strength);
    }
    fields.finish(&known)?;
    Ok(ImagesCall {
        endpoint,
        request,
        image,
        mask,
        output,
        response_format: match response_format {
            Some("b64_json") => ResponseFormat::Base64,
            _ if stream => ResponseFormat::Base64,
            _ => ResponseFormat::Url,
        },
        quality,
        stream,
        partial_images,
    })
}

fn read_prompt(fields: &mut Fields, config: &ServerConfig) -> Result<String, ApiError> {
    let prompt = fields.text("prompt")?;
    let prompt = prompt.ok_or_else(|| ApiError::missing("prompt"))?;
    if prompt.trim().is_empty() {
        return Err(ApiError::value(
            "prompt",
            &prompt,
            "a description of the image",
        ));
    }
    check_length("prompt", &prompt, config)?;
    Ok(prompt)
}

fn check_length(param: &str, text: &str, config: &ServerConfig) -> Result<(), ApiError> {
    let (chars, limit) = (text.chars().count(), config.max_prompt_chars);
    if chars > limit {
        let found = format!("{chars} characters");
        return Err(ApiError::value(
            param,
            &found,
            &format!("at most {limit} characters"),
        ));
    }
    Ok(())
}

fn read_common(
    fields: &mut Fields,
    request: &mut ImageRequest,
    config: &ServerConfig,
) -> Result<(), ApiError> {
    request.n = fields
        .integer("n", 1, config.max_n as u64)?
        .map(|n| n as usize);
    request.size = read_size(fields, config)?;
    request.seed = fields.integer("seed", 0, u64::MAX)?;
    request.first_image = fields
        .integer("first_image", 0, 1_000_000)?
        .map(|first| first as usize);
    request.negative_prompt = fields.text("negative_prompt")?;
    if let Some(negative_prompt) = &request.negative_prompt {
        check_length("negative_prompt", negative_prompt, config)?;
    }
    request.guidance_scale = fields.number("guidance_scale", 0.0, 1000.0)?;
    request.num_inference_steps = fields
        .integer("num_inference_steps", 1, config.max_steps as u64)?
        .map(|steps| steps as usize);
    // A name for the server's own statistics.
    fields.text("user")?;
    Ok(())
}

fn read_size(fields: &mut Fields, config: &ServerConfig) -> Result<Option<ImageSize>, ApiError> {
    let text = fields.text("size")?.filter(|size| size != "auto");
    let Some(text) = text else {
        return Ok(None);
    };
    let limit = config.max_side;
    let size = text.parse::<ImageSize>().ok();
    let size = size.filter(|size| size.width <= limit && size.height <= limit);
    match size {
        Some(size) => Ok(Some(size)),
        None => {
            let expected = format!("'auto', or WIDTHxHEIGHT with sides up to {limit}");
            Err(ApiError::value("size", &text, &expected))
        }
    }
}

fn read_output(fields: &mut Fields) -> Result<OutputFormat, ApiError> {
    let format = fields.one_of("output_format", &["png", "jpeg", "webp"])?;
    let quality = fields.integer("output_compression", 0, 100)?;
    match (format, quality) {
        (Some("jpeg"), quality) => Ok(OutputFormat::Jpeg(quality.unwrap_or(100).max(1) as u8)),
        (format, None | Some(100)) => Ok(match format {
            Some("webp") => OutputFormat::WebP,
            _ => OutputFormat::Png,
        }),
        (_, Some(quality)) => {
            let expected = "100, unless 'output_format' is 'jpeg'";
            Err(ApiError::value(
                "output_compression",
                &quality.to_string(),
                expected,
            ))
        }
    }
}

/// Reads the quality, which is the number of steps, unless that is given.
fn read_quality(
    fields: &mut Fields,
    request: &mut ImageRequest,
    config: &ServerConfig,
) -> Result<&'static str, ApiError> {
    let words = ["auto", "standard", "low", "medium", "high", "hd"];
    let (quality, steps) = match fields.one_of("quality", &words)? {
        Some("low") => ("low", Some(config.low_steps)),
        Some("high" | "hd") => ("high", Some(config.high_steps)),
        _ => ("medium", None),
    };
    if request.num_inference_steps.is_none() {
        request.num_inference_steps = steps;
    }
    Ok(quality)
}

fn one_file(fields: &mut Fields, name: &str) -> Result<Option<Bytes>, ApiError> {
    // A text in the place of a file.
    if let Some(text) = fields.text(name)? {
        return Err(ApiError::value(name, &text, "a file"));
    }
    let mut files = fields.take_files(name);
    match files.len() {
        0 | 1 => Ok(files.pop()),
        n => Err(ApiError::value(name, &format!("{n} files"), "one file")),
    }
}

#[cfg(test)]
mod tests;
