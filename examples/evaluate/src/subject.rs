//! What a path holds: a run of this repository, images, texts or sounds.

use aigc_core::{DataFault, Error, Result, data::idx::MnistDataset};
use std::{
    collections::HashSet,
    fmt,
    path::{Path, PathBuf},
};

/// A kind of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Images,
    Texts,
    Sounds,
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Images => "images",
            Self::Texts => "texts",
            Self::Sounds => "sounds",
        })
    }
}

/// The name of the embedded digits on the command line.
pub(crate) const DIGITS: &str = "digits";

/// Whether a path means the embedded digits; a directory of this name comes first.
pub(crate) fn is_digits(path: &Path) -> bool {
    path.as_os_str() == DIGITS && !path.exists()
}

/// Extensions of texts.
const TEXTS: [&str; 2] = ["txt", "md"];
/// Extensions of sounds.
const SOUNDS: [&str; 2] = ["wav", "wave"];
/// Extensions that say what most files of a folder are; images may have others.
const IMAGES: [&str; 8] = ["png", "jpg", "jpeg", "gif", "webp", "bmp", "tif", "tiff"];

impl Content {
    /// The content of a data set. In a folder of several kinds, what most files have; images, if as
    /// many have captions beside them.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no such file or directory; [`Error::Data`] for an empty directory,
    /// or a file that is neither a text nor a sound.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        if is_digits(path) {
            return Ok(Self::Images);
        }
        let about = std::fs::metadata(path).map_err(Error::io(path))?;
        if !about.is_dir() {
            return match Self::of_file(path) {
                Self::Images => {
                    let reason = "a single file; expected a folder of images, a text (.txt) or a \
                                  sound (.wav)";
                    Err(Error::data(path, DataFault::Mismatch(reason.into())))
                }
                other => Ok(other),
            };
        }
        if MnistDataset::is_in(path) {
            return Ok(Self::Images);
        }
        let files = files_in(path)?;
        if files.is_empty() {
            let nothing = "no file in it; expected images, texts (.txt) or sounds (.wav)";
            return Err(Error::data(path, DataFault::Empty(nothing.into())));
        }
        let count = |known: &[&str]| {
            let of_kind = files.iter().filter(|file| has_extension(file, known));
            of_kind.count()
        };
        // Of equal numbers, the last.
        let all = [
            (Self::Texts, count(&TEXTS)),
            (Self::Sounds, count(&SOUNDS)),
            (Self::Images, count(&IMAGES)),
        ];
        let most = all.into_iter().max_by_key(|(_, count)| *count);
        Ok(most.map_or(Self::Images, |(content, _)| content))
    }

    /// By extension; files with another one may be images.
    fn of_file(path: &Path) -> Self {
        if has_extension(path, &TEXTS) {
            Self::Texts
        } else if has_extension(path, &SOUNDS) {
            Self::Sounds
        } else {
            Self::Images
        }
    }

    /// The files of this content at a path: itself, or all below a directory, in the order of their
    /// names.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] if there is none.
    pub(crate) fn files(self, path: &Path) -> Result<Vec<PathBuf>> {
        if !path.is_dir() {
            return Ok(vec![path.to_path_buf()]);
        }
        let mut files = files_in(path)?;
        files.retain(|file| Self::of_file(file) == self);
        if files.is_empty() {
            return Err(Error::data(
                path,
                DataFault::Empty(format!("no {self} in it")),
            ));
        }
        Ok(files)
    }
}

fn has_extension(path: &Path, known: &[&str]) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    known.contains(&extension.to_lowercase().as_str())
}

