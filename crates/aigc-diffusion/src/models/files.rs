//! Directories of networks: `config.json` and `diffusion_pytorch_model.*`.

use super::any::{CONFIG, WEIGHTS};
#[cfg(feature = "download")]
use aigc_core::hub_model::ModelFiles;
use aigc_core::{Error, Result, checkpoint::write_atomic, weights::save_weights};
use burn::module::Module;
use std::path::Path;

/// Files of a network on the hub: alone, or as a part of a pipeline.
#[cfg(feature = "download")]
pub(crate) const HUB_FILES: ModelFiles<'static> = ModelFiles {
    directories: &[
        "",
        "unet",
        "transformer",
        "controlnet",
        "motion_adapter",
        "projection_model",
    ],
    ..ModelFiles::DIFFUSERS
};

/// Writes a network's directory, which is created if it is missing.
pub(crate) fn save<M: Module>(network: &M, config: &str, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    write_atomic(&dir.join(CONFIG), config.as_bytes())?;
    save_weights(network, &dir.join(WEIGHTS))
}

/// Defines the methods that open and save a network with the configuration `$config`.
macro_rules! network_methods {
    ($config:ident) => {
        aigc_core::open_methods!("diffusion_pytorch_model");
        #[cfg(feature = "download")]
        aigc_core::hub_methods!(pub config: $config, files: $crate::models::files::HUB_FILES);

        fn open(dir: &Path, options: &OpenOptions, device: &Device) -> Result<Loaded<Self>> {
            let create = |text: &str| Self::create(text, device);
            open_model(
                dir,
                $crate::models::any::STEMS,
                options,
                create,
                diffusers_key,
            )
        }

        /// A network from the text of its `config.json` and its weights, which may be a part of a
        /// larger file ([`WeightReader::renamed`]).
        ///
        /// # Errors
        /// [`Error::Config`](aigc_core::Error::Config) names the field,
        /// [`Error::Weights`](aigc_core::Error::Weights) the tensors that do not fit.
        pub fn from_weights(
            config: &str,
            files: &WeightReader,
            dtype: WeightDtype,
            device: &Device,
        ) -> Result<Loaded<Self>> {
            files.load(Self::create(config, device)?, dtype, diffusers_key)
        }

        /// A network of the text of a configuration, with initial weights.
        fn create(text: &str, device: &Device) -> Result<Loaded<Self>> {
            let config = $config::from_json(text)?;
            let network = config.init(device)?;
            Ok(config.map(|_| network))
        }

        /// Writes a network's directory, as diffusers does.
        ///
        /// # Errors
        /// [`Error::Io`](aigc_core::Error::Io) or [`Error::Weights`](aigc_core::Error::Weights) if
        /// a file cannot be written.
        pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
            $crate::models::files::save(self, &self.config.to_json(), dir.as_ref())
        }
    };
}

pub(super) use network_methods;
