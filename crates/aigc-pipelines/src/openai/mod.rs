//! A client of images APIs: OpenAI's, and those of compatible servers.
//!
//! ```no_run
//! use aigc_pipelines::openai::{CallOptions, CreateImageRequest, OpenAiImages};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // OPENAI_API_KEY, and OPENAI_BASE_URL for another server.
//! let client = OpenAiImages::from_env()?;
//! let request = CreateImageRequest::new("A cat wearing a hat");
//! let answer = client.generations(&request, &mut CallOptions::default())?;
//! std::fs::write("cat.png", &answer.images[0].bytes)?;
//! # Ok(()) }
//! ```
//!
//! - [`OpenAiImages`] has the three endpoints [`generations`](OpenAiImages::generations),
//!   [`edits`](OpenAiImages::edits) and [`variations`](OpenAiImages::variations), and implements
//!   [`TextToImage`](aigc_core::text_to_image::TextToImage).
//! - A field that is not set is not sent. A table of the API's models (`models.rs`) has the fields
//!   that each accepts; other models get what was set.
//! - Answers are read as servers write them (`response.rs`): every field is optional. Pictures come
//!   in base64, or are fetched from their address at once. Streams have partial images.
//! - A request that failed may be sent again ([`CallEvent::Retry`]), at most
//!   [`max_retries`](OpenAiConfig::max_retries) times: when the server could not be reached, is
//!   overloaded or limits the rate, after the wait that it asks for (at most two minutes). Not when
//!   credit is used up, and not after the time limit.
//! - An error says what the server said ([`ImagesApiError`]), whatever the form.
//! - The key is in [`ApiKey`], and in no error, log or `Debug` output. Connections are encrypted,
//!   except to this machine.
//!
//! Calls block. There is no asynchronous variant: such a program makes the call on a thread of its
//! own (`spawn_blocking`), and stops it by [`CallOptions::cancel`].

mod answer;
mod call;
mod check;
mod client;
mod config;
mod decode;
mod error;
mod exchange;
mod file;
mod key;
mod models;
mod multipart;
mod picture;
mod random;
mod read;
mod request;
mod response;
mod retry;
mod send;
mod sse;
mod stream;
#[cfg(test)]
mod tests;
mod text_to_image;
mod url;

pub use call::{CallEvent, CallOptions};
pub use client::OpenAiImages;
pub use config::OpenAiConfig;
pub use decode::{PictureFault, decode_picture};
pub use error::{ImagesApiError, ImagesApiErrorKind, ModerationDetails};
pub use file::ImageFile;
pub use key::ApiKey;
pub use picture::PictureFormat;
pub use request::{
    CreateImageEditRequest, CreateImageRequest, CreateImageVariationRequest, ImageOptions,
};
pub use response::{ApiImage, ImagesResponse, PartialImage, Usage};
