//! A pipeline's directory: `model_index.json`, and the directories of its parts.

use aigc_core::{DataFault, Error, Result, json, weights::Loaded};
use aigc_diffusion::AnyScheduler;
use serde_json::Value;
use std::path::{Path, PathBuf};

const INDEX: &str = "model_index.json";

/// Names and classes of parts.
#[derive(Debug)]
pub(super) struct Index {
    dir: PathBuf,
    class: &'static str,
    parts: Vec<(String, String)>,
    /// Parts and settings that are not used.
    pub(super) report: Loaded<()>,
}

impl Index {
    /// The index of a pipeline of this class, with parts of these names.
    ///
    /// # Errors
    /// [`Error::Io`] for a missing file; [`Error::Data`] names file and field.
    pub(super) fn open(dir: &Path, class: &'static str, known: &[&str]) -> Result<Self> {
        json::read_file(&dir.join(INDEX), |text| {
            let fields = json::parse_object(text)?;
            match fields.get("_class_name") {
                Some(name) if *name == class => {}
                Some(other) => return Err(Error::config("_class_name", other, class)),
                None => return Err(Error::config("_class_name", "missing", class)),
            }
            let (mut parts, mut report) = (vec![], Loaded::new(()));
            for (name, value) in fields.iter().filter(|(name, _)| !name.starts_with('_')) {
                match value.get(1).and_then(Value::as_str) {
                    Some(class) if known.contains(&name.as_str()) => {
                        parts.push((name.clone(), class.to_owned()));
                    }
                    Some(class) => report
                        .notes
                        .push(format!("{name} ({class}) was not opened")),
                    None => report.unused_fields.push(format!("{INDEX}: {name}")),
                }
            }
            Ok(Self {
                dir: dir.into(),
                class,
                parts,
                report,
            })
        })
    }

    /// The directory of a part, which has to be of one of these classes.
    ///
    /// # Errors
    /// [`Error::Data`] names the part.
    pub(super) fn part(&self, name: &str, classes: &[&str]) -> Result<PathBuf> {
        let class = self.class_of(name)?;
        if classes.contains(&class) {
            return Ok(self.dir.join(name));
        }
        let reason = Error::config(name, class, classes.join(" or "));
        Err(self.fault(reason.to_string()))
    }

    fn class_of(&self, name: &str) -> Result<&str> {
        let found = self.parts.iter().find(|(part, _)| part == name);
        let missing = || format!("has no `{name}`, which a {} needs", self.class);
        found
            .map(|(_, class)| class.as_str())
            .ok_or_else(|| self.fault(missing()))
    }

    fn fault(&self, reason: String) -> Error {
        Error::data(self.dir.join(INDEX), DataFault::Mismatch(reason))
    }

    /// The scheduler, of the class that the index names.
    ///
    /// # Errors
    /// [`Error::Io`] for a missing file; [`Error::Data`] names file and field.
    pub(super) fn scheduler(&self) -> Result<Loaded<AnyScheduler>> {
        let class = self.class_of("scheduler")?;
        let path = self.dir.join("scheduler").join("scheduler_config.json");
        let mut loaded = json::read_file(&path, |text| {
            let mut fields = json::parse_object(text)?;
            fields.insert("_class_name".into(), class.into());
            AnyScheduler::from_json(&Value::Object(fields).to_string())
        })?;
        for field in &mut loaded.unused_fields {
            *field = format!("scheduler: {field}");
        }
        Ok(loaded)
    }
}
