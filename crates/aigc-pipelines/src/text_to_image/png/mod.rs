//! Settings inside PNG files: an image carries what is needed to make it again.
//!
//! Two texts are written: `aigc`, a JSON object with all settings, and `parameters`, the text that
//! Stable Diffusion's web interface writes and that other programs show. Either is read. A third,
//! `aigc-provenance`, is the record that
//! [`verify_file`](aigc_core::output::provenance::verify_file) checks.

mod parameters;

use aigc_core::{
    DataFault, Error, Result,
    fs::{read_at_most, write_atomic},
    output::provenance::{
        Provenance, embed,
        png::{insert_texts, read_texts},
    },
    text_to_image::{GeneratedImage, GeneratedImages, ImageRequest, ImageSize},
};
use image::{ImageFormat, codecs::png::PngEncoder};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// Keywords of the texts.
const SETTINGS: &str = "aigc";
const PARAMETERS: &str = "parameters";

/// Limit on the size of a file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 30;

/// How an image was made.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ImageSettings {
    /// The request that makes this image alone. The images that it started from are not part of
    /// the file; [`missing_inputs`](Self::missing_inputs) names them.
    pub request: ImageRequest,
    /// Name of the model.
    pub model: String,
    /// Hash of its weights.
    pub model_hash: Option<String>,
    /// Which of the images of the request it is, from 0 on: the only one, unless the image cannot
    /// be made alone.
    pub position: usize,
    /// Further settings by name; [`options_of`](super::TextToImagePipeline::options_of) makes
    /// options of them.
    pub settings: Vec<(String, String)>,
    /// What has to be given again, because the file does not have it: fields of the request that
    /// hold images, `embeddings`, images of ControlNets (`control_images`), another `vae`.
    pub missing_inputs: Vec<String>,
}

/// The form of the JSON text.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Stored {
    prompt: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    negative_prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<ImageSize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    /// Number of images, where none of them can be made alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guidance_scale: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_inference_steps: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strength: Option<f64>,
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_hash: Option<String>,
    settings: Vec<(String, String)>,
    inputs: Vec<String>,
}

/// Settings that stand for what a file cannot have.
const GIVEN: [&str; 3] = ["embeddings", "control_images", "vae"];

impl Stored {
    fn new(result: &GeneratedImages, image: &GeneratedImage) -> Self {
        let request = &result.request;
        // The image's own settings come before those of the request.
        let mut settings = image.settings.clone();
        let own = |name: &str| image.settings.iter().any(|(own, _)| own == name);
        let shared = result.settings.iter().filter(|(name, _)| !own(name));
        settings.extend(shared.cloned());
        let mut take = |name: &str| {
            let found = settings.iter().position(|(other, _)| other == name);
            found.map(|at| settings.remove(at).1)
        };
        let prompt = take("prompt").unwrap_or_else(|| request.prompt.clone());
        let negative = take("negative_prompt").or(request.negative_prompt.clone());
        let inputs = [
            ("image", request.image.is_some()),
            ("mask_image", request.mask_image.is_some()),
            ("control_image", request.control_image.is_some()),
        ];
        let images = inputs.into_iter().filter(|(_, given)| *given);
        let images = images.map(|(name, _)| name.to_owned());
        let given = GIVEN
            .into_iter()
            .filter_map(|name| take(name).map(|_| name.to_owned()));
        let inputs = images.chain(given).collect();
        let is_shared = settings
            .iter()
            .any(|(name, value)| name == "noise_source" && value == "torch_batch");
        Self {
            prompt,
            negative_prompt: negative,
            size: request.size,
            seed: request.seed,
            index: Some(image.index),
            n: request.n.filter(|_| is_shared),
            guidance_scale: request.guidance_scale,
            num_inference_steps: request.num_inference_steps,
            strength: request.strength,
            model: result.model.clone(),
            model_hash: result.model_hash.clone(),
            settings,
            inputs,
        }
    }

