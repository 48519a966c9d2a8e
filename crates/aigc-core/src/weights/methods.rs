//! Methods of models that open and save a directory.

/// Defines the methods of a model that open a directory: `from_pretrained`,
/// `from_pretrained_with_variant` and `from_pretrained_with`, which all call
/// `Self::open(&Path, &OpenOptions, &Device)`. The argument is the stem of the names of weight
/// files.
#[macro_export]
macro_rules! open_methods {
    ($stem:literal) => {
        #[doc = concat!("Opens a model's directory: `config.json` and `", $stem, ".*`, in any \
                         layout that `WeightReader::from_dir` knows.")]
        ///
        /// # Errors
        /// [`Error::Io`], [`Error::Data`], [`Error::Config`] or [`Error::Weights`], naming the file
        /// and the field, tensor or value.
        ///
        /// [`Error::Io`]: aigc_core::Error::Io
        /// [`Error::Data`]: aigc_core::Error::Data
        /// [`Error::Config`]: aigc_core::Error::Config
        /// [`Error::Weights`]: aigc_core::Error::Weights
        pub fn from_pretrained(
            dir: impl ::std::convert::AsRef<::std::path::Path>,
            device: &$crate::burn::tensor::Device,
        ) -> $crate::Result<$crate::weights::Loaded<Self>> {
            Self::from_pretrained_with(dir, &::std::default::Default::default(), device)
        }

        #[doc = concat!("[`from_pretrained`](Self::from_pretrained) for a variant of the weights: \
                         `fp16` opens `", $stem, ".fp16.safetensors`.")]
        ///
        /// # Errors
        /// As [`from_pretrained`](Self::from_pretrained);
        /// [`Error::Weights`](aigc_core::Error::Weights) if the variant is missing.
        pub fn from_pretrained_with_variant(
            dir: impl ::std::convert::AsRef<::std::path::Path>,
            variant: &str,
            device: &$crate::burn::tensor::Device,
        ) -> $crate::Result<$crate::weights::Loaded<Self>> {
            let options = $crate::weights::OpenOptions::default().with_variant(variant);
            Self::from_pretrained_with(dir, &options, device)
        }

        /// [`from_pretrained`](Self::from_pretrained) for a variant of the weights, or with
        /// parameters in half precision.
        ///
        /// # Errors
        /// As [`from_pretrained`](Self::from_pretrained);
        /// [`Error::Weights`](aigc_core::Error::Weights) if the variant is missing.
        pub fn from_pretrained_with(
            dir: impl ::std::convert::AsRef<::std::path::Path>,
            options: &$crate::weights::OpenOptions,
            device: &$crate::burn::tensor::Device,
        ) -> $crate::Result<$crate::weights::Loaded<Self>> {
            Self::open(dir.as_ref(), options, device)
        }
    };
}

/// Defines the methods of a model that open and save a directory with `config.json` and weights:
/// those of [`open_methods`](crate::open_methods), and `save_pretrained`. The arguments are the
/// type `C` of the configuration; `fn(&C, &Device) -> Result<Model>`, by default `C::init`; a
/// function that returns the configuration of a model; and the
/// [`RenamedField`](crate::weights::RenamedField)s of older files, by default none.
#[macro_export]
macro_rules! pretrained_methods {
    ($config:ty, config: $of_model:expr) => {
        $crate::pretrained_methods!($config, init: <$config>::init, config: $of_model, renamed: []);
    };
    ($config:ty, init: $init:expr, config: $of_model:expr, renamed: $renamed:expr) => {
        $crate::open_methods!("model");

        fn open(
            dir: &::std::path::Path,
            options: &$crate::weights::OpenOptions,
            device: &$crate::burn::tensor::Device,
        ) -> $crate::Result<$crate::weights::Loaded<Self>> {
            let init = |config: &$config| ($init)(config, device);
            $crate::weights::load_pretrained_with(dir, options, &$renamed, init)
        }

        /// Writes `config.json` and `model.safetensors` to a directory.
        ///
        /// # Errors
        /// [`Error::Io`](aigc_core::Error::Io) or [`Error::Weights`](aigc_core::Error::Weights) if
        /// a file cannot be written.
        pub fn save_pretrained(
            &self,
            dir: impl ::std::convert::AsRef<::std::path::Path>,
        ) -> $crate::Result<()> {
            $crate::weights::save_pretrained(self, &($of_model)(self), dir.as_ref())
        }
    };
}
