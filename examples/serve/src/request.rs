//! From the fields of a request to what the model is asked for.

use crate::{ServerConfig, error::ApiError, fields::Fields, picture::OutputFormat};
use aigc_core::text_to_image::{ImageRequest, ImageSize};

/// An endpoint of the API.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Endpoint {
    Generations,
    Edits,
    Variations,
}

/// Fields of all endpoints, and of this server besides those of the API.
const COMMON: [&str; 10] = [
    "model",
    "n",
    "size",
    "response_format",
    "user",
    "seed",
    "first_image",
    "negative_prompt",
    "guidance_scale",
    "num_inference_steps",
];

/// Fields of images that are made of a prompt.
const PROMPTED: [&str; 7] = [
    "prompt",
    "quality",
    "background",
    "output_format",
    "output_compression",
    "stream",
    "partial_images",
];

impl Endpoint {
    fn known(self) -> Vec<&'static str> {
        let own: &[&str] = match self {
            Self::Generations => &["style", "moderation"],
            Self::Edits => &["image", "mask", "strength", "input_fidelity", "moderation"],
            Self::Variations => &["image", "strength"],
        };
        let prompted: &[&str] = match self {
            Self::Variations => &[],
            _ => &PROMPTED,
        };
        [prompted, own, &COMMON].concat()
    }

    /// Start of the names of a stream's events.
    pub(crate) fn event_prefix(self) -> &'static str {
        match self {
            Self::Generations => "image_generation",
            _ => "image_edit",
        }
    }
}

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
    pub(crate) image: Option<Vec<u8>>,
    pub(crate) mask: Option<Vec<u8>>,
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

