//! The choice of files in a directory of weights.

use super::WeightReader;
use crate::{Error, Result};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// File extensions of weights, preferred ones first. All but the first are pickles.
const ENDINGS: [&str; 5] = ["safetensors", "bin", "pt", "pth", "ckpt"];

impl WeightReader {
    /// Opens the weights of a directory for the first of `stems` that has any: `STEM.safetensors`,
    /// its shards with or without their index, or the same for pickles (`.bin`, `.pt`, `.pth`,
    /// `.ckpt`). If there are only weights of one variant (`STEM.fp16.safetensors`), they are
    /// opened, and a [note](Self::notes) names the variant.
    ///
    /// # Errors
    /// [`Error::Weights`] if there are no weights, only some of the shards, only several variants,
    /// or broken files.
    pub fn from_dir(dir: &Path, stems: &[&str]) -> Result<Self> {
        Self::from_dir_with_variant(dir, stems, None)
    }

    /// [`from_dir`](Self::from_dir) for a variant: `Some("fp16")` opens `STEM.fp16.safetensors` and
    /// so on. `None` opens what [`from_dir`](Self::from_dir) opens.
    ///
    /// # Errors
    /// As [`from_dir`](Self::from_dir); if the variant is missing, the [`Error::Weights`] lists the
    /// existing files.
    pub fn from_dir_with_variant(
        dir: &Path,
        stems: &[&str],
        variant: Option<&str>,
    ) -> Result<Self> {
        let entries = std::fs::read_dir(dir).map_err(Error::io(dir))?;
        let mut files: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        files.sort();
        // Preferred ones first.
        let groups: Vec<Vec<Candidate>> = ENDINGS
            .iter()
            .flat_map(|ending| stems.iter().map(move |stem| (stem, ending)))
            .map(|(stem, ending)| {
                let files = files.iter();
                files
                    .filter_map(|file| Candidate::parse(file, stem, ending))
                    .collect()
            })
            .collect();
        // Without a variant, whole weights of any ending come before those of a variant.
        let mut chosen = variant;
        let holds = |group: &&Vec<Candidate>, name: Option<&str>| {
            group.iter().any(|c| c.variant.as_deref() == name)
        };
        if variant.is_none() && !groups.iter().any(|group| holds(&group, None)) {
            let all = groups.iter().flatten();
            let variants: BTreeSet<&str> = all.filter_map(|c| c.variant.as_deref()).collect();
            if variants.len() > 1 {
                let names: Vec<&str> = variants.into_iter().collect();
                let reason = format!(
                    "holds the variants {}; choose one with `from_pretrained_with_variant`, \
                     `load_pretrained_with` or `WeightReader::from_dir_with_variant`",
                    names.join(", ")
                );
                return Err(Error::weights(dir, reason));
            }
            chosen = variants.first().copied();
        }
        if let Some(group) = groups.iter().find(|group| holds(group, chosen)) {
            let group: Vec<&Candidate> = group
                .iter()
                .filter(|c| c.variant.as_deref() == chosen)
                .collect();
            let mut reader = Self::open_candidates(dir, &group)?;
            if let (Some(only), None) = (chosen, variant) {
                reader.notes.push(format!(
                    "{}: the variant {only} is the only one there",
                    dir.display()
                ));
            }
            return Ok(reader);
        }
        let named: Vec<String> = stems
            .iter()
            .map(|stem| format!("{stem}.safetensors"))
            .collect();
        let variant = variant
            .map(|variant| format!(" of the variant {variant}"))
            .unwrap_or_default();
        let found = if files.is_empty() {
            "nothing".into()
        } else {
            files.join(", ")
        };
        let reason = format!(
            "no weights{variant} ({}, shards or .bin); the directory holds {found}",
            named.join(", ")
        );
        Err(Error::weights(dir, reason))
    }