/// All visible files below a directory, in the order of their names. Links to directories are
/// followed, each directory once.
fn files_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut left) = (Vec::new(), vec![dir.to_path_buf()]);
    let mut visited = HashSet::new();
    while let Some(dir) = left.pop() {
        // Links may lead back.
        if !visited.insert(dir.canonicalize().map_err(Error::io(&dir))?) {
            continue;
        }
        for entry in std::fs::read_dir(&dir).map_err(Error::io(&dir))? {
            let entry = entry.map_err(Error::io(&dir))?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            let path = entry.path();
            if path.is_dir() {
                left.push(path);
            } else if path.is_file() {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The trained model of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    Gan(PathBuf),
    Vae(PathBuf),
    HierarchicalVae(PathBuf),
    /// An autoencoder with quantised latents, and the prior over its codes.
    VqVae(PathBuf, PathBuf),
    Diffusion(PathBuf),
    Language(PathBuf),
}

/// What is judged.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    /// A run or a directory of a model.
    Run { path: PathBuf, model: Model },
    /// Files.
    Samples { path: PathBuf, content: Content },
}

impl Subject {
    /// Recognises a run by its model, and samples by their files.
    ///
    /// # Errors
    /// [`Error::Run`] for a run without a final model, or of a family that cannot be opened;
    /// [`Error::Io`]; [`Error::Data`] for an empty directory.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if let Some(model) = Model::find(path)? {
            let path = path.to_path_buf();
            return Ok(Self::Run { path, model });
        }
        let content = Content::of(path)?;
        let path = path.to_path_buf();
        Ok(Self::Samples { path, content })
    }

    pub(crate) fn content(&self) -> Content {
        match self {
            Self::Run { model, .. } => match model {
                Model::Language(_) => Content::Texts,
                _ => Content::Images,
            },
            Self::Samples { content, .. } => *content,
        }
    }

    /// The model of a run.
    pub(crate) fn model(&self) -> Option<&Model> {
        match self {
            Self::Run { model, .. } => Some(model),
            Self::Samples { .. } => None,
        }
    }

    /// The directory of a run.
    pub(crate) fn run_dir(&self) -> Option<&Path> {
        match self {
            Self::Run { path, .. } => Some(path),
            Self::Samples { .. } => None,
        }
    }
}

impl Model {
    /// The model in a run, in a directory of a model, or none.
    fn find(path: &Path) -> Result<Option<Self>> {
        let is = |parts: &[&str], file: &str| {
            let dir = parts
                .iter()
                .fold(path.to_path_buf(), |dir, part| dir.join(part));
            dir.join(file).is_file().then_some(dir)
        };
        for parts in [&["pipeline"][..], &[]] {
            if let Some(dir) = is(parts, "model_index.json") {
                return Ok(Some(Self::Diffusion(dir)));
            }
        }
        for parts in [&["model"][..], &[]] {
            let known = [
                "characters.json",
                "tokenizer.json",
                "vocab.json",
                "encoder.json",
            ];
            if let Some(dir) = is(parts, "config.json")
                && known.iter().any(|file| dir.join(file).is_file())
            {
                return Ok(Some(Self::Language(dir)));
            }
        }
        let dir = match (is(&["final"], "config.json"), is(&[], "model.safetensors")) {
            (Some(dir), _) | (None, Some(dir)) => dir,
            (None, None) if path.join("checkpoints").is_dir() => {
                let reason = "it has no final model; resume the training until it ends, or judge a \
                              folder of samples";
                return Err(Error::run(path, reason));
            }
            (None, None) => return Ok(None),
        };
        Self::of_config(path, dir).map(Some)
    }

