//! Settings of a server.

use crate::auth::KeyDigest;
use aigc_core::{Error, Result};
use axum::http::Uri;
use std::{fmt, sync::Arc, time::Duration};

/// The longest times, and the largest numbers of requests and connections, that are possible.
const MAX_TIME: Duration = Duration::from_secs(366 * 24 * 3600);
const MAX_REQUESTS: usize = 100_000;

/// Receives one line for each request whose headers have arrived: when its answer is ready, when
/// its stream has ended, or when its connection is closed before. The lines have no headers and no
/// prompts.
pub type LogFn = Arc<dyn Fn(&str) + Send + Sync>;

/// Limits and names of a server.
#[derive(Clone)]
#[non_exhaustive]
pub struct ServerConfig {
    /// The key that clients must send, as a digest.
    pub(crate) api_key: Option<KeyDigest>,
    /// The model's name; by default the model's own.
    pub model: Option<String>,
    /// Further names that the model answers to.
    pub aliases: Vec<String>,
    /// Requests that may wait while another one is made.
    pub queue: usize,
    /// Images of a request.
    pub max_n: usize,
    /// Connections at a time; further ones wait.
    pub max_connections: usize,
    /// Bytes of a request.
    pub max_body_bytes: usize,
    /// Pixels of an image that is sent.
    pub max_input_pixels: u64,
    /// Width and height of an image that is asked for.
    pub max_side: u32,
    /// Denoising steps.
    pub max_steps: usize,
    /// Characters of a prompt.
    pub max_prompt_chars: usize,
    /// Time in which the headers of a request must have arrived, and after which a connection
    /// without a request is closed.
    pub header_timeout: Duration,
    /// Time in which the rest of a request must have arrived.
    pub body_timeout: Duration,
    /// Time after which a connection is closed whose client takes nothing of its answer.
    pub write_timeout: Duration,
    /// Time that clients have to take their answers when the server stops.
    pub stop_timeout: Duration,
    /// How long pictures are kept that are answered by their address.
    pub url_lifetime: Duration,
    /// Bytes of these pictures; beyond it the oldest are removed.
    pub max_url_bytes: usize,
    /// The address of the server as its clients see it, such as `https://example.org`. By default
    /// that of the request.
    pub public_url: Option<String>,
    /// Steps of the quality `low`; all other settings of the model stay as they are.
    pub low_steps: usize,
    /// Steps of the quality `high`.
    pub high_steps: usize,
    /// The prompt of variations. Empty by default: the image alone says what they show.
    pub variation_prompt: String,
    /// How much of an image a variation replaces, from 0 to 1.
    pub variation_strength: f64,
    /// Receives one line for each request.
    pub log: Option<LogFn>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            api_key: None,
            model: None,
            aliases: vec![],
            queue: 16,
            max_n: 10,
            max_connections: 128,
            max_body_bytes: 64 << 20,
            max_input_pixels: 4096 * 4096,
            max_side: 2048,
            max_steps: 200,
            max_prompt_chars: 32_000,
            header_timeout: Duration::from_secs(15),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(10),
            url_lifetime: Duration::from_secs(3600),
            max_url_bytes: 512 << 20,
            public_url: None,
            low_steps: 10,
            high_steps: 50,
            variation_prompt: String::new(),
            variation_strength: 0.5,
            log: None,
        }
    }
}