    /// Opens a single file, else an index, else all shards.
    fn open_candidates(dir: &Path, candidates: &[&Candidate]) -> Result<Self> {
        for kind in [Kind::Whole, Kind::Index] {
            if let Some(candidate) = candidates.iter().find(|c| c.kind == kind) {
                return Self::open(&dir.join(&candidate.file));
            }
        }
        let of = candidates.iter().filter_map(|c| {
            if let Kind::Shard(_, of) = c.kind {
                Some(of)
            } else {
                None
            }
        });
        let of = of.max().unwrap_or(0);
        let here: BTreeSet<u32> = candidates
            .iter()
            .filter_map(|c| match c.kind {
                Kind::Shard(i, n) if n == of => Some(i),
                _ => None,
            })
            .collect();
        let absent: Vec<String> = (1..=of)
            .filter(|i| !here.contains(i))
            .take(16)
            .map(|i| format!("{i} of {of}"))
            .collect();
        if !absent.is_empty() {
            return Err(Error::weights(
                dir,
                format!("shards are missing: {}", absent.join(", ")),
            ));
        }
        let mut all = Self::empty(dir);
        for candidate in candidates
            .iter()
            .filter(|c| matches!(c.kind, Kind::Shard(_, n) if n == of))
        {
            all.add(&dir.join(&candidate.file))?;
        }
        Ok(all)
    }
}

/// A file in a directory that may hold weights.
struct Candidate {
    file: String,
    variant: Option<String>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Whole,
    Index,
    /// Number of the shard, and number of all shards.
    Shard(u32, u32),
}

impl Candidate {
    /// `STEM[.VARIANT].ENDING`, `STEM.ENDING.index[.VARIANT].json` (in older versions of diffusers
    /// `STEM.ENDING[.VARIANT].index.json`) or `STEM[.VARIANT]-00001-of-00005[.VARIANT].ENDING`.
    fn parse(file: &str, stem: &str, ending: &str) -> Option<Self> {
        let rest = file.strip_prefix(stem)?;
        let variant = |name: &str| -> Option<Option<String>> {
            match name.strip_prefix('.') {
                Some(variant) if !variant.is_empty() && !variant.contains('.') => {
                    Some(Some(variant.into()))
                }
                None if name.is_empty() => Some(None),
                _ => None,
            }
        };
        if let Some(middle) = rest
            .strip_prefix(&format!(".{ending}"))
            .and_then(|r| r.strip_suffix(".json"))
        {
            let middle = middle
                .strip_prefix(".index")
                .or_else(|| middle.strip_suffix(".index"))?;
            return Some(Self {
                file: file.into(),
                variant: variant(middle)?,
                kind: Kind::Index,
            });
        }
        let middle = rest.strip_suffix(&format!(".{ending}"))?;
        let Some((before, shard)) = middle.split_once('-') else {
            return Some(Self {
                file: file.into(),
                variant: variant(middle)?,
                kind: Kind::Whole,
            });
        };
        let (number, of) = shard.split_once("-of-")?;
        let (of, after) = of.split_at(of.find('.').unwrap_or(of.len()));
        let kind = Kind::Shard(number.parse().ok()?, of.parse().ok()?);
        Some(Self {
            file: file.into(),
            variant: variant(before)?.or(variant(after)?),
            kind,
        })
    }
}

/// Names of whole weights and of indices of shards, in the order in which
/// [`WeightReader::from_dir`] prefers them. Of the pickles, only `.bin` is published.
#[cfg(feature = "download")]
pub(crate) fn weight_files(stems: &[&str], variant: Option<&str>) -> Vec<String> {
    let variant = variant.map(|name| format!(".{name}")).unwrap_or_default();
    let mut names = vec![];
    for ending in &ENDINGS[..2] {
        for stem in stems {
            names.push(format!("{stem}{variant}.{ending}"));
            names.push(format!("{stem}.{ending}.index{variant}.json"));
            if !variant.is_empty() {
                names.push(format!("{stem}.{ending}{variant}.index.json"));
            }
        }
    }
    names
}

