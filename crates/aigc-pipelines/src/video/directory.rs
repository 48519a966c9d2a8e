//! A pipeline's directory, as diffusers writes it: `model_index.json` and a directory for each
//! part.

use aigc_core::{DataFault, Error, Result, json, weights::Loaded};
use aigc_diffusion::AnyScheduler;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

const INDEX: &str = "model_index.json";

/// `model_index.json`.
pub(super) struct Index {
    dir: PathBuf,
    pub(super) fields: Map<String, Value>,
}

impl Index {
    /// Reads the index of a pipeline of one of these classes.
    pub(super) fn open(dir: &Path, classes: &[&str]) -> Result<Self> {
        let fields = json::read_file(&dir.join(INDEX), json::parse_object)?;
        let index = Self {
            dir: dir.into(),
            fields,
        };
        let found = index.fields.get("_class_name").and_then(Value::as_str);
        let found = found.unwrap_or("missing");
        if !classes.contains(&found) {
            return Err(index.wrong("_class_name", found, &classes.join(" or ")));
        }
        Ok(index)
    }

    /// An error of the index.
    pub(super) fn wrong(&self, field: &str, value: &str, expected: &str) -> Error {
        let reason = Error::config(field, value, expected).to_string();
        Error::data(self.dir.join(INDEX), DataFault::Mismatch(reason))
    }

    /// Directory and class of a part, if the pipeline has it.
    pub(super) fn part(&self, name: &str) -> Option<(PathBuf, &str)> {
        let class = self.fields.get(name)?.get(1)?.as_str()?;
        Some((self.dir.join(name), class))
    }

    /// Directory and class of a part of one of these classes.
    pub(super) fn needed(&self, name: &str, classes: &[&str]) -> Result<(PathBuf, &str)> {
        let expected = classes.join(" or ");
        match self.part(name) {
            Some((path, class)) if classes.contains(&class) => Ok((path, class)),
            Some((_, class)) => Err(self.wrong(name, class, &expected)),
            None => Err(self.wrong(name, "missing", &expected)),
        }
    }

    /// The scheduler, of the class that the index names.
    pub(super) fn scheduler(&self) -> Result<Loaded<AnyScheduler>> {
        let Some((dir, class)) = self.part("scheduler") else {
            return Err(self.wrong("scheduler", "missing", "a part of the pipeline"));
        };
        json::read_file(&dir.join("scheduler_config.json"), |text| {
            let mut fields = json::parse_object(text)?;
            fields.insert("_class_name".into(), class.into());
            AnyScheduler::from_json(&Value::Object(fields).to_string())
        })
    }
}

/// The value of a part; its report goes to that of the pipeline.
pub(super) fn merge<T>(report: &mut Loaded<()>, name: &str, mut part: Loaded<T>) -> T {
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