fn one_file(fields: &mut Fields, name: &str) -> Result<Option<Vec<u8>>, ApiError> {
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
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(endpoint: Endpoint, values: Value, files: &[&str]) -> Result<ImagesCall, ApiError> {
        let Value::Object(values) = values else {
            unreachable!()
        };
        let files = files.iter().map(|name| (name.to_string(), vec![1]));
        let fields = Fields::new(values, files.collect(), false);
        let config = ServerConfig {
            aliases: vec!["dall-e-2".into()],
            ..ServerConfig::default()
        };
        read_call(endpoint, fields, "squares", &config)
    }

    #[test]
    fn fields_become_the_request() {
        let call = read(
            Endpoint::Generations,
            json!({
                "prompt": "a cat", "model": "dall-e-2", "n": 2, "size": "64x32", "quality": "low",
                "response_format": "b64_json", "style": "vivid", "background": "auto",
                "output_format": "jpeg", "output_compression": 80, "moderation": "low",
                "user": "me", "seed": 7, "negative_prompt": "a dog", "guidance_scale": 3.5,
                "first_image": 1, "stream": null
            }),
            &[],
        )
        .unwrap();
        let expected = ImageRequest::new("a cat")
            .with_n(2)
            .with_size(64, 32)
            .with_seed(7)
            .with_negative_prompt("a dog")
            .with_guidance_scale(3.5)
            .with_first_image(1)
            .with_num_inference_steps(10);
        assert_eq!(call.request, expected);
        assert_eq!(call.output, OutputFormat::Jpeg(80));
        assert_eq!(call.response_format, ResponseFormat::Base64);
        assert_eq!(
            (call.quality, call.stream, call.partial_images),
            ("low", false, 0)
        );

        let call = read(
            Endpoint::Generations,
            json!({"prompt": "a cat", "size": "auto"}),
            &[],
        );
        let call = call.unwrap();
        assert_eq!(call.request, ImageRequest::new("a cat"));
        assert_eq!(call.response_format, ResponseFormat::Url);
        let call = read(
            Endpoint::Edits,
            json!({"prompt": "a", "input_fidelity": "high"}),
            &["image[]"],
        );
        assert_eq!(call.unwrap().request.strength, Some(0.5));
        let call = read(Endpoint::Variations, json!({"n": 2}), &["image"]).unwrap();
        assert_eq!(
            call.request.prompt,
            ServerConfig::default().variation_prompt
        );
        let streamed = json!({"prompt": "a", "stream": true, "partial_images": 3});
        let call = read(Endpoint::Generations, streamed, &[]).unwrap();
        assert_eq!((call.stream, call.partial_images), (true, 3));
        assert_eq!(call.response_format, ResponseFormat::Base64);
    }

    /// Code of the error of a request with a field that is not possible, and checks its name.
    fn code(endpoint: Endpoint, values: Value, files: &[&str], param: &str) -> &'static str {
        let error = read(endpoint, values, files).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(param), "{}", error.message);
        assert!(error.message.contains(param), "{}", error.message);
        error.code.unwrap()
    }

    #[test]
    fn values_that_are_not_possible_are_named() {
        let long = "é".repeat(32_001);
        for (param, value) in [
            ("prompt", json!(" ")),
            ("prompt", json!(3)),
            ("prompt", json!(long)),
            ("negative_prompt", json!(long)),
            ("n", json!(0)),
            ("n", json!(11)),
            ("n", json!("2")),
            ("size", json!("64")),
            ("size", json!("0x64")),
            ("size", json!("4096x64")),
            ("quality", json!("best")),
            ("response_format", json!("png")),
            ("style", json!("natural")),
            ("background", json!("transparent")),
            ("output_format", json!("gif")),
            ("output_compression", json!(50)),
            ("moderation", json!("high")),
            ("partial_images", json!(1)),
            ("stream", json!(1)),
            ("seed", json!(-1)),
            ("guidance_scale", json!("x")),
            ("num_inference_steps", json!(201)),
        ] {
            let mut values = json!({"prompt": "a cat"});
            values[param] = value;
            let found = code(Endpoint::Generations, values, &[], param);
            assert_eq!(found, "invalid_value", "{param}");
        }
        let streamed = json!({"prompt": "a", "stream": true, "response_format": "url"});
        let found = code(Endpoint::Generations, streamed, &[], "response_format");
        assert_eq!(found, "invalid_value");
    }

    #[test]
    fn fields_that_are_missing_or_unknown_are_named() {
        use Endpoint::{Edits, Generations, Variations};
        let (missing, unknown) = ("missing_required_parameter", "unknown_parameter");
        let invalid = "invalid_value";
        let a = || json!({"prompt": "a"});
        let with = |name: &str, value: Value| {
            let mut values = a();
            values[name] = value;
            values
        };
        for (endpoint, values, files, param, expected) in [
            (Generations, json!({}), &[][..], "prompt", missing),
            (Generations, json!({"prompt": null}), &[], "prompt", missing),
            (
                Generations,
                with("model", json!("other")),
                &[],
                "model",
                "model_not_found",
            ),
            (
                Generations,
                with("strength", json!(0.5)),
                &[],
                "strength",
                unknown,
            ),
            (Generations, with("odd", json!(1)), &[], "odd", unknown),
            (Generations, a(), &["image"], "image", unknown),
            (Edits, a(), &[], "image", missing),
            (Edits, with("image", json!("x")), &[], "image", invalid),
            (Edits, a(), &["image[]", "image[]"], "image", invalid),
            (Edits, a(), &["image", "mask", "mask"], "mask", invalid),
            (
                Edits,
                with("strength", json!(1.5)),
                &["image"],
                "strength",
                invalid,
            ),
            (
                Edits,
                with("style", json!("vivid")),
                &["image"],
                "style",
                unknown,
            ),
            (Variations, a(), &["image"], "prompt", unknown),
            (Variations, json!({}), &["image", "mask"], "mask", unknown),
            (
                Variations,
                json!({"stream": true}),
                &["image"],
                "stream",
                unknown,
            ),
        ] {
            assert_eq!(code(endpoint, values, files, param), expected, "{param}");
        }
    }
}
