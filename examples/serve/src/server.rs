//! Starts and stops a server; the table of its addresses.

use crate::{
    ServerConfig,
    auth::{check_key, check_origin},
    body::forget,
    connections::{ConnectionLimits, serve_connections},
    error::ApiError,
    files::Files,
    images::{edits, generations, variations},
    log_line::LogLine,
    random::random_name,
    worker::{OpenModel, Worker},
};
use aigc_core::{Error, Result};
use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Path, Request, State, rejection::PathRejection},
    http::{
        HeaderName, HeaderValue, Response,
        header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    },
    middleware::{Next, from_fn_with_state},
    response::IntoResponse,
    routing::{get, post},
};
use serde_json::json;
use std::{
    fmt,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::oneshot;

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) config: ServerConfig,
    pub(crate) worker: Worker,
    pub(crate) files: Files,
    /// Name of the model.
    pub(crate) model: String,
    pub(crate) address: SocketAddr,
    started: u64,
}

/// A server that runs on threads of its own. It stops when it is dropped.
pub struct RunningServer {
    shared: Arc<Shared>,
    /// Tells the server's thread to accept nothing more.
    stop: Option<oneshot::Sender<()>>,
    /// Tells it that the model has made its last image.
    finished: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

/// Opens the model and starts a server that listens on `listener`.
///
/// # Errors
/// [`Error::Config`] for settings that are not possible, before the model is opened; errors of the
/// model; [`Error::Other`] if the server cannot start.
pub fn start(
    listener: TcpListener,
    config: ServerConfig,
    open: OpenModel,
) -> Result<RunningServer> {
    config.validate()?;
    let address = listener.local_addr().map_err(Error::other)?;
    listener.set_nonblocking(true).map_err(Error::other)?;
    let worker = Worker::spawn(open, config.queue)?;
    let model = config.model.clone();
    let shared = Arc::new(Shared {
        files: Files::new(config.url_lifetime, config.max_url_bytes),
        model: model.unwrap_or_else(|| worker.model().to_string()),
        worker,
        config,
        address,
        started: unix_seconds(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .map_err(Error::other)?;
    let (stop, stopped) = oneshot::channel();
    let (finished, is_finished) = oneshot::channel();
    let thread = thread::Builder::new().name("server".into());
    let thread = thread.spawn({
        let shared = shared.clone();
        move || runtime.block_on(serve(listener, shared, stopped, is_finished))
    });
    Ok(RunningServer {
        shared,
        stop: Some(stop),
        finished: Some(finished),
        thread: Some(thread.map_err(Error::other)?),
    })
}

impl RunningServer {
    /// The address that the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// The base URL for clients.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.shared.address)
    }

    /// Name of the model.
    pub fn model(&self) -> &str {
        &self.shared.model
    }

    /// Number of requests that wait or are made.
    pub fn load(&self) -> usize {
        self.shared.worker.queue().load()
    }

    /// Whether the server has ended by itself.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops accepting requests, refuses those that wait, finishes the one that is being made, and
    /// returns when all is answered. Clients that do not take their answer within
    /// [`ServerConfig::stop_timeout`] lose it.
    ///
    /// # Errors
    /// [`Error::Other`] if the server had failed.
    pub fn stop(mut self) -> Result<()> {
        self.shut_down()
    }

    fn shut_down(&mut self) -> Result<()> {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let worker = self.shared.worker.join();
        if let Some(finished) = self.finished.take() {
            let _ = finished.send(());
        }
        let server = match self.thread.take() {
            Some(thread) => thread
                .join()
                .map_err(|_| Error::other("the server's thread panicked"))?
                .map_err(Error::other),
            None => Ok(()),
        };
        match worker {
            true => server,
            false => Err(Error::other("the model's thread panicked")),
        }
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        let _ = self.shut_down();
    }
}

impl fmt::Debug for RunningServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningServer")
            .field("address", &self.shared.address)
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    stopped: oneshot::Receiver<()>,
    finished: oneshot::Receiver<()>,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    // Pictures whose time is over are removed without a request, too.
    let cleaning = tokio::spawn({
        let shared = shared.clone();
        async move {
            loop {
                tokio::time::sleep(Duration::from_secs(60)).await;
                shared.files.clean();
            }
        }
    });
    let limits = ConnectionLimits {
        count: shared.config.max_connections,
        header_timeout: shared.config.header_timeout,
        write_timeout: shared.config.write_timeout,
        stop_timeout: shared.config.stop_timeout,
    };
    serve_connections(listener, router(shared), limits, stopped, finished).await;
    cleaning.abort();
    Ok(())
}

fn router(shared: Arc<Shared>) -> Router {
    let keyed = Router::new()
        .route("/v1/images/generations", post(generations))
        .route("/v1/images/edits", post(edits))
        .route("/v1/images/variations", post(variations))
        .route("/v1/models", get(models))
        .route("/v1/models/{model}", get(model))
        .method_not_allowed_fallback(no_such_method)
        .route_layer(from_fn_with_state(shared.clone(), admit));
    let open = Router::new()
        // The name is the permission.
        .route("/v1/files/{name}", get(file))
        .method_not_allowed_fallback(no_such_method);
    keyed
        .merge(open)
        .fallback(no_such_address)
        // Bodies have their own limit.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(shared.clone(), note))
        .with_state(shared)
}

/// Gives every answer a name, and logs it. A stream keeps the line of the log, an extension of its
/// request, until its job has ended.
async fn note(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response<Body> {
    let id = format!("req_{}", random_name().unwrap_or_default());
    let (mut parts, body) = request.into_parts();
    let line = Arc::new(LogLine::new(shared, &parts, id.clone()));
    parts.extensions.insert(line.clone());
    let mut response = next.run(Request::from_parts(parts, body)).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        let name = HeaderName::from_static("x-request-id");
        response.headers_mut().insert(name, value);
    }
    line.answer(&response);
    response
}

/// Lets requests with the key pass. Where there is none, those that a page of another site has a
/// browser send are refused.
async fn admit(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response<Body> {
    let admitted = match &shared.config.api_key {
        Some(key) => check_key(key, request.headers()),
        None => check_origin(request.headers()),
    };
    match admitted {
        Ok(()) => next.run(request).await,
        Err(error) => {
            forget(request).await;
            error.into_response()
        }
    }
}

/// An answer in JSON.
pub(crate) fn json_response(body: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// The names that the model answers to, its own one first.
fn names(shared: &Shared) -> Vec<&str> {
    let mut names = vec![shared.model.as_str()];
    for alias in &shared.config.aliases {
        if !names.contains(&alias.as_str()) {
            names.push(alias);
        }
    }
    names
}

/// The model under one of its names.
fn model_object(shared: &Shared, name: &str) -> serde_json::Value {
    json!({"id": name, "object": "model", "created": shared.started, "owned_by": "aigc"})
}

async fn models(State(shared): State<Arc<Shared>>) -> Response<Body> {
    let names = names(&shared).into_iter();
    let models: Vec<_> = names.map(|name| model_object(&shared, name)).collect();
    json_response(&json!({"object": "list", "data": models}))
}

/// The last part of an address, which may be no text.
type Name = Result<Path<String>, PathRejection>;

async fn model(State(shared): State<Arc<Shared>>, name: Name) -> Response<Body> {
    let name = name.map_or_else(|_| String::new(), |Path(name)| name);
    match names(&shared).contains(&name.as_str()) {
        true => json_response(&model_object(&shared, &name)),
        false => ApiError::model(&name, &shared.model).into_response(),
    }
}

async fn file(State(shared): State<Arc<Shared>>, name: Name) -> Response<Body> {
    let file = name.ok().and_then(|Path(name)| shared.files.find(&name));
    let Some(file) = file else {
        return ApiError::not_found("/v1/files/…").into_response();
    };
    let mut response = Response::new(Body::from(file.bytes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.mime_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn no_such_address(request: Request) -> ApiError {
    ApiError::not_found(request.uri().path())
}

async fn no_such_method(request: Request) -> ApiError {
    ApiError::method(request.method().as_str(), request.uri().path())
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
