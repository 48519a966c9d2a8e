//! `preprocessor_config.json`, in its older and newer forms.

use super::{ClipImageProcessor, MAX_SIDE, MEAN, ResizeTo, STD};
use aigc_core::{Error, Result, checkpoint::write_atomic, data::Resampling, json, weights::Loaded};
use serde_json::{Map, Value};
use std::path::Path;

const CONFIG: &str = "preprocessor_config.json";

/// Fields without an effect on images in RGB.
const INERT: &[&str] = &[
    "_processor_class",
    "data_format",
    "device",
    "disable_grouping",
    "do_convert_rgb",
    "feature_extractor_type",
    "image_processor_type",
    "input_data_format",
    "processor_class",
    "return_tensors",
];

impl ClipImageProcessor {
    /// Opens the `preprocessor_config.json` of a directory.
    ///
    /// # Errors
    /// [`Error::Io`] if there is none; [`Error::Data`] naming the file and the field.
    pub fn from_pretrained(dir: impl AsRef<Path>) -> Result<Loaded<Self>> {
        json::read_file(&dir.as_ref().join(CONFIG), Self::from_json)
    }

    /// Reads the fields of a `preprocessor_config.json`; missing ones have defaults. The report
    /// lists unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Config`] names a field whose value is invalid or not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let mut fields = json::parse_object(text)?;
        fields.retain(|name, value| !value.is_null() && !INERT.contains(&name.as_str()));
        json::reject_unsupported(&mut fields, &[("do_pad", "false")])?;
        let default = Self::default();
        let mut step = |name: &str| match fields.remove(name) {
            None => Ok(true),
            Some(Value::Bool(wanted)) => Ok(wanted),
            Some(other) => Err(Error::config(name, other, "true or false")),
        };
        let [resize, crop, rescale, normalize] =
            ["do_resize", "do_center_crop", "do_rescale", "do_normalize"].map(&mut step);
        let (resize, crop, rescale, normalize) = (resize?, crop?, rescale?, normalize?);
        let size = match fields.remove("size") {
            None => ResizeTo::ShortestEdge(224),
            Some(value) => size(&value)?,
        };
        let crop_size = match fields.remove("crop_size") {
            None => [224; 2],
            Some(value) => square_or_sides("crop_size", &value)?,
        };
        let resample = match fields.remove("resample") {
            None => default.resample,
            Some(value) => value
                .as_u64()
                .and_then(Resampling::from_number)
                .ok_or_else(|| Error::config("resample", &value, "0 to 5, as in Pillow"))?,
        };
        let rescale_factor = match fields.remove("rescale_factor") {
            None => 1.0 / 255.0,
            Some(value) => number("rescale_factor", &value)?,
        };
        let mut channels = |name: &str, default: [f64; 3]| match fields.remove(name) {
            None => Ok(default),
            Some(value) => three(name, &value),
        };
        let mean = channels("image_mean", MEAN)?;
        let std = channels("image_std", STD)?;
        let processor = Self {
            size: resize.then_some(size),
            resample,
            crop_size: crop.then_some(crop_size),
            rescale_factor: rescale.then_some(rescale_factor),
            image_mean_std: normalize.then_some((mean, std)),
        };
        processor.validate()?;
        Ok(Loaded::new(processor).with_unused_fields(fields.keys().cloned().collect()))
    }

    /// Writes `preprocessor_config.json` to a directory, which is created if it is missing.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        write_atomic(&dir.join(CONFIG), self.to_json().as_bytes())
    }

    /// The text of a `preprocessor_config.json` that transformers reads.
    pub fn to_json(&self) -> String {
        let size = match self.size.unwrap_or(ResizeTo::ShortestEdge(224)) {
            ResizeTo::ShortestEdge(side) => serde_json::json!({ "shortest_edge": side }),
            ResizeTo::Exact([height, width]) => {
                serde_json::json!({ "height": height, "width": width })
            }
        };
        let [height, width] = self.crop_size.unwrap_or([224; 2]);
        let (mean, std) = self.image_mean_std.unwrap_or((MEAN, STD));
        let fields = serde_json::json!({
            "crop_size": { "height": height, "width": width },
            "do_center_crop": self.crop_size.is_some(),
            "do_convert_rgb": true,
            "do_normalize": self.image_mean_std.is_some(),
            "do_rescale": self.rescale_factor.is_some(),
            "do_resize": self.size.is_some(),
            "image_mean": mean,
            "image_processor_type": "CLIPImageProcessor",
            "image_std": std,
            "resample": self.resample.number(),
            "rescale_factor": self.rescale_factor.unwrap_or(1.0 / 255.0),
            "size": size,
        });
        serde_json::to_string_pretty(&fields).expect("plain values")
    }
}

