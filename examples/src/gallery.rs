//! Pictures with a record of how they were made.

use aigc_core::{
    Error, Result,
    burn::tensor::Tensor,
    output::{
        Animation, ImageGrid, provenance::Provenance, save_gif_with_provenance,
        save_image_with_provenance,
    },
    sampling::Samples,
    train::PreviewContext,
    weights::hash_files,
};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Writes pictures of a model as PNG and GIF files, each with a [`Provenance`] record.
#[derive(Clone, Debug)]
pub struct Gallery {
    grid: ImageGrid,
    record: Provenance,
}

impl Gallery {
    /// Pictures of the model `name` of a family of models, drawn in `grid`.
    pub fn new(grid: ImageGrid, family: &str, name: &str) -> Self {
        Self {
            grid,
            record: Provenance::new(name).with_setting("family", family),
        }
    }

    /// The grid.
    pub fn grid(&self) -> ImageGrid {
        self.grid
    }

    /// Draws in another grid.
    pub fn with_grid(self, grid: ImageGrid) -> Self {
        Self { grid, ..self }
    }

    /// Records the hash of the weights in these directories and the directories in them.
    ///
    /// # Errors
    /// [`Error::Io`] if a directory or a file cannot be read.
    pub fn with_weights(self, dirs: &[PathBuf]) -> Result<Self> {
        let mut files = Vec::new();
        for dir in dirs {
            files.extend(weight_files(dir)?);
        }
        if files.is_empty() {
            return Ok(self);
        }
        let hash = hash_files(files.iter().map(PathBuf::as_path))?;
        Ok(Self {
            record: self.record.with_model_hash(hash),
            ..self
        })
    }

    /// Records the seed of the random numbers.
    pub fn with_seed(self, seed: u64) -> Self {
        Self {
            record: self.record.with_seed(seed),
            ..self
        }
    }

    /// Records a setting.
    pub fn with_setting(self, name: &str, value: impl Into<Value>) -> Self {
        Self {
            record: self.record.with_setting(name, value),
            ..self
        }
    }

    /// Records the classes of the pictures, in their order.
    pub fn with_classes(self, classes: &[u32]) -> Self {
        match classes {
            [first, rest @ ..] if rest.iter().all(|class| class == first) => Self {
                record: self.record.with_class(*first as usize),
                ..self
            },
            _ => self.with_setting("classes", classes.to_vec()),
        }
    }

    /// Records the seed and the classes of samples.
    pub fn with_samples(self, samples: &Samples) -> Self {
        let gallery = self.with_seed(samples.seed);
        match &samples.labels {
            Some(classes) => gallery.with_classes(classes),
            None => gallery,
        }
    }

    /// Records the training step of a preview. The weights of a model in training have no hash.
    fn at_step(self, at: &PreviewContext<'_>) -> Self {
        self.with_setting("training_step", at.step)
    }

    /// Writes a grid of images.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]`, channels 1 (grey) or 3 (RGB)
    ///
    /// # Errors
    /// As for [`save_image_with_provenance`].
    pub fn save(&self, images: &Tensor<4>, path: &Path) -> Result<()> {
        save_image_with_provenance(images, self.grid, &self.record, path)
    }

    /// Writes a grid of samples, with their seed and classes.
    ///
    /// # Errors
    /// As for [`save`](Self::save).
    pub fn save_samples(&self, samples: &Samples, path: &Path) -> Result<()> {
        let gallery = self.clone().with_samples(samples);
        gallery.save(&samples.values, path)
    }

    /// Writes a grid of samples of a model in training.
    ///
    /// # Errors
    /// As for [`save`](Self::save).
    pub fn save_preview(&self, samples: &Samples, at: &PreviewContext<'_>) -> Result<()> {
        let gallery = self.clone().with_samples(samples);
        gallery.save_preview_images(&samples.values, at)
    }

    /// Writes a grid of images of a model in training that are no samples.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]`, channels 1 (grey) or 3 (RGB)
    ///
    /// # Errors
    /// As for [`save`](Self::save).
    pub fn save_preview_images(&self, images: &Tensor<4>, at: &PreviewContext<'_>) -> Result<()> {
        let gallery = self.clone().at_step(at);
        gallery.save(images, &at.run.sample_path(at.step, "png"))
    }