    fn provenance(&self) -> Provenance {
        const GENERATOR: &str = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
        let mut provenance = Provenance::new(&self.model)
            .with_generator(GENERATOR)
            .with_prompt(&self.prompt);
        provenance.model_hash = self.model_hash.clone();
        provenance.seed = self.seed;
        provenance.index = self.index.map(|index| index as u64);
        let fields = [
            (
                "negative_prompt",
                self.negative_prompt.clone().map(Value::from),
            ),
            ("size", self.size.map(|size| size.to_string().into())),
            ("n", self.n.map(Value::from)),
            ("guidance_scale", self.guidance_scale.map(Value::from)),
            (
                "num_inference_steps",
                self.num_inference_steps.map(Value::from),
            ),
            ("strength", self.strength.map(Value::from)),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                provenance = provenance.with_setting(name, value);
            }
        }
        for (name, value) in &self.settings {
            provenance = provenance.with_setting(name, value.as_str());
        }
        if !self.inputs.is_empty() {
            provenance = provenance.with_setting("inputs", self.inputs.clone());
        }
        provenance
    }

    fn into_settings(self) -> ImageSettings {
        let index = self.index.unwrap_or(0);
        let mut request = ImageRequest::new(self.prompt);
        request.negative_prompt = self.negative_prompt;
        let (n, first, position) = match self.n {
            Some(n) => (n, 0, index),
            None => (1, index, 0),
        };
        request.n = Some(n);
        request.size = self.size;
        request.seed = self.seed;
        request.first_image = Some(first).filter(|first| *first > 0);
        request.guidance_scale = self.guidance_scale;
        request.num_inference_steps = self.num_inference_steps;
        request.strength = self.strength;
        ImageSettings {
            request,
            model: self.model,
            model_hash: self.model_hash,
            position,
            settings: self.settings,
            missing_inputs: self.inputs,
        }
    }
}

/// An image of a result as the bytes of a PNG file with its settings and a record of provenance.
///
/// # Errors
/// [`Error::Other`] if the image cannot be encoded, [`Error::InvalidArgument`] if its settings have
/// more than 4 MiB.
pub fn encode_png(result: &GeneratedImages, image: &GeneratedImage) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    image
        .image
        .write_with_encoder(PngEncoder::new(&mut bytes))
        .map_err(Error::other)?;
    let stored = Stored::new(result, image);
    let json = serde_json::to_string(&stored).expect("plain values");
    let parameters = parameters::write(&stored);
    insert_texts(&mut bytes, &[(PARAMETERS, &parameters), (SETTINGS, &json)])?;
    embed(&bytes, &stored.provenance())
}

/// Writes an image of a result to a PNG file with its settings and a record of provenance.
///
/// # Errors
/// As for [`encode_png`]; [`Error::Io`] if the file cannot be written.
pub fn save_png(
    result: &GeneratedImages,
    image: &GeneratedImage,
    path: impl AsRef<Path>,
) -> Result<()> {
    write_atomic(path.as_ref(), &encode_png(result, image)?)
}

/// Reads the settings of a PNG file, those of the web interface too.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Data`] if it is no PNG file, is truncated,
/// larger than 1 GiB, or has no settings.
pub fn read_png_settings(path: impl AsRef<Path>) -> Result<ImageSettings> {
    let path = path.as_ref();
    let bytes = read_at_most(path, MAX_BYTES)?;
    decode_png_settings(&bytes).map_err(|fault| Error::data(path, fault))
}