fn side(field: &str, value: &Value) -> Result<usize> {
    let side = value.as_u64().and_then(|side| usize::try_from(side).ok());
    let expected = format!("1 to {MAX_SIDE} pixels");
    side.filter(|side| (1..=MAX_SIDE).contains(side))
        .ok_or_else(|| Error::config(field, value, expected))
}

/// `height` and `width` of an object, if it has both and nothing else.
fn sides(object: &Map<String, Value>) -> Option<[&Value; 2]> {
    let both = object.get("height").zip(object.get("width"));
    both.filter(|_| object.len() == 2)
        .map(|(height, width)| [height, width])
}

fn size(value: &Value) -> Result<ResizeTo> {
    let Value::Object(object) = value else {
        return Ok(ResizeTo::ShortestEdge(side("size", value)?));
    };
    let mut object = object.clone();
    object.retain(|_, value| !value.is_null());
    if let Some([height, width]) = sides(&object) {
        return Ok(ResizeTo::Exact([
            side("size", height)?,
            side("size", width)?,
        ]));
    }
    match object.get("shortest_edge") {
        Some(edge) if object.len() == 1 => Ok(ResizeTo::ShortestEdge(side("size", edge)?)),
        _ => Err(Error::config(
            "size",
            value,
            "shortest_edge, or height and width",
        )),
    }
}

fn square_or_sides(field: &str, value: &Value) -> Result<[usize; 2]> {
    match value.as_object() {
        None => Ok([side(field, value)?; 2]),
        Some(object) => match sides(object) {
            Some([height, width]) => Ok([side(field, height)?, side(field, width)?]),
            None => Err(Error::config(field, value, "height and width")),
        },
    }
}

fn number(field: &str, value: &Value) -> Result<f64> {
    let number = value.as_f64().filter(|number| number.is_finite());
    number.ok_or_else(|| Error::config(field, value, "a number"))
}

fn three(field: &str, value: &Value) -> Result<[f64; 3]> {
    let numbers: Option<Vec<f64>> = match value {
        Value::Array(values) => values.iter().map(Value::as_f64).collect(),
        // One number for all channels.
        other => other.as_f64().map(|number| vec![number; 3]),
    };
    numbers
        .and_then(|numbers| numbers.try_into().ok())
        .ok_or_else(|| Error::config(field, value, "three numbers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_and_newer_configurations_are_read() {
        let older = r#"{"crop_size": 224, "size": 224, "do_normalize": true, "resample": 3,
            "feature_extractor_type": "CLIPFeatureExtractor", "colour": 1}"#;
        let read = ClipImageProcessor::from_json(older).unwrap();
        assert_eq!(read.value, ClipImageProcessor::default());
        assert_eq!(read.unused_fields, ["colour"]);
        let processor = ClipImageProcessor {
            size: Some(ResizeTo::Exact([20, 30])),
            resample: Resampling::Lanczos,
            crop_size: None,
            ..ClipImageProcessor::square(28)
        };
        let read = ClipImageProcessor::from_json(&processor.to_json()).unwrap();
        assert_eq!((read.unused_fields.len(), read.value), (0, processor));
        let message = |json: &str| {
            let read = ClipImageProcessor::from_json(json);
            read.unwrap_err().to_string()
        };
        for (json, expected) in [
            (r#"{"size": {"longest_edge": 9}}"#, "`size` is"),
            (r#"{"crop_size": {"height": 9}}"#, "`crop_size` is"),
            (r#"{"size": 0}"#, "`size` is 0, expected 1 to 16384"),
            (r#"{"resample": 9}"#, "`resample` is 9"),
            (r#"{"image_std": [1, 0, 1]}"#, "`image_std` is 0"),
            (r#"{"image_mean": [1, 2]}"#, "`image_mean` is [1,2]"),
            (r#"{"do_pad": true}"#, "`do_pad` is true"),
        ] {
            assert!(message(json).contains(expected), "{}", message(json));
        }
    }
}
