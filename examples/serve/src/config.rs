//! Settings of a server.

use crate::auth::KeyDigest;
use std::{fmt, sync::Arc, time::Duration};

/// Receives one line for each request. The lines have no headers and no prompts.
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
    /// Time in which a request must have arrived.
    pub body_timeout: Duration,
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
    /// The prompt of variations.
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
            max_body_bytes: 64 << 20,
            max_input_pixels: 4096 * 4096,
            max_side: 2048,
            max_steps: 200,
            max_prompt_chars: 32_000,
            body_timeout: Duration::from_secs(60),
            url_lifetime: Duration::from_secs(3600),
            max_url_bytes: 512 << 20,
            public_url: None,
            low_steps: 10,
            high_steps: 50,
            variation_prompt: "a picture".into(),
            variation_strength: 0.5,
            log: None,
        }
    }
}

impl ServerConfig {
    /// Sets the key that clients must send.
    pub fn with_api_key(mut self, key: &str) -> Self {
        self.api_key = Some(KeyDigest::new(key));
        self
    }

    /// Whether clients must send a key.
    pub fn has_api_key(&self) -> bool {
        self.api_key.is_some()
    }

    pub(crate) fn log(&self, line: &str) {
        if let Some(log) = &self.log {
            log(line);
        }
    }
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