    /// The family by the fields of `config.json`.
    fn of_config(path: &Path, dir: PathBuf) -> Result<Self> {
        let file = dir.join("config.json");
        let text = std::fs::read_to_string(&file).map_err(Error::io(&file))?;
        let config: serde_json::Value = serde_json::from_str(&text)
            .map_err(|error| Error::data(&file, DataFault::Decode(error.to_string())))?;
        let has = |field: &str| config.get(field).is_some();
        if has("levels") && has("shape") {
            return Ok(Self::HierarchicalVae(dir));
        }
        if has("quantizer") && has("strides") {
            let prior = path.join("prior").join("final");
            if !prior.join("config.json").is_file() {
                let reason = "the codes of its model have no prior in prior/final, so it cannot be \
                              sampled; train one, as `digits --model vqvae` does";
                return Err(Error::run(path, reason));
            }
            return Ok(Self::VqVae(dir, prior));
        }
        if has("kind") && has("shape") {
            // Both families have an `mlp`; only autoencoders have a likelihood.
            return Ok(match has("likelihood") {
                true => Self::Vae(dir),
                false => Self::Gan(dir),
            });
        }
        let reason = if config.is_null() {
            "its config.json has no model: train with `with_model_config`, or save samples to a \
             folder and judge that"
        } else {
            "its model is of no family that is opened here (GAN, VAE, hierarchical VAE, VQ-VAE \
             with a prior, diffusion pipeline, language model); save samples to a folder and judge \
             that"
        };
        Err(Error::run(path, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_what_most_files_are() {
        let root = std::env::temp_dir().join(format!("aigc-content-{}", std::process::id()));
        let of = |files: &[&str]| {
            let _ = std::fs::remove_dir_all(&root);
            std::fs::create_dir_all(&root).unwrap();
            for file in files {
                std::fs::write(root.join(file), "x").unwrap();
            }
            Content::of(&root).unwrap()
        };
        assert_eq!(of(&["a.png", "a.txt"]), Content::Images);
        assert_eq!(of(&["a.wav", "a.json", "b.json"]), Content::Sounds);
        assert_eq!(of(&["a.txt", "b.md", "a.png"]), Content::Texts);
        assert_eq!(of(&["a"]), Content::Images);
        let error = Content::of(&root.join("a")).unwrap_err().to_string();
        assert!(error.contains("expected a folder of images"), "{error}");
        std::fs::remove_dir_all(root).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn linked_directories_are_read_once() {
        use std::os::unix::fs::symlink;
        let root = std::env::temp_dir().join(format!("aigc-linked-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        let [data, other] = ["data", "other"].map(|name| root.join(name));
        for dir in [&data, &other] {
            std::fs::create_dir_all(dir).unwrap();
        }
        std::fs::write(data.join("a.txt"), "x").unwrap();
        std::fs::write(other.join("b.txt"), "x").unwrap();
        symlink(&other, data.join("linked")).unwrap();
        symlink(&data, other.join("back")).unwrap();
        let files = Content::Texts.files(&data).unwrap();
        assert_eq!(files, [data.join("a.txt"), data.join("linked/b.txt")]);
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn families_are_recognised() {
        let root = std::env::temp_dir().join(format!("aigc-evaluate-{}", std::process::id()));
        let model = |config: &str| {
            let dir = root.join("final");
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("config.json"), config).unwrap();
            Model::find(&root)
        };
        let shape = r#""shape": {"channels": 1, "height": 8, "width": 8}"#;
        let found = |config: String| model(&config).unwrap().unwrap();
        let dir = root.join("final");
        assert_eq!(
            found(format!(r#"{{"kind": "mlp", {shape}}}"#)),
            Model::Gan(dir.clone())
        );
        let vae = format!(r#"{{"kind": "mlp", "likelihood": "bernoulli", {shape}}}"#);
        assert_eq!(found(vae), Model::Vae(dir.clone()));
        let hierarchical = format!(r#"{{"levels": [], {shape}}}"#);
        assert_eq!(found(hierarchical), Model::HierarchicalVae(dir));
        let error = |config: &str| model(config).unwrap_err().to_string();
        assert!(error("null").contains("with_model_config"));
        assert!(error(r#"{"a": 1}"#).contains("of no family"));
        assert!(error(r#"{"quantizer": 1, "strides": []}"#).contains("no prior"));
        assert!(error("{").contains("cannot be decoded"));
        std::fs::remove_dir_all(root).unwrap();
    }
}
