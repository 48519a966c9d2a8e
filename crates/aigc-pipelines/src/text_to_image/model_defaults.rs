//! Defaults of a model itself, for requests and options that leave a value open. diffusers has
//! them in the code of each pipeline alone, and leaves out fields of an index that begin with `_`:
//! so a directory that has them opens there as well.

use super::options::PipelineOptions;
use aigc_core::{Error, Result};
use serde_json::{Map, Value};

const GUIDANCE_SCALE: &str = "_default_guidance_scale";
const NUM_INFERENCE_STEPS: &str = "_default_num_inference_steps";

/// Defaults that precede those of the family.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ModelDefaults {
    pub(crate) guidance_scale: Option<f64>,
    pub(crate) num_inference_steps: Option<usize>,
}

impl ModelDefaults {
    /// Those of the fields of a `model_index.json`.
    ///
    /// # Errors
    /// [`Error::Config`] names the field.
    pub(crate) fn of_index(fields: &Map<String, Value>) -> Result<Self> {
        let given = |name: &str| fields.get(name).filter(|value| !value.is_null());
        let guidance_scale = given(GUIDANCE_SCALE).map(|value| {
            let scale = value.as_f64().filter(|scale| *scale >= 0.0);
            scale.ok_or_else(|| Error::config(GUIDANCE_SCALE, value, "a number, 0 or above"))
        });
        let num_inference_steps = given(NUM_INFERENCE_STEPS).map(|value| {
            let steps = value.as_u64().and_then(|steps| usize::try_from(steps).ok());
            let expected = "a whole number, 1 or above";
            let steps = steps.filter(|steps| *steps > 0);
            steps.ok_or_else(|| Error::config(NUM_INFERENCE_STEPS, value, expected))
        });
        Ok(Self {
            guidance_scale: guidance_scale.transpose()?,
            num_inference_steps: num_inference_steps.transpose()?,
        })
    }

    /// Those of options.
    pub(crate) fn of_options(options: &PipelineOptions) -> Self {
        Self {
            guidance_scale: options.guidance_scale,
            num_inference_steps: options.num_inference_steps,
        }
    }

    /// These, and `others` for what is open.
    pub(crate) fn or(self, others: Self) -> Self {
        Self {
            guidance_scale: self.guidance_scale.or(others.guidance_scale),
            num_inference_steps: self.num_inference_steps.or(others.num_inference_steps),
        }
    }

    /// Adds them to the fields of a `model_index.json`.
    ///
    /// # Errors
    /// [`Error::Config`] for values that could not be opened again.
    pub(crate) fn write(self, fields: &mut Map<String, Value>) -> Result<()> {
        if let Some(scale) = self.guidance_scale {
            if !scale.is_finite() {
                let expected = "a finite number, 0 or above";
                return Err(Error::config("guidance_scale", scale, expected));
            }
            fields.insert(GUIDANCE_SCALE.into(), scale.into());
        }
        if let Some(steps) = self.num_inference_steps {
            fields.insert(NUM_INFERENCE_STEPS.into(), steps.into());
        }
        Self::of_index(fields).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(index: Value) -> Result<ModelDefaults> {
        ModelDefaults::of_index(index.as_object().expect("an object"))
    }

    #[test]
    fn defaults_are_written_as_they_are_read() {
        let all = ModelDefaults {
            guidance_scale: Some(2.5),
            num_inference_steps: Some(12),
        };
        for defaults in [all, ModelDefaults::default()] {
            let mut fields = Map::new();
            defaults.write(&mut fields).unwrap();
            assert_eq!(ModelDefaults::of_index(&fields).unwrap(), defaults);
        }
        let open =
            of(json!({ "_default_guidance_scale": null, "_default_num_inference_steps": 4 }));
        let expected = ModelDefaults {
            num_inference_steps: Some(4),
            ..ModelDefaults::default()
        };
        assert_eq!(open.unwrap(), expected);
        assert_eq!(expected.or(all).num_inference_steps, Some(4));
        assert_eq!(expected.or(all).guidance_scale, Some(2.5));
    }

    #[test]
    fn bad_defaults_name_their_field() {
        for (field, value) in [
            ("_default_guidance_scale", json!("high")),
            ("_default_guidance_scale", json!(-1.0)),
            ("_default_num_inference_steps", json!(0)),
            ("_default_num_inference_steps", json!(2.5)),
            ("_default_num_inference_steps", json!([20])),
        ] {
            let mut fields = Map::new();
            fields.insert(field.into(), value.clone());
            let message = of(Value::Object(fields)).unwrap_err().to_string();
            assert!(message.contains(field), "{value}: {message}");
        }
        let bad = ModelDefaults {
            guidance_scale: Some(f64::NAN),
            num_inference_steps: None,
        };
        let message = bad.write(&mut Map::new()).unwrap_err().to_string();
        assert!(message.contains("`guidance_scale` is NaN"), "{message}");
    }
}