/// The settings in the bytes of a PNG file.
///
/// # Errors
/// The fault of the file.
pub fn decode_png_settings(bytes: &[u8]) -> Result<ImageSettings, DataFault> {
    if image::guess_format(bytes).ok() != Some(ImageFormat::Png) {
        return Err(DataFault::BadHeader("not a PNG file".into()));
    }
    let texts = read_texts(bytes, &[SETTINGS, PARAMETERS])?;
    let text = |keyword: &str| texts.iter().find(|(name, _)| name == keyword);
    if let Some((_, json)) = text(SETTINGS) {
        let stored: Stored =
            serde_json::from_str(json).map_err(|error| DataFault::Decode(error.to_string()))?;
        return Ok(stored.into_settings());
    }
    match text(PARAMETERS) {
        Some((_, text)) => Ok(parameters::read(text).into_settings()),
        None => {
            let reason = "the file has no settings (texts `aigc` or `parameters`)";
            Err(DataFault::Empty(reason.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_core::output::provenance::{Verification, verify};
    use image::{DynamicImage, RgbImage};

    fn result() -> GeneratedImages {
        let request = ImageRequest::new("a 猫, by day\nand night: (x:1.2)")
            .with_negative_prompt("blurry, \"low\" quality")
            .with_n(3)
            .with_size(16, 8)
            .with_seed(u64::MAX)
            .with_guidance_scale(7.25)
            .with_num_inference_steps(20)
            .with_image(DynamicImage::new_rgb8(16, 8), Some(0.1 + 0.2));
        let image = DynamicImage::ImageRgb8(RgbImage::from_fn(16, 8, |x, y| {
            image::Rgb([x as u8 * 16, y as u8 * 32, 7])
        }));
        let mut result =
            GeneratedImages::new(vec![GeneratedImage::new(image, 2)], request, "tiny-sd");
        result.model_hash = Some("ab12".into());
        result.settings = vec![("scheduler".into(), "DDIMScheduler".into())];
        result
    }

    #[test]
    fn settings_round_trip_through_png() {
        let result = result();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image.png");
        save_png(&result, &result.images[0], &path).unwrap();
        // The picture is as it was.
        let read = image::open(&path).unwrap();
        assert_eq!(read.to_rgb8(), result.images[0].image.to_rgb8());
        let settings = read_png_settings(&path).unwrap();
        let mut expected = result.request.clone();
        (expected.n, expected.first_image, expected.image) = (Some(1), Some(2), None);
        assert_eq!(settings.request, expected);
        assert_eq!(settings.missing_inputs, ["image"]);
        assert_eq!(settings.model_hash.as_deref(), Some("ab12"));
        assert_eq!(settings.settings, result.settings);
        assert_eq!(settings.position, 0);
    }

    #[test]
    fn images_have_a_record_of_provenance() {
        let result = result();
        let mut bytes = encode_png(&result, &result.images[0]).unwrap();
        let found = verify(&bytes).unwrap();
        let provenance = found.valid().unwrap();
        assert!(provenance.generator.starts_with("aigc-pipelines "));
        assert_eq!(
            (&*provenance.model, provenance.model_hash.as_deref()),
            ("tiny-sd", Some("ab12"))
        );
        assert_eq!(
            (provenance.seed, provenance.index),
            (Some(u64::MAX), Some(2))
        );
        assert_eq!(provenance.prompt.as_ref(), Some(&result.request.prompt));
        assert_eq!(provenance.settings["scheduler"], "DDIMScheduler");
        assert_eq!(provenance.settings["guidance_scale"], 7.25);
        // The last byte of the picture's data, before their checksum and the last chunk.
        let at = bytes.len() - 17;
        bytes[at] ^= 1;
        assert!(matches!(verify(&bytes).unwrap(), Verification::Damaged(_)));
    }

    /// Of several prompts, an image has its own; with one generator for all, all are made again.
    #[test]
    fn settings_of_an_image_replace_those_of_the_request() {
        let mut result = result();
        result.images[0].settings = vec![
            ("prompt".into(), "its own".into()),
            ("prompt_2".into(), "second".into()),
        ];
        result.settings = vec![
            ("prompt_2".into(), "first".into()),
            ("noise_source".into(), "torch_batch".into()),
            ("vae".into(), "given".into()),
        ];
        let bytes = encode_png(&result, &result.images[0]).unwrap();
        let settings = decode_png_settings(&bytes).unwrap();
        assert_eq!(settings.request.prompt, "its own");
        assert_eq!(
            settings.request.negative_prompt,
            result.request.negative_prompt
        );
        assert_eq!((settings.request.n, settings.position), (Some(3), 2));
        assert_eq!(settings.request.first_image, None);
        assert_eq!(settings.settings[0], ("prompt_2".into(), "second".into()));
        assert_eq!(settings.settings.len(), 2);
        assert_eq!(settings.missing_inputs, ["image", "vae"]);
    }

    #[test]
    fn texts_of_the_web_interface_are_read() {
        let result = result();
        let mut bytes = vec![];
        let encoder = PngEncoder::new(&mut bytes);
        result.images[0].image.write_with_encoder(encoder).unwrap();
        let message = decode_png_settings(&bytes).unwrap_err().to_string();
        assert!(message.contains("no settings"), "{message}");
        let text = parameters::write(&Stored::new(&result, &result.images[0]));
        insert_texts(&mut bytes, &[(PARAMETERS, &text)]).unwrap();
        let settings = decode_png_settings(&bytes).unwrap();
        let request = settings.request;
        assert_eq!(request.prompt, result.request.prompt);
        assert_eq!(request.negative_prompt, result.request.negative_prompt);
        assert_eq!(request.size, result.request.size);
        assert_eq!(request.seed, Some(u64::MAX));
        assert_eq!(request.num_inference_steps, Some(20));
        assert_eq!(settings.model, "tiny-sd");
    }

    #[test]
    fn broken_files_are_errors() {
        let result = result();
        let bytes = encode_png(&result, &result.images[0]).unwrap();
        for length in [0, 7, 8, 20, 40, 60] {
            assert!(decode_png_settings(&bytes[..length]).is_err(), "{length}");
        }
        // A chunk that claims to be longer than the file.
        let mut lying = bytes.clone();
        lying[33..37].copy_from_slice(&u32::MAX.to_be_bytes());
        let message = decode_png_settings(&lying).unwrap_err().to_string();
        assert!(message.contains("truncated"), "{message}");
        assert!(decode_png_settings(b"\xff\xd8\xff\xe0").is_err());
    }
}
