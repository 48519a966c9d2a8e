//! A server that answers OpenAI's images API from a local model.
//!
//! | endpoint | what |
//! |---|---|
//! | `POST /v1/images/generations` | images of a prompt |
//! | `POST /v1/images/edits` | an image changed by a prompt, or its part under a mask |
//! | `POST /v1/images/variations` | an image changed a little |
//! | `GET /v1/models` | the name of the model, and its aliases |
//! | `GET /v1/files/NAME` | pictures that were answered by their address, for an hour |
//!
//! A model is not shared between threads: [`start`] opens it on a thread of its own (`worker.rs`),
//! which makes one request after the other. Requests wait in a queue with a bound (`queue.rs`);
//! beyond it they are refused with the status 429. When a client hangs up, its request leaves the
//! queue, or the model is told to stop. Connections have bounds of number and time
//! (`connections.rs`), so that clients that send or read slowly do not keep others out.
//!
//! Every error, also of a wrong address or method, has the API's form (`error.rs`). Fields that the
//! server does not know are errors that name them.

#![forbid(unsafe_code)]
// Errors are answers, made once per request.
#![allow(clippy::result_large_err)]

mod auth;
mod body;
mod config;
mod connections;
mod endpoint;
mod error;
mod fields;
mod files;
mod images;
mod log_line;
mod picture;
mod progress;
mod queue;
mod random;
mod request;
mod server;
mod stream;
mod worker;

pub use config::{LogFn, ServerConfig};
pub use server::{RunningServer, start};
pub use worker::OpenModel;