impl ServerConfig {
    /// Sets the key that clients must send; white space around it is removed.
    ///
    /// # Errors
    /// [`Error::Config`] if the key is empty or cannot be sent in a header. The error does not show
    /// it.
    pub fn with_api_key(mut self, key: &str) -> Result<Self> {
        let key = key.trim();
        let wrong = if key.is_empty() {
            "empty"
        } else if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            "a text with a space or a character outside ASCII"
        } else {
            self.api_key = Some(KeyDigest::new(key));
            return Ok(self);
        };
        Err(Error::config(
            "api_key",
            wrong,
            "printable ASCII characters",
        ))
    }

    /// Whether clients must send a key.
    pub fn has_api_key(&self) -> bool {
        self.api_key.is_some()
    }

    /// Fails if a setting is not possible.
    pub(crate) fn validate(&self) -> Result<()> {
        for (field, value) in [
            ("max_n", self.max_n),
            ("max_connections", self.max_connections),
            ("max_body_bytes", self.max_body_bytes),
            ("max_side", self.max_side as usize),
            ("max_steps", self.max_steps),
            ("max_prompt_chars", self.max_prompt_chars),
        ] {
            if value == 0 {
                return Err(Error::config(field, value, "at least 1"));
            }
        }
        for (field, value) in [
            ("queue", self.queue),
            ("max_connections", self.max_connections),
        ] {
            if value > MAX_REQUESTS {
                let expected = format!("at most {MAX_REQUESTS}");
                return Err(Error::config(field, value, expected));
            }
        }
        for (field, steps) in [
            ("low_steps", self.low_steps),
            ("high_steps", self.high_steps),
        ] {
            if !(1..=self.max_steps).contains(&steps) {
                let expected = format!("1 to {} (max_steps)", self.max_steps);
                return Err(Error::config(field, steps, expected));
            }
        }
        for (field, time) in [
            ("header_timeout", self.header_timeout),
            ("body_timeout", self.body_timeout),
            ("write_timeout", self.write_timeout),
            ("stop_timeout", self.stop_timeout),
            ("url_lifetime", self.url_lifetime),
        ] {
            if time.is_zero() || time > MAX_TIME {
                let value = format!("{} s", time.as_secs_f64());
                return Err(Error::config(field, value, "more than 0, at most a year"));
            }
        }
        if !(0.0..=1.0).contains(&self.variation_strength) {
            let value = self.variation_strength;
            return Err(Error::config("variation_strength", value, "0 to 1"));
        }
        if self.model.iter().chain(&self.aliases).any(String::is_empty) {
            return Err(Error::config("model", "empty", "a name"));
        }
        match &self.public_url {
            Some(url) if !is_base_url(url) => {
                let expected = "an address such as https://example.org";
                Err(Error::config("public_url", url, expected))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn log(&self, line: &str) {
        if let Some(log) = &self.log {
            log(line);
        }
    }
}

/// Whether paths can be appended to `url`.
fn is_base_url(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else {
        return false;
    };
    matches!(uri.scheme_str(), Some("http" | "https"))
        && uri.host().is_some_and(|host| !host.is_empty())
        && !url.contains(['?', '#'])
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("has_api_key", &self.has_api_key())
            .field("model", &self.model)
            .field("aliases", &self.aliases)
            .field("queue", &self.queue)
            .field("max_n", &self.max_n)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_settings_are_named() {
        let default = ServerConfig::default;
        assert!(default().validate().is_ok());
        let public = |url: &str| ServerConfig {
            public_url: Some(url.into()),
            ..default()
        };
        assert!(public("https://example.org/pictures/").validate().is_ok());
        for (bad, field) in [
            (
                ServerConfig {
                    max_n: 0,
                    ..default()
                },
                "max_n",
            ),
            (
                ServerConfig {
                    queue: usize::MAX,
                    ..default()
                },
                "queue",
            ),
            (
                ServerConfig {
                    max_connections: 0,
                    ..default()
                },
                "max_connections",
            ),
            (
                ServerConfig {
                    high_steps: 201,
                    ..default()
                },
                "high_steps",
            ),
            (
                ServerConfig {
                    url_lifetime: Duration::MAX,
                    ..default()
                },
                "url_lifetime",
            ),
            (
                ServerConfig {
                    variation_strength: f64::NAN,
                    ..default()
                },
                "variation_strength",
            ),
            (
                ServerConfig {
                    aliases: vec![String::new()],
                    ..default()
                },
                "model",
            ),
            (public("example.org"), "public_url"),
            (public("ftp://example.org"), "public_url"),
        ] {
            match bad.validate() {
                Err(Error::Config { field: found, .. }) => assert_eq!(found, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }

    #[test]
    fn keys_that_no_client_can_send_are_refused() {
        let with = |key: &str| ServerConfig::default().with_api_key(key);
        assert!(with(" sk-secret\n").unwrap().has_api_key());
        for bad in ["", " \n", "sk-sec ret", "sk-secr\u{e9}t"] {
            let error = with(bad).unwrap_err().to_string();
            assert!(
                error.contains("api_key") && !error.contains("sk-sec"),
                "{error}"
            );
        }
    }
}
