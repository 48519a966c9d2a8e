//! Where an API is, and how it is asked.

use super::{ApiKey, ImageOptions, ImagesApiError, ImagesApiErrorKind};
use std::time::Duration;

/// The longest time limit.
const MAX_TIMEOUT: Duration = Duration::from_secs(366 * 24 * 3600);

/// The address of the API itself.
pub(super) const OFFICIAL_URL: &str = "https://api.openai.com/v1";

/// Address, key and limits of a client. `Debug` hides the key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpenAiConfig {
    /// The address that the endpoints are below, such as `https://api.openai.com/v1`. `http` is
    /// possible to this machine only.
    pub base_url: String,
    /// The API key. A self-hosted server may not need one.
    pub api_key: Option<ApiKey>,
    /// Value of the header `OpenAI-Organization`.
    pub organization: Option<String>,
    /// Value of the header `OpenAI-Project`.
    pub project: Option<String>,
    /// Fields that [`TextToImage`](aigc_core::text_to_image::TextToImage) requests do not have:
    /// the model, the quality, the output format, `partial_images` and others.
    pub options: ImageOptions,
    /// Time limit of a call, with its retries and the download of its pictures. One picture can
    /// take minutes.
    pub timeout: Duration,
    /// Time limit of a connection.
    pub connect_timeout: Duration,
    /// How often a request is sent again after a failure that may pass. The server may charge for
    /// every try.
    pub max_retries: u32,
    /// Whether fields that the model refuses are left out, with a warning. Otherwise they are an
    /// error.
    pub drop_unsupported_fields: bool,
    /// Largest answer in bytes.
    pub max_answer_bytes: u64,
    /// Largest picture file in bytes.
    pub max_image_bytes: u64,
    /// Largest picture in pixels.
    pub max_pixels: u64,
}

impl Default for OpenAiConfig {
    fn default() -> Self {
        Self {
            base_url: OFFICIAL_URL.into(),
            api_key: None,
            organization: None,
            project: None,
            options: ImageOptions::default(),
            timeout: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(5),
            max_retries: 2,
            drop_unsupported_fields: false,
            max_answer_bytes: 512 << 20,
            max_image_bytes: 64 << 20,
            max_pixels: 64_000_000,
        }
    }
}

impl OpenAiConfig {
    /// A client of a server, without a key.
    pub fn new(base_url: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            ..Self::default()
        }
    }

    /// The environment variables of OpenAI's libraries: `OPENAI_API_KEY`, `OPENAI_BASE_URL`,
    /// `OPENAI_ORG_ID`, `OPENAI_PROJECT_ID`.
    ///
    /// # Errors
    /// [`ImagesApiErrorKind::Configuration`] if the key is not valid; the error does not show it.
    pub fn from_env() -> Result<Self, ImagesApiError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ImagesApiError> {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        Ok(Self {
            base_url: set("OPENAI_BASE_URL").unwrap_or_else(|| OFFICIAL_URL.into()),
            api_key: set("OPENAI_API_KEY").map(ApiKey::new).transpose()?,
            organization: set("OPENAI_ORG_ID"),
            project: set("OPENAI_PROJECT_ID"),
            ..Self::default()
        })
    }

    /// Sets the key.
    pub fn with_api_key(mut self, key: ApiKey) -> Self {
        self.api_key = Some(key);
        self
    }

    /// Sets the model.
    pub fn with_model(mut self, model: impl Into<String>) -> Self {
        self.options.model = Some(model.into());
        self
    }

    /// Sets the fields that requests for images from a prompt do not have.
    pub fn with_options(mut self, options: ImageOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets the time limit of a call.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how often a request is sent again.
    pub fn with_max_retries(mut self, max_retries: u32) -> Self {
        self.max_retries = max_retries;
        self
    }

    /// Sets whether fields that the model refuses are left out.
    pub fn with_drop_unsupported_fields(mut self, drop: bool) -> Self {
        self.drop_unsupported_fields = drop;
        self
    }

    pub(super) fn validate(&self) -> Result<(), ImagesApiError> {
        let fail = |message: String| {
            Err(ImagesApiError::new(
                ImagesApiErrorKind::Configuration,
                message,
            ))
        };
        for (name, time) in [
            ("timeout", self.timeout),
            ("connect_timeout", self.connect_timeout),
        ] {
            if time.is_zero() || time > MAX_TIMEOUT {
                let seconds = time.as_secs_f64();
                return fail(format!(
                    "{name} is {seconds} s, expected more than 0 and at most a year"
                ));
            }
        }
        if self.max_retries > 10 {
            return fail(format!(
                "max_retries is {}, expected at most 10",
                self.max_retries
            ));
        }
        for (name, value) in [
            ("organization", &self.organization),
            ("project", &self.project),
        ] {
            let is_header = |value: &String| value.bytes().all(|b| (b' '..=b'~').contains(&b));
            if !value.as_ref().is_none_or(is_header) {
                return fail(format!("{name} has characters outside ASCII"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_is_read_and_the_key_is_hidden() {
        let config = OpenAiConfig::from_variables(|name| match name {
            "OPENAI_API_KEY" => Some("sk-secret\n".into()),
            "OPENAI_BASE_URL" => Some("http://127.0.0.1:1/v1".into()),
            "OPENAI_ORG_ID" => Some(" ".into()),
            _ => None,
        })
        .unwrap();
        assert_eq!(config.base_url, "http://127.0.0.1:1/v1");
        assert_eq!(config.organization, None);
        let shown = format!("{config:?} {config:#?}");
        assert!(
            shown.contains("[key]") && !shown.contains("secret"),
            "{shown}"
        );
        let config = OpenAiConfig::from_variables(|_| None).unwrap();
        assert_eq!(config.base_url, OFFICIAL_URL);
        assert!(config.api_key.is_none());
    }

    #[test]
    fn limits_are_checked() {
        let config = OpenAiConfig::default();
        assert!(config.validate().is_ok());
        for bad in [
            config.clone().with_timeout(Duration::ZERO),
            config.clone().with_timeout(Duration::MAX),
            OpenAiConfig {
                connect_timeout: Duration::MAX,
                ..config.clone()
            },
            config.clone().with_max_retries(11),
            OpenAiConfig {
                project: Some("a\r\nb".into()),
                ..config.clone()
            },
        ] {
            let error = bad.validate().unwrap_err();
            assert_eq!(error.kind(), ImagesApiErrorKind::Configuration);
        }
    }
}
