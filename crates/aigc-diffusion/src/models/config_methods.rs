//! Reading and writing of configurations whose files have the fields as they are.

/// Defines `from_json` and `to_json` of a configuration with a method `validate`. `$class`: name of
/// the class in diffusers; `$unsupported`: fields of options that are not implemented, with the
/// only value that is accepted.
macro_rules! json_methods {
    ($class:literal, $unsupported:expr) => {
        /// A configuration from the fields of its file; the others have defaults. The report lists
        /// unknown fields, which were ignored.
        ///
        /// # Errors
        /// [`Error::Config`](aigc_core::Error::Config) names a field with a value that it cannot
        /// have, or that is not supported.
        pub fn from_json(text: &str) -> aigc_core::Result<aigc_core::weights::Loaded<Self>> {
            let fields = $crate::json::parse_object(text)?;
            let config: aigc_core::weights::Loaded<Self> =
                $crate::json::network(fields, $class, $unsupported)?;
            config.validate()?;
            Ok(config)
        }

        /// The configuration as diffusers writes it.
        pub fn to_json(&self) -> String {
            $crate::json::to_text(self, $class)
        }
    };
}

pub(super) use json_methods;