    /// Writes grids of images as an endless GIF, each shown for `delay`.
    ///
    /// # Shapes
    /// - frames: `[batch, channels, height, width]` each, channels 1 (grey) or 3 (RGB)
    ///
    /// # Errors
    /// As for [`save_gif_with_provenance`].
    pub fn save_gif(&self, frames: Vec<Tensor<4>>, delay: Duration, path: &Path) -> Result<()> {
        save_gif_with_provenance(frames, self.grid, delay, &self.record, path)
    }

    /// Writes an animation, each frame of which is shown for `delay`.
    ///
    /// # Errors
    /// As for [`Animation::save_with_provenance`].
    pub fn save_animation(
        &self,
        animation: &Animation,
        delay: Duration,
        path: &Path,
    ) -> Result<()> {
        animation.save_with_provenance(delay, &self.record, path)
    }
}

/// The files of weights in a directory and in the directories of a pipeline's components, in order
/// of their names: safetensors files, or files of PyTorch where there are none.
fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = entries(dir)?;
    let components: Vec<PathBuf> = found.iter().filter(|at| at.is_dir()).cloned().collect();
    for component in components {
        found.extend(entries(&component)?);
    }
    found.sort();
    let of_kind = |kind: &str| -> Vec<PathBuf> {
        let is_kind = |at: &&PathBuf| at.extension().is_some_and(|found| found == kind);
        found.iter().filter(is_kind).cloned().collect()
    };
    let safetensors = of_kind("safetensors");
    Ok(match safetensors.is_empty() {
        true => of_kind("bin"),
        false => safetensors,
    })
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).map_err(Error::io(dir))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    paths
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(Error::io(dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_core::{checkpoint::RunDir, device::device, output::provenance::verify_file};

    fn samples(labels: Option<Vec<u32>>) -> Samples {
        let device = device("flex").unwrap();
        Samples::new((Tensor::ones([4, 1, 8, 8], &device), true), labels, 7)
    }

    #[test]
    fn pictures_name_model_seed_and_classes() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("unet")).unwrap();
        std::fs::write(at("unet/weights.safetensors"), "abc").unwrap();
        let gallery = Gallery::new(ImageGrid::new(2, 8), "GAN", "tiny")
            .with_weights(&[folder.path().to_path_buf()])
            .unwrap()
            .with_setting("truncation", 0.5);
        let path = at("samples.png");
        gallery
            .save_samples(&samples(Some(vec![0, 1, 0, 1])), &path)
            .unwrap();
        let found = verify_file(&path).unwrap();
        let record = found.valid().unwrap();
        assert_eq!((record.model.as_str(), record.seed), ("tiny", Some(7)));
        // SHA-256 of "abc".
        let hash = record.model_hash.as_deref().unwrap();
        assert!(
            hash.starts_with("ba7816bf") && hash.ends_with("15ad"),
            "{hash}"
        );
        assert_eq!(record.settings["classes"], serde_json::json!([0, 1, 0, 1]));
        assert_eq!(record.settings["truncation"], 0.5);
        assert_eq!(record.settings["family"], "GAN");

        let path = at("walk.gif");
        let frames = vec![samples(None).values; 2];
        let delay = Duration::from_millis(50);
        gallery.save_gif(frames, delay, &path).unwrap();
        assert!(verify_file(&path).unwrap().valid().is_some());
    }

    #[test]
    fn previews_name_their_step() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path().join("run")).unwrap();
        let gallery = Gallery::new(ImageGrid::new(2, 8), "VAE", "tiny");
        let at = PreviewContext { step: 5, run: &run };
        gallery
            .save_preview(&samples(Some(vec![3; 4])), &at)
            .unwrap();
        let found = verify_file(run.sample_path(5, "png")).unwrap();
        let record = found.valid().unwrap();
        assert_eq!(record.settings["training_step"], 5);
        assert_eq!((record.class, &record.model_hash), (Some(3), &None));
    }
}