/// The files named by an index of shards, which must be in its directory.
///
/// # Errors
/// [`Error::Weights`] if the file is not an index, or names a file outside its directory;
/// [`Error::Io`] if it cannot be read.
pub fn shard_files(index: &Path) -> Result<Vec<PathBuf>> {
    let wrong = |reason: String| Error::weights(index, reason);
    let text = crate::fs::read_text(index)?;
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let map = json["weight_map"]
        .as_object()
        .ok_or_else(|| wrong("no weight_map".into()))?;
    let names: BTreeSet<&str> = map.values().filter_map(|name| name.as_str()).collect();
    let dir = index.parent().unwrap_or(Path::new(""));
    let path = |name: &str| match Path::new(name).file_name() {
        Some(plain) if plain == name => Ok(dir.join(name)),
        _ => Err(wrong(format!("names {name:?}, which is no file beside it"))),
    };
    names.into_iter().map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A safetensors file with one tensor of this name.
    fn one_tensor(path: &Path, name: &str) {
        let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
        let bytes = [
            &(header.len() as u64).to_le_bytes()[..],
            header.as_bytes(),
            &1f32.to_le_bytes(),
        ]
        .concat();
        std::fs::write(path, bytes).unwrap();
    }

    /// Every name of a weight file that is requested from the hub is one that `from_dir` opens.
    #[cfg(feature = "download")]
    #[test]
    fn weight_files_are_candidates_in_order() {
        assert_eq!(
            weight_files(&["model"], None),
            [
                "model.safetensors",
                "model.safetensors.index.json",
                "model.bin",
                "model.bin.index.json",
            ]
        );
        assert_eq!(
            weight_files(&["model"], Some("fp16"))[..3],
            [
                "model.fp16.safetensors",
                "model.safetensors.index.fp16.json",
                "model.safetensors.fp16.index.json",
            ]
        );
        for variant in [None, Some("fp16")] {
            for name in weight_files(&["model"], variant) {
                let found = ENDINGS
                    .iter()
                    .find_map(|ending| Candidate::parse(&name, "model", ending));
                let found = found.expect("a candidate");
                assert_eq!(found.variant.as_deref(), variant, "{name}");
                assert_eq!(found.kind == Kind::Index, name.ends_with(".json"), "{name}");
            }
        }
    }

    #[test]
    fn directories_open_by_stem_shards_and_variant() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let open = || WeightReader::from_dir(dir.path(), &["model", "pytorch_model"]);
        let names = || open().unwrap().names().collect::<Vec<_>>().join(" ");
        let error = |reader: Result<WeightReader>| reader.unwrap_err().to_string();
        assert!(error(open()).contains("the directory holds nothing"));
        one_tensor(&at("other.safetensors"), "other");
        assert!(error(open()).contains("the directory holds other.safetensors"));
        one_tensor(&at("pytorch_model-00001-of-00002.safetensors"), "first");
        assert!(error(open()).contains("shards are missing: 2 of 2"));
        one_tensor(&at("pytorch_model-00002-of-00002.safetensors"), "second");
        assert_eq!(names(), "first second");
        // Whole weights come before a variant, whatever their stem and ending.
        one_tensor(&at("model.fp16.safetensors"), "half");
        assert_eq!(names(), "first second");
        for i in 1..3 {
            let shard = |ending: &str| at(&format!("pytorch_model-0000{i}-of-00002.{ending}"));
            std::fs::rename(shard("safetensors"), shard("bin")).unwrap();
        }
        assert_eq!(names(), "first second");
        assert!(open().unwrap().notes().is_empty());
        for i in 1..3 {
            std::fs::remove_file(at(&format!("pytorch_model-0000{i}-of-00002.bin"))).unwrap();
        }
        assert_eq!(names(), "half");
        assert!(open().unwrap().notes()[0].contains("the variant fp16 is the only one there"));
        one_tensor(&at("pytorch_model.fp16.bin"), "same variant");
        assert_eq!(names(), "half");
        one_tensor(&at("model.bf16.safetensors"), "brain");
        let several = error(open());
        assert!(
            several.contains("the variants bf16, fp16; choose one"),
            "{several}"
        );
        assert!(several.contains("from_dir_with_variant"), "{several}");
        let of_variant =
            |name| WeightReader::from_dir_with_variant(dir.path(), &["model"], Some(name));
        let bf16 = of_variant("bf16").unwrap();
        assert_eq!(
            (bf16.names().collect::<Vec<_>>(), bf16.notes().len()),
            (vec!["brain"], 0)
        );
        assert!(error(of_variant("fp8")).contains("variant fp8"));
        // Both names of the index of a variant.
        for (variant, index) in [
            ("new", "model.safetensors.index.new.json"),
            ("old", "model.safetensors.old.index.json"),
        ] {
            one_tensor(&at(&format!("{variant} shard")), variant);
            let text = format!(r#"{{"weight_map": {{"{variant}": "{variant} shard"}}}}"#);
            std::fs::write(at(index), text).unwrap();
            let reader = of_variant(variant).unwrap();
            assert_eq!(reader.names().collect::<Vec<_>>(), [variant]);
        }
        one_tensor(&at("model.safetensors"), "full");
        assert_eq!(names(), "full");
        let absent = at("absent");
        assert!(error(WeightReader::from_dir(&absent, &["model"])).contains("absent"));
    }
}
