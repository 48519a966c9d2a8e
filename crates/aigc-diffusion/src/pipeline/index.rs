//! The contents of `model_index.json`, and where the files of its components are.

use super::INDEX;
use crate::{
    json,
    models::{
        AnyDenoiser,
        any::{CONFIG, listing},
    },
    scheduler::AnyScheduler,
};
use aigc_core::{DataFault, Error, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The contents of `model_index.json`.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Name and class.
    pub(super) network: Option<(String, String)>,
    pub(super) scheduler: Option<String>,
    /// Name, library and class.
    pub(super) others: Vec<(String, String, String)>,
    pub(super) labels: Vec<String>,
    pub(super) unused: Vec<String>,
}

impl Index {
    /// The index of a pipeline's directory; a flat one may be without.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(INDEX);
        if !path.exists() && dir.join(CONFIG).exists() {
            return Ok(Self::default());
        }
        json::read_file(&path, Self::read)
    }

    fn read(text: &str) -> Result<Self> {
        let mut index = Self::default();
        for (name, value) in &json::parse_object(text)? {
            let part = |i: usize| value.get(i).and_then(Value::as_str).map(str::to_owned);
            match (name.as_str(), part(0), part(1)) {
                ("id2label", ..) => index.labels = read_labels(value)?,
                (name, ..) if name.starts_with('_') => {}
                ("scheduler", _, class) => {
                    index.scheduler = Some(known(name, value, class, AnyScheduler::CLASSES)?);
                }
                ("unet" | "transformer", _, class) => {
                    let class = known(name, value, class, AnyDenoiser::CLASSES)?;
                    index.network = Some((name.clone(), class));
                }
                (_, Some(library), Some(class)) => {
                    index.others.push((name.clone(), library, class));
                }
                // A component that the pipeline goes without.
                _ if *value == json!([null, null]) => {}
                _ => index.unused.push(name.clone()),
            }
        }
        if index.network.is_none() {
            return Err(Error::config("unet", "missing", "a unet or transformer"));
        }
        if index.scheduler.is_none() {
            return Err(Error::config("scheduler", "missing", "a scheduler"));
        }
        Ok(index)
    }
}

fn known(field: &str, value: &Value, class: Option<String>, classes: &[&str]) -> Result<String> {
    match class {
        Some(class) if classes.contains(&class.as_str()) => Ok(class),
        Some(class) => Err(Error::config(
            field,
            class,
            format!("one of {}", classes.join(", ")),
        )),
        None => Err(Error::config(field, value, "a library and a class")),
    }
}

/// Names by number, from 0 on.
fn read_labels(value: &Value) -> Result<Vec<String>> {
    let wrong = || Error::config("id2label", value, "a name for each number from 0 on");
    let Value::Object(named) = value else {
        return Err(wrong());
    };
    (0..named.len())
        .map(|class| {
            named
                .get(&class.to_string())
                .and_then(Value::as_str)
                .map(str::to_owned)
                .ok_or_else(wrong)
        })
        .collect()
}

/// The directories of a pipeline that may have a component's files, preferred ones first: its own,
/// that of its moving average, or the pipeline's.
pub(super) fn directories(name: &str) -> [String; 3] {
    [name.into(), format!("{name}_ema"), String::new()]
}

/// Where a component's files are.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) dir: PathBuf,
    pub(super) note: Option<String>,
}

/// The first of a component's [`directories`] that exists; the pipeline's only if it has `file`.
pub(super) fn find(dir: &Path, name: &str, file: &str) -> Result<Found> {
    let [own, averaged, _] = directories(name).map(|name| dir.join(name));
    if own.exists() {
        let note = averaged
            .exists()
            .then(|| format!("{name} was opened; {name}_ema beside it is not used"));
        return Ok(Found { dir: own, note });
    }
    if averaged.exists() {
        let note = Some(format!("{name}_ema was opened, there is no {name}"));
        return Ok(Found {
            dir: averaged,
            note,
        });
    }
    if dir.join(file).exists() {
        return Ok(Found {
            dir: dir.into(),
            note: None,
        });
    }
    let reason = format!("missing; the directory has {}", listing(dir));
    Err(Error::data(own, DataFault::Mismatch(reason)))
}
