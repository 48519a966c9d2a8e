//! Methods of pipelines that open a directory.

/// Defines the methods of a pipeline that open a directory, which all call
/// `Self::open(&Path, &OpenOptions, &Device)`, and with the feature `download` those that open a
/// repository of the hub. The arguments are the fields of `PipelineFiles`, for a directory with a
/// `ModelIndex`; or a text that says what the directory is, if `Self::download` downloads it.
macro_rules! pipeline_methods {
    (classes: $classes:expr, parts: $parts:expr, is_opened: $is_opened:expr) => {
        pipeline_methods!(
            "Opens a pipeline's directory, as diffusers writes it: `model_index.json` and a \
             directory for each part."
        );

        /// Downloads the pipeline's files of the hub, and returns their directory.
        #[cfg(feature = "download")]
        fn download(
            hub: &::aigc_core::hub::Hub,
            repo: &str,
            revision: &str,
            variant: Option<&str>,
            progress: &mut ::aigc_core::data::download::ProgressFn<'_>,
        ) -> ::aigc_core::Result<::std::path::PathBuf> {
            let files = $crate::hub::PipelineFiles {
                classes: $classes,
                parts: $parts,
                is_opened: &$is_opened,
            };
            files.snapshot(hub, repo, revision, variant, progress)
        }
    };
    ($doc:literal) => {
        #[doc = $doc]
        ///
        /// The result reports what was not used.
        ///
        /// # Errors
        /// [`Error::Io`](aigc_core::Error::Io) for a missing file;
        /// [`Error::Data`](aigc_core::Error::Data) names file and field,
        /// [`Error::Config`](aigc_core::Error::Config) a field of a part,
        /// [`Error::Weights`](aigc_core::Error::Weights) the tensors that do not fit.
        pub fn from_pretrained(
            dir: impl AsRef<::std::path::Path>,
            device: &::burn::tensor::Device,
        ) -> ::aigc_core::Result<::aigc_core::weights::Loaded<Self>> {
            Self::from_pretrained_with(dir, &Default::default(), device)
        }

        /// [`from_pretrained`](Self::from_pretrained) for a variant of the weights, such as `fp16`.
        ///
        /// # Errors
        /// As [`from_pretrained`](Self::from_pretrained);
        /// [`Error::Weights`](aigc_core::Error::Weights) if a part lacks the variant.
        pub fn from_pretrained_with_variant(
            dir: impl AsRef<::std::path::Path>,
            variant: &str,
            device: &::burn::tensor::Device,
        ) -> ::aigc_core::Result<::aigc_core::weights::Loaded<Self>> {
            let options = ::aigc_core::weights::OpenOptions::default().with_variant(variant);
            Self::from_pretrained_with(dir, &options, device)
        }

        /// [`from_pretrained`](Self::from_pretrained) for a variant of the weights, or with
        /// parameters in half precision.
        ///
        /// # Errors
        /// As [`from_pretrained_with_variant`](Self::from_pretrained_with_variant).
        pub fn from_pretrained_with(
            dir: impl AsRef<::std::path::Path>,
            options: &::aigc_core::weights::OpenOptions,
            device: &::burn::tensor::Device,
        ) -> ::aigc_core::Result<::aigc_core::weights::Loaded<Self>> {
            Self::open(dir.as_ref(), options, device)
        }

        #[cfg(feature = "download")]
        aigc_core::hub_methods!(pub Self::download);
    };
}

pub(crate) use pipeline_methods;
