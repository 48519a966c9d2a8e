//! The directory of a pipeline of sound or video, as diffusers writes it: `model_index.json`, and a
//! directory for each part.

use aigc_core::{DataFault, Error, Result, json, weights::Loaded};
use aigc_diffusion::AnyScheduler;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

pub(crate) const INDEX: &str = "model_index.json";

/// The contents of `model_index.json`.
#[derive(Debug)]
pub(crate) struct ModelIndex {
    dir: PathBuf,
    fields: Map<String, Value>,
}

impl ModelIndex {
    /// Reads the index of a pipeline of one of these classes.
    ///
    /// # Errors
    /// [`Error::Io`] for a missing file; [`Error::Data`] names file and field.
    pub(crate) fn open(dir: &Path, classes: &[&str]) -> Result<Self> {
        let index = Self {
            dir: dir.into(),
            fields: json::read_file(&dir.join(INDEX), json::parse_object)?,
        };
        let found = index.fields.get("_class_name").and_then(Value::as_str);
        let found = found.unwrap_or("missing");
        if !classes.contains(&found) {
            return Err(index.wrong("_class_name", found, &classes.join(" or ")));
        }
        Ok(index)
    }

    /// A setting of the pipeline, if it has one that is not null.
    pub(crate) fn setting(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// An error of the index.
    pub(crate) fn wrong(&self, field: &str, value: &str, expected: &str) -> Error {
        let reason = Error::config(field, value, expected).to_string();
        Error::data(self.dir.join(INDEX), DataFault::Mismatch(reason))
    }

    /// Directory and class of a part, if the pipeline has it.
    pub(crate) fn part(&self, name: &str) -> Option<(PathBuf, &str)> {
        let class = self.fields.get(name)?.get(1)?.as_str()?;
        Some((self.dir.join(name), class))
    }

    /// Directory and class of a part, which has to be of one of these classes.
    ///
    /// # Errors
    /// [`Error::Data`] names the part.
    pub(crate) fn needed(&self, name: &str, classes: &[&str]) -> Result<(PathBuf, &str)> {
        let expected = classes.join(" or ");
        match self.part(name) {
            Some((path, class)) if classes.contains(&class) => Ok((path, class)),
            Some((_, class)) => Err(self.wrong(name, class, &expected)),
            None => Err(self.wrong(name, "missing", &expected)),
        }
    }

    /// The scheduler, of the class that the index names.
    ///
    /// # Errors
    /// [`Error::Io`] for a missing file; [`Error::Data`] names file and field.
    pub(crate) fn scheduler(&self) -> Result<Loaded<AnyScheduler>> {
        let Some((dir, class)) = self.part("scheduler") else {
            return Err(self.wrong("scheduler", "missing", "a part of the pipeline"));
        };
        json::read_file(&dir.join("scheduler_config.json"), |text| {
            let mut fields = json::parse_object(text)?;
            fields.insert("_class_name".into(), class.into());
            AnyScheduler::from_json(&Value::Object(fields).to_string())
        })
    }

    /// Reports parts and settings of other names than `used`.
    pub(crate) fn unused(&self, used: &[&str]) -> Loaded<()> {
        let mut report = Loaded::new(());
        for (name, value) in &self.fields {
            // diffusers writes [null, null] for a part that a pipeline goes without.
            let is_empty = value.is_null() || *value == json!([null, null]);
            if name.starts_with('_') || used.contains(&name.as_str()) || is_empty {
                continue;
            }
            match self.part(name) {
                Some((_, class)) => report
                    .notes
                    .push(format!("{name} ({class}) was not opened")),
                None => report.unused_fields.push(format!("{INDEX}: {name}")),
            }
        }
        report
    }
}

/// The value of a part. Its report goes to that of the pipeline, with the name of the part.
pub(crate) fn merge<T>(report: &mut Loaded<()>, name: &str, mut part: Loaded<T>) -> T {
    for list in [
        &mut part.unused_fields,
        &mut part.unused_tensors,
        &mut part.notes,
    ] {
        list.iter_mut()
            .for_each(|text| *text = format!("{name}: {text}"));
    }
    report.merge(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_settings_that_are_not_used_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let fields = json!({
            "_class_name": "WanPipeline",
            "_diffusers_version": "0.42.1",
            "vae": ["diffusers", "AutoencoderKLWan"],
            "image_encoder": [null, null],
            "feature_extractor": ["transformers", "CLIPImageProcessor"],
            "boundary_ratio": null,
            "flavour": "salt",
        });
        std::fs::write(dir.path().join(INDEX), fields.to_string()).unwrap();
        let index = ModelIndex::open(dir.path(), &["WanPipeline"]).unwrap();
        let mut report = index.unused(&["vae"]);
        assert_eq!(
            report.notes,
            ["feature_extractor (CLIPImageProcessor) was not opened"]
        );
        assert_eq!(report.unused_fields, ["model_index.json: flavour"]);
        assert!(index.part("image_encoder").is_none());
        assert!(index.setting("boundary_ratio").is_none());
        assert_eq!(index.setting("flavour"), Some(&json!("salt")));
        let part = Loaded::new(3).with_unused_fields(vec!["colour".into()]);
        assert_eq!(merge(&mut report, "vae", part), 3);
        assert_eq!(report.unused_fields[1], "vae: colour");
        let message = index.scheduler().unwrap_err().to_string();
        assert!(message.contains("`scheduler` is missing"), "{message}");
    }
}
